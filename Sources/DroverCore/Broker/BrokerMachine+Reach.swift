// SPDX-License-Identifier: Apache-2.0

extension BrokerMachine {
    /// Something could not be sent to a worker because its connection is gone.
    ///
    /// It gets no more calls until it has offered itself over another connection. It keeps the calls it has for a
    /// second, because it may come back. A worker that doesn't announce its return at once keeps them until the silence
    /// limit.
    package mutating func unreachable(_ worker: Int, at now: Instant, actions: inout [BrokerAction]) {
        guard self.workers[worker].isLive else { return }
        // It has never answered the introduction, so there is nothing that it could come back to.
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

    /// A worker declined a call: it gets no more until it restates its condition.
    package mutating func holdOff(_ worker: Int) {
        self.workers[worker].isRefusing = true
        self.loads.update(worker, in: &self.workers)
    }
}
