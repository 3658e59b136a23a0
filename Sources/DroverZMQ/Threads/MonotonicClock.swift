// SPDX-License-Identifier: Apache-2.0

import CDroverZMQ

/// The kernel's clock that only goes forward: the one that futexes and timeouts are measured with.
package enum MonotonicClock {
    /// A deadline that never comes.
    package static let never = UInt64.max

    /// Nanoseconds since an origin that is the same for all threads of this host; costs some 20 ns.
    package static func now() -> UInt64 {
        drover_monotonic_now()
    }

    /// What ``now()`` was some milliseconds ago, at the kernel's last tick; costs a quarter of it.
    package static func roughly() -> UInt64 {
        drover_monotonic_rough_now()
    }

    /// The reading that lies `duration` ahead, or ``never`` if that is beyond all clocks.
    package static func deadline(after duration: Duration) -> UInt64 {
        guard duration > .zero else { return Self.now() }
        guard let nanoseconds = duration.roundedUp(toMultipleOfNanoseconds: 1) else { return Self.never }
        let (sum, overflow) = Self.now().addingReportingOverflow(UInt64(nanoseconds))
        return overflow ? Self.never : sum
    }
}

extension Duration {
    /// How many units this is, rounded up; nil if that isn't an `Int64`.
    func roundedUp(toMultipleOfNanoseconds unit: Int64) -> Int64? {
        let (seconds, attoseconds) = self.components
        let (whole, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        let (nanoseconds, overflow2) = whole.addingReportingOverflow(
            attoseconds / 1_000_000_000 + (attoseconds % 1_000_000_000 > 0 ? 1 : 0)
        )
        guard !overflow && !overflow2 else { return nil }
        return nanoseconds / unit + (nanoseconds % unit > 0 ? 1 : 0)
    }
}
