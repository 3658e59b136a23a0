// SPDX-License-Identifier: Apache-2.0

/// Counts the bytes of answers that one client was sent and isn't known to have read.
///
/// What a client doesn't read stays in this process: in libzmq, or in messages that are sent in parts. So after a
/// quarter of the limit, or 128 KiB, the client is asked, with a PING behind the answers, how far it has read; its PONG
/// says that it has read them. A client whose requests wait for it to read is asked about smaller amounts, so that
/// everything that keeps them waiting has been asked about.
package struct UnreadAnswers: Equatable, Sendable {
    /// How many bytes were sent and aren't known to have been read.
    package private(set) var bytes = 0
    private var sent = 0
    private var asked = 0
    /// At most how much is sent before asking: answers known to have been read needn't be kept for re-sent requests;
    /// see ``ResultCache/read()``.
    private static let askedBytes = 128 << 10

    package init() {}

    /// An answer was sent.
    ///
    /// - Returns: Whether to ask the client behind it.
    package mutating func sent(_ count: Int, limit: Int, isHeldUp: Bool = false) -> Bool {
        self.bytes += count
        self.sent += count
        return self.askIfDue(limit, isHeldUp)
    }

    /// The client's requests have to wait from now on.
    ///
    /// - Returns: Whether to ask the client.
    package mutating func heldUp(limit: Int) -> Bool { self.askIfDue(limit, true) }

    /// The client has read everything that was sent before the question, or it was lost with a connection.
    ///
    /// - Returns: Whether to ask the client again.
    package mutating func answered(limit: Int, isHeldUp: Bool = false) -> Bool {
        self.bytes -= self.asked
        self.asked = 0
        return self.askIfDue(limit, isHeldUp)
    }

    /// The question, and some of what was sent, may have been dropped on the way.
    ///
    /// - Returns: Whether to ask the client again.
    package mutating func questionLost(limit: Int, isHeldUp: Bool) -> Bool {
        self.sent += self.asked
        self.asked = 0
        return self.askIfDue(limit, isHeldUp)
    }

    private mutating func askIfDue(_ limit: Int, _ isHeldUp: Bool) -> Bool {
        guard self.asked == 0,
            self.sent >= (isHeldUp ? limit / UnreadLimit.leastShare : min(limit / 4, Self.askedBytes))
        else {
            return false
        }
        self.asked = self.sent
        self.sent = 0
        return true
    }
}

/// Decides which clients read so slowly that their requests have to wait.
package struct UnreadLimit: Equatable, Sendable {
    /// How many bytes one client may leave unread before its requests wait.
    package let perClient: Int
    /// How many bytes all clients may leave unread before the requests of those that left more than a small part of it
    /// wait.
    package let inAll: Int

    package init(perClient: Int) {
        // So that four times as much doesn't overflow.
        self.perClient = min(perClient, Int.max / 4)
        self.inAll = 4 * self.perClient
    }

    /// How much a client may leave unread whatever others do: up to 4,096 clients, all such shares together are no
    /// more than all clients may leave unread.
    package func share(clients: Int) -> Int {
        max(self.perClient / Self.leastShare, min(self.perClient / 64, self.inAll / max(1, clients)))
    }

    /// Divides what one client may leave unread: the result is the smallest share, and the smallest amount to ask
    /// about.
    static var leastShare: Int { 1024 }

    /// Whether a client's requests must wait.
    ///
    /// - Parameters:
    ///   - unread: How much it has not read.
    ///   - total: How much all clients have not read.
    ///   - clients: How many clients there are.
    ///   - isHeldUp: Whether its requests already wait: then they do until it has read half.
    /// - Returns: Whether they wait, or keep waiting.
    package func mustWait(unread: Int, total: Int, clients: Int = 1, isHeldUp: Bool) -> Bool {
        let (most, mostInAll) = isHeldUp ? (self.perClient / 2, self.inAll / 2) : (self.perClient, self.inAll)
        return unread >= most || (total >= mostInAll && unread >= self.share(clients: clients))
    }
}
