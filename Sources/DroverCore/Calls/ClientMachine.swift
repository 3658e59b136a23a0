// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
package import DroverWire

/// Everything a client decides: which endpoint gets a call, when a call ends, what a reply means, and what happens to
/// calls when a worker is lost.
///
/// The loop feeds events in and carries out the actions. A call is identified by its correlation id on the wire, and by
/// a slot between machine and loop; the loop keeps the handle under the same slot.
package struct ClientMachine: ~Copyable {
    package struct Configuration: Sendable {
        /// Heartbeat interval and silence limit of each session.
        package var session = PeerSession.Limits.standard
        /// A call that may have been running during this many worker deaths ends as poison.
        package var maxAttempts: UInt8 = 3
        /// How long a worker's credit should keep it busy.
        package var coverageNanoseconds: UInt64 = 1_000_000
        /// A worker that has more calls than slots and answers none for this long gives the surplus back.
        package var stallNanoseconds: UInt64 = 50_000_000
        /// How long a worker is reserved for a suspect.
        package var aloneNanoseconds = Solitude.standardLimitNanoseconds
        /// How many ended calls are remembered, to tell late replies from unknown ones.
        package var tombstoneCount = 4096

        package init() {}
    }

    package internal(set) var endpoints: [ClientEndpoint]
    var calls: IDTable<Call>
    private var wheel: TimerWheel
    private var tombstones: TombstoneRing
    /// Calls that any endpoint may take, oldest first; may contain calls that have ended.
    var waiting = Deque<UInt64>()
    /// Calls, by function, that no endpoint takes because of the function's limit, although there is room for others;
    /// may contain calls that have ended.
    var parked: [UInt32: Deque<UInt64>] = [:]
    /// Pings that wait for a session.
    private var pings: [UInt64] = []
    /// Calls that need a worker without other calls, and calls that wait behind one of those with the same ordering
    /// key, lowest id first; may contain calls that have ended.
    private var apart: [UInt64] = []
    /// The ordering keys whose calls wait there, each with its first call.
    private var apartKeys: [UInt64: UInt64] = [:]
    /// The endpoints where ordering keys had calls when an endpoint last came or went; see ``keepHomes()``.
    var homes: [UInt64: Int] = [:]
    /// The endpoints where suspects were when their workers died, one for each death.
    private var deathsOf: [UInt64: [Int]] = [:]
    let configuration: Configuration
    private var due: [UInt32] = []
    private var lastChosen = 0
    /// The latest time that the machine knows.
    var latest = Instant(nanoseconds: 0)

    /// How many calls have not ended.
    package var callCount: Int { self.calls.count }
    /// How many places the queues of unsent calls have; some may belong to calls that have ended.
    package var queuedIDs: Int {
        self.endpoints.reduce(self.waiting.count + self.pings.count) { $0 + $1.bound.count } + self.apart.count
            + self.parkedCount
    }
    /// How many timers are set.
    package var timerCount: Int { self.wheel.count }

    package init(endpointCount: Int, configuration: Configuration = .init()) {
        self.configuration = configuration
        self.calls = IDTable(limit: Int(UInt32.max) - 2, seed: 0)
        self.wheel = TimerWheel(now: Instant(nanoseconds: 0))
        self.tombstones = TombstoneRing(capacity: configuration.tombstoneCount)
        self.endpoints = (0..<endpointCount)
            .map { _ in
                ClientEndpoint(limits: configuration.session, aloneNanoseconds: configuration.aloneNanoseconds)
            }
    }

    /// The call in a slot.
    package func call(in slot: UInt32) -> Call { self.calls[slot] }

    /// The slot of a call that has not ended.
    package func slot(of id: UInt64) -> UInt32? { self.calls.slot(of: id) }

    // MARK: Calls

    /// A call was made.
    ///
    /// Returns its slot, and the endpoint to send it to if it can be sent now.
    ///
    /// - Returns: nil if the deadline has passed already: the call ended as expired and has no slot.
    package mutating func submitted(_ call: Call, at now: Instant) -> (slot: UInt32, endpoint: Int?)? {
        guard call.deadline > now else { return nil }
        self.latest = now
        guard case .inserted(let slot) = self.calls.insert(call.id, call) else {
            preconditionFailure("correlation id \(call.id) was given out twice")
        }
        if call.deadline != .distantFuture {
            self.wheel.schedule(slot, at: call.deadline)
        }
        if call.isPing {
            self.pings.append(call.id)
            if self.isMostlyEnded(self.pings.count) { self.pings = self.open(self.pings) }
            return (slot, nil)
        }
        if self.mustBeAlone(call) {
            self.setApart(call.id)
            return (slot, nil)
        }
        if self.waiting.isEmpty, !self.isParked(call.function, call.affinity), !self.isBehindApart(call),
            let index = self.choose(affinity: call.affinity, function: call.function) ?? self.ahead(call)
        {
            self.assign(slot, to: index)
            return (slot, index)
        }
        self.enqueue(call)
        return (slot, nil)
    }

    /// The handle ended on the caller's side, by `cancel()` or by an expiry that had already passed when it was set.
    package mutating func abandoned(
        _ id: UInt64,
        as reason: CancelReason,
        at now: Instant,
        actions: inout [ClientAction]
    ) -> UInt32? {
        guard let slot = self.calls.slot(of: id) else { return nil }
        let call = self.retire(slot, wasAnswered: false, at: now)
        self.withdraw(call, reason: reason, actions: &actions)
        return slot
    }

    /// The deadline of a call was moved.
    ///
    /// A deadline in the past ends it with the next tick. A worker that has the request is told, so that it neither
    /// drops the request at the deadline that was sent with it nor starts it after the new one.
    package mutating func deadlineMoved(_ id: UInt64, to deadline: Instant, actions: inout [ClientAction]) {
        guard let slot = self.calls.slot(of: id), self.calls[slot].deadline != deadline else { return }
        self.calls[slot].deadline = deadline
        self.wheel.schedule(slot, at: deadline)
        let call = self.calls[slot]
        // Without a session the message would be lost, and a request that is sent again carries its new time anyway.
        guard call.endpoint != Call.noEndpoint, !call.isPing, self.endpoints[Int(call.endpoint)].isOpen else { return }
        actions.append(.sendDeadline(endpoint: Int(call.endpoint), id: id, deadline: deadline))
    }

    /// A reply or an error for `id` arrived.
    ///
    /// - Parameters:
    ///   - id: The call.
    ///   - ranMicroseconds: How long the handler ran, 0 if the worker doesn't say.
    ///   - endpoint: The endpoint that answered.
    ///   - now: The time.
    /// - Returns: What the answer means.
    package mutating func replied(
        _ id: UInt64,
        ranMicroseconds: UInt32 = 0,
        from endpoint: Int,
        at now: Instant
    ) -> ReplyVerdict {
        self.latest = now
        if let slot = self.calls.slot(of: id) {
            let current = self.calls[slot].endpoint
            if Int(current) == endpoint {
                if !self.calls[slot].isPing {
                    self.endpoints[endpoint].measure(self.calls[slot], ranMicroseconds, at: now)
                    self.endpoints[endpoint].held.ended(Int(self.calls[slot].function))
                    self.release(id, from: endpoint)
                    self.adapt(endpoint)
                }
            } else {
                // This is a previous worker's answer to a call that was moved. It is as good, because the call is
                // idempotent, but the worker that has the call now still counts it until it answers as well.
                guard self.calls[slot].sends > 0 else { return .unknown }
                if current != Call.noEndpoint { self.endpoints[Int(current)].withdrawn[id] = .requested }
            }
            let call = self.retire(slot, wasAnswered: true, at: now)
            // The time of arrival decides, and this answer arrived too late (contract S35), whether or not the timer
            // has fired yet.
            if call.deadline <= now {
                let lateness = now.nanoseconds(since: call.deadline)
                return .expire(slot: slot, function: call.function, nanoseconds: lateness)
            }
            return .deliver(slot: slot)
        }
        self.releaseWithdrawn(id, from: endpoint)
        guard let tombstone = self.tombstones.find(id) else { return .unknown }
        if tombstone.wasAnswered { return .duplicate }
        self.tombstones.markAnswered(id)
        return .late(function: tombstone.function, nanoseconds: now.nanoseconds(since: tombstone.endedAt))
    }

    /// The worker confirmed that a cancelled or lapsed request is gone.
    package mutating func cancellationConfirmed(
        _ id: UInt64,
        stage: CancelledStage,
        from endpoint: Int,
        at now: Instant,
        actions: inout [ClientAction]
    ) {
        self.latest = now
        if let slot = self.calls.slot(of: id) {
            let call = self.calls[slot]
            guard Int(call.endpoint) == endpoint, !call.isPing else { return }
            // With the same stamps the call would lapse again.
            if stage == .lapsed, call.deadline > now { actions.append(.restamp(endpoint: endpoint)) }
            // Copies that are still in transit get the same answer; one that is marked as renewed runs.
            if stage.isRemoval { self.calls[slot].isRenewed = true }
            // The confirmation may be for either copy, and the other may still be there, or have run. The worker knows.
            let mayBeThere = call.isRepeated && stage.isRemoval
            if mayBeThere, call.deadline > now {
                if self.endpoints[endpoint].isOpen {
                    actions.append(self.transmission(of: slot, to: endpoint, isResent: true))
                }
                return
            }
            self.release(id, from: endpoint)
            switch stage {
            case .beforeStart, .lapsed:
                // The time that was sent with the request is over, and the request never ran. Our deadline decides when
                // the call ends: if it has been moved since, the call goes out again with the time left now.
                guard call.deadline > now else {
                    return self.finish(slot, ending: .expired, at: now, actions: &actions)
                }
                if !call.isRecalled {
                    self.endpoints[endpoint].declined(at: now)
                    self.calls[slot].declines += 1
                    guard self.calls[slot].declines < Self.maxDeclines else {
                        return self.finish(slot, ending: .declined(endpoint), at: now, actions: &actions)
                    }
                }
                self.unbegin(slot, actions: &actions)
            case .whileRunning, .unknown:
                // This client didn't ask for it, and no answer will come.
                self.finish(slot, ending: .lost(.forgotten), at: now, actions: &actions)
            }
            return
        }
        self.releaseWithdrawn(id, from: endpoint)
        self.tombstones.markAnswered(id)
    }

    /// A worker or broker that is stopping didn't take a call, which never ran: the call goes elsewhere, or waits for a
    /// worker (contract S91).
    ///
    /// - Returns: Whether the call goes on; if not, its caller must be told.
    package mutating func drained(
        _ id: UInt64,
        by endpoint: Int,
        at now: Instant,
        actions: inout [ClientAction]
    ) -> Bool {
        guard let slot = self.calls.slot(of: id) else { return false }
        let call = self.calls[slot]
        guard !call.isPing else { return false }
        // If a call was sent twice, both copies are refused: after the first refusal the call is elsewhere, and the
        // second no longer matters.
        guard Int(call.endpoint) == endpoint else { return true }
        guard call.deadline > now else { return false }
        self.latest = now
        if !self.endpoints[endpoint].isDraining {
            self.goodbyeReceived(from: endpoint, reason: .draining, at: now, actions: &actions)
        }
        self.release(id, from: endpoint)
        self.unbegin(slot, actions: &actions)
        return true
    }

    /// A call that was sent never ran: treats it as if it had not been sent.
    private mutating func unbegin(_ slot: UInt32, actions: inout [ClientAction]) {
        let call = self.calls[slot]
        self.calls[slot].sends &-= 1
        // A broker that has seen the call run has it back.
        if call.phase >= .running { actions.append(.mayHaveRun(slot: slot)) }
        self.takeBack(slot, actions: &actions)
        if self.mustBeAlone(call) { return self.setApart(call.id) }
        self.unbind(Int(call.endpoint))
        if self.isParked(call.function, call.affinity) {
            self.parked[call.function]?.prepend(call.id)
        } else {
            self.waiting.prepend(call.id)
        }
    }

    /// The worker reported how far a call has come.
    package mutating func phaseReported(
        _ id: UInt64,
        phase: CallPhase,
        isStalled: Bool = false,
        hold: HoldReason = .none,
        from endpoint: Int,
        actions: inout [ClientAction]
    ) {
        guard let slot = self.calls.slot(of: id), Int(self.calls[slot].endpoint) == endpoint,
            self.calls[slot].phase < phase
                || self.calls[slot].phase == phase
                    && (self.calls[slot].isStalled != isStalled || self.calls[slot].hold != hold)
        else { return }
        self.calls[slot].phase = phase
        self.calls[slot].isStalled = isStalled
        self.hold(slot, hold, at: endpoint, actions: &actions)
        // The call that its handler waits for may have nowhere else to go.
        if isStalled { self.endAlone(id, at: endpoint) }
        actions.append(.show(slot: slot, phase: phase, isStalled: isStalled, hold: hold, endpoint: endpoint))
    }

    /// The worker reported that a call's handler has given up its slot while it waits, or has one again.
    package mutating func slotReleased(_ id: UInt64, _ isReleased: Bool, from endpoint: Int) {
        guard let slot = self.calls.slot(of: id), Int(self.calls[slot].endpoint) == endpoint,
            self.calls[slot].isReleased != isReleased
        else { return }
        self.calls[slot].isReleased = isReleased
        self.endpoints[endpoint].released += isReleased ? 1 : -1
        if isReleased { self.endAlone(id, at: endpoint) }
    }

    /// A handler at an endpoint invokes a callback, which may call the worker itself before it answers.
    package mutating func asked(by endpoint: Int) {
        if self.endpoints[endpoint].solitude.alone != nil { self.endpoints[endpoint].solitude.end(at: self.latest) }
    }

    /// A worker no longer needs to be reserved for a suspect.
    private mutating func endAlone(_ id: UInt64, at endpoint: Int) {
        if self.endpoints[endpoint].solitude.alone == id { self.endpoints[endpoint].solitude.end(at: self.latest) }
    }

    /// The payload received for `id` can't be decoded: that one call is lost (contract S73).
    package mutating func spoiled(_ id: UInt64, from endpoint: Int, at now: Instant) -> UInt32? {
        guard let slot = self.calls.slot(of: id), Int(self.calls[slot].endpoint) == endpoint else { return nil }
        if !self.calls[slot].isPing { self.release(id, from: endpoint) }
        _ = self.retire(slot, wasAnswered: true, at: now)
        return slot
    }

    /// Sends waiting calls, as far as there is room.
    ///
    /// Call this at the end of each iteration of the loop.
    package mutating func dispatch(actions: inout [ClientAction]) {
        if !self.pings.isEmpty { self.sendPings(actions: &actions) }
        if !self.apart.isEmpty { self.sendApart(actions: &actions) }
        for index in self.endpoints.indices where !self.endpoints[index].bound.isEmpty {
            while self.endpoints[index].takesKeyed, let id = self.endpoints[index].bound.popFirst() {
                if !self.setBehindApart(id) { self.send(waiting: id, to: index, actions: &actions) }
            }
        }
        if !self.parked.isEmpty { self.sendParked(actions: &actions) }
        while let id = self.waiting.first {
            guard let slot = self.calls.slot(of: id), self.calls[slot].endpoint == Call.noEndpoint else {
                _ = self.waiting.popFirst()
                continue
            }
            let affinity = self.calls[slot].affinity
            if self.setBehindApart(id) {
                _ = self.waiting.popFirst()
                continue
            }
            if affinity != 0, let index = self.home(of: affinity),
                !(self.endpoints[index].takesKeyed && self.endpoints[index].bound.isEmpty)
            {
                _ = self.waiting.popFirst()
                self.endpoints[index].bound.append(id)
                continue
            }
            let function = self.calls[slot].function
            guard !self.isParked(function, affinity),
                let index = self.choose(affinity: affinity, function: function) ?? self.ahead(self.calls[slot])
            else {
                guard self.park(self.calls[slot]) else { return }
                _ = self.waiting.popFirst()
                continue
            }
            _ = self.waiting.popFirst()
            self.send(waiting: id, to: index, actions: &actions)
        }
    }

    // MARK: Sessions

    /// The connection to an endpoint is established: the client introduces itself.
    package mutating func connected(_ endpoint: Int, at now: Instant, actions: inout [ClientAction]) {
        self.endpoints[endpoint].outOfReach = nil
        self.perform(self.endpoints[endpoint].session.connected(at: now), of: endpoint, at: now, actions: &actions)
    }

    /// An attempt to connect failed: nothing listens there, or the name can't be resolved.
    ///
    /// Connecting is retried, and waiting calls keep waiting, except for impatient ones that have nowhere else to go.
    ///
    /// `reason` says what it looks like; only a refusal is certain.
    package mutating func unreachable(_ endpoint: Int, reason: LossReason = .unreachable) {
        self.endpoints[endpoint].outOfReach = reason
    }

    /// An endpoint is dialed anew for an impatient call: earlier failures no longer count.
    package mutating func dialled(_ endpoint: Int) {
        self.endpoints[endpoint].outOfReach = nil
    }

    /// The connection broke.
    ///
    /// The session may resume when the connection is back: time and epoch decide (contract S87).
    package mutating func disconnected(_ endpoint: Int, at now: Instant, actions: inout [ClientAction]) {
        self.keepHomes()
        self.endpoints[endpoint].isOpen = false
        self.perform(self.endpoints[endpoint].session.disconnected(at: now), of: endpoint, at: now, actions: &actions)
    }

    /// An endpoint sent something; called once per received frame.
    package mutating func heard(from endpoint: Int, at now: Instant) {
        self.endpoints[endpoint].session.heard(at: now)
    }

    /// Something was sent to an endpoint; called once per sent frame.
    package mutating func sent(to endpoint: Int, at now: Instant) {
        self.endpoints[endpoint].session.sent(at: now)
    }

    /// The worker accepted our introduction.
    ///
    /// The session resumes only if its number is the one we knew. It isn't enough that the worker already knows this
    /// client: it may have forgotten the client and met it again, with a welcome that was lost.
    ///
    /// `slots` says how many requests run there at once; it is 0 for a broker, which distributes them as it sees fit. A
    /// welcome that was under way when the connection broke opens nothing: whatever is sent now would go over another
    /// connection, or over none.
    package mutating func welcomed(
        by endpoint: Int,
        epoch: UInt64,
        session: UInt32,
        window: Int,
        slots: Int = 0,
        isResumed: Bool,
        at now: Instant,
        actions: inout [ClientAction]
    ) {
        guard self.endpoints[endpoint].session.awaitsAnswer else { return }
        let known = self.endpoints[endpoint].epoch
        let isSameLife = known == epoch && isResumed && self.endpoints[endpoint].sessionNumber == session
        guard known == nil || isSameLife else {
            // What was sent in the former session must not be mistaken for part of another one. A new connection and a
            // new epoch separate the two.
            let reason: LossReason = known == epoch ? .forgotten : .restarted
            return self.lose(endpoint, reason: reason, at: now, actions: &actions)
        }
        self.latest = now
        self.endpoints[endpoint].epoch = epoch
        self.endpoints[endpoint].sessionNumber = session
        self.endpoints[endpoint].window = max(1, window)
        self.endpoints[endpoint].slots = max(0, slots)
        if !isSameLife { self.endpoints[endpoint].begin() }
        self.adapt(endpoint)
        self.keepHomes()
        self.endpoints[endpoint].isOpen = true
        self.endpoints[endpoint].isDraining = false
        self.endpoints[endpoint].isRefused = false
        self.endpoints[endpoint].session.established(at: now)
        actions.append(.opened(endpoint: endpoint, isResumed: isSameLife))
        guard isSameLife else {
            self.endpoints[endpoint].outstanding = 0
            self.endpoints[endpoint].keyed = KeyedCalls()
            self.endpoints[endpoint].released = 0
            self.endpoints[endpoint].held = HeldCalls()
            self.endpoints[endpoint].solitude.end(at: now)
            self.endpoints[endpoint].withdrawn = [:]
            return
        }
        // Requests and replies in transit may have been lost with the old connection. The worker knows which requests
        // it has.
        for (id, reason) in self.endpoints[endpoint].withdrawn.sorted(by: { $0.key < $1.key }) {
            actions.append(.sendCancel(endpoint: endpoint, id: id, reason: reason))
        }
        // They go out in the order they were made, which matters for those with an ordering key (contract S9).
        for slot in self.slots(of: endpoint).sorted(by: { self.calls[$0].id < self.calls[$1].id }) {
            self.calls[slot].isRepeated = true
            actions.append(self.transmission(of: slot, to: endpoint, isResent: true))
        }
    }

    /// A worker said after how much silence it gives up this side; 0 if it didn't say.
    package mutating func givenUp(by endpoint: Int, afterNanoseconds silence: UInt64) {
        self.endpoints[endpoint].session.givenUp(afterNanoseconds: silence)
    }

    /// The worker doesn't know our session: the client introduces itself again.
    package mutating func resetReceived(from endpoint: Int, at now: Instant, actions: inout [ClientAction]) {
        self.keepHomes()
        self.endpoints[endpoint].isOpen = false
        self.perform(self.endpoints[endpoint].session.resetReceived(at: now), of: endpoint, at: now, actions: &actions)
    }

    /// The worker gave its epoch in a BEAT.
    package mutating func beatReceived(
        from endpoint: Int,
        epoch: UInt64,
        at now: Instant,
        actions: inout [ClientAction]
    ) {
        guard let known = self.endpoints[endpoint].epoch, known != epoch else { return }
        self.lose(endpoint, reason: .restarted, at: now, actions: &actions)
    }

    /// The worker takes no more requests, or is leaving.
    package mutating func goodbyeReceived(
        from endpoint: Int,
        reason: GoodbyeReason,
        at now: Instant,
        actions: inout [ClientAction]
    ) {
        switch reason {
        case .draining:
            self.keepHomes()
            self.endpoints[endpoint].isDraining = true
            self.unbind(endpoint)
        case .leaving:
            self.lose(endpoint, reason: .left, at: now, actions: &actions)
        }
    }

    /// The endpoint can't be used: it refuses us, or speaks another protocol.
    ///
    /// Calls that wait for it and have nowhere else to go are lost, unless the endpoint only has no room at the moment.
    package mutating func refused(
        by endpoint: Int,
        reason: LossReason,
        at now: Instant,
        actions: inout [ClientAction]
    ) {
        self.lose(endpoint, reason: reason, at: now, actions: &actions)
        self.endpoints[endpoint].isRefused = true
        self.endpoints[endpoint].mayLetIn = reason == .full
        // It can be reached, and may have room in a moment.
        self.endpoints[endpoint].outOfReach = reason == .full ? nil : reason
        guard self.endpoints.allSatisfy({ $0.isRefused && !$0.mayLetIn }) else { return }
        for slot in self.slots(of: Int(Call.noEndpoint)) {
            self.finish(slot, ending: .lost(reason), at: now, actions: &actions)
        }
        self.waiting.removeAll(keepingCapacity: false)
        self.parked = [:]
        self.pings = []
        self.apart = []
        self.apartKeys = [:]
    }

    // MARK: Time

    /// Time has passed: ends overdue calls and keeps sessions alive.
    package mutating func ticked(at now: Instant, actions: inout [ClientAction]) {
        self.wheel.advance(to: now, into: &self.due)
        for slot in self.due {
            self.withdraw(self.calls[slot], reason: .expired, actions: &actions)
            self.finish(slot, ending: .expired, at: now, actions: &actions)
        }
        self.due.removeAll(keepingCapacity: true)
        self.latest = now
        for index in self.endpoints.indices {
            if self.endpoints[index].pausedUntil <= now { self.endpoints[index].pausedUntil = .distantFuture }
            if let suspect = self.endpoints[index].solitude.alone, self.endpoints[index].solitude.isOver(at: now) {
                // The suspect keeps running; other calls may join it.
                self.endAlone(suspect, at: index)
            }
            if self.endpoints[index].stallAt <= now { self.lookAfter(index, at: now, actions: &actions) }
            self.perform(self.endpoints[index].session.ticked(at: now), of: index, at: now, actions: &actions)
        }
    }

    /// When ``ticked(at:actions:)`` next has something to do.
    package func nextDeadline(after now: Instant) -> Instant {
        var next = self.wheel.nextDeadline ?? .distantFuture
        for endpoint in self.endpoints {
            next = min(next, endpoint.session.nextDeadline, endpoint.pausedUntil, endpoint.stallAt)
            next = min(next, endpoint.solitude.nextDeadline(after: self.latest))
        }
        return next
    }

    /// The client closes: every call ends, in the order of slots, and the machine is empty afterwards.
    package mutating func closed() -> [(slot: UInt32, id: UInt64)] {
        var open: [(slot: UInt32, id: UInt64)] = []
        var next = self.calls.firstSlot(from: 0)
        while let slot = next {
            open.append((slot, self.calls[slot].id))
            next = self.calls.firstSlot(from: slot + 1)
        }
        for (slot, _) in open {
            self.wheel.cancel(slot)
            _ = self.calls.remove(slot)
        }
        self.waiting.removeAll(keepingCapacity: false)
        self.parked = [:]
        for index in self.endpoints.indices { self.endpoints[index].bound = [] }
        self.pings = []
        self.apart = []
        self.apartKeys = [:]
        self.homes = [:]
        self.deathsOf = [:]
        return open
    }

    /// The sockets were closed with the poller; sessions begin anew when it is back, and calls stay as they are.
    package mutating func suspended(at now: Instant) {
        for index in self.endpoints.indices {
            self.endpoints[index].isOpen = false
            self.endpoints[index].session = PeerSession(limits: self.configuration.session)
        }
    }

    /// Releases memory that only a peak needed.
    package mutating func trim() {
        self.calls.trim()
        self.wheel.trim()
        if self.waiting.isEmpty { self.waiting = [] }
        self.trimHomes()
    }

    // MARK: Inside

    private mutating func perform(
        _ action: PeerSession.Action,
        of endpoint: Int,
        at now: Instant,
        actions: inout [ClientAction]
    ) {
        switch action {
        case .none: break
        case .sendHello: actions.append(.sendHello(endpoint: endpoint))
        case .sendHeartbeat: actions.append(.sendBeat(endpoint: endpoint))
        case .endSession(let reason):
            self.lose(endpoint, reason: LossReason(reason), at: now, actions: &actions)
        }
    }

    private mutating func lose(
        _ endpoint: Int,
        reason: LossReason,
        at now: Instant,
        actions: inout [ClientAction]
    ) {
        self.keepHomes()
        self.endpoints[endpoint].isOpen = false
        self.endpoints[endpoint].epoch = nil
        self.endpoints[endpoint].losses &+= 1
        self.endpoints[endpoint].outstanding = 0
        self.endpoints[endpoint].keyed = KeyedCalls()
        self.endpoints[endpoint].withdrawn = [:]
        self.endpoints[endpoint].released = 0
        self.endpoints[endpoint].stallAt = .distantFuture
        self.endpoints[endpoint].session = PeerSession(limits: self.configuration.session)
        self.abandonCalls(of: endpoint, reason: reason, at: now, actions: &actions)
        self.endpoints[endpoint].held = HeldCalls()
        self.endpoints[endpoint].solitude.end(at: now)
        actions.append(.lost(endpoint: endpoint, reason: reason))
        actions.append(.rebuild(endpoint: endpoint))
    }

    /// Gives up the calls of a lost worker, or puts them back in the queue if they may run again.
    ///
    /// Any that were sent may have been running: whatever a dead process had yet to say is gone with it. A call that
    /// its worker's credit kept here is safe.
    private mutating func abandonCalls(
        of endpoint: Int,
        reason: LossReason,
        at now: Instant,
        actions: inout [ClientAction]
    ) {
        // These go behind the calls that were sent before them.
        self.unbind(endpoint)
        self.unpark()
        // A broker's calls ran elsewhere, if at all.
        let isDeath = reason.mayBeDeath && self.endpoints[endpoint].slots > 0
        let alone = self.endpoints[endpoint].solitude.alone
        var again: [UInt64] = []
        for slot in self.slots(of: endpoint) {
            let id = self.calls[slot].id
            guard self.calls[slot].isIdempotent else {
                self.finish(slot, ending: .lost(reason), at: now, actions: &actions)
                continue
            }
            if isDeath, alone != nil, alone != id, self.isLastAttempt(self.calls[slot]) {
                // It ran alone before, for a long time, and did no harm; the call that is alone now is to blame.
            } else if isDeath {
                self.calls[slot].attempts += 1
                self.deathsOf[id, default: []].append(endpoint)
                if self.calls[slot].isBundle || self.calls[slot].attempts >= self.configuration.maxAttempts {
                    let attempts = Int(self.calls[slot].attempts)
                    let ending = CallEnding.poison(attempts: attempts, endpoints: self.deathsOf[id] ?? [])
                    self.finish(slot, ending: ending, at: now, actions: &actions)
                    continue
                }
            } else if self.calls[slot].moves >= Self.maxMoves {
                self.finish(slot, ending: .lost(reason), at: now, actions: &actions)
                continue
            } else {
                self.calls[slot].moves += 1
            }
            self.takeBack(slot, actions: &actions)
            actions.append(.mayHaveRun(slot: slot))
            if self.mustBeAlone(self.calls[slot]) { self.setApart(id) } else { again.append(id) }
        }
        guard !again.isEmpty else { return }
        again.sort()
        self.waiting.insert(contentsOf: again, at: 0)
    }

    /// How often a call may be taken back from workers or brokers that left in order, or were only out of reach.
    private static var maxMoves: UInt8 { 16 }
    /// How often workers may decline a call before its caller is told.
    private static var maxDeclines: UInt8 { 20 }

    /// Makes a call that no worker has any more wait here again.
    private mutating func takeBack(_ slot: UInt32, actions: inout [ClientAction]) {
        let endpoint = Int(self.calls[slot].endpoint)
        self.endAlone(self.calls[slot].id, at: endpoint)
        if self.calls[slot].isReleased {
            self.calls[slot].isReleased = false
            self.endpoints[endpoint].leaveReleased()
        }
        self.endHold(slot, isBack: self.calls[slot].isRecalled)
        self.calls[slot].endpoint = Call.noEndpoint
        self.calls[slot].phase = .local
        actions.append(.show(slot: slot, phase: .local, endpoint: endpoint))
    }

    // MARK: Suspects

    /// Whether another worker death would make a call poison.
    private func isLastAttempt(_ call: Call) -> Bool { call.attempts + 1 >= self.configuration.maxAttempts }

    /// Whether a call must run alone, because another worker death would make it poison; not if the first death already
    /// does.
    private func mustBeAlone(_ call: Call) -> Bool { call.attempts > 0 && self.isLastAttempt(call) }

    private mutating func setApart(_ id: UInt64) {
        if self.isMostlyEnded(self.apart.count) { self.apart = self.open(self.apart) }
        let place = self.apart.firstIndex { $0 > id } ?? self.apart.count
        self.apart.insert(id, at: place)
        guard let slot = self.calls.slot(of: id), self.calls[slot].affinity != 0 else { return }
        let affinity = self.calls[slot].affinity
        self.apartKeys[affinity] = min(id, self.apartKeys[affinity] ?? id)
    }

    /// Whether a call goes behind a suspect of its ordering key, which may have to wait longer than others (contract
    /// S9).
    private func isBehindApart(_ call: Call) -> Bool {
        guard !self.apartKeys.isEmpty, let first = self.apartKeys[call.affinity] else { return false }
        return first < call.id
    }

    /// Moves a waiting call behind the suspect of its ordering key, if there is one.
    private mutating func setBehindApart(_ id: UInt64) -> Bool {
        guard !self.apartKeys.isEmpty, let slot = self.calls.slot(of: id), self.isBehindApart(self.calls[slot]) else {
            return false
        }
        self.setApart(id)
        return true
    }

    /// Whether a call that was made before a suspect of its ordering key waits to be sent again.
    private func hasEarlier(_ id: UInt64, affinity: UInt64, boundTo home: Int) -> Bool {
        func isEarlier(_ other: UInt64) -> Bool {
            guard other < id, let slot = self.calls.slot(of: other) else { return false }
            return self.calls[slot].affinity == affinity && self.calls[slot].endpoint == Call.noEndpoint
        }
        return self.waiting.contains(where: isEarlier) || self.endpoints[home].bound.contains(where: isEarlier)
    }

    /// Puts calls whose ordering key has no suspect any more ahead of those made later.
    private mutating func leaveApart(_ ids: [UInt64]) {
        for id in ids.reversed() {
            guard let slot = self.calls.slot(of: id) else { continue }
            if let index = self.home(of: self.calls[slot].affinity) {
                self.endpoints[index].bound.prepend(id)
            } else {
                self.waiting.prepend(id)
            }
        }
    }

    /// Sends each suspect to a worker without other calls, and keeps a worker free for the next one.
    private mutating func sendApart(actions: inout [ClientAction]) {
        var left: [UInt64] = []
        var emptied: Set<Int> = []
        var keys: [UInt64: UInt64] = [:]
        var free: [UInt64] = []
        for (place, id) in self.apart.enumerated() {
            guard let slot = self.calls.slot(of: id), self.calls[slot].endpoint == Call.noEndpoint else { continue }
            let affinity = self.calls[slot].affinity
            guard keys[affinity] == nil else {
                left.append(id)
                continue
            }
            guard self.mustBeAlone(self.calls[slot]) else {
                free.append(id)
                continue
            }
            let home = affinity == 0 ? nil : self.home(of: affinity)
            if let home, self.hasEarlier(id, affinity: affinity, boundTo: home) {
                left.append(id)
                keys[affinity] = id
                continue
            }
            var choice = SuspectPlace()
            for index in self.endpoints.indices where self.endpoints[index].takesCalls {
                if let home, home != index { continue }
                // A broker takes care of this itself.
                let count = self.endpoints[index].slots == 0 ? 0 : self.endpoints[index].outstanding
                choice.consider(
                    index,
                    outstanding: count,
                    hasSlot: self.endpoints[index].hasSlot,
                    self.endpoints[index].solitude,
                    at: self.latest
                )
            }
            switch choice.verdict {
            case .none: left.append(id)
            case .empty(let index):
                left.append(id)
                // Only one worker at a time is emptied for suspects, but those with an ordering key have no choice of
                // worker.
                if emptied.isEmpty || home != nil {
                    self.endpoints[index].solitude.reserve(isLoose: false, at: self.latest)
                    emptied.insert(index)
                }
            case .send(let index):
                self.endpoints[index].solitude.end(at: self.latest)
                // The call that a handler there waits for may have nowhere else to go.
                let isLoose = self.endpoints[index].released > 0
                self.send(waiting: id, to: index, actions: &actions)
                if self.endpoints[index].slots > 0, !isLoose {
                    self.endpoints[index].solitude.begin(with: id, at: self.latest)
                }
            }
            if affinity != 0, left.last == id { keys[affinity] = id }
            if !emptied.isEmpty, self.apart.count - place > 64 {
                let others = self.apart[(place + 1)...]
                left += others
                if !self.apartKeys.isEmpty { self.addKeys(of: others, to: &keys) }
                break
            }
        }
        self.apart = left
        self.apartKeys = keys
        if !free.isEmpty { self.leaveApart(free) }
        for index in self.endpoints.indices where self.endpoints[index].solitude.isReserved && !emptied.contains(index)
        {
            self.endpoints[index].solitude.end(at: self.latest)
        }
    }

    /// Adds the ordering keys of calls that have not ended, each with its first call.
    private func addKeys(of ids: some Sequence<UInt64>, to keys: inout [UInt64: UInt64]) {
        for id in ids {
            guard let slot = self.calls.slot(of: id), self.calls[slot].affinity != 0 else { continue }
            let affinity = self.calls[slot].affinity
            if keys[affinity] == nil { keys[affinity] = id }
        }
    }

    /// Recalls the calls that only wait from a worker that has more calls than slots and has answered none for too
    /// long.
    private mutating func lookAfter(_ endpoint: Int, at now: Instant, actions: inout [ClientAction]) {
        let (slots, stall) = (self.endpoints[endpoint].slots, self.configuration.stallNanoseconds)
        let heldAt = self.lookAfterHeld(endpoint, at: now, actions: &actions)
        self.endpoints[endpoint].stallAt = heldAt
        guard slots > 0, self.endpoints[endpoint].occupying > slots else { return }
        let limit = self.endpoints[endpoint].progressAt.advanced(byNanoseconds: stall)
        guard limit <= now, self.endpoints[endpoint].isOpen else {
            let next = limit <= now ? now.advanced(byNanoseconds: stall) : limit
            self.endpoints[endpoint].stallAt = min(next, heldAt)
            return
        }
        let silence = now.nanoseconds(since: self.endpoints[endpoint].progressAt)
        self.endpoints[endpoint].meter.stalled(nanoseconds: silence)
        self.adapt(endpoint)
        // The checks get rarer and rarer, since a call that was recalled once isn't recalled again.
        self.endpoints[endpoint].stallAt = min(heldAt, now.advanced(byNanoseconds: max(stall, silence)))
        // With one endpoint, a recalled call could go nowhere else.
        guard self.endpoints.count > 1 else { return }
        let held = self.slots(of: endpoint).filter { !self.calls[$0].isPing && self.calls[$0].hold == .none }
            .sorted { (self.calls[$0].phase, self.calls[$1].id) > (self.calls[$1].phase, self.calls[$0].id) }
        // The last goes first: each returned call is queued before the one returned before it.
        for slot in held.dropFirst(slots).reversed() {
            let call = self.calls[slot]
            // The worker keeps the order of calls with a key.
            guard call.phase < .running, call.affinity == 0, !call.isRecalled, !call.isRepeated else { continue }
            self.calls[slot].isRecalled = true
            actions.append(.sendCancel(endpoint: endpoint, id: call.id, reason: .recalled))
        }
    }

    /// Adjusts a worker's credit to the measurements.
    private mutating func adapt(_ endpoint: Int) {
        self.endpoints[endpoint].adapt(coverageNanoseconds: self.configuration.coverageNanoseconds)
    }

    private mutating func finish(
        _ slot: UInt32,
        ending: CallEnding,
        at now: Instant,
        actions: inout [ClientAction]
    ) {
        let id = self.calls[slot].id
        _ = self.retire(slot, wasAnswered: false, at: now)
        actions.append(.finish(slot: slot, id: id, ending: ending))
    }

    /// Removes a call from the tables; its id is remembered for a while.
    private mutating func retire(_ slot: UInt32, wasAnswered: Bool, at now: Instant) -> Call {
        if self.calls[slot].deadline != .distantFuture { self.wheel.cancel(slot) }
        let call = self.calls.remove(slot)
        if call.isReleased, call.endpoint != Call.noEndpoint { self.endpoints[Int(call.endpoint)].leaveReleased() }
        if call.hold != .none { self.forgetHold(of: call) }
        if call.attempts > 0 { self.deathsOf[call.id] = nil }
        self.tombstones.insert(call.id, function: call.function, wasAnswered: wasAnswered, endedAt: now)
        return call
    }

    /// A request ended at a worker, so there is room for one more.
    private mutating func release(_ id: UInt64, from endpoint: Int) {
        self.endpoints[endpoint].keyed.remove(id)
        if self.endpoints[endpoint].outstanding > 0 { self.endpoints[endpoint].outstanding -= 1 }
        self.endpoints[endpoint].progressAt = self.latest
        self.endAlone(id, at: endpoint)
    }

    /// A request that had already ended here is gone from the worker as well.
    private mutating func releaseWithdrawn(_ id: UInt64, from endpoint: Int) {
        if self.endpoints[endpoint].withdrawn.removeValue(forKey: id) != nil { self.release(id, from: endpoint) }
    }

    /// Keeps the place of a call that ended here at its worker, until the worker says that it is gone there as well.
    private mutating func withdraw(_ call: Call, reason: CancelReason, actions: inout [ClientAction]) {
        guard call.endpoint != Call.noEndpoint, !call.isPing else { return }
        let endpoint = Int(call.endpoint)
        self.endpoints[endpoint].withdrawn[call.id] = reason
        // The suspect's outcome no longer matters, and its handler may take its time to end.
        self.endAlone(call.id, at: endpoint)
        // Without a session the message would be lost: the worker is told when the session resumes.
        guard self.endpoints[endpoint].isOpen else { return }
        actions.append(.sendCancel(endpoint: endpoint, id: call.id, reason: reason))
    }

    private mutating func assign(_ slot: UInt32, to index: Int) {
        self.calls[slot].endpoint = Int32(index)
        self.calls[slot].phase = .sent
        self.calls[slot].isStalled = false
        if self.calls[slot].sends < .max { self.calls[slot].sends += 1 }
        self.calls[slot].isRepeated = false
        self.calls[slot].isRecalled = false
        self.calls[slot].sentAt = self.latest
        let outstanding = self.endpoints[index].outstanding
        self.calls[slot].isBehind = self.endpoints[index].occupying >= self.endpoints[index].slots
        if outstanding == 0 { self.endpoints[index].progressAt = self.latest }
        self.endpoints[index].outstanding = outstanding + 1
        if self.calls[slot].affinity != 0 {
            self.endpoints[index].keyed.add(self.calls[slot].id, affinity: self.calls[slot].affinity)
        }
        if self.calls[slot].isBehind, self.endpoints[index].slots > 0, self.endpoints[index].stallAt == .distantFuture {
            self.endpoints[index].stallAt = self.latest.advanced(byNanoseconds: self.configuration.stallNanoseconds)
        }
    }

    mutating func send(waiting id: UInt64, to index: Int, actions: inout [ClientAction]) {
        guard let slot = self.calls.slot(of: id), self.calls[slot].endpoint == Call.noEndpoint else { return }
        let isAgain = self.calls[slot].sends > 0
        self.assign(slot, to: index)
        actions.append(self.transmission(of: slot, to: index, isResent: isAgain))
    }

    private func transmission(of slot: UInt32, to endpoint: Int, isResent: Bool) -> ClientAction {
        let isRenewed = isResent && self.calls[slot].isRenewed
        return .transmit(slot: slot, endpoint: endpoint, isResent: isResent, isRenewed: isRenewed)
    }

    private mutating func sendPings(actions: inout [ClientAction]) {
        let waiting = self.pings
        self.pings.removeAll(keepingCapacity: true)
        for id in waiting {
            guard let slot = self.calls.slot(of: id) else { continue }
            let target = Int(self.calls[slot].target)
            let open = self.endpoints.indices.first { (target < 0 || target == $0) && self.endpoints[$0].isOpen }
            if let open {
                self.calls[slot].endpoint = Int32(open)
                self.calls[slot].phase = .sent
                actions.append(.transmit(slot: slot, endpoint: open, isResent: false))
            } else if self.calls[slot].isImpatient, let reason = self.endpoints.first?.outOfReach,
                self.endpoints.allSatisfy({ $0.outOfReach != nil })
            {
                self.finish(slot, ending: .lost(reason), at: self.latest, actions: &actions)
            } else {
                self.pings.append(id)
            }
        }
    }

    private mutating func enqueue(_ call: Call) {
        let (id, affinity) = (call.id, call.affinity)
        if self.isParked(call.function, affinity) { return self.append(parked: call) }
        // It must go behind calls that wait for any endpoint, since some of them may have the same key.
        if self.waiting.isEmpty, affinity != 0, let index = self.home(of: affinity) {
            self.endpoints[index].bound.append(id)
            if self.isMostlyEnded(self.endpoints[index].bound.count) {
                self.endpoints[index].bound = Deque(self.open(self.endpoints[index].bound))
            }
        } else {
            self.waiting.append(id)
            if self.isMostlyEnded(self.waiting.count) { self.waiting = Deque(self.open(self.waiting)) }
        }
    }

    /// Whether most of a queue's calls must have ended: they'd stay in the queue as long as the first can't be sent.
    func isMostlyEnded(_ queued: Int) -> Bool { queued > 64 && queued > 2 * self.calls.count }

    /// The ids among these whose calls have not ended.
    func open(_ ids: some Sequence<UInt64>) -> [UInt64] {
        var open: [UInt64] = []
        for id in ids where self.calls.slot(of: id) != nil { open.append(id) }
        return open
    }

    /// Lets calls that were bound to an endpoint that no longer takes any go anywhere.
    private mutating func unbind(_ endpoint: Int) {
        guard !self.endpoints[endpoint].bound.isEmpty else { return }
        self.waiting.insert(contentsOf: self.endpoints[endpoint].bound, at: 0)
        self.endpoints[endpoint].bound = []
    }

    func slots(of endpoint: Int) -> [UInt32] {
        var found: [UInt32] = []
        var next = self.calls.firstSlot(from: 0)
        while let slot = next {
            if Int(self.calls[slot].endpoint) == endpoint { found.append(slot) }
            next = self.calls.firstSlot(from: slot + 1)
        }
        return found
    }

    /// The endpoint that all calls of an ordering key go to.
    private func home(of affinity: UInt64) -> Int? {
        if let former = self.formerHome(of: affinity) { return former }
        let open = self.endpoints.indices.filter { self.endpoints[$0].isOpen && !self.endpoints[$0].isDraining }
        return open.isEmpty ? nil : open[Int(affinity % UInt64(open.count))]
    }

    /// The only endpoint, if a call may go there ahead of need: as long as few wait, all of them may.
    private func ahead(_ call: Call) -> Int? {
        guard self.endpoints.count == 1, call.affinity == 0 else { return nil }
        guard !self.endpoints[0].held.isClosed(Int(call.function)) else { return nil }
        let left = self.endpoints[0].leftAhead
        return left > 0 && self.waiting.count <= left ? 0 : nil
    }

    /// The endpoint for the next call: one with a free slot before any without, then the one with the fewest
    /// outstanding calls for its slots (contract S100).
    mutating func choose(affinity: UInt64, function: UInt32) -> Int? {
        if affinity != 0 {
            guard let index = self.home(of: affinity), self.endpoints[index].takesKeyed,
                self.endpoints[index].bound.isEmpty
            else { return nil }
            return index
        }
        let function = Int(function)
        if self.endpoints.count == 1 {
            return self.endpoints[0].isFree && !self.endpoints[0].held.isClosed(function) ? 0 : nil
        }
        var best: Int?
        for step in 1...self.endpoints.count {
            let index = (self.lastChosen + step) % self.endpoints.count
            guard self.endpoints[index].isFree, !self.endpoints[index].held.isClosed(function) else { continue }
            if let best, !self.endpoints[index].isLessLoaded(than: self.endpoints[best]) { continue }
            best = index
        }
        if let best { self.lastChosen = best }
        return best
    }
}
