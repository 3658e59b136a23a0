// SPDX-License-Identifier: Apache-2.0

import DroverCodec
import DroverCore
import DroverWire
import DroverZMQ
import Foundation
import Synchronization
import Testing

@testable import Drover

/// What carries events from a handler to the wire, and from the wire to a callback, many at a time.
@Suite struct EventOutboxTests {
    private func block(_ payload: [UInt8]) throws -> RequestBytes {
        var writer = PackWriter(capacity: 64, headerBytes: RequestBytes.headerByteCount)
        try writer.pack(payload)
        return RequestBytes(adopting: writer.finish())
    }

    private func append(_ payload: [UInt8], to outbox: inout EventOutbox) throws -> Bool {
        var block = try self.block(payload)
        defer { block.free() }
        return outbox.append(block)
    }

    /// Headers and payloads of what a run gives out, by pieces.
    private func pieces(
        of run: inout EventRun,
        from first: UInt64 = 0,
        limit: Int = 1 << 20,
        pieceBytes: Int = 1 << 20
    ) -> (pieces: [[(Header, [UInt8])]], refused: [Int]) {
        var pieces: [[(Header, [UInt8])]] = []
        var refused: [Int] = []
        run.number(from: first, subscription: 7, limit: limit, pieceBytes: pieceBytes, refuse: { refused.append($0) }) {
            var reader = FrameReader($0)
            var piece: [(Header, [UInt8])] = []
            while let part = try? reader.next() { piece.append((part.header, [UInt8]($0[part.payload]))) }
            pieces.append(piece)
        }
        return (pieces, refused)
    }

    @Test("the first event of a run is announced, and the next one after a run was closed or taken")
    func announcements() throws {
        var outbox = EventOutbox()
        var announced = [try self.append([0], to: &outbox), try self.append([1], to: &outbox)]
        outbox.close()
        outbox.close()
        announced.append(try self.append([2], to: &outbox))
        outbox.largePosted(byteCount: 9000)
        announced.append(try self.append([3], to: &outbox))
        announced.append(try self.append([4], to: &outbox))
        #expect(announced == [true, false, true, true, false])
        // What is large counts as much as it takes.
        #expect(outbox.window.unread == 5 + 3)
        var counts: [Int] = []
        var ids: [UInt64] = []
        for _ in 0..<3 {
            var run = outbox.take(leaving: EventRun())
            counts.append(run.count)
            ids += self.pieces(of: &run, from: UInt64(ids.count)).pieces.flatMap { $0 }.map { $0.0.id }
        }
        #expect(counts == [2, 1, 2])
        #expect(ids == [0, 1, 2, 3, 4])
        // They count until the client has read them.
        #expect(outbox.window.unread == 5 + 3)
        announced.append(try self.append([5], to: &outbox))
        #expect(announced.last == true)
    }

    @Test("events are numbered in their order, in pieces of whole messages, and one that is too large keeps its number")
    func numbering() throws {
        var outbox = EventOutbox()
        let payloads: [[UInt8]] = [[1], [2, 2], Array(repeating: 3, count: 100), [4], [5]]
        for payload in payloads { _ = try self.append(payload, to: &outbox) }
        var run = outbox.take(leaving: EventRun())
        let whole = self.pieces(of: &run, from: 10)
        #expect(whole.pieces.map { $0.count } == [5])
        #expect(whole.pieces[0].map { $0.0.id } == [10, 11, 12, 13, 14])
        #expect(whole.pieces[0].allSatisfy { $0.0.number == 7 && $0.0.kind == .event })
        let written = try whole.pieces[0]
            .map { piece in
                try piece.1.withUnsafeBytes { bytes in
                    try withPackReader(over: bytes) { reader throws(CodecError) in try reader.readBytes() }
                }
            }
        #expect(written == payloads)
        let single = self.pieces(of: &run, pieceBytes: 0)
        #expect(single.pieces.map { $0.count } == [1, 1, 1, 1, 1])
        let limited = self.pieces(of: &run, limit: 50)
        #expect(limited.pieces.map { $0.map { $0.0.id } } == [[0, 1], [3, 4]])
        #expect(limited.refused == [102])
        let short = self.pieces(of: &run, pieceBytes: 60)
        #expect(short.pieces.map { $0.map { $0.0.id } } == [[0, 1], [2], [3, 4]])
    }

    @Test("what waits for a callback is taken in portions, and calls are never dropped")
    func waiting() {
        let frame = MessageBox(Message(copying: [UInt8](repeating: 0, count: 64)))
        func run(_ first: UInt64, count: Int) -> ArrivedEvents {
            ArrivedEvents((0..<count).map { $0..<$0 + 1 }, of: frame, sequence: first)
        }
        var waiting = WaitingEvents()
        waiting.append(run(0, count: 10))
        let invocation = Subscription.Invocation(endpoint: 0, session: 0, id: 1, deadline: Instant(nanoseconds: .max))
        waiting.append(ArrivedEvents(20..<21, of: frame, sequence: nil, invocation: invocation))
        waiting.append(run(10, count: 10))
        #expect(waiting.count == 21)
        func take(_ most: Int) -> ArrivedEvents? { waiting.takeFirst(most, upTo: 0) }
        let portion = take(4)
        #expect(portion?.payloads.map { $0.lowerBound } == [0, 1, 2, 3])
        #expect(waiting.count == 17)
        // Six of the first run and three of the second; the call between them stays.
        let dropped = waiting.dropOldest(downTo: 8)
        #expect(dropped == 9)
        let call = take(32)
        #expect(call?.invocation?.id == 1)
        let rest = take(32)
        #expect(rest?.payloads.map { $0.lowerBound } == [3, 4, 5, 6, 7, 8, 9])
        #expect(waiting.isEmpty && take(1)?.count == nil)
        // The newest stays, whatever the limit.
        waiting.append(run(0, count: 3))
        let others = waiting.dropOldest(downTo: 0)
        #expect(others == 2 && waiting.count == 1)
    }
}

extension ServingTests.EventTests {
    @Test(
        "S78 push back loses nothing of what a handler emits as fast as it can to a callback that is slower",
        .timeLimit(.minutes(1))
    )
    func flood() throws {
        let rig = try Rig()
        let flood = Function<Callback<Int, Nothing>, Int, Int>("flood")
        rig.worker.register(flood) { (callback: Callback<Int, Nothing>, count: Int) in
            for number in 0..<count { try callback.emit(number) }
            return count
        }
        let flooding = try rig.worker.start(.bind("tcp://127.0.0.1:*"))
        let client = try Client.forTest(flooding.endpoint)
        let next = Atomic<Int>(0)
        let isOrdered = Atomic<Bool>(true)
        let options = CallbackOptions(
            lifetime: .untilCancelled,
            queueLimit: 100,
            overflow: .pushBack
        )
        let callback = client.callback(options) { (number: Int) in
            if next.load(ordering: .relaxed) != number { isOrdered.store(false, ordering: .relaxed) }
            next.store(number + 1, ordering: .relaxed)
            // Slower than a handler emits, and than the poller takes.
            if number % 1000 == 0 { usleep(2000) }
        }
        let count = 200_000
        #expect(try client.function(flood).blocking(callback, count) == count)
        eventually("all events were delivered") { next.load(ordering: .relaxed) == count }
        let wasOrdered = isOrdered.load(ordering: .relaxed)
        #expect(wasOrdered)
        let statistics = client.statistics(of: callback)
        #expect(statistics?.dropped == 0 && statistics?.missing == 0 && statistics?.delivered == count)
        client.closeBlocking()
        flooding.stopBlocking(grace: .zero)
        rig.stop()
    }

    @Test(
        "S76 events and calls of one callback come in the order in which a handler made them",
        .timeLimit(.minutes(1))
    )
    func interleaved() throws {
        let rig = try Rig()
        let mixed = Function<Callback<Int, Int>, Int, Int>("mixed")
        rig.worker.register(mixed) { (callback: Callback<Int, Int>, count: Int) in
            var sum = 0
            for round in 0..<count {
                try callback.emit(3 * round)
                try callback.emit(3 * round + 1)
                sum += try callback.blocking(3 * round + 2)
            }
            return sum
        }
        let mixing = try rig.worker.start(.bind("tcp://127.0.0.1:*"))
        let client = try Client.forTest(mixing.endpoint)
        let numbers = Gathered<Int>()
        let callback = client.callback { (number: Int) -> Int in
            numbers.add(number)
            return 1
        }
        #expect(try client.function(mixed).blocking(callback, 200) == 200)
        #expect(numbers.isCounting(to: 600))
        client.closeBlocking()
        mixing.stopBlocking(grace: .zero)
        rig.stop()
    }
}
