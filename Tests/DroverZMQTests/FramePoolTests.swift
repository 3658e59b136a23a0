// SPDX-License-Identifier: Apache-2.0

import Glibc
import Testing

@testable import DroverZMQ

@Suite("FramePool", .timeLimit(.minutes(1)))
struct FramePoolTests {
    /// Lets a struct that can't be copied be filled from a closure's loop.
    private final class Frames: @unchecked Sendable {
        // Used by one thread at a time: the test's before the threads start, then the thread that was given it.
        var messages: [MessageBox] = []
    }

    private func bytes(_ count: Int, seed: Int = 0) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ seed) }
    }

    @Test("a frame of any size has the bytes it was made of", arguments: [0, 1, 33, 34, 100, 240, 241, 10_000])
    func contents(size: Int) {
        var pool = FramePool()
        let bytes = self.bytes(size)
        let box = bytes.withUnsafeBytes { MessageBox(pool.message(copying: $0)) }
        let found = box.withUnsafeBytes { Array($0) }
        #expect(found == bytes)
        let isServed = size > Message.inlineBytes && size <= FramePool.frameBytes
        #expect((pool.capacity > 0) == isServed)
    }

    @Test("memory that came back is used again, so one frame at a time needs no more than the first lot")
    func reuse() {
        var pool = FramePool()
        let bytes = self.bytes(100)
        for _ in 0..<10_000 { _ = bytes.withUnsafeBytes { MessageBox(pool.message(copying: $0)) } }
        #expect(pool.capacity == 64)
    }

    @Test("beyond its limit the pool takes memory elsewhere, and the frames are right all the same")
    func limit() {
        var pool = FramePool()
        let frames = Frames()
        for index in 0..<FramePool.limit + 100 {
            let bytes = self.bytes(64, seed: index)
            frames.messages.append(bytes.withUnsafeBytes { MessageBox(pool.message(copying: $0)) })
        }
        #expect(pool.capacity == FramePool.limit)
        for (index, box) in frames.messages.enumerated() {
            let found = box.withUnsafeBytes { Array($0) }
            #expect(found == self.bytes(64, seed: index))
        }
    }

    @Test("frames outlive their pool, one by one and on other threads", arguments: [1, 64, 1000])
    func outlive(count: Int) throws {
        let frames = Frames()
        do {
            var pool = FramePool()
            for index in 0..<count {
                let bytes = self.bytes(80, seed: index)
                frames.messages.append(bytes.withUnsafeBytes { MessageBox(pool.message(copying: $0)) })
            }
        }
        let thread = try LoopThread.start(named: "returns") {
            for index in 0..<count {
                let found = frames.messages[index].withUnsafeBytes { Array($0) }
                #expect(found == (0..<80).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ index) })
            }
            frames.messages = []
        }
        thread.join()
    }

    @Test("blocks that threads give back while the pool takes and ends are neither lost nor lent twice")
    func threads() throws {
        for round in 0..<50 {
            let lots = (0..<3).map { _ in Frames() }
            var threads: [LoopThread] = []
            do {
                var pool = FramePool()
                for (lot, frames) in lots.enumerated() {
                    for index in 0..<200 {
                        let bytes = self.bytes(40 + index, seed: round &+ lot)
                        frames.messages.append(bytes.withUnsafeBytes { MessageBox(pool.message(copying: $0)) })
                    }
                    threads.append(
                        try LoopThread.start(named: "returns") {
                            for (index, box) in frames.messages.enumerated() {
                                let found = box.withUnsafeBytes { $0[0] == UInt8(truncatingIfNeeded: round &+ lot) }
                                #expect(found, "frame \(index) of lot \(lot) was written over")
                            }
                            frames.messages = []
                        }
                    )
                }
            }
            for thread in threads { thread.join() }
        }
    }
}
