// SPDX-License-Identifier: Apache-2.0

/// Calls that may have killed workers, and workers that take none.
extension BrokerMachine {
    /// So often a call may be taken back from workers that went in order, or had lost it.
    static var maxMoves: UInt8 { 16 }
    /// So often workers may decline a call before its client is told.
    static var maxDeclines: UInt8 { 20 }

    /// Whether another death would make it poison: then it must have been the only one there.
    func mustBeAlone(_ call: BrokerCall) -> Bool {
        call.attempts > 0 && call.attempts + 1 >= self.configuration.maxAttempts
    }

    /// Sends suspects, each to a worker that has nothing else, and keeps a worker free for the next.
    mutating func placeApart(at now: Instant, actions: inout [BrokerAction]) {
        var former: [Int] = []
        for worker in self.workers.indices where self.workers[worker].isReserved {
            former.append(worker)
            self.workers[worker].isReserved = false
            self.loads.update(worker, in: &self.workers)
        }
        var reserved: Set<UInt32> = []
        for slot in self.calls.slots(of: self.apart) {
            let route = self.calls[slot].route
            guard !reserved.contains(route) else { continue }
            var best: Int?
            for worker in self.workers.indices
            where self.workers[worker].takesCalls && self.workers[worker].routes.contains(Int(route)) {
                let (count, least) = (self.workers[worker].outstanding, best.map { self.workers[$0].outstanding })
                if count < least ?? .max { best = worker }
            }
            guard let best else { continue }
            guard self.workers[best].outstanding == 0 else {
                // One worker at a time is emptied for the calls of a route.
                reserved.insert(route)
                // What a handler there waits for may have nowhere else to go: then it can't be emptied yet.
                guard !self.calls.slots(of: self.workers[best].calls).contains(where: { self.calls[$0].isStalled })
                else { continue }
                self.workers[best].isReserved = true
                self.loads.update(best, in: &self.workers)
                continue
            }
            self.takeOut(slot)
            self.workers[best].isReserved = false
            self.send(slot, to: best, at: now, actions: &actions)
            // Its time may have been over.
            guard self.workers[best].outstanding > 0 else { continue }
            self.workers[best].alone = slot
            self.loads.update(best, in: &self.workers)
        }
        // What is kept free no longer takes others.
        for worker in former where !self.workers[worker].isReserved { self.serve(worker, at: now, actions: &actions) }
    }

    /// A handler asks a callback, which may call the pool itself before it answers.
    package mutating func asked(by worker: Int, at now: Instant, actions: inout [BrokerAction]) {
        guard self.workers[worker].alone != nil else { return }
        self.workers[worker].alone = nil
        self.fill(worker, at: now, actions: &actions)
    }

    /// A worker didn't take a call: if that goes on, it is left alone for a while, each time for twice as long.
    mutating func declined(by worker: Int, at now: Instant) {
        guard !self.workers[worker].isPaused else { return }
        self.workers[worker].declines += 1
        // Once it may have been a deadline that was moved.
        guard self.workers[worker].declines > 1 else { return }
        self.workers[worker].isPaused = true
        self.loads.update(worker, in: &self.workers)
        let pause = pauseNanoseconds(afterDeclines: self.workers[worker].declines - 1)
        self.pauseWheel.schedule(UInt32(worker), at: now.advanced(byNanoseconds: pause))
    }
}
