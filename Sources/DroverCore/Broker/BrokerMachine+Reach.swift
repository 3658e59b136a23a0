// SPDX-License-Identifier: Apache-2.0

extension BrokerMachine {
    /// Something could not be sent to a worker, since its connection is gone.
    ///
    /// It gets no more calls until it has offered itself by another connection. What it has it keeps until its silence has
    /// lasted: it may come back.
    package mutating func unreachable(_ worker: Int) {
        guard self.workers[worker].isLive else { return }
        self.workers[worker].isOpen = false
        self.loads.update(worker, in: &self.workers)
    }
}
