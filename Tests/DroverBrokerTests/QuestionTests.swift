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

    @Test("it tells why a call waits: what keeps each worker from it, and what goes first")
    func why() async throws {
        let pool = try Pool(workers: 0)
        try pool.addWorker("full", concurrency: 1)
        try pool.addWorker("american", concurrency: 1) { $0.labels = ["zone": "us"] }
        try await becomesTrue("both are there") { pool.broker.status.workers == 2 }
        let client = try pool.client { $0.name = "asking" }
        func explained(_ call: AsyncResult<String>) async throws -> BrokerCallStatus {
            let all = try await client.function(.brokerWhy)(call.correlationID.rawValue)
            #expect(all.count == 1)
            return try #require(all.first)
        }
        var american = CallOptions(labels: ["zone": "us"])
        let running = try client.function(Job.hold).with(american).async("gate")
        try await becomesTrue("it runs") { pool.gates.entered == ["gate"] }
        let sent = try await explained(running)
        #expect(sent.state == .sent && sent.worker == "american" && sent.client == "asking" && sent.candidates == [])
        american.orderingKey = "line"
        let european = try client.function(Job.hold).with(CallOptions(expiry: .seconds(60), labels: ["zone": "eu"]))
            .async("gate")
        try await becomesTrue("it waits") { pool.broker.status.queued == 1 }
        let lacking = try await explained(european)
        #expect(lacking.state == .queued && lacking.labels == ["zone": "eu"] && lacking.function == "hold")
        #expect(try #require(lacking.secondsLeft) > 30)
        let obstacles = Dictionary(uniqueKeysWithValues: lacking.candidates.map { ($0.worker, $0.obstacle) })
        #expect(obstacles == ["full": "is not zone=eu", "american": "is zone=us, not zone=eu"])
        #expect(lacking.reason.hasPrefix("none of the 2 workers may run it"))
        // The first of a key is at its worker or about to be; the second waits for it.
        let first = try client.function(Job.hold).with(american).async("gate")
        let second = try client.function(Job.hold).with(american).async("gate")
        try await becomesTrue("they have come") { pool.broker.status.received == 4 }
        let held = try await explained(second)
        #expect(held.state == .held && held.orderingKey == "line" && held.ahead == 1)
        #expect(held.reason.contains("ordering key \"line\""))
        #expect(try await client.function(.brokerWhy)(1 << 40) == [])
        european.cancel()
        pool.gates.open("gate")
        for call in [running, first, second] { _ = try await call.value }
        await pool.close()
    }

    @Test("an operator cancels a call: one that waits ends at once, one that runs when its handler does")
    func cancelling() async throws {
        let pool = try Pool(workers: 1, concurrency: 1)
        let client = try pool.client { $0.name = "web" }
        let running = try client.function(Job.hold).async("gate")
        try await becomesTrue("it runs") { pool.gates.entered == ["gate"] }
        let waiting = try client.function(Job.hold).with(CallOptions(labels: ["zone": "none"])).async("other")
        try await becomesTrue("it waits") { pool.broker.status.queued == 1 }
        let operatorsClient = try pool.client { $0.name = "operator" }
        let cancel = operatorsClient.function(.brokerCancel)
        let over = try await cancel(waiting.correlationID.rawValue, "web")
        #expect(over.map { $0.function } == ["hold"] && over.first?.client == "web" && over.first?.worker == nil)
        let told = await #expect(throws: RemoteError.self) { try await waiting.value }
        #expect(told?.code == .cancelled)
        #expect(told?.message.contains("an operator cancelled the call") == true)
        #expect(try await cancel(running.correlationID.rawValue, "web").first?.worker == "worker 0")
        let stopped = await #expect(throws: RemoteError.self) { try await running.value }
        #expect(stopped?.code == .cancelled)
        #expect(try await cancel(running.correlationID.rawValue, "web") == [])
        // The same id of two clients: nothing is cancelled before it is clear whose is meant.
        let twins = try [pool.client { $0.name = "twin" }, pool.client { $0.name = "twin" }]
        let calls = try twins.map { try $0.function(Job.hold).async("twin") }
        try await becomesTrue("both have come") { pool.broker.status.sent + pool.broker.status.queued == 2 }
        #expect(calls[0].correlationID == calls[1].correlationID)
        for owner in [nil, "twin"] {
            let unclear = await #expect(throws: RemoteError.self) {
                try await cancel(calls[0].correlationID.rawValue, owner)
            }
            #expect(unclear?.message.contains("2 clients have a call #1") == true, "\(unclear as Any)")
        }
        pool.gates.open("twin")
        for call in calls { _ = try await call.value }
        await pool.close()
    }

    @Test("workers are told through it to be quiet, to resume and to stop")
    func orders() async throws {
        let pool = try Pool(workers: 0)
        let alpha = try pool.addWorker("alpha")
        try pool.addWorker("beta")
        let client = try pool.client()
        let order = client.function(.brokerOrder)
        try await becomesTrue("both are there") { pool.broker.status.workers == 2 }
        let states = { try await client.function(.brokerWorkers)().map { "\($0.name) \($0.state)" } }
        func becomes(_ wanted: [String]) async throws {
            let deadline = ContinuousClock.now + .seconds(20)
            while try await states() != wanted {
                guard ContinuousClock.now < deadline else {
                    Issue.record("the workers did not become \(wanted)")
                    return
                }
            }
        }
        try await becomes(["alpha ready", "beta ready"])
        #expect(try await order("alpha", .quiet, 0).count == 1)
        try await becomes(["alpha quiet", "beta ready"])
        #expect(alpha.isQuiet)
        let id = try #require(try await order("alpha", .resume, 0).first)
        try await becomes(["alpha ready", "beta ready"])
        #expect(try await order("gamma", .stop, 0) == [])
        #expect(try await order(id, .stop, 5) == [id])
        try await becomes(["beta ready"])
        let error = await #expect(throws: RemoteError.self) {
            try await client.function(Function<String, [String]>("drover.order"))("alpha")
        }
        #expect(error?.code == .badArguments)
        await pool.close()
    }
}
