// SPDX-License-Identifier: Apache-2.0

package import DroverWire

/// Stamps what goes to one peer with this side's clock, for the peer's ``TransitClock``.
///
/// `time` of what follows a stamp is what was left at the stamp: together they say when the deadline is, whatever they wait in.
package struct DepartureClock: Equatable, Sendable {
    /// The last stamp that the peer reads before what is sent now; 0 if there is none.
    private var last: UInt32 = 0
    /// The peer takes deadlines for earlier than they are.
    private var isMistaken = false

    package init() {}

    /// The stamp for a HELLO, which begins anew at both sides.
    package mutating func hello(at now: Instant) -> UInt32 {
        self.isMistaken = false
        self.last = Self.stamp(at: now)
        return self.last
    }

    /// A sign of life with a stamp.
    package mutating func beat(epoch: UInt64, at now: Instant) -> Header {
        defer { self.isMistaken = false }
        self.last = Self.stamp(at: now)
        return Header(.beat, id: epoch, time: self.last, number: self.isMistaken ? Header.newClock : 0)
    }

    /// What is left until `deadline`, as a header has it, and the stamp that must go before it, if one is due.
    package mutating func time(
        until deadline: Instant,
        epoch: UInt64,
        at now: Instant
    ) -> (time: UInt32, beat: Header?) {
        guard deadline != .distantFuture else { return (Header.noTimeLimit, nil) }
        return (deadline.headerTime(at: now), self.stampIfDue(epoch: epoch, at: now))
    }

    /// The stamp that must go before a time that is counted from now, if one is due.
    ///
    /// What is sent in one turn has one: it is written at one reading of the clock.
    package mutating func stampIfDue(epoch: UInt64, at now: Instant) -> Header? {
        self.last == Self.stamp(at: now) ? nil : self.beat(epoch: epoch, at: now)
    }

    /// What was on its way may be lost, and the last stamp with it.
    package mutating func forget() { self.last = 0 }

    /// The peer dropped a call whose time isn't over.
    ///
    /// One of the clocks stood still for a while, as that of a machine does that is suspended: the peer is told not to go by
    /// earlier stamps.
    package mutating func wasMistaken() {
        self.last = 0
        self.isMistaken = true
    }

    private static func stamp(at now: Instant) -> UInt32 {
        // 0 says nothing.
        max(1, UInt32(truncatingIfNeeded: now.nanoseconds / 1000))
    }
}
