// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import DroverZMQ

@Suite("Descriptor poll", .timeLimit(.minutes(1)))
struct DescriptorPollTests {
    @Test("descriptors are told apart, and a time that is up is nothing found")
    func tellsApart() throws {
        let (first, second) = (try Waker(), try Waker())
        var poll = DescriptorPoll(capacity: 2)
        let places = (poll.add(first.fileDescriptor), poll.add(second.fileDescriptor))
        func ready() -> [Bool] { [poll.isReady(places.0), poll.isReady(places.1)] }
        try poll.wait(milliseconds: 1)
        #expect(ready() == [false, false])
        second.wake()
        try poll.wait(milliseconds: -1)
        #expect(ready() == [false, true])
        second.drain()
        try poll.wait(milliseconds: 0)
        #expect(ready() == [false, false])
    }

    @Test("the descriptor of a socket that was read until it was empty tells of the next message")
    func tellsOfMessages() throws {
        let context = try Context()
        let left = try Socket(.pair, in: context)
        let right = try Socket(.pair, in: context)
        try left.bind("inproc://descriptor-poll")
        try right.connect("inproc://descriptor-poll")
        var poll = DescriptorPoll(capacity: 1)
        let place = poll.add(try right.get(.fileDescriptor))
        var message = Message()
        for number in UInt8(0)..<3 {
            // Only this makes libzmq signal what comes.
            let isEmpty = try !right.receive(into: &message)
            #expect(isEmpty)
            try sendFrames(left, [number])
            try poll.wait(milliseconds: 10_000)
            let isReady = poll.isReady(place)
            #expect(isReady)
            let hasCome = try right.receive(into: &message)
            #expect(hasCome)
            let bytes = message.bytes
            #expect(bytes == [number])
        }
    }
}
