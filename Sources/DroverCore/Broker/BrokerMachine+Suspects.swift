// SPDX-License-Identifier: Apache-2.0

/// Calls that may have killed workers, and workers that take none.
extension BrokerMachine {
    /// How often a call may be taken back from workers that left in order, or had lost it.
    static var maxMoves: UInt8 { 16 }
    /// How often workers may decline a call before its client is told.
    static var maxDeclines: UInt8 { 20 }

    /// Whether another worker death would make a call poison.
    func isLastAttempt(_ call: BrokerCall) -> Bool { call.attempts + 1 >= self.configuration.maxAttempts }

    /// Whether a call must run alone, because another worker death would make it poison; not if the first death already
    /// does.
    func mustBeAlone(_ call: BrokerCall) -> Bool { call.attempts > 0 && self.isLastAttempt(call) }

    /// Sends each suspect to a worker without other calls, and keeps a worker free for the next one.
    mutating func placeApart(at now: Instant, actions: inout [BrokerAction]) {
        let former = self.workers.indices.filter { self.workers[$0].isReserved }
        var emptied: Set<Int> = []
        var reserved: Set<UInt32> = []
        for slot in self.calls.slots(of: self.apart) {
            let route = self.calls[slot].route
            // The end of one suspect may have released another call of its ordering key.
            guard self.calls[slot].state == .apart, !reserved.contains(route),
                !self.clients[Int(self.calls[slot].client)].isHeldUp
            else { continue }
            var choice = SuspectPlace()
            for worker in self.workers.indices
            where self.workers[worker].takesCalls && self.workers[worker].routes.contains(Int(route)) {
                let outstanding = self.workers[worker].outstanding
                choice.consider(
                    worker,
                    outstanding: outstanding,
                    hasSlot: self.workers[worker].hasSlot
                        && self.workers[worker].hasLeft(self.demandsOf[Int(route)].resources),
                    self.workers[worker].solitude,
                    at: now
                )
            }
            switch choice.verdict {
            case .none: break
            case .empty(let worker):
                // Only one worker at a time is emptied for a route's calls.
                reserved.insert(route)
                emptied.insert(worker)
                self.workers[worker].solitude.reserve(isLoose: self.hasStalled(worker), at: now)
                self.watchSolitude(of: worker, at: now)
            case .send(let worker):
                self.takeOut(slot)
                self.endSolitude(of: worker, at: now)
                self.send(slot, to: worker, at: now, actions: &actions)
                // Its deadline may have passed.
                guard self.calls[slot].state == .sent, !self.hasStalled(worker) else { continue }
                self.workers[worker].solitude.begin(with: UInt64(slot), at: now)
                self.watchSolitude(of: worker, at: now)
            }
        }
        for worker in former where self.workers[worker].isReserved && !emptied.contains(worker) {
            self.endSolitude(of: worker, at: now)
        }
        // Workers that are no longer kept free take other calls again.
        for worker in former where !self.workers[worker].isReserved { self.serve(worker, at: now, actions: &actions) }
    }

    /// Whether a handler at a worker waits for a call that may have nowhere else to go.
    private func hasStalled(_ worker: Int) -> Bool {
        self.calls.slots(of: self.workers[worker].calls).contains { self.calls[$0].isStalled }
    }

    /// Lets a worker take other calls again.
    mutating func endSolitude(of worker: Int, at now: Instant) {
        self.workers[worker].solitude.end(at: now)
        self.watchSolitude(of: worker, at: now)
    }

    private mutating func watchSolitude(of worker: Int, at now: Instant) {
        self.loads.update(worker, in: &self.workers)
        let due = self.workers[worker].solitude.nextDeadline(after: now)
        if due == .distantFuture {
            self.solitudeWheel.cancel(UInt32(worker))
        } else {
            self.solitudeWheel.schedule(UInt32(worker), at: due)
        }
    }

    /// A worker's time of being reserved for a suspect, or of taking other calls in between, is over.
    mutating func solitudeIsOver(of worker: Int, at now: Instant, actions: inout [BrokerAction]) {
        // The suspect keeps running; other calls may join it.
        if self.workers[worker].alone != nil, self.workers[worker].solitude.isOver(at: now) {
            self.endSolitude(of: worker, at: now)
        }
        self.placeApart(at: now, actions: &actions)
        self.watchSolitude(of: worker, at: now)
        self.serve(worker, at: now, actions: &actions)
    }

    /// A handler invokes a callback, which may call the pool itself before it answers.
    package mutating func asked(by worker: Int, at now: Instant, actions: inout [BrokerAction]) {
        guard self.workers[worker].alone != nil else { return }
        self.endSolitude(of: worker, at: now)
        self.fill(worker, at: now, actions: &actions)
    }

    /// A worker declined a call: if it keeps doing so, it gets no calls for a while, each time for twice as long.
    mutating func declined(by worker: Int, at now: Instant) {
        guard !self.workers[worker].isPaused else { return }
        self.workers[worker].declines += 1
        // A single decline may have been caused by a moved deadline.
        guard self.workers[worker].declines > 1 else { return }
        self.workers[worker].isPaused = true
        self.loads.update(worker, in: &self.workers)
        let pause = pauseNanoseconds(afterDeclines: self.workers[worker].declines - 1)
        self.pauseWheel.schedule(UInt32(worker), at: now.advanced(byNanoseconds: pause))
    }
}
