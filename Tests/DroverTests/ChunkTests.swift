// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverWire
import Foundation
import Synchronization
import Testing

extension ServingTests {
    /// Items of a batch that share requests.
    @Suite(.serialized)
    struct ChunkTests {}
}

/// A worker that counts what it runs.
private final class ChunkRig: Sendable {
    static let double = Function<Int, Int>("double", isIdempotent: true)
    static let picky = Function<Int, Int>("picky")
    static let slow = Function<Int, Int>("slow")
    static let large = Function<Int, [UInt8]>("large")
    static let size = Function<[UInt8], Int>("size")
    static let watched = Function<Int, Int>("watched")
    static let later = Function<Int, Int>("later")
    static let limited = Function<Int, Int>("limited")
    static let tell = Function<Callback<Int, Nothing>, Int, Int>("tell")

    let running: RunningWorker
    let gate = Gate()

    init(_ configure: (inout WorkerConfiguration) -> Void = { _ in }) throws {
        var configuration = WorkerConfiguration()
        configuration.concurrency = 2
        configuration.heartbeatInterval = .milliseconds(200)
        configuration.silenceLimit = .milliseconds(1500)
        configuration.logger = .quiet
        configure(&configuration)
        let worker = Worker(configuration: configuration)
        self.running = try Self.start(worker, self.gate)
    }

    private static func start(_ worker: Worker, _ gate: Gate) throws -> RunningWorker {
        worker.register(Self.double) { (number: Int) in number * 2 }
        worker.register(Self.picky) { (number: Int) throws -> Int in
            if number % 10 == 3 { throw FixtureError(message: "\(number) ends in 3") }
            return number * 2
        }
        worker.register(Self.slow) { (number: Int) -> Int in
            Counted.add(number)
            usleep(1000)
            return number * 2
        }
        worker.register(Self.large) { (number: Int) -> [UInt8] in
            Counted.add(number)
            return Array(repeating: UInt8(truncatingIfNeeded: number), count: 10_000)
        }
        worker.register(Self.size) { (bytes: [UInt8]) in bytes.count }
        worker.register(Self.watched) { (context: JobContext, number: Int) throws -> Int in
            gate.enter("\(number)")
            while number == 7, !gate.isOpen("7") {
                try context.checkCancellation()
                usleep(500)
            }
            return number * 2
        }
        worker.register(Self.later) { (number: Int) async throws -> Int in
            await Task.yield()
            if number % 10 == 3 { throw FixtureError(message: "\(number) ends in 3") }
            return number * 2
        }
        worker.register(Self.limited, timeLimits: TimeLimits(hard: .seconds(60))) { (number: Int) in number * 2 }
        worker.register(Self.tell) { (callback: Callback<Int, Nothing>, number: Int) throws -> Int in
            try callback.emit(number)
            return number * 2
        }
        return try worker.start(.bind("tcp://127.0.0.1:*"))
    }

    /// How many requests have come.
    var requests: Int { self.running.status.received }

    func stop() {
        self.gate.open("7")
        self.running.stopBlocking(grace: .zero)
    }
}

/// How often handlers ran for each number; the tests that use it run one after the other.
private enum Counted {
    private static let runs = Mutex<[Int: Int]>([:])
    static func add(_ number: Int) { self.runs.withLock { $0[number, default: 0] += 1 } }
    /// What was counted so far; the next count begins at nothing.
    static func take() -> [Int: Int] {
        self.runs.withLock { runs in
            defer { runs = [:] }
            return runs
        }
    }
}

private func withChunkRig(
    _ configureWorker: (inout WorkerConfiguration) -> Void = { _ in },
    configure: (inout ClientConfiguration) -> Void = { _ in },
    _ body: (ChunkRig, Client) async throws -> Void
) async throws {
    let rig = try ChunkRig(configureWorker)
    defer { rig.stop() }
    let client = try Client.forTest(rig.running.endpoint, configure)
    do { try await body(rig, client) } catch {
        await client.close()
        throw error
    }
    await client.close()
}

extension ServingTests.ChunkTests {
    @Test("quick items share requests, in both orders", .timeLimit(.minutes(1)))
    func sharing() async throws {
        for order in [MapOptions.Order.asCompleted, .asGiven] {
            try await withChunkRig { rig, client in
                let batch = client.map(ChunkRig.double, over: 0..<20_000, .init(order: order))
                var seen: [Int] = []
                for try await (input, output) in batch {
                    #expect(output == input * 2)
                    seen.append(input)
                }
                #expect((order == .asGiven ? seen : seen.sorted()) == Array(0..<20_000))
                #expect(rig.requests < 10_000, "\(rig.requests) requests for 20,000 items")
                #expect(batch.progress.done == 20_000)
                #expect(batch.progress.failed == 0)
                #expect(client.statistics.outstandingNow == 0)
            }
        }
    }

    @Test("each item is a request of its own if that is asked for", .timeLimit(.minutes(1)))
    func none() async throws {
        try await withChunkRig { rig, client in
            let values = try await client.map(ChunkRig.double, over: 0..<1000, .init(chunking: .none)).collect()
            #expect(values == (0..<1000).map { $0 * 2 })
            #expect(rig.requests == 1000)
        }
    }

    @Test("so many items share a request if that is asked for", .timeLimit(.minutes(1)))
    func fixed() async throws {
        try await withChunkRig { rig, client in
            let values = try await client.map(ChunkRig.double, over: 0..<1000, .init(chunking: .fixed(50))).collect()
            #expect(values == (0..<1000).map { $0 * 2 })
            // The window has room for ten of fifty and one of twelve; what becomes free is filled as it comes.
            #expect((20...60).contains(rig.requests), "\(rig.requests)")
        }
    }

    @Test("an item that throws fails alone, synchronous or not", .timeLimit(.minutes(1)))
    func ownErrors() async throws {
        for function in [ChunkRig.picky, ChunkRig.later] {
            try await withChunkRig { _, client in
                let options = MapOptions(order: .asGiven, onFailure: .goOn, chunking: .fixed(40))
                let batch = client.map(function, over: 0..<200, options)
                for try await item in batch.items {
                    switch item.result {
                    case .success(let value): #expect(value == item.input * 2)
                    case .failure(let error):
                        #expect(item.input % 10 == 3)
                        #expect((error as? RemoteError)?.message == "\(item.input) ends in 3")
                        #expect((error as? RemoteError)?.code == .failed)
                    }
                }
                #expect(batch.progress.failed == 20)
                #expect(batch.progress.done == 200)
            }
        }
    }

    @Test("the first failure within a chunk ends a batch as any failure does", .timeLimit(.minutes(1)))
    func failingFast() async throws {
        for order in [MapOptions.Order.asCompleted, .asGiven] {
            try await withChunkRig { _, client in
                let options = MapOptions(order: order, chunking: .fixed(40))
                var delivered: [Int] = []
                let error = await #expect(throws: BatchError.self) {
                    for try await (input, _) in client.map(ChunkRig.picky, over: 4..<200, options) {
                        delivered.append(input)
                    }
                }
                let index = try #require(error?.failures.first?.index)
                #expect(index % 10 == 9)
                if order == .asGiven {
                    #expect(index == 9)
                    #expect(delivered == Array(4..<13))
                }
                try await becomesTrue("nothing is left") { client.statistics.outstandingNow == 0 }
            }
        }
    }

    @Test("items behind slow ones come back after a while and run elsewhere, each once", .timeLimit(.minutes(1)))
    func comingBack() async throws {
        try await withChunkRig { rig, client in
            _ = Counted.take()
            let values = try await client.map(ChunkRig.slow, over: 0..<400, .init(chunking: .fixed(64))).collect()
            #expect(values == (0..<400).map { $0 * 2 })
            let runs = Counted.take()
            #expect(runs.count == 400)
            #expect(runs.values.allSatisfy { $0 == 1 })
            // A millisecond each: a chunk ends after some sixteen.
            #expect(rig.requests > 10, "\(rig.requests)")
        }
    }

    @Test("large results make their chunks end early, and nothing is lost", .timeLimit(.minutes(1)))
    func largeResults() async throws {
        try await withChunkRig { rig, client in
            _ = Counted.take()
            for try await (input, bytes) in client.map(ChunkRig.large, over: 0..<200, .init(chunking: .fixed(64))) {
                #expect(bytes == Array(repeating: UInt8(truncatingIfNeeded: input), count: 10_000))
            }
            #expect(Counted.take().values.allSatisfy { $0 == 1 })
            #expect(rig.requests >= 200 / 7)
        }
    }

    @Test("large arguments travel alone, small ones before and behind them together", .timeLimit(.minutes(1)))
    func largeArguments() async throws {
        try await withChunkRig { _, client in
            let sizes = (0..<100).map { $0 % 10 == 5 ? 100_000 : $0 }
            let inputs = sizes.lazy.map { [UInt8](repeating: 1, count: $0) }
            let options = MapOptions(order: .asGiven, chunking: .fixed(20))
            let values = try await client.map(ChunkRig.size, over: inputs, options).collect()
            #expect(values == sizes)
        }
    }

    @Test("one place for calls is enough for chunks and for what comes back", .timeLimit(.minutes(1)))
    func onePlace() async throws {
        try await withChunkRig(configure: { $0.maxOutstandingCalls = 1 }) { _, client in
            let options = MapOptions(window: 100, chunking: .fixed(30))
            let values = try await client.map(ChunkRig.double, over: 0..<100, options).collect()
            #expect(values.count == 100)
        }
        try await withChunkRig(configure: { $0.maxOutstandingCalls = 3 }) { _, client in
            _ = Counted.take()
            let options = MapOptions(window: 100, chunking: .fixed(30))
            let values = try await client.map(ChunkRig.slow, over: 0..<100, options).collect()
            #expect(values.count == 100)
            #expect(Counted.take().values.allSatisfy { $0 == 1 })
        }
    }

    @Test("a function with time limits is called for each item", .timeLimit(.minutes(1)))
    func timeLimits() async throws {
        try await withChunkRig { rig, client in
            let batch = client.map(ChunkRig.limited, over: 0..<1000)
            let values = try await batch.collect()
            #expect(values == (0..<1000).map { $0 * 2 })
            #expect(batch.progress.failed == 0)
            #expect(batch.progress.done == 1000)
        }
    }

    @Test("an item with a callback is called by itself, and its callback is called", .timeLimit(.minutes(1)))
    func callbacks() async throws {
        try await withChunkRig { rig, client in
            let told = Gathered<Int>()
            let callback = client.callback { (number: Int) in told.add(number) }
            let inputs = (0..<100).lazy.map { (callback, $0) }
            let values = try await client.map(ChunkRig.tell, over: inputs).collect()
            #expect(values == (0..<100).map { $0 * 2 })
            try await becomesTrue("all were told") { told.values.count == 100 }
            #expect(rig.requests == 100)
        }
    }

    @Test("a cancelled batch stops its chunk between two items", .timeLimit(.minutes(1)))
    func cancelling() async throws {
        try await withChunkRig { rig, client in
            let consumer = Task.detached {
                try await client.map(ChunkRig.watched, over: 0..<30, .init(chunking: .fixed(30))).collect()
            }
            try await becomesTrue("the seventh waits") { rig.gate.begun.contains("7") }
            consumer.cancel()
            await #expect(throws: CancellationError.self) { try await consumer.value }
            try await becomesTrue("the worker is free") { rig.running.status.running == 0 }
            #expect(!rig.gate.begun.contains("8"))
        }
    }

    @Test("a chunk's deadline is that of its items", .timeLimit(.minutes(1)))
    func expiring() async throws {
        try await withChunkRig { rig, client in
            let call = CallOptions(expiry: .milliseconds(200))
            let options = MapOptions(onFailure: .goOn, call: call, chunking: .fixed(10))
            let batch = client.map(ChunkRig.watched, over: 5..<15, options)
            var timedOut = 0
            for try await item in batch.items {
                if case .failure(let error) = item.result, error is AsyncResultTimeout { timedOut += 1 }
            }
            #expect(timedOut == 10)
            #expect(batch.progress.failed == 10)
            rig.gate.open("7")
        }
    }

    @Test("chunks of one ordering key run in their order", .timeLimit(.minutes(1)))
    func orderingKey() async throws {
        try await withChunkRig { rig, client in
            let options = MapOptions(call: CallOptions(orderingKey: "k"), chunking: .fixed(8))
            let values = try await client.map(ChunkRig.watched, over: 10..<110, options).collect()
            #expect(values == (10..<110).map { $0 * 2 })
            #expect(rig.gate.begun == (10..<110).map { "\($0)" })
        }
    }

    @Test("a result that isn't of the declared type fails its item", .timeLimit(.minutes(1)))
    func wrongType() async throws {
        try await withChunkRig { _, client in
            let wrong = Function<Int, String>("double")
            let options = MapOptions(onFailure: .goOn, chunking: .fixed(5))
            let batch = client.map(wrong, over: 0..<10, options)
            for try await item in batch.items {
                guard case .failure(let error) = item.result else {
                    Issue.record("\(item.input) has a value")
                    continue
                }
                #expect((error as? RemoteError)?.code == .badResult)
            }
            #expect(batch.progress.failed == 10)
        }
    }

    @Test("a client that takes only little gets its results", .timeLimit(.minutes(1)))
    func smallClient() async throws {
        try await withChunkRig(configure: { $0.maxPayloadBytes = 25_000 }) { _, client in
            let options = MapOptions(chunking: .fixed(20))
            let values = try await client.map(ChunkRig.large, over: 0..<50, options).collect()
            #expect(values.allSatisfy { $0.count == 10_000 })
        }
    }

    @Test("items that fit into a request are sent, however little a chunk may hold", .timeLimit(.minutes(1)))
    func smallWorker() async throws {
        let sizes = [100, 9_000, 100, 19_000, 9_000, 9_000, 9_000, 100, 19_900, 100]
        let inputs = sizes.map { [UInt8](repeating: 1, count: $0) }
        let options = MapOptions(order: .asGiven, chunking: .fixed(20))
        try await withChunkRig({ $0.maxPayloadBytes = 20_000 }) { _, client in
            try await client.connect()
            #expect(try await client.map(ChunkRig.size, over: inputs, options).collect() == sizes)
        }
        try await withChunkRig(configure: { $0.maxPayloadBytes = 20_000 }) { _, client in
            #expect(try await client.map(ChunkRig.size, over: inputs, options).collect() == sizes)
            let many = MapOptions(order: .asGiven, onFailure: .goOn, chunking: .fixed(20))
            var failed: [Int] = []
            let tooLarge = inputs + [[UInt8](repeating: 1, count: 20_100)]
            for try await item in client.map(ChunkRig.size, over: tooLarge, many).items {
                if case .failure = item.result { failed.append(item.index) }
            }
            #expect(failed == [10])
        }
    }

    @Test("what a worker can't read of a chunk is refused, and nothing of it runs", .timeLimit(.minutes(1)))
    func malformed() async throws {
        try await withChunkRig { rig, _ in
            _ = Counted.take()
            let peer = try RawClient(rig.running.endpoint)
            defer { peer.stop() }
            peer.introduce(functions: "slow")
            let payloads: [[UInt8]] = [
                [0x91, 0x01], [0xC0], [0x93, 0x01, 0x01, 0x91, 0x01], [0x93, 0x00, 0x00, 0xC4, 0x02, 0x91],
            ]
            for (id, payload) in payloads.enumerated() {
                var message = RawMessage(.request, id: UInt64(id + 1), time: Header.noTimeLimit, payload: payload)
                message.header.contentType = ContentType.chunk.rawValue
                peer.send(message)
                let answer = peer.messages { $0.kind == .error && $0.id == UInt64(id + 1) }
                #expect(try answer[0].error().code == "badArguments")
            }
            #expect(Counted.take().isEmpty)
            // What can be read runs: the first item in any case, the second not, for no time was left.
            var message = RawMessage(
                .request,
                id: 9,
                time: Header.noTimeLimit,
                payload: [
                    0x94, 0x00, 0x00, 0xC4, 0x02, 0x91, 0x01, 0xC4, 0x02, 0x91, 0x02,
                ]
            )
            message.header.contentType = ContentType.chunk.rawValue
            peer.send(message)
            #expect(peer.messages { $0.kind == .reply && $0.id == 9 }[0].payload == [0x92, 0xC4, 0x01, 0x02, 0xC0])
            #expect(Counted.take() == [1: 1])
        }
    }
}
