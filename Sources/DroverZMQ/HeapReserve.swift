// SPDX-License-Identifier: Apache-2.0

internal import CDroverZMQ
internal import Glibc
internal import Synchronization

/// Lets the C library keep the memory that large payloads used ready for the next ones.
///
/// glibc gives the kernel back what lies free at a heap's end once it is more than twice the largest block that was ever
/// mapped by itself and freed. For payloads of a megabyte that is soon the case: a call needs five such blocks on both
/// sides, and each is then had from the kernel anew, page by page, and cleared. That took a third of the time of such a
/// call. glibc takes a block's size for what the program usually needs when that block is freed; here it is shown one
/// that is as large as some payloads together.
///
/// What is kept is bounded by twice ``largestBlock`` for each of the C library's heaps; a process without large payloads
/// keeps nothing. An allocator that was put in the place of glibc's only sees a block come and go.
package enum HeapReserve {
    /// From this size on a payload is large.
    package static let largePayload = 128 << 10
    /// The largest block that is shown.
    package static let largestBlock = 16 << 20
    /// How many payloads of a size are expected at the same time.
    private static let payloads = 16

    private static let shown = Atomic<Int>(0)
    /// Whether there may be much to give back.
    private static let hasUsedMuch = Atomic<Bool>(false)

    /// So much was in use that it is worth giving back: many calls, or a large payload.
    package static func usedMuch() {
        if !self.hasUsedMuch.load(ordering: .relaxed) { self.hasUsedMuch.store(true, ordering: .relaxed) }
    }

    /// A loop of the process has nothing to do: gives back what a process that used much keeps.
    ///
    /// Takes a millisecond for each hundred megabytes or so, and keeps threads that allocate waiting meanwhile.
    package static func giveBack() {
        if self.hasUsedMuch.load(ordering: .relaxed) { _ = drover_trim_heaps() }
    }

    /// How much of the C library's heaps is in use, in bytes; 0 where it doesn't say.
    package static var bytesInUse: Int { Int(drover_heap_bytes_in_use()) }

    /// A payload of so many bytes has come or goes out.
    @inline(__always)
    package static func expect(_ bytes: Int) {
        if bytes >= self.largePayload {
            self.usedMuch()
            self.show(bytes)
        }
    }

    @inline(never)
    private static func show(_ bytes: Int) {
        let wanted = min(self.largestBlock, bytes * self.payloads)
        guard self.shown.load(ordering: .relaxed) < wanted else { return }
        self.shown.store(wanted, ordering: .relaxed)
        // Mapped, never touched, unmapped. A compiler may leave out a `malloc` whose block is only freed.
        var block: UnsafeMutableRawPointer?
        guard unsafe posix_memalign(&block, 64, wanted) == 0 else { return }
        unsafe free(block)
    }
}
