// SPDX-License-Identifier: Apache-2.0

import Foundation
import Synchronization

/// Peers with one key that do all they can think of at once; each on a thread of its own.
final class HostileCrowd: Sendable {
    private let endpoint: String
    private let keys: PlainPeer.Keys
    private let isOver = Atomic(false)
    private let running = Atomic<Int>(0)
    private let counts = Mutex<[String: Int]>([:])
    private let flood: TCPFlood

    /// How often each did what it does.
    var summary: String {
        self.counts.withLock { $0.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", ") }
            + ", half open \(self.flood.opened)"
    }

    init(_ endpoint: String, _ keys: PlainPeer.Keys) {
        self.endpoint = endpoint
        self.keys = keys
        self.flood = TCPFlood(to: endpoint, count: 500)
        self.start("calls of priority 7", pause: 5000, Self.callMany)
        self.start("ordering keys", pause: 10_000, Self.holdKeys)
        self.start("labels", pause: 10_000, Self.label)
        self.start("large labels", pause: 100_000, Self.labelMuch)
        self.start("large calls", pause: 250_000, Self.sendMuch)
        self.start("unread answers", pause: 20_000, Self.neverRead)
        self.start("questions", pause: 10_000, Self.ask)
        self.start("garbage", pause: 5000, Self.babble)
        self.start("names", pause: 100_000, Self.name)
        self.start("parts", pause: 10_000, Self.part)
        self.startNew("sessions", pause: 20_000, Self.introduce)
        self.startNew("routing ids", pause: 40_000, Self.claim)
    }

    func end() {
        self.isOver.store(true, ordering: .relaxed)
        while self.running.load(ordering: .acquiring) > 0 { usleep(1000) }
        self.flood.end()
    }

    private typealias Attack = @Sendable (PlainPeer, Int) -> Void

    /// One peer that does something again and again, and comes back when the broker has given it up.
    private func start(_ name: String, pause: UInt32, _ attack: @escaping Attack) {
        self.loop(name, pause: pause) { [self] round, peer in
            if round % 500 == 0 {
                peer = try? PlainPeer(self.endpoint, keys: self.keys)
                peer?.send(Plain.hello(client: UInt8(truncatingIfNeeded: name.utf8.reduce(0) { $0 &* 31 &+ Int($1) })))
            }
            if let peer { attack(peer, round) }
        }
    }

    /// A new peer each time; some hundred stay.
    private func startNew(
        _ name: String,
        pause: UInt32,
        _ attack: @escaping @Sendable (String, PlainPeer.Keys, Int) -> PlainPeer?
    ) {
        let kept = Mutex<[Holder]>([])
        self.loop(name, pause: pause) { [self] round, _ in
            guard let peer = attack(self.endpoint, self.keys, round) else { return }
            kept.withLock { kept in
                kept.append(Holder(peer))
                if kept.count > 100 { kept.removeFirst(50) }
            }
        }
    }

    /// Used by one thread at a time.
    private final class Holder: @unchecked Sendable {
        let peer: PlainPeer
        init(_ peer: PlainPeer) { self.peer = peer }
    }

    private func loop(_ name: String, pause: UInt32, _ body: @escaping @Sendable (Int, inout PlainPeer?) -> Void) {
        self.running.add(1, ordering: .relaxed)
        let thread = Thread { [self] in
            var peer: PlainPeer?
            var round = 0
            while !self.isOver.load(ordering: .relaxed) {
                body(round, &peer)
                round += 1
                usleep(pause)
            }
            peer = nil
            self.counts.withLock { $0[name] = round }
            self.running.subtract(1, ordering: .releasing)
        }
        thread.start()
    }

    private static func define(_ name: String) -> [UInt8] { Plain.message(Plain.define, number: 0, Array(name.utf8)) }
    private static let queue = ("queue", Plain.text("q1"))
    private static func id(_ round: Int, _ number: Int) -> UInt64 { UInt64(round) << 16 | UInt64(number) }

    /// Waits a moment for what it is told, so that it isn't put aside.
    private static func read(_ peer: PlainPeer) { for _ in 0..<20 where peer.receive(within: 0) == nil { return } }

    private static func callMany(_ peer: PlainPeer, _ round: Int) {
        var frame = Self.define("nap")
        for number in 0..<50 {
            frame += Plain.request(Self.id(round, number), [Self.queue, ("priority", [7])], arguments: [0x91, 2])
        }
        peer.sendFrame(frame)
        Self.read(peer)
    }

    private static func holdKeys(_ peer: PlainPeer, _ round: Int) {
        var frame = Self.define("nap")
        for number in 0..<20 {
            let key = [("key", Plain.text("k\(number % 3)")), Self.queue]
            frame += Plain.request(Self.id(round, number), key, arguments: [0x91, 2])
        }
        peer.sendFrame(frame)
        Self.read(peer)
    }

    private static func label(_ peer: PlainPeer, _ round: Int) {
        var frame = Self.define("add")
        for number in 0..<20 {
            let labels = Plain.map([("l", "\(round) \(number)")])
            frame += Plain.request(Self.id(round, number), [Self.queue, ("labels", labels)], arguments: [0x92, 1, 2])
        }
        peer.sendFrame(frame)
        Self.read(peer)
    }

    /// So many labels behind the first.
    private static func more(_ count: Int) -> [UInt8] {
        let long = Plain.text(String(repeating: "l", count: 250))
        var bytes: [UInt8] = []
        for number in 0..<count { bytes += Plain.text("\(number)") + long }
        return bytes
    }
    /// Nearly as much as a call's metadata may have.
    private static let manyLabels = more(200)
    private static let tooManyLabels = more(5000)

    private static func labelMuch(_ peer: PlainPeer, _ round: Int) {
        // More than are taken, every other time.
        let isTooMany = round % 2 == 1
        let count = UInt32(isTooMany ? 5001 : 201).bigEndianBytes
        let first = Plain.text("first") + Plain.text("\(round)")
        let labels = [0xDF] + count + first + (isTooMany ? Self.tooManyLabels : Self.manyLabels)
        let request = Plain.request(Self.id(round, 0), [Self.queue, ("labels", labels)], arguments: [0x92, 1, 2])
        peer.sendFrame(Self.define("add") + request)
        Self.read(peer)
    }

    private static let megabytes = [UInt8](repeating: 7, count: 8 << 20)

    private static func sendMuch(_ peer: PlainPeer, _ round: Int) {
        // Nobody has such a function.
        let arguments = [0x91, 0xC6] + UInt32(Self.megabytes.count).bigEndianBytes + Self.megabytes
        let request = Plain.request(Self.id(round, 0), [Self.queue], arguments: arguments)
        peer.sendFrame(Self.define("nobody has it") + request)
        Self.read(peer)
    }

    private static func neverRead(_ peer: PlainPeer, _ round: Int) {
        let bytes = [UInt8](repeating: 7, count: 200_000)
        let count = UInt32(bytes.count).bigEndianBytes
        let request = Plain.request(Self.id(round, 0), [Self.queue], arguments: [0x91, 0xC6] + count + bytes)
        peer.sendFrame(Self.define("echo") + request)
    }

    private static func ask(_ peer: PlainPeer, _ round: Int) {
        let names = ["drover.workers", "drover.queues", "drover.status", "drover.why", "drover.order", "drover.cancel"]
        peer.sendFrame(Self.define(names[round % names.count]) + Plain.request(Self.id(round, 0), []))
        Self.read(peer)
    }

    private static func babble(_ peer: PlainPeer, _ round: Int) {
        var generator = SystemRandomNumberGenerator()
        var frame = Self.define("add") + Plain.request(Self.id(round, 0), [Self.queue], arguments: [0x92, 1, 2])
        for _ in 0..<4 {
            frame[Int.random(in: 0..<frame.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
        }
        // CREDIT, BIND, CONTROL, OFFER, and kinds that nobody knows.
        frame += Plain.message(UInt8.random(in: 4...60, using: &generator), id: 1, number: 1, [1, 2, 3])
        peer.sendFrame(frame)
        Self.read(peer)
    }

    private static func name(_ peer: PlainPeer, _ round: Int) {
        let long = [UInt8](repeating: 0x61, count: 1 << 20)
        let definitions: [[UInt8]] = (0..<20)
            .map { Plain.message(Plain.define, number: UInt32($0), Array("\(round) \($0)".utf8)) }
        let many = [UInt8](definitions.joined())
        let key: [UInt8] = [0xDB] + UInt32(long.count).bigEndianBytes + long
        let request = Plain.request(Self.id(round, 0), [("key", key), ("queue", key)])
        peer.sendFrame(Plain.message(Plain.define, number: 4095, long) + many + request)
        Self.read(peer)
    }

    private static func part(_ peer: PlainPeer, _ round: Int) {
        // The beginning of something large that never ends.
        let header = Plain.message(9, id: UInt64(round), time: UInt32(60 << 20), number: 0)
        peer.sendFrame(header + Plain.message(10, id: UInt64(round), number: 5) + Plain.message(11, id: UInt64(round)))
        Self.read(peer)
    }

    private static func introduce(_ endpoint: String, _ keys: PlainPeer.Keys, _ round: Int) -> PlainPeer? {
        guard let peer = try? PlainPeer(endpoint, keys: keys) else { return nil }
        for number in 0..<10 { peer.send(Plain.hello(client: UInt8(truncatingIfNeeded: round * 10 + number))) }
        return peer
    }

    private static func claim(_ endpoint: String, _ keys: PlainPeer.Keys, _ round: Int) -> PlainPeer? {
        let id: [UInt8] = [0] + (0x6B8B_4567 &+ UInt32(truncatingIfNeeded: round)).bigEndianBytes
        guard let peer = try? PlainPeer(endpoint, claiming: id, keys: keys) else { return nil }
        peer.send(Plain.hello(client: 9, [("broker", Plain.yes)]), Plain.message(Plain.control, number: 3))
        return peer
    }
}
