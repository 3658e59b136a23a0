// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverWire
import DroverZMQ
import Foundation
import Synchronization
import Testing

extension ServingTests {
    /// Valid traffic with errors in it, against both sides.
    ///
    /// `DROVER_MUTATIONS` says how many frames; `DROVER_SEED` which.
    @Suite(.serialized)
    struct MutationTests {}
}

extension ServingTests.MutationTests {
    private static let count = setting("DROVER_MUTATIONS", 20_000)
    private static let seed = UInt64(setting("DROVER_SEED", 1))
    /// Memory may grow by caches and pools, but not with the number of frames; AddressSanitizer keeps 64 MiB of freed memory.
    private static let growthLimit = (isSanitized ? 192 : 64) << 20

    @Test("mutated frames don't harm a worker", .timeLimit(.minutes(30)))
    func worker() throws {
        let rig = try Rig { $0.silenceLimit = .seconds(5) }
        let client = try rig.client { $0.silenceLimit = .seconds(5) }
        let raw = try RawPeer(.dealer, connect: rig.endpoint, keeps: false)
        let identity = PeerID.random()
        var mutator = Mutator(seed: Self.seed)
        let hello = RawMessage(.hello, id: 5, payload: Packed.hello(client: identity))
        let define = RawMessage(.define, number: 0, payload: Array("echo".utf8))
        let templates: [RawMessage] = [
            hello, define, RawMessage(.beat, id: 5), RawMessage(.ping, id: 9), RawMessage(.cancel, id: 3),
            RawMessage(.request, id: 7, time: Header.noTimeLimit, payload: Packed.arguments(1)),
            RawMessage(.request, id: 8, time: 5, flags: .metadata, payload: [0x81, 0xA3, 0x6B, 0x65, 0x79, 0xA1, 0x61])
                .appending(Packed.arguments(1)),
            RawMessage(.request, id: 9, time: 1000, flags: [.idempotent, .resent], payload: Packed.arguments("text")),
            RawMessage(.ended, number: 1), RawMessage(.flow, id: 1, number: 1),
            RawMessage(.reply, id: 1, payload: Packed.value(1)),
            RawMessage(.error, id: 1, payload: Packed.error("failed", "x")),
        ]
        let guardian = try Guardian(calling: client)
        var settled: Footprint?
        for number in 0..<Self.count {
            if number % 200 == 0 {
                raw.send([hello.bytes + define.bytes])
                // Keeps the queue between the two short.
                #expect(try client.function(Job.echo).blocking(number) == number)
            }
            if number == Self.count / 10 { settled = .now }
            raw.send(mutator.mutate(templates))
        }
        #expect(try guardian.finish() > 0)
        Self.expectNoGrowth(since: settled)
        #expect(try client.function(Job.echo).blocking(1) == 1)
        raw.stop()
        client.closeBlocking()
        rig.stop()
    }

    @Test("mutated frames don't harm a client", .timeLimit(.minutes(30)))
    func client() throws {
        let evil = try RawWorker()
        let rig = try Rig { $0.silenceLimit = .seconds(5) }
        let attacked = try Client.forTest(evil.endpoint) { $0.silenceLimit = .seconds(5) }
        let untouched = try rig.client { $0.silenceLimit = .seconds(5) }
        let callback = attacked.callback(.init(lifetime: .untilCancelled)) { (_: Int) in }
        var mutator = Mutator(seed: Self.seed &+ 1)
        let guardian = try Guardian(calling: untouched)
        try attacked.connectBlocking()
        var settled: Footprint?
        var ended = 0
        let rounds = max(1, Self.count / 1000)
        for number in 0..<rounds {
            if number == rounds / 10 { settled = .now }
            let result = try timed(attacked.function(Job.sureEcho), .seconds(1))(number)
            let id = result.correlationID.rawValue
            let templates: [RawMessage] = [
                RawMessage(.reply, id: id, payload: Packed.value(number)),
                RawMessage(.error, id: id, payload: Packed.error("failed", "x")),
                RawMessage(.accepted, id: id), RawMessage(.started, id: id),
                RawMessage(.progress, id: id, payload: Packed.value("half")),
                RawMessage(.cancelled, id: id, number: 1),
                RawMessage(.event, id: 4, number: callback.subscription.rawValue, payload: Packed.arguments(4)),
                RawMessage(.invoke, id: 4, number: callback.subscription.rawValue, payload: Packed.arguments(4)),
                RawMessage(.beat, id: 77), RawMessage(.ping, id: 1), RawMessage(.pong, id: 1),
                RawMessage(.welcome, id: 77, payload: Packed.welcome(window: 10, isResumed: true)),
            ]
            for _ in 0..<1000 { evil.send(frames: mutator.mutate(templates)) }
            evil.send(RawMessage(.reply, id: id, payload: Packed.value(number)))
            _ = try? result.wait()
            if result.isTerminal { ended += 1 }
        }
        #expect(ended == rounds)
        #expect(try guardian.finish() > 0)
        Self.expectNoGrowth(since: settled)
        // After all that the client still serves: a worker that behaves gets through.
        evil.send(RawMessage(.reset))
        evil.stop()
        attacked.closeBlocking()
        untouched.closeBlocking()
        rig.stop()
    }

    private static func expectNoGrowth(since settled: Footprint?) {
        guard let settled else { return }
        let now = Footprint.now
        #expect(now.residentBytes - settled.residentBytes < self.growthLimit, "from \(settled) to \(now)")
    }
}

extension RawMessage {
    func appending(_ bytes: [UInt8]) -> RawMessage {
        RawMessage(
            header: {
                var header = self.header
                header.payloadLength += UInt32(bytes.count)
                return header
            }(),
            payload: self.payload + bytes
        )
    }
}

/// Makes calls all the time on a thread of its own; each must be answered.
final class Guardian: Sendable {
    private let thread: LoopThread
    private let flag: Flag
    private let tally: Tally
    private let found: Gathered<String>

    init(calling client: Client) throws {
        let echo = client.function(Job.echo)
        let (isDone, count, problems) = (Flag(), Tally(), Gathered<String>())
        self.flag = isDone
        self.tally = count
        self.found = problems
        self.thread = try LoopThread.start(named: "guardian") {
            var number = 0
            while !isDone.isSet {
                number += 1
                do {
                    let value = try timed(echo, .seconds(10))(number).get()
                    if value != number { problems.add("\(number) got \(value)") }
                } catch { problems.add("\(error)") }
                count.add()
                usleep(200)
            }
        }
    }

    /// Ends the calls.
    ///
    /// Returns how many there were.
    func finish() throws -> Int {
        self.flag.set()
        self.thread.join()
        #expect(self.found.values.isEmpty, "\(self.found.values.prefix(5))")
        return self.tally.value
    }
}

final class Flag: Sendable {
    private let value = Atomic<Bool>(false)
    var isSet: Bool { self.value.load(ordering: .acquiring) }
    func set() { self.value.store(true, ordering: .releasing) }
}

final class Tally: Sendable {
    private let count = Atomic<Int>(0)
    var value: Int { self.count.load(ordering: .acquiring) }
    func add(_ amount: Int = 1) { self.count.add(amount, ordering: .acquiringAndReleasing) }
}

/// Breaks valid messages in ways that repeat for a seed.
struct Mutator {
    private var state: UInt64

    init(seed: UInt64) { self.state = seed &* 0x9E37_79B9_7F4A_7C15 | 1 }

    mutating func next(below limit: Int) -> Int {
        self.state ^= self.state << 13
        self.state ^= self.state >> 7
        self.state ^= self.state << 17
        return Int(self.state >> 33) % max(1, limit)
    }

    /// One to three of the messages as a frame, with some errors, or as several frames.
    mutating func mutate(_ templates: [RawMessage]) -> [[UInt8]] {
        var bytes: [UInt8] = []
        for _ in 0...self.next(below: 3) { bytes += templates[self.next(below: templates.count)].bytes }
        for _ in 0...self.next(below: 4) {
            guard !bytes.isEmpty else { break }
            let place = self.next(below: bytes.count)
            switch self.next(below: 8) {
            case 0: bytes[place] ^= 1 << UInt8(self.next(below: 8))
            case 1: bytes[place] = UInt8(self.next(below: 256))
            case 2: bytes.removeSubrange(place...)
            case 3: bytes.insert(UInt8(self.next(below: 256)), at: place)
            case 4: bytes.remove(at: place)
            case 5: bytes[place] = [0, 0xFF, 0x7F, 0x80, 0xC1, 0xDD, 0xDF, 0xDB, 0xC6][self.next(below: 9)]
            case 6:
                // A header's field, where it hurts.
                let field = self.next(below: min(24, bytes.count))
                bytes[field] = UInt8(self.next(below: 256))
            default: bytes += bytes[place...]
            }
        }
        if bytes.count > 4096 { bytes.removeSubrange(4096...) }
        if self.next(below: 20) == 0 {
            let middle = self.next(below: bytes.count + 1)
            return [Array(bytes[..<middle]), Array(bytes[middle...])]
        }
        return [bytes]
    }
}
