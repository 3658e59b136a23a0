// SPDX-License-Identifier: Apache-2.0

/// How many bytes of answers one client was sent and isn't known to have read.
///
/// What a client doesn't read stays in this process: in libzmq, or in messages that go in parts. So after a quarter of the limit, or 128 KiB,
/// the client is asked, by a PING behind the answers, how far it is; its PONG says that it has read them. One whose requests
/// wait for it to read is asked about less: whatever keeps them waiting has been asked about.
package struct UnreadAnswers: Equatable, Sendable {
    /// What was sent, and isn't known to have been read.
    package private(set) var bytes = 0
    private var sent = 0
    private var asked = 0
    /// What is known to have been read need not be kept for requests that are sent again; see ``ResultCache/read()``.
    private static let askedBytes = 128 << 10

    package init() {}

    /// An answer was sent.
    ///
    /// - Returns: Whether the client is to be asked behind it.
    package mutating func sent(_ count: Int, limit: Int, isHeldUp: Bool = false) -> Bool {
        self.bytes += count
        self.sent += count
        return self.askIfDue(limit, isHeldUp)
    }

    /// The client's requests have to wait from now on.
    ///
    /// - Returns: Whether the client is to be asked.
    package mutating func heldUp(limit: Int) -> Bool { self.askIfDue(limit, true) }

    /// The client has read all that was sent before the question, or it was lost with a connection.
    ///
    /// - Returns: Whether the client is to be asked again.
    package mutating func answered(limit: Int, isHeldUp: Bool = false) -> Bool {
        self.bytes -= self.asked
        self.asked = 0
        return self.askIfDue(limit, isHeldUp)
    }

    /// The question, and some of what was sent, may have been dropped on its way.
    ///
    /// - Returns: Whether the client is to be asked again.
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

/// Which clients read so slowly that their requests have to wait.
package struct UnreadLimit: Equatable, Sendable {
    /// What one client may leave unread before its requests wait.
    package let perClient: Int
    /// What all may leave unread before those wait who left more than a small part of it.
    package let inAll: Int

    package init(perClient: Int) {
        // So that four times as much is a number too.
        self.perClient = min(perClient, Int.max / 4)
        self.inAll = 4 * self.perClient
    }

    /// What a client may leave unread whatever others do: all such shares together are no more than all may leave unread.
    package func share(clients: Int) -> Int {
        max(self.perClient / Self.leastShare, min(self.perClient / 64, self.inAll / max(1, clients)))
    }

    /// No share is less than this part of what one client may leave, nor is one asked about less.
    static var leastShare: Int { 1024 }

    /// Whether a client's requests must wait.
    ///
    /// - Parameters:
    ///   - unread: What it has not read.
    ///   - total: What all clients have not read.
    ///   - clients: How many clients there are.
    ///   - isHeldUp: Whether its requests wait already: then until it has read half.
    /// - Returns: Whether they wait (on).
    package func mustWait(unread: Int, total: Int, clients: Int = 1, isHeldUp: Bool) -> Bool {
        let (most, mostInAll) = isHeldUp ? (self.perClient / 2, self.inAll / 2) : (self.perClient, self.inAll)
        return unread >= most || (total >= mostInAll && unread >= self.share(clients: clients))
    }
}
