// SPDX-License-Identifier: Apache-2.0

/// How far a worker may get ahead of its reader: the events of one subscription, or the progress of one request.
///
/// Between a worker and its client there is room for hundreds of thousands of events: in libzmq, in the kernel, in a broker.
/// So what is told is counted until the client is known to have read it, and there is room for a bounded amount. After a
/// quarter of the bound the peer is asked, by a PING behind what was sent, how far it is; its PONG says that it has read
/// that. One question is open at a time, so that nothing travels for each event.
///
/// It counts units: one for each message, and one for each 4 KiB of payload. So it bounds memory as well.
package struct EventWindow: Equatable, Sendable {
    /// There is room as long as fewer units are unread.
    package static let limit = 8192
    /// So many units are sent before the peer is asked.
    package static let period = limit / 4

    /// Units that were taken and that the peer isn't known to have read.
    package private(set) var unread = 0
    /// Units that were sent since the last question.
    private var sent = 0
    /// Units that were sent before the question that is open, none if there is none.
    private var asked = 0

    package init() {}

    /// What a message counts.
    package static func units(ofPayload byteCount: Int) -> Int { 1 + byteCount >> 12 }

    package var hasRoom: Bool { self.unread < Self.limit }

    /// Whether so much has been read that those who wait are to be woken: not for each event, then.
    package var isHalfEmpty: Bool { self.unread <= Self.limit / 2 }

    /// A question has not been answered.
    package var isAsking: Bool { self.asked > 0 }

    /// Something is to be sent: it counts from now on.
    package mutating func take(_ units: Int) { self.unread += units }

    /// It was sent.
    ///
    /// - Returns: Whether the peer is to be asked behind it how far it is.
    package mutating func sent(_ units: Int) -> Bool {
        self.sent += units
        return self.askIfDue()
    }

    /// The peer has read all that was sent before the question, or it was lost with a connection.
    ///
    /// - Returns: Whether the peer is to be asked again.
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
