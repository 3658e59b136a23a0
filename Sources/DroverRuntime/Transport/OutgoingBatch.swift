// SPDX-License-Identifier: Apache-2.0

package import DroverWire
package import DroverZMQ
internal import Glibc

/// Messages for one peer that go out as one frame.
///
/// Small frames are copied into the libzmq message, which is cheaper than to give memory away; of large ones the memory
/// itself is sent.
@safe
package struct OutgoingBatch: ~Copyable {
    /// A batch that reaches this size is sent at once.
    package static let flushBytes = 32 << 10
    @usableFromInline static let copiedBytes = 4 << 10

    @usableFromInline var memory: UnsafeMutableRawPointer
    @usableFromInline var capacity: Int
    @usableFromInline package private(set) var count = 0

    package init(capacity: Int = 4 << 10) {
        self.capacity = capacity
        unsafe self.memory = malloc(capacity)
    }

    deinit { unsafe free(self.memory) }

    @inlinable package var isEmpty: Bool { self.count == 0 }

    /// Adds a message without a payload.
    @inlinable package mutating func append(_ header: Header) {
        let place = unsafe self.room(for: Header.byteCount)
        unsafe header.write(to: place)
    }

    /// Adds a message.
    @inlinable package mutating func append(_ header: Header, payload: UnsafeRawBufferPointer) {
        let place = unsafe self.room(for: Header.byteCount + payload.count)
        unsafe header.write(to: place)
        if let base = payload.baseAddress {
            unsafe (place + Header.byteCount).copyMemory(from: base, byteCount: payload.count)
        }
    }

    /// Adds a whole message: header and payload as they go over the wire.
    @inlinable package mutating func append(message: UnsafeRawBufferPointer) {
        guard let base = message.baseAddress else { return }
        let place = unsafe self.room(for: message.count)
        unsafe place.copyMemory(from: base, byteCount: message.count)
    }

    /// The bytes from `start` to the end, for a look at what was just added.
    @inlinable package func withBytes<Result>(from start: Int, _ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        unsafe body(UnsafeRawBufferPointer(start: self.memory + start, count: self.count - start))
    }

    /// The frame, a small one in memory of the pool, and an empty batch.
    package mutating func take(_ pool: inout FramePool) -> Message {
        defer { self.count = 0 }
        if self.count <= Self.copiedBytes {
            return unsafe pool.message(copying: UnsafeRawBufferPointer(start: self.memory, count: self.count))
        }
        let message = unsafe Message(adopting: self.memory, count: self.count)
        unsafe self.memory = malloc(self.capacity)
        return message
    }

    @inlinable package mutating func removeAll() { self.count = 0 }

    /// Takes so many bytes back that were just added.
    @inlinable package mutating func removeLast(_ bytes: Int) { self.count -= bytes }

    @inlinable mutating func room(for bytes: Int) -> UnsafeMutableRawPointer {
        let needed = self.count + bytes
        if needed > self.capacity {
            self.capacity = max(needed, min(self.capacity * 2, Self.flushBytes * 2))
            unsafe self.memory = realloc(self.memory, self.capacity)
        }
        defer { self.count = needed }
        return unsafe self.memory + self.count
    }
}
