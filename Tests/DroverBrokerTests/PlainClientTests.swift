// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Testing

@testable import Attackers

/// What a broker answers to bytes as the protocol's page has them, and no client of ours sends.
@Suite("A client that is written from the protocol's page", .serialized, .timeLimit(.minutes(1)))
struct PlainClientTests {
    @Test("a request that is sent again is answered with how far it is, and with its worker's name")
    func phases() async throws {
        let pool = try Pool(workers: 0)
        try pool.addWorker("m2", concurrency: 1)
        let peer = try PlainPeer(pool.endpoint)
        let gate = [0x91] + Plain.text("gate")
        func request(_ id: UInt64, flags: UInt8) -> [UInt8] {
            Plain.message(Plain.request, flags: flags, id: id, time: .max, gate)
        }
        peer.send(
            Plain.hello(client: 1),
            Plain.message(Plain.define, number: 0, Array(Job.hold.name.utf8)),
            request(1, flags: 0)
        )
        #expect(peer.awaits(Plain.started))
        // The second waits at the broker behind it.
        peer.send(request(2, flags: 0))
        try await becomesTrue("both are there") { pool.broker.status.queued == 1 }
        peer.send(request(1, flags: 2), request(2, flags: 2))
        var told: [UInt64: (UInt8, [UInt8])] = [:]
        while told.count < 2, let frame = peer.receive(within: 10_000) {
            for (kind, id, payload) in PlainPeer.messages(in: frame)
            where [Plain.started, Plain.accepted].contains(kind) {
                told[id] = (kind, payload)
            }
        }
        #expect(told[1]?.0 == Plain.started && told[1]?.1 == [0xA2] + Array("m2".utf8))
        #expect(told[2]?.0 == Plain.accepted && told[2]?.1 == [])
        pool.gates.open("gate")
        #expect(try peer.answers(2).values.allSatisfy { $0.kind == Plain.reply })
        await pool.close()
    }

    @Test(
        "an unknown kind that must be understood is answered if it has an id, by a worker and by a broker",
        arguments: [false, true]
    )
    func unknownKinds(atBroker: Bool) async throws {
        let pool = try Pool(workers: 0)
        let worker = try Worker().start(.bind("tcp://127.0.0.1:*"))
        let peer = try PlainPeer(atBroker ? pool.endpoint : worker.endpoint)
        // Must be understood without an id, needn't be, must be; then a PING, behind which nothing more is to come.
        peer.send(
            Plain.hello(client: 1),
            Plain.message(100, flags: 0x80),
            Plain.message(100, flags: 0, id: 6),
            Plain.message(100, flags: 0x80, id: 7),
            Plain.message(Plain.ping, id: 8)
        )
        var errors: [UInt64] = []
        var isOver = false
        while !isOver, let frame = peer.receive(within: 10_000) {
            for (kind, id, payload) in PlainPeer.messages(in: frame) {
                if kind == Plain.error {
                    errors.append(id)
                    #expect(payload.contains(Array("unsupported".utf8)))
                }
                if kind == Plain.pong { isOver = true }
            }
        }
        #expect(isOver && errors == [7])
        await worker.stop(grace: .zero)
        await pool.close()
    }

    @Test("a broker's own functions refuse what isn't MessagePack, chunks included", arguments: [UInt8(1), 2, 3, 9])
    func contentTypes(type: UInt8) async throws {
        let pool = try Pool(workers: 0)
        let peer = try PlainPeer(pool.endpoint)
        var request = Plain.request(1, [], arguments: [0x93, 1, 2, 0xC4, 3, 0x91, 0xA1, 0x66])
        request[3] = type
        peer.send(Plain.hello(client: 1), Plain.message(Plain.define, number: 0, Array("drover.serving".utf8)), request)
        let answer = try #require(try peer.answers(1)[1])
        #expect(answer.kind == Plain.error && answer.text.contains("unsupported"), "\(answer)")
        await pool.close()
    }

    @Test("a request that is recalled comes back if no worker has it, and stays with the worker that does")
    func recalled() async throws {
        let pool = try Pool(workers: 0)
        try pool.addWorker("m2", concurrency: 1)
        let peer = try PlainPeer(pool.endpoint)
        let gate = [0x91] + Plain.text("gate")
        let define = Plain.message(Plain.define, number: 0, Array(Job.hold.name.utf8))
        peer.send(Plain.hello(client: 1), define, Plain.message(Plain.request, id: 1, time: .max, gate))
        #expect(peer.awaits(Plain.started))
        peer.send(Plain.message(Plain.request, id: 2, time: .max, gate))
        try await becomesTrue("both are there") { pool.broker.status.queued == 1 }
        let recalls = [UInt64(1), 2, 3].map { Plain.message(Plain.cancel, id: $0, number: 2) }
        peer.sendFrame([UInt8](recalls.joined()))
        var cancelled: [UInt64] = []
        var isAnswered = false
        while !isAnswered, let frame = peer.receive(within: 10_000) {
            for (kind, id, _) in PlainPeer.messages(in: frame) {
                if kind == Plain.cancelled { cancelled.append(id) }
                if kind == Plain.reply { isAnswered = id == 1 }
            }
            // All of them were read by then, for they came in one frame.
            if !cancelled.isEmpty { pool.gates.open("gate") }
        }
        #expect(isAnswered)
        #expect(cancelled == [2])
        await pool.close()
    }
}
