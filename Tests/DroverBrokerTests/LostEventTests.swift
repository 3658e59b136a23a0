// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Foundation
import Synchronization
import Testing

/// Events that are lost with a connection: each one that was emitted is received or missing when its call has ended.
@Suite("Lost events", .serialized, .timeLimit(.minutes(2)))
struct LostEventTests {
    /// Whose connection is cut.
    enum Place: CaseIterable { case direct, client, worker }

    /// A worker, perhaps a broker before it, and a client, with a link that can be cut.
    private struct Rig {
        let pool: Pool
        let link: FlakyLink
        let client: Client

        init(_ place: Place, _ change: (inout ClientConfiguration) -> Void = { _ in }) async throws {
            let pool = try Pool(workers: 0) {
                $0.heartbeatInterval = .seconds(2)
                $0.silenceLimit = .seconds(8)
            }
            func patient(_ configuration: inout WorkerConfiguration) {
                configuration.heartbeatInterval = .seconds(2)
                configuration.silenceLimit = .seconds(8)
            }
            var target = pool.endpoint
            switch place {
            case .direct:
                self.link = try FlakyLink(to: pool.addWorker("w", binding: "tcp://127.0.0.1:*", patient).endpoint)
                target = self.link.endpoint
            case .client:
                try pool.addWorker("w", patient)
                self.link = try FlakyLink(to: pool.endpoint)
                target = self.link.endpoint
            case .worker:
                self.link = try FlakyLink(to: pool.endpoint)
                try pool.addWorker("w", brokers: [self.link.endpoint], patient)
            }
            self.pool = pool
            self.client = try pool.client([target]) {
                $0.heartbeatInterval = .seconds(2)
                $0.silenceLimit = .seconds(8)
                change(&$0)
            }
            _ = try await self.client.call(Job.add, 1, 1)
        }

        func close() async {
            self.link.close()
            await self.pool.close()
        }
    }

    private func counted(_ statistics: SubscriptionStatistics?) -> Int {
        (statistics?.received ?? 0) + (statistics?.missing ?? 0)
    }

    /// Has a call emit 3,000 events while the link holds them back, and cuts it then.
    private func loseAll(_ rig: Rig, _ lifetime: CallbackLifetime, givesUp: Bool) async throws {
        let callback = rig.client.callback(CallbackOptions(lifetime: lifetime)) { (_: [UInt8]) in Nothing() }
        let sizes = [Int](repeating: 20, count: 3000)
        let call = try rig.client.function(Job.swell).async(callback, "gate", sizes, givesUp)
        try await becomesTrue("it has begun") { rig.pool.gates.entered == ["gate"] }
        rig.link.hold(true)
        rig.pool.gates.open("gate")
        try await becomesTrue("all are emitted") { rig.pool.gates.entered == ["gate", "gate"] }
        rig.link.cut(for: .milliseconds(50))
        rig.link.hold(false)
        #expect(try await call.value == sizes.count)
        // At once: neither a later event nor a drained queue is needed.
        let statistics = rig.client.statistics(of: callback)
        #expect(self.counted(statistics) == sizes.count, "\(String(describing: statistics))")
        await rig.close()
    }

    @Test(
        "S76 events that are lost at the end of a call are missing when its value is there",
        arguments: Place.allCases,
        [CallbackLifetime.job, .untilCancelled]
    )
    func tail(_ place: Place, _ lifetime: CallbackLifetime) async throws {
        try await self.loseAll(Rig(place), lifetime, givesUp: false)
    }

    @Test("S76 nor is it forgotten what a handler emitted before it gave the callback up", arguments: Place.allCases)
    func givenUp(_ place: Place) async throws { try await self.loseAll(Rig(place), .job, givesUp: true) }

    @Test(
        "S76 on a link that flaps each event that was emitted is received or missing at the end of each call",
        arguments: Place.allCases
    )
    func flapping(_ place: Place) async throws {
        let rig = try await Rig(place)
        rig.pool.gates.open("gate")
        let shared = rig.client.callback(CallbackOptions(lifetime: .untilCancelled)) { (_: [UInt8]) in Nothing() }
        let sizes = [Int](repeating: 20, count: 2000)
        let swell = rig.client.function(Job.swell)
        for round in 1...6 {
            let callback = rig.client.callback { (_: [UInt8]) in Nothing() }
            let calls = [
                try swell.async(callback, "gate", sizes, false), try swell.async(shared, "gate", sizes, false),
            ]
            try await Task.sleep(for: .microseconds(Int.random(in: 0...6000)))
            rig.link.cut(for: .milliseconds(Int.random(in: 1...60)))
            for call in calls { #expect(try await call.value == sizes.count) }
            for (callback, count) in [(callback, sizes.count), (shared, round * sizes.count)] {
                let statistics = rig.client.statistics(of: callback)
                #expect(self.counted(statistics) == count, "round \(round): \(String(describing: statistics))")
            }
        }
        await rig.close()
    }

    @Test(
        "an event that is larger than the client takes is missing, though none comes after it",
        arguments: Place.allCases
    )
    func tooLarge(_ place: Place) async throws {
        let rig = try await Rig(place) { $0.maxPayloadBytes = 1 << 16 }
        rig.pool.gates.open("gate")
        for sizes in [[10, 10, 1 << 17], [10, 1 << 14, 1 << 17], [1 << 17]] {
            let callback = rig.client.callback { (_: [UInt8]) in Nothing() }
            #expect(try await rig.client.function(Job.swell)(callback, "gate", sizes, false) == sizes.count)
            let statistics = rig.client.statistics(of: callback)
            #expect(
                statistics?.received == sizes.count - 1 && statistics?.missing == 1,
                "\(String(describing: statistics))"
            )
        }
        await rig.close()
    }
}
