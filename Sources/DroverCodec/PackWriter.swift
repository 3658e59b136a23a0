// SPDX-License-Identifier: Apache-2.0

public import Glibc

@safe
public struct PackWriter: ~Copyable {
    @usableFromInline var memory: UnsafeMutableRawPointer
    @usableFromInline var capacity: Int
    @usableFromInline package var count: Int
    @usableFromInline let limit: Int
    package var references: [UInt32] = []
    @usableFromInline var isOwner = true

    @inlinable
    public init(capacity: Int, headerBytes: Int = 0, limits: CodecLimits = .standard) {
        self.capacity = max(16, capacity, headerBytes)
        unsafe self.memory = malloc(self.capacity)
        self.count = headerBytes
        self.limit = limits.maxBytes
    }
    deinit { if self.isOwner { unsafe free(self.memory) } }

    @inlinable mutating func reserve(_ n: Int) throws(CodecError) -> UnsafeMutableRawPointer {
        let need = self.count + n
        if need > self.capacity { try self.grow(need) }
        defer { self.count = need }
        return unsafe self.memory + self.count
    }
    @usableFromInline mutating func grow(_ need: Int) throws(CodecError) {
        guard need <= self.limit else { throw CodecError(.tooLarge, "more than \(self.limit) bytes") }
        self.capacity = max(need, self.capacity * 2)
        unsafe self.memory = realloc(self.memory, self.capacity)
    }
    @inlinable mutating func byte(_ b: UInt8) throws(CodecError) {
        unsafe try self.reserve(1).storeBytes(of: b, as: UInt8.self)
    }
    @inlinable mutating func tagged<T: FixedWidthInteger & BitwiseCopyable>(_ b: UInt8, _ v: T) throws(CodecError) {
        let p = try unsafe self.reserve(1 + MemoryLayout<T>.size)
        unsafe p.storeBytes(of: b, as: UInt8.self)
        unsafe p.storeBytes(of: v.bigEndian, toByteOffset: 1, as: T.self)
    }
    @inlinable public mutating func packNil() throws(CodecError) { try self.byte(0xC0) }
    @inlinable public mutating func pack(_ v: Bool) throws(CodecError) { try self.byte(v ? 0xC3 : 0xC2) }
    @inlinable public mutating func pack(_ v: UInt64) throws(CodecError) {
        if v < 128 { try self.byte(UInt8(v)) } else if v <= 0xFF { try self.tagged(0xCC, UInt8(v)) }
        else if v <= 0xFFFF { try self.tagged(0xCD, UInt16(v)) } else if v <= 0xFFFF_FFFF { try self.tagged(0xCE, UInt32(v)) }
        else { try self.tagged(0xCF, v) }
    }
    @inlinable public mutating func pack(_ v: Int64) throws(CodecError) {
        if v >= 0 { return try self.pack(UInt64(v)) }
        if v >= -32 { try self.byte(UInt8(bitPattern: Int8(v))) } else if v >= -128 { try self.tagged(0xD0, Int8(v)) }
        else if v >= -32768 { try self.tagged(0xD1, Int16(v)) } else if v >= -2_147_483_648 { try self.tagged(0xD2, Int32(v)) }
        else { try self.tagged(0xD3, v) }
    }
    @inlinable public mutating func pack(_ v: Double) throws(CodecError) { try self.tagged(0xCB, v.bitPattern) }
    @inlinable public mutating func pack(_ v: Float) throws(CodecError) { try self.tagged(0xCA, v.bitPattern) }
    @inlinable public mutating func pack(_ v: String) throws(CodecError) {
        var v = v
        let n = v.utf8.count
        if n < 32 { try self.byte(0xA0 | UInt8(n)) } else if n <= 0xFF { try self.tagged(0xD9, UInt8(n)) }
        else if n <= 0xFFFF { try self.tagged(0xDA, UInt16(n)) } else { try self.tagged(0xDB, UInt32(n)) }
        let p = try unsafe self.reserve(n)
        v.withUTF8 { if n > 0 { unsafe p.copyMemory(from: $0.baseAddress!, byteCount: n) } }
    }
    @inlinable public mutating func pack(_ v: UnsafeRawBufferPointer) throws(CodecError) {
        let n = v.count
        if n <= 0xFF { try self.tagged(0xC4, UInt8(n)) } else if n <= 0xFFFF { try self.tagged(0xC5, UInt16(n)) }
        else { try self.tagged(0xC6, UInt32(n)) }
        let p = try unsafe self.reserve(n)
        if n > 0 { unsafe p.copyMemory(from: v.baseAddress!, byteCount: n) }
    }
    @inlinable public mutating func pack(_ v: [UInt8]) throws(CodecError) {
        let n = v.count
        if n <= 0xFF { try self.tagged(0xC4, UInt8(n)) } else if n <= 0xFFFF { try self.tagged(0xC5, UInt16(n)) }
        else { try self.tagged(0xC6, UInt32(n)) }
        let p = try unsafe self.reserve(n)
        unsafe v.withUnsafeBytes { if n > 0 { unsafe p.copyMemory(from: $0.baseAddress!, byteCount: n) } }
    }
    @inlinable public mutating func packArrayHeader(_ n: Int) throws(CodecError) {
        if n < 16 { try self.byte(0x90 | UInt8(n)) } else if n <= 0xFFFF { try self.tagged(0xDC, UInt16(n)) } else { try self.tagged(0xDD, UInt32(n)) }
    }
    @inlinable public mutating func packMapHeader(_ n: Int) throws(CodecError) {
        if n < 16 { try self.byte(0x80 | UInt8(n)) } else if n <= 0xFFFF { try self.tagged(0xDE, UInt16(n)) } else { try self.tagged(0xDF, UInt32(n)) }
    }
    package mutating func note(reference: UInt32) { self.references.append(reference) }
    package mutating func removeAll() { self.count = 0 }
    package borrowing func withBytes<R>(_ body: (UnsafeRawBufferPointer) -> R) -> R {
        unsafe body(UnsafeRawBufferPointer(start: self.memory, count: self.count))
    }
    public consuming func finish() -> PackedBlock {
        let b = unsafe PackedBlock(baseAddress: self.memory, count: self.count)
        self.isOwner = false
        return b
    }
}
@safe
public struct PackedBlock: ~Copyable {
    public let baseAddress: UnsafeMutableRawPointer
    public let count: Int
    deinit { unsafe free(self.baseAddress) }
    public consuming func release() -> UnsafeMutableRawBufferPointer {
        let r = unsafe UnsafeMutableRawBufferPointer(start: self.baseAddress, count: self.count)
        discard self
        return unsafe r
    }
}
