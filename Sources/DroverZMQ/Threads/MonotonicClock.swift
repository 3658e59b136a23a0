// SPDX-License-Identifier: Apache-2.0

import CDroverZMQ

/// The kernel's clock that only moves forward, which futexes and timeouts use.
package enum MonotonicClock {
    /// A deadline that never comes.
    package static let never = UInt64.max

    /// Nanoseconds since an origin that is the same for all threads of this host; costs some 20 ns.
    package static func now() -> UInt64 {
        drover_monotonic_now()
    }

    /// What ``now()`` was some milliseconds ago, at the kernel's last tick; costs a quarter as much.
    package static func roughly() -> UInt64 {
        drover_monotonic_rough_now()
    }

    /// The reading that is `duration` ahead, or ``never`` if no clock gets that far.
    package static func deadline(after duration: Duration) -> UInt64 {
        guard duration > .zero else { return Self.now() }
        guard let nanoseconds = duration.roundedUp(toMultipleOfNanoseconds: 1) else { return Self.never }
        let (sum, overflow) = Self.now().addingReportingOverflow(UInt64(nanoseconds))
        return overflow ? Self.never : sum
    }
}

extension Duration {
    /// The longest duration that 64 bits of nanoseconds can hold, 292 years.
    private static var longest: Duration {
        Duration(secondsComponent: 9_223_372_036, attosecondsComponent: 854_775_807_000_000_000)
    }

    /// The duration in nanoseconds, with the rest in attoseconds; nil if it is longer than 292 years, positive or
    /// negative.
    ///
    /// Nothing else may read a duration's `components`: beyond 2^63 seconds, that ends the process.
    package var wholeNanoseconds: (count: Int64, rest: Int64)? {
        guard self <= Self.longest, self >= .zero - Self.longest else { return nil }
        let (seconds, attoseconds) = self.components
        return (seconds * 1_000_000_000 + attoseconds / 1_000_000_000, attoseconds % 1_000_000_000)
    }

    /// Nanoseconds, at least 0; `UInt64.max`, which means never, for more than 292 years.
    package var clampedNanoseconds: UInt64 {
        guard self > .zero else { return 0 }
        return self.wholeNanoseconds.map { UInt64($0.count) } ?? .max
    }

    /// This, but at least zero and at most 292 years, so that one can calculate with it.
    package var clamped: Duration { Duration(nanoseconds: self.clampedNanoseconds) }

    /// A duration of so many nanoseconds, or the longest there is.
    package init(nanoseconds: UInt64) {
        self = .nanoseconds(Int64(clamping: nanoseconds))
    }

    /// How many units this is, rounded up; nil if that isn't an `Int64`.
    func roundedUp(toMultipleOfNanoseconds unit: Int64) -> Int64? {
        guard let (count, rest) = self.wholeNanoseconds else { return nil }
        let nanoseconds = count + (rest > 0 ? 1 : 0)
        return nanoseconds / unit + (nanoseconds % unit > 0 ? 1 : 0)
    }
}
