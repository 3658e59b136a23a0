// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire
import Testing

/// Calls that a worker holds for its functions' limits or for ordering keys, though slots are free.
@Suite struct HeldCallTests {
    private static func at(_ milliseconds: UInt64) -> Instant { Instant(nanoseconds: milliseconds * 1_000_000) }

    private static func machine(slots: Int...) -> ClientMachine {
        var machine = ClientMachine(endpointCount: slots.count)
        var actions: [ClientAction] = []
        for (index, slots) in slots.enumerated() {
            machine.connected(index, at: Self.at(1), actions: &actions)
            machine.welcomed(
                by: index,
                epoch: 7,
                session: 1,
                window: 1024,
                slots: slots,
                isResumed: true,
                at: Self.at(1),
                actions: &actions
            )
        }
        return machine
    }

    private static func submit(
        _ machine: inout ClientMachine,
        _ ids: ClosedRange<UInt64>,
        function: UInt32 = 0,
        affinity: UInt64 = 0
    ) throws -> [Int?] {
        var endpoints: [Int?] = []
        for id in ids {
            let place = machine.submitted(Call(id: id, function: function, affinity: affinity), at: Self.at(2))
            endpoints.append(try #require(place).endpoint)
        }
        return endpoints
    }

    private func expectSent<Value: Equatable>(
        _ sent: [Value],
        _ expected: [Value],
        sourceLocation: SourceLocation = #_sourceLocation
    ) { #expect(sent == expected, sourceLocation: sourceLocation) }

    private static func dispatch(_ machine: inout ClientMachine) -> [UInt64] {
        var actions: [ClientAction] = []
        machine.dispatch(actions: &actions)
        return actions.compactMap {
            if case .transmit(let slot, _, _, _) = $0 { machine.call(in: slot).id } else { nil }
        }
    }

    @Test(
        "calls that wait for their function's limit at a worker keep no slots from others, and no more of them follow"
    )
    func limited() throws {
        var machine = Self.machine(slots: 2)
        var actions: [ClientAction] = []
        // Two by the credit, 128 ahead of need; the others wait here.
        let sent = try Self.submit(&machine, 1...300).compactMap { $0 }.count
        #expect(sent == 130)
        expectSent(try Self.submit(&machine, 1001...1001, function: 1), [nil])
        machine.phaseReported(1, phase: .running, from: 0, actions: &actions)
        for id in 2...130 as ClosedRange<UInt64> {
            machine.phaseReported(id, phase: .accepted, hold: .limit, from: 0, actions: &actions)
        }
        #expect(machine.endpoints[0].occupying == 1)
        expectSent(Self.dispatch(&machine), [1001])
        // Those that come later go behind those of their function, not before them.
        expectSent(try Self.submit(&machine, 301...301), [nil])
        expectSent(Self.dispatch(&machine), [])
        _ = machine.replied(1001, ranMicroseconds: 9, from: 0, at: Self.at(3))
        expectSent(try Self.submit(&machine, 1002...1002, function: 1), [0])
        _ = machine.replied(1002, ranMicroseconds: 9, from: 0, at: Self.at(3))
        // Once the last that is held has begun the next ones follow, as far as there is room.
        for id in 1...130 as ClosedRange<UInt64> {
            expectSent(Self.dispatch(&machine), [])
            machine.phaseReported(id, phase: .running, from: 0, actions: &actions)
            if id < 130 { _ = machine.replied(id, ranMicroseconds: 100_000, from: 0, at: Self.at(4)) }
        }
        #expect(machine.endpoints[0].heldCount == 0)
        expectSent(Self.dispatch(&machine), [131])
        #expect(machine.queuedIDs == 170)
    }

    @Test("what is held and ends in another way is forgotten as held")
    func ends() throws {
        var machine = Self.machine(slots: 4)
        var actions: [ClientAction] = []
        _ = try Self.submit(&machine, 1...4)
        for id in 2...4 as ClosedRange<UInt64> {
            machine.phaseReported(id, phase: .accepted, hold: .limit, from: 0, actions: &actions)
        }
        #expect(machine.endpoints[0].heldCount == 3)
        _ = machine.abandoned(2, as: .requested, at: Self.at(3), actions: &actions)
        _ = machine.replied(3, from: 0, at: Self.at(3))
        #expect(machine.endpoints[0].heldCount == 1)
        #expect(machine.endpoints[0].isClosed(0))
        _ = machine.spoiled(4, from: 0, at: Self.at(3))
        #expect(machine.endpoints[0].heldCount == 0)
        #expect(!machine.endpoints[0].isClosed(0))
        _ = try Self.submit(&machine, 5...8)
        machine.phaseReported(5, phase: .accepted, hold: .limit, from: 0, actions: &actions)
        machine.goodbyeReceived(from: 0, reason: .leaving, at: Self.at(5), actions: &actions)
        #expect(machine.endpoints[0].heldCount == 0)
        #expect(!machine.endpoints[0].isClosed(0))
    }

    @Test("a held call goes to a worker that can run it, and not straight back")
    func recalled() throws {
        var machine = Self.machine(slots: 2, 2)
        var actions: [ClientAction] = []
        let places = try Self.submit(&machine, 1...3)
        let first = try #require(places[0])
        #expect(places[1] == 1 - first)
        let third = try #require(places[2])
        _ = machine.replied(third == first ? 2 : 1, ranMicroseconds: 100_000, from: 1 - third, at: Self.at(3))
        actions = []
        machine.phaseReported(3, phase: .accepted, hold: .limit, from: third, actions: &actions)
        #expect(actions.contains(.sendCancel(endpoint: third, id: 3, reason: .recalled)))
        machine.cancellationConfirmed(3, stage: .beforeStart, from: third, at: Self.at(4), actions: &actions)
        actions = []
        machine.dispatch(actions: &actions)
        let known = machine.slot(of: 3)
        let slot = try #require(known)
        #expect(actions == [.transmit(slot: slot, endpoint: 1 - third, isResent: false)])
        // A while later it is open again, also if nothing of the function has ended there.
        #expect(machine.endpoints[third].isClosed(0))
        machine.ticked(at: Self.at(60), actions: &actions)
        #expect(!machine.endpoints[third].isClosed(0))
    }

    @Test("calls of a key that another client's call holds up keep no slots from others, nor the whole window")
    func keyed() throws {
        var machine = Self.machine(slots: 1)
        var actions: [ClientAction] = []
        let sent = try Self.submit(&machine, 1...2000, affinity: 5).compactMap { $0 }.count
        #expect(sent == 768)
        expectSent(try Self.submit(&machine, 3000...3000), [nil])
        for id in 1...768 as ClosedRange<UInt64> {
            machine.phaseReported(id, phase: .accepted, hold: .key, from: 0, actions: &actions)
        }
        #expect(machine.endpoints[0].occupying == 0)
        expectSent(Self.dispatch(&machine), [3000])
        machine.phaseReported(1, phase: .running, from: 0, actions: &actions)
        #expect(machine.endpoints[0].occupying == 2)
        _ = machine.replied(1, ranMicroseconds: 9, from: 0, at: Self.at(3))
        #expect(machine.endpoints[0].occupying == 1)
    }

    // MARK: The broker

    private func report(_ bench: inout BrokerBench, _ id: UInt64, _ hold: HoldReason, isStarted: Bool = false) throws {
        let worker = bench.machine.workers.indices.first { bench.machine.addressee(id, from: $0) != nil }
        let addressee = bench.machine.addressee(id, from: try #require(worker))
        let slot = try #require(addressee).slot
        let now = bench.now
        bench.machine.phaseReported(
            slot,
            isStarted: isStarted,
            isStalled: false,
            hold: hold,
            at: now,
            actions: &bench.actions
        )
    }

    @Test("a broker counts held calls as no load, and sends no more of their function until they have begun")
    func brokered() throws {
        var bench = BrokerBench()
        let (client, other) = (try bench.client(1), try bench.client(2))
        let worker = try bench.worker(1, concurrency: 2, functions: ["f", "g"])
        for id in 1...1000 as ClosedRange<UInt64> { bench.request(id, from: client) }
        let sent = bench.transmitted()
        #expect(sent.map(\.call) == [1, 2])
        try self.report(&bench, sent[0].id, .none, isStarted: true)
        try self.report(&bench, sent[1].id, .limit)
        expectSent(bench.transmitted().map(\.call), [])
        #expect(bench.machine.workers[worker].occupying == 1)
        #expect(bench.machine.explanations(of: 3).first?.workers.first?.obstacle == .atLimit(calls: 1))
        #expect(bench.machine.explanations(of: 2).first?.hold == .limit)
        var request = BrokerRequest(id: 1, number: 1)
        request.priority = 0
        _ = bench.machine.requestReceived(request, from: other, at: bench.now, actions: &bench.actions)
        let nested = bench.transmitted()
        #expect(nested.map(\.call) == [1])
        _ = bench.answer(nested[0].id, from: worker, ran: 100_000)
        _ = bench.answer(sent[0].id, from: worker, ran: 100_000)
        expectSent(bench.transmitted().map(\.call), [])
        try self.report(&bench, sent[1].id, .none, isStarted: true)
        expectSent(bench.transmitted().map(\.call), [3])
        #expect(bench.machine.heldCount == 0)
    }

    @Test("a broker gives a held call to a worker that can run it, and not straight back")
    func moved() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let one = try bench.worker(1, concurrency: 2)
        bench.request(1, from: client)
        bench.request(2, from: client)
        let sent = bench.transmitted()
        try self.report(&bench, sent[0].id, .none, isStarted: true)
        try self.report(&bench, sent[1].id, .limit)
        #expect(!bench.actions.contains(.recall(worker: one, id: sent[1].id)), "nobody else could run it")
        let two = try bench.worker(2, concurrency: 2)
        bench.now = bench.now.advanced(byNanoseconds: 60_000_000)
        let now = bench.now
        bench.machine.ticked(at: now, actions: &bench.actions)
        #expect(bench.actions.contains(.recall(worker: one, id: sent[1].id)))
        bench.actions = []
        bench.machine.cancellationConfirmed(
            sent[1].id,
            stage: .beforeStart,
            from: one,
            at: now,
            actions: &bench.actions
        )
        let again = bench.transmitted()
        #expect(again.map(\.worker) == [two])
        bench.request(3, from: client)
        expectSent(bench.transmitted().map(\.worker), [two])
        // Full, and the other one is still left alone; a while later it is asked again.
        bench.request(4, from: client)
        expectSent(bench.transmitted().map(\.call), [])
        bench.now = now.advanced(byNanoseconds: 60_000_000)
        let later = bench.now
        bench.machine.ticked(at: later, actions: &bench.actions)
        expectSent(bench.transmitted().map(\.worker), [one])
    }

    @Test("a worker that dies with held calls leaves nothing of them behind")
    func dies() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let one = try bench.worker(1, concurrency: 3)
        for id in 1...3 as ClosedRange<UInt64> { bench.request(id, from: client, isIdempotent: true) }
        let sent = bench.transmitted()
        for call in sent.dropFirst() { try self.report(&bench, call.id, .limit) }
        #expect(bench.machine.heldCount == 2)
        let now = bench.now
        bench.machine.goodbyeReceived(from: one, reason: .leaving, at: now, actions: &bench.actions)
        #expect(bench.machine.heldCount == 0)
        bench.actions = []
        let two = try bench.worker(2, concurrency: 3)
        expectSent(bench.transmitted().map(\.worker), [two, two, two])
    }

    @Test("a worker says what a request waits for that it holds")
    func reasons() throws {
        var configuration = WorkerMachine.Configuration(seed: 1)
        configuration.functionLimits = [1]
        var machine = WorkerMachine(configuration: configuration)
        var actions: [WorkerAction] = []
        let introduction = machine.helloReceived(
            client: PeerID(high: 1, low: 1),
            epoch: 1,
            name: "",
            route: 1,
            at: Self.at(1),
            actions: &actions
        )
        guard case .welcome(let session, _) = introduction else { throw CancellationError() }
        _ = machine.defined(0, name: "f", handler: 0, in: session)
        func come(_ id: UInt64, _ key: String?) -> HoldReason? {
            let header = Header(.request, id: id, time: Header.noTimeLimit)
            switch machine.requestReceived(header, key: key, from: session, at: Self.at(1)) {
            case .run(let slot, _), .hold(let slot, _): return machine.request(in: slot)?.hold
            default: return nil
            }
        }
        #expect([come(1, "k"), come(2, "k"), come(3, nil)] == [HoldReason.none, .key, .limit])
        // The key is its own then, and the limit is not.
        _ = machine.finished(0, actions: &actions)
        #expect(machine.request(in: 1)?.hold == .limit)
        #expect(machine.request(in: 2)?.hold == HoldReason.none)
    }

    @Test("ACCEPTED says what a request waits for, STARTED that it waits for nothing")
    func onTheWire() {
        for reason in [HoldReason.none, .limit, .key] {
            #expect(HoldReason(Header(.accepted, id: 1, number: reason.report | PhaseReport.stalled)) == reason)
            #expect(HoldReason(Header(.started, id: 1, number: reason.report)) == .none)
        }
    }
}
