// SPDX-License-Identifier: Apache-2.0

internal import CDroverZMQ
internal import Glibc
internal import Synchronization

/// Lets the C library keep the memory of large payloads ready for the next ones.
///
/// glibc returns the free memory at a heap's end to the kernel once it exceeds twice the size of the largest separately
/// mapped block that was ever freed. With payloads of a megabyte that soon happens: a call needs five such blocks on
/// both sides, and each must then be obtained from the kernel again, page by page, and cleared. That took a third of
/// such a call's time. When a block is freed, glibc takes its size for what the program usually needs; here it is shown
/// one as large as several payloads together.
///
/// What is kept is at most twice ``largestBlock`` for each of the C library's heaps; a process without large payloads
/// keeps nothing. An allocator that replaces glibc's only sees a block come and go.
package enum HeapReserve {
    /// The size from which a payload counts as large.
    package static let largePayload = 128 << 10
    /// The largest block that glibc is shown.
    package static let largestBlock = 16 << 20
    /// How many payloads of a size are expected at once.
    private static let payloads = 16

    private static let shown = Atomic<Int>(0)
    /// Whether there may be much to give back.
    private static let hasUsedMuch = Atomic<Bool>(false)

    /// Notes that enough was in use to be worth giving back: many calls, or a large payload.
    package static func usedMuch() {
        if !self.hasUsedMuch.load(ordering: .relaxed) { self.hasUsedMuch.store(true, ordering: .relaxed) }
    }

    /// Gives back what a process that used much memory has kept; called when one of its loops has nothing to do.
    ///
    /// This takes about a millisecond per hundred megabytes, and blocks threads that allocate meanwhile.
    package static func giveBack() {
        if self.hasUsedMuch.load(ordering: .relaxed) { _ = drover_trim_heaps() }
    }

    /// How much of the C library's heaps is in use, in bytes; 0 if the library doesn't report it.
    package static var bytesInUse: Int { Int(drover_heap_bytes_in_use()) }

    /// Notes that a payload of this size was received or is about to be sent.
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
        // Mapped, never touched, unmapped. A compiler may remove a `malloc` whose block is only freed.
        var block: UnsafeMutableRawPointer?
        guard unsafe posix_memalign(&block, 64, wanted) == 0 else { return }
        unsafe free(block)
    }
}
