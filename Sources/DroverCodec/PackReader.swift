// SPDX-License-Identifier: Apache-2.0

internal import Glibc

/// Reads MessagePack from bytes that it doesn't own.
///
/// You get one from ``withPackReader(over:limits:_:)-([UInt8],_,_)`` or in ``WireCodable/unpack(from:)``. It can't be
/// copied or kept, because it must not outlive its bytes. Whatever the bytes are, each read either returns a value or
/// throws: nothing is read beyond the end, and no declared count causes more memory to be reserved than the bytes that
/// are actually there justify.
///
/// If a document is longer than ``CodecLimits/maxBytes``, each read throws ``CodecError/Code/tooLarge``.
///
/// A read that throws because of a wrong kind or range leaves the reader before the value.
@safe
public struct PackReader: ~Copyable {
    @usableFromInline let base: UnsafeRawPointer?
    /// The number of bytes that may be read: 0 if the document is over the limit.
    @usableFromInline let count: Int
    /// The bytes that the document has.
    @usableFromInline let documentCount: Int
    /// The bytes read so far.
    public internal(set) var offset: Int {
        @inlinable get { self.position }
        set { self.position = newValue }
    }

    @usableFromInline var position = 0
    @usableFromInline var depth = 0
    /// The limits that this reader enforces.
    public let limits: CodecLimits
    /// The object behind ``context``, unretained: a reader is made for each message, and consists of plain words only.
    @usableFromInline var bound: Unmanaged<AnyObject>?
    /// An object that the values read may be bound to; the reader's creator sets it and keeps it as long as the reader.
    @inlinable package var context: AnyObject? {
        get { unsafe self.bound?.takeUnretainedValue() }
        set { unsafe self.bound = newValue.map { unsafe Unmanaged.passUnretained($0) } }
    }

    /// A reader over `bytes`, which must outlive it.
    @inlinable
    package init(over bytes: UnsafeRawBufferPointer, limits: CodecLimits = .standard) {
        unsafe self.base = bytes.baseAddress
        self.count = bytes.count <= limits.maxBytes ? bytes.count : 0
        self.documentCount = bytes.count
        self.limits = limits
    }

    /// Whether everything was read.
    @inlinable
    public var isAtEnd: Bool { self.position >= self.count }

    /// The bytes that are left.
    @inlinable
    public var remaining: Int { self.count &- self.position }

    /// The kind of the next value; nil at the end.
    @inlinable
    public var peekKind: PackKind? {
        self.isAtEnd ? nil : PackKind(firstByte: self.byte(at: self.position))
    }

    /// Throws ``CodecError/Code/trailingBytes`` unless everything was read.
    @inlinable
    public func expectEnd() throws(CodecError) {
        if self.position != self.documentCount { throw self.notAtEnd() }
    }

    /// Takes the remaining bytes, whatever they are.
    package mutating func takeRest<Result, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        let start = unsafe self.base.map { unsafe $0 + self.position }
        let rest = unsafe UnsafeRawBufferPointer(start: start, count: self.remaining)
        self.position = self.count
        return try unsafe body(rest)
    }

    /// Gives `body` a reader of a part of the bytes, with the same limits and context.
    package func withPart<Result, Failure: Error>(
        _ range: Range<Int>,
        _ body: (inout PackReader) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        precondition(range.lowerBound >= 0 && range.upperBound <= self.count, "the part lies beyond the bytes")
        let start = unsafe self.base.map { unsafe $0 + range.lowerBound }
        let part = unsafe UnsafeRawBufferPointer(start: start, count: range.count)
        var reader = unsafe PackReader(over: part, limits: self.limits)
        reader.context = self.context
        return try body(&reader)
    }

    /// A reader that continues from a place noted before.
    ///
    /// The code that notes places must make sure that the bytes are still there.
    init(at place: ReaderPlace) {
        unsafe self.base = place.base
        self.count = place.count
        self.documentCount = place.documentCount
        self.limits = place.limits
        self.depth = place.depth
        unsafe self.bound = place.bound
        self.position = place.position
    }

    /// The reader's place.
    var place: ReaderPlace {
        unsafe ReaderPlace(
            base: self.base,
            count: self.count,
            documentCount: self.documentCount,
            limits: self.limits,
            depth: self.depth,
            bound: self.bound,
            position: self.position
        )
    }

    /// Goes one container deeper.
    ///
    /// Pair it with ``leave()``. Types that contain themselves must do this in their `unpack`, so that hostile nesting
    /// is an error instead of a stack overflow; the standard containers do it already.
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

/// A reader's place, for code that reads a document out of order.
///
/// Unlike a reader it can be kept, so it stays within this module, and only for as long as the bytes are there.
@safe
struct ReaderPlace {
    let base: UnsafeRawPointer?
    let count: Int
    let documentCount: Int
    let limits: CodecLimits
    let depth: Int
    let bound: Unmanaged<AnyObject>?
    let position: Int
}

/// Gives `body` a reader over `bytes`.
///
/// - Parameters:
///   - bytes: The document; it must stay as it is until `body` returns.
///   - limits: What the reader refuses.
///   - body: Reads. If there are more than ``CodecLimits/maxBytes``, its first read throws
///     ``CodecError/Code/tooLarge``.
/// - Returns: What `body` returns.
/// - Throws: What `body` throws.
@inlinable
public func withPackReader<Result, Failure: Error>(
    over bytes: UnsafeRawBufferPointer,
    limits: CodecLimits = .standard,
    _ body: (inout PackReader) throws(Failure) -> Result
) throws(Failure) -> Result {
    var reader = unsafe PackReader(over: bytes, limits: limits)
    return try body(&reader)
}

/// Gives `body` a reader over `bytes`.
///
/// - Parameters:
///   - bytes: The document.
///   - limits: What the reader refuses.
///   - body: Reads. If there are more than ``CodecLimits/maxBytes``, its first read throws
///     ``CodecError/Code/tooLarge``.
/// - Returns: What `body` returns.
/// - Throws: What `body` throws.
@inlinable
public func withPackReader<Result, Failure: Error>(
    over bytes: [UInt8],
    limits: CodecLimits = .standard,
    _ body: (inout PackReader) throws(Failure) -> Result
) throws(Failure) -> Result {
    try unsafe bytes.withUnsafeBufferPointer { buffer throws(Failure) in
        try unsafe withPackReader(over: UnsafeRawBufferPointer(buffer), limits: limits, body)
    }
}

// MARK: - Values

extension PackReader {
    /// Reads nil if it is next; returns whether it was.
    @inlinable
    public mutating func readNil() throws(CodecError) -> Bool {
        if self.isAtEnd { throw self.truncated() }
        if self.byte(at: self.position) != 0xC0 { return false }
        self.position &+= 1
        return true
    }

    /// Reads a truth value.
    @inlinable
    public mutating func readBool() throws(CodecError) -> Bool {
        if self.isAtEnd { throw self.truncated() }
        let byte = self.byte(at: self.position)
        if byte & 0xFE != 0xC2 { throw self.mismatch(.bool) }
        self.position &+= 1
        return byte == 0xC3
    }

    /// Reads an integer of any encoding that fits.
    @inlinable
    public mutating func readInt64() throws(CodecError) -> Int64 {
        if self.isAtEnd { throw self.truncated() }
        let byte = self.byte(at: self.position)
        if byte < 0x80 || byte >= 0xE0 {
            self.position &+= 1
            return Int64(Int8(bitPattern: byte))
        }
        return try self.readWide(as: Int64.self)
    }

    /// Reads an integer of any encoding that fits.
    @inlinable
    public mutating func readUInt64() throws(CodecError) -> UInt64 {
        if self.isAtEnd { throw self.truncated() }
        let byte = self.byte(at: self.position)
        if byte < 0x80 {
            self.position &+= 1
            return UInt64(byte)
        }
        return try self.readWide(as: UInt64.self)
    }

    /// Reads an integer of any encoding; a number above `Int.max`, which may mean "no limit", is read as `Int.max`.
    public mutating func readCount() throws(CodecError) -> Int {
        // 64 bits, unsigned.
        if !self.isAtEnd, self.byte(at: self.position) == 0xCF { return Int(clamping: try self.readUInt64()) }
        return Int(clamping: try self.readInt64())
    }

    /// Reads an integer of any encoding that fits `type`.
    @inlinable
    public mutating func readInteger<Number: FixedWidthInteger>(as type: Number.Type) throws(CodecError) -> Number {
        if self.isAtEnd { throw self.truncated() }
        let byte = self.byte(at: self.position)
        if byte < 0x80 {
            self.position &+= 1
            return Number(truncatingIfNeeded: byte)
        }
        return try self.readWide(as: type)
    }

    /// Reads a number: floating point of either width, or an integer that a `Double` holds exactly.
    @inlinable
    public mutating func readDouble() throws(CodecError) -> Double {
        if self.remaining >= 9 && self.byte(at: self.position) == 0xCB {
            let bits = self.load(UInt64.self, at: self.position &+ 1)
            self.position &+= 9
            return Double(bitPattern: bits)
        }
        return try self.readOtherDouble()
    }

    /// Reads a number that a `Float` holds exactly, or any that isn't finite.
    public mutating func readFloat() throws(CodecError) -> Float {
        if self.remaining >= 5 && self.byte(at: self.position) == 0xCA {
            let bits = self.load(UInt32.self, at: self.position &+ 1)
            self.position &+= 5
            return Float(bitPattern: bits)
        }
        let start = self.position
        let wide = try self.readDouble()
        let narrow = Float(wide)
        if Double(narrow) != wide && !wide.isNaN {
            self.position = start
            throw CodecError(.overflow, message: "\(wide) doesn't fit a Float; use Double")
        }
        return narrow
    }

    /// Reads text.
    public mutating func readString() throws(CodecError) -> String {
        // Short text first, with nothing on the way but this reader's fields: a call with a copy of it costs more.
        if !self.isAtEnd {
            let code = self.byte(at: self.position)
            let length = Int(code & 0x1F)
            if code & 0xE0 == 0xA0, length < self.remaining {
                let start = self.position &+ 1
                return try self.takeText(unsafe Range(uncheckedBounds: (start, start &+ length)))
            }
        }
        return try self.readLongString()
    }

    /// How many bytes the next text has, which isn't read.
    package func textByteCount() throws(CodecError) -> Int { try self.stringRange().count }

    /// Reads the beginning of a text and skips the rest, which isn't looked at.
    ///
    /// - Parameter limit: How many bytes the beginning may have; the text is cut between two scalars.
    /// - Returns: The beginning, or the whole text if it isn't longer.
    /// - Throws: ``CodecError`` if the next value isn't text.
    package mutating func readString(cutAt limit: Int) throws(CodecError) -> String {
        let content = try self.stringRange()
        guard content.count > limit else { return try self.takeText(content) }
        var end = content.lowerBound + limit
        // Don't cut before a byte that continues a scalar; a scalar has three of them at most.
        for _ in 0..<3 where end > content.lowerBound && self.byte(at: end) & 0xC0 == 0x80 { end -= 1 }
        let text = try self.takeText(content.lowerBound..<end)
        self.position = content.upperBound
        return text
    }

    @inline(never)
    private mutating func readLongString() throws(CodecError) -> String {
        try self.takeText(try self.stringRange())
    }

    /// The text in a range that is known to be there, after which the reader continues.
    @inline(__always)
    private mutating func takeText(_ content: Range<Int>) throws(CodecError) -> String {
        let bytes = unsafe UnsafeRawBufferPointer(
            start: self.base.unsafelyUnwrapped + content.lowerBound,
            count: content.count
        )
        // Short ASCII needs neither a look at its encoding nor memory.
        if content.count <= 15, unsafe Self.isASCII(bytes) {
            self.position = content.upperBound
            return unsafe String(unsafeUninitializedCapacity: content.count) { text in
                guard let source = bytes.baseAddress, let target = text.baseAddress else { return 0 }
                unsafe memcpy(target, source, bytes.count)
                return bytes.count
            }
        }
        // Decoding repairs what isn't UTF-8, and a repair always changes the bytes. Comparing them afterwards is several
        // times faster than `String(validating:as:)`, whose metadata look-ups cost more than a short string. In ASCII,
        // which is cheaper to detect, there is nothing to repair.
        var text = unsafe String(decoding: bytes, as: UTF8.self)
        let isFaithful =
            unsafe Self.isASCII(bytes)
            || text.withUTF8 { decoded in
                guard let copy = decoded.baseAddress, let source = bytes.baseAddress else { return content.isEmpty }
                return unsafe decoded.count == content.count && memcmp(copy, source, content.count) == 0
            }
        if !isFaithful { throw CodecError.invalidText() }
        self.position = content.upperBound
        return text
    }

    /// Reads bytes.
    @inlinable
    public mutating func readBytes() throws(CodecError) -> [UInt8] {
        try unsafe self.readBinarySlice { bytes in unsafe [UInt8](bytes) }
    }

    /// Reads bytes without copying them.
    ///
    /// - Parameter body: Gets the bytes, which are valid until it returns.
    /// - Returns: What `body` returns.
    /// - Throws: What `body` throws, and ``CodecError`` if the next value isn't bytes.
    @inlinable
    public mutating func readBinarySlice<Result>(
        _ body: (UnsafeRawBufferPointer) throws(CodecError) -> Result
    ) throws(CodecError) -> Result {
        if self.isAtEnd { throw self.truncated() }
        let code = self.byte(at: self.position)
        if code < 0xC4 || code > 0xC6 { throw self.mismatch(.binary) }
        let content = try self.content(lengthBytes: 1 &<< Int(code &- 0xC4), skipping: 1)
        let bytes = unsafe UnsafeRawBufferPointer(
            start: self.base.unsafelyUnwrapped + content.lowerBound,
            count: content.count
        )
        self.position = content.upperBound
        return try unsafe body(bytes)
    }

    /// Reads the header of an array; returns the number of elements that follow.
    @inlinable
    public mutating func readArrayHeader() throws(CodecError) -> Int {
        if self.isAtEnd { throw self.truncated() }
        let byte = self.byte(at: self.position)
        if byte & 0xF0 == 0x90 {
            let count = Int(byte & 0x0F)
            if count >= self.remaining { throw self.truncated() }
            self.position &+= 1
            return count
        }
        return try self.readLongHeader(code16: 0xDC, kind: .array, bytesPerElement: 1)
    }

    /// Reads the header of a map; returns the number of key-value pairs that follow.
    @inlinable
    public mutating func readMapHeader() throws(CodecError) -> Int {
        if self.isAtEnd { throw self.truncated() }
        let byte = self.byte(at: self.position)
        if byte & 0xF0 == 0x80 {
            let count = Int(byte & 0x0F)
            if count &* 2 >= self.remaining { throw self.truncated() }
            self.position &+= 1
            return count
        }
        return try self.readLongHeader(code16: 0xDE, kind: .map, bytesPerElement: 2)
    }

    /// Reads an extension value.
    public mutating func readExtended() throws(CodecError) -> (type: Int8, bytes: [UInt8]) {
        if self.isAtEnd { throw self.truncated() }
        let (typeOffset, content) = try self.extended()
        let type = Int8(bitPattern: self.byte(at: typeOffset))
        let bytes = unsafe [UInt8](UnsafeRawBufferPointer(start: self.base, count: self.count)[content])
        self.position = content.upperBound
        return (type, bytes)
    }

    /// Skips the next value, whatever it is and however deep.
    public mutating func skip() throws(CodecError) {
        // How many values are still to be skipped. Each takes a byte at least, which bounds their number and the work.
        var values = 1
        while values > 0 {
            values -= 1
            if self.isAtEnd { throw self.truncated() }
            let code = self.byte(at: self.position)
            switch PackKind(firstByte: code) {
            case .nil, .bool: self.position += 1
            case .integer: try self.advance(by: Self.integerSize(code))
            case .float: try self.advance(by: code == 0xCA ? 5 : 9)
            case .string: self.position = try self.stringRange().upperBound
            case .binary:
                self.position = try self.content(lengthBytes: 1 << Int(code - 0xC4), skipping: 1).upperBound
            case .array: values += try self.readArrayHeader()
            case .map: values += try self.readMapHeader() * 2
            case .extended: self.position = try self.extended().content.upperBound
            case .invalid: throw self.malformed()
            }
            if values > self.remaining { throw self.truncated() }
        }
    }
}

// MARK: - Pieces

extension PackReader {
    /// The byte at `offset`, which must be in range.
    @inlinable
    func byte(at offset: Int) -> UInt8 {
        unsafe self.base.unsafelyUnwrapped.load(fromByteOffset: offset, as: UInt8.self)
    }

    /// The big-endian number at `offset`, all of which must be in range.
    @inlinable
    func load<Number: FixedWidthInteger & BitwiseCopyable>(_ type: Number.Type, at offset: Int) -> Number {
        Number(bigEndian: unsafe self.base.unsafelyUnwrapped.loadUnaligned(fromByteOffset: offset, as: type))
    }

    /// Whether no byte has its highest bit set.
    private static func isASCII(_ bytes: UnsafeRawBufferPointer) -> Bool {
        var all: UInt64 = 0
        var offset = 0
        while offset &+ 8 <= bytes.count {
            all |= unsafe bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
            offset &+= 8
        }
        while offset < bytes.count {
            all |= UInt64(unsafe bytes.load(fromByteOffset: offset, as: UInt8.self))
            offset &+= 1
        }
        return all & 0x8080_8080_8080_8080 == 0
    }

    /// Where the text of the next string is; the reader doesn't move.
    @inlinable
    func stringRange() throws(CodecError) -> Range<Int> {
        if self.isAtEnd { throw self.truncated() }
        let code = self.byte(at: self.position)
        if code & 0xE0 == 0xA0 {
            let length = Int(code & 0x1F)
            if length >= self.remaining { throw self.truncated() }
            let start = self.position &+ 1
            return unsafe Range(uncheckedBounds: (start, start &+ length))
        }
        if code < 0xD9 || code > 0xDB { throw self.mismatch(.string) }
        return try self.content(lengthBytes: 1 &<< Int(code &- 0xD9), skipping: 1)
    }

    /// Where the content is whose length is written in `lengthBytes` bytes after `skipping` others.
    @usableFromInline
    func content(lengthBytes: Int, skipping: Int, extra: Int = 0) throws(CodecError) -> Range<Int> {
        let head = skipping + lengthBytes + extra
        if head > self.remaining { throw self.truncated() }
        let length = self.length(at: self.position + skipping, bytes: lengthBytes)
        if length > self.remaining - head { throw self.truncated() }
        let start = self.position + head
        return start..<(start + length)
    }

    /// The length in one, two or four bytes at `offset`.
    func length(at offset: Int, bytes: Int) -> Int {
        switch bytes {
        case 1: Int(self.byte(at: offset))
        case 2: Int(self.load(UInt16.self, at: offset))
        default: Int(self.load(UInt32.self, at: offset))
        }
    }

    /// Where the type and the content of the next extension value are.
    func extended() throws(CodecError) -> (type: Int, content: Range<Int>) {
        let code = self.byte(at: self.position)
        switch code {
        case 0xC7...0xC9:
            let content = try self.content(lengthBytes: 1 << Int(code - 0xC7), skipping: 1, extra: 1)
            return (content.lowerBound - 1, content)
        case 0xD4...0xD8:
            let length = 1 << Int(code - 0xD4)
            if length + 2 > self.remaining { throw self.truncated() }
            return (self.position + 1, (self.position + 2)..<(self.position + 2 + length))
        default:
            throw self.mismatch(.extended)
        }
    }

    @usableFromInline
    mutating func readLongHeader(code16: UInt8, kind: PackKind, bytesPerElement: Int) throws(CodecError) -> Int {
        let code = self.byte(at: self.position)
        if code != code16 && code != code16 + 1 { throw self.mismatch(kind) }
        let lengthBytes = code == code16 ? 2 : 4
        if 1 + lengthBytes > self.remaining { throw self.truncated() }
        let count = self.length(at: self.position + 1, bytes: lengthBytes)
        if count > self.limits.maxCount { throw CodecError.tooMany(count, self.limits.maxCount) }
        if count * bytesPerElement > self.remaining - 1 - lengthBytes { throw self.truncated() }
        self.position += 1 + lengthBytes
        return count
    }

    /// Moves on over bytes that must be there.
    mutating func advance(by bytes: Int) throws(CodecError) {
        if bytes > self.remaining { throw self.truncated() }
        self.position += bytes
    }

    /// The bytes of an integer that begins with `code`.
    static func integerSize(_ code: UInt8) -> Int {
        switch code {
        case 0xCC, 0xD0: 2
        case 0xCD, 0xD1: 3
        case 0xCE, 0xD2: 5
        case 0xCF, 0xD3: 9
        default: 1
        }
    }

    /// Reads an integer in its general form.
    @inlinable
    mutating func readWide<Number: FixedWidthInteger>(as type: Number.Type) throws(CodecError) -> Number {
        let (bits, isNegative, size) = try self.wideInteger()
        let number = isNegative ? Number(exactly: Int64(bitPattern: bits)) : Number(exactly: bits)
        guard let number else { throw CodecError.overflow(bits: bits, isNegative: isNegative, type: "\(type)") }
        self.position &+= size
        return number
    }

    /// The next integer, as two's complement and sign; the reader doesn't move.
    @usableFromInline
    func wideInteger() throws(CodecError) -> (bits: UInt64, isNegative: Bool, size: Int) {
        let start = self.position + 1
        let code = self.byte(at: self.position)
        let size = Self.integerSize(code)
        if size > self.remaining { throw self.truncated() }
        let signed: Int64
        switch code {
        case 0x00...0x7F: return (UInt64(code), false, 1)
        case 0xCC: return (UInt64(self.byte(at: start)), false, size)
        case 0xCD: return (UInt64(self.load(UInt16.self, at: start)), false, size)
        case 0xCE: return (UInt64(self.load(UInt32.self, at: start)), false, size)
        case 0xCF: return (self.load(UInt64.self, at: start), false, size)
        case 0xD0: signed = Int64(Int8(bitPattern: self.byte(at: start)))
        case 0xD1: signed = Int64(self.load(Int16.self, at: start))
        case 0xD2: signed = Int64(self.load(Int32.self, at: start))
        case 0xD3: signed = self.load(Int64.self, at: start)
        case 0xE0...0xFF: signed = Int64(Int8(bitPattern: code))
        default: throw self.mismatch(.integer)
        }
        return (UInt64(bitPattern: signed), signed < 0, size)
    }

    @usableFromInline
    mutating func readOtherDouble() throws(CodecError) -> Double {
        if self.isAtEnd { throw self.truncated() }
        switch self.byte(at: self.position) {
        case 0xCA:
            if self.remaining < 5 { throw self.truncated() }
            let bits = self.load(UInt32.self, at: self.position + 1)
            self.position += 5
            return Double(Float(bitPattern: bits))
        case 0xCB:
            throw self.truncated()
        case let code where PackKind(firstByte: code) == .integer:
            let (bits, isNegative, size) = try self.wideInteger()
            let number = isNegative ? Double(exactly: Int64(bitPattern: bits)) : Double(exactly: bits)
            guard let number else {
                throw CodecError.overflow(bits: bits, isNegative: isNegative, type: "Double")
            }
            self.position += size
            return number
        default:
            throw self.mismatch(.float)
        }
    }
}

// MARK: - Errors, kept out of the callers

extension PackReader {
    @usableFromInline
    @inline(never)
    func truncated() -> CodecError {
        if self.documentCount > self.count {
            return CodecError.tooLong(self.documentCount, limit: self.limits.maxBytes)
        }
        return CodecError(
            .truncated,
            message: "the bytes end within the value at byte \(self.position), at byte \(self.count); "
                + "send the whole document"
        )
    }

    @usableFromInline
    @inline(never)
    func notAtEnd() -> CodecError {
        self.documentCount > self.count ? self.truncated() : CodecError.trailing(self.remaining)
    }

    @usableFromInline
    @inline(never)
    func mismatch(_ expected: PackKind) -> CodecError {
        let found = self.peekKind
        if found == .invalid { return self.malformed() }
        let description = found.map { "\($0)" } ?? "the end"
        return CodecError(.typeMismatch, message: "expected \(expected), found \(description)")
    }

    @usableFromInline
    @inline(never)
    func malformed() -> CodecError {
        CodecError(.malformed, message: "byte \(self.position) is 0xC1, which MessagePack doesn't use")
    }
}

extension CodecError {
    @usableFromInline
    @inline(never)
    static func invalidText() -> CodecError {
        CodecError(.invalidUTF8, message: "a string isn't UTF-8; send bytes as bin")
    }

    @usableFromInline
    @inline(never)
    static func trailing(_ count: Int) -> CodecError {
        CodecError(
            .trailingBytes,
            message: "\(count) bytes follow the value; both sides must use the same types"
        )
    }

    @usableFromInline
    @inline(never)
    static func tooLong(_ count: Int, limit: Int) -> CodecError {
        CodecError(
            .tooLarge,
            message:
                "\(PeopleText.size(count)) pass the limit of \(PeopleText.size(limit)); send less at once, or raise maxPayloadBytes (maxBytes of CodecLimits)"
        )
    }

    @usableFromInline
    @inline(never)
    static func overflow(bits: UInt64, isNegative: Bool, type: String) -> CodecError {
        let number = isNegative ? "\(Int64(bitPattern: bits))" : "\(bits)"
        return CodecError(.overflow, message: "\(number) doesn't fit \(type); use a wider type")
    }
}
