// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
package import DroverWire

/// Everything a client decides: which endpoint gets a call, when a call ends, what a reply means, what becomes of calls
/// when a worker is lost.
///
/// The loop feeds events in and carries out the actions. A call is known by its correlation id on the wire and by a slot
/// between machine and loop; the loop keeps the handle under the same slot.
package struct ClientMachine: ~Copyable {
    package struct Configuration: Sendable {
        /// Beat and silence limits of each session.
        package var session = PeerSession.Limits.standard
        /// How often an idempotent call may be given to a worker, the first time included.
        package var maxAttempts: UInt8 = 4
        /// How many ended calls are remembered, to tell late replies from strange ones.
        package var tombstoneCount = 4096

        package init() {}
    }

    package private(set) var endpoints: [ClientEndpoint]
    private var calls: IDTable<Call>
    private var wheel: TimerWheel
    private var tombstones: TombstoneRing
    /// Calls that any endpoint may take, oldest first; may name calls that have ended.
    private var waiting = Deque<UInt64>()
    /// Signs of life that wait for a session.
    private var pings: [UInt64] = []
    private let configuration: Configuration
    private var due: [UInt32] = []
    private var lastChosen = 0

    /// Calls that have not ended.
    package var callCount: Int { self.calls.count }
    /// Places in the queues of calls that have not been sent; some may be of calls that have ended.
    package var queuedIDs: Int {
        self.endpoints.reduce(self.waiting.count + self.pings.count) { $0 + $1.bound.count }
    }
    /// Timers that are set.
    package var timerCount: Int { self.wheel.count }

    package init(endpointCount: Int, configuration: Configuration = .init()) {
        self.configuration = configuration
        self.calls = IDTable(limit: Int(UInt32.max) - 2, seed: 0)
        self.wheel = TimerWheel(now: Instant(nanoseconds: 0))
        self.tombstones = TombstoneRing(capacity: configuration.tombstoneCount)
        self.endpoints = (0..<endpointCount).map { _ in ClientEndpoint(limits: configuration.session) }
    }

    /// The call in a slot.
    package func call(in slot: UInt32) -> Call { self.calls[slot] }

    /// The slot of a call that has not ended.
    package func slot(of id: UInt64) -> UInt32? { self.calls.slot(of: id) }

    // MARK: Calls

    /// A call was made.
    ///
    /// Returns its slot, and says where to send it if that can be now.
    ///
    /// - Returns: nil if the deadline has passed already: the call ended as expired and has no slot.
    package mutating func submitted(_ call: Call, at now: Instant) -> (slot: UInt32, endpoint: Int?)? {
        guard call.deadline > now else { return nil }
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
        if self.waiting.isEmpty, let index = self.choose(affinity: call.affinity) {
            self.assign(slot, to: index)
            return (slot, index)
        }
        self.enqueue(call.id, affinity: call.affinity)
        return (slot, nil)
    }

    /// The handle ended on the caller's side, by `cancel()` or an expiry that was over at once.
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
    /// A deadline in the past ends it with the next tick. A worker that has the request is told, so that it neither drops
    /// the request at the deadline that travelled with it nor starts it after the one that counts now.
    package mutating func deadlineMoved(_ id: UInt64, to deadline: Instant, actions: inout [ClientAction]) {
        guard let slot = self.calls.slot(of: id), self.calls[slot].deadline != deadline else { return }
        self.calls[slot].deadline = deadline
        self.wheel.schedule(slot, at: deadline)
        let call = self.calls[slot]
        // Without a session it would be lost: a request that is sent again brings the time it has then.
        guard call.endpoint != Call.noEndpoint, !call.isPing, self.endpoints[Int(call.endpoint)].isOpen else { return }
        actions.append(.sendDeadline(endpoint: Int(call.endpoint), id: id, deadline: deadline))
    }

    /// A reply or an error for `id` came.
    package mutating func replied(_ id: UInt64, from endpoint: Int, at now: Instant) -> ReplyVerdict {
        if let slot = self.calls.slot(of: id) {
            let current = self.calls[slot].endpoint
            if Int(current) == endpoint {
                if !self.calls[slot].isPing { self.release(endpoint) }
            } else {
                // Another worker's answer to a call that was moved: it is as good (it is idempotent), but the one it was
                // moved to still counts the call until it answers as well.
                guard self.calls[slot].attempts > 0 else { return .unknown }
                if current != Call.noEndpoint { self.endpoints[Int(current)].withdrawn[id] = .requested }
            }
            let call = self.retire(slot, wasAnswered: true, at: now)
            // Arrival decides, and this one came too late (contract S35), whether or not the timer has fired yet.
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
        if let slot = self.calls.slot(of: id) {
            let call = self.calls[slot]
            guard Int(call.endpoint) == endpoint, !call.isPing else { return }
            // Sent with the same stamps it would lapse again.
            if stage == .lapsed, call.deadline > now { actions.append(.restamp(endpoint: endpoint)) }
            // Copies that are still on their way are answered with the same; one that is marked as renewed runs.
            if stage.isRemoval { self.calls[slot].isRenewed = true }
            // Which of both was meant can't be told, and the other may be there, or have run. The worker knows.
            let mayBeThere = call.isRepeated && stage.isRemoval
            if mayBeThere, call.deadline > now {
                if self.endpoints[endpoint].isOpen {
                    actions.append(self.transmission(of: slot, to: endpoint, isResent: true))
                }
                return
            }
            self.release(endpoint)
            switch stage {
            case .beforeStart, .lapsed:
                // The time that travelled with the request is over, and it never ran. Ours decides when the call ends: if
                // its deadline was moved since, the call goes out again with the time it has now.
                guard call.deadline > now else {
                    return self.finish(slot, ending: .expired, at: now, actions: &actions)
                }
                self.calls[slot].endpoint = Call.noEndpoint
                self.calls[slot].attempts &-= 1
                self.calls[slot].phase = .local
                actions.append(.show(slot: slot, phase: .local, endpoint: endpoint))
                self.unbind(endpoint)
                self.waiting.prepend(id)
            case .whileRunning, .unknown:
                // Nobody asked for that, and no answer will come.
                self.finish(slot, ending: .lost(.forgotten), at: now, actions: &actions)
            }
            return
        }
        self.releaseWithdrawn(id, from: endpoint)
        self.tombstones.markAnswered(id)
    }

    /// The worker told how far a call has come.
    package mutating func phaseReported(
        _ id: UInt64,
        phase: CallPhase,
        isStalled: Bool = false,
        from endpoint: Int,
        actions: inout [ClientAction]
    ) {
        guard let slot = self.calls.slot(of: id), Int(self.calls[slot].endpoint) == endpoint,
            self.calls[slot].phase < phase
                || self.calls[slot].phase == phase && self.calls[slot].isStalled != isStalled
        else { return }
        self.calls[slot].phase = phase
        self.calls[slot].isStalled = isStalled
        actions.append(.show(slot: slot, phase: phase, isStalled: isStalled, endpoint: endpoint))
    }

    /// The payload that came for `id` can't be understood: that one call is lost (contract S73).
    package mutating func spoiled(_ id: UInt64, from endpoint: Int, at now: Instant) -> UInt32? {
        guard let slot = self.calls.slot(of: id), Int(self.calls[slot].endpoint) == endpoint else { return nil }
        if !self.calls[slot].isPing { self.release(endpoint) }
        _ = self.retire(slot, wasAnswered: true, at: now)
        return slot
    }

    /// Sends what waits, as far as there is room.
    ///
    /// To be called at the end of each turn of the loop.
    package mutating func dispatch(actions: inout [ClientAction]) {
        if !self.pings.isEmpty { self.sendPings(actions: &actions) }
        for index in self.endpoints.indices where !self.endpoints[index].bound.isEmpty {
            while self.endpoints[index].hasRoom, let id = self.endpoints[index].bound.popFirst() {
                self.send(waiting: id, to: index, actions: &actions)
            }
        }
        while let id = self.waiting.first {
            guard let slot = self.calls.slot(of: id), self.calls[slot].endpoint == Call.noEndpoint else {
                _ = self.waiting.popFirst()
                continue
            }
            let affinity = self.calls[slot].affinity
            if affinity != 0, let index = self.home(of: affinity), !self.endpoints[index].hasRoom {
                _ = self.waiting.popFirst()
                self.endpoints[index].bound.append(id)
                continue
            }
            guard let index = self.choose(affinity: affinity) else { return }
            _ = self.waiting.popFirst()
            self.send(waiting: id, to: index, actions: &actions)
        }
    }

    // MARK: Sessions

    /// The connection to an endpoint stands: introduce ourselves.
    package mutating func connected(_ endpoint: Int, at now: Instant, actions: inout [ClientAction]) {
        self.perform(self.endpoints[endpoint].session.connected(at: now), of: endpoint, at: now, actions: &actions)
    }

    /// The connection broke.
    ///
    /// The session may go on when it is back: time and epoch decide (contract S87).
    package mutating func disconnected(_ endpoint: Int, at now: Instant, actions: inout [ClientAction]) {
        self.endpoints[endpoint].isOpen = false
        self.perform(self.endpoints[endpoint].session.disconnected(at: now), of: endpoint, at: now, actions: &actions)
    }

    /// Something came from an endpoint; called once per received frame.
    package mutating func heard(from endpoint: Int, at now: Instant) {
        self.endpoints[endpoint].session.heard(at: now)
    }

    /// Something was sent to an endpoint; called once per sent frame.
    package mutating func sent(to endpoint: Int, at now: Instant) {
        self.endpoints[endpoint].session.sent(at: now)
    }

    /// The worker accepted our introduction.
    ///
    /// The session goes on only if its number is the one we knew. That a worker knows this client already doesn't suffice:
    /// it may have forgotten it, and met it again with a welcome that was lost.
    package mutating func welcomed(
        by endpoint: Int,
        epoch: UInt64,
        session: UInt32,
        window: Int,
        isResumed: Bool,
        at now: Instant,
        actions: inout [ClientAction]
    ) {
        let known = self.endpoints[endpoint].epoch
        let isSameLife = known == epoch && isResumed && self.endpoints[endpoint].sessionNumber == session
        guard known == nil || isSameLife else {
            // What was sent on the strength of the former session must not be taken for part of another one. A new
            // connection and a new epoch part the two.
            let reason: LossReason = known == epoch ? .forgotten : .restarted
            return self.lose(endpoint, reason: reason, at: now, actions: &actions)
        }
        self.endpoints[endpoint].epoch = epoch
        self.endpoints[endpoint].sessionNumber = session
        self.endpoints[endpoint].window = max(1, window)
        self.endpoints[endpoint].isOpen = true
        self.endpoints[endpoint].isDraining = false
        self.endpoints[endpoint].isRefused = false
        self.endpoints[endpoint].session.established(at: now)
        actions.append(.opened(endpoint: endpoint, isResumed: isSameLife))
        guard isSameLife else {
            self.endpoints[endpoint].outstanding = 0
            self.endpoints[endpoint].withdrawn = [:]
            return
        }
        // Requests and replies on the way may have gone with the old connection. The worker knows which it has.
        for (id, reason) in self.endpoints[endpoint].withdrawn.sorted(by: { $0.key < $1.key }) {
            actions.append(.sendCancel(endpoint: endpoint, id: id, reason: reason))
        }
        // In the order they were made, for the sake of those with an ordering key (contract S9).
        for slot in self.slots(of: endpoint).sorted(by: { self.calls[$0].id < self.calls[$1].id }) {
            self.calls[slot].isRepeated = true
            actions.append(self.transmission(of: slot, to: endpoint, isResent: true))
        }
    }

    /// The worker doesn't know our session: introduce ourselves again.
    package mutating func resetReceived(from endpoint: Int, at now: Instant, actions: inout [ClientAction]) {
        self.endpoints[endpoint].isOpen = false
        self.perform(self.endpoints[endpoint].session.resetReceived(at: now), of: endpoint, at: now, actions: &actions)
    }

    /// The worker showed its epoch in a beat.
    package mutating func beatReceived(
        from endpoint: Int,
        epoch: UInt64,
        at now: Instant,
        actions: inout [ClientAction]
    ) {
        guard let known = self.endpoints[endpoint].epoch, known != epoch else { return }
        self.lose(endpoint, reason: .restarted, at: now, actions: &actions)
    }

    /// The worker takes no more requests, or leaves.
    package mutating func goodbyeReceived(
        from endpoint: Int,
        reason: GoodbyeReason,
        at now: Instant,
        actions: inout [ClientAction]
    ) {
        switch reason {
        case .draining:
            self.endpoints[endpoint].isDraining = true
            self.unbind(endpoint)
        case .leaving:
            self.lose(endpoint, reason: .left, at: now, actions: &actions)
        }
    }

    /// The endpoint can't be talked to: it refuses us or speaks something else.
    ///
    /// What waits for it, and has nowhere else to go, is lost.
    package mutating func refused(
        by endpoint: Int,
        reason: LossReason,
        at now: Instant,
        actions: inout [ClientAction]
    ) {
        self.lose(endpoint, reason: reason, at: now, actions: &actions)
        self.endpoints[endpoint].isRefused = true
        guard self.endpoints.allSatisfy({ $0.isRefused }) else { return }
        for slot in self.slots(of: Int(Call.noEndpoint)) {
            self.finish(slot, ending: .lost(reason), at: now, actions: &actions)
        }
        self.waiting.removeAll(keepingCapacity: false)
        self.pings = []
    }

    // MARK: Time

    /// Time has passed: ends what is overdue and keeps sessions alive.
    package mutating func ticked(at now: Instant, actions: inout [ClientAction]) {
        self.wheel.advance(to: now, into: &self.due)
        for slot in self.due {
            self.withdraw(self.calls[slot], reason: .expired, actions: &actions)
            self.finish(slot, ending: .expired, at: now, actions: &actions)
        }
        self.due.removeAll(keepingCapacity: true)
        for index in self.endpoints.indices {
            self.perform(self.endpoints[index].session.ticked(at: now), of: index, at: now, actions: &actions)
        }
    }

    /// When ``ticked(at:actions:)`` has something to do next.
    package func nextDeadline(after now: Instant) -> Instant {
        var next = self.wheel.nextDeadline ?? .distantFuture
        for endpoint in self.endpoints {
            next = min(next, endpoint.session.nextDeadline)
        }
        return next
    }

    /// The client closes: every call ends in the slot order; the machine is empty afterwards.
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
        for index in self.endpoints.indices { self.endpoints[index].bound = [] }
        self.pings = []
        return open
    }

    /// The sockets were closed with the poller; sessions begin anew when it is back, calls stay as they are.
    package mutating func suspended(at now: Instant) {
        for index in self.endpoints.indices {
            self.endpoints[index].isOpen = false
            self.endpoints[index].session = PeerSession(limits: self.configuration.session)
        }
    }

    /// Gives back memory that only a peak needed.
    package mutating func trim() {
        self.calls.trim()
        self.wheel.trim()
        if self.waiting.isEmpty { self.waiting = [] }
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
        self.endpoints[endpoint].isOpen = false
        self.endpoints[endpoint].epoch = nil
        self.endpoints[endpoint].losses &+= 1
        self.endpoints[endpoint].outstanding = 0
        self.endpoints[endpoint].withdrawn = [:]
        self.endpoints[endpoint].session = PeerSession(limits: self.configuration.session)
        self.abandonCalls(of: endpoint, reason: reason, at: now, actions: &actions)
        actions.append(.lost(endpoint: endpoint, reason: reason))
        actions.append(.rebuild(endpoint: endpoint))
    }

    /// Gives the calls of a lost worker up, or back to the queue if they may run again.
    private mutating func abandonCalls(
        of endpoint: Int,
        reason: LossReason,
        at now: Instant,
        actions: inout [ClientAction]
    ) {
        // Behind those that were sent before them.
        self.unbind(endpoint)
        var again: [UInt64] = []
        for slot in self.slots(of: endpoint) {
            let call = self.calls[slot]
            if call.isIdempotent, call.attempts < self.configuration.maxAttempts {
                self.calls[slot].endpoint = Call.noEndpoint
                self.calls[slot].phase = .local
                actions.append(.show(slot: slot, phase: .local, endpoint: endpoint))
                again.append(call.id)
            } else {
                self.finish(slot, ending: .lost(reason), at: now, actions: &actions)
            }
        }
        guard !again.isEmpty else { return }
        again.sort()
        self.waiting.insert(contentsOf: again, at: 0)
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

    /// Takes a call out of the tables; its id is remembered for a while.
    private mutating func retire(_ slot: UInt32, wasAnswered: Bool, at now: Instant) -> Call {
        if self.calls[slot].deadline != .distantFuture { self.wheel.cancel(slot) }
        let call = self.calls.remove(slot)
        self.tombstones.insert(call.id, function: call.function, wasAnswered: wasAnswered, endedAt: now)
        return call
    }

    /// A request ended at a worker, so there is room for one more.
    private mutating func release(_ endpoint: Int) {
        if self.endpoints[endpoint].outstanding > 0 { self.endpoints[endpoint].outstanding -= 1 }
    }

    /// A request that ended here before is gone from the worker as well.
    private mutating func releaseWithdrawn(_ id: UInt64, from endpoint: Int) {
        if self.endpoints[endpoint].withdrawn.removeValue(forKey: id) != nil { self.release(endpoint) }
    }

    /// A call that ended here keeps its place at the worker until the worker says that it is gone there.
    private mutating func withdraw(_ call: Call, reason: CancelReason, actions: inout [ClientAction]) {
        guard call.endpoint != Call.noEndpoint, !call.isPing else { return }
        let endpoint = Int(call.endpoint)
        self.endpoints[endpoint].withdrawn[call.id] = reason
        // Without a session it would be lost: the worker is told when the session goes on.
        guard self.endpoints[endpoint].isOpen else { return }
        actions.append(.sendCancel(endpoint: endpoint, id: call.id, reason: reason))
    }

    private mutating func assign(_ slot: UInt32, to index: Int) {
        self.calls[slot].endpoint = Int32(index)
        self.calls[slot].phase = .sent
        self.calls[slot].isStalled = false
        self.calls[slot].attempts &+= 1
        self.calls[slot].isRepeated = false
        self.endpoints[index].outstanding += 1
    }

    private mutating func send(waiting id: UInt64, to index: Int, actions: inout [ClientAction]) {
        guard let slot = self.calls.slot(of: id), self.calls[slot].endpoint == Call.noEndpoint else { return }
        let isAgain = self.calls[slot].attempts > 0
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
            } else {
                self.pings.append(id)
            }
        }
    }

    private mutating func enqueue(_ id: UInt64, affinity: UInt64) {
        // Behind calls that wait for any endpoint, of which some may have the same key.
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

    /// Whether most of a queue's calls must have ended: they'd stay in it as long as the first can't be sent.
    private func isMostlyEnded(_ queued: Int) -> Bool { queued > 64 && queued > 2 * self.calls.count }

    /// Those of the ids whose calls have not ended.
    private func open(_ ids: some Sequence<UInt64>) -> [UInt64] {
        var open: [UInt64] = []
        for id in ids where self.calls.slot(of: id) != nil { open.append(id) }
        return open
    }

    /// Calls bound to an endpoint that takes none any more may go anywhere.
    private mutating func unbind(_ endpoint: Int) {
        guard !self.endpoints[endpoint].bound.isEmpty else { return }
        self.waiting.insert(contentsOf: self.endpoints[endpoint].bound, at: 0)
        self.endpoints[endpoint].bound = []
    }

    private func slots(of endpoint: Int) -> [UInt32] {
        var found: [UInt32] = []
        var next = self.calls.firstSlot(from: 0)
        while let slot = next {
            if Int(self.calls[slot].endpoint) == endpoint { found.append(slot) }
            next = self.calls.firstSlot(from: slot + 1)
        }
        return found
    }

    /// The open endpoint that all calls of an ordering key go to.
    private func home(of affinity: UInt64) -> Int? {
        let open = self.endpoints.indices.filter { self.endpoints[$0].isOpen && !self.endpoints[$0].isDraining }
        return open.isEmpty ? nil : open[Int(affinity % UInt64(open.count))]
    }

    /// The endpoint for the next call: the one with the fewest outstanding that has room (contract S100).
    private mutating func choose(affinity: UInt64) -> Int? {
        if affinity != 0 {
            guard let index = self.home(of: affinity), self.endpoints[index].isFree else { return nil }
            return index
        }
        if self.endpoints.count == 1 { return self.endpoints[0].isFree ? 0 : nil }
        var best: Int?
        for step in 1...self.endpoints.count {
            let index = (self.lastChosen + step) % self.endpoints.count
            guard self.endpoints[index].isFree else { continue }
            if let current = best, self.endpoints[current].outstanding <= self.endpoints[index].outstanding { continue }
            best = index
        }
        if let best { self.lastChosen = best }
        return best
    }
}
