// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Foundation
import Testing

@testable import Attackers

/// The bytes of `docs/protocol.md`, sent as they stand there to a worker and a broker, by plain ZeroMQ.
@Suite("The specification's bytes, tried", .serialized, .timeLimit(.minutes(2)))
struct ProtocolPageTests {
    private let blocks: [String: [UInt8]]

    init() throws {
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let document = try String(contentsOf: root.appending(path: "docs/protocol.md"), encoding: .utf8)
        var blocks: [String: [UInt8]] = [:]
        var open: String?
        for line in document.split(separator: "\n", omittingEmptySubsequences: false) {
            if line.hasPrefix("```hex ") {
                open = String(line.dropFirst(7))
            } else if line.hasPrefix("```") {
                open = nil
            } else if let name = open {
                blocks[name, default: []] += line.split(separator: " ").compactMap { UInt8($0, radix: 16) }
            }
        }
        self.blocks = blocks
    }

    private func block(_ name: String) throws -> [UInt8] { try #require(self.blocks[name]) }

    /// A plain peer, and what came of others with the messages that were asked for.
    private final class Peer {
        private let plain: PlainPeer
        private var left: [[UInt8]] = []

        init(_ endpoint: String) throws { self.plain = try PlainPeer(endpoint) }

        func send(_ bytes: [UInt8]) { self.plain.send(bytes) }

        /// The next message of a kind, with its bytes; those before it are passed over.
        func next(_ kind: UInt8) throws -> [UInt8] {
            for _ in 0..<1000 {
                while !self.left.isEmpty {
                    let message = self.left.removeFirst()
                    if message[1] == kind { return message }
                }
                let frame = try #require(self.plain.receive(within: 10_000), "no message of kind \(kind) came")
                var place = 0
                while place + 24 <= frame.count {
                    let count = (0..<4).reduce(0) { $0 | Int(frame[place + 4 + $1]) << (8 * $1) }
                    self.left.append(Array(frame[place..<place + 24 + count]))
                    place += 24 + count
                }
            }
            Issue.record("no message of kind \(kind) came")
            return []
        }
    }

    private func withWorker(_ body: (Peer) throws -> Void) async throws {
        let worker = Worker()
        worker.register(Function<String, String>("echo")) { $0 }
        worker.register(Function<Callback<Int, Nothing>, Int, Int>("tick")) {
            (callback: Callback<Int, Nothing>, count: Int) in
            for number in 0..<count { try callback.emit(number) }
            return count
        }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        let peer = try Peer(running.endpoint)
        try body(peer)
        await running.stop(grace: .zero)
    }

    @Test("a client's bytes get from a worker what the page says")
    func client() async throws {
        try await self.withWorker { peer in
            peer.send(try self.block("beat"))
            #expect(try peer.next(Plain.reset) == self.block("reset"))
            peer.send(try self.block("hello"))
            _ = try peer.next(Plain.welcome)
            peer.send(try self.block("define-request"))
            // How long it ran is no matter.
            var reply = try peer.next(Plain.reply)
            reply.replaceSubrange(16..<20, with: [0, 0, 0, 0])
            #expect(try reply == self.block("reply"))
            peer.send(try self.block("callback-request"))
            let event = try peer.next(Plain.event)
            #expect(try event == Array(self.block("events").prefix(26)))
            _ = try peer.next(Plain.reply)
            peer.send(try self.block("chunk"))
            let answer = try peer.next(Plain.reply)
            // Both items run, where the page shows one that was not begun.
            #expect(Array(answer.dropFirst(24)) == [0x92, 0xC4, 2, 0xA1, 0x61, 0xC4, 2, 0xA1, 0x62])
            peer.send(try self.block("cancel"))
            let cancelled = try peer.next(24)
            #expect(cancelled[8] == 3 && cancelled[20] == 2)
            peer.send(try self.block("goodbye"))
            peer.send(try self.block("beat"))
            _ = try peer.next(Plain.reset)
        }
    }

    @Test("a worker's bytes make a broker give it the call, and take its answer")
    func worker() async throws {
        let pool = try Pool(workers: 0)
        let peer = try Peer(pool.endpoint)
        peer.send(try self.block("offer"))
        let hello = try peer.next(Plain.hello)
        #expect(try hello[1] == self.block("broker-hello")[1])
        peer.send(try self.block("welcome"))
        let client = try pool.client()
        let call = try client.function(Function<String, String>("echo")).async("hi")
        let request = try peer.next(Plain.request)
        #expect(Array(request.suffix(4)) == [0x91, 0xA2, 0x68, 0x69])
        #expect(request[8] == 1)
        peer.send(try self.block("reply"))
        #expect(try await call.value == "hi")
        // Quiet, it gets no more.
        peer.send(try self.block("ready"))
        try await becomesTrue("it is quiet") { try self.isQuiet(pool, client) }
        await pool.close()
    }

    @Test("ERROR `lapsed` of a worker for a call that has time left makes a broker send it again")
    func lapsed() async throws {
        let pool = try Pool(workers: 0)
        let peer = try Peer(pool.endpoint)
        peer.send(try self.block("offer"))
        _ = try peer.next(Plain.hello)
        peer.send(try self.block("welcome"))
        let client = try pool.client()
        let call = try client.function(Function<String, String>("echo")).async("hi")
        let late = Plain.map([("code", "lapsed"), ("message", "it came too late")])
        peer.send(Plain.message(Plain.error, id: UInt64(try peer.next(Plain.request)[8]), late))
        let again = try peer.next(Plain.request)
        #expect(Array(again.suffix(4)) == [0x91, 0xA2, 0x68, 0x69])
        peer.send(Plain.message(Plain.reply, id: UInt64(again[8]), [0xA2, 0x68, 0x69]))
        #expect(try await call.value == "hi")
        await pool.close()
    }

    private func isQuiet(_ pool: Pool, _ client: Client) throws -> Bool {
        let call = try client.function(Function<String, String>("echo")).async("hi")
        defer { call.cancel() }
        return pool.broker.status.queued > 0
    }
}
