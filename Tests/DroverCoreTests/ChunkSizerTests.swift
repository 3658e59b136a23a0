// SPDX-License-Identifier: Apache-2.0

import DroverCore
import Testing

@Suite struct ChunkSizerTests {
    @Test("quick items travel together, as many as make up half a millisecond, by steps")
    func growing() {
        var sizer = ChunkSizer(window: 8192)
        #expect(sizer.size == 1)
        var sizes: [Int] = []
        for _ in 0..<4 {
            let size = sizer.size
            // Two microseconds each.
            sizer.answered(count: size, ran: size, microseconds: UInt32(size) * 2)
            sizes.append(sizer.size)
        }
        #expect(sizes == [8, 64, 250, 250])
    }

    @Test("slow items travel alone, and one of them among quick ones counts at once")
    func slow() {
        var sizer = ChunkSizer(window: 8192)
        sizer.answered(count: 1, ran: 1, microseconds: 20_000)
        #expect(sizer.size == 1)
        sizer = ChunkSizer(window: 8192)
        for _ in 0..<4 { sizer.answered(count: sizer.size, ran: sizer.size, microseconds: UInt32(sizer.size)) }
        #expect(sizer.size == 500)
        sizer.answered(count: 500, ran: 500, microseconds: 1_000_000)
        #expect(sizer.size == 1)
    }

    @Test("eight chunks fit into the window, and none has more than 4096 items")
    func limits() {
        for (window, most) in [(1, 1), (7, 1), (16, 2), (512, 64), (1 << 20, 4096)] {
            var sizer = ChunkSizer(window: window)
            for _ in 0..<8 { sizer.answered(count: sizer.size, ran: sizer.size, microseconds: 1) }
            #expect(sizer.size <= most)
            #expect(window > 1024 || sizer.size == most)
        }
    }

    @Test("what comes back unrun makes chunks smaller, and they grow again")
    func unrun() {
        var sizer = ChunkSizer(window: 8192)
        for _ in 0..<5 { sizer.answered(count: sizer.size, ran: sizer.size, microseconds: 1) }
        let full = sizer.size
        sizer.answered(count: full, ran: 10, microseconds: 1)
        #expect(sizer.size == 10)
        sizer.answered(count: 10, ran: 10, microseconds: 1)
        #expect(sizer.size == 20)
        // Those that ran none, and those whose worker doesn't say how long it took, teach nothing of the time.
        sizer.answered(count: 20, ran: 0, microseconds: 7)
        sizer.answered(count: 20, ran: 20, microseconds: 0)
        #expect(sizer.size == 20)
    }

    @Test("a batch begins with what the one before has learned")
    func known() {
        #expect(ChunkSizer(window: 8192, itemNanoseconds: 5_000).size == 100)
        #expect(ChunkSizer(window: 8192, itemNanoseconds: 0.001).size == 1024)
        #expect(ChunkSizer(window: 8192, itemNanoseconds: 1e9).size == 1)
        #expect(ChunkSizer(window: 8192, itemNanoseconds: 5_000).hasLearned)
        #expect(!ChunkSizer(window: 8192).hasLearned)
    }
}
