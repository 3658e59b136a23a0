// SPDX-License-Identifier: Apache-2.0

import Drover
import Testing

@testable import Attackers

/// Peers that introduce themselves again by the connection that they have.
@Suite("Reintroduction", .timeLimit(.minutes(1)))
struct ReintroductionTests {
    @Test("S76 a broker loses no event when its client introduces itself again and again meanwhile")
    func events() async throws {
        let pool = try Pool()
        do {
            let client = try PlainPeer(pool.endpoint)
            let hello = Plain.hello(client: 7)
            client.send(hello)
            #expect(client.awaits(Plain.welcome))
            client.send(Plain.message(Plain.define, number: 0, Array("tick".utf8)))
            let callback: [UInt8] = [0x93, 0xC4, 16] + [UInt8](repeating: 7, count: 16) + [1, 1]
            let (calls, each) = (40, 500)
            for call in 1...calls {
                let arguments = [0x92] + callback + [0xCD, UInt8(each >> 8), UInt8(each & 0xFF)]
                client.send(Plain.message(Plain.request, id: UInt64(call), time: .max, number: 0, arguments))
            }
            var (events, replies): ([UInt64], Int) = ([], 0)
            let deadline = ContinuousClock.now + .seconds(20)
            while replies < calls, ContinuousClock.now < deadline {
                client.send(hello)
                let frame = try #require(client.receive(within: 5000))
                for message in PlainPeer.messages(in: frame) {
                    switch message.kind {
                    case Plain.ping: client.send(Plain.message(Plain.pong, id: message.id))
                    case Plain.event: events.append(message.id)
                    case Plain.reply: replies += 1
                    default: break
                    }
                }
            }
            #expect(events == (0..<UInt64(calls * each)).map { $0 })
        }
        await pool.close()
    }
}
