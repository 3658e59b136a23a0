// SPDX-License-Identifier: Apache-2.0

import DroverCore
import Testing

/// How many calls a worker gets in advance when short and long ones are mixed.
@Suite struct PlannedCreditTests {
    private static let long = Demands(queue: "long")

    /// A worker that has answered so many short calls that its credit is high, and one long call before.
    private static func begin(
        _ bench: inout BrokerBench,
        longCallsRan microseconds: UInt32
    ) throws -> (client: Int, worker: Int) {
        let client = try bench.client(1)
        let worker = try bench.worker(1, concurrency: 2, queues: ["", "long"])
        bench.request(1, from: client, demands: Self.long)
        for call in bench.transmitted() { _ = bench.answer(call.id, from: worker, ran: microseconds) }
        for id in 2...300 as ClosedRange<UInt64> {
            bench.request(id, from: client)
            for call in bench.transmitted() { _ = bench.answer(call.id, from: worker, ran: 1) }
        }
        #expect(bench.machine.workers[worker].credit > 100)
        return (client, worker)
    }

    private static func recalled(_ actions: [BrokerAction]) -> [UInt64] {
        actions.compactMap { action in
            guard case .recall(_, let id) = action else { return nil }
            return id
        }
    }

    @Test("long calls don't lie at a worker in advance because others were short")
    func mixed() throws {
        var bench = BrokerBench()
        let (client, worker) = try Self.begin(&bench, longCallsRan: 2000)
        for id in 1000..<1200 as Range<UInt64> { bench.request(id, from: client, demands: Self.long) }
        #expect(bench.machine.workers[worker].outstanding == 2)
        // Somebody else's short call waits for its turn, and not behind all of them.
        let other = try bench.client(2)
        bench.request(7, from: other)
        var open = bench.transmitted()
        for _ in 0..<3 where !open.contains(where: { $0.call == 7 }) {
            _ = bench.answer(open.removeFirst().id, from: worker, ran: 2000)
            open += bench.transmitted()
        }
        #expect(open.contains { $0.call == 7 })
        #expect(bench.machine.workers[worker].outstanding == 2)
    }

    @Test("short calls do, as many as the way there and back takes")
    func short() throws {
        var bench = BrokerBench()
        let (client, worker) = try Self.begin(&bench, longCallsRan: 2000)
        for id in 1000..<1200 as Range<UInt64> { bench.request(id, from: client) }
        #expect(bench.machine.workers[worker].outstanding > 100)
    }

    @Test("calls that turn out to be long wait at the broker again")
    func unexpected() throws {
        var bench = BrokerBench()
        let (client, worker) = try Self.begin(&bench, longCallsRan: 1)
        for id in 1000..<1200 as Range<UInt64> { bench.request(id, from: client, demands: Self.long) }
        let sent = bench.transmitted()
        #expect(sent.count > 100)
        _ = bench.answer(sent[0].id, from: worker, ran: 2000)
        // That may have been an accident: those that went there stay.
        #expect(Self.recalled(bench.actions).isEmpty)
        _ = bench.answer(sent[1].id, from: worker, ran: 2000)
        let recalled = Self.recalled(bench.actions)
        #expect(recalled == sent.dropFirst(4).map(\.id))
        // No more go there meanwhile.
        #expect(bench.transmitted().isEmpty)
    }
}
