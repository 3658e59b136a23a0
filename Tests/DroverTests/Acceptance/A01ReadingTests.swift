// SPDX-License-Identifier: Apache-2.0

import DroverWire
import DroverZMQ
import Foundation
import Synchronization
import Testing

@testable import Drover

extension ServingTests {
    /// Contract section B: reading a result.
    @Suite(.serialized, .tags(.acceptance), .timeLimit(.minutes(1)))
    struct ReadingTests {}
}

/// A handle in each of the six states, of one client.
struct HandlesOfEachState {
    let pending, value, failed, expired, cancelled, lost: AsyncResult<String>

    /// Makes the handles; `other` is a client that is closed for it.
    init(_ rig: Rig, _ client: Client, other: Client) throws {
        let gated = client.function(Job.gated)
        rig.gate.open("value")
        self.pending = try gated.async("pending")
        self.value = try gated.async("value")
        self.failed = try client.function("fail", ((String) -> String).self).async("boom")
        self.expired = try gated.async("expired")
        self.cancelled = try gated.async("cancelled")
        self.lost = try other.function(Job.gated).async("lost")
        self.expired.setExpiry(.zero)
        self.cancelled.cancel()
        other.closeBlocking()
        let (value, failed, lost) = (self.value, self.failed, self.lost)
        eventually("all but one have ended") { value.isTerminal && failed.isTerminal && lost.isTerminal }
    }

    var all: [(name: String, result: AsyncResult<String>)] {
        [
            ("pending", self.pending), ("value", self.value), ("failed", self.failed), ("expired", self.expired),
            ("cancelled", self.cancelled), ("lost", self.lost),
        ]
    }

    var ended: [(name: String, result: AsyncResult<String>)] { Array(self.all.dropFirst()) }
}

extension ServingTests.ReadingTests {
    // MARK: Flags

    @Test("A1 A2 S12 a handle is pending at once, and becomes ready by itself")
    func becomesReady() throws {
        try withRig { (_, client) throws in
            try client.connectBlocking()
            let sleep = client.function(Job.sleep)
            var result = try sleep.async(0, "first")
            try expectTime("a submission", atMost: .milliseconds(20)) {
                try elapsed {
                    result = try sleep.async(0.5, "a")
                    #expect(!result.isReady && !result.hasExpired && !result.hasError)
                    #expect(result.outcome == nil)
                }
            }
            block(for: scaled(.seconds(1)))
            #expect(result.isReady)
            #expect(try result.get() == "a")
            #expect(try result.get() == "a")
            try expectTime("waiting for what has ended", atMost: .milliseconds(5)) { try elapsed { try result.wait() } }
        }
    }

    @Test("S11 S19 the flags tell the six states apart, as the table has them")
    func flags() throws {
        try withRig { (rig, client) throws in
            let handles = try HandlesOfEachState(rig, client, other: rig.client())
            // isReady, hasExpired, hasError
            let expected: [String: [Bool]] = [
                "pending": [false, false, false], "value": [true, false, false], "failed": [true, false, true],
                "expired": [false, true, false], "cancelled": [true, false, true], "lost": [true, false, true],
            ]
            for (name, result) in handles.all {
                #expect([result.isReady, result.hasExpired, result.hasError] == expected[name], "\(name)")
                #expect((result.isReady || result.hasExpired) == (result.outcome != nil), "\(name)")
                let outcome: String
                switch result.outcome {
                case nil: outcome = "pending"
                case .value("value"): outcome = "value"
                case .failed(let error) where error.message == "boom": outcome = "failed"
                case .expired(let error) where error.limit == .zero: outcome = "expired"
                case .cancelled: outcome = "cancelled"
                case .lost(let error) where error.code == .closed: outcome = "lost"
                case let other: outcome = "\(String(describing: other))"
                }
                #expect(outcome == name)
            }
        }
    }

    @Test("S12 reading does no I/O and changes nothing")
    func passive() throws {
        try withRawWorker { (raw, client) throws in
            let result = try client.function(Job.echo).async(1)
            eventually("the request came") { raw.requests.count == 1 }
            let before = (raw.messages.count, client.statistics)
            for _ in 0..<10_000 {
                #expect(!result.isReady && !result.hasExpired && !result.hasError && result.outcome == nil)
            }
            // What had been sent by now would come before the answer to this.
            try client.connectBlocking()
            #expect(raw.messages.count == before.0)
            #expect(client.statistics.outstandingNow == before.1.outstandingNow)
            raw.send(RawMessage(.reply, id: result.correlationID.rawValue, payload: Packed.value(5)))
            eventually("the outcome shows without any call") { result.outcome == .value(5) }
        }
    }

    @Test("S13 reading takes constant time, whatever worker, callbacks, poller and the handle's lock do")
    func neverBlocks() throws {
        let rig = try Rig(concurrency: 1)
        let client = try rig.client { $0.startsPoller = false }
        let poller = try BackgroundPoller(serving: client)
        let result = try client.function(Job.gated).async("busy")
        eventually("the only handler runs") { rig.gate.begun == ["busy"] }
        let (inCallback, release) = (ReadySignal<Duration>(), ReadySignal<Void>())
        let read: @Sendable () -> Duration = {
            elapsed {
                for _ in 0..<1000 { _ = (result.isReady, result.hasExpired, result.hasError, result.outcome == nil) }
            }
        }
        // The reading callback then holds the callback executor up.
        let cancelled = try client.function(Job.gated).async("other")
        cancelled.addCallback { _ in
            _ = inCallback.set(read())
            release.wait()
        }
        cancelled.cancel()
        let inside = inCallback.wait()
        #expect(inside < scaled(.milliseconds(100)), "a thousand reads in a callback took \(inside)")
        #expect(poller.stop())
        // The handle's lock is held as well, by an attempt to end it.
        let isHeld = ReadySignal<Void>()
        let holder = try LoopThread.start(named: "holder") {
            _ = result.settle(.cancelled) {
                _ = isHeld.set(())
                release.wait()
            }
        }
        isHeld.wait()
        expectTime("a thousand reads", atMost: .milliseconds(100)) { read() }
        #expect(!result.isTerminal)
        _ = release.set(())
        expectEnd(of: [holder])
        client.closeBlocking()
        rig.stop()
    }

    // MARK: Waiting

    @Test("S14 wait returns for value and failure and throws for the rest, again and again, at once")
    func waiting() throws {
        try withRig { (rig, client) throws in
            let handles = try HandlesOfEachState(rig, client, other: rig.client())
            for (name, result) in handles.ended {
                for _ in 0..<3 {
                    expectTime("waiting for \(name)", atMost: .milliseconds(5)) {
                        elapsed {
                            switch name {
                            case "value", "failed":
                                #expect(throws: Never.self) { try result.wait() }
                                #expect(throws: Never.self) { _ = try result.wait(timeout: .zero) }
                            case "expired":
                                #expect(throws: AsyncResultTimeout.self) { try result.wait() }
                                #expect(throws: AsyncResultTimeout.self) { try result.wait(timeout: .zero) }
                            case "cancelled":
                                #expect(throws: CancellationError.self) { try result.wait() }
                                #expect(throws: CancellationError.self) { try result.wait(timeout: .zero) }
                            default:
                                #expect(throws: ConnectionError.self) { try result.wait() }
                                #expect(throws: ConnectionError.self) { try result.wait(timeout: .zero) }
                            }
                        }
                    }
                }
            }
            // Giving up changes nothing.
            let pending = handles.pending
            try expectTime("a wait that gives up", atLeast: .milliseconds(50), atMost: .milliseconds(100)) {
                var hasEnded = true
                let time = try elapsed { hasEnded = try pending.wait(timeout: .milliseconds(50)) }
                #expect(!hasEnded)
                return time
            }
            #expect(try !pending.wait(timeout: .zero))
            #expect(try !pending.wait(timeout: .seconds(-1)))
            #expect(!pending.isTerminal)
            rig.gate.open("pending")
            #expect(try pending.wait(timeout: .seconds(10)))
            #expect(try pending.get() == "pending")
        }
    }

    @Test("A3 S15 a failure: wait returns, every get throws the error")
    func failure() throws {
        try withRig { (_, client) throws in
            let result = try client.function(Job.fail).async("boom")
            #expect(throws: Never.self) { try result.wait() }
            #expect(result.isReady && result.hasError && !result.hasExpired)
            let one = #expect(throws: RemoteError.self) { try result.get() }
            let other = #expect(throws: RemoteError.self) { try result.get() }
            #expect(one == other)
            #expect(one?.message == "boom")
        }
    }

    @Test("S15 get and value give every reader the same, again and again")
    func readers() async throws {
        let rig = try Rig()
        let client = try rig.client()
        let handles = try HandlesOfEachState(rig, client, other: rig.client())
        rig.gate.open("pending")
        for (name, result) in handles.all {
            for _ in 0..<2 {
                let blocking = Self.ending { try result.get() }
                let awaiting: String
                do { awaiting = try await result.value } catch { awaiting = Self.name(of: error) }
                let expected = [
                    "pending": "pending", "value": "value", "failed": "RemoteError", "expired": "AsyncResultTimeout",
                    "cancelled": "CancellationError", "lost": "ConnectionError",
                ]
                #expect(blocking == expected[name])
                #expect(awaiting == expected[name])
            }
        }
        await client.close()
        rig.stop()
    }

    private static func name(of error: any Error) -> String { "\(type(of: error))" }

    private static func ending(_ body: () throws -> String) -> String {
        do { return try body() } catch { return self.name(of: error) }
    }

    @Test("A4 S16 S15 one completion releases every waiter: threads, tasks, other threads of other handles")
    func manyWaiters() throws {
        try withRig { (rig, client) throws in
            let values = Gathered<String>()
            let started = MonotonicClock.now()
            let result = try client.function(Job.sleep).async(0.5, "t")
            let tasks = (0..<8).map { _ in Task { values.add(try await result.value) } }
            // A thread that waits for something else doesn't matter.
            let other = try client.function(Job.gated).async("other")
            let distraction = try LoopThread.start(named: "distraction") { _ = try? other.wait() }
            let times = Gathered<UInt64>()
            try onThreads(8) { _ in
                do {
                    values.add(try result.get())
                    times.add(MonotonicClock.now() - started)
                } catch { Issue.record("\(error)") }
            }
            eventually("the tasks are served too") { values.count == 16 }
            #expect(values.values.allSatisfy { $0 == "t" })
            #expect(times.values.allSatisfy { $0 >= 500_000_000 })
            let slowest = Duration.nanoseconds(Int64(times.values.max() ?? 0))
            #expect(slowest <= .milliseconds(500) + scaled(.milliseconds(50)))
            rig.gate.open("other")
            expectEnd(of: [distraction])
            withExtendedLifetime(tasks) {}
        }
    }

    @Test("S17 who holds one handle's lock delays nobody on another handle")
    func separateLocks() throws {
        try withRig { (rig, client) throws in
            let gated = client.function(Job.gated)
            let (held, free) = (try gated.async("held"), try gated.async("free"))
            eventually("both run") { rig.gate.begun.count == 2 }
            let (isHeld, release) = (ReadySignal<Void>(), ReadySignal<Void>())
            let holder = try LoopThread.start(named: "holder") {
                _ = held.settle(.cancelled) {
                    _ = isHeld.set(())
                    release.wait()
                }
            }
            isHeld.wait()
            let done = Gathered<String>()
            let waiters = try (0..<4)
                .map { _ in
                    try LoopThread.start(named: "waiter") {
                        do { done.add(try free.get()) } catch { Issue.record("\(error)") }
                    }
                }
            let task = Task { done.add(try await free.value) }
            free.addCallback { done.add(try $0.get()) }
            #expect(free.setExpiry(.seconds(60)))
            #expect(try !free.wait(timeout: .milliseconds(20)))
            rig.gate.open("free")
            eventually("all who wait for the other handle are served") { done.count == 6 }
            #expect(!held.isTerminal)
            _ = release.set(())
            expectEnd(of: waiters + [holder])
            withExtendedLifetime(task) {}
        }
    }

    // MARK: Errors and values

    @Test("S18 every read throws an equal error with all its fields, from any thread")
    func freshErrors() throws {
        try withRig { (_, client) throws in
            let result = try client.function(Job.fail).async("boom")
            let first = try #require(#expect(throws: RemoteError.self) { try result.get() })
            #expect(first.code == .failed)
            #expect(first.type == "FixtureError")
            #expect(first.message == "boom")
            #expect(!first.trace.isEmpty)
            #expect(first.worker == "worker")
            #expect(first.function == "fail")
            #expect(first.correlationID == result.correlationID)
            let errors = Gathered<RemoteError>()
            try onThreads(4) { _ in
                for _ in 0..<100 {
                    do {
                        _ = try result.get()
                    } catch var error as RemoteError {
                        errors.add(error)
                        // Theirs to change; nobody else sees it.
                        error.message += "!"
                        error.trace += "!"
                    } catch { Issue.record("\(error)") }
                }
            }
            #expect(errors.count == 400)
            #expect(errors.values.allSatisfy { $0 == first })
        }
    }

    @Test("S20 a result stays readable after its client has closed")
    func lifetime() async throws {
        let rig = try Rig()
        let client = try rig.client()
        let value = try client.function(Job.bytes).async([1, 2, 3])
        let failed = try client.function(Job.fail).async("boom")
        #expect(try await value.value == [1, 2, 3])
        await #expect(throws: RemoteError.self) { try await failed.value }
        await client.close()
        rig.stop()
        #expect(value.outcome == .value([1, 2, 3]))
        #expect(try await value.value == [1, 2, 3])
        #expect(failed.hasError && failed.isReady)
        let error = await #expect(throws: RemoteError.self) { try await failed.value }
        #expect(error?.message == "boom")
        #expect(value.description.contains("bytes"))
    }

    @Test("A16 S21 S63 a worker's own timeout is a remote error; typed errors can be read from it")
    func fidelity() throws {
        try withRig { (_, client) throws in
            let timeout = try client.function(Job.failTimeout).async()
            let error = try #require(#expect(throws: RemoteError.self) { try timeout.get() })
            #expect(error.type == "AsyncResultTimeout")
            #expect(!timeout.hasExpired)
            #expect(timeout.isReady && timeout.hasError)
            do {
                _ = try timeout.get()
            } catch is AsyncResultTimeout {
                Issue.record("a remote timeout was caught as a local one")
            } catch {}
            let failed = try client.function(Job.fail).async("typed")
            let typed = try #require(#expect(throws: RemoteError.self) { try failed.get() })
            #expect(typed.decode(as: FixtureError.self) == FixtureError(message: "typed"))
            #expect(error.decode(as: FixtureError.self) == nil)
        }
    }

    @Test("S22 the description shows state, function, id, age and remaining time, without I/O")
    func describes() throws {
        try withRig { (rig, client) throws in
            let handles = try HandlesOfEachState(rig, client, other: rig.client())
            for (name, result) in handles.all {
                let text = result.description
                #expect(text.contains(" \(name),"), "\(text)")
                #expect(text.contains(result.functionName), "\(text)")
                #expect(text.contains("\(result.correlationID)"), "\(text)")
                #expect(text.contains(" old"), "\(text)")
                #expect(!text.contains("expires in"), "\(text)")
            }
            handles.pending.setExpiry(.seconds(1000))
            #expect(handles.pending.description.contains("expires in 16 min 39 s"), "\(handles.pending)")
            handles.pending.setExpiry(nil)
            #expect(!handles.pending.description.contains("expires in"), "\(handles.pending)")
        }
    }

    // MARK: Tasks

    @Test("S23 handles can be awaited in a task group, and read in the order in which they end")
    func awaiting() async throws {
        let rig = try Rig(concurrency: 8)
        let client = try rig.client()
        let echo = client.function(Job.echo)
        let sum = try await withThrowingTaskGroup(of: Int.self) { group in
            for number in 1...50 {
                let result = try echo.async(number)
                group.addTask { try await result.value }
            }
            return try await group.reduce(0, +)
        }
        #expect(sum == 1275)
        let names = ["a", "b", "c", "d", "e"]
        let gated = client.function(Job.gated)
        let results = try names.map { try gated.async($0) }
        let order = ["d", "b", "e", "a", "c"]
        var seen: [String] = []
        rig.gate.open(order[0])
        for await result in asCompleted(results) {
            seen.append(try await result.value)
            if seen.count < order.count { rig.gate.open(order[seen.count]) }
        }
        #expect(seen == order)
        // Failures are given like values, what has ended already too.
        let failed = try client.function("fail", ((String) -> String).self).async("boom")
        results[0].cancel()
        var states: Set<Bool> = []
        for await result in asCompleted([results[0], failed]) { states.insert(result.hasError) }
        #expect(states == [false, true])
        await client.close()
        rig.stop()
    }

    @Test("S24 a cancelled task stops waiting at once; handle, job and other waiters go on")
    func cancelledWaiter() async throws {
        let rig = try Rig()
        let client = try rig.client()
        let result = try client.function(Job.gated).async("a")
        try await becomesTrue("the handler runs") { rig.gate.begun == ["a"] }
        let cancelled = Task { try await result.value }
        let other = Task { try await result.value }
        cancelled.cancel()
        await #expect(throws: CancellationError.self) { try await cancelled.value }
        #expect(!result.isTerminal)
        #expect(result.outcome == nil)
        #expect(rig.cancelled.values.isEmpty)
        // One that was cancelled before it began to wait gives up too.
        let early = Task {
            while !Task.isCancelled { await Task.yield() }
            return try await result.value
        }
        early.cancel()
        await #expect(throws: CancellationError.self) { try await early.value }
        rig.gate.open("a")
        #expect(try await other.value == "a")
        #expect(try await result.value == "a")
        await client.close()
        rig.stop()
    }

    @Test("S24 the job is cancelled with its waiter if that was asked for")
    func cancelsWithWaiter() async throws {
        let rig = try Rig()
        let client = try rig.client()
        let result = try client.function(Job.gated, options: .init(cancelsWithWaiter: true)).async("b")
        try await becomesTrue("the handler runs") { rig.gate.begun == ["b"] }
        let waiter = Task { try await result.value }
        waiter.cancel()
        await #expect(throws: CancellationError.self) { try await waiter.value }
        #expect(result.outcome == .cancelled)
        try await becomesTrue("the handler saw it") { rig.cancelled.values == ["b"] }
        await client.close()
        rig.stop()
    }
}
