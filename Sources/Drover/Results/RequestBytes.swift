// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverWire
internal import DroverZMQ
internal import Glibc

/// One encoded message in memory of its own: room for the header, then metadata and content.
///
/// Its owner frees it, once.
///
/// `@unchecked Sendable`: it is handed from one holder to the next, never used by two; see ``AnyAsyncResult``.
@safe
struct RequestBytes: @unchecked Sendable {
    static var headerByteCount: Int { Header.byteCount }

    /// The block, or who shares it; nil once it was freed.
    private var owner: UnsafeMutableRawPointer?
    /// Twice the length, and 1 once libzmq sends from the block itself: it is then freed when both are done.
    ///
    /// Handles are many, and this is half of what a flag and a reference beside the length would take. A block is shorter than
    /// 2 GiB, since a payload has at most 1.
    private var word: UInt32

    /// The block's length, header included.
    var count: Int { Int(self.word >> 1) }

    private var isShared: Bool { self.word & 1 == 1 }

    private var sharedBlock: SharedBlock? {
        guard self.isShared, let owner = unsafe self.owner else { return nil }
        return unsafe Unmanaged<SharedBlock>.fromOpaque(owner).takeUnretainedValue()
    }

    /// The block's start; nil once it was freed.
    var base: UnsafeMutableRawPointer? {
        if let sharedBlock { return unsafe sharedBlock.base }
        return unsafe self.owner
    }

    /// No bytes at all: a ping needs none.
    init() {
        unsafe self.owner = nil
        self.word = UInt32(Header.byteCount) << 1
    }

    /// A message whose payload is what the writer holds.
    init(copying writer: borrowing PackWriter) {
        let (base, count) = unsafe writer.withBytes { bytes -> (UnsafeMutableRawPointer?, Int) in
            let block = unsafe malloc(Header.byteCount + bytes.count)
            if let block = unsafe block, let source = bytes.baseAddress {
                unsafe (block + Header.byteCount).copyMemory(from: source, byteCount: bytes.count)
            }
            return unsafe (block, Header.byteCount + bytes.count)
        }
        unsafe self.owner = base
        self.word = UInt32(count << 1)
    }

    init(adopting block: consuming PackedBlock) {
        let bytes = unsafe block.release()
        unsafe self.owner = bytes.baseAddress
        self.word = UInt32(bytes.count << 1)
    }

    var payloadCount: Int { self.count - Header.byteCount }

    /// The block for a message that libzmq sends without a copy.
    mutating func share() -> SharedBlock? {
        if let sharedBlock { return sharedBlock }
        guard let owner = unsafe self.owner else { return nil }
        HeapReserve.expect(self.count)
        let block = unsafe SharedBlock(owner)
        unsafe self.owner = Unmanaged.passRetained(block).toOpaque()
        self.word |= 1
        return block
    }

    mutating func free() {
        guard let owner = unsafe self.owner else { return }
        if self.isShared {
            unsafe Unmanaged<SharedBlock>.fromOpaque(owner).release()
            self.word &= ~1
        } else {
            unsafe Glibc.free(owner)
        }
        unsafe self.owner = nil
    }
}

/// A block of memory that a handle and libzmq read from; freed when both have let go.
///
/// `@unchecked Sendable`: the pointer never changes, and nothing writes to the block once it is shared.
@safe
final class SharedBlock: @unchecked Sendable {
    let base: UnsafeMutableRawPointer

    init(_ base: UnsafeMutableRawPointer) { unsafe self.base = base }

    deinit { unsafe free(self.base) }
}

/// A call's request, encoded, on its way to the poller.
struct EncodedRequest {
    var block: RequestBytes
    let hasMetadata: Bool
    /// The subscriptions whose callbacks are among the arguments.
    let references: [SubscriptionID]
    var kind = AnyAsyncResult.Kind.call
}
