// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverZMQ
import Foundation
import Synchronization
import Testing

extension ServingTests {
    /// `client.map`: a function over every item of an input.
    @Suite(.serialized)
    struct BatchTests {}
}

/// A worker whose handlers the tests hold up, and clients of it.
private final class BatchRig: Sendable {
    static let work = Function<Int, Int>("work")
    static let add = Function<Int, Int, Int>("add")
    static let nothing = Function<Nothing>("nothing")
    static let strict = Function<Picky, Int>("strict")

    let running: RunningWorker
    let gate = Gate()
    let cancelled = Gathered<Int>()

    /// Numbers below zero throw; those that `holds` waits for their gate, and ends when cancelled.
    init(concurrency: Int = 4, holds: @escaping @Sendable (Int) -> Bool = { _ in false }) throws {
        var configuration = WorkerConfiguration()
        configuration.concurrency = concurrency
        configuration.heartbeatInterval = .milliseconds(200)
        configuration.silenceLimit = .milliseconds(1500)
        configuration.logger = .quiet
        let worker = Worker(configuration: configuration)
        let (gate, cancelled) = (self.gate, self.cancelled)
        worker.register(Self.work) { (context: JobContext, number: Int) in
            if number < 0 { throw FixtureError(message: "\(number) is too small") }
            guard holds(number) else { return number * 2 }
            gate.enter("\(number)")
            while !gate.isOpen("\(number)"), !gate.isOpen("all") {
                if context.isCancelled {
                    cancelled.add(number)
                    throw CancellationError()
                }
                usleep(500)
            }
            return number * 2
        }
        worker.register(Self.add) { (one: Int, other: Int) in one + other }
        worker.register(Self.nothing) { () -> Nothing in Nothing() }
        worker.register(Self.strict) { (picky: Picky) in picky.number }
        self.running = try worker.start(.bind("tcp://127.0.0.1:*"))
    }

    var busyCount: Int { self.running.status.running + self.running.status.queued }

    func client(_ configure: (inout ClientConfiguration) -> Void = { _ in }) throws -> Client {
        try Client.forTest(self.running.endpoint, configure)
    }

    func stop() {
        self.gate.open("all")
        self.running.stopBlocking(grace: .zero)
    }
}

/// An argument that can't always be encoded.
private struct Picky: Codable, Sendable {
    let number: Int

    init(_ number: Int) { self.number = number }

    init(from decoder: any Decoder) throws { self.number = try decoder.singleValueContainer().decode(Int.self) }

    func encode(to encoder: any Encoder) throws {
        guard self.number % 2 == 0 else { throw FixtureError(message: "\(self.number) is odd") }
        var container = encoder.singleValueContainer()
        try container.encode(self.number)
    }
}

/// Counts what is read of it.
private final class Counter: Sendable {
    private let state = Mutex(0)
    var value: Int { self.state.withLock { $0 } }
    @discardableResult
    func add(_ number: Int = 1) -> Int {
        self.state.withLock {
            $0 += number
            return $0
        }
    }
}

/// Runs `body` with a worker and a client of it, and ends both.
private func withBatchRig(
    concurrency: Int = 4,
    holds: @escaping @Sendable (Int) -> Bool = { _ in false },
    configure: (inout ClientConfiguration) -> Void = { _ in },
    _ body: (BatchRig, Client) async throws -> Void
) async throws {
    let rig = try BatchRig(concurrency: concurrency, holds: holds)
    defer { rig.stop() }
    let client = try rig.client(configure)
    do { try await body(rig, client) } catch {
        await client.close()
        throw error
    }
    await client.close()
}

extension ServingTests.BatchTests {
    // MARK: Order

    @Test("results come as they are completed", .timeLimit(.minutes(1)))
    func asCompleted() async throws {
        try await withBatchRig(holds: { _ in true }) { rig, client in
            var order: [Int] = []
            rig.gate.open("2")
            for try await (input, output) in client.map(BatchRig.work, over: [0, 1, 2]) {
                #expect(output == input * 2)
                order.append(input)
                if input > 0 { rig.gate.open("\(input - 1)") }
            }
            #expect(order == [2, 1, 0])
        }
    }

    @Test("results come in the order of the inputs if that is asked for", .timeLimit(.minutes(1)))
    func asGiven() async throws {
        try await withBatchRig(holds: { $0 == 0 }) { rig, client in
            let batch = client.map(BatchRig.work, over: 0..<100, .init(window: 10, order: .asGiven))
            let handle = batch.handle
            let opener = Task {
                // All the others of the window wait for the first.
                try await becomesTrue("nine are done") { handle.progress.done == 9 }
                #expect(client.statistics.outstandingNow == 1)
                rig.gate.open("0")
            }
            var order: [Int] = []
            for try await (input, _) in batch { order.append(input) }
            try await opener.value
            #expect(order == Array(0..<100))
        }
    }

    @Test("what ends out of order keeps nobody from filling the window", .timeLimit(.minutes(1)))
    func fillingInOrder() async throws {
        try await withBatchRig(holds: { $0 == 0 }) { rig, client in
            let handles = Gathered<BatchHandle>()
            let inputs = (0..<100).lazy
                .map { (number: Int) in
                    if number == 5 { eventually("some are done") { handles.values[0].progress.done == 4 } }
                    return number
                }
            let batch = client.map(BatchRig.work, over: inputs, .init(window: 10, order: .asGiven))
            handles.add(batch.handle)
            let opener = Task {
                try await becomesTrue("nine are done") { handles.values[0].progress.done == 9 }
                rig.gate.open("0")
            }
            let values = try await batch.collect()
            #expect(values.count == 100)
            try await opener.value
        }
    }

    @Test("collect has the order of the inputs in any case", .timeLimit(.minutes(1)))
    func collecting() async throws {
        try await withBatchRig { _, client in
            for order in [MapOptions.Order.asCompleted, .asGiven] {
                let values = try await client.map(BatchRig.work, over: 0..<500, .init(order: order)).collect()
                #expect(values == (0..<500).map { $0 * 2 })
            }
        }
    }

    // MARK: Window

    @Test("the window bounds what is under way and what waits for the consumer", .timeLimit(.minutes(1)))
    func window() async throws {
        for order in [MapOptions.Order.asCompleted, .asGiven] {
            try await withBatchRig(concurrency: 16, holds: { _ in true }) { rig, client in
                let read = Counter()
                let inputs = (0..<40).lazy
                    .map { (number: Int) in
                        read.add()
                        return number
                    }
                let batch = client.map(BatchRig.work, over: inputs, .init(window: 5, order: order))
                let opener = Task {
                    try await becomesTrue("the window is full") { rig.gate.begun.count == 5 }
                    #expect(rig.busyCount == 5)
                    #expect(client.statistics.outstandingNow == 5)
                    rig.gate.open("all")
                }
                var taken = 0
                for try await _ in batch {
                    taken += 1
                    #expect(read.value - taken <= 5)
                    #expect(client.statistics.calls - taken <= 5)
                }
                try await opener.value
                #expect(taken == 40)
            }
        }
    }

    @Test("a window of less than one has one place", .timeLimit(.minutes(1)))
    func smallestWindow() async throws {
        try await withBatchRig { _, client in
            let values = try await client.map(BatchRig.work, over: [1, 2, 3], .init(window: 0)).collect()
            #expect(values == [2, 4, 6])
        }
    }

    @Test("with few places for calls at the client a batch waits for them", .timeLimit(.minutes(1)))
    func fewPlaces() async throws {
        try await withBatchRig(holds: { $0 == 77 }, configure: { $0.maxOutstandingCalls = 2 }) { rig, client in
            let others = try [77, 77].map { try client.function(BatchRig.work).async($0) }
            let stream = AsyncStream { continuation in
                for number in 0..<10 { continuation.yield(number) }
                continuation.finish()
            }
            let (one, other) = (Counter(), Counter())
            async let first = Task {
                for try await _ in client.map(BatchRig.work, over: 0..<10) { one.add() }
            }
            .value
            async let second = Task {
                for try await _ in client.map(BatchRig.work, over: stream) { other.add() }
            }
            .value
            _ = try LoopThread.start(named: "blocking") {
                #expect(throws: Never.self) {
                    try client.map(BatchRig.work, over: 0..<10).forEachBlocking { _, _ in one.add() }
                }
            }
            try await becomesTrue("both are under way") { rig.gate.begun.count == 2 }
            #expect(one.value + other.value == 0)
            rig.gate.open("all")
            _ = try await (first, second)
            try await becomesTrue("all are done") { one.value == 20 && other.value == 10 }
            for result in others { #expect(try await result.value == 154) }
            #expect(client.statistics.refusals == 0)
        }
    }

    // MARK: Failures

    @Test("each item has its own end", .timeLimit(.minutes(1)))
    func items() async throws {
        try await withBatchRig { _, client in
            let inputs = [1, -2, 3, -4, 5]
            let batch = client.map(BatchRig.work, over: inputs, .init(order: .asGiven, onFailure: .goOn))
            var ends: [String] = []
            for try await item in batch.items {
                #expect(item.input == inputs[item.index])
                switch item.result {
                case .success(let value): ends.append("\(value)")
                case .failure(let error): ends.append(try #require(error as? RemoteError).message)
                }
            }
            #expect(ends == ["2", "-2 is too small", "6", "-4 is too small", "10"])
            #expect(batch.progress.done == 5)
            #expect(batch.progress.failed == 2)
        }
    }

    @Test("values are given and failures told at the end if the others go on", .timeLimit(.minutes(1)))
    func goingOn() async throws {
        try await withBatchRig { _, client in
            var values: [Int] = []
            let batch = client.map(BatchRig.work, over: -150..<100, .init(order: .asGiven, onFailure: .goOn))
            let error = await #expect(throws: BatchError.self) {
                for try await (_, value) in batch { values.append(value) }
            }
            #expect(values == (0..<100).map { $0 * 2 })
            #expect(error?.failureCount == 150)
            #expect(error?.failures.map { $0.index } == Array(0..<100), "only the first are kept")
            let collected = await #expect(throws: BatchError.self) {
                try await client.map(BatchRig.work, over: [1, -1, 2], .init(onFailure: .goOn)).collect()
            }
            #expect(collected?.failures.first?.index == 1)
            #expect(collected?.description.hasPrefix("item 1: ") == true)
        }
    }

    @Test("the first failure stops the batch, is told, and cancels the rest", .timeLimit(.minutes(1)))
    func stopping() async throws {
        try await withBatchRig(concurrency: 8, holds: { $0 > 0 }) { rig, client in
            let read = Counter()
            // The one that fails is called when the others have begun.
            let inputs = [1, 2, 3, -7].lazy
                .map { (number: Int) in
                    read.add()
                    if number < 0 { eventually("the others have begun") { rig.gate.begun.count == 3 } }
                    return number
                }
            let batch = client.map(BatchRig.work, over: inputs, .init(window: 4))
            let error = await #expect(throws: BatchError.self) { for try await _ in batch {} }
            #expect(error?.failureCount == 1)
            #expect(error?.failures.first?.index == 3)
            #expect((error?.failures.first?.error as? RemoteError)?.message == "-7 is too small")
            try await becomesTrue("the others see it") { Set(rig.cancelled.values) == [1, 2, 3] }
            #expect(client.statistics.outstandingNow == 0)
            #expect(client.statistics.cancellations == 3)
            #expect(batch.progress.isOver)
            #expect(batch.progress.failed == 1, "those that were cancelled for it aren't counted")
            _ = read
        }
    }

    @Test("in order, a failure cancels what is behind it, and what is before it is delivered", .timeLimit(.minutes(1)))
    func stoppingInOrder() async throws {
        try await withBatchRig(concurrency: 8, holds: { $0 > 0 }) { rig, client in
            let inputs = [1, -2, 3, 4].lazy
                .map { (number: Int) in
                    number
                }
            let batch = client.map(BatchRig.work, over: inputs, .init(window: 8, order: .asGiven))
            let opener = Task {
                // It is noticed although the first one holds up the delivery.
                try await becomesTrue("those behind are cancelled") { client.statistics.cancellations == 2 }
                rig.gate.open("1")
            }
            var items: [Int] = []
            for try await item in batch.items { items.append(item.input) }
            try await opener.value
            #expect(items == [1, -2], "the failed one is the last")
            #expect(client.statistics.outstandingNow == 0)
        }
    }

    @Test("an item that can't be encoded fails alone", .timeLimit(.minutes(1)))
    func unencodable() async throws {
        try await withBatchRig { _, client in
            let inputs = (0..<10).map { Picky($0) }
            let stream = {
                AsyncStream { continuation in
                    for input in inputs { continuation.yield(input) }
                    continuation.finish()
                }
            }
            let options = MapOptions(window: 3, order: .asGiven, onFailure: .goOn)
            let batches = [
                client.map(BatchRig.strict, over: inputs, options),
                client.map(BatchRig.strict, over: stream(), options),
            ]
            for batch in batches {
                var failed: [Int] = []
                for try await item in batch.items {
                    guard case .failure = item.result else { continue }
                    failed.append(item.index)
                }
                #expect(failed == [1, 3, 5, 7, 9])
                #expect(batch.progress.failed == 5)
                #expect(client.statistics.outstandingNow == 0)
            }
            await #expect(throws: BatchError.self) { try await client.map(BatchRig.strict, over: inputs).collect() }
            await #expect(throws: BatchError.self) { try await client.map(BatchRig.strict, over: stream()).collect() }
        }
    }

    @Test("calls are made as the options say", .timeLimit(.minutes(1)))
    func callOptions() async throws {
        try await withBatchRig { rig, client in
            let options = MapOptions(onFailure: .goOn, call: CallOptions(expiry: .zero))
            let error = await #expect(throws: BatchError.self) {
                try await client.map(BatchRig.work, over: 0..<3, options).collect()
            }
            #expect(error?.failureCount == 3)
            #expect(error?.failures.first?.error is AsyncResultTimeout)
            #expect(rig.running.status.queued == 0)
        }
    }

    // MARK: Ends before the end

    @Test("who leaves the loop cancels the rest", .timeLimit(.minutes(1)))
    func abandoning() async throws {
        try await withBatchRig(concurrency: 8, holds: { $0 > 0 }) { rig, client in
            let witness = Witness()
            let gone = WeakWitness(witness)
            func abandon(_ witness: Witness) async throws {
                let inputs = (0..<100).lazy
                    .map { (number: Int) in
                        withExtendedLifetime(witness) { number }
                    }
                let batch = client.map(BatchRig.work, over: inputs, .init(window: 4))
                for try await (input, _) in batch {
                    #expect(input == 0)
                    try await becomesTrue("the others have begun") { rig.gate.begun.count >= 3 }
                    break
                }
                #expect(batch.progress.isOver)
                #expect(client.statistics.outstandingNow == 0)
                try await becomesTrue("they see it") { rig.cancelled.count >= 3 }
            }
            try await abandon(consume witness)
            #expect(gone.isGone)
        }
    }

    @Test("a batch ends with its task", .timeLimit(.minutes(1)))
    func cancelledTask() async throws {
        try await withBatchRig(holds: { _ in true }) { rig, client in
            for order in [MapOptions.Order.asCompleted, .asGiven] {
                rig.cancelled.removeAll()
                let before = rig.gate.begun.count
                let task = Task {
                    for try await _ in client.map(BatchRig.work, over: 0..<100, .init(window: 4, order: order)) {}
                }
                try await becomesTrue("it is under way") { rig.gate.begun.count == before + 4 }
                task.cancel()
                await #expect(throws: CancellationError.self) { try await task.value }
                #expect(client.statistics.outstandingNow == 0)
                try await becomesTrue("the handlers see it") { rig.cancelled.count == 4 }
            }
            let task = Task {
                while !Task.isCancelled { await Task.yield() }
                return try await client.map(BatchRig.work, over: 0..<100).collect()
            }
            let calls = client.statistics.calls
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
            #expect(client.statistics.calls == calls, "a task that is cancelled before begins nothing")
        }
    }

    @Test("a batch is cancelled by its handle, from anywhere", .timeLimit(.minutes(1)))
    func cancelledByHandle() async throws {
        try await withBatchRig(holds: { _ in true }) { rig, client in
            let batch = client.map(BatchRig.work, over: 0..<100, .init(window: 4))
            let handle = batch.handle
            let other = Task {
                try await becomesTrue("it is under way") { rig.gate.begun.count == 4 }
                handle.cancel()
            }
            await #expect(throws: CancellationError.self) { for try await _ in batch {} }
            try await other.value
            #expect(handle.progress.isOver)
            handle.cancel()
        }
    }

    @Test("cancelling all calls of the client fails the items under way", .timeLimit(.minutes(1)))
    func cancelledCalls() async throws {
        try await withBatchRig(holds: { $0 < 4 }) { rig, client in
            let batch = client.map(BatchRig.work, over: 0..<6, .init(window: 4, onFailure: .goOn))
            let other = Task {
                try await becomesTrue("it is under way") { rig.gate.begun.count == 4 }
                client.cancelAll()
            }
            var cancelled = 0
            for try await item in batch.items {
                if case .failure(let error) = item.result, error is CancellationError { cancelled += 1 }
            }
            try await other.value
            #expect(cancelled == 4)
            #expect(batch.progress.done == 6)
        }
    }

    @Test("closing the client ends a batch", .timeLimit(.minutes(1)))
    func closing() async throws {
        for isFed in [false, true] {
            let rig = try BatchRig(holds: { _ in true })
            let client = try rig.client()
            let options = MapOptions(window: 4, onFailure: .goOn)
            let (stream, continuation) = AsyncStream<Int>.makeStream()
            for number in 0..<100 { continuation.yield(number) }
            let batch =
                isFed
                ? client.map(BatchRig.work, over: stream, options) : client.map(BatchRig.work, over: 0..<100, options)
            let closer = Task {
                try await becomesTrue("it is under way") { rig.gate.begun.count == 4 }
                await client.close()
            }
            let losses = Counter()
            let error = await #expect(throws: ConnectionError.self) {
                for try await item in batch.items {
                    if case .failure(let error) = item.result, (error as? ConnectionError)?.code == .closed {
                        losses.add()
                    }
                }
            }
            #expect(error?.code == .closed)
            #expect(losses.value == 4)
            try await closer.value
            rig.stop()
        }
    }

    @Test("without a poller a batch ends in an error", .timeLimit(.minutes(1)))
    func withoutPoller() async throws {
        let rig = try BatchRig(holds: { _ in true })
        let client = try rig.client { $0.startsPoller = false }
        let error = await #expect(throws: UsageError.self) {
            try await client.map(BatchRig.work, over: 0..<9).collect()
        }
        #expect(error?.code == .notRunning)
        #expect(client.statistics.outstandingNow == 0)
        let poller = try BackgroundPoller(serving: client)
        let stopper = Task {
            try await becomesTrue("it is under way") { rig.gate.begun.count == 4 }
            poller.stop()
        }
        let later = await #expect(throws: UsageError.self) {
            try await client.map(BatchRig.work, over: 0..<9).collect()
        }
        #expect(later?.code == .notRunning)
        try await stopper.value
        await client.close()
        rig.stop()
    }

    @Test("a batch is iterated once", .timeLimit(.minutes(1)))
    func twice() async throws {
        try await withBatchRig { _, client in
            let batch = client.map(BatchRig.work, over: [1, 2])
            let values = try await batch.collect()
            #expect(values == [2, 4])
            let error = await #expect(throws: UsageError.self) { try await batch.collect() }
            #expect(error?.code == .alreadyIterated)
            await #expect(throws: UsageError.self) { for try await _ in batch {} }
            await #expect(throws: UsageError.self) { for try await _ in batch.items {} }
        }
    }

    // MARK: Inputs

    @Test("an empty input gives nothing", .timeLimit(.minutes(1)))
    func empty() async throws {
        try await withBatchRig { _, client in
            let batch = client.map(BatchRig.work, over: [])
            for try await _ in batch { Issue.record("there is nothing") }
            #expect(batch.progress.total == 0)
            #expect(batch.progress.fraction == 1)
            #expect(batch.progress.isOver)
            #expect(try await client.map(BatchRig.work, over: AsyncStream { $0.finish() }).collect() == [])
            #expect(client.statistics.calls == 0)
        }
    }

    @Test("nothing happens before a batch is iterated", .timeLimit(.minutes(1)))
    func lazy() async throws {
        try await withBatchRig { _, client in
            let read = Counter()
            let batch = client.map(BatchRig.work, over: (0..<9).lazy.map { read.add($0) })
            #expect(read.value == 0)
            #expect(client.statistics.calls == 0)
            #expect(batch.progress.elapsed == .zero)
            #expect(batch.progress.total == 9)
            #expect(!batch.progress.isOver)
        }
    }

    @Test("functions of several arguments take tuples, those of none take nothing", .timeLimit(.minutes(1)))
    func tuples() async throws {
        try await withBatchRig { _, client in
            var sums: [Int] = []
            let batch = client.map(BatchRig.add, over: zip(0..<10, 100..<110), .init(order: .asGiven))
            for try await ((one, other), sum) in batch {
                #expect(one + other == sum)
                sums.append(sum)
            }
            #expect(sums == (0..<10).map { 100 + 2 * $0 })
            let stream = AsyncStream { continuation in
                for number in 0..<10 { continuation.yield((number, 1)) }
                continuation.finish()
            }
            #expect(try await client.map(BatchRig.add, over: stream).collect() == Array(1...10))
            #expect(try await client.map(BatchRig.nothing, over: [(), ()]).collect().count == 2)
            let named = try client.function("work", ((Int) -> Int).self)
            #expect(try await named.map(over: Set([4])).collect() == [8])
        }
    }

    @Test("a slow asynchronous input keeps no result waiting", .timeLimit(.minutes(1)))
    func slowInput() async throws {
        try await withBatchRig { _, client in
            let (stream, continuation) = AsyncStream<Int>.makeStream()
            continuation.yield(0)
            var seen: [Int] = []
            // Each input comes only after the result of the one before was taken.
            for try await (input, _) in client.map(BatchRig.work, over: stream, .init(window: 8)) {
                seen.append(input)
                if input < 20 { continuation.yield(input + 1) } else { continuation.finish() }
            }
            #expect(seen == Array(0...20))
        }
    }

    @Test("an asynchronous input is read no further than the window", .timeLimit(.minutes(1)))
    func boundedInput() async throws {
        for order in [MapOptions.Order.asCompleted, .asGiven] {
            try await withBatchRig(concurrency: 16, holds: { _ in true }) { rig, client in
                let read = Counter()
                let inputs = AsyncStream<Int> { read.value < 40 ? read.add() : nil }
                let batch = client.map(BatchRig.work, over: inputs, .init(window: 5, order: order))
                let opener = Task {
                    try await becomesTrue("the window is full") { rig.gate.begun.count == 5 }
                    #expect(read.value == 5)
                    #expect(client.statistics.outstandingNow == 5)
                    rig.gate.open("all")
                }
                var taken: [Int] = []
                for try await (input, _) in batch {
                    taken.append(input)
                    #expect(read.value - taken.count <= 5)
                }
                try await opener.value
                #expect(taken.sorted() == Array(1...40))
                #expect(order == .asCompleted || taken == Array(1...40))
            }
        }
    }

    @Test("what an asynchronous input throws is thrown after the results of what came before", .timeLimit(.minutes(1)))
    func throwingInput() async throws {
        try await withBatchRig(holds: { _ in true }) { rig, client in
            let (stream, continuation) = AsyncThrowingStream<Int, any Error>.makeStream()
            for number in 0..<3 { continuation.yield(number) }
            continuation.finish(throwing: FixtureError(message: "no more"))
            let opener = Task {
                try await becomesTrue("all have begun") { rig.gate.begun.count == 3 }
                rig.gate.open("all")
            }
            let seen = Gathered<Int>()
            let error = await #expect(throws: FixtureError.self) {
                for try await (input, _) in client.map(BatchRig.work, over: stream) { seen.add(input) }
            }
            try await opener.value
            #expect(error?.message == "no more")
            #expect(Set(seen.values) == [0, 1, 2])
        }
    }

    @Test(
        "a failure, a cancellation and an abandoned loop end the reading of an asynchronous input",
        .timeLimit(.minutes(1))
    )
    func endOfReading() async throws {
        try await withBatchRig { _, client in
            func open() -> (inputs: AsyncStream<Int>, continuation: AsyncStream<Int>.Continuation, ends: Counter) {
                let ends = Counter()
                let (stream, continuation) = AsyncStream<Int>.makeStream()
                continuation.onTermination = { _ in ends.add() }
                return (stream, continuation, ends)
            }
            let failing = open()
            failing.continuation.yield(-1)
            await #expect(throws: BatchError.self) {
                try await client.map(BatchRig.work, over: failing.inputs).collect()
            }
            try await becomesTrue("reading ended with the failure") { failing.ends.value == 1 }
            let left = open()
            left.continuation.yield(1)
            for try await _ in client.map(BatchRig.work, over: left.inputs) { break }
            try await becomesTrue("reading ended with the loop") { left.ends.value == 1 }
            let cancelled = open()
            cancelled.continuation.yield(1)
            let inputs = cancelled.inputs
            let seen = Counter()
            let task = Task { for try await _ in client.map(BatchRig.work, over: inputs) { seen.add() } }
            try await becomesTrue("it is under way") { seen.value == 1 }
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
            try await becomesTrue("reading ended with the task") { cancelled.ends.value == 1 }
        }
    }

    // MARK: Progress

    @Test("progress can be read from outside while the batch runs", .timeLimit(.minutes(1)))
    func progress() async throws {
        try await withBatchRig(holds: { $0 >= 6 }) { rig, client in
            let inputs = [0, 1, -1, 3, 4, 5, 6, 7]
            let batch = client.map(BatchRig.work, over: inputs, .init(window: 3, onFailure: .goOn))
            let handle = batch.handle
            #expect(handle.progress.total == 8)
            #expect(handle.progress.rate == nil)
            let reader = Task {
                try await becomesTrue("six are done") { handle.progress.done == 6 }
                let progress = handle.progress
                #expect(progress.failed == 1)
                #expect(progress.fraction == 0.75)
                #expect(!progress.isOver)
                #expect(progress.elapsed > .zero)
                let rate = try #require(progress.rate)
                #expect(rate > 0)
                let expected = Duration.seconds(2 / rate)
                #expect(try #require(progress.remaining) > expected / 2)
                rig.gate.open("all")
            }
            for try await _ in batch.items {}
            try await reader.value
            let last = handle.progress
            #expect(last.isOver)
            #expect(last.done == 8)
            #expect(last.remaining == nil)
            #expect(handle.progress == last, "nothing moves after the end")
        }
    }

    @Test(
        "the total is what the options say, what the input knows, or what was found at its end",
        .timeLimit(.minutes(1))
    )
    func totals() async throws {
        try await withBatchRig { _, client in
            let unknown = client.map(BatchRig.work, over: sequence(first: 1) { $0 < 5 ? $0 + 1 : nil })
            #expect(unknown.progress.total == nil)
            #expect(unknown.progress.fraction == nil)
            _ = try await unknown.collect()
            #expect(unknown.progress.total == 5)
            let expected = client.map(BatchRig.work, over: AsyncStream { $0.finish() }, .init(expectedTotal: 3))
            #expect(expected.progress.total == 3)
            _ = try await expected.collect()
            #expect(expected.progress.total == 0)
        }
    }

    // MARK: Many

    @Test("a hundred thousand items over two workers, in both orders", .timeLimit(.minutes(5)))
    func many() async throws {
        let rigs = [try BatchRig(), try BatchRig()]
        let client = try Client.forTest(rigs[0].running.endpoint, rigs[1].running.endpoint)
        for endpoint in 0..<2 { _ = try await client.ping(endpoint: endpoint) }
        let many = isSanitized ? 10_000 : 100_000
        let runs: [(MapOptions.Order, MapOptions.Chunking, Int)] = [
            (.asCompleted, .none, many), (.asGiven, .none, many / 10), (.asCompleted, .automatic, many),
            (.asGiven, .automatic, many / 10),
        ]
        for (order, chunking, total) in runs {
            let window = 256
            let completed = rigs.map { $0.running.status.completed }
            var sum = 0
            var count = 0
            var isInOrder = true
            var most = 0
            let before = client.statistics.calls
            for try await (input, output) in client.map(
                BatchRig.work,
                over: 0..<total,
                .init(window: window, order: order, chunking: chunking)
            ) {
                if input != count { isInOrder = false }
                count += 1
                sum += output
                if count % 100 == 0 { most = max(most, client.statistics.outstandingNow) }
            }
            #expect(count == total)
            #expect(sum == total * (total - 1))
            #expect(isInOrder || order == .asCompleted)
            #expect(most <= window)
            let calls = client.statistics.calls - before
            #expect(chunking == .none ? calls == total : calls < total)
            for (rig, before) in zip(rigs, completed) {
                #expect(rig.running.status.completed - before >= calls / 10, "both have had their part")
            }
        }
        await client.close()
        for rig in rigs { rig.stop() }
    }

    @Test("S102 memory stays constant however many items there are", .timeLimit(.minutes(5)))
    func memory() async throws {
        try await withBatchRig { _, client in
            let total = isSanitized ? 5_000 : 30_000
            var settled = 0
            var count = 0
            for try await _ in client.map(BatchRig.work, over: 0..<total, .init(window: 64)) {
                count += 1
                if count == total / 10 { settled = Footprint.now.residentBytes }
            }
            let growth = Footprint.now.residentBytes - settled
            #expect(growth < (isSanitized ? 64 : 8) << 20, "\(growth >> 10) KiB more")
            try await becomesTrue("the tables are empty") { client.statistics.tableEntriesNow == 0 }
        }
    }

    // MARK: Blocking

    @Test(
        "a program without concurrency runs batches, too; its inputs are read on its own thread",
        .timeLimit(.minutes(1))
    )
    func blocking() throws {
        let rig = try BatchRig()
        defer { rig.stop() }
        let client = try rig.client()
        defer { client.closeBlocking() }
        let here = kernelThreadID()
        let threads = Gathered<Int>()
        let inputs = (0..<300).lazy
            .map { (number: Int) in
                threads.add(kernelThreadID())
                return number
            }
        var values: [Int] = []
        try client.map(BatchRig.work, over: inputs, .init(window: 20, order: .asGiven))
            .forEachBlocking { input, value in values.append(value - input) }
        #expect(values == Array(0..<300))
        #expect(Set(threads.values) == [here])
        #expect(try client.map(BatchRig.work, over: 0..<300).collectBlocking() == (0..<300).map { $0 * 2 })
        var failed: [Int] = []
        try client.map(BatchRig.work, over: [1, -1, 2], .init(onFailure: .goOn)).items
            .forEachBlocking { item in if case .failure = item.result { failed.append(item.index) } }
        #expect(failed == [1])
        let stream = AsyncStream { continuation in
            for number in 0..<50 { continuation.yield(number) }
            continuation.finish()
        }
        #expect(try client.map(BatchRig.work, over: stream).collectBlocking() == (0..<50).map { $0 * 2 })
        #expect(throws: BatchError.self) { try client.map(BatchRig.work, over: [1, -1]).collectBlocking() }
        #expect(throws: FixtureError.self) {
            try client.map(BatchRig.work, over: 0..<300)
                .forEachBlocking { _, _ in throw FixtureError(message: "enough") }
        }
        // The rest was cancelled, which the poller does.
        eventually("nothing is left") { client.statistics.outstandingNow == 0 }
    }

    @Test("a blocked batch is cancelled from another thread", .timeLimit(.minutes(1)))
    func blockingCancelled() throws {
        let rig = try BatchRig(holds: { _ in true })
        defer { rig.stop() }
        let client = try rig.client()
        defer { client.closeBlocking() }
        let batch = client.map(BatchRig.work, over: 0..<100, .init(window: 4))
        let handle = batch.handle
        let thread = try LoopThread.start(named: "canceller") {
            eventually("it is under way") { rig.gate.begun.count == 4 }
            handle.cancel()
        }
        #expect(throws: CancellationError.self) { try batch.collectBlocking() }
        thread.join()
        #expect(client.statistics.outstandingNow == 0)
    }

    // MARK: Workers that die

    @Test("a worker killed in the midst: what may run twice completes on the other", .timeLimit(.minutes(2)))
    func killedIdempotent() throws {
        let (lasting, victim) = (try WorkerProcess(), try WorkerProcess())
        let client = try Client.forTest(lasting.endpoint, victim.endpoint)
        try client.pingBoth()
        var seen: Set<Int> = []
        var count = 0
        try client.map(Job.sureEcho, over: 0..<5_000, .init(window: 400))
            .forEachBlocking { input, output in
                #expect(input == output)
                count += 1
                seen.insert(input)
                if count == 1_000 { victim.end() }
            }
        #expect(count == 5_000)
        #expect(seen.count == 5_000)
        client.closeBlocking()
        lasting.end()
    }

    @Test("a worker killed in the midst: what may run once only fails, each item for itself", .timeLimit(.minutes(2)))
    func killedPlain() throws {
        let (lasting, victim) = (try WorkerProcess(), try WorkerProcess())
        let client = try Client.forTest(lasting.endpoint, victim.endpoint)
        try client.pingBoth()
        // They keep the worker's threads busy, so that calls are truly under way when it dies.
        let inputs = (0..<400).map { (0.05, "\($0)") }
        var ends: [Int: Bool] = [:]
        let batch = client.map(Job.sleep, over: inputs, .init(window: 40, onFailure: .goOn))
        try batch.items.forEachBlocking { item in
            #expect(ends[item.index] == nil)
            switch item.result {
            case .success(let tag):
                #expect(tag == item.input.1)
                ends[item.index] = true
            case .failure(let error):
                #expect((error as? ConnectionError)?.code == .lost)
                ends[item.index] = false
            }
            if ends.count == 20 { victim.end() }
        }
        #expect(ends.count == 400)
        let losses = ends.values.count { !$0 }
        #expect((1...40).contains(losses), "\(losses)")
        #expect(batch.progress.failed == losses)
        client.closeBlocking()
        lasting.end()
    }
}
