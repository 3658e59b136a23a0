// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec

/// Walks the messages of one received frame.
///
/// The reader must not outlive the bytes it was made for.
@safe
package struct FrameReader {
    @usableFromInline let bytes: UnsafeRawBufferPointer
    @usableFromInline let limits: WireLimits
    /// How many bytes the attached frame has, or nil without one.
    @usableFromInline let attachedByteCount: Int?
    @usableFromInline var offset = 0

    /// A message's header, and where its payload is.
    package struct Part {
        package var header: Header
        /// The payload's place in the frame; empty and at the end if the payload is attached.
        package var payload: Range<Int>
        /// Whether the payload is the attached frame.
        @inlinable package var isAttached: Bool { self.header.flags.contains(.attached) }

        @usableFromInline
        init(header: Header, payload: Range<Int>) {
            self.header = header
            self.payload = payload
        }
    }

    /// Begins at the frame's start, or at the message where an earlier walk stopped.
    @inlinable
    package init(
        _ bytes: UnsafeRawBufferPointer,
        from offset: Int = 0,
        attachedByteCount: Int? = nil,
        limits: WireLimits = .standard
    ) {
        unsafe self.bytes = bytes
        self.offset = offset
        self.attachedByteCount = attachedByteCount
        self.limits = limits
    }

    /// The next message, or nil at the frame's end.
    ///
    /// After an error, nothing more of the frame can be trusted: drop the rest and count it once. If the header
    /// could be read, it is in ``lastHeader``.
    @inlinable
    package mutating func next() throws(WireError) -> Part? {
        self.lastHeader = nil
        guard unsafe self.offset < self.bytes.count else {
            if self.attachedByteCount != nil, !self.usedAttached {
                throw WireError(.badFraming, "a second frame came that no message announced")
            }
            return nil
        }
        let header = try unsafe Header(reading: UnsafeRawBufferPointer(rebasing: self.bytes[self.offset...]))
        self.lastHeader = header
        let length = Int(header.payloadLength)
        guard length <= self.limits.maxPayloadBytes else {
            throw WireError(
                .tooLarge,
                "a payload of \(PeopleText.size(Int(length))) is over the limit of \(PeopleText.size(self.limits.maxPayloadBytes))"
            )
        }
        let start = self.offset + Header.byteCount
        if header.flags.contains(.attached) {
            guard let attachedByteCount, unsafe start == self.bytes.count else {
                throw WireError(.badFraming, "an attached payload is missing or not announced by the last message")
            }
            guard attachedByteCount == length else {
                throw WireError(.badFraming, "the attached payload has \(attachedByteCount) bytes, not \(length)")
            }
            self.usedAttached = true
            self.offset = start
            return Part(header: header, payload: start..<start)
        }
        guard unsafe length <= self.bytes.count - start else {
            throw unsafe WireError(.truncated, "a payload of \(length) bytes has only \(self.bytes.count - start)")
        }
        self.offset = start + length
        return Part(header: header, payload: start..<start + length)
    }

    /// The payload of the next message if that is an event of this subscription, as most are in a row of events.
    ///
    /// If the result is nil, the reader stays where it is, and ``next()`` returns the message there.
    @inlinable
    package mutating func nextEvent(of subscription: UInt32, sequence: UInt64) -> Range<Int>? {
        let start = self.offset + Header.byteCount
        guard unsafe start <= self.bytes.count else { return nil }
        let header = unsafe UnsafeRawBufferPointer(rebasing: self.bytes[self.offset..<start])
        let length = unsafe Int(UInt32(littleEndian: header.loadUnaligned(fromByteOffset: 4, as: UInt32.self)))
        guard unsafe header[0] == ProtocolVersion.firstByte && header[1] == MessageKind.event.rawValue,
            unsafe header[2] == 0 && header[3] == ContentType.messagePack.rawValue,
            unsafe UInt64(littleEndian: header.loadUnaligned(fromByteOffset: 8, as: UInt64.self)) == sequence,
            unsafe UInt32(littleEndian: header.loadUnaligned(fromByteOffset: 20, as: UInt32.self)) == subscription,
            length <= self.limits.maxPayloadBytes, unsafe length <= self.bytes.count - start
        else { return nil }
        self.offset = start + length
        return start..<start + length
    }

    /// How many messages with payloads of this size the rest of the frame can hold.
    @inlinable
    package func mostMessagesLeft(ofPayload byteCount: Int) -> Int {
        unsafe (self.bytes.count - self.offset) / (Header.byteCount + byteCount)
    }

    /// The header read last, so that a malformed message can still be attributed to its correlation id.
    package var lastHeader: Header?
    @usableFromInline var usedAttached = false
}
