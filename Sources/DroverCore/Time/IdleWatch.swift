// SPDX-License-Identifier: Apache-2.0

/// Says when an idle loop releases memory: a few seconds after it last had something to do, and a few times more, with
/// pauses that double, because some memory may become releasable only later.
package struct IdleWatch: Equatable, Sendable {
    package static let firstNanoseconds: UInt64 = 3_000_000_000
    package static let times = 5

    private var dueAt = Instant.distantFuture
    private var pauseNanoseconds = IdleWatch.firstNanoseconds
    private var timesLeft = 0

    package init() {}

    /// When there is next something to do.
    package var nextDeadline: Instant { self.dueAt }

    /// The loop has something to do.
    package mutating func worked(at now: Instant) {
        self.pauseNanoseconds = Self.firstNanoseconds
        self.timesLeft = Self.times
        self.dueAt = now.advanced(byNanoseconds: Self.firstNanoseconds)
    }

    /// Whether to release memory now.
    package mutating func isDue(at now: Instant) -> Bool {
        guard self.dueAt <= now else { return false }
        self.timesLeft -= 1
        self.pauseNanoseconds *= 2
        self.dueAt = self.timesLeft > 0 ? now.advanced(byNanoseconds: self.pauseNanoseconds) : .distantFuture
        return true
    }
}
