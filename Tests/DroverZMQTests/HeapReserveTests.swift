// SPDX-License-Identifier: Apache-2.0

import Glibc
import Testing

@testable import DroverZMQ

@Suite("Heap reserve", .timeLimit(.minutes(1)))
struct HeapReserveTests {
    /// Whether the C library maps a block of a size by itself: glibc notes that in the word before the block.
    private func isMapped(_ bytes: Int) throws -> Bool {
        let block = try #require(malloc(bytes))
        defer { free(block) }
        return (block - 8).load(as: UInt.self) & 2 != 0
    }

    @Test(
        "after a large payload, blocks like it are no longer mapped one by one; much larger ones are",
        .disabled(if: getenv("DROVER_SANITIZED") != nil, "sanitizers bring an allocator of their own")
    )
    func expected() throws {
        HeapReserve.expect(1 << 20)
        for bytes in [1 << 20, 4 << 20, 12 << 20] { #expect(try !self.isMapped(bytes), "\(bytes) bytes") }
        // Larger than anything that other users of this process can have left free in a heap.
        #expect(try self.isMapped(2 << 30))
    }
}
