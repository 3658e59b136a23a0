// SPDX-License-Identifier: Apache-2.0

extension BrokerMachine {
    /// Something could not be sent to a worker, since its connection is gone.
    ///
    /// It gets no more calls until it has offered itself by another connection. What it has it keeps for a second: it may
    /// come back. A worker that doesn't say so as soon as it is back keeps it until its silence has lasted.
    package mutating func unreachable(_ worker: Int, at now: Instant, actions: inout [BrokerAction]) {
        guard self.workers[worker].isLive else { return }
        // It has never answered the introduction: there is nothing that it could come back to.
        if self.workers[worker].sessionNumber == 0 {
            return self.loseWorker(worker, reason: .disconnected, at: now, actions: &actions)
        }
        self.workers[worker].isOpen = false
        self.workers[worker].isCutOff = true
        self.loads.update(worker, in: &self.workers)
        guard self.workers[worker].offer.notices else { return }
        self.perform(self.workers[worker].session.disconnected(at: now), of: worker, at: now, actions: &actions)
        self.watchWorker(worker)
    }

    /// A worker would not take a call: it gets no more until it says again how it is.
    package mutating func holdOff(_ worker: Int) {
        self.workers[worker].isRefusing = true
        self.loads.update(worker, in: &self.workers)
    }
}
