// SPDX-License-Identifier: Apache-2.0

import DroverCore
import Testing

@Suite struct ForgottenIDsTests {
    @Test("S97 what was answered is known exactly, in whatever order, and what was not isn't taken for it")
    func exact() {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<50 {
            var ids = ForgottenIDs()
            var known: Set<UInt64> = []
            for _ in 0..<800 {
                let id = UInt64.random(in: 0...1500, using: &random)
                ids.insert(id)
                known.insert(id)
            }
            for id in 1...1501 as ClosedRange<UInt64> { #expect(ids.contains(id) == known.contains(id), "\(id)") }
        }
        var ids = ForgottenIDs()
        for id in [.max, .max - 1, 1, 2] as [UInt64] { ids.insert(id) }
        #expect(ids.contains(.max) && !ids.contains(.max - 2) && !ids.contains(3) && ids.rangeCount == 2)
    }

    @Test("in order it takes no room; with too many gaps the lowest are given up, and never one that was answered")
    func bounded() {
        var ids = ForgottenIDs()
        for id in 1...100_000 as ClosedRange<UInt64> { ids.insert(id) }
        #expect(ids.rangeCount == 1)
        for id in stride(from: UInt64(200_000), to: 220_000, by: 2) { ids.insert(id) }
        #expect(ids.rangeCount <= ForgottenIDs.mostRanges)
        for id in stride(from: UInt64(200_000), to: 220_000, by: 2) { #expect(ids.contains(id)) }
        #expect(!ids.contains(219_001) && ids.contains(200_001), "below some id all count")
    }
}
