// SPDX-License-Identifier: Apache-2.0

// What happens because time passes.

extension WorkerMachine {
    /// Time has passed: drops lapsed requests, ends those that ran too long, reports slow ones, and keeps sessions
    /// alive.
    package mutating func ticked(at now: Instant, actions: inout [WorkerAction]) {
        self.wheel.advance(to: now, into: &self.due)
        for slot in self.due {
            guard let request = self.requests[Int(slot)] else { continue }
            if self.removeIfHeld(slot, actions: &actions) {
                actions.append(.lapsed(slot: slot, session: Int(request.session), id: request.id))
            } else {
                actions.append(.stop(slot: slot))
            }
        }
        self.due.removeAll(keepingCapacity: true)
        self.lookAtClock(at: now, actions: &actions)
        self.lookAtStops(at: now, actions: &actions)
        while let first = self.unreported.first {
            let isOpen = self.requests[Int(first.slot)].map { $0.id == first.id } ?? false
            guard !isOpen || first.dueAt <= now else { break }
            self.unreported.removeFirst()
            guard isOpen, let request = self.requests[Int(first.slot)], request.session >= 0 else { continue }
            actions.append(.report(slot: first.slot, session: Int(request.session), id: request.id))
        }
        for index in self.sessions.indices where self.sessions[index].isLive {
            switch self.sessions[index].session.ticked(at: now) {
            case .none, .sendHello: break
            case .sendHeartbeat: actions.append(.sendBeat(session: index))
            case .endSession: self.loseSession(index, at: now, actions: &actions)
            }
        }
    }

    /// When ``ticked(at:actions:)`` next has something to do.
    package func nextDeadline(after now: Instant) -> Instant {
        var next = min(self.wheel.nextDeadline ?? .distantFuture, self.clock.nextDeadline)
        next = min(next, self.stopWheel.nextDeadline ?? .distantFuture)
        if let first = self.unreported.first { next = min(next, first.dueAt) }
        for index in self.sessions.indices where self.sessions[index].isLive {
            next = min(next, self.sessions[index].session.nextDeadline)
        }
        return next
    }

    /// Forgets pending reports of requests that have been answered, so that an idle worker has nothing to wake up for.
    package mutating func settle() {
        if self.requestCount == 0 { self.unreported.removeAll(keepingCapacity: true) }
    }

    /// A request that was reported as held may run now: if it doesn't begin soon, it is reported again.
    ///
    /// - Returns: When there is next something to do for it.
    package mutating func reportAgain(_ slot: UInt32, id: UInt64, at now: Instant) -> Instant {
        let dueAt = now.advanced(byNanoseconds: self.configuration.reportDelayNanoseconds)
        self.unreported.append((slot, id, dueAt))
        return dueAt
    }

    mutating func setDeadline(_ deadline: Instant, of slot: UInt32) {
        self.requests[Int(slot)]?.deadline = deadline
        self.wheel.schedule(slot, at: deadline)
    }

    // MARK: Limits of the run time

    /// The handler of a request has begun: its time limits count from now on.
    ///
    /// Call this for handlers with limits; it does nothing for others.
    ///
    /// - Returns: When there is next something to do for it.
    package mutating func began(_ slot: UInt32, at now: Instant) -> Instant {
        guard let request = self.requests[Int(slot)], request.state == .dispatched else { return .distantFuture }
        return self.clock.began(slot, handler: request.handler, at: now)
    }

    private mutating func lookAtClock(at now: Instant, actions: inout [WorkerAction]) {
        self.clock.advance(to: now, into: &self.passed)
        for passed in self.passed {
            switch passed {
            case .soft(let slot): actions.append(.interrupt(slot: slot))
            case .hard(let slot):
                if let (session, id) = self.abandon(slot) {
                    actions.append(.abandon(slot: slot, session: session, id: id))
                }
            }
        }
        self.passed.removeAll(keepingCapacity: true)
    }

    // MARK: Handlers that don't stop

    /// A running handler was asked to stop: its grace period begins, unless it already has.
    ///
    /// - Returns: When the grace period ends.
    package mutating func stopping(_ slot: UInt32, at now: Instant) -> Instant {
        guard let request = self.requests[Int(slot)], request.state == .dispatched, !request.isStopping else {
            return .distantFuture
        }
        let end = now.advanced(byNanoseconds: self.configuration.stopGraceNanoseconds)
        self.requests[Int(slot)]?.isStopping = true
        self.stopWheel.schedule(slot, at: end)
        return end
    }

    private mutating func lookAtStops(at now: Instant, actions: inout [WorkerAction]) {
        self.stopWheel.advance(to: now, into: &self.due)
        for slot in self.due {
            guard let (session, id) = self.abandon(slot) else { continue }
            self.clock.ended(slot)
            actions.append(.giveUp(slot: slot, session: session, id: id))
        }
        self.due.removeAll(keepingCapacity: true)
    }

    /// Marks a request as answered without its handler, which keeps what it occupies until it ends: a place at its
    /// function's gate, and its ordering key.
    ///
    /// - Returns: The session to tell, and the request's id; nil if it has been answered already.
    private mutating func abandon(_ slot: UInt32) -> (session: Int?, id: UInt64)? {
        guard let request = self.requests[Int(slot)], request.state == .dispatched else { return nil }
        self.wheel.cancel(slot)
        if request.isStopping { self.stopWheel.cancel(slot) }
        self.requests[Int(slot)]?.deadline = .distantFuture
        self.requests[Int(slot)]?.state = .abandoned
        self.requests[Int(slot)]?.session = -1
        self.abandonedCount += 1
        if request.isReleased { self.abandonedReleasedCount += 1 }
        var session: Int?
        if request.session >= 0 {
            session = Int(request.session)
            self.sessions[Int(request.session)].requests.remove(request.id)
        }
        return (session, request.id)
    }
}
