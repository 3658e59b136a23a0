// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Glibc
import Logging
import Synchronization
import Testing

/// Calls of callbacks whose connection breaks while they are on their way, or run, or are answered.
@Suite("Calls of callbacks over links that break", .serialized, .timeLimit(.minutes(1)))
struct LostInvocationTests {
    private static let ask = Function<Callback<Int, [UInt8], Int>, Int, Int, String>("ask")
    private static let fetch = Function<Callback<Int, [UInt8]>, Int, Int>("fetch")

    enum Way: CaseIterable { case direct, clientLink, workerLink }

    private final class Count: Sendable {
        private let count = Atomic<Int>(0)
        var value: Int { self.count.load(ordering: .acquiring) }
        func add() { self.count.add(1, ordering: .releasing) }
    }

    /// Everything that stands between a handler and a callback.
    private final class Bench: Sendable {
        let link: FlakyLink
        let client: Client
        let asked = Count()
        private let running: RunningWorker
        private let pool: Pool?

        init(_ way: Way) async throws {
            var configuration = WorkerConfiguration()
            configuration.name = "worker"
            configuration.concurrency = 4
            configuration.logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
            let worker = Worker(configuration: configuration)
            let asked = self.asked
            worker.register(LostInvocationTests.ask) { callback, number, size in
                asked.add()
                do {
                    return "\(try callback.blocking(number, [UInt8](repeating: 7, count: size)))"
                } catch let error as ConnectionError where error.code == .lost {
                    return "lost"
                }
            }
            worker.register(LostInvocationTests.fetch) { callback, size in try callback.blocking(size).count }
            switch way {
            case .direct:
                self.pool = nil
                self.running = try worker.start(.bind("tcp://127.0.0.1:*"))
                self.link = try FlakyLink(to: self.running.endpoint)
                self.client = try Client(self.link.endpoint)
            case .clientLink:
                let pool = try Pool(workers: 0)
                self.pool = pool
                self.running = try worker.start(.connect(pool.endpoint))
                self.link = try FlakyLink(to: pool.endpoint)
                self.client = try Client(self.link.endpoint)
            case .workerLink:
                let pool = try Pool(workers: 0)
                self.pool = pool
                self.link = try FlakyLink(to: pool.endpoint)
                self.running = try worker.start(.connect(self.link.endpoint))
                self.client = try pool.client()
            }
            try await self.client.connect()
        }

        func stopWorker() async { await self.running.stop(grace: .zero) }

        func close() async {
            await self.client.close(grace: .zero)
            await self.running.stop(grace: .zero)
            await self.pool?.close()
            self.link.close()
        }
    }

    @Test(
        "a call of a callback that is lost with a connection ends as lost, soon",
        arguments: Way.allCases,
        [10, 3_000_000]
    )
    func lost(way: Way, size: Int) async throws {
        let bench = try await Bench(way)
        let ran = Atomic<Int>(0)
        let callback = bench.client.callback(CallbackOptions(lifetime: .untilCancelled)) {
            (number: Int, _: [UInt8]) -> Int in
            ran.add(1, ordering: .relaxed)
            return number
        }
        let ask = bench.client.function(Self.ask)
        #expect(try await ask(callback, 1, 10) == "1")
        for round in 2..<6 {
            let before = bench.asked.value
            let call = try ask.async(callback, round, size)
            try await becomesTrue("it asks") { bench.asked.value > before }
            bench.link.cut(for: .milliseconds(30))
            let value = try await call.value
            #expect(value == "lost" || value == "\(round)")
        }
        // The last cut may not be over.
        var value = "lost"
        while value == "lost" { value = try await ask(callback, 9, size) }
        #expect(value == "9")
        #expect(bench.client.statistics.losses == 0)
        await bench.close()
    }

    @Test(
        "an answer that is given while there is no connection arrives by the next",
        arguments: Way.allCases,
        [10, 5_000_000]
    )
    func answered(way: Way, size: Int) async throws {
        let bench = try await Bench(way)
        let isRunning = Atomic<Bool>(false)
        let mayAnswer = Atomic<Bool>(false)
        let callback = bench.client.callback { (size: Int) -> [UInt8] in
            isRunning.store(true, ordering: .releasing)
            while !mayAnswer.load(ordering: .acquiring) { usleep(1000) }
            return [UInt8](repeating: 1, count: size)
        }
        let call = try bench.client.function(Self.fetch).async(callback, size)
        try await becomesTrue("it runs") { isRunning.load(ordering: .acquiring) }
        bench.link.cut(for: .milliseconds(300))
        try await Task.sleep(for: .milliseconds(100))
        mayAnswer.store(true, ordering: .releasing)
        #expect(try await call.value == size)
        #expect(bench.client.statistics.losses == 0)
        await bench.close()
    }

    @Test("an answer in parts whose connection breaks again and again begins anew, or is lost", arguments: Way.allCases)
    func parts(way: Way) async throws {
        let bench = try await Bench(way)
        let callback = bench.client.callback { (size: Int) -> [UInt8] in [UInt8](repeating: 1, count: size) }
        let call = try bench.client.function(Self.fetch).async(callback, 60_000_000)
        for _ in 0..<5 {
            try await Task.sleep(for: .milliseconds(20))
            bench.link.cut(for: .milliseconds(5))
        }
        do {
            #expect(try await call.value == 60_000_000)
        } catch let error as RemoteError {
            #expect("\(error)".contains("was lost with a connection"))
        }
        await bench.close()
    }

    @Test("an answer in parts to a worker that was replaced isn't given to its successor")
    func successor() async throws {
        func worker(_ name: String) -> Worker {
            var configuration = WorkerConfiguration()
            configuration.name = name
            configuration.logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
            let worker = Worker(configuration: configuration)
            worker.register(Self.fetch) { callback, size in try callback.blocking(size).count }
            return worker
        }
        let first = try worker("first").start(.bind("tcp://127.0.0.1:*"))
        let link = try FlakyLink(to: first.endpoint)
        let client = try Client(link.endpoint)
        let isRunning = Atomic<Bool>(false)
        let mayAnswer = Atomic<Bool>(false)
        let former = client.callback(CallbackOptions(lifetime: .untilCancelled)) { (size: Int) -> [UInt8] in
            isRunning.store(true, ordering: .releasing)
            while !mayAnswer.load(ordering: .acquiring) { usleep(1000) }
            return [UInt8](repeating: 1, count: size)
        }
        let fetch = client.function(Self.fetch)
        let call = try fetch.async(former, 5_000_000)
        try await becomesTrue("it runs") { isRunning.load(ordering: .acquiring) }
        // The answer has begun, and goes no further.
        link.hold(true)
        mayAnswer.store(true, ordering: .releasing)
        try await Task.sleep(for: .milliseconds(200))
        link.cut(for: .milliseconds(1500))
        link.hold(false)
        await first.stop(grace: .zero)
        await #expect(throws: (any Error).self) { try await call.value }
        let second = try worker("second").start(.bind(first.endpoint))
        // Its first invocation has the number that the former one's had.
        let next = client.callback(CallbackOptions(lifetime: .untilCancelled)) { (size: Int) -> [UInt8] in
            usleep(200_000)
            return [UInt8](repeating: 2, count: size)
        }
        #expect(try await fetch(next, 3) == 3)
        await client.close(grace: .zero)
        await second.stop(grace: .zero)
        link.close()
    }

    @Test("an answer to a worker that is gone is dropped and counted")
    func stray() async throws {
        let bench = try await Bench(.direct)
        let isRunning = Atomic<Bool>(false)
        let mayAnswer = Atomic<Bool>(false)
        let callback = bench.client.callback { (size: Int) -> [UInt8] in
            isRunning.store(true, ordering: .releasing)
            while !mayAnswer.load(ordering: .acquiring) { usleep(1000) }
            return [UInt8](repeating: 1, count: size)
        }
        let call = try bench.client.function(Self.fetch).async(callback, 10)
        try await becomesTrue("it runs") { isRunning.load(ordering: .acquiring) }
        await bench.stopWorker()
        await #expect(throws: (any Error).self) { try await call.value }
        try await becomesTrue("the session is over") { bench.client.statistics.disconnections == 1 }
        #expect(bench.client.statistics.strayAnswers == 0)
        mayAnswer.store(true, ordering: .releasing)
        try await becomesTrue("it is counted") { bench.client.statistics.strayAnswers == 1 }
        await bench.close()
    }
}
