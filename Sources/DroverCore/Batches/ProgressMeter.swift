// SPDX-License-Identifier: Apache-2.0

/// Measures how fast work proceeds, and estimates how long the rest will take.
///
/// The rate covers the latest quarter of the time, or the latest five seconds if that is longer: it follows when the
/// work becomes slower or faster, and doesn't jump when single items take minutes. Memory is constant: when there are
/// too many readings, every other one is dropped and later ones are taken further apart.
package struct ProgressMeter: Sendable {
    private struct Reading: Sendable {
        let at: Instant
        let count: Int
    }

    private static let capacity = 64
    private static let leastHorizon: UInt64 = 5_000_000_000

    /// The readings, rising; the first is the beginning.
    private var readings: [Reading]
    private var spacing: UInt64 = 100_000_000

    /// Begins to measure.
    package init(at now: Instant) {
        self.readings = [Reading(at: now, count: 0)]
        self.readings.reserveCapacity(Self.capacity)
    }

    /// When the measuring began.
    package var beginning: Instant { self.readings[0].at }

    /// This many items are done by now.
    ///
    /// It costs nothing unless some time has passed since the last reading that was kept.
    package mutating func counted(_ count: Int, at now: Instant) {
        let last = self.readings[self.readings.count - 1]
        guard now.nanoseconds(since: last.at) >= self.spacing else { return }
        if self.readings.count == Self.capacity {
            self.readings = stride(from: 0, to: self.readings.count, by: 2).map { self.readings[$0] }
            self.readings.reserveCapacity(Self.capacity)
            self.spacing *= 2
        }
        self.readings.append(Reading(at: now, count: count))
    }

    /// How many items are done per second.
    ///
    /// - Parameters:
    ///   - count: How many items are done by now.
    ///   - now: The clock's reading.
    /// - Returns: The rate; nil if no time has passed.
    package func rate(_ count: Int, at now: Instant) -> Double? {
        let elapsed = now.nanoseconds(since: self.beginning)
        guard elapsed > 0 else { return nil }
        let horizon = max(Self.leastHorizon, elapsed / 4)
        // The last reading that is at least that old, or the beginning if none is.
        let base = self.readings.last { now.nanoseconds(since: $0.at) >= horizon } ?? self.readings[0]
        return Double(count - base.count) * 1e9 / Double(now.nanoseconds(since: base.at))
    }

    /// How long the rest will take at the current rate.
    ///
    /// - Parameters:
    ///   - count: How many items are done by now.
    ///   - total: How many items there are.
    ///   - now: The clock's reading.
    /// - Returns: Nanoseconds; nil if that can't be estimated.
    package func remainingNanoseconds(_ count: Int, of total: Int, at now: Instant) -> UInt64? {
        guard count < total else { return 0 }
        guard let rate = self.rate(count, at: now), rate > 0 else { return nil }
        let nanoseconds = Double(total - count) / rate * 1e9
        return nanoseconds < 9e18 ? UInt64(nanoseconds) : nil
    }
}
