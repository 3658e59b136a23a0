// SPDX-License-Identifier: Apache-2.0

/// The invocations of one peer that a client is working on, which it reports when a session is resumed over another
/// connection.
///
/// An answer belongs to the session in which its invocation arrived: in the next session its id may stand for another
/// one.
package struct OpenInvocations: Sendable {
    /// Counts the sessions.
    package private(set) var session: UInt64 = 0
    private var open: Set<UInt64> = []

    package init() {}

    package var count: Int { self.open.count }

    /// The ids in the order in which the invocations arrived, because ids rise.
    package var ids: [UInt64] { self.open.sorted() }

    package mutating func received(_ id: UInt64) { self.open.insert(id) }

    /// An answer is ready.
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
