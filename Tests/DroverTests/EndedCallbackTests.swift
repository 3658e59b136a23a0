// SPDX-License-Identifier: Apache-2.0

import DroverCodec
import DroverWire
import DroverZMQ
import Foundation
import Testing

@testable import Drover

extension ServingTests {
    /// Callbacks that have ended, and what keeps them alive.
    @Suite(.serialized)
    struct EndedCallbackTests {}
}

extension ServingTests.EndedCallbackTests {
    private typealias Told = Callback<Int, Nothing>
    /// Tells three things about a number.
    private static let stages = Function<Int, Told, Int>("stages")
    private static let ask = Function<Callback<Int, Int>, Told, Int>("askAndTell")

    private static func register(on worker: Worker) {
        worker.register(Self.stages) { (number: Int, told: Told) in
            for stage in 0..<3 { try told.emit(number * 10 + stage) }
            if number < 0 { throw FixtureError(message: "too small") }
            return number
        }
        worker.register(Self.ask) { (question: Callback<Int, Int>, told: Told) in
            let answer = try question.blocking(1)
            for number in 0..<3 { try told.emit(number) }
            return answer
        }
    }

    private func withStages(_ body: (Rig, Client) async throws -> Void) async throws {
        let rig = try Rig()
        Self.register(on: rig.worker)
        let client = try rig.client()
        try await body(rig, client)
        await client.close()
        await rig.running.stop(grace: .zero)
    }

    private static func expected(_ numbers: Range<Int>) -> [Int] {
        numbers.flatMap { number in (0..<3).map { number * 10 + $0 } }
    }

    @Test("S80 a batch holds its callbacks for all items, and ends them with itself", .timeLimit(.minutes(1)))
    func batches() async throws {
        try await self.withStages { _, client in
            let seen = Gathered<Int>()
            let told = client.callback { (number: Int) in seen.add(number) }
            // One at a time, so that no two calls are open at once.
            let batch = client.map(Self.stages, over: (0..<50).map { ($0, told) }, MapOptions(window: 1))
            let values = try await batch.collect()
            #expect(values == Array(0..<50))
            await client.drainCallbacks()
            #expect(seen.values.sorted() == Self.expected(0..<50))
            #expect(client.core.subscriptions.find(told.subscription) == nil)
            let error = #expect(throws: UsageError.self) { try client.function(Self.stages).async(1, told) }
            #expect(error?.code == .callbackEnded)
            #expect(error?.message.contains("callback \(told.subscription) has ended") == true)
            #expect(error?.message.contains(".untilCancelled") == true)
        }
    }

    @Test("S80 so does one whose input comes slowly", .timeLimit(.minutes(1)))
    func slowInputs() async throws {
        try await self.withStages { _, client in
            let seen = Gathered<Int>()
            let told = client.callback { (number: Int) in seen.add(number) }
            let (inputs, continuation) = AsyncStream.makeStream(of: (Int, Told).self)
            continuation.yield((0, told))
            for try await (input, _) in client.map(Self.stages, over: inputs) {
                if input.0 < 20 { continuation.yield((input.0 + 1, told)) } else { continuation.finish() }
            }
            await client.drainCallbacks()
            #expect(seen.values.sorted() == Self.expected(0..<21))
            #expect(client.core.subscriptions.find(told.subscription) == nil)
        }
    }

    @Test("S80 a batch that fails, is left or is cancelled ends its callbacks as well", .timeLimit(.minutes(1)))
    func endsOfBatches() async throws {
        try await self.withStages { _, client in
            let failing = client.callback { (_: Int) in }
            await #expect(throws: BatchError.self) {
                try await client.map(Self.stages, over: [(-1, failing)], MapOptions(window: 1)).collect()
            }
            let left = client.callback { (_: Int) in }
            for try await _ in client.map(Self.stages, over: (0..<100).map { ($0, left) }) { break }
            let cancelled = client.callback { (_: Int) in }
            let batch = client.map(Self.stages, over: (0..<1000).map { ($0, cancelled) })
            await #expect(throws: CancellationError.self) {
                for try await _ in batch { batch.handle.cancel() }
            }
            for callback in [failing, left, cancelled] {
                eventually("it has ended") { client.core.subscriptions.find(callback.subscription) == nil }
            }
            let lasting = client.callback(.init(lifetime: .untilCancelled)) { (_: Int) in }
            _ = try await client.map(Self.stages, over: [(1, lasting), (2, lasting)]).collect()
            #expect(client.core.subscriptions.find(lasting.subscription) != nil)
        }
    }

    @Test("a callback that has ended is refused as an argument, by every way to call", .timeLimit(.minutes(1)))
    func refused() async throws {
        try await self.withStages { _, client in
            let told = client.callback { (_: Int) in }
            #expect(try await client.function(Self.stages)(1, told) == 1)
            eventually("it has ended") { client.core.subscriptions.find(told.subscription) == nil }
            let function = client.function(Self.stages)
            await #expect(throws: UsageError.self) { try await function(1, told) }
            #expect(throws: UsageError.self) { try function.async(1, told) }
            let items = client.map(Self.stages, over: [(1, told)]).items
            for try await item in items {
                guard case .failure(let error as UsageError) = item.result else {
                    Issue.record("\(item.result)")
                    continue
                }
                #expect(error.code == .callbackEnded)
            }
            let cancelled = client.callback(.init(lifetime: .untilCancelled)) { (_: Int) in }
            client.cancel(cancelled)
            #expect(throws: UsageError.self) { try function.async(1, cancelled) }
            #expect(client.statistics.outstandingNow == 0)
        }
    }

    @Test("a call with another client's callback leaves the own one of that number alone", .timeLimit(.minutes(1)))
    func foreignCallbacks() async throws {
        try await self.withStages { rig, client in
            let other = try rig.client()
            let foreign = other.callback { (number: Int) in number }
            let own = client.callback { (number: Int) in number * 2 }
            #expect(foreign.subscription == own.subscription)
            #expect(try await client.function(Job.echoCallback)(foreign) == foreign)
            #expect(client.core.subscriptions.find(own.subscription) != nil)
            #expect(try await client.function(Job.ask)(own, 4) == 8)
            await other.close()
        }
    }

    // MARK: Before the request is read

    /// A worker of one slot, which is taken, and a client that speaks the wire by hand.
    private func withBusyWorker(_ body: (Rig, RawClient) throws -> Void) throws {
        let rig = try Rig(concurrency: 1)
        Self.register(on: rig.worker)
        let raw = try RawClient(rig.endpoint)
        raw.introduce(functions: Job.gated.name, Self.stages.name, Self.ask.name)
        raw.request(1, function: 0, Packed.arguments("busy"))
        eventually("the slot is taken") { rig.gate.begun == ["busy"] }
        try body(rig, raw)
        raw.stop()
        rig.stop()
    }

    private func callback<each Argument, Return>(
        _ number: UInt32,
        of client: RawClient
    ) -> Callback<repeat each Argument, Return> {
        Callback(client: client.identity, subscription: SubscriptionID(number), lifetime: .job, link: nil)
    }

    /// Waits until the worker has read what was sent.
    private func settle(_ raw: RawClient, _ nonce: UInt64) {
        raw.send(RawMessage(.ping, id: nonce))
        _ = raw.messages { $0.kind == .pong && $0.id == nonce }
    }

    @Test("a callback that ended while its request waited is over for the handler", .timeLimit(.minutes(1)))
    func endedBeforeItsRequestWasRead() throws {
        try self.withBusyWorker { rig, raw in
            let told: Told = self.callback(5, of: raw)
            raw.request(2, function: 1, Packed.arguments(1, told))
            raw.send(RawMessage(.ended, number: 5))
            self.settle(raw, 1000)
            rig.gate.open("busy")
            let answer = try #require(raw.messages { [.reply, .error].contains($0.kind) && $0.id == 2 }.first)
            #expect(answer.kind == .error)
            #expect(try answer.error().message.contains("callback 5 has ended"))
            // It stays so for references to it that come later.
            raw.request(3, function: 1, Packed.arguments(1, told))
            #expect(raw.messages { $0.kind == .error && $0.id == 3 }.count == 1)
            #expect(!raw.messages.contains { $0.kind == .event })
        }
    }

    @Test("a pause that was asked for while the request waited holds", .timeLimit(.minutes(1)))
    func pausedBeforeItsRequestWasRead() throws {
        try self.withBusyWorker { rig, raw in
            let question: Callback<Int, Int> = self.callback(6, of: raw)
            let told: Told = self.callback(7, of: raw)
            raw.request(2, function: 2, Packed.arguments(question, told))
            raw.send(RawMessage(.flow, id: 0, number: 7))
            self.settle(raw, 1000)
            rig.gate.open("busy")
            let invocation = try #require(raw.messages { $0.kind == .invoke }.first)
            raw.send(RawMessage(.reply, id: invocation.id, payload: Packed.value(9)))
            // Long enough for three events to come, if they did.
            block(for: .milliseconds(200))
            #expect(!raw.messages.contains { $0.kind == .event })
            raw.send(RawMessage(.flow, id: 1, number: 7))
            #expect(raw.messages { $0.kind == .reply && $0.id == 2 }.count == 1)
        }
    }

    @Test("a subscription's number beyond 32 bits is no other callback's", .timeLimit(.minutes(1)))
    func hugeNumbers() throws {
        let rig = try Rig()
        Self.register(on: rig.worker)
        let raw = try RawClient(rig.endpoint)
        raw.introduce(functions: Self.stages.name)
        for (id, number) in [(1, UInt64(UInt32.max) + 1), (2, UInt64.max)] as [(UInt64, UInt64)] {
            var writer = PackWriter(capacity: 64)
            try writer.packArrayHeader(2)
            try writer.pack(UInt64(1))
            try writer.packArrayHeader(3)
            try writer.pack(raw.identity.bytes)
            try writer.pack(number)
            try writer.pack(UInt64(0))
            raw.request(id, writer.withBytes { [UInt8]($0) })
            let answer = try #require(raw.messages { [.reply, .error].contains($0.kind) && $0.id == id }.first)
            #expect(try answer.error().code == "badArguments")
            #expect(try answer.error().message.contains("32 bits"))
        }
        #expect(!raw.messages.contains { $0.kind == .event })
        raw.stop()
        rig.stop()
    }
}
