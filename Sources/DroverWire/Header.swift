// SPDX-License-Identifier: Apache-2.0

/// The fixed part in front of every message: 24 bytes, little-endian (`docs/protocol.md`, section 4).
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | 1 | magic and major version, `0xD0 | major` |
/// | 1 | 1 | kind |
/// | 2 | 1 | flags |
/// | 3 | 1 | content type |
/// | 4 | 4 | payload length in bytes |
/// | 8 | 8 | id: a correlation id, a sequence number, an epoch or a nonce, by kind |
/// | 16 | 4 | time: remaining milliseconds, or a small number, by kind |
/// | 20 | 4 | number: a function, a subscription or a reason, by kind |
///
/// The kind is kept as a raw byte: a receiver must be able to skip kinds that it does not know.
package struct Header: Equatable, Sendable {
    /// The bytes that a header takes.
    @inlinable package static var byteCount: Int { 24 }
    /// `time` of a request without a limit.
    @inlinable package static var noTimeLimit: UInt32 { .max }
    /// `number` of a beat whose stamp is not to be compared with earlier ones.
    @inlinable package static var newClock: UInt32 { 1 }

    package var rawKind: UInt8
    package var flags: Flags
    package var contentType: UInt8
    package var payloadLength: UInt32
    package var id: UInt64
    package var time: UInt32
    package var number: UInt32

    @inlinable
    package init(
        _ kind: MessageKind,
        flags: Flags = [],
        payloadLength: UInt32 = 0,
        id: UInt64 = 0,
        time: UInt32 = 0,
        number: UInt32 = 0
    ) {
        self.rawKind = kind.rawValue
        self.flags = flags
        self.contentType = ContentType.messagePack.rawValue
        self.payloadLength = payloadLength
        self.id = id
        self.time = time
        self.number = number
    }

    /// The kind, or nil for one that this version does not know.
    @inlinable
    package var kind: MessageKind? { MessageKind(rawValue: self.rawKind) }

    /// Bits that modify a message.
    package struct Flags: OptionSet, Hashable, Sendable {
        package var rawValue: UInt8

        @inlinable
        package init(rawValue: UInt8) { self.rawValue = rawValue }

        // The optimizer doesn't see conformances in another module: members of SetAlgebra and Equatable would be called
        // through their witnesses, for each message. These are used instead.

        @inlinable
        package init() { self.rawValue = 0 }

        @inlinable
        package init(arrayLiteral elements: Self...) {
            self.rawValue = 0
            for element in elements { self.rawValue |= element.rawValue }
        }

        @inlinable
        package func contains(_ other: Self) -> Bool { self.rawValue & other.rawValue == other.rawValue }

        @inlinable
        package mutating func insert(_ other: Self) { self.rawValue |= other.rawValue }

        @inlinable
        package mutating func remove(_ other: Self) { self.rawValue &= ~other.rawValue }

        @inlinable
        package static func == (lhs: Self, rhs: Self) -> Bool { lhs.rawValue == rhs.rawValue }

        /// The request may run more than once without harm, so it may be sent again elsewhere.
        @inlinable package static var idempotent: Self { Self(rawValue: 1 << 0) }
        /// The request was sent before under the same id.
        @inlinable package static var resent: Self { Self(rawValue: 1 << 1) }
        /// The payload starts with a metadata map, before the content.
        @inlinable package static var metadata: Self { Self(rawValue: 1 << 2) }
        /// The payload is the next ZeroMQ frame; only the last message of a frame may say so.
        @inlinable package static var attached: Self { Self(rawValue: 1 << 3) }
        /// On a re-sent request: its sender knows that it was removed before it ran, and wants it to run after all.
        @inlinable package static var renewed: Self { Self(rawValue: 1 << 4) }
        /// On a request: its arguments hold callbacks, so that its answer must not overtake events.
        @inlinable package static var callbacks: Self { Self(rawValue: 1 << 5) }
        /// A receiver that does not know the kind must refuse the message instead of skipping it.
        @inlinable package static var mustUnderstand: Self { Self(rawValue: 1 << 7) }
    }
}

/// How a payload is encoded.
package enum ContentType: UInt8, Sendable {
    case messagePack = 0
    case json = 1
    case raw = 2
    /// MessagePack: many calls of one function in a request.
    case chunk = 3
}

extension Header {
    /// Writes the header to the first 24 bytes of `bytes`.
    @inlinable
    package func write(to bytes: UnsafeMutableRawPointer) {
        unsafe bytes.storeBytes(of: ProtocolVersion.firstByte, as: UInt8.self)
        unsafe bytes.storeBytes(of: self.rawKind, toByteOffset: 1, as: UInt8.self)
        unsafe bytes.storeBytes(of: self.flags.rawValue, toByteOffset: 2, as: UInt8.self)
        unsafe bytes.storeBytes(of: self.contentType, toByteOffset: 3, as: UInt8.self)
        unsafe bytes.storeBytes(of: self.payloadLength.littleEndian, toByteOffset: 4, as: UInt32.self)
        unsafe bytes.storeBytes(of: self.id.littleEndian, toByteOffset: 8, as: UInt64.self)
        unsafe bytes.storeBytes(of: self.time.littleEndian, toByteOffset: 16, as: UInt32.self)
        unsafe bytes.storeBytes(of: self.number.littleEndian, toByteOffset: 20, as: UInt32.self)
    }

    /// Reads the header at the start of `bytes`.
    @inlinable
    package init(reading bytes: UnsafeRawBufferPointer) throws(WireError) {
        guard bytes.count >= Self.byteCount else {
            throw WireError(.truncated, "a message needs \(Self.byteCount) bytes, \(bytes.count) are left")
        }
        let first = unsafe bytes[0]
        guard first == ProtocolVersion.firstByte else {
            throw WireError.badFirstByte(first)
        }
        unsafe self.rawKind = bytes[1]
        unsafe self.flags = Flags(rawValue: bytes[2])
        unsafe self.contentType = bytes[3]
        unsafe self.payloadLength = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
        unsafe self.id = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
        unsafe self.time = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 16, as: UInt32.self))
        unsafe self.number = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 20, as: UInt32.self))
    }

    /// Fills in the numbers of an event, in a header that was written without them.
    ///
    /// - Returns: The payload's length.
    @inlinable
    package static func numberEvent(at bytes: UnsafeMutableRawPointer, sequence: UInt64, subscription: UInt32) -> Int {
        unsafe bytes.storeBytes(of: sequence.littleEndian, toByteOffset: 8, as: UInt64.self)
        unsafe bytes.storeBytes(of: subscription.littleEndian, toByteOffset: 20, as: UInt32.self)
        return unsafe Int(UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4, as: UInt32.self)))
    }
}
