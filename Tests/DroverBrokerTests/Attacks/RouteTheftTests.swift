// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Testing

@testable import Attackers

/// Somebody with a key of their own claims the route of a connection that broke, and waits for what was meant for it.
@Suite("Attack: reading another's answers", .serialized, .timeLimit(.minutes(1)))
struct RouteTheftTests {
    private let ring: Keyring
    private let victim: PlainPeer.Keys
    private let thief: PlainPeer.Keys
    private let route = Array("the route".utf8)

    init() throws {
        self.ring = try Keyring()
        self.victim = PlainPeer.Keys(server: self.ring.broker.publicKey.text)
        self.thief = PlainPeer.Keys(server: self.ring.broker.publicKey.text)
        try self.ring.allow(self.victim.own, "victim submit")
        try self.ring.allow(self.thief.own, "thief submit")
    }

    @Test("a broker sends an answer to the connection that asked, or to nobody")
    func broker() async throws {
        let pool = try self.ring.pool { $0.silenceLimit = .seconds(20) }
        try await self.steal(at: pool.endpoint, pool.gates)
        await pool.close()
    }

    @Test("so does a worker that listens with keys")
    func worker() async throws {
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
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        try await self.steal(at: running.endpoint, gates)
        await running.stop(grace: .zero)
    }

    private func steal(at endpoint: String, _ gates: Gates) async throws {
        try self.ask(endpoint)
        try await becomesTrue("the handler runs") { gates.entered == ["secret"] }
        // The victim's connection is closed by now. The thief's is there before the answer is.
        let thief = try PlainPeer(endpoint, claiming: self.route, keys: self.thief)
        // It doesn't introduce itself: that would end the session which has the route. It is asked to.
        thief.send(Plain.message(Plain.ping, id: 9))
        #expect(thief.awaits(Plain.reset))
        gates.open("secret")
        #expect(!thief.kinds(within: 1000).contains(Plain.reply))
    }

    /// The victim asks, and its connection breaks.
    private func ask(_ endpoint: String) throws {
        let victim = try PlainPeer(endpoint, claiming: self.route, keys: self.victim)
        victim.send(Plain.hello(client: 7))
        #expect(victim.receive() != nil)
        let arguments: [UInt8] = [0x91] + Plain.text("secret")
        let request = Plain.message(Plain.request, id: 1, time: .max, number: 0, arguments)
        victim.send(Plain.message(Plain.define, number: 0, Array("hold".utf8)), request)
        // An answer to a ping says that all before it has been read.
        victim.send(Plain.message(Plain.ping, id: 5))
        #expect(victim.awaits(Plain.pong))
    }
}
