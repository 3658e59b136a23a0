// SPDX-License-Identifier: Apache-2.0

/// Limits how far a worker may get ahead of its reader, with the events of one subscription or the progress of one
/// request.
///
/// Between a worker and its client there is room for hundreds of thousands of events: in libzmq, in the kernel, in a
/// broker. So whatever is sent counts until the client is known to have read it, and the amount is bounded. After a
/// quarter of the bound the peer is asked, with a PING behind what was sent, how far it has read; its PONG says that it
/// has read that far. Only one question is open at a time, so that events needn't be acknowledged one by one.
///
/// It counts units: one for each message, and one for each 4 KiB of payload. So it limits memory as well.
package struct EventWindow: Equatable, Sendable {
    /// There is room as long as fewer units are unread.
    package static let limit = 8192
    /// How many units are sent before the peer is asked.
    package static let period = limit / 4

    /// How many units were taken that the peer isn't known to have read.
    package private(set) var unread = 0
    /// How many units were sent since the last question.
    private var sent = 0
    /// How many units were sent before the open question; none if no question is open.
    private var asked = 0

    package init() {}

    /// How many units a message counts for.
    package static func units(ofPayload byteCount: Int) -> Int { 1 + byteCount >> 12 }

    package var hasRoom: Bool { self.unread < Self.limit }

    /// Whether enough has been read to wake those that wait, which shouldn't happen for each event.
    package var isHalfEmpty: Bool { self.unread <= Self.limit / 2 }

    /// Whether a question is unanswered.
    package var isAsking: Bool { self.asked > 0 }

    /// Something is about to be sent: it counts from now on.
    package mutating func take(_ units: Int) { self.unread += units }

    /// Something was sent.
    ///
    /// - Returns: Whether to ask the peer, behind it, how far it has read.
    package mutating func sent(_ units: Int) -> Bool {
        self.sent += units
        return self.askIfDue()
    }

    /// The peer has read everything that was sent before the question, or it was lost with a connection.
    ///
    /// - Returns: Whether to ask the peer again.
    package mutating func answered() -> Bool {
        self.unread -= self.asked
        self.asked = 0
        return self.askIfDue()
    }

    private mutating func askIfDue() -> Bool {
        guard self.asked == 0, self.sent >= Self.period else { return false }
        self.asked = self.sent
        self.sent = 0
        return true
    }
}
