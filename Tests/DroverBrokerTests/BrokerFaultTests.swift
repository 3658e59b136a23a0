// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import DroverZMQ
import Foundation
import Testing

@Suite("A broker's faults", .serialized, .timeLimit(.minutes(2)))
struct BrokerFaultTests {
    private static let sleeping = Function<Double, String, String>("sleep")

    @Test("of a killed worker the idempotent calls run elsewhere, the others end lost, all within seconds")
    func killed() async throws {
        let pool = try Pool(workers: 0)
        let victim = try WorkerProcess(dialling: pool.endpoint)
        let client = try pool.client()
        try await becomesTrue("the worker is there") { pool.broker.status.workers == 1 }
        var options = CallOptions()
        options.isIdempotent = true
        let once = try client.function(Self.sleeping).async(30, "once")
        let again = try client.function(Self.sleeping).with(options).async(0.01, "again")
        let long = try client.function(Self.sleeping).with(options).async(30, "long")
        #expect(try await again.value == "again")
        try await becomesTrue("both are at the worker") { pool.broker.status.sent == 2 }
        let next = try WorkerProcess(dialling: pool.endpoint)
        try await becomesTrue("the second worker is there") { pool.broker.status.workers == 2 }
        victim.kill()
        let error = await #expect(throws: ConnectionError.self) { try await once.value }
        #expect(error?.code == .lost)
        try await becomesTrue("the other one runs again") {
            pool.broker.status.resent == 1 && pool.broker.status.sent == 1
        }
        #expect(pool.broker.status.lost == 1)
        long.cancel()
        next.kill()
        await pool.close()
    }

    @Test("S28 what a request spent on its way to the broker is taken off its time")
    func underWay() async throws {
        let pool = try Pool { $0.silenceLimit = .seconds(60) }
        try self.sendLate(to: pool)
        await pool.close()
    }

    private func sendLate(to pool: Pool) throws {
        var raw = try RawClient(pool.endpoint)
        try raw.send(RawClient.hello(identity: 7))
        #expect(try raw.nextKind() == 2)
        let clock = UInt32(truncatingIfNeeded: MonotonicClock.now() / 1000)
        let payload = [0x91, 0xA4] + Array("late".utf8)
        // A stamp that was not under way, and one that was for five seconds longer.
        try raw.send(RawClient.header(kind: 16, count: 4) + Array("hold".utf8))
        try raw.send(RawClient.header(kind: 5, id: 9, time: clock))
        try raw.send(
            RawClient.header(kind: 5, id: 9, time: clock &- 5_000_000)
                + RawClient.header(kind: 17, id: 1, count: 6, time: 3000) + payload
        )
        #expect(try raw.nextKind() == 24)
        #expect(pool.gates.entered.isEmpty)
        pool.gates.open("late")
        try raw.send(RawClient.header(kind: 17, id: 2, count: 6, time: 60_000) + payload)
        var kind = try raw.nextKind()
        while let report = kind, (21...23).contains(report) { kind = try raw.nextKind() }
        #expect(kind == 18)
        #expect(pool.gates.entered == ["late"])
    }

    @Test(
        "S88 through a broker one bad call of 2,000 fails alone, as poison, in calls and in a batch",
        arguments: [false, true],
        [(1, 1), (1, 4), (3, 1), (3, 4)]
    )
    func poison(isBatch: Bool, size: (workers: Int, slots: Int)) async throws {
        let pool = try Pool(workers: 0)
        let first = try (0..<size.workers).map { _ in try WorkerProcess(dialling: pool.endpoint, slots: size.slots) }
        let client = try pool.client()
        let deadly = Function<Int, Int>("deadly", isIdempotent: true)
        let load = Task {
            var (values, errors) = (Set<Int>(), [RemoteError]())
            if isBatch {
                for try await item in client.map(deadly, over: 0..<2000, .init(onFailure: .goOn)).items {
                    switch item.result {
                    case .success(let value): values.insert(value)
                    case .failure(let error): if let error = error as? RemoteError { errors.append(error) }
                    }
                }
            } else {
                let results = try (0..<2000).map { try client.function(deadly).async($0) }
                for result in results {
                    do { values.insert(try await result.value) } catch let error as RemoteError { errors.append(error) }
                }
            }
            return (values, errors)
        }
        // As a supervisor does.
        let supervisor = Task {
            var (workers, deaths) = (first, 0)
            while !Task.isCancelled {
                for index in workers.indices where !workers[index].isRunning {
                    deaths += 1
                    workers[index] = try WorkerProcess(dialling: pool.endpoint, slots: size.slots)
                }
                try? await Task.sleep(for: .milliseconds(20))
            }
            for worker in workers { worker.kill() }
            return deaths
        }
        let (values, errors) = try await load.value
        supervisor.cancel()
        #expect(try await supervisor.value == 3)
        #expect(errors.map(\.code) == [.poison] && errors.first?.attempts == 3)
        #expect(errors.first?.workers.count == 3)
        #expect(values.count == 1999 && !values.contains(1234))
        await client.close()
        await pool.close()
    }

    @Test("S88 calls that two workers died with may call the pool, themselves or by a callback", arguments: [1, 2])
    func nestedSuspects(count: Int) async throws {
        let pool = try Pool(workers: 0)
        let client = try pool.client()
        func start() throws -> [WorkerProcess] {
            try (0..<count).map { _ in try WorkerProcess(dialling: pool.endpoint, slots: 4) }
        }
        let nest = Function<Double, Int, Int>("nest", isIdempotent: true)
        let ask = Function<Callback<Int, Int>, Double, Int, Int>("askLater", isIdempotent: true)
        let echo = client.function(Function<Int, Int>("echo"))
        let callback = client.callback(CallbackOptions(lifetime: .untilCancelled)) { try echo.blocking($0) }
        for asks in [false, true] {
            var workers = try start()
            let results = try (0..<count)
                .map { number in
                    asks
                        ? try client.function(ask).async(callback, 0.5, number)
                        : try client.function(nest).async(0.5, number)
                }
            for _ in 0..<2 {
                try await becomesTrue("they are at workers") { pool.broker.status.sent == count }
                for worker in workers { worker.kill() }
                try await becomesTrue("all workers are dead") { pool.broker.status.workers == 0 }
                workers = try start()
            }
            for (number, result) in results.enumerated() {
                result.setExpiry(.seconds(20))
                #expect(try await result.value == number)
            }
            for worker in workers { worker.kill() }
            try await becomesTrue("all workers are gone") { pool.broker.status.workers == 0 }
        }
        await client.close()
        await pool.close()
    }

    @Test("S88 S100 through a broker suspects that run for long keep others waiting for five seconds, and no longer")
    func longSuspects() async throws {
        let pool = try Pool(workers: 0)
        let (client, other) = (try pool.client(), try pool.client())
        func start() throws -> [WorkerProcess] {
            try (0..<2).map { _ in try WorkerProcess(dialling: pool.endpoint, slots: 8) }
        }
        var workers = try start()
        let sleep = Function<Double, String, String>("sleep", isIdempotent: true)
        let long = try (0..<2).map { try client.function(sleep).async(40, "\($0)") }
        for _ in 0..<2 {
            try await becomesTrue("they are at workers") { pool.broker.status.sent == 2 }
            for worker in workers { worker.kill() }
            try await becomesTrue("all workers are dead") { pool.broker.status.workers == 0 }
            workers = try start()
        }
        try await becomesTrue("each has a worker to itself") {
            pool.broker.status.workers == 2 && pool.broker.status.sent == 2
        }
        let time = try await ContinuousClock()
            .measure { _ = try await other.call(Function<Int, Int>("echo"), 7, timeout: .seconds(30)) }
        #expect(time < .seconds(8))
        for call in long { call.cancel() }
        for worker in workers { worker.kill() }
        await client.close(grace: .zero)
        await other.close(grace: .zero)
        await pool.close()
    }

    @Test("4,096 names of one client keep no worker's function from being called, then or later")
    func manyNames() async throws {
        let pool = try Pool(workers: 0)
        let greedy = try pool.client { $0.maxOutstandingCalls = 10_000 }
        let names = try (0..<4096).map { try greedy.function(Function<Int>("n\($0)")).async() }
        try await becomesTrue("they wait") { pool.broker.status.queued == 4096 }
        let limit = #expect(throws: UsageError.self) { _ = try greedy.function(Job.add).async(1, 2) }
        #expect(limit?.code == .notCallable && limit?.message.contains("4096 function names") == true)
        try pool.addWorker("late")
        let client = try pool.client()
        #expect(try await client.function(Job.add)(1, 2) == 3)
        for call in names { call.cancel() }
        await greedy.close()
        #expect(try await client.function(Job.echo)([1]) == [1])
        await pool.close()
    }

    @Test("thirty calls for three workers, one of which is blocked: the others are answered at once")
    func blocked() async throws {
        let pool = try Pool(workers: 3, concurrency: 1)
        let client = try pool.client()
        try await becomesTrue("all are there") { pool.broker.status.workers == 3 }
        let held = try client.function(Job.hold).async("gate")
        try await becomesTrue("one worker is blocked") { pool.gates.entered == ["gate"] }
        let add = client.function(Job.add)
        let handles = try (0..<29).map { try add.async($0, 1) }
        // None waits for the gate, which opens only after them.
        for (number, handle) in handles.enumerated() { #expect(try await handle.value == number + 1) }
        pool.gates.open("gate")
        _ = try await held.value
        await pool.close()
    }

    @Test("a client with ten calls doesn't wait for another's ten thousand")
    func fairness() async throws {
        let pool = try Pool(workers: 0)
        let (greedy, modest) = (try pool.client { $0.maxOutstandingCalls = 20_000 }, try pool.client())
        let many = try (0..<10_000).map { try greedy.function(Job.add).async($0, 0) }
        try await becomesTrue("they wait") { pool.broker.status.queued == 10_000 }
        let few = try (0..<10).map { try modest.function(Job.add).async($0, 0) }
        try await becomesTrue("all wait") { pool.broker.status.queued == 10_010 }
        try pool.addWorker("one")
        for (number, handle) in few.enumerated() { #expect(try await handle.value == number) }
        #expect(many.contains { !$0.isReady }, "the ten thousand were done first")
        for handle in many { _ = try await handle.value }
        await pool.close()
    }

    @Test(
        "workers are killed one after the other while they work: every idempotent call completes, with its own answer"
    )
    func killedAgainAndAgain() async throws {
        let pool = try Pool(workers: 0)
        let client = try pool.client()
        var options = CallOptions()
        options.isIdempotent = true
        let nap = client.function(Self.sleeping).with(options)
        let kept = try WorkerProcess(dialling: pool.endpoint)
        for round in 0..<3 {
            let victim = try WorkerProcess(dialling: pool.endpoint)
            try await becomesTrue("both can sleep") { pool.broker.status.workers == 2 }
            let handles = try (0..<20).map { try nap.async(0.1, "\(round) \($0)") }
            try await becomesTrue("both have some") { pool.broker.status.sent > 4 }
            victim.kill()
            for (number, handle) in handles.enumerated() { #expect(try await handle.value == "\(round) \(number)") }
        }
        #expect(pool.broker.status.resent > 0)
        kept.kill()
        await pool.close()
    }

    @Test("bytes that no peer would send are counted, and nobody else is harmed")
    func garbage() async throws {
        let pool = try Pool()
        let client = try pool.client()
        #expect(try await client.function(Job.add)(1, 2) == 3)
        try sendGarbage(to: pool.endpoint)
        try await becomesTrue("they are counted") { pool.broker.status.malformed >= 50 }
        #expect(try await client.function(Job.add)(3, 4) == 7)
        await pool.close()
    }
}
