// SPDX-License-Identifier: Apache-2.0

/// Which connection a session was introduced by, and whether it was closed since.
///
/// A ROUTER sends by a route's id, and a peer chooses its id itself: once a connection is closed, another may have its route,
/// under another key, and would be sent what was meant for the first. libzmq tells of a closed connection before its
/// descriptor can be another's, and before its route can: who reads that news first, before an introduction and before
/// sending, sends nothing to strangers, but for what is under way at that very moment.
package struct ConnectionMark: Sendable {
    /// The connection's descriptor; -1 if it has none, or nobody asks.
    package private(set) var descriptor: CInt = -1
    /// Nothing may be sent until the session is introduced anew.
    package private(set) var isClosed = false

    package init() {}

    /// The session was introduced by a connection, whose key was looked at.
    ///
    /// - Parameters:
    ///   - descriptor: The connection's.
    ///   - isOpen: Whether it still stands: what comes may have been sent just before its end.
    package mutating func introduced(by descriptor: CInt, isOpen: Bool = true) {
        self.descriptor = descriptor
        self.isClosed = !isOpen
    }

    /// A connection was closed.
    package mutating func closed(_ descriptor: CInt) {
        if descriptor == self.descriptor, descriptor >= 0 { self.isClosed = true }
    }
}

/// The connections that a listening socket has, as its monitor tells.
package struct OpenConnections: Sendable {
    private var descriptors: Set<CInt> = []

    package init() {}

    package mutating func accepted(_ descriptor: CInt) { self.descriptors.insert(descriptor) }
    package mutating func closed(_ descriptor: CInt) { self.descriptors.remove(descriptor) }

    /// Whether a connection stands; one within the process has no descriptor.
    package func contains(_ descriptor: CInt) -> Bool { descriptor < 0 || self.descriptors.contains(descriptor) }
}
