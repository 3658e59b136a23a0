// SPDX-License-Identifier: Apache-2.0

internal import Glibc

/// Writes MessagePack into one growing block of memory.
///
/// Every value gets its smallest encoding. The block comes from `malloc`, and ``finish()`` hands it over without a
/// copy, so that a C library may send it and `free` it.
///
/// A write that fails may leave an incomplete document behind: throw the writer away.
@safe
public struct PackWriter: ~Copyable {
    @usableFromInline var base: UnsafeMutableRawPointer?
    @usableFromInline var capacity: Int

    /// The bytes written so far, the reserved header included.
    public private(set) var count: Int {
        @inlinable get { self.used }
        set { self.used = newValue }
    }

    @usableFromInline var used: Int
    @usableFromInline let headerBytes: Int
    @usableFromInline var depth = 0
    /// References that the values written so far contain, for code that must know what a document refers to.
    private var noted: Unmanaged<ReferenceList>?
    /// The limits that this writer enforces; ``CodecLimits/maxBytes`` doesn't count the reserved header.
    public let limits: CodecLimits

    /// Whether a nil, and nothing else, was written after the first `start` bytes.
    @inlinable
    func wroteNil(from start: Int) -> Bool {
        guard self.used == start + 1, let base = unsafe self.base else { return false }
        return unsafe base.load(fromByteOffset: start, as: UInt8.self) == 0xC0
    }

    /// Creates a writer with room for `capacity` bytes before it grows.
    ///
    /// - Parameters:
    ///   - capacity: The bytes to make room for at once, the header not included.
    ///   - headerBytes: Zeroed bytes to leave free at the front, for a header that is written later.
    ///   - limits: What the writer refuses.
    public init(capacity: Int, headerBytes: Int = 0, limits: CodecLimits = .standard) {
        precondition(capacity >= 0 && headerBytes >= 0, "sizes aren't negative")
        // The capacity never exceeds the limit, so growing is the only place that has to check it.
        let bytes = headerBytes + Swift.min(Swift.max(capacity, 16), Swift.max(limits.maxBytes, 0))
        guard let block = unsafe malloc(Swift.max(bytes, 1)) else {
            preconditionFailure("out of memory for a message of \(bytes) bytes")
        }
        unsafe memset(block, 0, headerBytes)
        unsafe self.base = block
        self.capacity = bytes
        self.used = headerBytes
        self.headerBytes = headerBytes
        self.limits = limits
        unsafe self.noted = nil
    }

    /// A writer without memory, which takes another one's place for a while.
    init(placeholderWith limits: CodecLimits) {
        unsafe self.base = nil
        self.capacity = 0
        self.used = 0
        self.headerBytes = 0
        self.limits = limits
        unsafe self.noted = nil
    }

    deinit {
        unsafe self.noted?.release()
        unsafe free(self.base)
    }

    /// Notes that a value refers to something by number.
    package mutating func note(_ reference: NotedReference) {
        if let noted = unsafe self.noted {
            unsafe noted.takeUnretainedValue().references.append(reference)
        } else {
            unsafe self.noted = Unmanaged.passRetained(ReferenceList(reference))
        }
    }

    /// Whether anything was noted.
    package var hasReferences: Bool { unsafe self.noted != nil }

    /// What was noted so far.
    package var references: [NotedReference] {
        unsafe self.noted?.takeUnretainedValue().references ?? []
    }

    /// Removes everything written, except the reserved header.
    @inlinable
    package mutating func removeAll() {
        self.used = self.headerBytes
        self.depth = 0
    }

    /// Ends the writing and hands over the block.
    public consuming func finish() -> PackedBlock {
        guard let base = unsafe self.base else { preconditionFailure("a placeholder has no block to hand over") }
        let count = self.used
        unsafe self.noted?.release()
        discard self
        return unsafe PackedBlock(baseAddress: base, count: count)
    }

    /// Removes everything after the first `count` bytes: a document that couldn't be completed.
    package mutating func rollBack(to count: Int) {
        self.rollBack(to: count, depth: 0)
    }

    /// Removes everything after the first `count` bytes, which were written `depth` containers deep.
    mutating func rollBack(to count: Int, depth: Int) {
        precondition(count >= self.headerBytes && count <= self.used, "only bytes that were written can be taken back")
        self.used = count
        self.depth = depth
    }

    /// Gives `body` the bytes written so far, the reserved header included.
    @inlinable
    public borrowing func withBytes<Result, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try unsafe body(UnsafeRawBufferPointer(start: self.base, count: self.used))
    }
}

/// Something that a value in a document refers to: a number and its owner, because other owners use the same numbers.
package struct NotedReference: Hashable, Sendable {
    /// The owner's identity, in two halves.
    package let high: UInt64
    package let low: UInt64
    package let number: UInt32

    package init(high: UInt64, low: UInt64, number: UInt32) {
        self.high = high
        self.low = low
        self.number = number
    }
}

/// The references noted in a document; few documents have any.
private final class ReferenceList {
    var references: [NotedReference]

    init(_ first: NotedReference) { self.references = [first] }
}

/// A block of memory with an encoded document, and its only owner.
@safe
public struct PackedBlock: ~Copyable {
    /// The first byte.
    public let baseAddress: UnsafeMutableRawPointer
    /// The number of bytes.
    public let count: Int

    /// Takes over a block that `malloc` returned.
    init(baseAddress: UnsafeMutableRawPointer, count: Int) {
        unsafe self.baseAddress = baseAddress
        self.count = count
    }

    deinit {
        unsafe free(self.baseAddress)
    }

    /// The bytes; they are valid for as long as the block is.
    public var bytes: UnsafeRawBufferPointer {
        unsafe UnsafeRawBufferPointer(start: self.baseAddress, count: self.count)
    }

    /// Gives up the block: the caller, or the code that it passes the block on to, calls `free`.
    public consuming func release() -> UnsafeMutableRawBufferPointer {
        let bytes = unsafe UnsafeMutableRawBufferPointer(start: self.baseAddress, count: self.count)
        discard self
        return unsafe bytes
    }
}

// MARK: - Room

extension PackWriter {
    /// Makes room for `bytes` more.
    @inlinable
    mutating func reserve(_ bytes: Int) throws(CodecError) {
        if bytes > self.capacity &- self.used { try self.grow(by: bytes) }
    }

    @usableFromInline
    @inline(never)
    mutating func grow(by bytes: Int) throws(CodecError) {
        let (sum, isBeyond) = self.headerBytes.addingReportingOverflow(Swift.max(self.limits.maxBytes, 0))
        let limit = isBeyond ? Int.max : sum
        let (needed, overflow) = self.used.addingReportingOverflow(bytes)
        if overflow || needed > limit {
            throw CodecError(
                .tooLarge,
                message: "the encoded value passes the limit of \(PeopleText.size(self.limits.maxBytes)); "
                    + "send less at once, or raise maxPayloadBytes (maxBytes of CodecLimits)"
            )
        }
        let capacity = Swift.min(limit, Swift.max(needed, self.capacity * 2, 64))
        guard let block = unsafe realloc(self.base, capacity) else {
            throw CodecError(.outOfMemory, message: "no memory for a message of \(capacity) bytes; send less at once")
        }
        unsafe self.base = block
        self.capacity = capacity
    }

    /// Writes one byte into room that was reserved.
    @inlinable
    mutating func put(_ byte: UInt8) {
        unsafe self.base.unsafelyUnwrapped.storeBytes(of: byte, toByteOffset: self.used, as: UInt8.self)
        self.used &+= 1
    }

    /// Writes a number, most significant byte first, into room that was reserved.
    @inlinable
    mutating func put<Number: FixedWidthInteger & BitwiseCopyable>(bigEndian number: Number) {
        unsafe self.base.unsafelyUnwrapped.storeBytes(
            of: number.bigEndian,
            toByteOffset: self.used,
            as: Number.self
        )
        self.used &+= MemoryLayout<Number>.size
    }

    /// Writes bytes into room that was reserved.
    @inlinable
    mutating func put(contentsOf bytes: UnsafeRawBufferPointer) {
        // A writer that has nothing to write may have no memory yet.
        if let source = bytes.baseAddress, bytes.count > 0 {
            unsafe (self.base.unsafelyUnwrapped + self.used).copyMemory(from: source, byteCount: bytes.count)
            self.used &+= bytes.count
        }
    }

    /// Goes one container deeper.
    ///
    /// Pair it with ``leave()``. Types that contain themselves must do this in their `pack`, so that a value which is
    /// nested too deep is an error instead of a stack overflow; the standard containers do it already.
    @inlinable
    public mutating func enter() throws(CodecError) {
        if self.depth >= self.limits.maxDepth { throw CodecError.tooDeep(self.limits.maxDepth) }
        self.depth &+= 1
    }

    /// Comes back from a container.
    @inlinable
    public mutating func leave() {
        self.depth &-= 1
    }
}

// MARK: - Values

extension PackWriter {
    /// Writes nil.
    @inlinable
    public mutating func packNil() throws(CodecError) {
        try self.reserve(1)
        self.put(0xC0)
    }

    /// Writes a truth value.
    @inlinable
    public mutating func pack(_ value: Bool) throws(CodecError) {
        try self.reserve(1)
        self.put(value ? 0xC3 : 0xC2)
    }

    /// Writes an integer.
    @inlinable
    public mutating func pack(_ value: Int64) throws(CodecError) {
        if value >= 0 {
            try self.pack(UInt64(truncatingIfNeeded: value))
        } else if value >= -32 {
            try self.reserve(1)
            self.put(UInt8(truncatingIfNeeded: value))
        } else {
            try self.packWide(negative: value)
        }
    }

    /// Writes an integer that isn't negative.
    @inlinable
    public mutating func pack(_ value: UInt64) throws(CodecError) {
        if value < 0x80 {
            try self.reserve(1)
            self.put(UInt8(truncatingIfNeeded: value))
        } else {
            try self.packWide(value)
        }
    }

    /// Writes a number with 64 bits of floating point.
    @inlinable
    public mutating func pack(_ value: Double) throws(CodecError) {
        try self.reserve(9)
        self.put(0xCB)
        self.put(bigEndian: value.bitPattern)
    }

    /// Writes a number with 32 bits of floating point.
    @inlinable
    public mutating func pack(_ value: Float) throws(CodecError) {
        try self.reserve(5)
        self.put(0xCA)
        self.put(bigEndian: value.bitPattern)
    }

    /// Writes text.
    @inlinable
    public mutating func pack(_ value: String) throws(CodecError) {
        let count = value.utf8.count
        try self.packHeader(count, short: 0xA0, shortMax: 31, codes: (0xD9, 0xDA, 0xDB))
        let copied: Void? = unsafe value.utf8.withContiguousStorageIfAvailable { text in
            unsafe self.put(contentsOf: UnsafeRawBufferPointer(text))
        }
        if copied == nil { self.putSlowly(value) }
    }

    /// Writes bytes.
    @inlinable
    public mutating func pack(_ bytes: UnsafeRawBufferPointer) throws(CodecError) {
        try self.packHeader(bytes.count, short: 0, shortMax: -1, codes: (0xC4, 0xC5, 0xC6))
        unsafe self.put(contentsOf: bytes)
    }

    /// Writes bytes.
    @inlinable
    public mutating func pack(_ bytes: [UInt8]) throws(CodecError) {
        try unsafe bytes.withUnsafeBufferPointer { buffer throws(CodecError) in
            try unsafe self.pack(UnsafeRawBufferPointer(buffer))
        }
    }

    /// Begins an array; its `count` elements are to be written next.
    @inlinable
    public mutating func packArrayHeader(_ count: Int) throws(CodecError) {
        if UInt(bitPattern: count) <= 15 {
            try self.reserve(1)
            self.put(0x90 | UInt8(truncatingIfNeeded: count))
        } else {
            try self.packContainerHeader(count, code16: 0xDC)
        }
    }

    /// Begins a map; its `count` pairs of key and value are to be written next.
    @inlinable
    public mutating func packMapHeader(_ count: Int) throws(CodecError) {
        if UInt(bitPattern: count) <= 15 {
            try self.reserve(1)
            self.put(0x80 | UInt8(truncatingIfNeeded: count))
        } else {
            try self.packContainerHeader(count, code16: 0xDE)
        }
    }

    /// Writes an extension value: bytes with an application's own type number.
    public mutating func pack(extended bytes: [UInt8], type: Int8) throws(CodecError) {
        let single: UInt8? =
            switch bytes.count {
            case 1: 0xD4
            case 2: 0xD5
            case 4: 0xD6
            case 8: 0xD7
            case 16: 0xD8
            default: nil
            }
        if let single {
            try self.reserve(2 + bytes.count)
            self.put(single)
        } else {
            try self.packHeader(bytes.count, short: 0, shortMax: -1, codes: (0xC7, 0xC8, 0xC9), extra: 1)
        }
        self.put(UInt8(bitPattern: type))
        unsafe bytes.withUnsafeBytes { raw in unsafe self.put(contentsOf: raw) }
    }

    /// Appends bytes as they are, for documents that were encoded before.
    @inlinable
    public mutating func append(_ bytes: UnsafeRawBufferPointer) throws(CodecError) {
        try self.reserve(bytes.count)
        unsafe self.put(contentsOf: bytes)
    }

    /// Appends `bytes` zeroed bytes and returns where they begin, for a header that is written later.
    package mutating func appendZeros(_ bytes: Int) throws(CodecError) -> Int {
        precondition(bytes >= 0, "sizes aren't negative")
        try self.reserve(bytes)
        let offset = self.used
        unsafe memset(self.base.unsafelyUnwrapped + offset, 0, bytes)
        self.used += bytes
        return offset
    }

    /// Begins an array whose count is not known yet, to be written to the last four bytes later.
    package mutating func packLongestArrayHeader() throws(CodecError) {
        try self.reserve(5)
        self.put(0xDD)
        self.put(bigEndian: UInt32(0))
    }

    /// Begins a binary value whose length is not known yet, to be written to the last four bytes later.
    package mutating func packLongestBinaryHeader() throws(CodecError) {
        try self.reserve(5)
        self.put(0xC6)
        self.put(bigEndian: UInt32(0))
    }

    /// Writes a count that wasn't known when its header was written.
    package mutating func patch(_ count: UInt32, at offset: Int) {
        precondition(offset >= self.headerBytes && offset <= self.used - 4, "only what was written can be changed")
        unsafe self.base.unsafelyUnwrapped.storeBytes(of: count.bigEndian, toByteOffset: offset, as: UInt32.self)
    }

    /// Gives `body` the bytes in `range`, to be changed in place.
    package mutating func withMutableBytes<Result, Failure: Error>(
        in range: Range<Int>,
        _ body: (UnsafeMutableRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        precondition(range.lowerBound >= 0 && range.upperBound <= self.used, "the range wasn't written")
        let start = unsafe self.base.map { unsafe $0 + range.lowerBound }
        return try unsafe body(UnsafeMutableRawBufferPointer(start: start, count: range.count))
    }
}

// MARK: - Slower parts, kept out of the callers

extension PackWriter {
    @usableFromInline
    mutating func packWide(_ value: UInt64) throws(CodecError) {
        try self.reserve(9)
        if value <= 0xFF {
            self.put(0xCC)
            self.put(UInt8(truncatingIfNeeded: value))
        } else if value <= 0xFFFF {
            self.put(0xCD)
            self.put(bigEndian: UInt16(truncatingIfNeeded: value))
        } else if value <= 0xFFFF_FFFF {
            self.put(0xCE)
            self.put(bigEndian: UInt32(truncatingIfNeeded: value))
        } else {
            self.put(0xCF)
            self.put(bigEndian: value)
        }
    }

    @usableFromInline
    mutating func packWide(negative value: Int64) throws(CodecError) {
        try self.reserve(9)
        if value >= -0x80 {
            self.put(0xD0)
            self.put(UInt8(truncatingIfNeeded: value))
        } else if value >= -0x8000 {
            self.put(0xD1)
            self.put(bigEndian: UInt16(truncatingIfNeeded: value))
        } else if value >= -0x8000_0000 {
            self.put(0xD2)
            self.put(bigEndian: UInt32(truncatingIfNeeded: value))
        } else {
            self.put(0xD3)
            self.put(bigEndian: value)
        }
    }

    /// Writes the header of text or bytes, and makes room for the header, `extra` bytes and the content.
    @inlinable
    mutating func packHeader(
        _ count: Int,
        short: UInt8,
        shortMax: Int,
        codes: (UInt8, UInt8, UInt8),
        extra: Int = 0
    ) throws(CodecError) {
        if count <= shortMax {
            try self.reserve(1 &+ count)
            self.put(short | UInt8(truncatingIfNeeded: count))
        } else {
            try self.packLongHeader(count, codes: codes, extra: extra)
        }
    }

    @usableFromInline
    mutating func packLongHeader(_ count: Int, codes: (UInt8, UInt8, UInt8), extra: Int) throws(CodecError) {
        if count <= 0xFF {
            try self.reserve(2 + extra + count)
            self.put(codes.0)
            self.put(UInt8(truncatingIfNeeded: count))
        } else if count <= 0xFFFF {
            try self.reserve(3 + extra + count)
            self.put(codes.1)
            self.put(bigEndian: UInt16(truncatingIfNeeded: count))
        } else if count <= 0xFFFF_FFFF {
            try self.reserve(5 + extra + count)
            self.put(codes.2)
            self.put(bigEndian: UInt32(truncatingIfNeeded: count))
        } else {
            throw CodecError(.tooLarge, message: "\(count) bytes in one value; MessagePack holds 4 GiB at most")
        }
    }

    @usableFromInline
    mutating func packContainerHeader(_ count: Int, code16: UInt8) throws(CodecError) {
        precondition(count >= 0, "counts aren't negative")
        if count > self.limits.maxCount || count > 0xFFFF_FFFF { throw CodecError.tooMany(count, self.limits.maxCount) }
        try self.reserve(5)
        if count <= 0xFFFF {
            self.put(code16)
            self.put(bigEndian: UInt16(truncatingIfNeeded: count))
        } else {
            self.put(code16 + 1)
            self.put(bigEndian: UInt32(truncatingIfNeeded: count))
        }
    }

    /// For strings that don't keep their UTF-8 in one piece; none of the standard library does this on Linux.
    @usableFromInline
    @inline(never)
    mutating func putSlowly(_ value: String) {
        for byte in value.utf8 { self.put(byte) }
    }
}

extension CodecError {
    static func tooMany(_ count: Int, _ limit: Int) -> CodecError {
        CodecError(.tooLarge, message: "\(count) elements pass the limit of \(limit); send fewer or raise maxCount")
    }

    @usableFromInline
    @inline(never)
    static func tooDeep(_ limit: Int) -> CodecError {
        CodecError(.tooDeep, message: "nested deeper than \(limit) containers; flatten the value or raise maxDepth")
    }
}
