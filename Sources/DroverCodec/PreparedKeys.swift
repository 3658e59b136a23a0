// SPDX-License-Identifier: Apache-2.0

internal import Glibc

/// The field names of a type in the order in which they were first asked for, ready to be written and compared.
///
/// A type asks for its fields in the same order each time, and mostly with the same literals. So the next name
/// is guessed, and recognized by the bits of its `String` alone: the same bits are the same text, as long as the text
/// noted here is alive.
@safe
struct PreparedKeys: ~Copyable {
    /// A name in MessagePack's shortest form.
    @safe
    struct Entry {
        let name: String
        fileprivate let bits: (UInt64, UInt64)
        /// The bytes of header and text, 32 at most.
        let size: Int
        fileprivate let words: (UInt64, UInt64, UInt64, UInt64)
        /// Which bits of the first two words count.
        fileprivate let masks: (UInt64, UInt64)
    }

    /// The maximum number of noted names; types with more, or with dynamic names, find the others the slower way.
    private static let most = 64

    private var entries: UnsafeMutablePointer<Entry>
    private var capacity: Int
    private var count = 0

    init() {
        self.capacity = 8
        unsafe self.entries = .allocate(capacity: 8)
    }

    deinit {
        unsafe self.entries.deinitialize(count: self.count)
        unsafe self.entries.deallocate()
    }

    /// The entry of `name`; -1 if the name isn't noted and can't be.
    @inline(__always)
    mutating func index(of name: String, expected: Int) -> Int {
        let bits = unsafe unsafeBitCast(name, to: (UInt64, UInt64).self)
        if expected < self.count, unsafe self.entries[expected].bits == bits { return expected }
        return self.otherIndex(of: name)
    }

    @inline(never)
    private mutating func otherIndex(of name: String) -> Int {
        let bits = unsafe unsafeBitCast(name, to: (UInt64, UInt64).self)
        for index in 0..<self.count where unsafe self.entries[index].bits == bits { return index }
        // Longer names have a different header, and few types have them.
        if self.count >= Self.most || name.utf8.count > 31 { return -1 }
        if self.count == self.capacity {
            let more = UnsafeMutablePointer<Entry>.allocate(capacity: 2 * self.capacity)
            unsafe more.moveInitialize(from: self.entries, count: self.count)
            unsafe self.entries.deallocate()
            unsafe self.entries = more
            self.capacity *= 2
        }
        unsafe (self.entries + self.count).initialize(to: Entry(name, bits: bits))
        self.count += 1
        return self.count - 1
    }

    /// The entry at `index`, which must be one that was returned.
    @inline(__always)
    func entry(_ index: Int) -> UnsafePointer<Entry> { unsafe UnsafePointer(self.entries + index) }
}

extension PreparedKeys.Entry {
    fileprivate init(_ name: String, bits: (UInt64, UInt64)) {
        var words: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
        var masks: (UInt64, UInt64) = (0, 0)
        let size = 1 + name.utf8.count
        unsafe withUnsafeMutableBytes(of: &words) { bytes in
            unsafe bytes[0] = 0xA0 | UInt8(name.utf8.count)
            for (index, byte) in name.utf8.enumerated() { unsafe bytes[index + 1] = byte }
        }
        unsafe withUnsafeMutableBytes(of: &masks) { bytes in
            for index in 0..<min(size, 16) { unsafe bytes[index] = 0xFF }
        }
        self.name = name
        self.bits = bits
        self.size = size
        self.words = words
        self.masks = masks
    }
}

extension PackWriter {
    /// Writes a field's name.
    @inline(__always)
    mutating func pack(_ key: UnsafePointer<PreparedKeys.Entry>) throws(CodecError) {
        if self.capacity &- self.used >= 32, let base = unsafe self.base {
            // Writes more bytes than the name has, into room that the next value overwrites.
            let place = unsafe base + self.used
            unsafe place.storeBytes(of: key.pointee.words.0, as: UInt64.self)
            unsafe place.storeBytes(of: key.pointee.words.1, toByteOffset: 8, as: UInt64.self)
            if unsafe key.pointee.size > 16 {
                unsafe place.storeBytes(of: key.pointee.words.2, toByteOffset: 16, as: UInt64.self)
                unsafe place.storeBytes(of: key.pointee.words.3, toByteOffset: 24, as: UInt64.self)
            }
            unsafe self.used &+= key.pointee.size
        } else {
            try self.pack(unsafe key.pointee.name)
        }
    }
}

extension PackReader {
    /// Whether the name is next in its shortest form; if so, the reader moves past it.
    @inline(__always)
    mutating func pass(_ key: UnsafePointer<PreparedKeys.Entry>) -> Bool {
        let remaining = self.remaining
        guard let base = unsafe self.base, unsafe key.pointee.size <= remaining else { return false }
        let place = unsafe base + self.position
        if unsafe remaining >= 16 && key.pointee.size <= 16 {
            let first = unsafe place.loadUnaligned(as: UInt64.self) ^ key.pointee.words.0
            let second = unsafe place.loadUnaligned(fromByteOffset: 8, as: UInt64.self) ^ key.pointee.words.1
            if unsafe (first & key.pointee.masks.0) | (second & key.pointee.masks.1) != 0 { return false }
        } else {
            // At the end of the bytes, and for long names.
            let isSame = unsafe withUnsafeBytes(of: key.pointee.words) { words in
                guard let words = words.baseAddress else { return false }
                return unsafe memcmp(place, words, key.pointee.size) == 0
            }
            if !isSame { return false }
        }
        unsafe self.position &+= key.pointee.size
        return true
    }
}
