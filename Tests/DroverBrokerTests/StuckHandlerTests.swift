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
        let pool = try Pool(workers: 1, concurrency: 2)
        let client = try pool.client()
        let who = client.function(Job.whoAmI)
        #expect(try await who() == "worker 0")
        try await becomesTrue("both slots are known") { pool.broker.status.slots == 2 }
        await self.expectLimit(client, "one")
        try await becomesTrue("a slot less is left") { pool.broker.status.slots == 1 }
        #expect(try await who() == "worker 0")
        await self.expectLimit(client, "two")
        let workers = client.function(Function<[BrokerWorkerStatus]>.brokerWorkers)
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
        #expect(pool.broker.status.lost == 0)
        #expect(pool.broker.status.resent == 0)
        await pool.close()
    }
}
