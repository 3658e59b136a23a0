// SPDX-License-Identifier: Apache-2.0

package import CDroverZMQ
import Glibc

/// One frame, owned: libzmq's message, without copying its bytes.
///
/// Up to 33 bytes are stored inside the struct itself and longer contents outside, so the bytes are only available
/// within a closure. A message isn't bound to a thread; moving it in memory is what libzmq itself does with it.
@safe package struct Message: ~Copyable {
    @usableFromInline package var raw: zmq_msg_t

    /// Creates an empty message, to receive into.
    @inlinable package init() {
        self.raw = zmq_msg_t()
        unsafe zmq_msg_init(&self.raw)
    }

    /// Creates a message of `size` bytes with undefined contents: write them with ``withUnsafeMutableBytes(_:)``.
    @inlinable package init(size: Int) {
        self.raw = zmq_msg_t()
        let code = unsafe zmq_msg_init_size(&self.raw, size)
        precondition(code == 0, "no memory for a message")
    }

    /// Creates a message with a copy of `bytes`.
    @inlinable package init(copying bytes: UnsafeRawBufferPointer) {
        self.init(size: bytes.count)
        unsafe self.withUnsafeMutableBytes { unsafe $0.copyMemory(from: bytes) }
    }

    /// Creates a message with a copy of `bytes`.
    @inlinable package init(copying bytes: [UInt8]) {
        self.init(size: bytes.count)
        unsafe self.withUnsafeMutableBytes { unsafe $0.copyBytes(from: bytes) }
    }

    /// Creates a message from memory that came from `malloc`; libzmq frees it when it is no longer needed.
    package init(adopting memory: UnsafeMutableRawPointer, count: Int) {
        self.raw = zmq_msg_t()
        let code = unsafe drover_msg_adopt(&self.raw, memory, count)
        precondition(code == 0, "no memory for a message")
    }

    /// Creates a message from memory that `owner` keeps valid and unchanged until it is released.
    ///
    /// `owner` is released once, on whichever thread drops the last copy, usually one of libzmq's I/O threads.
    package init<Owner: AnyObject & Sendable>(adopting memory: UnsafeMutableRawPointer, count: Int, owner: Owner) {
        self.raw = zmq_msg_t()
        let hint = unsafe Unmanaged<AnyObject>.passRetained(owner).toOpaque()
        let code = unsafe zmq_msg_init_data(&self.raw, memory, count, { unsafe releaseOwner($0, $1) }, hint)
        precondition(code == 0, "no memory for a message")
    }

    /// Creates a message from memory that stays valid until libzmq calls `giveBack` with it and `hint`, on any thread.
    package init(
        lending memory: UnsafeMutableRawPointer,
        count: Int,
        hint: UnsafeMutableRawPointer,
        giveBack: @convention(c) (UnsafeMutableRawPointer?, UnsafeMutableRawPointer?) -> Void
    ) {
        self.raw = zmq_msg_t()
        let code = unsafe zmq_msg_init_data(&self.raw, memory, count, giveBack, hint)
        precondition(code == 0, "no memory for a message")
    }

    /// How many bytes fit inside the struct itself.
    package static var inlineBytes: Int { 33 }

    @inlinable deinit {
        // `self` can't be changed here; a bitwise copy of the struct is the message, just as for `zmq_msg_move`.
        var last = self.raw
        unsafe zmq_msg_close(&last)
    }

    /// The number of bytes.
    @inlinable package var count: Int {
        unsafe withUnsafePointer(to: self.raw) { unsafe zmq_msg_size($0) }
    }

    /// Whether there are no bytes.
    @inlinable package var isEmpty: Bool { self.count == 0 }

    /// Whether this frame was received with more frames of the same message after it.
    @inlinable package var hasMore: Bool {
        unsafe withUnsafePointer(to: self.raw) { unsafe zmq_msg_more($0) != 0 }
    }

    /// Calls `body` with the bytes; the pointer must not outlive the call.
    @inlinable package func withUnsafeBytes<Result: ~Copyable, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try unsafe withUnsafePointer(to: self.raw) { raw throws(Failure) -> Result in
            // Reading the address changes nothing; the parameter just isn't const.
            let raw = unsafe UnsafeMutablePointer(mutating: raw)
            return try unsafe body(UnsafeRawBufferPointer(start: zmq_msg_data(raw), count: zmq_msg_size(raw)))
        }
    }

    /// Calls `body` with the bytes, to write them; the pointer must not outlive the call.
    ///
    /// A received message may be rewritten in place and sent on, as long as it wasn't copied: libzmq's copies share
    /// their contents.
    @inlinable package mutating func withUnsafeMutableBytes<Result: ~Copyable, Failure: Error>(
        _ body: (UnsafeMutableRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try unsafe withUnsafeMutablePointer(to: &self.raw) { raw throws(Failure) -> Result in
            try unsafe body(UnsafeMutableRawBufferPointer(start: zmq_msg_data(raw), count: zmq_msg_size(raw)))
        }
    }

    /// A copy of the bytes.
    package var bytes: [UInt8] {
        unsafe self.withUnsafeBytes { unsafe Array($0) }
    }

    /// Moves the contents out, without copying them, and leaves this message empty.
    @inlinable package mutating func take() -> Message {
        var taken = Message()
        // Fails only if it isn't a valid message.
        _ = unsafe zmq_msg_move(&taken.raw, &self.raw)
        return taken
    }

    /// Makes a second message with the same bytes, which the two share if there are many.
    package mutating func share() -> Message {
        var shared = Message()
        _ = unsafe zmq_msg_copy(&shared.raw, &self.raw)
        return shared
    }
}

/// A received frame that several readers share; the bytes live as long as the box.
///
/// `@unchecked Sendable`: the message is moved in at creation and never changed, so readers only read. The last
/// reader's release closes it, which libzmq allows on any thread (a message isn't bound to the socket it came from, and
/// shared contents are counted atomically).
package final class MessageBox: @unchecked Sendable {
    @usableFromInline let message: Message

    /// Takes over the message.
    package init(_ message: consuming Message) {
        HeapReserve.expect(message.count)
        self.message = message
    }

    /// The number of bytes.
    @inlinable package var count: Int { self.message.count }

    /// Calls `body` with the bytes; the pointer must not outlive the call.
    @inlinable package func withUnsafeBytes<Result: ~Copyable, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try unsafe self.message.withUnsafeBytes(body)
    }
}

/// Called by libzmq when it is done with memory that an object owns.
private func releaseOwner(_ data: UnsafeMutableRawPointer?, _ hint: UnsafeMutableRawPointer?) {
    guard let hint = unsafe hint else { return }
    unsafe Unmanaged<AnyObject>.fromOpaque(hint).release()
}
