// SPDX-License-Identifier: Apache-2.0

/// The smallest recent value: of the last one to two periods.
///
/// A minimum from long ago means nothing any more: clocks drift, and network paths change.
package struct WindowedMinimum: Equatable, Sendable {
    private let periodNanoseconds: UInt64
    private var former: Int64?
    private var current: Int64?
    private var began = Instant(nanoseconds: 0)

    package init(periodNanoseconds: UInt64) {
        self.periodNanoseconds = periodNanoseconds
    }

    /// Adds a value, and returns the smallest.
    package mutating func add(_ value: Int64, at now: Instant) -> Int64 {
        if self.current == nil {
            self.began = now
        } else if now.nanoseconds(since: self.began) >= self.periodNanoseconds {
            self.former = self.current
            self.current = nil
            self.began = now
        }
        let smallest = min(value, self.current ?? value)
        self.current = smallest
        return min(smallest, self.former ?? smallest)
    }

    /// The smallest value; nil before the first.
    package var value: Int64? {
        guard let current else { return nil }
        return min(current, self.former ?? current)
    }
}
