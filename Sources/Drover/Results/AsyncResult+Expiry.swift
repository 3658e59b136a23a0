// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverZMQ

extension AnyAsyncResult {
    /// Sets when the caller stops waiting, counted from now; replaces what was set before (contract S26-S31).
    ///
    /// Zero or less expires a pending handle at once. Durations too long for the clock mean never.
    ///
    /// - Parameter limit: The time left, or nil for no limit.
    /// - Returns: False if the call had ended already; nothing changes then.
    @discardableResult
    public final func setExpiry(_ limit: Duration?) -> Bool {
        guard let limit else {
            return self.moveDeadline(to: .distantFuture, limitNanoseconds: .max)
        }
        let nanoseconds = limit.clampedNanoseconds
        return self.moveDeadline(
            to: self.client.now().advanced(byNanoseconds: nanoseconds),
            limitNanoseconds: nanoseconds
        )
    }

    /// Sets the point in time at which the caller stops waiting; one that has passed expires a pending handle at once.
    ///
    /// - Parameter instant: The deadline; stepping the wall clock doesn't move it.
    /// - Returns: False if the call had ended already.
    @discardableResult
    public final func setDeadline(at instant: ContinuousClock.Instant) -> Bool {
        self.setExpiry(instant - ContinuousClock.now)
    }
}
