// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire
import Synchronization
import Testing

@testable import Drover

extension ServingTests {
    /// Large answers that are lost, and asked for again.
    @Suite(.serialized)
    struct KeptAnswersTests {}
}

extension ServingTests.KeptAnswersTests {
    private static let growing = Function<Int, [UInt8]>("growing")

    /// A worker, and how often its function ran.
    private final class Serving: Sendable {
        let running: RunningWorker
        let runs: Runs

        final class Runs: Sendable {
            let count = Atomic<Int>(0)
            var all: Int { self.count.load(ordering: .acquiring) }
        }

        init(_ change: (inout WorkerConfiguration) -> Void = { _ in }) throws {
            var configuration = WorkerConfiguration()
            configuration.concurrency = 2
            configuration.heartbeatInterval = .milliseconds(200)
            change(&configuration)
            let runs = Runs()
            let worker = Worker(configuration: configuration)
            worker.register(ServingTests.KeptAnswersTests.growing) { (count: Int) in
                runs.count.add(1, ordering: .acquiringAndReleasing)
                return [UInt8](repeating: 7, count: count)
            }
            self.running = try worker.start(.bind("tcp://127.0.0.1:*"))
            self.runs = runs
        }

        func stop() { self.running.stopBlocking(grace: .zero) }
    }

    private static func codes(_ raw: RawClient, of id: UInt64) throws -> [String] {
        try raw.messages.filter { $0.kind == .error && $0.id == id }.map { try $0.error().code }
    }

    @Test(
        "S97 a large answer is kept until its client says that it has read it",
        .timeLimit(.minutes(1)),
        arguments: [20_000, 100_000, 900_000]
    )
    func kept(count: Int) throws {
        let serving = try Serving()
        let first = try RawClient(serving.running.endpoint)
        first.introduce(functions: "growing")
        first.request(1, Packed.arguments(count))
        let answer = try #require(first.messages { $0.kind == .reply && $0.id == 1 }.first)
        // It is not known whether that was read: the client comes back, and asks again.
        first.stop()
        let second = try RawClient(serving.running.endpoint, identity: first.identity, epoch: first.epoch)
        second.introduce(functions: "growing")
        second.request(1, flags: .resent, Packed.arguments(count))
        let again = try #require(second.messages { $0.kind == .reply && $0.id == 1 }.first)
        #expect(again.payload == answer.payload && again.payload.count > count)
        // Asked for once more by the same connection it is on its way there.
        second.request(1, flags: .resent, Packed.arguments(count))
        _ = second.messages { $0.kind == .ping }
        #expect(second.messages.count { $0.kind == .reply } == 1)
        // Once it is read what it took is free. One question is about what is unread, another about what is kept.
        var pongs = 0
        eventually("it is kept no longer") {
            let pings = second.messages.filter { $0.kind == .ping }
            for ping in pings.dropFirst(pongs) {
                second.send(RawMessage(.pong, id: ping.id))
                second.request(1, flags: .resent, Packed.arguments(count))
            }
            pongs = pings.count
            return second.messages.contains { $0.kind == .error && $0.id == 1 }
        }
        #expect(second.messages.count { $0.kind == .reply } == 1)
        #expect(try Self.codes(second, of: 1).first == "indeterminate")
        #expect(serving.runs.all == 1 && serving.running.status.forgottenAnswers == 0)
        second.stop()
        serving.stop()
    }

    /// The bytes of a message that comes in parts, each of them acknowledged but the last.
    private static func receive(by raw: RawClient, bytes count: Int) -> (bytes: [UInt8], last: RawMessage)? {
        var taken = 0
        var bytes: [UInt8] = []
        var last: RawMessage?
        eventually("it came in parts") {
            let parts = raw.messages.filter { $0.kind == .part }
            for part in parts.dropFirst(taken) {
                let end = Int(part.header.time) + part.payload.count
                bytes += part.payload
                last = RawMessage(.partTaken, id: part.id, time: UInt32(end))
                if bytes.count < count, let last { raw.send(last) }
            }
            taken = parts.count
            return bytes.count >= count
        }
        return last.map { (bytes, $0) }
    }

    @Test("S97 a large answer in parts is kept until its last part is acknowledged", .timeLimit(.minutes(1)))
    func keptInParts() throws {
        let serving = try Serving()
        let first = try RawClient(serving.running.endpoint)
        first.introduce(functions: "growing", takesParts: true)
        first.request(1, Packed.arguments(4_000_000))
        let begun = try #require(first.messages { $0.kind == .part }.first)
        let size = Header.byteCount + Int(try begun.payload.withUnsafeBytes { try Header(reading: $0) }.payloadLength)
        let lost = try #require(Self.receive(by: first, bytes: size))
        first.stop()
        let second = try RawClient(serving.running.endpoint, identity: first.identity, epoch: first.epoch)
        second.introduce(functions: "growing", takesParts: true)
        second.request(1, flags: .resent, Packed.arguments(4_000_000))
        let again = try #require(Self.receive(by: second, bytes: size))
        #expect(again.bytes == lost.bytes)
        second.send(again.last)
        second.request(1, flags: .resent, Packed.arguments(4_000_000))
        _ = second.messages { $0.kind == .error && $0.id == 1 }
        #expect(try Self.codes(second, of: 1) == ["indeterminate"])
        #expect(serving.runs.all == 1 && serving.running.status.forgottenAnswers == 0)
        second.stop()
        serving.stop()
    }

    @Test(
        "what a client left unread is kept up to a limit, the oldest are forgotten, and counted",
        .timeLimit(.minutes(1))
    )
    func bounded() throws {
        let serving = try Serving { $0.maxUnreadBytes = 1 << 20 }
        var answered: [UInt64] = []
        let identity = PeerID.random()
        let epoch = UInt64.random(in: 1 ... .max)
        // Each connection takes some answers, of which nobody says that they were read.
        for round in 0..<4 {
            let raw = try RawClient(serving.running.endpoint, identity: identity, epoch: epoch)
            raw.introduce(functions: "growing")
            for number in 1...3 { raw.request(UInt64(round * 3 + number), Packed.arguments(200_000)) }
            answered += raw.messages(3) { $0.kind == .reply }.map(\.id)
            raw.stop()
        }
        #expect(answered.count == 12 && serving.runs.all == 12)
        // Five of 200,000 bytes fit.
        #expect(serving.running.status.forgottenAnswers == 7)
        let raw = try RawClient(serving.running.endpoint, identity: identity, epoch: epoch)
        raw.introduce(functions: "growing")
        for id in answered { raw.request(id, flags: .resent, Packed.arguments(200_000)) }
        let again = raw.messages(5) { $0.kind == .reply }.map(\.id)
        #expect(Set(again) == Set(answered.suffix(5)))
        for id in answered.prefix(7) {
            _ = raw.messages { $0.kind == .error && $0.id == id }
            #expect(try Self.codes(raw, of: id) == ["indeterminate"])
        }
        #expect(serving.runs.all == 12)
        raw.stop()
        serving.stop()
    }

    @Test("an answer that its client cancelled, or didn't ask for again, is kept no longer", .timeLimit(.minutes(1)))
    func unwanted() throws {
        let serving = try Serving()
        let first = try RawClient(serving.running.endpoint)
        first.introduce(functions: "growing")
        for id in 1...2 { first.request(UInt64(id), Packed.arguments(600_000)) }
        _ = first.messages(2) { $0.kind == .reply }
        first.stop()
        let raw = try RawClient(serving.running.endpoint, identity: first.identity, epoch: first.epoch)
        raw.introduce(functions: "growing")
        raw.send(RawMessage(.cancel, id: 1))
        raw.request(1, flags: .resent, Packed.arguments(600_000))
        _ = raw.messages { $0.kind == .error && $0.id == 1 }
        var answers = 0
        eventually("it is asked with some beats") {
            let pings = raw.messages.filter { $0.kind == .ping }
            for ping in pings.dropFirst(answers) { raw.send(RawMessage(.pong, id: ping.id)) }
            answers = pings.count
            return answers >= KeptAnswers<Int>.patienceBeats
        }
        raw.request(2, flags: .resent, Packed.arguments(600_000))
        _ = raw.messages { $0.kind == .error && $0.id == 2 }
        #expect(try Self.codes(raw, of: 1) == ["indeterminate"] && Self.codes(raw, of: 2) == ["indeterminate"])
        #expect(serving.runs.all == 2)
        raw.stop()
        serving.stop()
    }

    @Test(
        "what a client reads is not kept, however large and many its answers",
        .timeLimit(.minutes(1))
    )
    func read() throws {
        let serving = try Serving { $0.maxUnreadBytes = 32 << 20 }
        let client = try Client(serving.running.endpoint)
        let growing = client.function(Self.growing)
        for count in [20_000, 600_000, 4_000_000] {
            for _ in 0..<(60_000_000 / count / (count < 100_000 ? 10 : 1)) {
                #expect(try growing.blocking(count).count == count)
            }
        }
        #expect(serving.running.status.forgottenAnswers == 0)
        client.closeBlocking()
        serving.stop()
    }
}
