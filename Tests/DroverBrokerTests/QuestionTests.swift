// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Foundation
import Testing

@Suite("Questions to a broker", .serialized, .timeLimit(.minutes(1)))
struct QuestionTests {
    @Test("a broker tells its status, its workers and its queues")
    func answers() async throws {
        let pool = try Pool(workers: 0) { $0.name = "the broker" }
        try pool.addWorker("one", concurrency: 1) {
            $0.queues = ["", "pictures"]
            $0.labels = ["zone": "eu"]
            $0.resources = ["gpu": 2]
        }
        let client = try pool.client()
        let hold = client.function(Job.hold)
        let handles = try (0..<4).map { _ in try hold.async("gate") }
        try await becomesTrue("one runs, the others wait") {
            pool.gates.entered.count == 1 && pool.broker.status.sent + pool.broker.status.queued == 4
        }
        let status = try await client.function(.brokerStatus)()
        #expect(status.broker == "the broker")
        #expect(status.workers == 1)
        #expect(status.clients == 1)
        #expect(status.slots == 1)
        #expect(status.received == 4)
        #expect(status.queued + status.sent == 4)
        #expect(!status.isDraining)
        let worker = try #require(try await client.function(.brokerWorkers)().first)
        #expect(worker.name == "one")
        #expect(worker.state == .ready)
        #expect(worker.queues == ["", "pictures"])
        #expect(worker.labels == ["zone": "eu"])
        #expect(worker.resources == ["gpu": 2])
        #expect(worker.functions.contains("echo"))
        #expect(worker.calls == status.sent)
        let queue = try #require(try await client.function(.brokerQueues)().first { $0.function == "hold" })
        #expect(queue.workers == 1)
        #expect(queue.waiting == status.queued)
        pool.gates.open("gate")
        for handle in handles { _ = try await handle.value }
        await pool.close()
    }

    @Test("a name that is the broker's own and that it doesn't know is refused at once")
    func unknown() async throws {
        let pool = try Pool()
        let client = try pool.client()
        let error = await #expect(throws: RemoteError.self) {
            try await client.function(Function<Int>("drover.nonsense"))()
        }
        #expect(error?.code == .unknownFunction)
        await pool.close()
    }

    @Test("it answers while a million bytes of calls wait and every worker is busy")
    func busy() async throws {
        let pool = try Pool(workers: 1, concurrency: 1)
        let client = try pool.client { $0.maxOutstandingCalls = 20_000 }
        let hold = client.function(Job.hold)
        let handles = try (0..<10_000).map { _ in try hold.async("gate") }
        let other = try pool.client()
        try await becomesTrue("all have come") { pool.broker.status.received == 10_000 }
        let status = try await other.function(.brokerStatus)()
        #expect(status.queued + status.sent == 10_000)
        for handle in handles { handle.cancel() }
        try await becomesTrue("nothing is left") {
            pool.broker.status.queued == 0 && pool.broker.status.sent == 0
        }
        await pool.close()
    }
}
