// SPDX-License-Identifier: Apache-2.0

/// The invocations of one peer that a client works on: what it says of them when a session went on by another connection.
///
/// An answer belongs to the session that its invocation came in: in the next one its id may stand for another.
package struct OpenInvocations: Sendable {
    /// Counts the sessions.
    package private(set) var session: UInt64 = 0
    private var open: Set<UInt64> = []

    package init() {}

    package var count: Int { self.open.count }

    /// In the order in which they came, for the ids rise.
    package var ids: [UInt64] { self.open.sorted() }

    package mutating func received(_ id: UInt64) { self.open.insert(id) }

    /// An answer is there.
    ///
    /// - Returns: Whether the peer still waits for it.
    package func isOpen(_ id: UInt64, in session: UInt64) -> Bool { session == self.session && self.open.contains(id) }

    /// The answer was sent.
    package mutating func answered(_ id: UInt64) { self.open.remove(id) }

    /// Another session begins.
    package mutating func begin() {
        self.session &+= 1
        self.open.removeAll()
    }
}
