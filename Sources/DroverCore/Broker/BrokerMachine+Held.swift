// SPDX-License-Identifier: Apache-2.0

/// Calls that workers hold although slots may be free: for their functions' limits, or for ordering keys.
extension BrokerMachine {
    /// How many calls are held, over all workers.
    package var heldCount: Int { self.workers.reduce(0) { $0 + ($1.isLive ? $1.held.count : 0) } }

    /// Whether a worker gets no calls of a route because it has some that wait for the function's limit.
    package func isClosed(_ worker: Int, for route: Int) -> Bool {
        self.closedCount > 0 && self.workers[worker].held.isClosed(self.routes[route].function)
    }

    /// The same for the route of a call.
    package func isClosed(_ worker: Int, forCallIn slot: UInt32) -> Bool {
        self.isClosed(worker, for: Int(self.calls[slot].route))
    }

    /// A worker said what a call waits for there.
    mutating func held(_ slot: UInt32, _ reason: HoldReason, at now: Instant, actions: inout [BrokerAction]) {
        let worker = Int(self.calls[slot].worker)
        self.endHold(slot)
        if reason != .none {
            self.calls[slot].hold = reason
            let function = self.routes[Int(self.calls[slot].route)].function
            self.changeHeld(of: worker) { $0.add(function, reason) }
            self.recallHeld(slot, actions: &actions)
            self.look(after: worker, at: now.advanced(byNanoseconds: self.configuration.stallNanoseconds))
        }
        // There is now room for other calls, or for more of the function.
        self.fill(worker, at: now, actions: &actions)
    }

    /// A call is no longer held, or no longer at its worker.
    ///
    /// - Parameters:
    ///   - slot: The call.
    ///   - backAt: When the worker returned it, if it was asked to: the worker must not get it again at once.
    mutating func endHold(_ slot: UInt32, backAt: Instant? = nil) {
        let call = self.calls[slot]
        guard call.hold != .none else { return }
        self.calls[slot].hold = .none
        let (worker, function) = (Int(call.worker), self.routes[Int(call.route)].function)
        let reopensAt = backAt?.advanced(byNanoseconds: self.configuration.stallNanoseconds)
        self.changeHeld(of: worker) { $0.remove(function, call.hold, reopensAt: reopensAt) }
        if let reopensAt { self.look(after: worker, at: reopensAt) }
    }

    /// A worker answered a call: another one of the same function may run there.
    mutating func ended(routeOf call: BrokerCall, at worker: Int) {
        guard self.closedCount > 0 else { return }
        let function = self.routes[Int(call.route)].function
        self.changeHeld(of: worker) { $0.ended(function) }
    }

    /// Schedules a check on a worker for this time at the latest.
    mutating func look(after worker: Int, at time: Instant) {
        guard self.workers[worker].isLive else { return }
        self.stallWheel.schedule(UInt32(worker), noLaterThan: time)
    }

    /// Recalls held calls that another worker could run now, and reopens functions that were closed for a while.
    mutating func lookAfterHeld(_ worker: Int, at now: Instant, actions: inout [BrokerAction]) {
        guard self.workers[worker].isLive else { return }
        let before = self.workers[worker].held.closedCount
        self.changeHeld(of: worker) { $0.reopen(at: now) }
        if self.workers[worker].held.closedCount < before { self.fill(worker, at: now, actions: &actions) }
        let opening = self.workers[worker].held.nextOpening
        if opening != .distantFuture { self.look(after: worker, at: opening) }
        guard self.workers[worker].held.count > 0 else { return }
        // The last goes first: each returned call is queued before the one returned before it.
        for slot in self.calls.slots(of: self.workers[worker].calls).reversed() where self.calls[slot].hold != .none {
            self.recallHeld(slot, actions: &actions)
        }
        self.look(after: worker, at: now.advanced(byNanoseconds: self.configuration.stallNanoseconds))
    }

    private mutating func recallHeld(_ slot: UInt32, actions: inout [BrokerAction]) {
        let call = self.calls[slot]
        let (worker, route) = (Int(call.worker), Int(call.route))
        guard call.hold == .limit, !call.isRecalled, !call.isCancelled, self.workers[worker].isOpen,
            self.routes[route].workerCount > 1, self.choose(route, call.level) != nil
        else { return }
        self.calls[slot].isRecalled = true
        actions.append(.recall(worker: worker, id: call.workerID))
    }

    private mutating func changeHeld(of worker: Int, _ body: (inout HeldCalls) -> Void) {
        let before = self.workers[worker].held.closedCount
        body(&self.workers[worker].held)
        self.closedCount += self.workers[worker].held.closedCount - before
        self.loads.update(worker, in: &self.workers)
    }
}
