// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverWire
internal import DroverZMQ
internal import Glibc

/// One encoded message in memory of its own: room for the header, then metadata and content.
///
/// Whoever holds it frees it, once.
///
/// `@unchecked Sendable`: it is handed from one holder to the next, never used by two; see ``AnyAsyncResult``.
@safe
struct RequestBytes: @unchecked Sendable {
    static var headerByteCount: Int { Header.byteCount }

    /// The block's start; nil once it was freed.
    private(set) var base: UnsafeMutableRawPointer?
    /// Set once libzmq sends from the block itself: it is then freed when both are done.
    private var shared: SharedBlock?
    /// As in the header: a payload has less than 4 GiB.
    private let byteCount: UInt32

    /// The block's length, header included.
    var count: Int { Int(self.byteCount) }

    /// No bytes at all: a ping needs none.
    init() {
        unsafe self.base = nil
        self.byteCount = UInt32(Header.byteCount)
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
        unsafe self.base = base
        self.byteCount = UInt32(count)
    }

    init(adopting block: consuming PackedBlock) {
        let bytes = unsafe block.release()
        unsafe self.base = bytes.baseAddress
        self.byteCount = UInt32(bytes.count)
    }

    var payloadCount: Int { self.count - Header.byteCount }

    /// The block for a message that libzmq sends without a copy.
    mutating func share() -> SharedBlock? {
        if let shared { return shared }
        guard let base = unsafe self.base else { return nil }
        HeapReserve.expect(self.count)
        let block = unsafe SharedBlock(base)
        self.shared = block
        return block
    }

    mutating func free() {
        if self.shared != nil {
            self.shared = nil
        } else if let base = unsafe self.base {
            unsafe Glibc.free(base)
        }
        unsafe self.base = nil
    }
}

/// A block of memory that a handle and libzmq read from; freed when both have let go.
///
/// `@unchecked Sendable`: the pointer never changes, and nobody writes to the block once it is shared.
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
