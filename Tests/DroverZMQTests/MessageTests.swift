// SPDX-License-Identifier: Apache-2.0

import Glibc
import Testing

@testable import DroverZMQ

@Suite("Message", .timeLimit(.minutes(1)))
struct MessageTests {
    /// Owns memory and counts its own end.
    private final class Owner: @unchecked Sendable {
        // The memory is written before the owner is shared.
        let memory: UnsafeMutableRawBufferPointer
        let released: Counter

        init(_ bytes: [UInt8], released: Counter) {
            self.memory = .allocate(byteCount: bytes.count, alignment: 1)
            self.memory.copyBytes(from: bytes)
            self.released = released
        }

        deinit {
            self.memory.deallocate()
            self.released.increment()
        }
    }

    private func adopt(_ bytes: [UInt8], released: Counter) throws -> Message {
        let owner = Owner(bytes, released: released)
        return Message(adopting: try #require(owner.memory.baseAddress), count: bytes.count, owner: owner)
    }

    @Test("bytes of any size come back, inside the struct or outside", arguments: [0, 1, 32, 33, 34, 100, 10_000])
    func sizes(size: Int) {
        let bytes = (0..<size).map { UInt8(truncatingIfNeeded: $0) }
        var message = Message(copying: bytes)
        #expect(message.count == size)
        #expect(message.isEmpty == (size == 0))
        #expect(message.bytes == bytes)
        let moved = message.take()
        let movedBytes = moved.bytes
        #expect(movedBytes == bytes)
        #expect(message.count == 0)
    }

    @Test("bytes can be written in place", arguments: [8, 1_000])
    func writing(size: Int) {
        var message = Message(size: size)
        message.withUnsafeMutableBytes { bytes in
            for index in bytes.indices { bytes[index] = UInt8(index % 251) }
        }
        #expect(message.bytes == (0..<size).map { UInt8($0 % 251) })
    }

    @Test("memory of malloc is adopted without a copy")
    func adoptsMalloc() throws {
        let memory = try #require(malloc(64))
        memset(memory, 9, 64)
        let message = Message(adopting: memory, count: 64)
        let isSame = message.withUnsafeBytes { $0.baseAddress == UnsafeRawPointer(memory) }
        #expect(isSame)
        #expect(message.bytes == Array(repeating: 9, count: 64))
    }

    @Test("an owner is released once when its message is dropped")
    func ownerOfDroppedMessage() throws {
        let released = Counter()
        do {
            let message = try self.adopt([1, 2, 3], released: released)
            #expect(message.bytes == [1, 2, 3])
            #expect(released.value == 0)
        }
        #expect(released.value == 1)
    }

    @Test("an owner is released once when all who share its bytes are gone")
    func ownerOfSharedMessage() throws {
        let released = Counter()
        do {
            var first = try self.adopt([1, 2, 3], released: released)
            do {
                let second = first.share()
                #expect(second.bytes == [1, 2, 3])
            }
            #expect(released.value == 0)
            let moved = first.take()
            #expect(moved.bytes == [1, 2, 3])
        }
        #expect(released.value == 1)
    }

    @Test("an owner is released once after its message was sent", arguments: ["tcp://127.0.0.1:*", "inproc://owner"])
    func ownerOfSentMessage(endpoint: String) throws {
        let released = Counter()
        let bytes = [UInt8](repeating: 5, count: 100_000)
        do {
            let context = try Context()
            let left = try Socket(.pair, in: context)
            let right = try Socket(.pair, in: context)
            try left.bind(endpoint)
            try right.connect(left.lastEndpoint)
            var poll = PollSet()
            _ = poll.add(left, for: .writable)
            #expect(try poll.wait(timeout: .seconds(10)) == 1)
            var message = try self.adopt(bytes, released: released)
            #expect(try left.send(&message))
            #expect(try receiveFrames(right) == [bytes])
        }
        // The end of the context is the end of all that libzmq holds.
        #expect(released.value == 1)
    }

    @Test("a box is read by several threads at once")
    func box() throws {
        let bytes = [UInt8](repeating: 3, count: 20)
        let box = MessageBox(Message(copying: bytes))
        let matches = Counter()
        let threads = try (0..<4)
            .map { number in
                try LoopThread.start(named: "reader \(number)") {
                    for _ in 0..<1_000 where box.withUnsafeBytes({ $0.elementsEqual(bytes) }) { matches.increment() }
                }
            }
        for thread in threads { #expect(thread.join(within: .seconds(30))) }
        #expect(matches.value == 4_000)
        #expect(box.count == 20)
    }
}
