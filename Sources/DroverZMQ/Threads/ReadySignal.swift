// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// A value that one thread gives once and others wait for, such as "bound to this endpoint" or "failed, because".
package final class ReadySignal<Value: Sendable>: Sendable {
    private let word = FutexWord(0)
    private let value = Mutex<Value?>(nil)

    package init() {}

    /// Gives the value; only the first one counts.
    ///
    /// - Returns: Whether this was the first.
    @discardableResult
    package func set(_ value: Value) -> Bool {
        let isFirst = self.value.withLock { stored in
            guard stored == nil else { return false }
            stored = value
            return true
        }
        guard isFirst else { return false }
        self.word.store(1)
        self.word.wake(.max)
        return true
    }

    /// The value, if it was given already.
    package var current: Value? {
        self.value.withLock { $0 }
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
        var inTime = true
        while self.word.value == 0 && inTime {
            inTime = self.word.wait(while: 0, until: deadline)
        }
        return self.current
    }
}
