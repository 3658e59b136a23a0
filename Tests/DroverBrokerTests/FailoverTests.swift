// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Foundation
import Synchronization
import Testing

/// Clients and workers that know two brokers.
@Suite("Two brokers", .serialized, .timeLimit(.minutes(10)))
struct FailoverTests {
    private static let echo = Function<Int, Int>("echo", isIdempotent: true)

    /// What a broker says of itself; nil if it says nothing.
    private func status(of client: Client) async -> BrokerStatus? {
        try? await timed(client.function(.brokerStatus), .seconds(1))().value
    }

    private func awaits(_ what: String, at client: Client, _ isTrue: (BrokerStatus) -> Bool) async throws {
        let deadline = ContinuousClock.now + .seconds(30)
        while true {
            if let status = await self.status(of: client), isTrue(status) { return }
            guard ContinuousClock.now < deadline else {
                Issue.record("it did not come true that \(what)")
                return
            }
            try await Task.sleep(for: .milliseconds(5))
        }
    }

    @Test(
        "of a killed broker the idempotent calls go to the other, the rest end lost; it is used again once it is back"
    )
    func killedAndBack() async throws {
        let pool = try Pool(workers: 0)
        let first = try BrokerProcess()
        let second = try BrokerProcess()
        for name in ["one", "two"] {
            try pool.addWorker(name, concurrency: 32, brokers: [first.endpoint, second.endpoint])
        }
        let (firstDirect, secondDirect) = (try pool.client([first.endpoint]), try pool.client([second.endpoint]))
        for direct in [firstDirect, secondDirect] {
            try await self.awaits("both workers are there", at: direct) { $0.workers == 2 }
        }
        let client = try pool.client([first.endpoint, second.endpoint])
        try await client.connect(timeout: .seconds(10))
        try await becomesTrue("there are sessions with both") { client.statistics.sessions == 2 }
        var options = CallOptions()
        options.isIdempotent = true
        let once = try (0..<16).map { _ in try client.function(Job.hold).async("gate") }
        let again = try (0..<16).map { _ in try client.function(Job.hold).with(options).async("gate") }
        try await becomesTrue("all run") { pool.gates.entered.count == 32 }
        let throughFirst = try #require(await self.status(of: firstDirect)).sent
        #expect(throughFirst > 0, "the client uses both brokers")

        first.kill()
        try await becomesTrue("what was lost runs again") { pool.gates.entered.count > 32 }
        // All that comes now goes by the other.
        for number in 0..<50 { #expect(try await client.function(Job.add)(number, 1) == number + 1) }
        pool.gates.open("gate")
        for handle in again { #expect(["one", "two"].contains(try await handle.value)) }
        var lost = 0
        for handle in once {
            do { _ = try await handle.value } catch let error as ConnectionError {
                #expect(error.code == .lost)
                lost += 1
            }
        }
        #expect(lost > 0 && lost <= throughFirst)

        let back = try first.restarted()
        try await self.awaits("the workers have found it again", at: firstDirect) { $0.workers == 2 }
        let received = try #require(await self.status(of: firstDirect)).received
        try await self.awaits("the client uses it again", at: firstDirect) {
            _ = try? (0..<64).map { try client.function(Job.add).async($0, 1) }
            return $0.received > received
        }
        await pool.close()
        back.kill()
        second.kill()
    }

    /// `DROVER_POOL_KILLS=100` makes it a trial by fire: so many workers, and a fifth as many brokers.
    @Test(
        "workers and brokers are killed at random under load: every call ends, with its own answer, and work flows on"
    )
    func storm() async throws {
        let trial = ProcessInfo.processInfo.environment["DROVER_POOL_KILLS"].flatMap { Int($0) }
        let kills = trial ?? 5
        // The trial also measures; a machine that does much else besides needs patience.
        let limit = Duration.seconds(trial == nil ? 30 : 5)
        var brokers = [try BrokerProcess(), try BrokerProcess()]
        let endpoints = brokers.map { $0.endpoint }
        var workers = try (0..<3).map { _ in try WorkerProcess(dialling: endpoints[0], endpoints[1]) }
        var configuration = ClientConfiguration()
        configuration.heartbeatInterval = .milliseconds(300)
        configuration.silenceLimit = .milliseconds(1500)
        configuration.maxAttempts = 200
        let client = try Client(endpoints, configuration: configuration)
        let load = Load(client)
        try await becomesTrue("work flows") { load.answered > 1000 }
        var longest = Duration.zero
        func flowsAgain(after fault: String) async throws {
            let (before, struck) = (load.answered, ContinuousClock.now)
            try await becomesTrue("work flows again after \(fault)", within: limit) {
                load.answered > before + 500
            }
            longest = max(longest, ContinuousClock.now - struck)
        }
        for number in 1...kills {
            #expect(brokers.allSatisfy { $0.isRunning } && workers.allSatisfy { $0.isRunning })
            let fallen = Int.random(in: 0..<workers.count)
            workers[fallen].kill()
            try await flowsAgain(after: "the loss of a worker")
            workers[fallen] = try WorkerProcess(dialling: endpoints[0], endpoints[1])
            guard number.isMultiple(of: 5) else { continue }
            // One of two: the other must have been found by all.
            for (index, endpoint) in endpoints.enumerated() {
                let direct = try Client(endpoint, configuration: configuration)
                try await self.awaits("the workers have found \(endpoint)", at: direct) { $0.workers >= 3 }
                await direct.close(grace: .zero)
                _ = try await client.ping(endpoint: index, timeout: .seconds(30))
            }
            let fallenBroker = Int.random(in: 0...1)
            brokers[fallenBroker].kill()
            try await flowsAgain(after: "the loss of a broker")
            brokers[fallenBroker] = try brokers[fallenBroker].restarted()
        }
        let report = await load.finish()
        #expect(report.wrong == 0)
        #expect(report.failed == [:])
        #expect(report.pending == 0)
        print(
            "\(report.answered) calls answered at \(Int(report.rate))/s through \(kills) killed workers; longest pause \(longest)"
        )
        await client.close(grace: .zero)
        for worker in workers { worker.kill() }
        for broker in brokers { broker.kill() }
    }

    /// Idempotent calls, twenty thousand a second and more, each of which must bring its own argument back.
    private final class Load: Sendable {
        struct Report {
            var answered = 0
            var wrong = 0
            var pending = 0
            var failed: [String: Int] = [:]
            var rate = 0.0
        }

        private let counts = Mutex(Report())
        private let task = Mutex<Task<Void, Never>?>(nil)
        private let started = ContinuousClock.now

        var answered: Int { self.counts.withLock { $0.answered } }

        init(_ client: Client) {
            let echo = client.function(FailoverTests.echo)
            let task = Task { [self] in
                var number = 0
                while !Task.isCancelled {
                    // Two hundred every five milliseconds, unless too many wait for a fault to pass.
                    if self.counts.withLock({ $0.pending < 20_000 }) {
                        for _ in 0..<200 {
                            self.send(number, by: echo)
                            number += 1
                        }
                    }
                    try? await Task.sleep(for: .milliseconds(5))
                }
            }
            self.task.withLock { $0 = task }
        }

        private func send(_ number: Int, by echo: RemoteFunction<Int, Int>) {
            self.counts.withLock { $0.pending += 1 }
            do {
                try echo.async(number)
                    .addCallback { result in
                        self.counts.withLock { counts in
                            counts.pending -= 1
                            guard case .value(let value)? = result.outcome else {
                                counts.failed["\(result)", default: 0] += 1
                                return
                            }
                            counts.answered += 1
                            if value != number { counts.wrong += 1 }
                        }
                    }
            } catch {
                self.counts.withLock { counts in
                    counts.pending -= 1
                    counts.failed["\(error)", default: 0] += 1
                }
            }
        }

        /// Sends no more, and waits until all have ended.
        func finish() async -> Report {
            self.task.withLock { $0?.cancel() }
            let seconds = (ContinuousClock.now - self.started) / .seconds(1)
            try? await becomesTrue("every call ends", within: .seconds(60)) { self.counts.withLock { $0.pending == 0 } }
            return self.counts.withLock { counts in
                counts.rate = Double(counts.answered) / seconds
                return counts
            }
        }
    }
}
