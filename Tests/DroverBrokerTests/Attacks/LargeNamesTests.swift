// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Synchronization
import Testing

@testable import Attackers

/// Somebody with a key of little right sends few messages with very long or very many names.
@Suite("Attack: names without end", .serialized, .timeLimit(.minutes(3)))
struct LargeNamesTests {
    private let ring: Keyring
    private let attacker: PlainPeer.Keys

    init() throws {
        self.ring = try Keyring()
        self.attacker = PlainPeer.Keys(server: self.ring.broker.publicKey.text)
        try self.ring.allow(self.attacker.own, "attacker submit queues=mail")
    }

    private static func repeated(_ bytes: [UInt8], _ count: Int) -> [UInt8] {
        var all = bytes
        all.reserveCapacity(bytes.count * count)
        // Doubled: so much appended one by one takes a debug build seconds.
        while all.count < bytes.count * count { all += all.prefix(bytes.count * count - all.count) }
        return all
    }

    private static func map(of count: Int) -> [UInt8] { [0xDF] + Plain.bytes(of: UInt32(count).byteSwapped) }

    /// A text of any length.
    private static func text(_ bytes: [UInt8]) -> [UInt8] {
        [0xDB] + Plain.bytes(of: UInt32(bytes.count).byteSwapped) + bytes
    }

    /// What a request's metadata could hold that takes long to read or much to keep: 9 MiB each.
    private static let monsters: [[UInt8]] = {
        let label = Plain.text("ab") + Plain.text("cd")
        let million = Self.map(of: 1_000_000) + Self.repeated(label, 1_000_000)
        let thousand = Plain.text("labels") + Self.map(of: 1000) + Self.repeated(label, 1000)
        let long = Self.repeated([0x6E], 9 << 20)
        return [
            // A million labels; a thousand times a thousand; a million fields that nobody knows, of a name each or one in all.
            [0x81] + Plain.text("labels") + million, Self.map(of: 1000) + Self.repeated(thousand, 1000), million,
            [0x81] + Self.text(long) + [0xC0], [0x81] + Plain.text("queue") + Self.text(long),
            [0x81] + Plain.text("key") + Self.text(long), [0x81] + Plain.text("later") + million,
        ]
    }()

    /// Sends them, twelve in all, as calls; each is answered with an error.
    private func send(to endpoint: String) throws {
        let peer = try PlainPeer(endpoint, keys: self.attacker)
        peer.send(Plain.hello(client: 7))
        #expect(peer.awaits(Plain.welcome))
        peer.send(Plain.message(Plain.define, number: 0, Array("add".utf8)))
        for number in 0..<12 {
            let monster = Self.monsters[number % Self.monsters.count]
            peer.send(
                Plain.message(Plain.request, flags: 4, id: UInt64(number + 1), time: .max, monster + [0x92, 1, 2])
            )
        }
        for (_, answer) in try peer.answers(12) {
            #expect(answer.kind == Plain.error && answer.text.contains("badArguments"), "\(answer)")
        }
    }

    /// While somebody sends them, others' calls go on.
    private func besides(_ client: Client, _ endpoint: String) async throws {
        #expect(try await client.call(Job.add, 1, 2) == 3)
        _ = Self.monsters
        let isOver = Atomic(false)
        let honest = Task { () async throws -> Duration in
            var longest = Duration.zero
            while !isOver.load(ordering: .relaxed) {
                let begun = ContinuousClock.now
                #expect(try await client.call(Job.add, 1, 2, timeout: .seconds(30)) == 3)
                longest = max(longest, ContinuousClock.now - begun)
            }
            return longest
        }
        try self.send(to: endpoint)
        isOver.store(true, ordering: .relaxed)
        // Of a turn of the loop that reads all of them a call would have to wait for the end: more than a minute in a debug build.
        let longest = try await honest.value
        #expect(longest < .seconds(5), "an honest call took \(longest)")
    }

    @Test("twelve calls with a million labels don't make a broker deaf")
    func labels() async throws {
        let keys = try KeyPair()
        try self.ring.allow(keys, "web submit")
        // The attacker says nothing but what it sends, and a busy machine takes its time for that.
        let pool = try self.ring.pool { $0.silenceLimit = .seconds(20) }
        try await self.besides(try pool.client { $0.keys = self.ring.connection(keys) }, pool.endpoint)
        await pool.close()
    }

    @Test("nor a worker that is called directly")
    func worker() async throws {
        let keys = try KeyPair()
        try self.ring.allow(keys, "web submit")
        var configuration = WorkerConfiguration()
        configuration.logger = self.ring.log.logger
        configuration.listenerKeys = ListenerKeys(own: self.ring.broker, allowList: self.ring.allowList)
        let worker = Worker(configuration: configuration)
        worker.register(Job.add) { $0 + $1 }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        var client = ClientConfiguration()
        client.keys = self.ring.connection(keys)
        let honest = try Client(running.endpoint, configuration: client)
        try await self.besides(honest, running.endpoint)
        await honest.close(grace: .zero)
        await running.stop(grace: .zero)
    }

    @Test("names of 20 MiB, of queues, functions, peers, workers and what an operator asks for, don't get into the log")
    func log() async throws {
        let admin = PlainPeer.Keys(server: self.ring.broker.publicKey.text)
        try self.ring.allow(admin.own, "admin admin,cancel")
        // The peers here say nothing but what they send, and that takes its time.
        let pool = try self.ring.pool { $0.silenceLimit = .seconds(20) }
        // One cluster of characters.
        let name = Self.text([0x65] + Self.repeated([0xCC, 0x81], 10 << 20))
        let peer = try PlainPeer(pool.endpoint, keys: self.attacker)
        peer.send(Plain.hello(client: 7, [("name", name), ("later", name)]))
        #expect(peer.awaits(Plain.refused))
        let short = Self.text([0x65] + Self.repeated([0xCC, 0x81], 10 << 10))
        peer.send(Plain.hello(client: 7, [("name", short)]))
        #expect(peer.awaits(Plain.welcome))
        peer.send(Plain.message(Plain.define, number: 0, name))
        for id in 1...5 as ClosedRange<UInt64> {
            let metadata = [0x81] + Plain.text("queue") + name + [0x90]
            peer.send(Plain.message(Plain.request, flags: 4, id: id, time: .max, metadata))
        }
        #expect(try peer.answers(5).values.allSatisfy { $0.kind == Plain.error })
        // A worker's offer, by one that may offer nothing.
        let worker = try PlainPeer(pool.endpoint, keys: self.attacker)
        let identity = [0xC4, 16] + [UInt8](repeating: 9, count: 16)
        let offer = [0x82] + Plain.text("worker") + identity + Plain.text("name") + name
        worker.send(Plain.message(48, id: 1, offer))
        #expect(worker.awaits(Plain.refused))
        // What is asked of the broker itself, by one that may.
        let asker = try PlainPeer(pool.endpoint, keys: admin)
        asker.send(Plain.hello(client: 8))
        #expect(asker.awaits(Plain.welcome))
        let order = [0x93] + name + Plain.text("stop") + [0xCB, 0, 0, 0, 0, 0, 0, 0, 0]
        asker.send(
            Plain.message(Plain.define, number: 0, Array("drover.order".utf8)),
            Plain.message(Plain.define, number: 1, Array("drover.cancel".utf8)),
            Plain.message(Plain.request, id: 1, time: .max, number: 0, order),
            Plain.message(Plain.request, id: 2, time: .max, number: 1, [0x92, 7] + name)
        )
        #expect(try asker.answers(2).values.allSatisfy { $0.kind == Plain.error })
        await pool.close()
        let lines = self.ring.log.lines
        let longest = lines.map { $0.utf8.count }.max() ?? 0
        #expect(longest < 10_000 && lines.reduce(0) { $0 + $1.utf8.count } < 1 << 20, "\(longest)")
    }
}
