// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverZMQ
import Foundation
import Synchronization
import Testing

/// Contract sections A and B: making calls and reading results.
///
/// Handlers that must not have ended yet wait at a gate, so nothing here rests on sleeping long enough.
@Suite("Results")
struct ResultTests {
    @Test(
        "S1 S5 A25 A26 wrapping sends nothing, one wrapper per function, and nonsense is refused",
        .timeLimit(.minutes(1))
    )
    func wrapping() throws {
        let rig = try Rig()
        let client = try rig.client()
        do {
            let first = async(client.function(Job.echo))
            let second = async(client.function(Job.echo))
            #expect(first === second)
            #expect(async(first) === first)
            let other = async(client.function(Job.bytes))
            #expect(first !== other as AnyObject)
            _ = timed(client.function(Job.echo), .seconds(1))
            #expect(client.statistics.calls == 0)
            #expect(client.statistics.wrappersNow == 2)
        }
        eventually("the cache is empty") { client.statistics.wrappersNow == 0 }
        let error = #expect(throws: UsageError.self) { try client.function("", ((Int) -> Int).self) }
        #expect(error?.code == .notCallable)
        let unknown = try client.function("no such", ((Int) -> Int).self)
        let refused = #expect(throws: RemoteError.self) { try unknown.blocking(1) }
        #expect(refused?.code == .unknownFunction)
        client.closeBlocking()
        rig.stop()
    }

    @Test("S15 a value of any size is there as long as its handle, and goes with it", .timeLimit(.minutes(1)))
    func valuesOfAllSizes() throws {
        let rig = try Rig()
        func echo<Value: Codable & Sendable & Equatable>(_ value: Value) throws {
            let function = Function<Value, Value>("echo \(Value.self)")
            rig.worker.register(function) { $0 }
            let echoing = try rig.worker.start(.bind("tcp://127.0.0.1:*"))
            let client = try Client.forTest(echoing.endpoint)
            let result = try client.function(function).async(value)
            for _ in 0..<3 { #expect(try result.get() == value) }
            #expect(try result.outcome?.get() == value)
            client.closeBlocking()
            echoing.stopBlocking(grace: .zero)
            #expect(try result.get() == value)
        }
        struct Wide: Codable, Equatable {
            var a = 1, b = "two, which is too long for a small string", c = [3, 4], d = 5.5
        }
        try echo(true)
        try echo(-1)
        try echo("a text that is too long to be a small string")
        try echo(Wide())
        try echo([Wide(), Wide(a: 2)])
        try echo(Int?.none)
        try echo(Nothing())

        let counted = Function<Int, Counted>("counted")
        rig.worker.register(counted) { _ in Counted() }
        let counting = try rig.worker.start(.bind("tcp://127.0.0.1:*"))
        let client = try Client.forTest(counting.endpoint)
        do {
            let results = try (0..<100).map { try client.function(counted).async($0) }
            // Some end on this side while their answers are on the way.
            for result in results.prefix(50) { result.cancel() }
            for result in results.suffix(50) { _ = try result.get() }
        }
        eventually("no value is left") { Counted.live.load(ordering: .relaxed) == 0 }
        client.closeBlocking()
        counting.stopBlocking(grace: .zero)
        rig.stop()
    }

    /// A value that tells how many of its kind there are.
    private final class Counted: Codable, Sendable {
        static let live = Atomic<Int>(0)

        init() { Self.live.add(1, ordering: .relaxed) }
        init(from decoder: any Decoder) throws { Self.live.add(1, ordering: .relaxed) }
        deinit { Self.live.subtract(1, ordering: .relaxed) }
        func encode(to encoder: any Encoder) throws {
            var container = encoder.singleValueContainer()
            try container.encodeNil()
        }
    }

    @Test("S6 wrapping and releasing at once gives neither dead nor double wrappers", .timeLimit(.minutes(1)))
    func wrappersUnderRaces() throws {
        let rig = try Rig()
        let client = try rig.client()
        try onThreads(4) { _ in
            for _ in 0..<500 {
                let first = async(client.function(Job.echo))
                let second = async(client.function(Job.echo))
                if first !== second { Issue.record("two wrappers were alive at once") }
            }
        }
        eventually("the cache is empty") { client.statistics.wrappersNow == 0 }
        client.closeBlocking()
        rig.stop()
    }

    @Test(
        "S2 S10 S11 S12 S13 S15 A1 A2 a call returns at once, its flags change by themselves",
        .timeLimit(.minutes(1))
    )
    func flags() throws {
        let rig = try Rig()
        let client = try rig.client()
        let result = try client.function(Job.gated).async("a")
        #expect(!result.isReady && !result.hasExpired && !result.hasError && result.outcome == nil)
        rig.gate.open("a")
        eventually("it is ready") { result.isReady }
        #expect(!result.hasExpired && !result.hasError)
        #expect(try result.get() == "a")
        #expect(try result.get() == "a")
        try result.wait()
        #expect(result.outcome == .value("a"))
        client.closeBlocking()
        rig.stop()
    }

    @Test(
        "S2 over the limit of outstanding calls a call is refused, an awaiting one waits for room",
        .timeLimit(.minutes(1))
    )
    func backpressure() async throws {
        let rig = try Rig()
        let client = try rig.client { $0.maxOutstandingCalls = 2 }
        let gated = client.function(Job.gated)
        let first = try gated.async("a")
        let second = try gated.async("b")
        let error = #expect(throws: ConnectionError.self) { try gated.async("c") }
        #expect(error?.code == .backpressure)
        let waiting = Task { try await gated("d") }
        let cancelled = Task { try await gated("e") }
        cancelled.cancel()
        await #expect(throws: CancellationError.self) { try await cancelled.value }
        await #expect(throws: AsyncResultTimeout.self) {
            try await gated.with(CallOptions(expiry: .milliseconds(30)))("f")
        }
        for key in ["a", "b", "d"] { rig.gate.open(key) }
        #expect(try await waiting.value == "d")
        #expect(try await first.value == "a")
        #expect(try await second.value == "b")
        #expect(client.statistics.outstandingNow == 0)
        await client.close()
        await rig.running.stop(grace: .zero)
    }

    @Test("S7 S8 A23 A24 a dropped wrapper or handle cancels nothing", .timeLimit(.minutes(1)))
    func dropping() throws {
        let rig = try Rig()
        let client = try rig.client()
        let seen = Gathered<Int>()
        for number in 0..<1000 {
            try async(client.function(Job.echo))(number)
                .addCallback { result in
                    if case .value(let value) = result.outcome { seen.add(value) }
                }
        }
        eventually("all callbacks ran") { seen.count == 1000 }
        #expect(Set(seen.values) == Set(0..<1000))
        client.closeBlocking()
        rig.stop()
    }

    @Test("S14 S16 A4 many threads wait for one result and all are told", .timeLimit(.minutes(1)))
    func manyWaiters() throws {
        let rig = try Rig()
        let client = try rig.client()
        let result = try client.function(Job.gated).async("a")
        #expect(try !result.wait(timeout: .milliseconds(20)))
        #expect(result.outcome == nil)
        let values = Gathered<String>()
        let threads = try (0..<8)
            .map { index in
                try LoopThread.start(named: "waiter-\(index)") {
                    do { values.add(try result.get()) } catch { Issue.record("\(error)") }
                }
            }
        rig.gate.open("a")
        expectEnd(of: threads)
        #expect(values.values == Array(repeating: "a", count: 8))
        #expect(try result.wait(timeout: .zero))
        client.closeBlocking()
        rig.stop()
    }

    @Test("S17 waiters of different results don't hold one another up", .timeLimit(.minutes(1)))
    func separateWaiters() throws {
        let rig = try Rig()
        let client = try rig.client()
        let slow = try client.function(Job.gated).async("slow")
        let thread = try LoopThread.start(named: "waiter") { _ = try? slow.get() }
        for number in 0..<50 { #expect(try client.function(Job.echo).blocking(number) == number) }
        #expect(!slow.isTerminal)
        rig.gate.open("slow")
        expectEnd(of: [thread])
        client.closeBlocking()
        rig.stop()
    }

    @Test("S18 S19 S21 A3 A16 a remote error is thrown afresh at each read and is no timeout", .timeLimit(.minutes(1)))
    func remoteErrors() throws {
        let rig = try Rig()
        let client = try rig.client()
        let result = try client.function(Job.fail).async("boom")
        try result.wait()
        #expect(result.isReady && result.hasError && !result.hasExpired)
        let first = #expect(throws: RemoteError.self) { try result.get() }
        let second = #expect(throws: RemoteError.self) { try result.get() }
        #expect(first == second)
        #expect(first?.message == "boom" && first?.type == "FixtureError" && first?.function == "fail")
        #expect(first?.worker == "worker" && first?.correlationID == result.correlationID)
        #expect(first?.trace.contains("fail on worker") == true)
        #expect(first?.decode(as: FixtureError.self) == FixtureError(message: "boom"))
        // A handler's own timeout is a remote error (contract S63).
        rig.stop()
        client.closeBlocking()
        let worker = Worker()
        let failTimeout = Function<Nothing>("failTimeout")
        worker.register(failTimeout) { () throws -> Nothing in throw HandlerTimeout() }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        let other = try Client.forTest(running.endpoint)
        let timeout = try other.function(failTimeout).async()
        let error = #expect(throws: RemoteError.self) { try timeout.get() }
        #expect(error?.type == "HandlerTimeout")
        #expect(!timeout.hasExpired)
        other.closeBlocking()
        running.stopBlocking(grace: .zero)
    }

    private struct HandlerTimeout: Error {}

    @Test("S20 S22 a result outlives its client and describes itself", .timeLimit(.minutes(1)))
    func lifetime() throws {
        let rig = try Rig()
        let client = try rig.client()
        let pending = try client.function(Job.gated).async("a")
        pending.setExpiry(.seconds(60))
        #expect(pending.description.contains("gated") && pending.description.contains("pending"))
        #expect(pending.description.contains("\(pending.correlationID)") && pending.description.contains("expires in"))
        rig.gate.open("a")
        try pending.wait()
        client.closeBlocking()
        #expect(try pending.get() == "a")
        #expect(pending.description.contains("value"))
        rig.stop()
    }

    @Test("a handler without a result may be asynchronous: it is awaited and cancelled", .timeLimit(.minutes(1)))
    func asyncWithoutResult() throws {
        let rig = try Rig()
        let note = Function<Int, Nothing>("note")
        let noted = Gathered<Int>()
        let isCancelled = Flag()
        rig.worker.register(note) { (number: Int) in
            await Task.yield()
            guard number >= 0 else { throw FixtureError(message: "negative") }
            if number > 100 {
                do { try await Task.sleep(for: .seconds(60)) } catch { isCancelled.set() }
            }
            noted.add(number)
        }
        // The synchronous one beside it, of several statements as well.
        let noteTwice = Function<Int, Nothing>("noteTwice")
        rig.worker.register(noteTwice) { (number: Int) in
            noted.add(number)
            noted.add(number)
        }
        let running = try rig.worker.start(.bind("tcp://127.0.0.1:*"))
        let client = try Client.forTest(running.endpoint)
        #expect(try client.function(note).blocking(7) == Nothing())
        #expect(try client.function(noteTwice).blocking(8) == Nothing())
        #expect(noted.values == [7, 8, 8])
        let error = #expect(throws: RemoteError.self) { try client.function(note).blocking(-1) }
        #expect(error?.message == "negative")
        let long = try client.function(note).async(1000)
        eventually("it runs") { if case .running = long.phase { true } else { false } }
        long.cancel()
        eventually("its task is cancelled") { isCancelled.isSet }
        client.closeBlocking()
        running.stopBlocking(grace: .zero)
        rig.stop()
    }

    @Test("S23 A44 results are awaited in any number and order, each gets its own answer", .timeLimit(.minutes(1)))
    func awaiting() async throws {
        let rig = try Rig()
        let client = try rig.client()
        let echo = client.function(Job.echo)
        let results = try (0..<200).map { try echo.async($0) }
        var byID: [CorrelationID: Int] = [:]
        for (number, result) in results.enumerated() { byID[result.correlationID] = number }
        var seen = 0
        for await result in asCompleted(results) {
            #expect(try await result.value == byID[result.correlationID])
            seen += 1
        }
        #expect(seen == 200)
        let sum = try await withThrowingTaskGroup(of: Int.self) { group in
            for result in results { group.addTask { try await result.value } }
            return try await group.reduce(0, +)
        }
        #expect(sum == (0..<200).reduce(0, +))
        await client.close()
        await rig.running.stop(grace: .zero)
    }

    @Test("S24 a cancelled waiter is told at once, the call goes on unless asked otherwise", .timeLimit(.minutes(1)))
    func cancelledWaiter() async throws {
        let rig = try Rig()
        let client = try rig.client()
        let result = try client.function(Job.gated).async("a")
        let waiter = Task { try await result.value }
        waiter.cancel()
        await #expect(throws: CancellationError.self) { try await waiter.value }
        #expect(result.outcome == nil)
        rig.gate.open("a")
        #expect(try await result.value == "a")
        let tied = client.function(Job.gated).with(CallOptions(cancelsWithWaiter: true))
        let tiedCall = try tied.async("b")
        let tiedWaiter = Task { try await tiedCall.value }
        eventually("it runs") { rig.gate.begun.contains("b") }
        tiedWaiter.cancel()
        await #expect(throws: CancellationError.self) { try await tiedWaiter.value }
        #expect(tiedCall.outcome == .cancelled)
        eventually("the handler stopped") { rig.cancelled.values.contains("b") }
        // A call without a handle has no other waiter.
        for (text, function) in [("c", nil), ("d", client.function(Job.gated))] {
            let waiter = Task {
                if let function { return try await function(text) }
                return try await client.call(Job.gated, text)
            }
            eventually("it runs") { rig.gate.begun.contains(text) }
            waiter.cancel()
            await #expect(throws: CancellationError.self) { try await waiter.value }
            eventually("the handler stopped") { rig.cancelled.values.contains(text) }
        }
        await client.close()
        await rig.running.stop(grace: .zero)
    }

    @Test(
        "A42 cancelling takes a waiting request out, stops a running one, leaves an answered one",
        .timeLimit(.minutes(1))
    )
    func cancelling() throws {
        let rig = try Rig(concurrency: 1)
        let client = try rig.client()
        let gated = client.function(Job.gated)
        let running = try gated.async("running")
        eventually("the first runs") { rig.gate.begun == ["running"] }
        let queued = try gated.async("queued")
        #expect(queued.cancel())
        #expect(running.cancel())
        #expect(queued.outcome == .cancelled && running.outcome == .cancelled)
        #expect(throws: CancellationError.self) { try running.get() }
        eventually("the handler stopped") { rig.cancelled.values == ["running"] }
        let done = try client.function(Job.echo).async(1)
        #expect(try done.get() == 1)
        #expect(!done.cancel())
        #expect(done.outcome == .value(1))
        #expect(rig.gate.begun == ["running"])
        client.closeBlocking()
        rig.stop()
    }

    @Test("A37 A38 closing ends what is pending and is harmless again", .timeLimit(.minutes(1)))
    func closing() throws {
        let rig = try Rig()
        let client = try rig.client()
        let result = try client.function(Job.gated).async("a")
        let called = Gathered<Bool>()
        result.addCallback { called.add($0.hasError) }
        let code = Gathered<ConnectionError.Code>()
        let waiter = try LoopThread.start(named: "waiter") {
            do { _ = try result.get() } catch { if let error = error as? ConnectionError { code.add(error.code) } }
        }
        client.closeBlocking(grace: .milliseconds(100))
        expectEnd(of: [waiter])
        #expect(code.values == [.closed])
        eventually("the callback ran") { called.values == [true] }
        client.closeBlocking()
        let error = #expect(throws: ConnectionError.self) { try client.function(Job.echo).async(1) }
        #expect(error?.code == .closed)
        rig.stop()
    }
}
