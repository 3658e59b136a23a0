// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Testing

@Suite("Stuck handlers behind a broker", .serialized, .timeLimit(.minutes(1)))
struct StuckHandlerTests {
    private func expectLimit(_ client: Client, _ key: String) async {
        let error = await #expect(throws: RemoteError.self) { try await client.function(Job.stick)(key) }
        #expect(error?.code == .timeLimitExceeded)
    }

    @Test(
        "the broker learns how many slots are left, gives a worker without any nothing, and learns when they are back"
    )
    func slots() async throws {
        let pool = try Pool(workers: 0)
        try pool.addWorker("worker 0", concurrency: 2) { $0.maxReplacedSlots = 0 }
        let client = try pool.client()
        let who = client.function(Job.whoAmI)
        #expect(try await who() == "worker 0")
        try await becomesTrue("both slots are known") { pool.broker.status.slots == 2 }
        await self.expectLimit(client, "one")
        try await becomesTrue("a slot less is left") { pool.broker.status.slots == 1 }
        #expect(try await who() == "worker 0")
        await self.expectLimit(client, "two")
        let workers = client.function(Function<[BrokerWorkerStatus]>.brokerWorkers)
        #expect(try await workers().first?.stuck ?? 0 > 0)
        while try await workers().first?.state != .quiet { try await Task.sleep(for: .milliseconds(1)) }
        // It waits at the broker, where any worker could get it.
        let waiting = try who.async()
        try await becomesTrue("the call waits at the broker") { pool.broker.status.queued == 1 }
        try pool.addWorker("fresh")
        #expect(try await waiting.value == "fresh")
        pool.gates.open("one")
        pool.gates.open("two")
        try await becomesTrue("all slots are back") { pool.broker.status.slots == 4 }
        while try await workers().contains(where: { $0.state != .ready }) {
            try await Task.sleep(for: .milliseconds(1))
        }
        #expect(try await workers().allSatisfy { $0.stuck == 0 })
        #expect(pool.broker.status.lost == 0)
        #expect(pool.broker.status.resent == 0)
        await pool.close()
    }

    @Test(
        "a worker whose only slot is held by a handler that ignores its cancellation goes on, and the broker shows it"
    )
    func replaced() async throws {
        let pool = try Pool(workers: 0)
        try pool.addWorker("worker 0", concurrency: 1) { $0.cancellationGrace = .milliseconds(50) }
        let client = try pool.client()
        let workers = client.function(Function<[BrokerWorkerStatus]>.brokerWorkers)
        let hung = try client.function(Job.hang).async("one")
        try await becomesTrue("it runs") { pool.gates.entered == ["one"] }
        hung.cancel()
        #expect(try await client.function(Job.whoAmI)() == "worker 0")
        while try await workers().first?.stuck != 1 { try await Task.sleep(for: .milliseconds(1)) }
        #expect(try await workers().first?.state == .ready)
        #expect(try await workers().first?.concurrency == 1)
        pool.gates.open("one")
        while try await workers().first?.stuck != 0 { try await Task.sleep(for: .milliseconds(1)) }
        #expect(try await client.function(Job.whoAmI)() == "worker 0")
        await pool.close()
    }

    @Test("the worker's log names a call that is stuck as its client and the broker do")
    func named() async throws {
        let log = CapturedLog()
        let pool = try Pool(workers: 0)
        try pool.addWorker("worker 0") {
            $0.cancellationGrace = .milliseconds(50)
            $0.logger = log.logger
        }
        // The broker's own numbers are ahead of the client's.
        let other = try pool.client()
        for _ in 0..<10 { _ = try await other.function(Job.whoAmI)() }
        let client = try pool.client { $0.name = "web-1" }
        let hung = try client.function(Job.hang).async("one")
        // The worker has reported that it runs. What the broker sends it for that arrives before the cancellation.
        try await becomesTrue("it is known to run") { hung.phase == .running(worker: "worker 0") }
        hung.cancel()
        try await becomesTrue("it is logged") { log.lines.contains { $0.contains("a handler is stuck") } }
        let line = try #require(log.lines.first { $0.contains("a handler is stuck") })
        for part in ["drover.correlation_id=\(hung.correlationID)", "drover.client=web-1", "drover.brokers_id=#11"] {
            #expect(line.contains(part), "\(line)")
        }
        pool.gates.open("one")
        await pool.close()
    }
}
