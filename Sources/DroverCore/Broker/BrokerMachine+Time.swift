// SPDX-License-Identifier: Apache-2.0

internal import DroverWire

extension BrokerMachine {
    /// Time has passed: drops lapsed calls, keeps sessions alive, and recalls what waits behind a stalled worker.
    package mutating func ticked(at now: Instant, actions: inout [BrokerAction]) {
        // This comes first: credit may fall, and calls released below must not be sent on the old credit.
        self.stallWheel.advance(to: now, into: &self.due)
        for worker in self.due { self.lookAfter(Int(worker), at: now, actions: &actions) }
        for worker in self.due { self.lookAfterHeld(Int(worker), at: now, actions: &actions) }
        self.due.removeAll(keepingCapacity: true)
        self.pauseWheel.advance(to: now, into: &self.due)
        for worker in self.due {
            self.workers[Int(worker)].isPaused = false
            self.fill(Int(worker), at: now, actions: &actions)
        }
        self.due.removeAll(keepingCapacity: true)
        self.solitudeWheel.advance(to: now, into: &self.due)
        for worker in self.due where self.workers[Int(worker)].isLive {
            self.solitudeIsOver(of: Int(worker), at: now, actions: &actions)
        }
        self.due.removeAll(keepingCapacity: true)
        self.wheel.advance(to: now, into: &self.due)
        for slot in self.due {
            let call = self.calls[slot]
            // The end of another call of its ordering key may just have released it, or let it lapse.
            guard call.isWaiting else { continue }
            let hasWorkers = self.routes[Int(call.route)].workerCount > 0
            if call.deadline > now, hasWorkers {
                self.wheel.schedule(slot, at: call.deadline)
                continue
            }
            let ending: BrokerEnding = call.deadline <= now ? .cancelled(.lapsed) : .noWorker
            self.takeOut(slot)
            self.finish(slot, ending: ending, at: now, actions: &actions)
            if call.state == .apart { self.placeApart(at: now, actions: &actions) }
        }
        self.due.removeAll(keepingCapacity: true)
        self.peerWheel.advance(to: now, into: &self.due)
        for place in self.due { self.visit(Int(place), at: now, actions: &actions) }
        self.due.removeAll(keepingCapacity: true)
        self.sweepLargeRoutes()
        self.sweepTenants(at: now)
    }

    /// When ``ticked(at:actions:)`` next has something to do.
    package var nextDeadline: Instant {
        min(
            self.wheel.nextDeadline ?? .distantFuture,
            self.peerWheel.nextDeadline ?? .distantFuture,
            self.stallWheel.nextDeadline ?? .distantFuture,
            self.pauseWheel.nextDeadline ?? .distantFuture,
            self.solitudeWheel.nextDeadline ?? .distantFuture
        )
    }

    private mutating func visit(_ place: Int, at now: Instant, actions: inout [BrokerAction]) {
        let index = place / 2
        guard place.isMultiple(of: 2) else {
            guard self.workers[index].isLive else { return }
            self.perform(self.workers[index].session.ticked(at: now), of: index, at: now, actions: &actions)
            return self.watchWorker(index)
        }
        guard self.clients[index].isLive else { return }
        switch self.clients[index].session.ticked(at: now) {
        case .none, .sendHello: break
        case .sendHeartbeat: actions.append(.sendClientBeat(client: index))
        case .endSession: return self.loseClient(index, at: now, actions: &actions)
        }
        self.watchClient(index)
    }

    /// Recalls the surplus from a worker that had more calls than handlers, if it still has and answers none.
    private mutating func lookAfter(_ index: Int, at now: Instant, actions: inout [BrokerAction]) {
        let slots = self.workers[index].offer.concurrency
        guard self.workers[index].isLive, self.workers[index].occupying > slots else { return }
        let stall = self.configuration.stallNanoseconds
        let limit = self.workers[index].progressAt.advanced(byNanoseconds: stall)
        guard limit <= now, self.workers[index].isOpen else {
            return self.look(after: index, at: limit <= now ? now.advanced(byNanoseconds: stall) : limit)
        }
        let silence = now.nanoseconds(since: self.workers[index].progressAt)
        self.workers[index].meter.stalled(nanoseconds: silence)
        self.adapt(index, actions: &actions)
        self.recallWaiting(at: index, actions: &actions)
        self.look(after: index, at: now.advanced(byNanoseconds: max(stall, silence)))
    }

    /// A call ran far longer than expected.
    ///
    /// The calls that wait behind it may run as long, so they had better wait at the broker.
    mutating func ranLong(_ nanoseconds: UInt64, at index: Int, actions: inout [BrokerAction]) {
        let slots = self.workers[index].offer.concurrency
        let waiting = UInt64(max(0, self.workers[index].occupying - slots))
        let wait = waiting.multipliedReportingOverflow(by: nanoseconds / UInt64(slots))
        guard wait.overflow || wait.partialValue > 16 * self.workers[index].coverageNanoseconds else { return }
        self.recallWaiting(at: index, actions: &actions)
    }

    /// Recalls the calls that wait for a handler at a worker.
    private mutating func recallWaiting(at index: Int, actions: inout [BrokerAction]) {
        let calls = self.calls.slots(of: self.workers[index].calls).filter { self.calls[$0].hold == .none }
        for slot in calls.dropFirst(self.workers[index].offer.concurrency) {
            // A recalled call stays recalled: the worker gives it back, or answers it.
            guard !self.calls[slot].isRecalled else { continue }
            self.calls[slot].isRecalled = true
            actions.append(.recall(worker: index, id: self.calls[slot].workerID))
        }
    }
}
