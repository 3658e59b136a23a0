// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import DroverZMQ

@Suite("Poll set", .timeLimit(.minutes(1)))
struct PollSetTests {
    @Test("sockets and descriptors are told apart")
    func tellsApart() throws {
        let context = try Context()
        let left = try Socket(.pair, in: context)
        let right = try Socket(.pair, in: context)
        try left.bind("inproc://poll")
        try right.connect("inproc://poll")
        let waker = try Waker()
        var poll = PollSet(capacity: 3)
        let socketEntry = poll.add(right)
        let wakerEntry = poll.add(fileDescriptor: waker.fileDescriptor)
        #expect(try poll.wait(milliseconds: 0) == 0)

        waker.wake()
        #expect(try poll.wait(timeout: nil) == 1)
        #expect(poll.events(at: wakerEntry) == .readable)
        #expect(poll.events(at: socketEntry) == [])

        try sendFrames(left, [1])
        #expect(try poll.wait(timeout: .seconds(10)) == 2)
        waker.drain()
        #expect(try poll.wait(timeout: .seconds(10)) == 1)
        #expect(poll.events(at: socketEntry) == .readable)

        poll.wait(at: socketEntry, for: [.readable, .writable])
        #expect(try poll.wait(timeout: .seconds(10)) == 1)
        #expect(poll.events(at: socketEntry) == [.readable, .writable])

        poll.wait(at: socketEntry, for: [])
        #expect(try poll.wait(milliseconds: 0) == 0)
        poll.removeAll()
        #expect(try poll.wait(milliseconds: 1) == 0)
    }

    @Test("a timeout isn't cut short", arguments: [Duration.milliseconds(5), .microseconds(1_500)])
    func timeout(limit: Duration) throws {
        let waker = try Waker()
        var poll = PollSet()
        _ = poll.add(fileDescriptor: waker.fileDescriptor)
        let start = ContinuousClock.now
        #expect(try poll.wait(timeout: limit) == 0)
        // The kernel's two clocks may differ by a little.
        #expect(ContinuousClock.now - start > limit - .microseconds(500))
    }

    @Test("a limit beyond all clocks is a long wait, not a trap")
    func hugeTimeout() throws {
        let waker = try Waker()
        waker.wake()
        var poll = PollSet()
        _ = poll.add(fileDescriptor: waker.fileDescriptor)
        #expect(try poll.wait(milliseconds: .max) == 1)
        #expect(try poll.wait(timeout: .seconds(Int64.max)) == 1)
    }
}
