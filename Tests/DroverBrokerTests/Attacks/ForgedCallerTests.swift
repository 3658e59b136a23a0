// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Testing

@testable import Attackers

/// Somebody wants a handler to take their calls for another's.
@Suite("Attack: calling in another's name", .serialized, .timeLimit(.minutes(1)))
struct ForgedCallerTests {
    private let ring: Keyring
    private let mallory: PlainPeer.Keys
    private let boss: PlainPeer.Keys
    private let other: KeyPair

    init() throws {
        self.ring = try Keyring()
        self.mallory = PlainPeer.Keys(server: self.ring.broker.publicKey.text)
        self.boss = PlainPeer.Keys(server: self.ring.broker.publicKey.text)
        try self.ring.allow(self.mallory.own, "mallory submit")
        try self.ring.allow(self.boss.own, "boss submit")
        self.other = try KeyPair()
        try self.ring.allow(self.other, "boss2 submit")
    }

    /// Says that it is the boss in every way that there is, and calls.
    private func call(_ endpoint: String) throws {
        let peer = try PlainPeer(endpoint, keys: self.mallory)
        let claim: [UInt8] =
            [0x82] + Plain.text("principal") + Plain.text("boss") + Plain.text("key") + Plain.text(self.boss.own)
        peer.send(Plain.hello(client: 7, [("callers", Plain.yes), ("principal", Plain.text("boss"))]))
        #expect(peer.awaits(Plain.welcome))
        peer.send(
            Plain.message(Plain.define, number: 0, Array("caller".utf8)),
            Plain.message(Plain.caller, number: 1, claim)
        )
        // With a number that a broker would use, and without.
        for (id, number) in [(1, 1 << 16), (2, 0), (3, 0)] as [(UInt64, UInt32)] {
            let metadata = [0x82] + Plain.text("principal") + Plain.text("boss") + Plain.text("caller") + claim
            let isMarked = id == 3
            let payload = (isMarked ? metadata : []) + [0x91, 0]
            peer.send(
                Plain.message(Plain.request, flags: isMarked ? 4 : 0, id: id, time: .max, number: number, payload)
            )
        }
        let answers = try peer.answers(3)
        #expect(answers[1]?.kind == Plain.error)
        for id in [2, 3] as [UInt64] {
            #expect(answers[id]?.kind == Plain.reply && answers[id]?.text.contains("mallory") == true, "\(answers)")
        }
        for answer in answers.values { #expect(!answer.text.contains("boss") && !answer.text.contains(self.boss.own)) }
    }

    @Test("through a broker a call is from the key that the broker was proved, whatever its client says")
    func broker() async throws {
        let pool = try self.ring.pool()
        // Somebody else has a number already.
        let client = try pool.client { $0.keys = self.ring.connection(self.other) }
        #expect(try await client.function(Job.caller)(1).hasPrefix("boss2 "))
        try self.call(pool.endpoint)
        await pool.close()
    }

    @Test("at a worker that is called directly it is from the connection's key")
    func worker() async throws {
        var configuration = WorkerConfiguration()
        configuration.logger = self.ring.log.logger
        configuration.listenerKeys = ListenerKeys(own: self.ring.broker, allowList: self.ring.allowList)
        // It has a broker's key to know as well: that makes no broker of a client.
        configuration.keys = self.ring.connection(self.ring.worker)
        let worker = Worker(configuration: configuration)
        worker.register(Job.caller) { context, _ in Job.words(for: context.caller) }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        try self.call(running.endpoint)
        await running.stop(grace: .zero)
    }
}
