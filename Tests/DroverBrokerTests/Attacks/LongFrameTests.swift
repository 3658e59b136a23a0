// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Testing

@testable import Attackers

/// Somebody sends frames that take long to decrypt, and keep everybody else's bytes waiting meanwhile.
@Suite("Attack: long frames", .serialized, .timeLimit(.minutes(1)))
struct LongFrameTests {
    private static let limit = 2 << 20

    @Test(
        "a frame over the limit costs its sender the connection; what is sent in parts may be longer",
        arguments: [true, false]
    )
    func frames(throughBroker: Bool) async throws {
        let pool = try Pool(workers: throughBroker ? 1 : 0) { $0.maxFrameBytes = Self.limit }
        let worker = try pool.addWorker("listener", binding: "tcp://127.0.0.1:*") { $0.maxFrameBytes = Self.limit }
        let endpoint = throughBroker ? pool.endpoint : worker.endpoint
        let peer = try PlainPeer(endpoint)
        peer.send(Plain.hello(client: 7, [("parts", Plain.yes)]))
        #expect(peer.awaits(Plain.welcome))
        peer.send(Plain.message(Plain.define, number: 0, Array("echo".utf8)))
        peer.send(self.echo(1, bytes: 1 << 10))
        #expect(try peer.answers(1)[1]?.kind == Plain.reply)
        peer.send(self.echo(2, bytes: 3 << 20))
        // A peer that was cut off comes back as a stranger: what it asks then isn't answered with what it wanted either.
        let kinds = peer.kinds(within: 1500)
        #expect(!kinds.contains(Plain.reply) && !kinds.contains(Plain.error), "\(kinds)")

        let client = try Client(endpoint)
        let large = [UInt8](repeating: 7, count: 8 << 20)
        #expect(try await client.call(Job.echo, large) == large)
        // The longest that goes whole, many at once.
        let whole = [UInt8](repeating: 7, count: (1 << 20) - 64)
        let results = try (0..<8).map { _ in try client.function(Job.echo).async(whole) }
        for result in results { #expect(try await result.value.count == whole.count) }
        await client.close()
        await pool.close()
    }

    private func echo(_ id: UInt64, bytes count: Int) -> [UInt8] {
        let header: [UInt8] = [0x91, 0xC6] + UInt32(count).bigEndianBytes
        return Plain.request(id, [], arguments: header + [UInt8](repeating: 7, count: count))
    }

    @Test("a limit of frames that Drover's own would not keep is refused")
    func refused() {
        #expect(throws: UsageError.self) { try Pool(workers: 0) { $0.maxFrameBytes = 1 << 20 } }
    }
}
