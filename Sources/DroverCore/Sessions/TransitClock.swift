// SPDX-License-Identifier: Apache-2.0

package import DroverWire

/// Works out what a peer's deadlines count from, by what the peer says about its clock.
///
/// The peer stamps HELLOs and BEATs with its clock; the `time` of a message that follows is what was left at the last
/// stamp. The shortest trip shows how the two clocks differ: relative to it, any other stamp is older by as much as its
/// trip took longer, whatever it waited in. The difference is never underestimated, so a deadline is never taken to be
/// earlier than the caller's: clocks drift by less than a thousandth, and the shortest trip counts for that much more
/// as time passes.
package struct TransitClock: Equatable, Sendable {
    /// This side's clock minus the peer's, by the shortest trip, in microseconds modulo 2^32, and when that trip ended.
    private var difference: UInt32 = 0
    private var measuredAt = Instant(nanoseconds: 0)
    /// This side's clock at the last stamp; nil if there was none.
    private var lastOrigin: Instant?

    /// Elapsed time shifted right by this is more than two clocks usually drift apart: 977 parts per million, where NTP
    /// corrects each clock by 500 at most.
    private static var driftShift: UInt64 { 10 }

    /// How much rounding two readings to microseconds may add.
    private static var roundingMicroseconds: UInt64 { 2 }

    package init() {}

    /// A HELLO or a BEAT arrived, perhaps with a stamp.
    ///
    /// - Parameters:
    ///   - header: The message's header.
    ///   - arrival: When it was read, not earlier, or the next messages would seem to be late.
    package mutating func received(_ header: Header, at arrival: Instant) {
        if header.kind == .hello { self.lastOrigin = nil }
        guard header.time != 0 else { return }
        self.stamped(header.time, isNew: header.number == Header.newClock && header.kind == .beat, at: arrival)
    }

    /// The peer said what its clock shows.
    ///
    /// - Parameters:
    ///   - stamp: Microseconds modulo 2^32.
    ///   - isNew: Whether the clock may have stood still: earlier readings then don't count.
    ///   - arrival: When the stamp was read.
    /// - Returns: How much longer it was under way than the shortest trip, in nanoseconds.
    @discardableResult
    package mutating func stamped(_ stamp: UInt32, isNew: Bool = false, at arrival: Instant) -> UInt64 {
        // This may wrap: only a trip's extra time matters, which is less than half an hour.
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

    /// The instant that the peer's deadlines count from: its last stamp, or else the arrival.
    package func origin(at now: Instant) -> Instant { self.lastOrigin ?? now }
}
