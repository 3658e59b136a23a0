// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverZMQ
import Foundation
import Testing

extension ServingTests {
    /// Workers that are killed, stopped and restarted under load.
    ///
    /// `DROVER_FAULT_ROUNDS` says how often each is done.
    @Suite(.serialized)
    struct FaultTests {}
}

extension ServingTests.FaultTests {
    private static let rounds = setting("DROVER_FAULT_ROUNDS", 2)
    private static let calls = 1000

    /// A thousand calls in flight, every other one idempotent.
    private struct Load {
        let results: [AsyncResult<Int>]

        init(on client: Client, from base: Int) throws {
            let plain = client.function(Job.echo)
            let sure = client.function(Job.sureEcho)
            let clog = client.function(Job.sleep)
            // They keep the worker's threads busy, so that the echoes behind them are truly in flight.
            for index in 0..<4 { _ = try clog.async(0.15, "\(index)") }
            self.results = try (0..<calls)
                .map { number in
                    try (number % 2 == 0 ? plain : sure).async(base + number)
                }
        }

        /// Why calls were lost.
        var losses: Set<String> {
            Set(self.results.compactMap { if case .lost(let error)? = $0.outcome { error.message } else { nil } })
        }

        /// Waits for all ends, and judges them.
        func check(from base: Int, within limit: Duration, completesIdempotent: Bool = true) -> [String: Int] {
            eventually("every call has ended", within: limit) { self.results.allSatisfy { $0.isTerminal } }
            var ends: [String: Int] = [:]
            for (number, result) in self.results.enumerated() {
                switch result.outcome {
                case .value(let value):
                    if value != base + number { Issue.record("call \(base + number) got the answer of \(value)") }
                    ends["value", default: 0] += 1
                case .lost(let error):
                    if error.code != .lost { Issue.record("\(error)") }
                    if completesIdempotent, number % 2 == 1 { Issue.record("an idempotent call was lost: \(error)") }
                    ends["lost", default: 0] += 1
                case .failed(let error):
                    Issue.record("\(error)")
                case let other:
                    Issue.record("call \(base + number) came to \(String(describing: other))")
                }
            }
            return ends
        }
    }

    @Test("a killed worker among two: every call ends, idempotent ones complete on the other", .timeLimit(.minutes(10)))
    func killed() throws {
        let lasting = try WorkerProcess()
        for round in 0..<Self.rounds {
            let victim = try WorkerProcess()
            let client = try Client.forTest(lasting.endpoint, victim.endpoint)
            try client.pingBoth()
            let base = round * 1_000_000
            let load = try Load(on: client, from: base)
            victim.end()
            let ends = load.check(from: base, within: .seconds(20))
            #expect((ends["value"] ?? 0) >= Self.calls / 2)
            #expect(try client.function(Job.echo).blocking(7) == 7)
            client.closeBlocking()
        }
        lasting.end()
    }

    @Test("a worker killed alone: calls end, and its successor serves", .timeLimit(.minutes(10)))
    func killedAlone() throws {
        for round in 0..<Self.rounds {
            let victim = try WorkerProcess()
            let client = try Client.forTest(victim.endpoint)
            try client.connectBlocking()
            let base = round * 1_000_000
            let load = try Load(on: client, from: base)
            victim.end()
            // Those that may run only once are lost in time; the others wait for a worker.
            eventually("the plain calls have ended", within: .seconds(5)) {
                // What was never sent has nothing to lose.
                load.results.enumerated()
                    .allSatisfy { $0.offset % 2 == 1 || $0.element.isTerminal || $0.element.phase == .local }
            }
            let successor = try WorkerProcess(at: victim.endpoint)
            _ = load.check(from: base, within: .seconds(20))
            client.closeBlocking()
            successor.end()
        }
    }

    @Test("a worker restarted at once on its address is taken for a new one", .timeLimit(.minutes(10)))
    func restarted() throws {
        var worker = try WorkerProcess()
        for round in 0..<Self.rounds {
            let client = try Client.forTest(worker.endpoint)
            try client.connectBlocking()
            let base = round * 1_000_000
            let load = try Load(on: client, from: base)
            let endpoint = worker.endpoint
            worker.end()
            worker = try WorkerProcess(at: endpoint)
            _ = load.check(from: base, within: .seconds(20))
            #expect(try client.function(Job.echo).blocking(7) == 7)
            client.closeBlocking()
        }
        worker.end()
    }

    @Test("a worker stopped for longer than the silence limit is lost, and comes back", .timeLimit(.minutes(10)))
    func stopped() throws {
        let worker = try WorkerProcess()
        for round in 0..<Self.rounds {
            let client = try Client.forTest(worker.endpoint) { $0.maxAttempts = 10 }
            try client.connectBlocking()
            let base = round * 1_000_000
            let load = try Load(on: client, from: base)
            worker.signal(SIGSTOP)
            eventually("the plain calls have ended", within: .seconds(5)) {
                // What was never sent has nothing to lose.
                load.results.enumerated()
                    .allSatisfy { $0.offset % 2 == 1 || $0.element.isTerminal || $0.element.phase == .local }
            }
            eventually("the worker is taken for lost") { client.statistics.disconnections >= 1 }
            worker.signal(SIGCONT)
            _ = load.check(from: base, within: .seconds(20))
            #expect(try client.function(Job.echo).blocking(7) == 7)
            client.closeBlocking()
        }
        worker.end()
    }

    @Test("a worker stopped for less than the silence limit is not lost", .timeLimit(.minutes(10)))
    func hiccup() throws {
        let worker = try WorkerProcess()
        for round in 0..<Self.rounds {
            let client = try Client.forTest(worker.endpoint) { $0.silenceLimit = .seconds(5) }
            try client.connectBlocking()
            let base = round * 1_000_000
            let load = try Load(on: client, from: base)
            worker.signal(SIGSTOP)
            block(for: .milliseconds(1000))
            worker.signal(SIGCONT)
            // The worker stood still itself and must not take its silent client for gone.
            let ends = load.check(from: base, within: .seconds(20))
            #expect(ends["value"] == Self.calls, "\(load.losses)")
            client.closeBlocking()
        }
        worker.end()
    }

    @Test(
        "S88 one bad call of 2,000 fails alone, as poison, in calls and in a batch, whatever the workers and slots",
        .timeLimit(.minutes(3)),
        arguments: [false, true],
        [(1, 1), (1, 4), (3, 1), (3, 4)]
    )
    func poison(isBatch: Bool, pool: (workers: Int, slots: Int)) async throws {
        var workers = try (0..<pool.workers).map { _ in try WorkerProcess(slots: pool.slots) }
        let endpoints = workers.map { $0.endpoint }
        let client = try Client.forTest(endpoints)
        let deadly = Function<Int, Int>("deadly", isIdempotent: true)
        let ends = Gathered<RemoteError>()
        let values = Gathered<Int>()
        let load = Task {
            if isBatch {
                for try await item in client.map(deadly, over: 0..<2000, .init(onFailure: .goOn)).items {
                    switch item.result {
                    case .success(let value): values.add(value)
                    case .failure(let error): if let error = error as? RemoteError { ends.add(error) }
                    }
                }
            } else {
                let results = try (0..<2000).map { try client.function(deadly).async($0) }
                for result in results {
                    do { values.add(try await result.value) } catch let error as RemoteError { ends.add(error) }
                }
            }
        }
        var deaths = 0
        let limit = ContinuousClock.now + .seconds(60)
        while ends.count + values.count < 2000, ContinuousClock.now < limit {
            // As a supervisor does.
            for index in workers.indices where !workers[index].isRunning {
                deaths += 1
                workers[index].waitForExit()
                workers[index] = try WorkerProcess(at: endpoints[index], slots: pool.slots)
            }
            try await Task.sleep(for: .milliseconds(20))
        }
        #expect(ends.count + values.count == 2000)
        #expect(deaths == 3)
        let error = ends.values.first
        #expect(ends.values.map(\.code) == [.poison] && error?.attempts == 3)
        #expect(error?.workers.count == 3)
        #expect(values.count == 1999 && Set(values.values).count == 1999 && !values.values.contains(1234))
        await client.close()
        _ = await load.result
        for worker in workers { worker.end() }
    }

    @Test("S88 S100 a suspect that runs for long keeps others waiting for five seconds", .timeLimit(.minutes(1)))
    func longSuspect() async throws {
        let address = "tcp://127.0.0.1:\(try ReservedPort.next())"
        var worker = try WorkerProcess(at: address, slots: 8)
        let client = try Client.forTest(address)
        let result = try client.function(Function<Double, String, String>("sleep", isIdempotent: true)).async(40, "a")
        for round in 0..<2 {
            try await becomesTrue("it runs") { "\(result)".contains("running") }
            worker.end()
            try await becomesTrue("the worker is lost") {
                client.statistics.disconnections > round && !"\(result)".contains("running")
            }
            worker = try WorkerProcess(at: address, slots: 8)
        }
        try await becomesTrue("it runs again") { "\(result)".contains("running") }
        let time = try await ContinuousClock().measure { _ = try await client.call(Job.echo, 7, timeout: .seconds(30)) }
        #expect(time < .seconds(8))
        #expect(!result.isTerminal)
        await client.close(grace: .zero)
        worker.end()
    }

    @Test(
        "S88 a call that two workers died with may ask a callback that calls the only worker",
        .timeLimit(.minutes(1))
    )
    func suspectAsks() async throws {
        let address = "tcp://127.0.0.1:\(try ReservedPort.next())"
        var worker = try WorkerProcess(at: address)
        let client = try Client.forTest(address)
        let ask = Function<Callback<Int, Int>, Double, Int, Int>("askLater", isIdempotent: true)
        let callback = client.callback { (number: Int) in try client.function(Job.echo).blocking(number) + 1 }
        let result = try client.function(ask).async(callback, 1, 5)
        for round in 0..<2 {
            try await becomesTrue("it runs") { "\(result)".contains("running") }
            worker.end()
            try await becomesTrue("the worker is lost") {
                client.statistics.disconnections > round && !"\(result)".contains("running")
            }
            worker = try WorkerProcess(at: address)
        }
        result.setExpiry(.seconds(20))
        #expect(try await result.value == 6)
        await client.close(grace: .zero)
        worker.end()
    }
}
