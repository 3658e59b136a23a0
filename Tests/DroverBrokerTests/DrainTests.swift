// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Foundation
import Logging
import Synchronization
import Testing

/// Workers and brokers that leave in order, amid calls: each time some are on their way.
@Suite("Leaving in order", .serialized, .timeLimit(.minutes(2)))
struct DrainTests {
    private static let work = Function<Int, Int>("work")
    private static let wait = Function<Int, Int>("wait")
    private static let mute = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
    /// `DROVER_RESTARTS` says how many there are.
    private static let stops = ProcessInfo.processInfo.environment["DROVER_RESTARTS"].flatMap { Int($0) } ?? 6

    /// How calls ended, and how often a handler ran.
    private final class Tally: Sendable {
        private let ends = Mutex<[String: Int]>([:])
        private let runs = Atomic<Int>(0)
        private let isOver = Atomic<Bool>(false)

        var all: [String: Int] { self.ends.withLock { $0 } }
        var values: Int { self.all["value"] ?? 0 }
        var ran: Int { self.runs.load(ordering: .relaxed) }
        var goesOn: Bool { !self.isOver.load(ordering: .relaxed) }

        func count(_ end: String) { self.ends.withLock { $0[end, default: 0] += 1 } }
        func run() { self.runs.add(1, ordering: .relaxed) }
        func stop() { self.isOver.store(true, ordering: .relaxed) }
    }

    private static func worker(_ name: String, _ tally: Tally) -> Worker {
        var configuration = WorkerConfiguration()
        configuration.name = name
        configuration.concurrency = 4
        configuration.silenceLimit = .seconds(6)
        configuration.heartbeatInterval = .milliseconds(500)
        configuration.logger = Self.mute
        let worker = Worker(configuration: configuration)
        worker.register(Self.work) { number in
            tally.run()
            usleep(1000)
            return number
        }
        worker.register(Self.wait) { (milliseconds: Int) async throws -> Int in
            try await Task.sleep(for: .milliseconds(milliseconds))
            return milliseconds
        }
        return worker
    }

    private static func broker() -> Broker {
        var configuration = BrokerConfiguration()
        configuration.logger = Self.mute
        return Broker(configuration: configuration)
    }

    /// Four tasks that call one after the other until the tally says that it is over.
    private func callers(_ client: Client, _ tally: Tally) -> Task<Void, Never> {
        Task.detached {
            await withTaskGroup(of: Void.self) { group in
                for number in 0..<4 {
                    group.addTask {
                        while tally.goesOn {
                            do {
                                _ = try await client.call(Self.work, number)
                                tally.count("value")
                            } catch { tally.count("\(error)") }
                        }
                    }
                }
            }
        }
    }

    /// Waits until so many more calls have ended.
    private func progress(_ tally: Tally, by count: Int = 40) async throws {
        let goal = tally.values + count
        try await becomesTrue("calls go on") { tally.values >= goal }
    }

    @Test("S88 S91 a worker that leaves beside another loses no call, and none runs twice", arguments: [false, true])
    func workers(isBrokered: Bool) async throws {
        let tally = Tally()
        let pool = try Pool(workers: 0)
        func start(_ name: String, at address: String = "tcp://127.0.0.1:*") throws -> RunningWorker {
            try Self.worker(name, tally).start(isBrokered ? .connect(pool.endpoint) : .bind(address))
        }
        let steady = try start("steady")
        var other = try start("other")
        let client = try pool.client(isBrokered ? [pool.endpoint] : [steady.endpoint, other.endpoint])
        try await client.connect()
        let calls = self.callers(client, tally)
        for _ in 0..<Self.stops {
            try await self.progress(tally)
            let address = other.endpoint
            await other.stop(grace: .seconds(20))
            try await self.progress(tally)
            other = try start("other", at: address)
        }
        tally.stop()
        await calls.value
        #expect(tally.all == ["value": tally.ran])
        await client.close(grace: .zero)
        await steady.stop(grace: .zero)
        await other.stop(grace: .zero)
        await pool.close()
    }

    @Test("S91 two brokers that are restarted in turn lose no call, refuse none, and none runs twice")
    func brokers() async throws {
        let tally = Tally()
        var brokers = try (0..<2).map { _ in try Self.broker().start("tcp://127.0.0.1:*") }
        let addresses = brokers.map(\.endpoint)
        let worker = try Self.worker("worker", tally).start(.bind(nil, connecting: addresses))
        let client = try Client(addresses)
        try await client.connect()
        let calls = self.callers(client, tally)
        for round in 0..<Self.stops {
            try await becomesTrue("both brokers have the worker") { worker.brokerCount == 2 }
            try await self.progress(tally)
            let index = round % 2
            await brokers[index].stop(grace: .seconds(20))
            try await self.progress(tally)
            brokers[index] = try Self.broker().start(addresses[index])
        }
        tally.stop()
        await calls.value
        #expect(tally.all == ["value": tally.ran])
        await client.close(grace: .zero)
        await worker.stop(grace: .zero)
        for broker in brokers { await broker.stop(grace: .zero) }
    }

    @Test("S91 a batch loses no item to workers that leave", arguments: [false, true])
    func batches(isBrokered: Bool) async throws {
        let tally = Tally()
        let pool = try Pool(workers: 0)
        func start(_ name: String, at address: String = "tcp://127.0.0.1:*") throws -> RunningWorker {
            try Self.worker(name, tally).start(isBrokered ? .connect(pool.endpoint) : .bind(address))
        }
        let steady = try start("steady")
        var other = try start("other")
        let client = try pool.client(isBrokered ? [pool.endpoint] : [steady.endpoint, other.endpoint])
        try await client.connect()
        let batch = Task.detached {
            while tally.goesOn {
                let options = MapOptions(window: 200, onFailure: .goOn)
                for try await item in client.map(Self.work, over: 0..<400, options).items {
                    switch item.result {
                    case .success: tally.count("value")
                    case .failure(let error): tally.count("\(error)")
                    }
                }
            }
        }
        for _ in 0..<Self.stops {
            try await self.progress(tally, by: 100)
            let address = other.endpoint
            await other.stop(grace: .seconds(20))
            try await self.progress(tally, by: 100)
            other = try start("other", at: address)
        }
        tally.stop()
        try await batch.value
        #expect(tally.all == ["value": tally.ran])
        await client.close(grace: .zero)
        await steady.stop(grace: .zero)
        await other.stop(grace: .zero)
        await pool.close()
    }

    @Test("S88 S91 what is on its way to a worker that leaves goes to another, and isn't lost")
    func onItsWay() async throws {
        let tally = Tally()
        let steady = try Self.worker("steady", tally).start(.bind("tcp://127.0.0.1:*"))
        let other = try Self.worker("other", tally).start(.bind("tcp://127.0.0.1:*"))
        let link = try FlakyLink(to: other.endpoint)
        let client = try Client([link.endpoint, steady.endpoint])
        try await client.connect()
        try await becomesTrue("there are sessions with both") { client.statistics.sessions == 2 }
        link.hold(true)
        let calls = try (0..<8).map { try client.function(Self.work).async($0) }
        try await becomesTrue("the steady one has answered its own") { calls.contains { $0.isTerminal } }
        let isStopped = Atomic<Bool>(false)
        async let stop: Void = {
            await other.stop(grace: .seconds(20))
            isStopped.store(true, ordering: .releasing)
        }()
        // It has nothing to do, and would be gone by now if it did not ask: a farewell takes a second at most.
        try await Task.sleep(for: .milliseconds(1500))
        let hasLeft = isStopped.load(ordering: .acquiring)
        #expect(!hasLeft)
        link.hold(false)
        for (number, call) in calls.enumerated() { #expect(try await call.value == number) }
        await stop
        #expect(tally.ran == 8)
        await client.close(grace: .zero)
        await steady.stop(grace: .zero)
        link.close()
    }

    enum Cut: CaseIterable { case direct, workerLink, clientLink }

    @Test("S88 S91 who leaves waits for a peer whose link is cut for half a second", arguments: Cut.allCases)
    func cut(_ cut: Cut) async throws {
        let tally = Tally()
        let pool = try Pool(workers: 0) { $0.silenceLimit = .seconds(6) }
        let worker = Self.worker("worker", tally)
        let link: FlakyLink
        let running: RunningWorker
        let client: Client
        switch cut {
        case .direct:
            running = try worker.start(.bind("tcp://127.0.0.1:*"))
            link = try FlakyLink(to: running.endpoint)
            client = try pool.client([link.endpoint])
        case .workerLink:
            link = try FlakyLink(to: pool.endpoint)
            running = try worker.start(.connect(link.endpoint))
            client = try pool.client()
        case .clientLink:
            link = try FlakyLink(to: pool.endpoint)
            running = try worker.start(.connect(pool.endpoint))
            client = try pool.client([link.endpoint])
        }
        try await client.connect()
        #expect(try await client.call(Self.work, 1) == 1)
        let calls = try (0..<4).map { try client.function(Self.wait).async(300 + $0) }
        try await becomesTrue("they run") { calls.allSatisfy { $0.phase.description.contains("running") } }
        link.cut(for: .milliseconds(500))
        if cut == .clientLink {
            await pool.broker.stop(grace: .seconds(20))
        } else {
            await running.stop(grace: .seconds(20))
        }
        for (number, call) in calls.enumerated() { #expect(try await call.value == 300 + number) }
        await client.close(grace: .zero)
        await running.stop(grace: .zero)
        await pool.close()
        link.close()
    }
}
