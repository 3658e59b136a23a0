// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import DroverZMQ
import Foundation
import Logging
import Synchronization
import Testing

/// Handlers that call their own worker or pool.
@Suite("Nested calls", .serialized, .timeLimit(.minutes(1)))
struct NestedCallTests {
    private static let depth = Function<Int, Int>("depth")
    private static let blockingDepth = Function<Int, Int>("blockingDepth")
    private static let stop = Function<String, String>("stop")

    /// What the handlers use, once it is there.
    private final class Seat: Sendable {
        let client = Mutex<Client?>(nil)
        let worker = Mutex<RunningWorker?>(nil)
        private let busy = Mutex<(now: Int, most: Int)>((0, 0))

        var most: Int { self.busy.withLock { $0.most } }

        /// Works for a moment in its slot.
        func work() {
            self.busy.withLock { busy in
                busy.now += 1
                busy.most = max(busy.most, busy.now)
            }
            usleep(300)
            self.busy.withLock { $0.now -= 1 }
        }

        func requireClient() throws -> Client { try #require(self.client.withLock { $0 }) }
    }

    private func worker(
        _ seat: Seat,
        concurrency: Int,
        _ change: (inout WorkerConfiguration) -> Void = { _ in }
    ) -> Worker {
        var configuration = WorkerConfiguration()
        configuration.concurrency = concurrency
        configuration.logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        change(&configuration)
        let worker = Worker(configuration: configuration)
        worker.register(Self.depth) { (context: JobContext, left: Int) async throws -> Int in
            seat.work()
            guard left > 0 else { return 0 }
            let client = try seat.requireClient()
            let deeper = try await context.withSlotReleased { try await client.call(Self.depth, left - 1) }
            seat.work()
            return deeper + 1
        }
        worker.register(Self.blockingDepth) { (context: JobContext, left: Int) throws -> Int in
            seat.work()
            guard left > 0 else { return 0 }
            let function = try seat.requireClient().function(Self.blockingDepth)
            let deeper = try context.withSlotReleasedBlocking { try function.blocking(left - 1) }
            seat.work()
            return deeper + 1
        }
        return worker
    }

    private func end(_ client: Client, _ running: RunningWorker) async {
        await client.close(grace: .zero)
        await running.stop(grace: .zero)
    }

    @Test("handlers that give their slots back call their worker deeper than it has slots; no more run at once")
    func direct() async throws {
        for concurrency in [1, 2] {
            let seat = Seat()
            let running = try self.worker(seat, concurrency: concurrency).start(.bind("tcp://127.0.0.1:*"))
            let client = try Client(running.endpoint)
            seat.client.withLock { $0 = client }
            for function in [Self.depth, Self.blockingDepth] {
                #expect(try await client.call(function, 20, timeout: .seconds(20)) == 20)
                let many = try (0..<8).map { _ in try client.function(function).async(5) }
                for handle in many { #expect(try await handle.value == 5) }
            }
            #expect(seat.most <= concurrency)
            try await becomesTrue("all slots are free") { running.status.running == 0 }
            seat.client.withLock { $0 = nil }
            await self.end(client, running)
        }
    }

    @Test("nested calls go through a broker deeper than the pool has slots")
    func brokered() async throws {
        let pool = try Pool(workers: 0)
        let seat = Seat()
        let worker = self.worker(seat, concurrency: 1) { configuration in
            configuration.heartbeatInterval = .milliseconds(300)
            configuration.silenceLimit = .milliseconds(1500)
        }
        let running = try worker.start(.connect(pool.endpoint))
        let client = try pool.client()
        seat.client.withLock { $0 = client }
        for function in [Self.depth, Self.blockingDepth] {
            #expect(try await client.call(function, 8, timeout: .seconds(20)) == 8)
        }
        #expect(seat.most == 1)
        try await becomesTrue("one slot is offered again") { pool.broker.status.slots == 1 }
        seat.client.withLock { $0 = nil }
        await running.stop(grace: .zero)
        await pool.close()
    }

    @Test("no more handlers give their slots back than may; the next one keeps its slot")
    func bounded() async throws {
        let seat = Seat()
        let worker = self.worker(seat, concurrency: 1) { $0.maxReleasedSlots = 2 }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        let client = try Client(running.endpoint)
        seat.client.withLock { $0 = client }
        for function in [Self.depth, Self.blockingDepth] {
            #expect(try await client.call(function, 2, timeout: .seconds(20)) == 2)
            await #expect(throws: AsyncResultTimeout.self) {
                try await client.call(function, 3, timeout: .milliseconds(100))
            }
            client.cancelAll()
            try await becomesTrue("all slots are free") { running.status.running == 0 && running.status.queued == 0 }
        }
        seat.client.withLock { $0 = nil }
        await self.end(client, running)
    }

    @Test("a handler that stops its own worker goes on at once, and the worker leaves when it has ended")
    func stopWithin() async throws {
        for kind in ["async", "sync", "quick"] {
            let seat = Seat()
            let worker = self.worker(seat, concurrency: 2)
            if kind == "async" {
                worker.register(Self.stop) { (text: String) async throws -> String in
                    if text == "stop" { await seat.worker.withLock { $0 }?.stop(grace: .seconds(30)) }
                    return text
                }
            } else {
                worker.register(Self.stop) { (text: String) throws -> String in
                    if text == "stop" { seat.worker.withLock { $0 }?.stopBlocking(grace: .seconds(30)) }
                    return text
                }
            }
            let running = try worker.start(.bind("tcp://127.0.0.1:*"))
            seat.worker.withLock { $0 = running }
            let client = try Client(running.endpoint)
            if kind == "quick" { for _ in 0..<300 { _ = try await client.call(Self.stop, "") } }
            #expect(try await client.call(Self.stop, "stop", timeout: .seconds(10)) == "stop")
            await running.stop()
            seat.worker.withLock { $0 = nil }
            await client.close(grace: .zero)
        }
    }
}
