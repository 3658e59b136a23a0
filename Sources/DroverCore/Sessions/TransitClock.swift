// SPDX-License-Identifier: Apache-2.0

package import DroverWire

/// Tells what a peer's deadlines count from, by what the peer says of its clock.
///
/// The peer stamps HELLOs and BEATs with its clock; `time` of what follows is what was left at the last stamp. The trip that
/// was the least under way shows how the two clocks differ: measured by it, any other stamp is that much older as its trip
/// took longer, whatever it waited in. The difference is never taken for less than it is, so a deadline is never taken for
/// earlier than the caller's: clocks drift by less than a thousandth, and the least trip counts for that much more with time.
package struct TransitClock: Equatable, Sendable {
    /// This side's clock less the peer's by the least trip, in microseconds modulo 2^32, and when that ended.
    private var difference: UInt32 = 0
    private var measuredAt = Instant(nanoseconds: 0)
    /// This side's clock at the last stamp; nil if there was none.
    private var lastOrigin: Instant?

    /// Elapsed time shifted by so much is more than two clocks drift apart: 977 of a million, where NTP corrects each by 500.
    private static var driftShift: UInt64 { 10 }

    /// What rounding to microseconds may make of two of them.
    private static var roundingMicroseconds: UInt64 { 2 }

    package init() {}

    /// A HELLO or a BEAT came, with a stamp perhaps.
    ///
    /// - Parameters:
    ///   - header: The message's.
    ///   - arrival: When it was read: not earlier, or the next ones would seem to be late.
    package mutating func received(_ header: Header, at arrival: Instant) {
        if header.kind == .hello { self.lastOrigin = nil }
        guard header.time != 0 else { return }
        self.stamped(header.time, isNew: header.number == Header.newClock && header.kind == .beat, at: arrival)
    }

    /// The peer said what its clock shows.
    ///
    /// - Parameters:
    ///   - stamp: Microseconds modulo 2^32.
    ///   - isNew: The clock may have stood still: what it showed before doesn't count.
    ///   - arrival: When that was read.
    /// - Returns: How much longer than the least it was under way, in nanoseconds.
    @discardableResult
    package mutating func stamped(_ stamp: UInt32, isNew: Bool = false, at arrival: Instant) -> UInt64 {
        // Wrapping: only what a trip took longer matters, which is less than half an hour.
        let difference = UInt32(truncatingIfNeeded: arrival.nanoseconds / 1000) &- stamp
        let drift = (arrival.nanoseconds(since: self.measuredAt) >> Self.driftShift) / 1000
        let least = self.difference &+ UInt32(truncatingIfNeeded: drift + Self.roundingMicroseconds)
        let excess = Int32(bitPattern: difference &- least)
        if self.lastOrigin != nil, !isNew, excess > 0 {
            let nanoseconds = UInt64(excess) * 1000
            self.lastOrigin = Instant(nanoseconds: arrival.nanoseconds - min(nanoseconds, arrival.nanoseconds))
            return nanoseconds
        }
        self.difference = difference
        self.measuredAt = arrival
        self.lastOrigin = arrival
        return 0
    }

    /// What the peer's deadlines count from: its last stamp, or else the arrival.
    package func origin(at now: Instant) -> Instant { self.lastOrigin ?? now }
}
