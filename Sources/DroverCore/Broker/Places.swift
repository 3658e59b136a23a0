// SPDX-License-Identifier: Apache-2.0

/// How many sessions a process can have: each may stand for a connection, and a connection takes a descriptor.
///
/// A margin stays free for connections over which no peer has introduced itself yet, for those that replace an old one,
/// and for everything else that a process opens. Without it, peers that have a session would keep out everyone else,
/// and each other when they reconnect.
package struct Places: Equatable, Sendable {
    /// How many sessions there may be.
    package var count: Int
    /// How many more there may be for tenants that have few.
    package var spare: Int

    /// No bound.
    package static var unlimited: Places { Places(count: .max / 2, spare: 0) }

    package init(count: Int, spare: Int) {
        self.count = count
        self.spare = spare
    }

    /// The places of a process that may have this many descriptors, and already has some open.
    ///
    /// An eighth of the descriptors stays free, at least 16: twice as many as all connections together leave
    /// (`ListenerGate`).
    package init(descriptors: Int, open: Int) {
        let margin = max(16, descriptors / 8)
        self.count = max(4, descriptors - min(descriptors, open) - margin)
        self.spare = margin / 3
    }
}
