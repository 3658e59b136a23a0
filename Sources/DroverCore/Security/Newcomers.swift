// SPDX-License-Identifier: Apache-2.0

internal import DequeModule

/// Connections by which nobody has introduced themselves yet: each takes a descriptor, and there are only so many.
///
/// The oldest goes when there are too many: who means to speak does so within milliseconds, and who was cut off connects again.
/// A connection whose session has ended, or goes on by another one, belongs here again.
package struct Newcomers: Sendable {
    /// A connection, by its descriptor and by what tells it from the one that has the descriptor next.
    package struct Connection: Hashable, Sendable {
        package let descriptor: CInt
        package let cookie: UInt64

        package init(descriptor: CInt, cookie: UInt64) {
            self.descriptor = descriptor
            self.cookie = cookie
        }
    }

    /// How many there may be.
    package let limit: Int
    private var cookies: [CInt: UInt64] = [:]
    /// In the order they came; some may have introduced themselves, or be gone.
    private var line: Deque<Connection> = []

    /// - Parameters:
    ///   - descriptors: How many the process may have.
    ///   - most: How many newcomers are enough, however many descriptors there are.
    package init(descriptors: Int, most: Int = 8192) {
        self.limit = max(8, min(most, descriptors / 4))
    }

    package var count: Int { self.cookies.count }

    /// A connection was accepted, or its session has ended.
    ///
    /// - Parameters:
    ///   - connection: The connection.
    ///   - isFull: Whether there are more connections in all than there may be.
    /// - Returns: One that is to be closed for it.
    package mutating func came(_ connection: Connection, isFull: Bool = false) -> Connection? {
        guard self.cookies.updateValue(connection.cookie, forKey: connection.descriptor) != connection.cookie else {
            return nil
        }
        self.line.append(connection)
        if self.line.count > 2 * self.limit + 64 { self.line.removeAll { self.cookies[$0.descriptor] != $0.cookie } }
        return isFull || self.count > self.limit ? self.takeOldest() : nil
    }

    /// Somebody introduced themselves by a connection, or it was closed.
    package mutating func left(_ descriptor: CInt) { self.cookies[descriptor] = nil }

    /// There is no descriptor left: half of those that wait are to be closed, the oldest first.
    package mutating func ranShort() -> [Connection] {
        var oldest: [Connection] = []
        let wanted = (self.count + 1) / 2
        while oldest.count < wanted, let next = self.takeOldest() { oldest.append(next) }
        return oldest
    }

    private mutating func takeOldest() -> Connection? {
        while let oldest = self.line.popFirst() {
            guard self.cookies[oldest.descriptor] == oldest.cookie else { continue }
            self.cookies[oldest.descriptor] = nil
            return oldest
        }
        return nil
    }
}
