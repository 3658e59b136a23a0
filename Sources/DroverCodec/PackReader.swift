// SPDX-License-Identifier: Apache-2.0

@safe
public struct PackReader {
    @usableFromInline let bytes: UnsafeRawBufferPointer
    @usableFromInline package var offset = 0
    @usableFromInline var depth = 0
    package var context: AnyObject?
    @inlinable package init(_ b: UnsafeRawBufferPointer) { unsafe self.bytes = b }
    @inlinable public var isAtEnd: Bool { unsafe self.offset == self.bytes.count }

    @inlinable mutating func take(_ n: Int) throws(CodecError) -> Int {
        guard unsafe n <= self.bytes.count - self.offset else { throw CodecError(.truncated, "the bytes end too early") }
        defer { self.offset += n }
        return self.offset
    }
    @inlinable mutating func number<T: FixedWidthInteger & BitwiseCopyable>(_: T.Type) throws(CodecError) -> T {
        let at = try self.take(MemoryLayout<T>.size)
        return unsafe T(bigEndian: self.bytes.loadUnaligned(fromByteOffset: at, as: T.self))
    }
    @inlinable mutating func tag() throws(CodecError) -> UInt8 { unsafe self.bytes[try self.take(1)] }
    @inlinable package var peek: UInt8? { unsafe self.offset < self.bytes.count ? self.bytes[self.offset] : nil }
    @usableFromInline func mismatch(_ what: String, _ tag: UInt8) -> CodecError { CodecError(.typeMismatch, "expected \(what), found 0x\(String(tag, radix: 16))") }

    @inlinable public mutating func readNil() -> Bool {
        if self.peek == 0xC0 { self.offset += 1; return true }
        return false
    }
    @inlinable public mutating func readBool() throws(CodecError) -> Bool {
        let t = try self.tag()
        switch t { case 0xC2: return false; case 0xC3: return true; default: throw self.mismatch("a boolean", t) }
    }
    @inlinable public mutating func readInt64() throws(CodecError) -> Int64 {
        let t = try self.tag()
        if t < 0x80 { return Int64(t) }
        if t >= 0xE0 { return Int64(Int8(bitPattern: t)) }
        switch t {
        case 0xCC: return Int64(try self.number(UInt8.self)); case 0xCD: return Int64(try self.number(UInt16.self))
        case 0xCE: return Int64(try self.number(UInt32.self))
        case 0xCF: let v = try self.number(UInt64.self); guard let r = Int64(exactly: v) else { throw CodecError(.overflow, "\(v) is too large") }; return r
        case 0xD0: return Int64(try self.number(Int8.self)); case 0xD1: return Int64(try self.number(Int16.self))
        case 0xD2: return Int64(try self.number(Int32.self)); case 0xD3: return try self.number(Int64.self)
        default: throw self.mismatch("an integer", t) }
    }
    @inlinable public mutating func readUInt64() throws(CodecError) -> UInt64 {
        if self.peek == 0xCF { self.offset += 1; return try self.number(UInt64.self) }
        let v = try self.readInt64()
        guard v >= 0 else { throw CodecError(.overflow, "\(v) is negative") }
        return UInt64(v)
    }
    @inlinable public mutating func readDouble() throws(CodecError) -> Double {
        let t = self.peek ?? 0
        switch t {
        case 0xCB: self.offset += 1; return Double(bitPattern: try self.number(UInt64.self))
        case 0xCA: self.offset += 1; return Double(Float(bitPattern: try self.number(UInt32.self)))
        default: return Double(try self.readInt64()) }
    }
    @inlinable mutating func stringCount() throws(CodecError) -> Int {
        let t = try self.tag()
        if t & 0xE0 == 0xA0 { return Int(t & 0x1F) }
        switch t { case 0xD9: return Int(try self.number(UInt8.self)); case 0xDA: return Int(try self.number(UInt16.self)); case 0xDB: return Int(try self.number(UInt32.self)); default: throw self.mismatch("a string", t) }
    }
    @inlinable public mutating func readString() throws(CodecError) -> String {
        let n = try self.stringCount()
        let at = try self.take(n)
        guard let s = unsafe String(validating: UnsafeRawBufferPointer(rebasing: self.bytes[at..<at + n]), as: UTF8.self) else { throw CodecError(.invalidUTF8, "not UTF-8") }
        return s
    }
    @inlinable public mutating func readBytes() throws(CodecError) -> [UInt8] {
        let t = try self.tag(); let n: Int
        switch t { case 0xC4: n = Int(try self.number(UInt8.self)); case 0xC5: n = Int(try self.number(UInt16.self)); case 0xC6: n = Int(try self.number(UInt32.self)); default: throw self.mismatch("bytes", t) }
        let at = try self.take(n)
        return unsafe [UInt8](UnsafeRawBufferPointer(rebasing: self.bytes[at..<at + n]))
    }
    @inlinable public mutating func readArrayHeader() throws(CodecError) -> Int {
        let t = try self.tag()
        if t & 0xF0 == 0x90 { return Int(t & 0x0F) }
        switch t { case 0xDC: return Int(try self.number(UInt16.self)); case 0xDD: return Int(try self.number(UInt32.self)); default: throw self.mismatch("an array", t) }
    }
    @inlinable public mutating func readMapHeader() throws(CodecError) -> Int {
        let t = try self.tag()
        if t & 0xF0 == 0x80 { return Int(t & 0x0F) }
        switch t { case 0xDE: return Int(try self.number(UInt16.self)); case 0xDF: return Int(try self.number(UInt32.self)); default: throw self.mismatch("a map", t) }
    }
    public mutating func skip() throws(CodecError) {
        var left = 1
        while left > 0 {
            left -= 1
            let t = self.peek ?? 0
            if t & 0xE0 == 0xA0 || (0xD9...0xDB).contains(t) { let n = try self.stringCount(); _ = try self.take(n) }
            else if (0xC4...0xC6).contains(t) { _ = try self.readBytes() }
            else if t & 0xF0 == 0x90 || t == 0xDC || t == 0xDD { left += try self.readArrayHeader() }
            else if t & 0xF0 == 0x80 || t == 0xDE || t == 0xDF { left += 2 * (try self.readMapHeader()) }
            else if t == 0xC0 || t == 0xC2 || t == 0xC3 { _ = try self.take(1) }
            else if t == 0xCA || t == 0xCB { _ = try self.readDouble() }
            else if t == 0xCF { _ = try self.readUInt64() }
            else { _ = try self.readInt64() }
        }
    }
}
@inlinable
public func withPackReader<R: ~Copyable, E: Error>(over bytes: UnsafeRawBufferPointer, limits: CodecLimits = .standard, _ body: (inout PackReader) throws(E) -> R) throws(E) -> R {
    var reader = unsafe PackReader(bytes)
    return try body(&reader)
}
