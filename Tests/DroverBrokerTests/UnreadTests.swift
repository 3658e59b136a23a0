// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import DroverZMQ
import Foundation
import Logging
import Synchronization
import Testing

/// A client by hand that makes many calls and reads when it is told to.
private struct SlowReader: ~Copyable {
    private let context: Context
    private let socket: Socket
    /// Answers that it has read.
    private(set) var answers = 0

    init(_ endpoint: String, identity: UInt8) throws {
        let context = try Context()
        let socket = try Socket(.dealer, in: context)
        try socket.set(.receiveHighWaterMark, 2)
        try socket.set(.sendHighWaterMark, 100_000)
        try socket.connect(endpoint)
        var hello = Message(copying: RawClient.hello(identity: identity))
        _ = try socket.send(&hello)
        self.context = context
        self.socket = socket
    }

    private func send(_ bytes: [UInt8]) throws {
        var message = Message(copying: bytes)
        _ = try self.socket.send(&message)
    }

    /// Asks for so many results of so many bytes.
    func call(_ calls: Int, for count: Int) throws {
        try self.send(RawClient.header(kind: 16, count: 4) + Array("grow".utf8))
        let size = (0..<4).map { UInt8(truncatingIfNeeded: count >> (24 - 8 * $0)) }
        for number in 1...calls {
            var header = RawClient.header(kind: 17, id: UInt8(number & 255), count: 6, time: .max)
            header[9] = UInt8(number >> 8)
            try self.send(header + [0x91, 0xCE] + size)
        }
    }

    /// Reads what is there, and says so if it is asked.
    mutating func read() throws {
        var message = Message()
        var left: [UInt8] = []
        while try self.socket.receive(into: &message) {
            left = message.bytes
            while left.count >= 24 {
                let count = (0..<4).reduce(0) { $0 | Int(left[4 + $1]) << (8 * $1) }
                if left[1] == 6 { try self.send([0xD1, 7] + left[2..<24]) }
                if left[1] == 18 { self.answers += 1 }
                left.removeFirst(min(left.count, 24 + count))
            }
            while message.hasMore { _ = try self.socket.receive(into: &message) }
        }
        try self.send(RawClient.header(kind: 5, id: 9))
    }

    func beat() throws { try self.send(RawClient.header(kind: 5, id: 9)) }
}

/// What clients don't read, and what calls bring, through a broker.
@Suite("Unread answers at a broker", .serialized, .timeLimit(.minutes(2)))
struct UnreadTests {
    private static let grow = Function<Int, [UInt8]>("grow")
    private static let take = Function<[UInt8], Int>("take")

    /// A broker with a worker of two slots, and how many results that has made.
    private static func pool(_ change: (inout BrokerConfiguration) -> Void) throws -> (Pool, RunningWorker, Counter) {
        let pool = try Pool(workers: 0) { configuration in
            configuration.silenceLimit = .seconds(20)
            change(&configuration)
        }
        var configuration = WorkerConfiguration()
        configuration.concurrency = 2
        configuration.logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let worker = Worker(configuration: configuration)
        let made = Counter()
        worker.register(Self.grow) { (count: Int) in
            made.count.add(1, ordering: .relaxed)
            // A worker has a millisecond's work in reserve.
            usleep(500)
            return [UInt8](repeating: 7, count: count)
        }
        worker.register(Self.take) { (bytes: [UInt8]) in bytes.count }
        worker.register(Job.echo) { $0 }
        return (pool, try worker.start(.connect(pool.endpoint)), made)
    }

    private final class Counter: Sendable {
        let count = Atomic<Int>(0)
        var current: Int { self.count.load(ordering: .relaxed) }
    }

    @Test(
        "calls of a client that doesn't read wait at the broker, those of others run, and all is answered once it reads",
        arguments: [20_000, 600_000]
    )
    func slowReader(size: Int) async throws {
        let (pool, worker, made) = try Self.pool { $0.maxUnreadBytes = 4 << 20 }
        try await becomesTrue("there") { pool.broker.status.workers == 1 }
        let calls = 30_000_000 / size
        try self.readLate(pool, calls, size, made)
        let client = try pool.client()
        for _ in 0..<20 { #expect(try await client.call(Job.echo, [1]) == [1]) }
        #expect(pool.broker.status.holdUps ?? 0 > 0)
        await worker.stop(grace: .zero)
        await pool.close()
    }

    private func readLate(_ pool: Pool, _ calls: Int, _ size: Int, _ made: Counter) throws {
        var slow = try SlowReader(pool.endpoint, identity: 9)
        try slow.call(calls, for: size)
        try Self.eventually("it is held up, and nothing of it is at the worker") {
            pool.broker.status.heldUp == 1 && pool.broker.status.sent == 0
        }
        let ran = made.current
        // What ran, or had just ended, and what was on its way when the limit was reached.
        #expect(ran * size < (5 << 20) + 8 * size && ran < calls, "\(ran) ran")
        #expect(pool.broker.status.unreadBytes ?? 0 >= 2 << 20)
        let client = try pool.client()
        for _ in 0..<50 { #expect(try client.function(Job.echo).blocking([7]) == [7]) }
        let why = try client.function(.brokerWhy).blocking(UInt64(calls))
        #expect(why.first?.reason.contains("unread") == true)
        #expect(made.current == ran)
        try Self.eventually("all is answered once it reads") {
            try slow.read()
            return slow.answers == calls && pool.broker.status.heldUp == 0
        }
    }

    @Test("many clients that don't read leave a bounded amount together")
    func manySlowReaders() async throws {
        let (pool, worker, made) = try Self.pool { $0.maxUnreadBytes = 1 << 20 }
        try await becomesTrue("there") { pool.broker.status.workers == 1 }
        try self.neverRead(pool, made)
        await worker.stop(grace: .zero)
        await pool.close()
    }

    private func neverRead(_ pool: Pool, _ made: Counter) throws {
        let (readers, calls, size) = (24, 60, 100_000)
        var all: [Holder] = []
        for identity in 1...readers {
            let holder = Holder(try SlowReader(pool.endpoint, identity: UInt8(identity)))
            try holder.reader.call(calls, for: size)
            all.append(holder)
        }
        try Self.eventually("some are held up, and nothing goes on") {
            let status = pool.broker.status
            return status.heldUp ?? 0 > 0 && status.sent == 0 && status.received == calls * readers
        }
        // Each might leave 1 MiB, all together 4, and as much in small shares; and some were at the worker.
        #expect(made.current * size < 10 << 20, "\(made.current) ran")
        for holder in all { try holder.reader.beat() }
        try Self.eventually("all are answered once they read") {
            for holder in all { try holder.reader.read() }
            return all.allSatisfy { $0.reader.answers == calls }
        }
    }

    private final class Holder {
        var reader: SlowReader
        init(_ reader: consuming SlowReader) { self.reader = reader }
    }

    @Test("a client that reads gets all of what is more than the limit", arguments: [700_000, 3_000_000])
    func quickReader(size: Int) async throws {
        let (pool, worker, _) = try Self.pool { $0.maxUnreadBytes = 4 << 20 }
        let client = try pool.client()
        let results = try (0..<40).map { _ in try client.function(Self.grow).async(size) }
        for result in results { #expect(try await result.value.count == size) }
        #expect(client.statistics.resends == 0)
        try await becomesTrue("it has read all") { pool.broker.status.unreadBytes ?? 0 < 4 << 20 }
        await worker.stop(grace: .zero)
        await pool.close()
    }

    @Test("requests that take too many bytes are refused with the limit and what to do, and others are taken")
    func tooManyBytes() async throws {
        let (pool, worker, _) = try Self.pool { configuration in
            configuration.maxPayloadBytes = 2 << 20
            configuration.maxQueuedBytes = 16 << 20
        }
        try await becomesTrue("there") { pool.broker.status.workers == 1 }
        await worker.stop(grace: .zero)
        let (greedy, other) = (try pool.client(), try pool.client())
        let bytes = [UInt8](repeating: 1, count: 1_000_000)
        let results = try (0..<20).map { _ in try greedy.function(Self.take).async(bytes) }
        try await becomesTrue("some were refused") { pool.broker.status.refusedForBytes ?? 0 == 12 }
        #expect(pool.broker.status.queuedBytes ?? 0 <= 8 << 20)
        let refused = results.first { $0.isTerminal }
        do {
            _ = try await #require(refused).value
            Issue.record("it was taken")
        } catch let error as RemoteError {
            #expect(error.code == .busy && error.isRetryable && error.retryAfter != nil)
            #expect(error.message.contains("16 MiB") && error.message.contains("maxQueuedBytes"))
        }
        let small = try other.function(Self.take).async([UInt8](repeating: 1, count: 1000))
        try await becomesTrue("it waits") { pool.broker.status.queued == 9 }
        greedy.cancelAll()
        try await becomesTrue("room again") { pool.broker.status.queuedBytes ?? 0 < 2000 }
        small.cancel()
        await pool.close()
    }

    /// Waits on this thread, which may block.
    private static func eventually(_ what: String, _ isTrue: () throws -> Bool) throws {
        let deadline = ContinuousClock.now + .seconds(30)
        while try !isTrue() {
            guard ContinuousClock.now < deadline else {
                Issue.record("within 30 s it did not come true that \(what)")
                return
            }
            usleep(2000)
        }
    }
}
