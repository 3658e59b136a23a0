// SPDX-License-Identifier: Apache-2.0

/// Ties a reply to its request; unique within a client's life and never reused (contract S93).
///
/// Numbers rise from 1. They are assigned where a call is made, so a handle knows its own at once.
public struct CorrelationID: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// The number on the wire.
    public let rawValue: UInt64

    @inlinable
    package init(_ rawValue: UInt64) { self.rawValue = rawValue }

    /// Whether `lhs` was assigned before `rhs`.
    public static func < (lhs: Self, rhs: Self) -> Bool { lhs.rawValue < rhs.rawValue }

    /// The number, as in the log.
    public var description: String { "#\(self.rawValue)" }
}

/// Names a client or a worker for one life of its process: 16 random bytes.
public struct PeerID: Hashable, Sendable, CustomStringConvertible {
    package static let byteCount = 16
    package let high: UInt64
    package let low: UInt64

    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// Reads the 16 bytes of the wire, or nil if there are more or fewer.
    package init?(bytes: [UInt8]) {
        guard bytes.count == 16 else { return nil }
        self.high = bytes[0..<8].reduce(0) { $0 << 8 | UInt64($1) }
        self.low = bytes[8..<16].reduce(0) { $0 << 8 | UInt64($1) }
    }

    /// The 16 bytes of the wire, most significant first.
    package var bytes: [UInt8] {
        [self.high, self.low].flatMap { half in (0..<8).map { UInt8(truncatingIfNeeded: half >> (56 - 8 * $0)) } }
    }

    /// The bytes in hexadecimal.
    public var description: String {
        self.bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
}

/// Numbers a subscription within its client; never reused within the client's life.
public struct SubscriptionID: Hashable, Sendable, CustomStringConvertible {
    /// The number on the wire.
    public let rawValue: UInt32

    @inlinable
    package init(_ rawValue: UInt32) { self.rawValue = rawValue }

    /// The number, as in the log.
    public var description: String { "\(self.rawValue)" }
}
