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
    private static let plainDepth = Function<Int, Int>("plainDepth")
    private static let plainBlockingDepth = Function<Int, Int>("plainBlockingDepth")
    private static let handleDepth = Function<Int, Int>("handleDepth")
    private static let tree = Function<Int, Int>("tree")
    private static let spread = Function<Int, Int>("spread")
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
        worker.register(Self.handleDepth) { (context: JobContext, left: Int) throws -> Int in
            guard left > 0 else { return 0 }
            let deeper = try seat.requireClient().function(Self.handleDepth).async(left - 1)
            return try context.withSlotReleasedBlocking { try deeper.get() } + 1
        }
        self.registerPlain(on: worker, seat)
        return worker
    }

    /// Those that don't give their slots back.
    private func registerPlain(on worker: Worker, _ seat: Seat) {
        worker.register(Self.plainDepth) { (left: Int) async throws -> Int in
            seat.work()
            guard left > 0 else { return 0 }
            let deeper = try await seat.requireClient().call(Self.plainDepth, left - 1)
            seat.work()
            return deeper + 1
        }
        worker.register(Self.plainBlockingDepth) { (left: Int) throws -> Int in
            seat.work()
            guard left > 0 else { return 0 }
            let deeper = try seat.requireClient().function(Self.plainBlockingDepth).blocking(left - 1)
            seat.work()
            return deeper + 1
        }
        worker.register(Self.tree) { (left: Int) async throws -> Int in
            guard left > 0 else {
                seat.work()
                return 1
            }
            let client = try seat.requireClient()
            async let one = client.call(Self.tree, left - 1)
            async let other = client.call(Self.tree, left - 1)
            seat.work()
            let sum = try await one + other
            seat.work()
            return sum
        }
        worker.register(Self.spread) { (left: Int) async throws -> Int in
            seat.work()
            guard left > 0 else { return 1 }
            var sum = 0
            let batch = try seat.requireClient().map(Self.spread, over: [left - 1, 0, left - 1])
            for try await (_, part) in batch { sum += part }
            seat.work()
            return sum
        }
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

    @Test("handlers that wait in their slots for calls of their own worker give them back before nothing goes on")
    func byThemselves() async throws {
        for concurrency in [1, 2] {
            let seat = Seat()
            let running = try self.worker(seat, concurrency: concurrency).start(.bind("tcp://127.0.0.1:*"))
            let client = try Client(running.endpoint)
            seat.client.withLock { $0 = client }
            for function in [Self.plainDepth, Self.plainBlockingDepth] {
                #expect(try await client.call(function, 6, timeout: .seconds(20)) == 6)
                let many = try (0..<4).map { _ in try client.function(function).async(3) }
                for handle in many { #expect(try await handle.value == 3) }
            }
            #expect(try await client.call(Self.tree, 3, timeout: .seconds(20)) == 8)
            #expect(try await client.call(Self.spread, 2, timeout: .seconds(20)) == 7)
            #expect(seat.most <= concurrency)
            try await becomesTrue("all slots are free") { running.status.running == 0 }
            seat.client.withLock { $0 = nil }
            await self.end(client, running)
        }
    }

    @Test("the same in a pool behind a broker, whose workers call each other")
    func byThemselvesBrokered() async throws {
        let pool = try Pool(workers: 0)
        let seat = Seat()
        let workers = try (0..<2)
            .map { number in
                try self.worker(seat, concurrency: 1) { configuration in
                    configuration.name = "worker \(number)"
                    configuration.heartbeatInterval = .milliseconds(300)
                    configuration.silenceLimit = .milliseconds(1500)
                }
                .start(.connect(pool.endpoint))
            }
        let client = try pool.client()
        seat.client.withLock { $0 = client }
        try await becomesTrue("both are there") { pool.broker.status.workers == 2 }
        for function in [Self.plainDepth, Self.plainBlockingDepth] {
            #expect(try await client.call(function, 6, timeout: .seconds(20)) == 6)
        }
        #expect(try await client.call(Self.tree, 3, timeout: .seconds(20)) == 8)
        #expect(seat.most <= 2)
        try await becomesTrue("two slots are offered again") { pool.broker.status.slots == 2 }
        seat.client.withLock { $0 = nil }
        for worker in workers { await worker.stop(grace: .zero) }
        await pool.close()
    }

    @Test("where none may give its slot back, expiries and the log say that a call waits for a slot")
    func said() async throws {
        let seat = Seat()
        let log = CapturedLog()
        let worker = self.worker(seat, concurrency: 1) { configuration in
            configuration.maxReleasedSlots = 0
            configuration.logger = log.logger
        }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        let client = try Client(running.endpoint)
        seat.client.withLock { $0 = client }
        for function in [Self.plainDepth, Self.plainBlockingDepth] {
            let outer = try client.function(function).async(1)
            let queued = try client.function(function).async(0)
            try await becomesTrue("the handles say it") {
                "\(outer)".contains("its handler waits for a call that waits for a slot")
                    && "\(queued)".contains("it waits for a slot")
            }
            // The other way round the handler would be cancelled, and the call that waits would run.
            for handle in [queued, outer] {
                handle.setExpiry(.milliseconds(1))
                let error = await #expect(throws: AsyncResultTimeout.self) { try await handle.value }
                #expect("\(try #require(error))".contains("waits for a call that waits for a slot"))
                #expect("\(try #require(error))".contains("withSlotReleased"))
            }
            client.cancelAll()
            try await becomesTrue("all slots are free") { running.status.running == 0 && running.status.queued == 0 }
        }
        #expect(log.has("warning nothing goes on", "waits for a call that waits for a slot", "withSlotReleased"))
        seat.client.withLock { $0 = nil }
        await self.end(client, running)
    }

    @Test("the broker says of both, the call that runs and the one that waits, what they wait for")
    func explained() async throws {
        let pool = try Pool(workers: 0)
        let seat = Seat()
        let worker = self.worker(seat, concurrency: 1) { configuration in
            configuration.heartbeatInterval = .milliseconds(300)
            configuration.silenceLimit = .milliseconds(1500)
            configuration.maxReleasedSlots = 0
        }
        let running = try worker.start(.connect(pool.endpoint))
        let client = try pool.client()
        seat.client.withLock { $0 = client }
        let outer = try client.function(Self.plainDepth).async(1)
        let queued = try (0..<40).map { _ in try client.function(Self.plainDepth).async(0) }
        let last = try #require(queued.last)
        for handle in [outer, last] {
            let deadline = ContinuousClock.now + .seconds(20)
            var reason = ""
            while !reason.contains("waits for a call that waits for a slot"), ContinuousClock.now < deadline {
                reason = try await client.function(.brokerWhy)(handle.correlationID.rawValue).first?.reason ?? ""
            }
            #expect(reason.contains("waits for a call that waits for a slot"))
            #expect(reason.contains("withSlotReleased"))
            try await becomesTrue("the handle says it") {
                "\(handle)".contains("waits for a call that waits for a slot")
            }
        }
        client.cancelAll()
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

    @Test(
        "a chain beyond what may be given back ends with the call that began it, whose caller is told what it waited for",
        arguments: [false, true]
    )
    func chain(isBrokered: Bool) async throws {
        let pool = try Pool(workers: 0)
        let seat = Seat()
        let worker = self.worker(seat, concurrency: 2) { configuration in
            configuration.heartbeatInterval = .milliseconds(300)
            configuration.silenceLimit = .milliseconds(1500)
            configuration.maxReleasedSlots = 3
        }
        let running = try worker.start(isBrokered ? .connect(pool.endpoint) : .bind("tcp://127.0.0.1:*"))
        if isBrokered { try await becomesTrue("it is there") { pool.broker.status.workers == 1 } }
        let (inner, client) =
            isBrokered
            ? (try pool.client(), try pool.client()) : (try Client(running.endpoint), try Client(running.endpoint))
        seat.client.withLock { $0 = inner }
        for function in [
            Self.depth, Self.blockingDepth, Self.handleDepth, Self.plainDepth, Self.plainBlockingDepth, Self.tree,
        ] {
            let error = await #expect(throws: AsyncResultTimeout.self) {
                try await client.call(function, 10, timeout: .seconds(1))
            }
            #expect("\(try #require(error))".contains("waits for a call that waits for a slot"), "\(function)")
            #expect(try await client.call(Self.depth, 0, timeout: .seconds(5)) == 0)
            try await becomesTrue("all slots are free") { running.status.running == 0 && running.status.queued == 0 }
            try await becomesTrue("nothing is left behind") { inner.statistics.outstandingNow == 0 }
        }
        seat.client.withLock { $0 = nil }
        if !isBrokered { for client in [inner, client] { await client.close(grace: .zero) } }
        await running.stop(grace: .zero)
        await pool.close()
    }

    @Test("a handler's nested calls end with its request, others that it waits for go on")
    func endsWithRequest() async throws {
        let seat = Seat()
        let worker = self.worker(seat, concurrency: 4)
        let hang = Function<String, String>("hang")
        let wait = Function<String, String>("wait")
        let cancelled = Mutex<Set<String>>([])
        let shared = Mutex<AsyncResult<String>?>(nil)
        worker.register(hang) { (context: JobContext, text: String) throws -> String in
            while !context.isCancelled { usleep(1000) }
            cancelled.withLock { _ = $0.insert(text) }
            try context.checkCancellation()
            return text
        }
        worker.register(wait) { (text: String) throws -> String in
            if text == "shared", let handle = shared.withLock({ $0 }) { return try handle.get() }
            let function = try seat.requireClient().function(hang)
            return text == "handle" ? try function.async(text).get() : try function.blocking(text)
        }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        let client = try Client(running.endpoint)
        seat.client.withLock { $0 = client }
        for text in ["handle", "blocking"] {
            let outer = try client.function(wait).async(text)
            try await becomesTrue("both run") { running.status.running == 2 }
            outer.cancel()
            try await becomesTrue("both have ended") { running.status.running == 0 }
            #expect(cancelled.withLock { $0.contains(text) })
        }
        let make = Function<String, String>("make")
        worker.register(make) { (text: String) throws -> String in
            let handle = try seat.requireClient().function(hang).async(text)
            shared.withLock { $0 = handle }
            return text
        }
        // Made by nobody's handler, and by one whose request is over: another may be in its place in memory.
        for round in 0..<30 {
            if round == 0 {
                let other = try client.function(hang).async("shared")
                shared.withLock { $0 = other }
            } else {
                #expect(try await client.function(make)("made") == "made")
            }
            let other = try #require(shared.withLock { $0 })
            let outer = try client.function(wait).async("shared")
            try await becomesTrue("both run") { running.status.running == 2 }
            outer.cancel()
            // The answer comes after the worker has read the cancellation.
            _ = try await client.ping()
            #expect(!other.isTerminal)
            other.cancel()
            shared.withLock { $0 = nil }
            try await becomesTrue("both have ended") { running.status.running == 0 }
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
