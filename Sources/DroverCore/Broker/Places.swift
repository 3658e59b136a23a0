// SPDX-License-Identifier: Apache-2.0

/// How many sessions a process can have: each may stand for a connection, and a connection takes a descriptor.
///
/// A margin stays free, for connections by which nobody has introduced themselves yet, for those that take an old one's place, and
/// for all else that a process opens. Without it those that have a session would keep everybody out, and each other when they
/// come back.
package struct Places: Equatable, Sendable {
    /// How many sessions there may be.
    package var count: Int
    /// How many more there may be of tenants that have few.
    package var spare: Int

    /// No bound.
    package static var unlimited: Places { Places(count: .max / 2, spare: 0) }

    package init(count: Int, spare: Int) {
        self.count = count
        self.spare = spare
    }

    /// Those of a process that may have so many descriptors, and has so many already.
    ///
    /// An eighth stays free, 16 at least: twice as many as connections in all leave (`ListenerGate`).
    package init(descriptors: Int, open: Int) {
        let margin = max(16, descriptors / 8)
        self.count = max(4, descriptors - min(descriptors, open) - margin)
        self.spare = margin / 3
    }
}
