// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Testing

@testable import Attackers

/// Somebody with a key of little right opens one connection after the other.
@Suite("Attack: connections without number", .serialized, .timeLimit(.minutes(1)))
struct ConnectionFloodTests {
    @Test("a key gets as many connections as its listener allows, others get theirs, and the log says who")
    func flood() async throws {
        let ring = try Keyring()
        let flooder = PlainPeer.Keys(server: ring.broker.publicKey.text)
        try ring.allow(flooder.own, "flooder submit")
        let honest = try KeyPair()
        try ring.allow(honest, "web submit")
        let pool = try ring.pool {
            $0.keys?.connectionBurst = 30
            $0.keys?.connectionsPerSecond = 1
        }
        // Whoever is let in is answered: nobody knows it.
        var peers: [PlainPeer] = []
        for _ in 0..<60 {
            let peer = try PlainPeer(pool.endpoint, keys: flooder)
            peer.send(Plain.message(Plain.ping, id: 9))
            peers.append(peer)
        }
        try await becomesTrue("it is refused") {
            ring.log.has("refused", "drover.principal=flooder", "too many connections")
        }
        let answered = peers.count { $0.kinds(within: 30).contains(Plain.reset) }
        // Some more may have come with time.
        #expect((1...40).contains(answered), "\(answered) connections")
        let client = try pool.client { $0.keys = ring.connection(honest) }
        #expect(try await client.call(Job.add, 1, 2) == 3)
        withExtendedLifetime(peers) {}
        await pool.close()
    }
}
