// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Synchronization
import Testing

/// The numbers of the events that came whole.
private final class Numbers: Sendable {
    private let numbers = Mutex<[Int]>([])
    var all: [Int] { self.numbers.withLock { $0 } }
    func add(_ number: Int) { self.numbers.withLock { $0.append(number) } }
}

/// Large events, progress and questions of workers behind a broker, which go in parts on both hops.
@Suite("Parts through a broker", .serialized, .timeLimit(.minutes(2)))
struct BrokerPartsTests {
    private static let tell = Function<Callback<Int, [UInt8], Nothing>, [Int], Int>("tell")
    private static let ask = Function<Callback<[UInt8], [UInt8]>, [Int], Int>("ask")
    private static let report = Function<[Int], Int>("report")
    private static let bytes = Function<[UInt8], [UInt8]>("bytes")
    private static let mixture = [3_000_000, 10, 2_000_000, 5, 100_000, 1, 0, 4_000_000, 50_000, 7]

    private static func piece(_ number: Int, _ size: Int) -> [UInt8] {
        [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: size)
    }

    /// Runs a test with a broker, workers that dial it, and a client of the broker.
    private func served(workers count: Int = 1, _ body: (Client) async throws -> Void) async throws {
        let pool = try Pool(workers: 0)
        var running: [RunningWorker] = []
        for _ in 0..<count {
            var configuration = WorkerConfiguration()
            configuration.concurrency = 1
            let worker = Worker(configuration: configuration)
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
            running.append(try worker.start(.bind(nil, connecting: [pool.endpoint])))
        }
        let client = try pool.client()
        try await body(client)
        #expect(client.statistics.strayEvents == 0)
        #expect(client.statistics.resends == 0)
        let status = try await client.function(.brokerStatus)()
        #expect(status.undeliverable == 0 && status.lost == 0 && status.resent == 0 && status.malformed == 0)
        await client.close(grace: .zero)
        for worker in running { await worker.stop(grace: .zero) }
        await pool.close()
    }

    @Test("S76 large events all come, in order, and before the answer that ends their callback", arguments: [1, 2])
    func events(workers: Int) async throws {
        try await self.served(workers: workers) { client in
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
        }
    }

    @Test("S78 more bytes of events than may be on their way come too: each message counts, once, when it is whole")
    func window() async throws {
        try await self.served { client in
            let sizes = [Int](repeating: 5_000_000, count: 20)
            let count = Atomic<Int>(0)
            let options = CallbackOptions(lifetime: .untilCancelled)
            let callback = client.callback(options) { (number: Int, bytes: [UInt8]) in
                if bytes.count == sizes[number] { _ = count.add(1, ordering: .relaxed) }
                return Nothing()
            }
            let emitted = try await client.function(Self.tell)(callback, sizes)
            #expect(emitted == sizes.count)
            try await becomesTrue("all were delivered") { count.load(ordering: .relaxed) == sizes.count }
            let statistics = try #require(client.statistics(of: callback))
            #expect(statistics.dropped == 0 && statistics.missing == 0)
        }
    }

    @Test("large progress is read in order, and before the result")
    func progress() async throws {
        try await self.served { client in
            let sizes = Self.mixture + Self.mixture
            let call = try client.function(Self.report).async(sizes)
            var numbers: [Int] = []
            for await event in call.events {
                #expect(try event.value(as: [UInt8].self) == Self.piece(event.sequence, sizes[event.sequence]))
                numbers.append(event.sequence)
            }
            #expect(numbers == Array(sizes.indices))
            #expect(try await call.value == sizes.count)
        }
    }

    @Test("a callback is asked, and answers, with large values")
    func invocations() async throws {
        try await self.served { client in
            let callback = client.callback { (bytes: [UInt8]) in bytes.map { $0 + 1 } }
            let right = try await client.function(Self.ask)(callback, Self.mixture)
            #expect(right == Self.mixture.count)
        }
    }

    @Test("a batch of items of all sizes, some of them in chunks, comes back whole and in order")
    func batch() async throws {
        try await self.served(workers: 2) { client in
            let sizes = (0..<120).map { Self.mixture[$0 % 10] / 2 }
            let inputs = sizes.enumerated().lazy.map { Self.piece($0.offset, $0.element) }
            var number = 0
            let options = MapOptions(order: .asGiven, chunking: .fixed(20))
            for try await (_, bytes) in client.map(Self.bytes, over: inputs, options) {
                #expect(bytes == Self.piece(number, sizes[number]))
                number += 1
            }
            #expect(number == sizes.count)
        }
    }

    @Test("results that lose their connection half-way come after all, however often that happens")
    func cut() async throws {
        let runs = Atomic<Int>(0)
        let worker = Worker()
        worker.register(Function<Int, [UInt8]>("large")) { number in
            _ = runs.add(1, ordering: .relaxed)
            return Self.piece(number, 30_000_000)
        }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        let link = try FlakyLink(to: running.endpoint)
        let client = try Client(link.endpoint)
        let large = client.function(Function<Int, [UInt8]>("large", isIdempotent: true))
        var calls: [AsyncResult<[UInt8]>] = []
        // More often than messages may come at once.
        for round in 0..<8 {
            let before = runs.load(ordering: .relaxed)
            calls.append(try large.async(round))
            try await becomesTrue("it ran") { runs.load(ordering: .relaxed) > before }
            try await Task.sleep(for: .milliseconds(30))
            link.cut(for: .milliseconds(20))
        }
        for (round, call) in calls.enumerated() {
            let value = try await call.value
            #expect(value == Self.piece(round, 30_000_000))
        }
        #expect(client.statistics.losses == 0)
        await client.close(grace: .zero)
        await running.stop(grace: .zero)
        link.close()
    }
}
