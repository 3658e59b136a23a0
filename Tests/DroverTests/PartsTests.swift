// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire
import DroverZMQ
import Foundation
import Synchronization
import Testing

@testable import Drover

/// The numbers of the events that came whole.
private final class Numbers: Sendable {
    private let numbers = Mutex<[Int]>([])
    var all: [Int] { self.numbers.withLock { $0 } }
    func add(_ number: Int) { self.numbers.withLock { $0.append(number) } }
}

/// Large arguments and results between a client and a worker, which go in parts.
@Suite("Parts", .timeLimit(.minutes(1))) struct PartsTests {
    private static let bytes = Function<[UInt8], [UInt8]>("bytes", isIdempotent: true)
    private static let sizes = [1 << 20, (1 << 20) + 1, 3_000_000, 20_000_000]

    @Test("S76 S100 what is asked back from a worker while it goes in parts is neither lost nor stuck")
    func askedBack() async throws {
        let weigh = Function<[UInt8], Int>("weigh")
        let add = Function<Int, Int>("add")
        let workers = try (0..<2)
            .map { _ in
                let worker = Worker(concurrency: 1)
                worker.register(add) { $0 + 1 }
                worker.register(weigh) { (bytes: [UInt8]) in
                    usleep(30_000)
                    return bytes.count
                }
                return try worker.start(.bind("tcp://127.0.0.1:*"))
            }
        let client = try Client(workers.map(\.endpoint))
        for number in 0..<500 { _ = try await client.call(add, number) }
        // Quick calls open the credit, so that several large ones go to each.
        let quick = try (0..<3000).map { try client.function(add).async($0) }
        let bytes = [UInt8](repeating: 3, count: 24 << 20)
        let large = try (0..<12).map { _ in try client.function(weigh).async(bytes) }
        for (number, result) in quick.enumerated() { #expect(try await result.value == number + 1) }
        for result in large {
            result.setExpiry(.seconds(20))
            #expect(try await result.value == bytes.count)
        }
        await client.close()
        for worker in workers { await worker.stop(grace: .zero) }
    }

    @Test("large arguments and results come whole, many at once, and a cancelled one doesn't stop the others")
    func whole() async throws {
        let worker = Worker()
        worker.register(Self.bytes) { (bytes: [UInt8]) in bytes }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        let client = try Client("\(running.endpoint)")
        let echo = client.function(Self.bytes)
        let results = try (0..<12)
            .map { number in
                let size = Self.sizes[number % Self.sizes.count]
                return (size, number, try echo.async([UInt8](repeating: UInt8(number), count: size)))
            }
        for (_, number, result) in results where number % 5 == 3 { result.cancel() }
        for (size, number, result) in results where number % 5 != 3 {
            let value = try await result.value
            #expect(value.count == size && value.allSatisfy { $0 == UInt8(number) })
        }
        #expect(client.statistics.resends == 0)
        await client.close(grace: .zero)
        await running.stop(grace: .zero)
    }

    private static let tell = Function<Callback<Int, [UInt8], Nothing>, [Int], Int>("tell")
    private static let ask = Function<Callback<[UInt8], [UInt8]>, [Int], Int>("ask")
    private static let report = Function<[Int], Int>("report")
    /// Each is sent in its turn, the small ones in a moment.
    private static let mixture = [3_000_000, 10, 2_000_000, 5, 100_000, 1, 0, 4_000_000, 50_000, 7]

    private static func piece(_ number: Int, _ size: Int) -> [UInt8] {
        [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: size)
    }

    private static func serving() throws -> RunningWorker {
        let worker = Worker()
        worker.register(Self.bytes) { (bytes: [UInt8]) in bytes }
        worker.register(Self.tell) { callback, sizes in
            for (number, size) in sizes.enumerated() { try callback.emit(number, Self.piece(number, size)) }
            return sizes.count
        }
        worker.register(Self.ask) { (callback: Callback<[UInt8], [UInt8]>, sizes: [Int]) async throws -> Int in
            var right = 0
            for (number, size) in sizes.enumerated() {
                let answer = try await callback(Self.piece(number, size))
                if answer == Self.piece(number + 1, size) { right += 1 }
            }
            return right
        }
        worker.register(Self.report) { context, sizes in
            for (number, size) in sizes.enumerated() { try context.report(Self.piece(number, size)) }
            return sizes.count
        }
        return try worker.start(.bind("tcp://127.0.0.1:*"))
    }

    @Test("S76 large events go in parts, all come, in order, and before the answer that ends their callback")
    func events() async throws {
        let running = try Self.serving()
        let client = try Client("\(running.endpoint)")
        let sizes = Self.mixture + Self.mixture
        let calls = try (0..<3)
            .map { _ in
                let numbers = Numbers()
                let callback = client.callback { (number: Int, bytes: [UInt8]) -> Nothing in
                    if bytes == Self.piece(number, sizes[number]) { numbers.add(number) }
                    return Nothing()
                }
                return (numbers, callback, try client.function(Self.tell).async(callback, sizes))
            }
        for (numbers, _, call) in calls {
            #expect(try await call.value == sizes.count)
            while numbers.all.count < sizes.count { try await Task.sleep(for: .milliseconds(1)) }
            #expect(numbers.all == Array(sizes.indices))
        }
        #expect(client.statistics.strayEvents == 0)
        await client.close(grace: .zero)
        await running.stop(grace: .zero)
    }

    @Test("large progress is read in order, and before the result")
    func progress() async throws {
        let running = try Self.serving()
        let client = try Client("\(running.endpoint)")
        let sizes = Self.mixture + Self.mixture
        let call = try client.function(Self.report).async(sizes)
        var numbers: [Int] = []
        for await event in call.events {
            #expect(event.sequence == numbers.count)
            #expect(try event.value(as: [UInt8].self) == Self.piece(event.sequence, sizes[event.sequence]))
            numbers.append(event.sequence)
        }
        #expect(numbers == Array(sizes.indices))
        #expect(try await call.value == sizes.count)
        #expect(client.statistics.strayEvents == 0)
        await client.close(grace: .zero)
        await running.stop(grace: .zero)
    }

    @Test("a callback is asked, and answers, with large values")
    func invocations() async throws {
        let running = try Self.serving()
        let client = try Client("\(running.endpoint)")
        let callback = client.callback { (bytes: [UInt8]) in bytes.map { $0 + 1 } }
        #expect(try await client.function(Self.ask)(callback, Self.mixture) == Self.mixture.count)
        await client.close(grace: .zero)
        await running.stop(grace: .zero)
    }

    @Test("a batch of items of all sizes, some of them in chunks, comes back whole and in order")
    func batch() async throws {
        let running = try Self.serving()
        let client = try Client("\(running.endpoint)")
        let sizes = (0..<120).map { Self.mixture[$0 % 10] / 2 }
        let inputs = sizes.enumerated().lazy.map { Self.piece($0.offset, $0.element) }
        let options = MapOptions(order: .asGiven, chunking: .fixed(20))
        var number = 0
        for try await (_, bytes) in client.map(Self.bytes, over: inputs, options) {
            #expect(bytes == Self.piece(number, sizes[number]))
            number += 1
        }
        #expect(number == sizes.count)
        #expect(client.statistics.resends == 0)
        await client.close(grace: .zero)
        await running.stop(grace: .zero)
    }

    /// Gives a line a part that came.
    private static func take(_ header: Header, _ payload: [UInt8], by line: PartLine) -> Header? {
        unsafe payload.withUnsafeBytes { bytes in
            unsafe line.take(header, bytes, maxPayloadBytes: 1 << 21, at: Instant(nanoseconds: 0)).answer
        }
    }

    private static func first(_ message: Header, transfer: UInt64) -> (Header, [UInt8]) {
        var bytes = [UInt8](repeating: 0, count: Header.byteCount)
        unsafe bytes.withUnsafeMutableBytes { bytes in
            if let base = bytes.baseAddress { unsafe message.write(to: base) }
        }
        return (Header(.part, id: transfer), bytes)
    }

    @Test("what doesn't go its whole way in parts is counted and told, once a second")
    func counters() {
        let counters = PartCounters()
        let budget = PartBudget(maxPayloadBytes: 1 << 21, counters: counters)
        let line = PartLine(budget: budget)
        line.reset(takesParts: true)
        #expect(!budget.hasNews)
        // Of nothing; then one over the limit.
        let stray = Self.take(Header(.part, id: 7, time: 24), [1], by: line)
        #expect(stray?.number == 1 && counters.refused.current == 1)
        let (header, payload) = Self.first(Header(.event, payloadLength: (1 << 21) + 1), transfer: 1)
        #expect(Self.take(header, payload, by: line)?.number == 1)
        #expect(counters.oversized.current == 1)
        let report = budget.report(at: Instant(nanoseconds: 1))
        #expect(report == "0 messages abandoned, 1 over the limit, 1 parts refused, so far")
        // Those that are under way when the connection ends: one that comes, one that goes, what waits behind that.
        let (begin, message) = Self.first(Header(.event, payloadLength: 1 << 20), transfer: 2)
        #expect(Self.take(begin, message, by: line)?.number == 0)
        let box = MessageBox(Message(size: 10))
        if let source = PartSource(0..<10, of: box) {
            line.add(Header(.event, payloadLength: 10, number: 3), deadline: nil, source)
        }
        #expect(line.holds(Header(.ended, number: 3), in: .subscription(3)))
        line.reset()
        #expect(counters.abandoned.current == 3)
        #expect(budget.report(at: Instant(nanoseconds: 2)) == nil, "not so soon")
        #expect(budget.report(at: Instant(nanoseconds: 2_000_000_000))?.hasPrefix("3 ") == true)
        #expect(budget.report(at: Instant(nanoseconds: 4_000_000_000)) == nil, "nothing is new")
    }

    @Test("the first welcome of a session ends what the peer had begun in a former one; the next ones don't")
    func sessions() {
        let counters = PartCounters()
        let line = PartLine(budget: PartBudget(maxPayloadBytes: 1 << 21, counters: counters))
        func begin(_ transfer: UInt64) {
            let (begin, message) = Self.first(Header(.event, payloadLength: 1 << 20, id: transfer), transfer: transfer)
            #expect(Self.take(begin, message, by: line)?.number == 0)
        }
        // Said before the peer read that this side begins anew.
        begin(1)
        line.welcomed(takesParts: true, epoch: 5, session: 2)
        #expect(counters.abandoned.current == 1)
        // As many as may be under way.
        for transfer in UInt64(2)...5 { begin(transfer) }
        line.welcomed(takesParts: true, epoch: 5, session: 2)
        #expect(counters.abandoned.current == 1)
        for transfer in UInt64(2)...5 {
            let part = Header(.part, id: transfer, time: UInt32(Header.byteCount))
            #expect(Self.take(part, [1], by: line)?.number == 0, "transfer \(transfer) was dropped")
        }
    }

    @Test("a session's transfers are not numbered like those of a former one by the same connection")
    func numbers() throws {
        var numbers: [UInt64] = []
        for session in UInt64(1)...2 {
            let line = PartLine(
                budget: PartBudget(maxPayloadBytes: 1 << 21, counters: PartCounters()),
                session: session
            )
            line.reset(takesParts: true)
            let source = try #require(PartSource(0..<10, of: MessageBox(Message(size: 10))))
            line.add(Header(.reply, payloadLength: 10, id: 3), deadline: nil, source)
            var batch = OutgoingBatch()
            _ = line.next(into: &batch, at: Instant(nanoseconds: 0))
            numbers.append(unsafe batch.withBytes(from: 0) { bytes in unsafe (try? Header(reading: bytes))?.id ?? 0 })
            // What was answered in a former session is nothing to it.
            guard session == 2 else { continue }
            line.acknowledged(Header(.partTaken, id: numbers[0], number: 1), at: Instant(nanoseconds: 0))
            #expect(line.isSending)
        }
        #expect(numbers[0] < numbers[1])
    }

    @Test("answers that nobody asks for again outlive their connection, but not their session")
    func keptAnswers() throws {
        for outlives in [true, false] {
            let counters = PartCounters()
            let budget = PartBudget(maxPayloadBytes: 1 << 21, counters: counters)
            let line = PartLine(budget: budget, keepsAnswers: true)
            line.welcomed(takesParts: true, epoch: 5, session: 1)
            for id in [4, 3] as [UInt64] {
                let source = try #require(PartSource(0..<10, of: MessageBox(Message(size: 10))))
                line.add(Header(.reply, payloadLength: 10, id: id), deadline: nil, source)
            }
            let source = try #require(PartSource(0..<10, of: MessageBox(Message(size: 10))))
            line.add(Header(.request, payloadLength: 10, id: 5), deadline: nil, source)
            var batch = OutgoingBatch()
            _ = line.next(into: &batch, at: Instant(nanoseconds: 0))
            line.reset()
            // Nothing goes by a connection on which the peer has not said who it is.
            #expect(!line.isSending && line.unsentAnswers == [4, 3])
            line.welcomed(takesParts: true, epoch: 5, session: outlives ? 1 : 2)
            #expect(line.isSending == outlives && line.unsentAnswers == (outlives ? [4, 3] : []))
            #expect(counters.abandoned.load(ordering: .relaxed) == (outlives ? 1 : 3))
            guard outlives else { continue }
            // Again by the same connection.
            line.welcomed(takesParts: true, epoch: 5, session: 1)
            #expect(line.isSending && line.unsentAnswers == [4, 3])
        }
    }
}
