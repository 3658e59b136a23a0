// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// A value that one thread provides once and others wait for, such as "bound to this endpoint" or "failed because".
package final class ReadySignal<Value: Sendable>: Sendable {
    // The word: 0: no value yet; 1: a thread is about to set it; 2: it is there.
    private let word = FutexWord(0)
    private let value = Mutex<Value?>(nil)

    package init() {}

    /// Sets the value; only the first call counts.
    ///
    /// - Returns: Whether this call was the first.
    @discardableResult
    package func set(_ value: Value) -> Bool {
        guard self.word.compareExchangeRelaxed(0, 1) else { return false }
        self.value.withLock { $0 = value }
        self.word.store(2)
        self.word.wake(.max)
        return true
    }

    /// The value, if it has been set.
    package var current: Value? {
        self.word.value == 2 ? self.value.withLock { $0 } : nil
    }

    /// Waits for the value.
    @available(*, noasync)
    package func wait() -> Value {
        while true {
            if let value = self.wait(until: MonotonicClock.never) { return value }
        }
    }

    /// Waits for the value until `deadline`, a reading of ``MonotonicClock``.
    ///
    /// - Returns: The value, or nil if it didn't come in time.
    @available(*, noasync)
    package func wait(until deadline: UInt64) -> Value? {
        while true {
            let word = self.word.value
            guard word != 2 else { return self.current }
            // The change from 1 to 2 wakes this thread as well.
            guard self.word.wait(while: word, until: deadline) else { return self.current }
        }
    }
}
