// SPDX-License-Identifier: Apache-2.0

/// A value whose type its owner knows: stored here if it takes no more than two words, else behind an address.
///
/// Not an optional, and not destroyed by itself: for that its type would be looked up for each handle, in a table of the
/// runtime. Instead the handle's status says whether there is a value.
@safe
@usableFromInline
package struct ValueWords: Sendable {
    @usableFromInline package var words: (UInt, UInt)

    @inlinable
    package init(_ words: (UInt, UInt) = (0, 0)) { self.words = words }

    @inlinable
    package static func isStoredHere<Value>(_: Value.Type) -> Bool {
        MemoryLayout<Value>.size <= MemoryLayout<(UInt, UInt)>.size
            && MemoryLayout<Value>.alignment <= MemoryLayout<UInt>.alignment
    }

    /// The value that was stored.
    @inlinable
    package func load<Value>(as type: Value.Type) -> Value {
        unsafe withUnsafeBytes(of: self.words) { words in
            if Self.isStoredHere(type) { return unsafe words.load(as: Value.self) }
            return unsafe words.load(as: UnsafePointer<Value>.self).pointee
        }
    }

    /// Puts a value in where none is.
    @inlinable
    package mutating func store<Value>(_ value: Value) {
        unsafe withUnsafeMutableBytes(of: &self.words) { words in
            guard let here = words.baseAddress else { return }
            if Self.isStoredHere(Value.self) {
                unsafe here.initializeMemory(as: Value.self, to: value)
            } else {
                let place = UnsafeMutablePointer<Value>.allocate(capacity: 1)
                unsafe place.initialize(to: value)
                unsafe here.storeBytes(of: place, as: UnsafeMutablePointer<Value>.self)
            }
        }
    }

    /// Destroys the value that was stored.
    package mutating func destroy<Value>(_ type: Value.Type) {
        unsafe withUnsafeMutableBytes(of: &self.words) { words in
            guard let here = words.baseAddress else { return }
            if Self.isStoredHere(type) {
                unsafe here.assumingMemoryBound(to: Value.self).deinitialize(count: 1)
            } else {
                let place = unsafe here.load(as: UnsafeMutablePointer<Value>.self)
                unsafe place.deinitialize(count: 1)
                unsafe place.deallocate()
            }
        }
    }
}
