// SPDX-License-Identifier: Apache-2.0

internal import DroverCore

extension WorkerLoop {
    /// Learns of functions that were registered; brokers are told at the next tick, of all at once.
    ///
    /// - Returns: Whether there were any.
    @discardableResult
    func learnHandlers() -> Bool {
        let new = self.core.handlers(from: self.handlers.count)
        guard !new.isEmpty else { return false }
        for handler in new {
            self.handlerNumbers[handler.name] = Int32(self.handlers.count)
            self.handlers.append(handler)
            self.machine.registered(handler.name, limit: handler.limit, runLimits: handler.timeLimits.limits)
        }
        self.nextTick = self.now
        return true
    }

    /// The number of a function's handler; nil if none is registered.
    func handlerNumber(_ name: String) -> Int32? {
        if let number = self.handlerNumbers[name] { return number }
        return self.core.handlerCount > self.handlers.count && self.learnHandlers() ? self.handlerNumbers[name] : nil
    }
}
