// SPDX-License-Identifier: Apache-2.0

import DroverZMQ
import Synchronization
import Testing

/// Waits up to ten seconds for a message and returns its frames; records an issue if none comes.
func receiveFrames(_ socket: borrowing Socket, sourceLocation: SourceLocation = #_sourceLocation) throws -> [[UInt8]] {
    var poll = PollSet()
    _ = poll.add(socket)
    var frames: [[UInt8]] = []
    var frame = Message()
    guard try poll.wait(timeout: .seconds(10)) > 0 else {
        Issue.record("no message within ten seconds", sourceLocation: sourceLocation)
        return []
    }
    while try socket.receive(into: &frame) {
        frames.append(frame.bytes)
        if !frame.hasMore { break }
    }
    return frames
}

/// Sends a message, waiting up to ten seconds for a peer or for room.
func sendFrames(_ socket: borrowing Socket, _ frames: [UInt8]...) throws {
    var poll = PollSet()
    _ = poll.add(socket, for: .writable)
    for (index, frame) in frames.enumerated() {
        var message = Message(copying: frame)
        while try !socket.send(&message, more: index + 1 < frames.count) {
            #expect(try poll.wait(timeout: .seconds(10)) > 0)
        }
    }
}

/// What `body` threw; records an issue if it threw nothing.
func thrown(
    sourceLocation: SourceLocation = #_sourceLocation,
    _ body: () throws(ZMQError) -> Void
) -> ZMQError? {
    do {
        try body()
        Issue.record("nothing was thrown", sourceLocation: sourceLocation)
        return nil
    } catch {
        return error
    }
}

/// Counts from any thread.
final class Counter: Sendable {
    private let count = Atomic(0)

    var value: Int { self.count.load(ordering: .acquiring) }

    func increment() {
        self.count.add(1, ordering: .acquiringAndReleasing)
    }
}

extension [UInt8] {
    /// The bytes of a text.
    init(text: String) {
        self.init(text.utf8)
    }
}
