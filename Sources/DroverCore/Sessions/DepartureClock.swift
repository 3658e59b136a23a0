// SPDX-License-Identifier: Apache-2.0

package import DroverWire

/// Stamps what is sent to one peer with this side's clock, for the peer's ``TransitClock``.
///
/// The `time` of a message that follows a stamp is what was left at the stamp. Together they determine the deadline,
/// whatever the messages have to wait in.
package struct DepartureClock: Equatable, Sendable {
    /// The last stamp that the peer reads before anything sent now; 0 if there is none.
    private var last: UInt32 = 0
    /// Whether the peer takes deadlines to be earlier than they are.
    private var isMistaken = false

    package init() {}

    /// The stamp for a HELLO, with which both sides begin anew.
    package mutating func hello(at now: Instant) -> UInt32 {
        self.isMistaken = false
        self.last = Self.stamp(at: now)
        return self.last
    }

    /// A BEAT with a stamp.
    package mutating func beat(epoch: UInt64, at now: Instant) -> Header {
        defer { self.isMistaken = false }
        self.last = Self.stamp(at: now)
        return Header(.beat, id: epoch, time: self.last, number: self.isMistaken ? Header.newClock : 0)
    }

    /// The time left until `deadline`, as a header gives it, and the stamp that must be sent before it, if one is due.
    package mutating func time(
        until deadline: Instant,
        epoch: UInt64,
        at now: Instant
    ) -> (time: UInt32, beat: Header?) {
        guard deadline != .distantFuture else { return (Header.noTimeLimit, nil) }
        return (deadline.headerTime(at: now), self.stampIfDue(epoch: epoch, at: now))
    }

    /// The stamp that must be sent before a time that is counted from now, if one is due.
    ///
    /// All messages sent in one iteration of the loop share one stamp, because they are written at one clock reading.
    package mutating func stampIfDue(epoch: UInt64, at now: Instant) -> Header? {
        self.last == Self.stamp(at: now) ? nil : self.beat(epoch: epoch, at: now)
    }

    /// What was in transit may be lost, and the last stamp with it.
    package mutating func forget() { self.last = 0 }

    /// The peer dropped a call whose deadline hasn't passed.
    ///
    /// One of the clocks stood still for a while, as on a machine that is suspended: the peer is told not to go by
    /// earlier stamps.
    package mutating func wasMistaken() {
        self.last = 0
        self.isMistaken = true
    }

    private static func stamp(at now: Instant) -> UInt32 {
        // 0 means no stamp.
        max(1, UInt32(truncatingIfNeeded: now.nanoseconds / 1000))
    }
}
