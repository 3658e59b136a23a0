// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Foundation
import Synchronization
import Testing

@Suite("Broker", .serialized, .timeLimit(.minutes(1)))
struct BrokerTests {
    @Test(
        "a thrown error that is too large for the client keeps its code and type behind a broker",
        .timeLimit(.minutes(1))
    )
    func largeError() async throws {
        let pool = try Pool(workers: 0)
        let long = Function<Int, Int>("long")
        let worker = Worker()
        worker.register(long) { (count: Int) -> Int in throw Refusal(text: String(repeating: "x", count: count)) }
        let running = try worker.start(.connect(pool.endpoint))
        let client = try pool.client { $0.maxPayloadBytes = 2048 }
        for count in [3000, 3_000_000] {
            let error = await #expect(throws: RemoteError.self) { try await client.call(long, count) }
            #expect(error?.code == .failed && error?.type == "Refusal")
            #expect(error?.message.contains("xxxx") == true)
        }
        await running.stop(grace: .zero)
        await pool.close()
    }

    @Test("a call goes through a broker to a worker that dialled it, and its answer comes back")
    func call() async throws {
        let pool = try Pool()
        let client = try pool.client()
        let sum = try await client.function(Job.add)(20, 22)
        #expect(sum == 42)
        await pool.close()
    }

    @Test("a client that was there before any worker is served when one comes")
    func workerLater() async throws {
        let pool = try Pool(workers: 0)
        let client = try pool.client()
        let result = try client.function(Job.add).async(1, 2)
        try await becomesTrue("the call waits at the broker") { pool.broker.status.queued == 1 }
        try pool.addWorker("late")
        #expect(try await result.value == 3)
        await pool.close()
    }

    @Test("many calls are spread over all workers, each with its own answer")
    func spread() async throws {
        let pool = try Pool(workers: 3)
        let client = try pool.client()
        try await becomesTrue("all workers are there") { pool.broker.status.workers == 3 }
        let add = client.function(Job.add)
        let sums = try (0..<3000).map { try add.async($0, 1) }
        for (number, sum) in sums.enumerated() { #expect(try await sum.value == number + 1) }
        // How quick calls are spread depends on whose threads get a processor; long ones take all slots.
        let long = try (0..<6).map { try client.function(Job.hold).async("call \($0)") }
        try await becomesTrue("all slots are taken") { pool.gates.entered.count == 6 }
        var seen: [String: Int] = [:]
        for (number, call) in long.enumerated() {
            pool.gates.open("call \(number)")
            seen[try await call.value, default: 0] += 1
        }
        #expect(seen == ["worker 0": 2, "worker 1": 2, "worker 2": 2])
        try await becomesTrue("nothing is left") {
            pool.broker.status.queued == 0 && pool.broker.status.sent == 0
        }
        await pool.close()
    }

    @Test("a batch's quick items share requests through it, and all workers have their part")
    func batch() async throws {
        let pool = try Pool(workers: 2)
        let client = try pool.client()
        try await becomesTrue("all workers are there") { pool.broker.status.workers == 2 }
        let inputs = (0..<20_000).lazy.map { ($0, 1) }
        var sum = 0
        for try await ((number, _), next) in client.map(Job.add, over: inputs) {
            #expect(next == number + 1)
            sum += next
        }
        #expect(sum == 20_000 * 20_001 / 2)
        #expect(pool.broker.status.received < 10_000, "\(pool.broker.status.received) requests")
        let workers = try await client.function(.brokerWorkers)()
        #expect(workers.count == 2 && workers.allSatisfy { $0.answered > 10 }, "\(workers.map(\.answered))")
        await pool.close()
    }

    @Test("of what waits at it, the highest priority goes first, and equals go in their order")
    func priorities() async throws {
        let pool = try Pool(workers: 0)
        let client = try pool.client()
        var calls: [AsyncResult<Int>] = []
        for (number, priority) in [(0, 1), (1, 4), (2, 7), (3, 1), (4, 7), (5, 0), (6, 4)] {
            let options = CallOptions(priority: UInt8(priority))
            calls.append(try client.function(Job.append).with(options).async(number))
        }
        try await becomesTrue("all wait") { pool.broker.status.queued == calls.count }
        // A worker that may hold several is asked to give back what waits at it when it stalls; while one comes back,
        // what goes behind it may be sent.
        try pool.addWorker("single", concurrency: 1) { $0.window = 1 }
        for call in calls { _ = try await call.value }
        #expect(pool.order.withLock { $0 } == [2, 4, 1, 6, 0, 3, 5])
        await pool.close()
    }

    @Test("a handler's error crosses the broker with its type, its message and its worker")
    func errors() async throws {
        let pool = try Pool()
        let client = try pool.client()
        let error = await #expect(throws: RemoteError.self) { try await client.function(Job.fail)("no") }
        #expect(error?.code == .failed)
        #expect(error?.type == "Refusal")
        #expect(error?.worker == "worker 0")
        await pool.close()
    }

    @Test("large arguments and results cross it", arguments: [10_000, 40_000, 1 << 20, 5 << 20])
    func large(size: Int) async throws {
        let pool = try Pool()
        let client = try pool.client()
        let bytes = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        let echo = client.function(Job.echo)
        let handles = try (0..<4).map { _ in try echo.async(bytes) }
        for handle in handles { #expect(try await handle.value == bytes) }
        await pool.close()
    }

    @Test("a function that nobody has is waited for, and then refused with the remedy")
    func noWorker() async throws {
        let pool = try Pool { $0.noWorkerPatience = .milliseconds(100) }
        let client = try pool.client()
        let missing = client.function(Function<Int, Int>("missing"))
        let error = await #expect(throws: RemoteError.self) { try await missing(1) }
        #expect(error?.code == .unknownFunction)
        #expect(error?.isRetryable == true)
        #expect(error?.message.contains("start one") == true, "\(error?.message ?? "")")
        await pool.close()
    }

    @Test("queue and labels choose the worker")
    func demands() async throws {
        let pool = try Pool(workers: 1)
        try pool.addWorker("gpu") {
            $0.queues = ["pictures"]
            $0.labels = ["zone": "eu"]
            $0.resources = ["gpu": 1]
        }
        let client = try pool.client()
        let who = client.function(Job.whoAmI)
        var options = CallOptions()
        options.queue = "pictures"
        #expect(try await who.with(options).async().value == "gpu")
        options.labels = ["zone": "eu"]
        options.resources = ["gpu": 1]
        #expect(try await who.with(options).async().value == "gpu")
        for _ in 0..<20 { #expect(try await who() == "worker 0") }
        await pool.close()
    }

    @Test("a resource is never given twice at the same time")
    func resources() async throws {
        let pool = try Pool(workers: 0)
        try pool.addWorker("gpu", concurrency: 4) { $0.resources = ["gpu": 1] }
        let client = try pool.client()
        var options = CallOptions()
        options.resources = ["gpu": 1]
        let hold = client.function(Job.hold)
        let first = try hold.with(options).async("a")
        let second = try hold.with(options).async("b")
        let free = try hold.async("c")
        try await becomesTrue("the first and the one without demands run") { Set(pool.gates.entered) == ["a", "c"] }
        pool.gates.open("a")
        _ = try await first.value
        try await becomesTrue("the second follows") { pool.gates.entered.contains("b") }
        pool.gates.open("b")
        pool.gates.open("c")
        _ = try await (second.value, free.value)
        await pool.close()
    }

    @Test("calls of one ordering key run one at a time in their order, over all workers")
    func ordering() async throws {
        let pool = try Pool(workers: 3)
        let client = try pool.client()
        try await becomesTrue("all workers are there") { pool.broker.status.workers == 3 }
        var options = CallOptions()
        options.orderingKey = "one"
        let append = client.function(Job.append)
        let handles = try (0..<200).map { try append.with(options).async($0) }
        for handle in handles { _ = try await handle.value }
        #expect(pool.order.withLock { $0 } == Array(0..<200))
        await pool.close()
    }

    @Test("a call that waits is cancelled at the broker, one that runs at its worker")
    func cancelling() async throws {
        let pool = try Pool(workers: 1, concurrency: 1)
        let client = try pool.client()
        let hold = client.function(Job.hold)
        let running = try hold.async("never")
        try await becomesTrue("it runs") { pool.gates.entered == ["never"] }
        let waiting = try (0..<10).map { _ in try hold.async("later") }
        for handle in waiting { handle.cancel() }
        running.cancel()
        await #expect(throws: CancellationError.self) { try await running.value }
        for handle in waiting { await #expect(throws: CancellationError.self) { try await handle.value } }
        try await becomesTrue("nothing is left") {
            pool.broker.status.queued == 0 && pool.broker.status.sent == 0
        }
        #expect(pool.gates.entered == ["never"])
        #expect(try await client.function(Job.add)(1, 1) == 2)
        await pool.close()
    }

    @Test("an expiry ends a call that waits at the broker, and frees its place there")
    func expiry() async throws {
        let pool = try Pool(workers: 1, concurrency: 1)
        let client = try pool.client()
        let hold = client.function(Job.hold)
        let running = try hold.async("gate")
        try await becomesTrue("it runs") { pool.gates.entered == ["gate"] }
        let short = timed(client.function(Job.hold), .milliseconds(50))
        let waiting = try short("late")
        await #expect(throws: AsyncResultTimeout.self) { try await waiting.value }
        try await becomesTrue("it left the queue") { pool.broker.status.queued == 0 }
        pool.gates.open("gate")
        _ = try await running.value
        #expect(pool.gates.entered == ["gate"])
        await pool.close()
    }

    @Test("progress, events and calls of callbacks cross it, in order")
    func callbacks() async throws {
        let pool = try Pool(workers: 2)
        let client = try pool.client()
        let counting = try client.function(Job.count).async(100)
        var progress: [Int] = []
        for try await event in counting.events { progress.append(try event.value(as: Int.self)) }
        #expect(progress == Array(0..<100))
        #expect(try await counting.value == 100)

        let seen = Mutex<[Int]>([])
        let collect = client.callback { (number: Int) in seen.withLock { $0.append(number) } }
        let tick = client.function(Job.tick)
        #expect(try await tick(collect, 1000) == 1000)
        try await becomesTrue("all events are there") { seen.withLock { $0.count } == 1000 }
        #expect(seen.withLock { $0 } == Array(0..<1000))

        let twice = client.callback(.init(lifetime: .untilCancelled)) { (number: Int) -> Int in 2 * number }
        let double = client.function(Job.double)
        for number in 0..<50 { #expect(try await double(twice, number) == 2 * number) }
        await pool.close()
    }

    @Test("of a worker that leaves the calls go on elsewhere")
    func workerLeaves() async throws {
        let pool = try Pool(workers: 1, concurrency: 1)
        let client = try pool.client()
        let hold = client.function(Job.hold)
        var options = CallOptions()
        options.isIdempotent = true
        let handles = try (0..<10).map { try hold.with(options).async("x\($0)") }
        let leaving = try pool.addWorker("leaving", concurrency: 1)
        try await becomesTrue("both run one") { pool.gates.entered.count == 2 }
        await leaving.stop(grace: .zero)
        for number in 0..<10 { pool.gates.open("x\(number)") }
        for handle in handles { #expect(try await handle.value == "worker 0") }
        await pool.close()
    }

    @Test("a quiet worker gets nothing new until it resumes")
    func quiet() async throws {
        let pool = try Pool(workers: 1)
        let other = try pool.addWorker("other")
        let client = try pool.client()
        try await becomesTrue("both are there") { pool.broker.status.workers == 2 }
        other.isQuiet = true
        let who = client.function(Job.whoAmI)
        try await becomesTrue("it gets nothing") {
            let names = try (0..<50).map { _ in try who.async() }.map { try $0.get() }
            return !names.contains("other")
        }
        other.isQuiet = false
        try await becomesTrue("it gets some again") {
            let names = try (0..<50).map { _ in try who.async() }.map { try $0.get() }
            return names.contains("other")
        }
        await pool.close()
    }

    @Test("a broker that restarts at the same address is found again by workers and clients")
    func restart() async throws {
        let first = try Pool(workers: 2)
        let endpoint = first.endpoint
        let client = try first.client()
        let add = client.function(Job.add)
        #expect(try await add(1, 2) == 3)
        await first.broker.stop(grace: .zero)
        // libzmq closes the former listener a moment after its socket.
        var successor: Pool?
        try await becomesTrue("the address is free") {
            successor = try? Pool(address: endpoint, workers: 0)
            return successor != nil
        }
        let second = try #require(successor)
        var options = CallOptions()
        options.isIdempotent = true
        #expect(try await add.with(options).async(3, 4).value == 7)
        try await becomesTrue("both workers are back") { second.broker.status.workers == 2 }
        await first.close()
        await second.close()
    }
}
