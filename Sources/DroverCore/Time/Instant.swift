// SPDX-License-Identifier: Apache-2.0

/// A reading of a monotonic clock, in nanoseconds since an origin that the shell chooses.
///
/// The core never reads a clock: every event carries the reading at which it happened.
package struct Instant: BitwiseCopyable, Hashable, Comparable, Sendable {
    package var nanoseconds: UInt64

    /// An instant that never comes: every overflowing sum saturates to it.
    @inlinable package static var distantFuture: Instant { Instant(nanoseconds: .max) }

    @inlinable package init(nanoseconds: UInt64) {
        self.nanoseconds = nanoseconds
    }

    // All operators are defined here, and inlinable: from another module, those that Comparable derives are called
    // through its witnesses.

    @inlinable package static func == (lhs: Self, rhs: Self) -> Bool { lhs.nanoseconds == rhs.nanoseconds }
    @inlinable package static func < (lhs: Self, rhs: Self) -> Bool { lhs.nanoseconds < rhs.nanoseconds }
    @inlinable package static func <= (lhs: Self, rhs: Self) -> Bool { lhs.nanoseconds <= rhs.nanoseconds }
    @inlinable package static func > (lhs: Self, rhs: Self) -> Bool { lhs.nanoseconds > rhs.nanoseconds }
    @inlinable package static func >= (lhs: Self, rhs: Self) -> Bool { lhs.nanoseconds >= rhs.nanoseconds }

    /// The instant that is `duration` later, or the distant future if there is none.
    @inlinable
    package func advanced(byNanoseconds duration: UInt64) -> Instant {
        let (sum, overflow) = self.nanoseconds.addingReportingOverflow(duration)
        return Instant(nanoseconds: overflow ? .max : sum)
    }

    /// The time that has passed since `earlier`; zero if `earlier` is in fact later.
    @inlinable
    package func nanoseconds(since earlier: Instant) -> UInt64 {
        self.nanoseconds > earlier.nanoseconds ? self.nanoseconds - earlier.nanoseconds : 0
    }
}
