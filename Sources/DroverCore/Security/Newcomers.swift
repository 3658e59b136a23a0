// SPDX-License-Identifier: Apache-2.0

internal import DequeModule

/// Connections over which no peer has introduced itself yet: each takes a descriptor, and descriptors are limited.
///
/// When there are too many, the oldest is closed: a peer that means to speak does so within milliseconds, and one that
/// was cut off connects again. A connection whose session has ended, or was resumed over another one, belongs here
/// again.
package struct Newcomers: Sendable {
    /// A connection, identified by its descriptor and by a cookie that tells it from the next one with the same
    /// descriptor.
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
    /// Connections in the order they came; some may have introduced themselves, or be gone.
    private var line: Deque<Connection> = []

    /// - Parameters:
    ///   - descriptors: How many descriptors the process may have.
    ///   - most: How many newcomers are enough, however many descriptors there are.
    package init(descriptors: Int, most: Int = 8192) {
        self.limit = max(8, min(most, descriptors / 4))
    }

    package var count: Int { self.cookies.count }

    /// A connection was accepted, or its session has ended.
    ///
    /// - Parameters:
    ///   - connection: The connection.
    ///   - isFull: Whether there are more connections in total than allowed.
    /// - Returns: A connection to close in exchange, if any.
    package mutating func came(_ connection: Connection, isFull: Bool = false) -> Connection? {
        guard self.cookies.updateValue(connection.cookie, forKey: connection.descriptor) != connection.cookie else {
            return nil
        }
        self.line.append(connection)
        if self.line.count > 2 * self.limit + 64 { self.line.removeAll { self.cookies[$0.descriptor] != $0.cookie } }
        return isFull || self.count > self.limit ? self.takeOldest() : nil
    }

    /// A peer introduced itself over a connection, or the connection was closed.
    package mutating func left(_ descriptor: CInt) { self.cookies[descriptor] = nil }

    /// No descriptor is left: returns half of the waiting connections to close, the oldest first.
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
