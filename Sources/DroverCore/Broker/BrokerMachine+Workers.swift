// SPDX-License-Identifier: Apache-2.0

package import DroverWire

extension BrokerMachine {
    /// A worker said what it can do: the broker introduces itself, unless it already has over the same route.
    ///
    /// - Returns: The worker; nil if there are too many: ``refusalOfWorker`` then says why.
    package mutating func offerReceived(
        _ offer: WorkerOffer,
        tenant claim: TenantClaim? = nil,
        route: UInt64,
        at now: Instant,
        actions: inout [BrokerAction]
    ) -> Int? {
        if let index = self.workerOf[offer.worker], self.workers[index].offer.epoch == offer.epoch {
            guard self.workers[index].route != route else {
                guard offer == self.workers[index].offer, self.workers[index].isOpen else {
                    self.take(offer, of: index, at: now, actions: &actions)
                    return index
                }
                // It repeats an offer that the broker has welcomed, so it no longer knows the session.
                self.workers[index].isOpen = false
                self.loads.update(index, in: &self.workers)
                self.perform(self.workers[index].session.connected(at: now), of: index, at: now, actions: &actions)
                self.watchWorker(index)
                return index
            }
            // Nothing may be sent over a route on which the worker doesn't know the broker yet.
            self.workers[index].isOpen = false
            self.loads.update(index, in: &self.workers)
            self.loseWhoever(at: route, at: now, actions: &actions)
            self.peerOf[self.workers[index].route] = nil
            self.peerOf[route] = .worker(index)
            self.workers[index].route = route
            self.workers[index].isCutOff = false
            self.take(offer, of: index, at: now, actions: &actions)
            self.perform(self.workers[index].session.connected(at: now), of: index, at: now, actions: &actions)
            self.watchWorker(index)
            return index
        }
        if let index = self.workerOf[offer.worker] {
            self.loseWorker(index, reason: .restarted, at: now, actions: &actions)
        }
        self.loseWhoever(at: route, at: now, actions: &actions)
        guard let tenant = self.tenant(ofWorker: claim, at: now) else { return nil }
        self.incarnation += 1
        let worker = BrokerWorker(
            offer: offer,
            route: route,
            incarnation: self.incarnation,
            tenant: tenant,
            limits: self.configuration.session,
            coverage: self.configuration.coverageNanoseconds,
            alone: self.configuration.aloneNanoseconds
        )
        let index = self.freeWorkers.popLast() ?? self.workers.count
        if index == self.workers.count { self.workers.append(worker) } else { self.workers[index] = worker }
        self.resetTurns(at: index)
        self.slotCount += offer.concurrency
        self.workerOf[offer.worker] = index
        self.peerOf[route] = .worker(index)
        self.take(offer, of: index, at: now, actions: &actions)
        // The offer is a sign of life: a worker that never answers the introduction is given up at the silence limit.
        self.workers[index].session.established(at: now)
        self.perform(self.workers[index].session.connected(at: now), of: index, at: now, actions: &actions)
        self.watchWorker(index)
        return index
    }

    /// The place of a worker's tenant, which now counts one more worker, or -1 without keys; nil if there are too many.
    private mutating func tenant(ofWorker claim: TenantClaim?, at now: Instant) -> Int? {
        guard let claim else {
            let (count, limit) = (self.workerOf.count, self.configuration.maxWorkers)
            self.refusalOfWorker =
                count < limit ? self.refusal(ofSessionFor: -1) : Refusal(nil, own: 0, limit: limit)
            return self.refusalOfWorker == nil ? -1 : nil
        }
        self.sweepTenants(at: now)
        let tenant = self.tenants.place(of: claim, virtualTime: self.virtualTime, at: now)
        self.refusalOfWorker = self.tenants.refusal(ofWorkerFor: tenant) ?? self.refusal(ofSessionFor: tenant)
        guard self.refusalOfWorker == nil else {
            self.tenants.refused(tenant)
            self.tenants.letGo(tenant)
            return nil
        }
        self.tenants.add(1, \.workers, of: tenant)
        return tenant
    }

    /// A worker accepted the introduction.
    ///
    /// If its connection is gone, the answer was still under way over that connection: nothing sent now would arrive,
    /// and the worker hasn't come back.
    package mutating func welcomed(
        by index: Int,
        epoch: UInt64,
        session: UInt32,
        window: Int,
        at now: Instant,
        actions: inout [BrokerAction]
    ) {
        guard !self.workers[index].isCutOff else { return }
        let known = self.workers[index].sessionNumber
        guard epoch == self.workers[index].offer.epoch, session != 0, known == 0 || known == session else {
            return self.loseWorker(index, reason: .forgotten, at: now, actions: &actions)
        }
        self.workers[index].sessionNumber = session
        if known == 0 { self.matchAll(index, at: now) }
        for number in self.workers[index].bindings.keys { self.workers[index].bindings[number]?.isConfirmed = false }
        self.workers[index].window = min(max(1, window), 1 << 24)
        // The session isn't open yet, so nothing is announced.
        self.adapt(index, actions: &actions)
        self.workers[index].isOpen = true
        self.workers[index].isRefusing = false
        self.workers[index].session.established(at: now)
        self.workers[index].defined = NumberSet()
        self.watchWorker(index)
        self.announce(index, actions: &actions)
        self.restateFlow(of: index, actions: &actions)
        // Requests and answers in transit may have been lost with the old connection. The worker knows which requests
        // it has.
        for slot in self.calls.slots(of: self.workers[index].calls) {
            let call = self.calls[slot]
            let function = self.routes[Int(call.route)].function
            if !self.workers[index].defined.contains(function) {
                self.workers[index].defined.insert(function)
                actions.append(.define(worker: index, function: function))
            }
            if call.isCancelled {
                self.cancelAtWorker(slot, reason: .requested, actions: &actions)
            } else {
                actions.append(.transmit(slot: slot, worker: index, id: call.workerID, isResent: true))
                if call.isRecalled { actions.append(.recall(worker: index, id: call.workerID)) }
            }
        }
        self.fill(index, at: now, actions: &actions)
    }

    /// A worker restated its condition.
    package mutating func readyReceived(
        from index: Int,
        epoch: UInt64,
        isQuiet: Bool,
        isStarved: Bool,
        isStalled: Bool = false,
        at now: Instant,
        actions: inout [BrokerAction]
    ) {
        guard epoch == self.workers[index].offer.epoch else {
            return self.loseWorker(index, reason: .restarted, at: now, actions: &actions)
        }
        self.workers[index].isQuiet = isQuiet
        self.workers[index].isRefusing = false
        self.workers[index].isStalled = isStalled
        self.endUnconfirmed(of: index, actions: &actions)
        if isStarved { self.starvedCount += 1 }
        self.fill(index, at: now, actions: &actions)
        // What the worker was told last may be out of date.
        let (announced, isTold) = (self.workers[index].announcedCredit, self.workers[index].announcedWaiting)
        if announced != self.workers[index].credit || isTold != (self.waitingCount(for: index) > 0) {
            self.announce(index, actions: &actions)
        }
        if isStalled, self.queuedCount > 0 { self.tellStalled(of: index, actions: &actions) }
    }

    /// Tells the clients whose calls wait for workers that are all stalled.
    private mutating func tellStalled(of index: Int, actions: inout [BrokerAction]) {
        var verdicts: [UInt32: Bool] = [:]
        let queued = self.calls.queued { !$0.isStalled && $0.client >= 0 }
        for slot in queued {
            let route = self.calls[slot].route
            let isStalled = verdicts[route] ?? self.isStalled(route: Int(route))
            verdicts[route] = isStalled
            guard isStalled else { continue }
            self.calls[slot].isStalled = true
            actions.append(.tellStalled(client: Int(self.calls[slot].client), id: self.calls[slot].id))
        }
    }

    private func isStalled(route: Int) -> Bool {
        let able = self.workers.indices.filter { self.workers[$0].isLive && self.workers[$0].routes.contains(route) }
        return !able.isEmpty && able.allSatisfy { self.workers[$0].isStalled || !self.workers[$0].isOpen }
    }

    /// A worker reported how far a request has come.
    ///
    /// - Parameters:
    ///   - slot: The request.
    ///   - isStarted: Whether it runs.
    ///   - isStalled: Whether its handler waits for a call that waits for a slot, or it waits for a slot in vain
    ///     itself.
    ///   - hold: What it waits for, if that is not a slot.
    ///   - now: The time.
    ///   - actions: Where the resulting actions go.
    package mutating func phaseReported(
        _ slot: UInt32,
        isStarted: Bool = false,
        isStalled: Bool,
        hold: HoldReason = .none,
        at now: Instant,
        actions: inout [BrokerAction]
    ) {
        // Only brokers lack workers.
        let hold = hold == .worker ? HoldReason.none : hold
        if self.calls[slot].state == .sent {
            if isStarted { self.calls[slot].isStarted = true }
            if self.calls[slot].hold != hold { self.held(slot, hold, at: now, actions: &actions) }
        }
        guard self.calls[slot].isStalled != isStalled else { return }
        self.calls[slot].isStalled = isStalled
        guard self.calls[slot].state == .sent else { return }
        let worker = Int(self.calls[slot].worker)
        if isStalled, self.workers[worker].alone == slot {
            // The call that its handler waits for may have nowhere else to go.
            self.endSolitude(of: worker, at: now)
            self.fill(worker, at: now, actions: &actions)
        } else if self.apart.count > 0 {
            self.placeApart(at: now, actions: &actions)
        }
    }

    /// The round trip to a worker was measured by a ping.
    package mutating func roundTripMeasured(_ nanoseconds: UInt64, to index: Int) {
        self.workers[index].coverageNanoseconds = max(100_000, min(nanoseconds, 1_000_000_000) * 4)
    }

    /// A worker takes no more requests, or is leaving.
    package mutating func goodbyeReceived(
        from index: Int,
        reason: GoodbyeReason,
        at now: Instant,
        actions: inout [BrokerAction]
    ) {
        guard reason == .draining else { return self.loseWorker(index, reason: .left, at: now, actions: &actions) }
        self.workers[index].isDraining = true
        self.loads.update(index, in: &self.workers)
    }

    /// A worker doesn't know the broker's session: the broker introduces itself again.
    package mutating func resetReceived(from index: Int, at now: Instant, actions: inout [BrokerAction]) {
        self.workers[index].isOpen = false
        self.loads.update(index, in: &self.workers)
        self.perform(self.workers[index].session.resetReceived(at: now), of: index, at: now, actions: &actions)
        self.watchWorker(index)
    }

    mutating func watchWorker(_ index: Int) {
        guard self.workers[index].isLive else { return }
        self.peerWheel.schedule(UInt32(2 * index + 1), at: self.workers[index].session.nextDeadline)
    }

    mutating func perform(
        _ action: PeerSession.Action,
        of index: Int,
        at now: Instant,
        actions: inout [BrokerAction]
    ) {
        switch action {
        case .none: break
        case .sendHello: actions.append(.sendHello(worker: index, session: self.workers[index].sessionNumber))
        case .sendHeartbeat: actions.append(.sendWorkerBeat(worker: index))
        case .endSession(let reason):
            self.loseWorker(index, reason: LossReason(reason), at: now, actions: &actions)
        }
    }

    private mutating func take(
        _ offer: WorkerOffer,
        of index: Int,
        at now: Instant,
        actions: inout [BrokerAction]
    ) {
        let former = self.workers[index].offered
        self.slotCount += offer.concurrency - self.workers[index].offer.concurrency
        self.workers[index].offer = offer
        self.workers[index].offered = Set(offer.functions).sorted().compactMap { self.offer($0) }
        self.workers[index].offers = NumberSet()
        for function in self.workers[index].offered { self.workers[index].offers.insert(function) }
        for function in former { self.withdraw(function) }
        self.matchAll(index, at: now)
        if self.workers[index].isOpen { self.adapt(index, actions: &actions) }
        self.fill(index, at: now, actions: &actions)
    }

    mutating func loseWorker(_ index: Int, reason: LossReason, at now: Instant, actions: inout [BrokerAction]) {
        guard self.workers[index].isLive else { return }
        self.workers[index].isLive = false
        self.slotCount -= self.workers[index].offer.concurrency
        self.loads.update(index, in: &self.workers)
        self.resetTurns(at: index)
        self.workerOf[self.workers[index].offer.worker] = nil
        self.peerOf[self.workers[index].route] = nil
        self.peerWheel.cancel(UInt32(2 * index + 1))
        self.stallWheel.cancel(UInt32(index))
        self.pauseWheel.cancel(UInt32(index))
        let alone = self.workers[index].alone
        self.endSolitude(of: index, at: now)
        self.solitudeWheel.cancel(UInt32(index))
        self.matchAll(index, at: now)
        var touched: Set<Int> = []
        // The last goes first, so that they end up in the order they were sent.
        for slot in self.calls.slots(of: self.workers[index].calls).reversed() {
            touched.insert(Int(self.calls[slot].route))
            self.takeBack(slot, at: now)
            let isUnblamed = alone != nil && alone != slot
            self.giveUp(slot, reason: reason, of: index, isUnblamed: isUnblamed, at: now, actions: &actions)
        }
        for function in self.workers[index].offered { self.withdraw(function) }
        self.workers[index].offered = []
        self.closedCount -= self.workers[index].held.closedCount
        self.workers[index].held = HeldCalls()
        self.dropBindings(of: index)
        self.dropQuestions(of: index)
        self.freeWorkers.append(index)
        if self.workers[index].tenant >= 0 { self.tenants.add(-1, \.workers, of: self.workers[index].tenant) }
        actions.append(.workerLost(worker: index, self.workers[index].offer.worker, reason: reason))
        if self.apart.count > 0 { self.placeApart(at: now, actions: &actions) }
        for route in touched.sorted() { self.spread(route, at: now, actions: &actions) }
    }
}
