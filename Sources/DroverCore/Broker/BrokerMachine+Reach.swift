// SPDX-License-Identifier: Apache-2.0

extension BrokerMachine {
    /// Something could not be sent to a worker, since its connection is gone.
    ///
    /// It gets no more calls until it has offered itself by another connection. What it has it keeps until its silence has
    /// lasted: it may come back.
    package mutating func unreachable(_ worker: Int, at now: Instant, actions: inout [BrokerAction]) {
        guard self.workers[worker].isLive else { return }
        // It has never answered the introduction: there is nothing that it could come back to.
        if self.workers[worker].sessionNumber == 0 {
            return self.loseWorker(worker, reason: .left, at: now, actions: &actions)
        }
        self.workers[worker].isOpen = false
        self.loads.update(worker, in: &self.workers)
    }

    /// A worker would not take a call: it gets no more until it says again how it is.
    package mutating func holdOff(_ worker: Int) {
        self.workers[worker].isRefusing = true
        self.loads.update(worker, in: &self.workers)
    }
}
