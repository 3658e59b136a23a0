// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire
import Testing

@Suite struct ClientMachineTests {
    private static func at(_ milliseconds: UInt64) -> Instant { Instant(nanoseconds: milliseconds * 1_000_000) }

    /// A machine with a session at each endpoint.
    private static func machine(endpoints: Int = 1, window: Int = 2) -> ClientMachine {
        var machine = ClientMachine(endpointCount: endpoints)
        var actions: [ClientAction] = []
        for index in 0..<endpoints { Self.open(&machine, index, window: window, actions: &actions) }
        return machine
    }

    private static func open(
        _ machine: inout ClientMachine,
        _ index: Int,
        epoch: UInt64 = 7,
        session: UInt32 = 1,
        window: Int = 2,
        slots: Int = 0,
        at now: Instant = at(1),
        actions: inout [ClientAction]
    ) {
        machine.connected(index, at: now, actions: &actions)
        machine.welcomed(
            by: index,
            epoch: epoch,
            session: session,
            window: window,
            slots: slots,
            isResumed: true,
            at: now,
            actions: &actions
        )
    }

    private static func submit(_ machine: inout ClientMachine, _ call: Call) throws -> (slot: UInt32, endpoint: Int?) {
        let place = machine.submitted(call, at: Self.at(2))
        return try #require(place)
    }

    @Test("S100 the endpoint with the fewest outstanding calls is chosen, none beyond its window")
    func choice() throws {
        var machine = Self.machine(endpoints: 2)
        var chosen: [Int?] = []
        for id in 1...5 { chosen.append(try Self.submit(&machine, Call(id: UInt64(id))).endpoint) }
        #expect(Set(chosen[0..<2]) == [0, 1])
        #expect(Set(chosen[2..<4]) == [0, 1])
        #expect(chosen[4] == nil)
        let first = try #require(chosen[0])
        #expect(machine.replied(1, from: first, at: Self.at(3)) == .deliver(slot: 0))
        var actions: [ClientAction] = []
        machine.dispatch(actions: &actions)
        #expect(actions == [.transmit(slot: 4, endpoint: first, isResent: false)])
    }

    @Test("S33 calls expire in the order of their deadlines, and the worker is told")
    func expiry() throws {
        var machine = Self.machine(window: 8)
        for (id, deadline) in [(1, 30), (2, 10), (3, 20)] {
            _ = try Self.submit(&machine, Call(id: UInt64(id), deadline: Self.at(UInt64(deadline))))
        }
        var actions: [ClientAction] = []
        machine.ticked(at: Self.at(9), actions: &actions)
        #expect(actions.isEmpty)
        machine.ticked(at: Self.at(40), actions: &actions)
        let ended = actions.compactMap { action in
            if case .finish(_, let id, .expired) = action { id } else { nil }
        }
        #expect(ended == [2, 3, 1])
        #expect(actions.contains(.sendCancel(endpoint: 0, id: 2, reason: .expired)))
        #expect(machine.callCount == 0)
        #expect(machine.timerCount == 0)
    }

    @Test("S35 a reply that comes first wins, S36 and nothing expires afterwards")
    func replyFirst() throws {
        var machine = Self.machine()
        let slot = try Self.submit(&machine, Call(id: 1, deadline: Self.at(10))).slot
        #expect(machine.replied(1, from: 0, at: Self.at(9)) == .deliver(slot: slot))
        var actions: [ClientAction] = []
        machine.deadlineMoved(1, to: Self.at(5), actions: &actions)
        machine.ticked(at: Self.at(30), actions: &actions)
        #expect(actions.isEmpty)
    }

    @Test("S35 a reply after the deadline comes too late, though no tick has ended the call yet")
    func replyTooLate() throws {
        var machine = Self.machine()
        let slot = try Self.submit(&machine, Call(id: 1, deadline: Self.at(10))).slot
        guard case .expire(slot, _, _) = machine.replied(1, from: 0, at: Self.at(20)) else {
            Issue.record("the reply won")
            return
        }
        #expect(machine.callCount == 0)
    }

    @Test("S35 after the deadline the answer of a worker that a call was moved away from comes too late as well")
    func movedReplyTooLate() throws {
        var machine = Self.machine(endpoints: 2)
        let place = try Self.submit(&machine, Call(id: 1, isIdempotent: true, deadline: Self.at(10)))
        let former = try #require(place.endpoint)
        let later = 1 - former
        var actions: [ClientAction] = []
        machine.goodbyeReceived(from: former, reason: .leaving, at: Self.at(3), actions: &actions)
        machine.dispatch(actions: &actions)
        #expect(actions.contains(.transmit(slot: place.slot, endpoint: later, isResent: true)))
        let verdict = machine.replied(1, from: former, at: Self.at(20))
        #expect(verdict == .expire(slot: place.slot, function: 0, nanoseconds: 10_000_000))
        #expect(machine.callCount == 0 && machine.timerCount == 0)
        // Where it was moved to it still takes a place.
        #expect(machine.endpoints[later].outstanding == 1)
        #expect(machine.replied(1, from: later, at: Self.at(21)) == .duplicate)
        #expect(machine.endpoints[later].outstanding == 0)
    }

    @Test("S34 a call whose deadline has passed is never sent")
    func tooLate() {
        var machine = Self.machine()
        #expect(machine.submitted(Call(id: 1, deadline: Self.at(2)), at: Self.at(2)) == nil)
        #expect(machine.callCount == 0)
    }

    @Test("S94 a second answer is a duplicate, S95 one after the end is late, of a stranger unknown")
    func verdicts() throws {
        var machine = Self.machine()
        _ = try Self.submit(&machine, Call(id: 1))
        _ = try Self.submit(&machine, Call(id: 2, function: 5))
        var actions: [ClientAction] = []
        _ = machine.replied(1, from: 0, at: Self.at(3))
        #expect(machine.replied(1, from: 0, at: Self.at(3)) == .duplicate)
        _ = machine.abandoned(2, as: .requested, at: Self.at(3), actions: &actions)
        #expect(machine.replied(2, from: 0, at: Self.at(5)) == .late(function: 5, nanoseconds: 2_000_000))
        #expect(machine.replied(2, from: 0, at: Self.at(6)) == .duplicate)
        #expect(machine.replied(99, from: 0, at: Self.at(6)) == .unknown)
        #expect(machine.endpoints[0].outstanding == 0)
    }

    @Test("S98 a cancelled call keeps its place at the worker until the worker says that it is gone")
    func cancel() throws {
        var machine = Self.machine(window: 1)
        _ = try Self.submit(&machine, Call(id: 1))
        var actions: [ClientAction] = []
        #expect(machine.abandoned(1, as: .requested, at: Self.at(3), actions: &actions) == 0)
        #expect(actions == [.sendCancel(endpoint: 0, id: 1, reason: .requested)])
        #expect(try Self.submit(&machine, Call(id: 2)).endpoint == nil)
        actions = []
        machine.cancellationConfirmed(1, stage: .beforeStart, from: 0, at: Self.at(4), actions: &actions)
        machine.dispatch(actions: &actions)
        #expect(actions == [.transmit(slot: 0, endpoint: 0, isResent: false)])
    }

    @Test("a late pong frees no request's place")
    func latePong() throws {
        var machine = Self.machine(window: 1)
        var actions: [ClientAction] = []
        _ = try Self.submit(&machine, Call(id: 1))
        _ = try Self.submit(&machine, Call(id: 2, isPing: true, deadline: Self.at(5)))
        machine.dispatch(actions: &actions)
        machine.ticked(at: Self.at(10), actions: &actions)
        _ = machine.replied(2, from: 0, at: Self.at(11))
        #expect(machine.endpoints[0].outstanding == 1)
    }

    @Test("S91 a call that was refused by who shuts down waits for another endpoint, and goes there")
    func drainedAway() throws {
        var machine = ClientMachine(endpointCount: 2)
        var actions: [ClientAction] = []
        Self.open(&machine, 0, window: 8, actions: &actions)
        let (slot, endpoint) = try Self.submit(&machine, Call(id: 1))
        #expect(endpoint == 0)
        actions = []
        let isKept = machine.drained(1, by: 0, at: Self.at(3), actions: &actions)
        #expect(isKept)
        machine.dispatch(actions: &actions)
        #expect(actions == [.show(slot: slot, phase: .local, endpoint: 0)])
        Self.open(&machine, 1, window: 8, actions: &actions)
        machine.dispatch(actions: &actions)
        #expect(actions.contains(.transmit(slot: slot, endpoint: 1, isResent: false)))
        // The one that shuts down gets no more.
        #expect(try Self.submit(&machine, Call(id: 2)).endpoint == 1)
    }

    @Test("what is impatient ends when no endpoint can be reached, and says why; what is patient waits")
    func impatience() throws {
        var machine = ClientMachine(endpointCount: 2)
        var actions: [ClientAction] = []
        machine.unreachable(0)
        _ = try Self.submit(&machine, Call(id: 1, isPing: true, isImpatient: true))
        _ = try Self.submit(&machine, Call(id: 2, isPing: true))
        _ = try Self.submit(&machine, Call(id: 3))
        machine.dispatch(actions: &actions)
        #expect(actions.isEmpty)
        machine.unreachable(1)
        machine.dispatch(actions: &actions)
        #expect(actions == [.finish(slot: 0, id: 1, ending: .lost(.unreachable))])
        #expect(machine.callCount == 2)
        // What failed before says nothing to one that comes later, for which the endpoints are dialled anew.
        actions = []
        machine.dialled(0)
        machine.dialled(1)
        _ = try Self.submit(&machine, Call(id: 4, isPing: true, isImpatient: true))
        machine.unreachable(1)
        machine.dispatch(actions: &actions)
        #expect(actions.isEmpty)
        machine.unreachable(0, reason: .authentication)
        machine.dispatch(actions: &actions)
        #expect(actions == [.finish(slot: 0, id: 4, ending: .lost(.authentication))])
        #expect(machine.callCount == 2)
        actions = []
        machine.connected(0, at: Self.at(5), actions: &actions)
        #expect(actions == [.sendHello(endpoint: 0)])
        _ = try Self.submit(&machine, Call(id: 5, isPing: true, isImpatient: true))
        machine.dispatch(actions: &actions)
        #expect(machine.callCount == 3)
    }

    @Test("the place of a cancelled call is freed by an answer that comes after its tombstone is gone")
    func lateBeyondTombstones() throws {
        var configuration = ClientMachine.Configuration()
        configuration.tombstoneCount = 2
        var machine = ClientMachine(endpointCount: 1, configuration: configuration)
        var actions: [ClientAction] = []
        Self.open(&machine, 0, window: 2, actions: &actions)
        _ = try Self.submit(&machine, Call(id: 1))
        _ = machine.abandoned(1, as: .requested, at: Self.at(3), actions: &actions)
        for id in 2...6 {
            _ = try Self.submit(&machine, Call(id: UInt64(id)))
            _ = machine.replied(UInt64(id), from: 0, at: Self.at(3))
        }
        #expect(machine.endpoints[0].outstanding == 1)
        #expect(machine.replied(1, from: 0, at: Self.at(4)) == .unknown)
        #expect(machine.endpoints[0].outstanding == 0)
    }

    @Test("S88 when a session goes on, cancels and open calls are sent again, in the order they were made")
    func resumption() throws {
        var machine = Self.machine(window: 4)
        for id in 1...3 { _ = try Self.submit(&machine, Call(id: UInt64(id))) }
        var actions: [ClientAction] = []
        _ = machine.replied(1, from: 0, at: Self.at(3))
        // Takes the slot of the first.
        _ = try Self.submit(&machine, Call(id: 4))
        machine.disconnected(0, at: Self.at(4), actions: &actions)
        _ = machine.abandoned(3, as: .requested, at: Self.at(4), actions: &actions)
        #expect(actions.isEmpty)
        Self.open(&machine, 0, window: 4, at: Self.at(5), actions: &actions)
        #expect(
            actions == [
                .sendHello(endpoint: 0), .opened(endpoint: 0, isResumed: true),
                .sendCancel(endpoint: 0, id: 3, reason: .requested),
                .transmit(slot: 1, endpoint: 0, isResent: true),
                .transmit(slot: 0, endpoint: 0, isResent: true),
            ]
        )
        #expect(machine.endpoints[0].outstanding == 3)
    }

    @Test("S88 at a new epoch idempotent calls are sent again under their ids, S97 the others are lost")
    func restart() throws {
        var machine = Self.machine()
        _ = try Self.submit(&machine, Call(id: 1, isIdempotent: true))
        _ = try Self.submit(&machine, Call(id: 2))
        var actions: [ClientAction] = []
        machine.disconnected(0, at: Self.at(3), actions: &actions)
        Self.open(&machine, 0, epoch: 8, at: Self.at(4), actions: &actions)
        #expect(actions.contains(.finish(slot: 1, id: 2, ending: .lost(.restarted))))
        #expect(actions.contains(.rebuild(endpoint: 0)))
        Self.open(&machine, 0, epoch: 8, at: Self.at(5), actions: &actions)
        actions = []
        machine.dispatch(actions: &actions)
        #expect(actions == [.transmit(slot: 0, endpoint: 0, isResent: true)])
    }

    @Test("S88 an idempotent call ends as poison after a bounded number of deaths")
    func attempts() throws {
        var configuration = ClientMachine.Configuration()
        configuration.maxAttempts = 2
        var machine = ClientMachine(endpointCount: 1, configuration: configuration)
        var actions: [ClientAction] = []
        Self.open(&machine, 0, slots: 1, actions: &actions)
        _ = try Self.submit(&machine, Call(id: 1, isIdempotent: true))
        machine.beatReceived(from: 0, epoch: 8, at: Self.at(3), actions: &actions)
        #expect(machine.callCount == 1)
        Self.open(&machine, 0, epoch: 8, slots: 1, at: Self.at(4), actions: &actions)
        machine.dispatch(actions: &actions)
        actions = []
        machine.beatReceived(from: 0, epoch: 9, at: Self.at(5), actions: &actions)
        #expect(actions.contains(.finish(slot: 0, id: 1, ending: .poison(attempts: 2, endpoints: [0, 0]))))
    }

    @Test("S87 a welcome that was under way when its connection closed doesn't open the session again")
    func welcomeOfClosed() throws {
        for isFirst in [true, false] {
            var machine = Self.machine()
            var actions: [ClientAction] = []
            if isFirst {
                machine = ClientMachine(endpointCount: 1)
                machine.connected(0, at: Self.at(1), actions: &actions)
            }
            _ = machine.submitted(Call(id: 1), at: Self.at(2))
            machine.disconnected(0, at: Self.at(3), actions: &actions)
            actions = []
            machine.welcomed(
                by: 0,
                epoch: 7,
                session: 1,
                window: 1024,
                slots: 4,
                isResumed: !isFirst,
                at: Self.at(4),
                actions: &actions
            )
            machine.dispatch(actions: &actions)
            #expect(actions == [] && !machine.endpoints[0].isOpen)
            guard !isFirst else { continue }
            for milliseconds in stride(from: UInt64(5), to: 1100, by: 50) {
                machine.ticked(at: Self.at(milliseconds), actions: &actions)
            }
            #expect(actions.contains(.finish(slot: 0, id: 1, ending: .lost(.disconnected))))
        }
    }

    @Test("S97 a worker that forgot this client and met it again has another session: nothing is sent to it again")
    func forgotten() throws {
        var machine = Self.machine()
        _ = try Self.submit(&machine, Call(id: 1))
        var actions: [ClientAction] = []
        machine.disconnected(0, at: Self.at(3), actions: &actions)
        Self.open(&machine, 0, session: 2, at: Self.at(4), actions: &actions)
        #expect(actions.contains(.finish(slot: 0, id: 1, ending: .lost(.forgotten))))
        #expect(actions.contains(.rebuild(endpoint: 0)))
        #expect(!actions.contains(.transmit(slot: 0, endpoint: 0, isResent: true)))
        #expect(machine.endpoints[0].losses == 1)
    }

    @Test("S97 a worker that says so has forgotten this client, even if it does not number its sessions")
    func forgottenWithoutNumbers() throws {
        var machine = ClientMachine(endpointCount: 1)
        var actions: [ClientAction] = []
        Self.open(&machine, 0, session: 0, actions: &actions)
        _ = try Self.submit(&machine, Call(id: 1))
        machine.welcomed(
            by: 0,
            epoch: 7,
            session: 0,
            window: 2,
            isResumed: false,
            at: Self.at(3),
            actions: &actions
        )
        #expect(actions.contains(.finish(slot: 0, id: 1, ending: .lost(.forgotten))))
    }

    @Test("S87 a worker that is silent for the limit is lost, once")
    func silence() throws {
        var machine = Self.machine()
        _ = try Self.submit(&machine, Call(id: 1))
        var actions: [ClientAction] = []
        for time in stride(from: UInt64(1000), through: 12_000, by: 500) {
            machine.ticked(at: Self.at(time), actions: &actions)
        }
        #expect(actions.count { $0 == .lost(endpoint: 0, reason: .silent) } == 1)
        #expect(actions.contains(.finish(slot: 0, id: 1, ending: .lost(.silent))))
    }

    @Test("S85 S87 S88 of a worker that closed the connection for over a second calls end, or go elsewhere")
    func closed() throws {
        var machine = Self.machine(endpoints: 2)
        var places: [UInt64: (slot: UInt32, endpoint: Int?)] = [:]
        for id in UInt64(1)...4 { places[id] = try Self.submit(&machine, Call(id: id, isIdempotent: id > 2)) }
        let gone = try #require(places[1]?.endpoint)
        let other = 1 - gone
        var actions: [ClientAction] = []
        machine.disconnected(gone, at: Self.at(500), actions: &actions)
        #expect(machine.nextDeadline(after: Self.at(500)) <= Self.at(1500))
        for time in stride(from: UInt64(600), through: 1500, by: 100) {
            machine.heard(from: other, at: Self.at(time))
            machine.ticked(at: Self.at(time), actions: &actions)
            #expect(actions.isEmpty || time == 1500)
        }
        #expect(actions.contains(.lost(endpoint: gone, reason: .disconnected)))
        #expect(actions.contains { if case .finish(_, 1, .lost(.disconnected)) = $0 { true } else { false } })
        // There is room at the other one as soon as it has answered.
        for id in UInt64(2)...4 where places[id]?.endpoint == other {
            _ = machine.replied(id, from: other, at: Self.at(1501))
        }
        machine.dispatch(actions: &actions)
        let again = actions.filter { if case .transmit(_, other, true, _) = $0 { true } else { false } }
        #expect(again.count == 1)
        #expect(machine.endpoints[other].outstanding == 1)
    }

    @Test("S88 of a worker that is back within a second no call is lost")
    func closedAndBack() throws {
        var machine = Self.machine()
        _ = try Self.submit(&machine, Call(id: 1))
        var actions: [ClientAction] = []
        machine.disconnected(0, at: Self.at(500), actions: &actions)
        machine.ticked(at: Self.at(1000), actions: &actions)
        Self.open(&machine, 0, at: Self.at(1490), actions: &actions)
        machine.ticked(at: Self.at(1600), actions: &actions)
        #expect(actions.contains(.transmit(slot: 0, endpoint: 0, isResent: true)))
        #expect(!actions.contains { if case .lost = $0 { true } else { false } })
        #expect(machine.callCount == 1)
    }

    @Test("S27 S28 the worker that has a call is told of its new deadline, nobody else is")
    func movedDeadline() throws {
        var machine = Self.machine(window: 1)
        _ = try Self.submit(&machine, Call(id: 1, deadline: Self.at(10)))
        let waiting = try Self.submit(&machine, Call(id: 2, deadline: Self.at(10)))
        #expect(waiting.endpoint == nil)
        var actions: [ClientAction] = []
        machine.deadlineMoved(1, to: Self.at(100), actions: &actions)
        machine.deadlineMoved(1, to: Self.at(100), actions: &actions)
        machine.deadlineMoved(1, to: .distantFuture, actions: &actions)
        machine.deadlineMoved(2, to: Self.at(100), actions: &actions)
        machine.deadlineMoved(9, to: Self.at(100), actions: &actions)
        #expect(
            actions == [
                .sendDeadline(endpoint: 0, id: 1, deadline: Self.at(100)),
                .sendDeadline(endpoint: 0, id: 1, deadline: .distantFuture),
            ]
        )
        actions = []
        machine.ticked(at: Self.at(50), actions: &actions)
        #expect(actions.isEmpty)
        // Without a session nothing is said: the request brings its new time when it is sent again.
        machine.disconnected(0, at: Self.at(51), actions: &actions)
        actions = []
        machine.deadlineMoved(1, to: Self.at(70), actions: &actions)
        #expect(actions.isEmpty)
        #expect(machine.timerCount == 2)
    }

    @Test("S39 a request that lapsed at the worker goes out again if its deadline was moved meanwhile")
    func lapsedButMoved() throws {
        var machine = Self.machine()
        let slot = try Self.submit(&machine, Call(id: 1, deadline: Self.at(10))).slot
        var actions: [ClientAction] = []
        machine.deadlineMoved(1, to: Self.at(100), actions: &actions)
        actions = []
        machine.cancellationConfirmed(1, stage: .lapsed, from: 0, at: Self.at(12), actions: &actions)
        #expect(actions == [.restamp(endpoint: 0), .show(slot: slot, phase: .local, endpoint: 0)])
        actions = []
        machine.dispatch(actions: &actions)
        #expect(actions == [.transmit(slot: slot, endpoint: 0, isResent: false)])
        #expect(machine.endpoints[0].outstanding == 1)
    }

    @Test("S99 what a worker says of a call that is stalled is shown, and that it no longer is, not what is older")
    func stalled() throws {
        var machine = Self.machine()
        let slot = try Self.submit(&machine, Call(id: 1)).slot
        var actions: [ClientAction] = []
        func report(_ phase: CallPhase, _ isStalled: Bool) -> [ClientAction] {
            actions = []
            machine.phaseReported(1, phase: phase, isStalled: isStalled, from: 0, actions: &actions)
            return actions
        }
        #expect(report(.accepted, false) == [.show(slot: slot, phase: .accepted, endpoint: 0)])
        #expect(report(.accepted, false) == [])
        #expect(report(.accepted, true) == [.show(slot: slot, phase: .accepted, isStalled: true, endpoint: 0)])
        #expect(report(.running, false) == [.show(slot: slot, phase: .running, endpoint: 0)])
        #expect(report(.accepted, true) == [])
        #expect(report(.running, true) == [.show(slot: slot, phase: .running, isStalled: true, endpoint: 0)])
        #expect(report(.running, false) == [.show(slot: slot, phase: .running, endpoint: 0)])
    }

    @Test("S97 a request that was sent again and lapsed may be at its worker: it goes nowhere else, and as sent again")
    func lapsedWhileSentAgain() throws {
        var machine = Self.machine(endpoints: 2)
        let (slot, endpoint) = try Self.submit(&machine, Call(id: 1, deadline: Self.at(10)))
        let worker = try #require(endpoint)
        var actions: [ClientAction] = []
        machine.disconnected(worker, at: Self.at(3), actions: &actions)
        machine.deadlineMoved(1, to: Self.at(100), actions: &actions)
        actions = []
        Self.open(&machine, worker, at: Self.at(12), actions: &actions)
        #expect(actions.contains(.transmit(slot: slot, endpoint: worker, isResent: true)))
        actions = []
        // The answer to the first, which was on its way: the second has yet to arrive.
        machine.cancellationConfirmed(1, stage: .lapsed, from: worker, at: Self.at(13), actions: &actions)
        machine.dispatch(actions: &actions)
        let again = ClientAction.transmit(slot: slot, endpoint: worker, isResent: true, isRenewed: true)
        #expect(actions == [.restamp(endpoint: worker), again])
        #expect(machine.endpoints[worker].outstanding == 1)
        #expect(machine.replied(1, from: worker, at: Self.at(20)) == .deliver(slot: slot))
        #expect(machine.endpoints[worker].outstanding == 0)
        // Moved to another session, a call is as new there.
        let second = try Self.submit(&machine, Call(id: 2, isIdempotent: true, deadline: Self.at(90)))
        let first = try #require(second.endpoint)
        machine.disconnected(first, at: Self.at(21), actions: &actions)
        Self.open(&machine, first, at: Self.at(22), actions: &actions)
        machine.goodbyeReceived(from: first, reason: .leaving, at: Self.at(23), actions: &actions)
        machine.dispatch(actions: &actions)
        actions = []
        machine.cancellationConfirmed(2, stage: .lapsed, from: 1 - first, at: Self.at(24), actions: &actions)
        #expect(
            actions == [.restamp(endpoint: 1 - first), .show(slot: second.slot, phase: .local, endpoint: 1 - first)]
        )
    }

    @Test("S9 a call with an ordering key does not overtake one that waits for room")
    func overtaking() throws {
        var machine = Self.machine(window: 1)
        _ = try Self.submit(&machine, Call(id: 1, affinity: 3))
        #expect(try Self.submit(&machine, Call(id: 2, affinity: 3)).endpoint == nil)
        _ = machine.replied(1, from: 0, at: Self.at(3))
        #expect(try Self.submit(&machine, Call(id: 3, affinity: 3)).endpoint == nil)
        var actions: [ClientAction] = []
        machine.dispatch(actions: &actions)
        #expect(actions == [.transmit(slot: 1, endpoint: 0, isResent: false)])
    }

    @Test("S9 calls of a key that are sent again go before those that had not been sent")
    func orderAfterRestart() throws {
        var machine = Self.machine(window: 1)
        _ = try Self.submit(&machine, Call(id: 1, isIdempotent: true, affinity: 3))
        _ = try Self.submit(&machine, Call(id: 2, affinity: 3))
        var actions: [ClientAction] = []
        machine.disconnected(0, at: Self.at(3), actions: &actions)
        Self.open(&machine, 0, epoch: 8, window: 1, at: Self.at(4), actions: &actions)
        Self.open(&machine, 0, epoch: 8, window: 1, at: Self.at(5), actions: &actions)
        actions = []
        machine.dispatch(actions: &actions)
        #expect(actions == [.transmit(slot: 0, endpoint: 0, isResent: true)])
    }

    @Test("an endpoint that refused and then accepted no longer counts as refusing")
    func refusedOnce() throws {
        var machine = ClientMachine(endpointCount: 2)
        var actions: [ClientAction] = []
        machine.refused(by: 0, reason: .authentication, at: Self.at(1), actions: &actions)
        Self.open(&machine, 0, window: 1, actions: &actions)
        _ = try Self.submit(&machine, Call(id: 1))
        _ = try Self.submit(&machine, Call(id: 2))
        machine.refused(by: 1, reason: .authentication, at: Self.at(3), actions: &actions)
        #expect(machine.callCount == 2)
        machine.refused(by: 0, reason: .authentication, at: Self.at(4), actions: &actions)
        #expect(machine.callCount == 0)
    }

    @Test("an endpoint without room for this client keeps its calls waiting, one that doesn't want it ends them")
    func fullOnce() throws {
        var machine = ClientMachine(endpointCount: 2)
        var actions: [ClientAction] = []
        _ = try Self.submit(&machine, Call(id: 1))
        _ = try Self.submit(&machine, Call(id: 2))
        machine.refused(by: 0, reason: .refused, at: Self.at(3), actions: &actions)
        machine.refused(by: 1, reason: .full, at: Self.at(3), actions: &actions)
        #expect(machine.callCount == 2)
        // It can be reached.
        #expect(machine.endpoints[0].outOfReach == .refused && machine.endpoints[1].outOfReach == nil)
        // Not asked again at once.
        #expect(actions.contains(.rebuild(endpoint: 1)) && machine.endpoints[1].isRefused)
        actions = []
        Self.open(&machine, 1, at: Self.at(4), actions: &actions)
        machine.dispatch(actions: &actions)
        #expect(actions.contains(.transmit(slot: 0, endpoint: 1, isResent: false)))
        machine.refused(by: 1, reason: .full, at: Self.at(5), actions: &actions)
        #expect(machine.callCount == 0)
        _ = try Self.submit(&machine, Call(id: 3))
        machine.refused(by: 1, reason: .authentication, at: Self.at(6), actions: &actions)
        #expect(machine.callCount == 0)
    }

    @Test("S102 calls that end while no worker is there leave nothing behind, even behind one that stays")
    func queueOfEnded() throws {
        var machine = ClientMachine(endpointCount: 1)
        var actions: [ClientAction] = []
        _ = try Self.submit(&machine, Call(id: 1))
        for id in 2...10_000 {
            _ = try Self.submit(&machine, Call(id: UInt64(id)))
            _ = machine.abandoned(UInt64(id), as: .requested, at: Self.at(3), actions: &actions)
            #expect(machine.queuedIDs <= 128)
        }
        #expect(actions.isEmpty)
    }

    @Test("S88 S91 a call that was sent twice, and is refused twice by who shuts down, goes on elsewhere")
    func drainedTwice() throws {
        var machine = Self.machine(endpoints: 2, window: 8)
        let (slot, endpoint) = try Self.submit(&machine, Call(id: 1))
        let former = try #require(endpoint)
        var actions: [ClientAction] = []
        machine.disconnected(former, at: Self.at(3), actions: &actions)
        Self.open(&machine, former, at: Self.at(12), actions: &actions)
        #expect(actions.contains(.transmit(slot: slot, endpoint: former, isResent: true)))
        actions = []
        let isKept = machine.drained(1, by: former, at: Self.at(13), actions: &actions)
        machine.dispatch(actions: &actions)
        #expect(isKept && actions.contains(.transmit(slot: slot, endpoint: 1 - former, isResent: false)))
        // The answer to the other one.
        actions = []
        let isKeptStill = machine.drained(1, by: former, at: Self.at(14), actions: &actions)
        #expect(isKeptStill && actions.isEmpty && machine.callCount == 1)
        #expect(machine.endpoints[former].outstanding == 0)
        #expect(machine.replied(1, from: 1 - former, at: Self.at(15)) == .deliver(slot: slot))
        #expect(machine.endpoints[1 - former].outstanding == 0)
    }

    @Test("S88 S91 what a draining worker didn't take goes elsewhere, or waits")
    func drained() throws {
        var machine = Self.machine(endpoints: 2, window: 1)
        let first = try #require(try Self.submit(&machine, Call(id: 1)).endpoint)
        var actions: [ClientAction] = []
        // It is known from the answer alone, if the GOODBYE was lost with a connection.
        let isKept = machine.drained(1, by: first, at: Self.at(3), actions: &actions)
        #expect(isKept)
        actions = []
        machine.dispatch(actions: &actions)
        #expect(actions == [.transmit(slot: 0, endpoint: 1 - first, isResent: false)])
        // Another answer of the former is none of this attempt's, and doesn't end it.
        let goesOn = machine.drained(1, by: first, at: Self.at(3), actions: &actions)
        #expect(goesOn && machine.callCount == 1)
        let isKeptAgain = machine.drained(1, by: 1 - first, at: Self.at(4), actions: &actions)
        #expect(isKeptAgain)
        actions = []
        machine.dispatch(actions: &actions)
        #expect(actions.isEmpty && machine.queuedIDs == 1)
        let isUnknown = machine.drained(9, by: first, at: Self.at(4), actions: &actions)
        #expect(!isUnknown)
    }

    @Test("S91 a draining worker is given nothing, what was bound to it goes elsewhere")
    func draining() throws {
        var machine = Self.machine(endpoints: 2, window: 1)
        let first = try #require(try Self.submit(&machine, Call(id: 1, affinity: 2)).endpoint)
        #expect(try Self.submit(&machine, Call(id: 2, affinity: 2)).endpoint == nil)
        var actions: [ClientAction] = []
        machine.goodbyeReceived(from: first, reason: .draining, at: Self.at(3), actions: &actions)
        machine.dispatch(actions: &actions)
        #expect(actions == [.transmit(slot: 1, endpoint: 1 - first, isResent: false)])
    }
}
