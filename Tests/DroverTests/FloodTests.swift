// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverZMQ
import Foundation
import Synchronization
import Testing

@testable import Drover

extension ServingTests {
    /// Handlers that emit as fast as they can: what is emitted is received, or counted as dropped.
    ///
    /// `DROVER_EVENT_COUNT` says how many events each test emits.
    @Suite(.serialized)
    struct FloodTests {}
}

extension ServingTests.FloodTests {
    private static let count = setting("DROVER_EVENT_COUNT", 200_000)
    private static let flood = Function<Callback<Int, Nothing>, Int, Int>("flood")
    private static let floodAwaiting = Function<Callback<Int, Nothing>, Int, Int>("flood awaiting")
    private static let reporting = Function<Int, Int>("reporting")

    /// Workers that emit in a loop, as the guide teaches, and return how many events were taken.
    private static func workers(_ count: Int) throws -> [RunningWorker] {
        try (0..<count)
            .map { _ in
                let worker = Worker(concurrency: 2)
                worker.register(Self.flood) { callback, count in
                    for number in 0..<count {
                        do { try callback.emit(number) } catch let error as RemoteError
                            where error.code == .subscriberGone
                        {
                            return number
                        }
                    }
                    return count
                }
                worker.register(Self.floodAwaiting) {
                    (callback: Callback<Int, Nothing>, count: Int) async throws -> Int in
                    for number in 0..<count { try await callback.emit(number) }
                    return count
                }
                worker.register(Self.reporting) { (context: JobContext, count: Int) in
                    for number in 0..<count { try context.report(number) }
                    return count
                }
                return try worker.start(.bind("tcp://127.0.0.1:*"))
            }
    }

    /// What became of a flood to a closure that sleeps for so many microseconds after each thousand events.
    private func flood(
        _ workerCount: Int,
        _ policy: OverflowPolicy?,
        slow microseconds: UInt32 = 0,
        awaiting: Bool = false
    ) throws -> (emitted: Int, received: Int, statistics: SubscriptionStatistics) {
        let workers = try Self.workers(workerCount)
        let client = try Client(workers.map { $0.endpoint })
        try client.connectBlocking()
        let received = Atomic<Int>(0)
        let options = CallbackOptions(lifetime: .untilCancelled, overflow: policy)
        let callback = client.callback(options) { (_: Int) in
            let count = received.add(1, ordering: .relaxed).newValue
            if microseconds > 0, count % 1000 == 0 { usleep(microseconds) }
        }
        let before = ResidentMemory.byteCount()
        let function = client.function(awaiting ? Self.floodAwaiting : Self.flood)
        let results = try (0..<workerCount).map { _ in try function.async(callback, Self.count / workerCount) }
        let emitted = try results.reduce(0) { try $0 + $1.get() }
        let isFlat = ResidentMemory.byteCount() < before + (128 << 20)
        #expect(isFlat || isSanitized)
        // What is on its way is refused and counted when it comes, if the subscription has ended.
        eventually("all was delivered or dropped") {
            let (statistics, count) = (client.statistics(of: callback), received.load(ordering: .relaxed))
            return statistics.map { $0.received == emitted && count + $0.dropped == emitted } ?? false
        }
        let statistics = try #require(client.statistics(of: callback))
        client.closeBlocking()
        for worker in workers { worker.stopBlocking(grace: .zero) }
        return (emitted, received.load(ordering: .relaxed), statistics)
    }

    @Test(
        "S78 all that handlers emit in a loop to a quick closure arrives, without a policy having been chosen",
        .timeLimit(.minutes(5)),
        arguments: [1, 3],
        [false, true]
    )
    func quick(workers: Int, awaiting: Bool) throws {
        let outcome = try self.flood(workers, nil, awaiting: awaiting)
        #expect(outcome.emitted == Self.count / workers * workers)
        #expect(outcome.received == outcome.emitted)
        #expect(outcome.statistics.dropped == 0 && outcome.statistics.missing == 0)
    }

    @Test(
        "S78 what a slow closure doesn't receive was dropped by its own policy, and is counted",
        .timeLimit(.minutes(5)),
        arguments: [1, 3],
        [OverflowPolicy.pushBack, .dropOldest, .dropNewest, .unsubscribe]
    )
    func slow(workers: Int, policy: OverflowPolicy) throws {
        let outcome = try self.flood(workers, policy, slow: 2000)
        #expect(outcome.received + outcome.statistics.dropped == outcome.emitted)
        #expect(outcome.statistics.missing == 0)
        if policy == .pushBack { #expect(outcome.statistics.dropped == 0) }
        if policy != .unsubscribe { #expect(outcome.emitted == Self.count / workers * workers) }
    }

    @Test(
        "S78 a closure that stands still after it made the workers go on makes them pause again",
        .timeLimit(.minutes(5))
    )
    func standsStill() throws {
        let worker = try #require(try Self.workers(1).first)
        let client = try Client(worker.endpoint)
        // The end of one pause and the beginning of the next meet at another place in each round.
        for round in 0..<40 {
            let received = Atomic<Int>(0)
            let release = Mutex(false)
            let options = CallbackOptions(lifetime: .untilCancelled, queueLimit: 8)
            let callback = client.callback(options) { (_: Int) in
                guard received.add(1, ordering: .relaxed).newValue > round * 20 else { return }
                while !release.withLock({ $0 }) { usleep(100) }
            }
            let call = try client.function(Self.flood).async(callback, 20_000)
            eventually("the closure stands still") { received.load(ordering: .relaxed) > round * 20 }
            usleep(30_000)
            let count = client.statistics(of: callback)?.received ?? 0
            #expect(count <= received.load(ordering: .relaxed) + 32 + 8 + EventWindow.limit)
            #expect(call.outcome == nil)
            release.withLock { $0 = true }
            #expect(try call.get() == 20_000)
            client.cancel(callback)
        }
        client.closeBlocking()
        worker.stopBlocking(grace: .zero)
    }

    @Test("S84 what a handler reports in a loop is read, or counted as dropped", .timeLimit(.minutes(5)))
    func reports() async throws {
        let workers = try Self.workers(1)
        let client = try Client(workers.map { $0.endpoint })
        let result = try client.function(Self.reporting).async(Self.count)
        let events = result.events
        var read = 0
        var last = -1
        for await event in events {
            #expect(event.sequence > last)
            last = event.sequence
            read += 1
        }
        #expect(last == Self.count - 1)
        #expect(read + events.dropped == Self.count)
        await client.close()
        for worker in workers { await worker.stop(grace: .zero) }
    }

    private static let stuck = Function<Callback<Int, Nothing>, Int>("stuck")
    private static let stuckAwaiting = Function<Callback<Int, Nothing>, Int>("stuck awaiting")

    /// How handlers that wait for room ended.
    private final class Ends: Sendable {
        let gathered = Gathered<String>()

        func register(on worker: Worker) {
            worker.register(ServingTests.FloodTests.stuck) { callback in
                do { while true { try callback.emit(0) } } catch {
                    self.gathered.add("\(type(of: error))")
                    throw error
                }
            }
            worker.register(ServingTests.FloodTests.stuckAwaiting) { callback async throws -> Int in
                do { while true { try await callback.emit(0) } } catch {
                    self.gathered.add("\(type(of: error))")
                    throw error
                }
            }
        }
    }

    @Test(
        "S98 a handler that waits for room ends with its cancellation, its caller's time, its subscription and its worker",
        .timeLimit(.minutes(2)),
        arguments: [false, true]
    )
    func ending(awaiting: Bool) throws {
        let ends = Ends()
        let worker = Worker(concurrency: 1)
        ends.register(on: worker)
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        let client = try Client(running.endpoint)
        let release = ReadySignal<Void>()
        let options = CallbackOptions(lifetime: .untilCancelled, queueLimit: 10)
        let callback = client.callback(options) { (_: Int) in release.wait() }
        let function = client.function(awaiting ? Self.stuckAwaiting : Self.stuck)
        func untilFull() { eventually("the handler waits") { running.core.counters.eventsHeldBack.current > 0 } }

        let cancelled = try function.async(callback)
        untilFull()
        cancelled.cancel()
        eventually("the handler was cancelled") { ends.gathered.count == 1 }
        // The slot is free again, though the subscriber still has no room.
        let late = try function.with(CallOptions(expiry: .milliseconds(100))).async(callback)
        #expect(throws: AsyncResultTimeout.self) { try late.get() }
        eventually("the handler ended with its caller's time") { ends.gathered.count == 2 }
        let ended = try function.async(callback)
        eventually("the handler runs") { running.status.running == 1 }
        client.cancel(callback)
        #expect(throws: RemoteError.self) { try ended.get() }
        #expect(ends.gathered.values == ["CancellationError", "CancellationError", "RemoteError"])
        let other = client.callback(options) { (_: Int) in release.wait() }
        let heldBack = running.core.counters.eventsHeldBack.current
        let stopped = try function.async(other)
        // The one before it may still count as running.
        eventually("the handler waits") { running.core.counters.eventsHeldBack.current > heldBack }
        running.stopBlocking(grace: .zero)
        eventually("the handler ended with its worker") { ends.gathered.count == 4 }
        _ = release.set(())
        _ = stopped
        client.closeBlocking()
    }
}
