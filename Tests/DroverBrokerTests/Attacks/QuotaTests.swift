// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Foundation
import Testing

@testable import Attackers

/// Somebody with a key of little right uses up what all share.
@Suite("Attack: what all share", .serialized, .timeLimit(.minutes(1)))
struct QuotaTests {
    private let ring: Keyring
    private let hostile: PlainPeer.Keys
    private let honest: KeyPair

    init() throws {
        self.ring = try Keyring()
        self.hostile = PlainPeer.Keys(server: self.ring.broker.publicKey.text)
        self.honest = try KeyPair()
        try self.ring.allow(self.honest, "web submit,admin")
    }

    /// A session of the hostile key, with a name for `function`.
    private func intruder(_ endpoint: String, _ client: UInt8, function: String = "add") throws -> PlainPeer {
        let peer = try PlainPeer(endpoint, keys: self.hostile)
        peer.send(Plain.hello(client: client), Plain.message(Plain.define, number: 0, Array(function.utf8)))
        return peer
    }

    @Test("an ordering key holds up nobody else's calls, at the broker and at the worker")
    func orderingKey() async throws {
        try self.ring.allow(self.hostile.own, "hostile submit queues=q1")
        let pool = try self.ring.pool(workers: 0)
        try pool.addWorker("worker", concurrency: 4) {
            $0.keys = self.ring.connection(self.ring.worker)
            $0.queues = ["", "q1"]
        }
        let client = try pool.client { $0.keys = self.ring.connection(self.honest) }
        let intruder = try self.intruder(pool.endpoint, 7, function: "hold")
        let key = [("key", Plain.text("order-4711")), ("queue", Plain.text("q1"))]
        for id in 1...3 as ClosedRange<UInt64> {
            intruder.send(Plain.request(id, key, arguments: [0x91] + Plain.text("never")))
        }
        try await becomesTrue("it runs") { pool.gates.entered == ["never"] }
        let options = CallOptions(orderingKey: "order-4711", expiry: .seconds(10))
        for number in 0..<5 { #expect(try await client.function(Job.add, options: options)(number, 1) == number + 1) }
        pool.gates.open("never")
        await pool.close()
    }

    @Test("so it is at a worker that is called directly")
    func orderingKeyAtWorker() async throws {
        try self.ring.allow(self.hostile.own, "hostile submit")
        let gates = Gates()
        var configuration = WorkerConfiguration()
        configuration.logger = self.ring.log.logger
        configuration.listenerKeys = ListenerKeys(own: self.ring.broker, allowList: self.ring.allowList)
        let worker = Worker(configuration: configuration)
        worker.register(Job.hold) { context, gate in
            gates.enter(gate)
            while !gates.isOpen(gate) { try await Task.sleep(for: .milliseconds(1)) }
            return gate
        }
        worker.register(Job.add) { $0 + $1 }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        let intruder = try self.intruder(running.endpoint, 7, function: "hold")
        intruder.send(Plain.request(1, [("key", Plain.text("k"))], arguments: [0x91] + Plain.text("never")))
        try await becomesTrue("it runs") { gates.entered == ["never"] }
        var own = ClientConfiguration()
        own.keys = self.ring.connection(self.honest)
        let client = try Client(running.endpoint, configuration: own)
        let options = CallOptions(orderingKey: "k", expiry: .seconds(10))
        #expect(try await client.function(Job.add, options: options)(1, 2) == 3)
        gates.open("never")
        await client.close(grace: .zero)
        await running.stop(grace: .zero)
    }

    @Test("sessions over a key's quota are refused to it alone, by the quota's name, and logged")
    func sessions() async throws {
        try self.ring.allow(self.hostile.own, "hostile submit clients=5")
        let pool = try self.ring.pool()
        var peers: [PlainPeer] = []
        var refused = 0
        for number in 1...12 as ClosedRange<UInt8> {
            let peer = try self.intruder(pool.endpoint, number)
            let frame = peer.receive() ?? []
            if PlainPeer.messages(in: frame).contains(where: { $0.kind == Plain.refused }) {
                refused += 1
                let text = String(decoding: frame, as: UTF8.self)
                #expect(text.contains("quota clients") && text.contains("clients="), "\(text)")
            }
            peers.append(peer)
        }
        #expect(refused == 7)
        #expect(self.ring.log.has("refused", "drover.principal=hostile", "quota clients"))
        let client = try pool.client { $0.keys = self.ring.connection(self.honest) }
        #expect(try await client.function(Job.add)(1, 2) == 3)
        #expect(pool.broker.status.overQuota == 7)
        withExtendedLifetime(peers) {}
        await pool.close()
    }

    @Test("so are they at a worker that is called directly")
    func sessionsOfWorker() async throws {
        try self.ring.allow(self.hostile.own, "hostile submit clients=2")
        var configuration = WorkerConfiguration()
        configuration.logger = self.ring.log.logger
        configuration.listenerKeys = ListenerKeys(own: self.ring.broker, allowList: self.ring.allowList)
        let worker = Worker(configuration: configuration)
        worker.register(Job.add) { $0 + $1 }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        let peers = try (1...5 as ClosedRange<UInt8>).map { try self.intruder(running.endpoint, $0) }
        let refused = peers.map { peer in
            PlainPeer.messages(in: peer.receive() ?? []).contains { $0.kind == Plain.refused }
        }
        #expect(refused.count { $0 } == 3)
        var own = ClientConfiguration()
        own.keys = self.ring.connection(self.honest)
        let client = try Client(running.endpoint, configuration: own)
        #expect(try await client.function(Job.add)(1, 2) == 3)
        await client.close(grace: .zero)
        await running.stop(grace: .zero)
    }

    @Test(
        "labels without number make one key busy, and operators see what waits, with what is left out",
        .disabled(if: ProcessInfo.processInfo.environment["DROVER_SANITIZED"] != nil, "so many take minutes there")
    )
    func labels() async throws {
        try self.ring.allow(self.hostile.own, "hostile submit")
        let pool = try self.ring.pool {
            $0.noWorkerPatience = .seconds(60)
            $0.silenceLimit = .seconds(30)
        }
        let sessions = try (1...4).map { try self.intruder(pool.endpoint, $0) }
        // Two hundred labels of each: nearly as much as a call's metadata may have.
        let long = Plain.text(String(repeating: "l", count: 250))
        var id: UInt64 = 0
        for peer in sessions {
            for _ in 0..<75 {
                id += 1
                var labels: [UInt8] = [0xDF] + UInt32(200).bigEndianBytes
                for number in 0..<200 { labels += Plain.text("\(id) \(number)") + long }
                peer.sendAll([Plain.request(id, [("labels", labels)])])
            }
            for _ in 0..<15 {
                var frame: [UInt8] = []
                for number in 0..<100 {
                    id += 1
                    frame += Plain.request(id, [("labels", Plain.map([("l", "\(id) \(number)")]))])
                }
                peer.sendAll([frame])
            }
        }
        try await becomesTrue("the key is over its quota") { pool.broker.status.overQuota ?? 0 > 1500 }
        let client = try pool.client { $0.keys = self.ring.connection(self.honest) }
        let results = try (0..<200)
            .map { number in
                let options = CallOptions(expiry: .seconds(20), labels: ["mine": "\(number)"])
                return try client.function(Job.add, options: options).async(1, 2)
            }
        let rows = try await client.function(.brokerQueues)()
        #expect(!rows.isEmpty)
        #expect(rows.last?.leftOut ?? 0 > 0, "\(rows.count) rows")
        #expect(try await client.function(.brokerWorkers)().count == 1)
        // They wait for a worker that has the label: none was refused.
        #expect(results.allSatisfy { !$0.isTerminal })
        client.cancelAll()
        withExtendedLifetime(sessions) {}
        await pool.close()
    }
}
