// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Foundation
import Synchronization
import Testing

/// Handlers behind a broker that emit as fast as they can: what is emitted is received, or counted as dropped.
///
/// `DROVER_EVENT_COUNT` says how many events each test emits.
@Suite("Floods of events through a broker", .serialized, .timeLimit(.minutes(5)))
struct BrokerFloodTests {
    private static let count = ProcessInfo.processInfo.environment["DROVER_EVENT_COUNT"].flatMap { Int($0) } ?? 200_000

    /// What became of a flood to a closure that sleeps for so many microseconds after each thousand events.
    private func flood(
        _ workers: Int,
        _ policy: OverflowPolicy?,
        slow microseconds: UInt32 = 0
    ) async throws -> (emitted: Int, received: Int, statistics: SubscriptionStatistics) {
        // Each has one slot, so that each gets one of the calls.
        let pool = try Pool(workers: workers, concurrency: 1)
        let client = try pool.client()
        let received = Atomic<Int>(0)
        let options = CallbackOptions(lifetime: .untilCancelled, overflow: policy)
        let callback = client.callback(options) { (_: Int) in
            let count = received.add(1, ordering: .relaxed).newValue
            if microseconds > 0, count % 1000 == 0 { usleep(microseconds) }
        }
        let tick = client.function(Job.tick)
        let results = try (0..<workers).map { _ in try tick.async(callback, Self.count / workers) }
        var emitted = 0
        for result in results { emitted += try await result.value }
        try await becomesTrue("all was delivered or dropped", within: .seconds(60)) {
            let count = received.load(ordering: .relaxed)
            return client.statistics(of: callback).map { count + $0.dropped == emitted } ?? false
        }
        let statistics = try #require(client.statistics(of: callback))
        await pool.close()
        return (emitted, received.load(ordering: .relaxed), statistics)
    }

    @Test("S78 all that handlers behind a broker emit in a loop to a quick closure arrives", arguments: [1, 3])
    func quick(workers: Int) async throws {
        let outcome = try await self.flood(workers, nil)
        #expect(outcome.emitted == Self.count / workers * workers)
        #expect(outcome.received == outcome.emitted)
        #expect(outcome.statistics.dropped == 0 && outcome.statistics.missing == 0)
    }

    @Test(
        "S78 what a slow closure behind a broker doesn't receive was dropped by its own policy, and is counted",
        arguments: [1, 3],
        [OverflowPolicy.pushBack, .dropOldest, .dropNewest]
    )
    func slow(workers: Int, policy: OverflowPolicy) async throws {
        let outcome = try await self.flood(workers, policy, slow: 2000)
        #expect(outcome.received + outcome.statistics.dropped == outcome.emitted)
        #expect(outcome.statistics.missing == 0)
        if policy == .pushBack { #expect(outcome.statistics.dropped == 0) }
        #expect(outcome.emitted == Self.count / workers * workers)
    }

    @Test("S78 a closure that stands still makes handlers behind a broker wait, with few events on their way")
    func pauseReachesWorkers() async throws {
        let pool = try Pool(workers: 1)
        let client = try pool.client()
        let release = Mutex(false)
        let received = Atomic<Int>(0)
        let options = CallbackOptions(lifetime: .untilCancelled, queueLimit: 10)
        let callback = client.callback(options) { (_: Int) in
            received.add(1, ordering: .relaxed)
            while !release.withLock({ $0 }) { usleep(1000) }
        }
        let call = try client.function(Job.tick).async(callback, 100_000)
        // Beats go on, and calls.
        for number in 0..<300 { #expect(try await client.function(Job.add)(number, 1) == number + 1) }
        let waiting = client.statistics(of: callback)?.received ?? 0
        // The limit, and what was on its way: 8,192 events.
        #expect(waiting <= 10 + 8192 + 1)
        #expect(call.outcome == nil)
        release.withLock { $0 = true }
        #expect(try await call.value == 100_000)
        try await becomesTrue("all events are there") { received.load(ordering: .relaxed) == 100_000 }
        #expect(client.statistics(of: callback)?.dropped == 0)
        await pool.close()
    }
}
