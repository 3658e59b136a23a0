// SPDX-License-Identifier: Apache-2.0

package import DroverWire

extension BrokerMachine {
    // MARK: From clients

    /// A request arrived.
    package mutating func requestReceived(
        _ request: BrokerRequest,
        from client: Int,
        at now: Instant,
        actions: inout [BrokerAction]
    ) -> BrokerVerdict {
        let deadline = Instant(deadlineAfter: request.time, at: self.origin(of: client, at: now))
        if let slot = self.clients[client].requests.find(request.id) {
            guard request.isResent else { return .duplicateID }
            self.moveDeadline(of: slot, to: deadline, at: now, actions: &actions)
            return .known(slot: slot)
        }
        if request.isResent {
            switch self.clients[client].results.find(request.id) {
            case .held: return .answerAgain
            case .removed where !request.isRenewed: return .answerAgain
            case .forgotten where !request.isIdempotent: return .indeterminate
            case .removed, .forgotten, .never: break
            }
        }
        // The request may have been on its way for longer than its time allowed.
        guard request.time > 0, deadline > now else { return .lapsed }
        guard !self.isDraining else { return .draining }
        let function: Int
        switch self.function(request.number, of: client) {
        case .known(let known): function = known
        case .undefined: return .undefinedFunction
        case .tooMany: return .tooManyFunctions(own: self.tenants[used: self.clients[client].tenant].names)
        }
        let tenant = self.clients[client].tenant
        if let refusal = self.tenants.refusal(ofCallFor: tenant, at: now) {
            self.tenants.refused(tenant)
            return .overQuota(refusal)
        }
        guard let route = self.route(of: function, demands: request.demands, for: tenant, at: now) else {
            self.tenants.refused(tenant)
            return .tooManyRoutes(own: self.tenants[used: tenant].routes)
        }
        if let busy = self.refusal(request, route: route, client: client) { return busy }
        let key = request.key.map { self.line(of: $0, for: tenant) }
        let slot = self.calls.insert(
            BrokerCall(
                request,
                client: client,
                tenant: tenant,
                highestLevel: self.tenants[tenant].quotas.level,
                route: route,
                key: key?.index ?? CallSlab.none,
                deadline: deadline,
                at: now
            )
        )
        self.entered(route)
        self.tenants.callCame(Int(self.calls[slot].byteCount), of: tenant)
        self.clients[client].requests.insert(request.id, slot: slot)
        if let key, !key.isNew {
            self.calls.append(slot, to: &self.keys[Int(key.index)].waiting)
            self.queuedCount += 1
            self.startTimer(of: slot, at: now)
        } else {
            self.place(slot, at: now, actions: &actions)
        }
        if self.routes[route].workerCount == 0 {
            self.calls[slot].isUnserved = true
            actions.append(.tellServed(client: client, id: request.id, isServed: false))
        }
        return .taken(slot: slot)
    }

    /// A client no longer wants a request, or no longer from this broker.
    ///
    /// - Returns: Whether there is such a request; if not, the client is told so. A recall always returns true: the
    ///   client isn't told that the request isn't here.
    package mutating func cancelReceived(
        _ id: UInt64,
        reason: CancelReason,
        from client: Int,
        at now: Instant,
        actions: inout [BrokerAction]
    ) -> Bool {
        guard let slot = self.clients[client].requests.find(id) else { return reason == .recalled }
        if self.calls[slot].state == .sent {
            // A request that has gone on to a worker isn't given back: the broker takes care of it itself.
            if reason == .recalled { return true }
            self.calls[slot].isCancelled = true
            self.cancelAtWorker(slot, reason: reason, actions: &actions)
            let worker = Int(self.calls[slot].worker)
            if self.workers[worker].alone == slot {
                // The suspect's outcome no longer matters, and its handler may take its time to end.
                self.endSolitude(of: worker, at: now)
                self.fill(worker, at: now, actions: &actions)
            }
        } else {
            let wasApart = self.calls[slot].state == .apart
            self.takeOut(slot)
            // A worker that had the call, and was lost, may have started it.
            let stage: CancelledStage = self.calls[slot].sends > 0 ? .whileRunning : .beforeStart
            self.finish(slot, ending: .cancelled(stage), at: now, actions: &actions)
            if wasApart { self.placeApart(at: now, actions: &actions) }
        }
        return true
    }

    /// A client moved the deadline of a request.
    package mutating func deadlineReceived(
        _ id: UInt64,
        time: UInt32,
        from client: Int,
        at now: Instant,
        actions: inout [BrokerAction]
    ) {
        guard let slot = self.clients[client].requests.find(id) else { return }
        let deadline = Instant(deadlineAfter: time, at: self.origin(of: client, at: now))
        self.moveDeadline(of: slot, to: deadline, at: now, actions: &actions)
    }

    // MARK: From workers

    /// A worker answered a request, with a value or an error.
    ///
    /// - Parameters:
    ///   - id: The broker's id for the request.
    ///   - ranMicroseconds: How long the handler ran, 0 if the worker doesn't say.
    ///   - worker: The worker that answered.
    ///   - now: The time.
    ///   - actions: Where the resulting actions go.
    /// - Returns: Where the answer goes; nil if the worker has no such request: the answer is late or unknown.
    package mutating func answered(
        _ id: UInt64,
        ranMicroseconds: UInt32 = 0,
        from worker: Int,
        at now: Instant,
        actions: inout [BrokerAction]
    ) -> BrokerAddressee? {
        guard let entry = self.sent.slot(of: id) else { return nil }
        let record = self.sent[entry]
        let call = self.calls[record.slot]
        guard call.worker == Int32(worker) else { return nil }
        if ranMicroseconds > 0 {
            self.workers[worker].meter.answered(ranNanoseconds: UInt64(ranMicroseconds) * 1000)
        } else {
            self.workers[worker].meter
                .answered(
                    sentAt: record.at,
                    wasBehind: record.isBehind,
                    concurrency: self.workers[worker].offer.concurrency,
                    at: now
                )
        }
        let ran = ranMicroseconds > 0 ? UInt64(ranMicroseconds) * 1000 : self.workers[worker].plannedOfUnknown
        // One long run among short ones may only mean that the processor was busy elsewhere: it takes two to be sure.
        let long = min(ran, self.routes[Int(call.route)].run.nanoseconds ?? 0)
        self.routes[Int(call.route)].run.add(ran)
        // If the worker doesn't say how long the handler ran, count how long it had the call.
        let had = ranMicroseconds > 0 ? UInt64(ranMicroseconds) : now.nanoseconds(since: record.at) / 1000
        self.ran(call, at: worker, microseconds: had)
        self.workers[worker].progressAt = now
        self.workers[worker].declines = 0
        self.measure(route: Int(call.route), at: now)
        self.takeBack(record.slot, at: now)
        self.ended(routeOf: call, at: worker)
        // This comes before the next call of the ordering key may be sent, because the credit may fall.
        self.adapt(worker, actions: &actions)
        if long / 4 > record.plannedNanoseconds { self.ranLong(long, at: worker, actions: &actions) }
        self.retire(record.slot, at: now, actions: &actions)
        self.fill(worker, at: now, actions: &actions)
        return BrokerAddressee(slot: record.slot, client: call.client < 0 ? nil : Int(call.client), id: call.id)
    }

    /// A worker reported on a request that continues: that it waits, that it runs, or its progress.
    package func addressee(_ id: UInt64, from worker: Int) -> BrokerAddressee? {
        guard let entry = self.sent.slot(of: id) else { return nil }
        let slot = self.sent[entry].slot
        let call = self.calls[slot]
        guard call.worker == Int32(worker) else { return nil }
        return BrokerAddressee(slot: slot, client: call.client < 0 ? nil : Int(call.client), id: call.id)
    }

    /// A worker said that a request ended without an answer.
    ///
    /// Also called for a request that the worker didn't take because it is busy or draining: then the stage is
    /// `beforeStart`.
    package mutating func cancellationConfirmed(
        _ id: UInt64,
        stage: CancelledStage,
        from worker: Int,
        at now: Instant,
        actions: inout [BrokerAction]
    ) {
        guard let entry = self.sent.slot(of: id) else { return }
        let slot = self.sent[entry].slot
        let call = self.calls[slot]
        guard call.worker == Int32(worker) else { return }
        switch stage {
        // Otherwise a tenant whose calls all end this way would have the workers to itself.
        case .whileRunning, .unknown:
            self.ran(call, at: worker, microseconds: now.nanoseconds(since: self.sent[entry].at) / 1000)
        case .beforeStart, .lapsed: break
        }
        self.takeBack(slot, at: now, backAt: call.isRecalled ? now : nil)
        switch stage {
        case _ where call.client < 0:
            self.retire(slot, at: now, actions: &actions)
            actions.append(.release(slot: slot))
        case _ where call.isCancelled, .whileRunning:
            self.finish(slot, ending: .cancelled(stage), at: now, actions: &actions)
        case .beforeStart, .lapsed:
            if self.calls[slot].sends > 0 { self.calls[slot].sends -= 1 }
            if !call.isRecalled {
                self.declined(by: worker, at: now)
                self.calls[slot].declines += 1
            }
            // A worker that declines a call that wasn't recalled would be sent the same call again at once: it gets no
            // more until it says that it is ready.
            if stage == .beforeStart, !call.isRecalled {
                self.workers[worker].isRefusing = true
                self.loads.update(worker, in: &self.workers)
            }
            if call.deadline <= now {
                self.finish(slot, ending: .cancelled(.lapsed), at: now, actions: &actions)
            } else if self.calls[slot].declines >= Self.maxDeclines {
                self.finish(slot, ending: .declined, at: now, actions: &actions)
            } else {
                // With the same stamps the call would lapse again.
                if stage == .lapsed { actions.append(.restamp(worker: worker)) }
                self.enqueue(slot, atFront: true, at: now)
                self.spread(Int(call.route), at: now, actions: &actions)
            }
        case .unknown:
            self.giveUp(slot, reason: .forgotten, of: worker, at: now, actions: &actions)
            self.spread(Int(call.route), at: now, actions: &actions)
        }
        self.fill(worker, at: now, actions: &actions)
    }

    // MARK: Answers that are sent again

    /// Keeps an answer for a re-sent request.
    ///
    /// - Parameters:
    ///   - id: The request.
    ///   - message: The answer as it goes over the wire.
    ///   - client: The client that made it.
    ///   - isRemoval: Whether the answer says that the request was taken out before it ran.
    package mutating func remember(
        _ id: UInt64,
        message: UnsafeRawBufferPointer,
        of client: Int,
        isRemoval: Bool = false
    ) {
        let before = self.clients[client].results.grownBytes
        unsafe self.clients[client].results
            .remember(
                id,
                message: message,
                isRemoval: isRemoval,
                mayGrow: self.configuration.maxGrownBytes - self.grownBytes
            )
        self.grownBytes += self.clients[client].results.grownBytes - before
    }

    /// A question went to a client, behind all its answers, about what it has read.
    package mutating func askedAboutResults(of client: Int) { self.clients[client].results.asked() }

    /// The client has answered that question, or the question may have been lost.
    package mutating func resultsRead(of client: Int, isLost: Bool = false) {
        if isLost { return self.clients[client].results.questionLost() }
        let before = self.clients[client].results.grownBytes
        self.clients[client].results.read()
        self.grownBytes += self.clients[client].results.grownBytes - before
    }

    /// An answer is too large to be kept: its request, re-sent, is indeterminate unless it is idempotent.
    package mutating func forgetResult(_ id: UInt64, of client: Int) {
        self.clients[client].results.pass(over: id)
    }

    /// Passes the kept answer to request `id` to `body`.
    package func withResult(_ id: UInt64, of client: Int, _ body: (UnsafeRawBufferPointer) -> Void) {
        unsafe self.clients[client].results.withMessage(id, body)
    }

    // MARK: Inside

    private func refusal(_ request: BrokerRequest, route: Int, client: Int) -> BrokerVerdict? {
        let waiting = self.routes[route].waitingCount
        let own = self.clients[client].requests.count
        let tenant = self.clients[client].tenant
        let tenants = self.tenants[used: tenant]
        // A table that others have filled keeps out no tenant that has little in it: together such tenants can stretch
        // it by a quarter.
        let share = self.configuration.maxQueued / (4 * max(16, self.tenants.count))
        let isFull =
            own >= self.configuration.window
            || (tenants.calls >= share
                && (self.queuedCount >= self.configuration.maxQueued || waiting >= self.configuration.maxQueuedPerRoute))
        let lacksBytes = !self.tenants.hasRoom(for: request.byteCount, of: tenant)
        guard isFull || lacksBytes else { return nil }
        // The time until an eighth of the waiting calls is gone, at the recent pace.
        let interval = self.routes[route].intervalNanoseconds
        let (time, overflow) = interval.multipliedReportingOverflow(by: UInt64(max(1, waiting / 8)))
        let milliseconds = overflow ? 30_000 : min(30_000, max(10, time / 1_000_000))
        guard isFull else {
            return .tooManyBytes(own: tenants.bytes, retryAfterMilliseconds: UInt32(milliseconds))
        }
        return .busy(retryAfterMilliseconds: UInt32(milliseconds))
    }

    private mutating func measure(route: Int, at now: Instant) {
        let (last, mean) = (self.routes[route].lastAnswer, self.routes[route].intervalNanoseconds)
        let sample = min(1_000_000_000, now.nanoseconds(since: last))
        self.routes[route].intervalNanoseconds = mean - mean / 8 + sample / 8
        self.routes[route].lastAnswer = now
    }

    private mutating func moveDeadline(
        of slot: UInt32,
        to deadline: Instant,
        at now: Instant,
        actions: inout [BrokerAction]
    ) {
        guard self.calls[slot].deadline != deadline else { return }
        self.calls[slot].deadline = deadline
        let call = self.calls[slot]
        guard call.state == .sent else {
            self.wheel.cancel(slot)
            return self.startTimer(of: slot, at: now)
        }
        guard self.workers[Int(call.worker)].isOpen else { return }
        actions.append(.sendDeadline(worker: Int(call.worker), id: call.workerID, deadline: deadline))
    }

    func cancelAtWorker(_ slot: UInt32, reason: CancelReason, actions: inout [BrokerAction]) {
        let call = self.calls[slot]
        // Without a session the message would be lost: the worker is told when the session resumes.
        guard self.workers[Int(call.worker)].isOpen else { return }
        actions.append(.sendCancel(worker: Int(call.worker), id: call.workerID, reason: reason))
    }

    /// Ends a call that no worker has.
    mutating func finish(_ slot: UInt32, ending: BrokerEnding, at now: Instant, actions: inout [BrokerAction]) {
        let call = self.calls[slot]
        var ending = ending
        // A client that learns that a call it still wants was taken out would send it again.
        if call.isRevoked, case .cancelled = ending { ending = .revoked }
        switch ending {
        case .forbidden, .declined, .noWorker: if call.sends > 0 { ending = .afterRun(ending) }
        default: break
        }
        actions.append(.finish(slot: slot, client: Int(call.client), id: call.id, ending: ending))
        self.retire(slot, at: now, actions: &actions)
    }

    /// Whether a call had been sent to a worker before the one that has it, and so may have been started there.
    package func wasSentBefore(_ slot: UInt32) -> Bool { self.calls[slot].sends > 1 }

    /// The worker that had a call is lost, or has lost it.
    ///
    /// The call may have been running: whatever a dead process had yet to say is gone with it. A call that its worker's
    /// credit kept here is safe. The call `isUnblamed` if another was alone at the worker.
    mutating func giveUp(
        _ slot: UInt32,
        reason: LossReason,
        of worker: Int,
        isUnblamed: Bool = false,
        at now: Instant,
        actions: inout [BrokerAction]
    ) {
        let call = self.calls[slot]
        if call.client < 0 {
            self.retire(slot, at: now, actions: &actions)
            actions.append(.release(slot: slot))
        } else if call.isCancelled {
            self.finish(slot, ending: .cancelled(.whileRunning), at: now, actions: &actions)
        } else if call.isIdempotent, call.deadline <= now {
            self.finish(slot, ending: .cancelled(.lapsed), at: now, actions: &actions)
        } else if call.isIdempotent, reason.mayBeDeath, isUnblamed, self.isLastAttempt(call) {
            // It ran alone before, for a long time, and did no harm; the call that is alone now is to blame.
            self.enqueue(slot, atFront: true, at: now)
        } else if call.isIdempotent, reason.mayBeDeath {
            self.calls[slot].attempts += 1
            self.deathsOf[slot, default: []].append(self.workers[worker].offer.name)
            guard call.isBundle || call.attempts + 1 >= self.configuration.maxAttempts else {
                return self.enqueue(slot, atFront: true, at: now)
            }
            let names = self.deathsOf[slot] ?? []
            let ending = BrokerEnding.poison(attempts: Int(call.attempts) + 1, workers: names)
            self.finish(slot, ending: ending, at: now, actions: &actions)
        } else if call.isIdempotent, call.moves < Self.maxMoves {
            self.calls[slot].moves += 1
            self.enqueue(slot, atFront: true, at: now)
        } else {
            let name = self.workers[worker].offer.name
            self.finish(slot, ending: .lost(reason, worker: name), at: now, actions: &actions)
        }
    }

    /// Removes a call that no worker has from the tables; the next of its ordering key may go.
    mutating func retire(_ slot: UInt32, at now: Instant, actions: inout [BrokerAction]) {
        let call = self.calls[slot]
        self.wheel.cancel(slot)
        if call.client >= 0 { self.clients[Int(call.client)].requests.remove(call.id) }
        self.tenants.callEnded(Int(call.byteCount), of: Int(call.tenant))
        self.left(Int(call.route))
        if call.attempts > 0 { self.deathsOf[slot] = nil }
        self.calls.remove(slot)
        guard call.key != CallSlab.none, call.state != .held else { return }
        self.passKey(call.key, at: now, actions: &actions)
    }

    private mutating func passKey(_ key: UInt32, at now: Instant, actions: inout [BrokerAction]) {
        while true {
            let next = self.keys[Int(key)].waiting.first
            if next == CallSlab.none {
                self.keyOf[self.keys[Int(key)].key] = nil
                self.freeKeys.append(key)
                return
            }
            self.takeOut(next)
            guard self.calls[next].deadline <= now else { return self.place(next, at: now, actions: &actions) }
            // The call is still marked as held, so ending it doesn't pass the key on: this loop does.
            self.finish(next, ending: .cancelled(.lapsed), at: now, actions: &actions)
        }
    }

    private mutating func line(of name: String, for tenant: Int) -> (index: UInt32, isNew: Bool) {
        let key = TenantKey(tenant: self.tenants[tenant].name.isEmpty ? -1 : tenant, name: name)
        if let index = self.keyOf[key] { return (index, false) }
        let index: UInt32
        if let free = self.freeKeys.popLast() {
            index = free
            self.keys[Int(index)] = KeyLine(key: key)
        } else {
            index = UInt32(self.keys.count)
            self.keys.append(KeyLine(key: key))
        }
        self.keyOf[key] = index
        return (index, true)
    }
}
