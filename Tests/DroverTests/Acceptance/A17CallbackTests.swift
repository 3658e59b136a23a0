// SPDX-License-Identifier: Apache-2.0

import DroverZMQ
import Foundation
import Logging
import Synchronization
import Testing

@testable import Drover

extension ServingTests {
    /// Contract section D: result callbacks.
    @Suite(.serialized, .tags(.acceptance), .timeLimit(.minutes(1)))
    struct CallbackTests {}
}

extension ServingTests.CallbackTests {
    // MARK: What runs, and how often

    @Test("A17 S42 S44 S50 callbacks run in order, once, with the handle, within 10 ms of the reply, nobody waiting")
    func order() throws {
        try withRig { (_, client) throws in
            try client.connectBlocking()
            try expectTime("the callbacks", atMost: .milliseconds(10), attempts: 5) {
                let result = try client.function(Job.stamp).async()
                let (order, handles) = (Gathered<String>(), Gathered<Bool>())
                let done = ReadySignal<UInt64>()
                result.addCallback {
                    order.add("f")
                    handles.add($0 === result)
                }
                result.addCallback {
                    order.add("g")
                    handles.add($0 === result)
                    _ = done.set(MonotonicClock.now())
                }
                let end = try #require(done.wait(until: MonotonicClock.deadline(after: .seconds(10))))
                #expect(order.values == ["f", "g"])
                #expect(handles.values == [true, true])
                return .nanoseconds(max(0, Int64(end) - Int64(try result.get())))
            }
        }
    }

    @Test("S42 S45 a variant is given a Result, for a value and for an error")
    func completion() throws {
        try withRig { (_, client) throws in
            let seen = Gathered<String>()
            let value = try client.function(Job.echo).async(4)
            value.onCompletion { seen.add("\(try $0.get())") }
            eventually("the value came") { seen.values == ["4"] }
            let failed = try client.function(Job.fail).async("boom")
            failed.addCallback { seen.add($0.hasError ? "error" : "value") }
            failed.onCompletion { result in
                if case .failure(let error as RemoteError) = result { seen.add(error.message) }
            }
            eventually("the error came") { seen.values == ["4", "error", "boom"] }
        }
    }

    @Test("S43 one closure registered twice runs twice; one that is removed does not run")
    func removal() throws {
        try withRig { (rig, client) throws in
            let calls = Gathered<String>()
            let result = try client.function(Job.gated).async("t")
            let twice: @Sendable (AsyncResult<String>) -> Void = { _ in calls.add("twice") }
            result.addCallback(twice)
            result.addCallback(twice)
            let removed = result.addCallback { _ in calls.add("removed") }
            let last = result.addCallback { _ in calls.add("last") }
            #expect(removed.remove())
            #expect(!removed.remove())
            rig.gate.open("t")
            eventually("the last ran") { calls.values.last == "last" }
            #expect(calls.values == ["twice", "twice", "last"])
            #expect(!last.remove())
        }
    }

    @Test("A19 S43 S56 executions equal registrations, whatever ends the calls meanwhile", .timeLimit(.minutes(2)))
    func registrationRace() throws {
        let rounds = setting("DROVER_CALLBACK_ROUNDS", isSanitized ? 10_000 : 100_000)
        try withRig(configure: { $0.maxOutstandingCalls = 2000 }) { (_, client) throws in
            let echo = client.function(Job.echo)
            let handles = Mutex<[AsyncResult<Int>]>([])
            let published = Atomic<Int>(0)
            let executions = Gathered<Int>()
            let registrations = Atomic<Int>(0)
            let count = Atomic<Int>(0)
            let isOff = Atomic<Bool>(false)
            try onThreads(4) { thread in
                if thread == 0 {
                    // This one makes the calls, and ends some of them in the other ways there are.
                    do {
                        for number in 0..<rounds {
                            var made: AsyncResult<Int>?
                            while made == nil {
                                do { made = try echo.async(number) } catch let error as ConnectionError
                                    where error.code == .backpressure
                                { usleep(50) }
                            }
                            guard let result = made else { return }
                            handles.withLock { $0.append(result) }
                            published.store(number + 1, ordering: .releasing)
                            switch number % 8 {
                            case 0: result.cancel()
                            case 1: result.setExpiry(.zero)
                            default: break
                            }
                        }
                    } catch {
                        Issue.record("\(error)")
                        isOff.store(true, ordering: .releasing)
                    }
                    return
                }
                var number = 0
                while number < rounds, !isOff.load(ordering: .acquiring) {
                    guard number < published.load(ordering: .acquiring) else {
                        sched_yield()
                        continue
                    }
                    // An array of its own: a slice would make each append copy all handles.
                    let batch = handles.withLock { Array($0[number...]) }
                    for result in batch {
                        result.addCallback { _ in count.add(1, ordering: .relaxed) }
                        registrations.add(1, ordering: .relaxed)
                    }
                    number += batch.count
                }
            }
            #expect(registrations.load(ordering: .relaxed) == 3 * rounds)
            eventually("all callbacks ran", within: .seconds(30)) { count.load(ordering: .relaxed) >= 3 * rounds }
            // One more than there should be would come before this.
            handles.withLock { $0.last }?.addCallback { _ in executions.add(0) }
            eventually("the last of all ran") { executions.count == 1 }
            #expect(count.load(ordering: .relaxed) == 3 * rounds)
        }
    }

    @Test("S46 callbacks run once in every terminal state, onReply for replies only")
    func everyState() async throws {
        let rig = try Rig()
        let client = try rig.client()
        let other = try rig.client()
        let gated = client.function(Job.gated)
        let results: [(String, AsyncResult<String>)] = [
            ("value", try gated.async("value")),
            ("failed", try client.function("fail", ((String) -> String).self).async("x")),
            ("expired", try gated.async("b")), ("cancelled", try gated.async("c")),
            ("lost", try other.function(Job.gated).async("d")),
        ]
        let (all, replies, completions) = (Gathered<String>(), Gathered<String>(), Gathered<String>())
        for (name, result) in results {
            result.addCallback { _ in all.add(name) }
            result.onReply { _ in replies.add(name) }
            result.onCompletion { _ in completions.add(name) }
        }
        rig.gate.open("value")
        results[2].1.setExpiry(.milliseconds(20))
        results[3].1.cancel()
        await other.close()
        try await becomesTrue("all have ended") { results.allSatisfy { $0.1.isTerminal } }
        await client.drainCallbacks()
        await other.drainCallbacks()
        #expect(all.values.sorted() == ["cancelled", "expired", "failed", "lost", "value"])
        #expect(completions.values.sorted() == all.values.sorted())
        #expect(replies.values.sorted() == ["failed", "value"])
        await client.close()
        rig.stop()
    }

    // MARK: Where and when they run

    @Test("A18 S47 a callback on a handle that has ended runs once, soon, on the callback executor, never inline")
    func alreadyTerminal() throws {
        try withRig { (rig, client) throws in
            let handles = try HandlesOfEachState(rig, client, other: rig.client())
            for (name, result) in handles.ended {
                let calls = Gathered<UInt>()
                try expectTime("a callback on \(name)", atMost: .milliseconds(50)) {
                    calls.removeAll()
                    let done = ReadySignal<UInt64>()
                    let started = MonotonicClock.now()
                    result.addCallback { _ in
                        calls.add(ThreadID.current.number)
                        _ = done.set(MonotonicClock.now())
                    }
                    let end = try #require(done.wait(until: MonotonicClock.deadline(after: .seconds(10))), "\(name)")
                    return .nanoseconds(Int64(end - started))
                }
                #expect(calls.count == 1)
                #expect(!calls.values.contains(ThreadID.current.number))
            }
        }
    }

    @Test("S48 a callback that is registered in a callback runs after it has returned")
    func nesting() throws {
        try withRig { (_, client) throws in
            let order = Gathered<String>()
            let result = try client.function(Job.echo).async(1)
            result.addCallback { result in
                order.add("begins")
                result.addCallback { result in
                    order.add("inner")
                    result.addCallback { _ in order.add("innermost") }
                }
                order.add("ends")
            }
            eventually("all ran") { order.count == 4 }
            #expect(order.values == ["begins", "ends", "inner", "innermost"])
        }
    }

    /// Runs work on a thread of its own, one after the other.
    private final class OwnExecutor: CallbackExecutor {
        private let work = Mutex<[@Sendable () -> Void]>([])
        private let isOver = Atomic<Bool>(false)
        let thread = ReadySignal<UInt>()

        func run(_ work: @escaping @Sendable () -> Void) { self.work.withLock { $0.append(work) } }

        func start() throws -> LoopThread {
            try LoopThread.start(named: "executor") {
                _ = self.thread.set(ThreadID.current.number)
                while !self.isOver.load(ordering: .acquiring) {
                    let next = self.work.withLock { $0.isEmpty ? nil : $0.removeFirst() }
                    if let next { next() } else { usleep(200) }
                }
            }
        }

        func stop() { self.isOver.store(true, ordering: .releasing) }
    }

    @Test("S49 callbacks run on the callback executor, whoever ends the call or registers")
    func thread() throws {
        let executor = OwnExecutor()
        let runner = try executor.start()
        for own in [false, true] {
            let (threads, pollers) = (Gathered<UInt>(), Gathered<UInt>())
            try withRig(configure: { if own { $0.callbackExecutor = executor } }) { (rig, client) throws in
                let note: @Sendable (AsyncResult<String>) -> Void = { _ in threads.add(ThreadID.current.number) }
                let gated = client.function(Job.gated)
                rig.gate.open("value")
                let value = try gated.async("value")
                value.addCallback(note)
                #expect(try value.get() == "value")
                value.addCallback(note)
                for end in [{ $0.setExpiry(.zero) }, { $0.cancel() }, { $0.setExpiry(.milliseconds(5)) }]
                    as [@Sendable (AsyncResult<String>) -> Bool]
                {
                    let result = try gated.async("t")
                    result.addCallback(note)
                    _ = end(result)
                }
                eventually("all ran") { threads.count == 5 }
                pollers.add(client.core.pollerThread.load(ordering: .relaxed))
            }
            #expect(Set(threads.values).count == 1)
            #expect(!threads.values.contains(ThreadID.current.number))
            #expect(Set(threads.values).isDisjoint(with: pollers.values))
            #expect(!pollers.values.contains(0))
            if own { #expect(threads.values.first == executor.thread.wait()) }
        }
        executor.stop()
        expectEnd(of: [runner])
    }

    @Test("S51 the state shows first, waiters wake while callbacks run; draining waits for them")
    func stateFirst() async throws {
        let rig = try Rig()
        let client = try rig.client()
        let result = try client.function(Job.gated).async("t")
        let (isInside, release) = (Gathered<Bool>(), ReadySignal<Void>())
        let drained = Gathered<Int>()
        let isDone = Gathered<Bool>()
        result.addCallback {
            isInside.add($0.isReady && $0.outcome == .value("t"))
            release.wait()
            isDone.add(true)
        }
        rig.gate.open("t")
        try await becomesTrue("the callback runs and sees the state") { isInside.values == [true] }
        // It holds nobody up.
        #expect(try await result.value == "t")
        #expect(try { try result.get() }() == "t")
        #expect(isDone.count == 0)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                await client.drainCallbacks()
                drained.add(isDone.count)
            }
            try await Task.sleep(for: .milliseconds(20))
            #expect(drained.count == 0)
            _ = release.set(())
            try await group.waitForAll()
        }
        #expect(drained.values == [1])
        await client.close()
        rig.stop()
    }

    @Test("A22 S52 in a callback the own value is immediate, and waiting for another handle works")
    func readingInside() throws {
        try withRig { (rig, client) throws in
            let times = Gathered<Duration>()
            let values = Gathered<String>()
            let other = try client.function(Job.gated).async("other")
            let result = try client.function(Job.gated).async("own")
            result.addCallback { result in
                times.add(try elapsed { values.add(try result.get()) })
                try result.wait()
                rig.gate.open("other")
                values.add(try other.get())
                values.add("\(try client.function(Job.echo).blocking(3))")
            }
            rig.gate.open("own")
            eventually("all was read") { values.count == 3 }
            #expect(values.values == ["own", "other", "3"])
            let time = times.values.first ?? .seconds(9)
            #expect(time < scaled(.milliseconds(5)), "reading the own value took \(time)")
        }
    }

    @Test("S52 blocking on the poller's thread is refused; it never hangs")
    func onPoller() throws {
        let endpoint = try ServingTests.ConnectionTests.unusedEndpoint()
        let pending = Mutex<AsyncResult<Int>?>(nil)
        let errors = Gathered<String>()
        let client = try Client.forTest(endpoint) { configuration in
            // A session's beginning is logged on the poller's thread.
            configuration.logger = .calling { _, line in
                guard line.hasPrefix("a session began"), let result = pending.withLock({ $0 }) else { return }
                for read in [
                    { try result.wait() }, { _ = try result.get() }, { _ = try result.wait(timeout: .seconds(9)) },
                ]
                    as [() throws -> Void]
                {
                    do {
                        try read()
                        errors.add("none")
                    } catch let error as UsageError { errors.add("\(error.code)") } catch { errors.add("\(error)") }
                }
            }
        }
        let result = try client.function(Job.echo).async(5)
        pending.withLock { $0 = result }
        let rig = try Rig(at: endpoint)
        #expect(try result.get() == 5)
        #expect(errors.values == ["wouldDeadlock", "wouldDeadlock", "wouldDeadlock"])
        pending.withLock { $0 = nil }
        client.closeBlocking()
        rig.stop()
    }

    // MARK: Callbacks that misbehave

    @Test("A20 S53 a callback's error is reported once; the others run, everybody is still served")
    func throwing() throws {
        let reports = Gathered<(String, CallbackErrorSource)>()
        try withRig(configure: { $0.onCallbackError = { reports.add(("\($0)", $1)) } }) { (rig, client) throws in
            let ran = Gathered<Int>()
            let result = try client.function(Job.gated).async("t")
            result.addCallback { _ in throw FixtureError(message: "from a callback") }
            result.addCallback { _ in ran.add(1) }
            rig.gate.open("t")
            eventually("the second ran") { ran.values == [1] }
            #expect(reports.count == 1)
            #expect(reports.values.first?.0 == "from a callback")
            #expect(reports.values.first?.1 == .result(function: "gated", correlationID: result.correlationID))
            #expect(try result.get() == "t")
            try onThreads(4) { thread in
                #expect(throws: Never.self) {
                    let next = try client.function(Job.echo).async(thread)
                    next.addCallback { _ in ran.add(2) }
                    #expect(try next.get() == thread)
                }
            }
            #expect(throws: AsyncResultTimeout.self) {
                try timed(client.function(Job.gated), .milliseconds(10))("u").get()
            }
            eventually("their callbacks ran") { ran.count == 5 }
            #expect(reports.count == 1)
        }
    }

    @Test("S53 by default a callback's error is logged with function and correlation id")
    func throwingIsLogged() throws {
        let lines = Gathered<String>()
        try withRig(configure: {
            $0.logger = .calling { level, line in if level >= .warning { lines.add(line) } }
        }) { (_, client) throws in
            let result = try client.function(Job.echo).async(1)
            result.addCallback { _ in throw FixtureError(message: "nobody asked") }
            eventually("it is logged") { lines.count == 1 }
            let line = try #require(lines.values.first)
            #expect(line.contains("nobody asked"), "\(line)")
            #expect(line.contains("drover.function=echo"), "\(line)")
            #expect(line.contains("drover.correlation_id=\(result.correlationID.rawValue)"), "\(line)")
        }
    }

    @Test("A21 S54 a slow callback delays later closures only: replies, waiters, deadlines, events go on")
    func slow() throws {
        try withRig { (rig, client) throws in
            let (isInside, release) = (ReadySignal<Void>(), ReadySignal<Void>())
            let later = Gathered<Int>()
            let result = try client.function(Job.echo).async(1)
            result.addCallback { _ in
                _ = isInside.set(())
                release.wait()
            }
            defer { _ = release.set(()) }
            isInside.wait()
            let echo = client.function(Job.echo)
            try expectTime("an echo beside it", atMost: .milliseconds(50)) {
                let times = Gathered<Duration>()
                try onThreads(1) { _ in
                    times.add(elapsed { #expect(throws: Never.self) { try echo.blocking(2) } })
                }
                return try #require(times.values.first)
            }
            try echo.async(3).addCallback { later.add(try $0.get()) }
            let expiring = try timed(client.function(Job.gated), .milliseconds(30))("t")
            #expect(throws: AsyncResultTimeout.self) { try expiring.get() }
            let events = Gathered<Int>()
            let callback = client.callback { (number: Int) in events.add(number) }
            #expect(try client.function(Job.tick).blocking(callback, 5, 0) == 5)
            #expect(client.statistics.events == 5)
            #expect(later.count == 0 && events.count == 0)
            _ = release.set(())
            eventually("what was held up runs") { later.values == [3] && events.isCounting(to: 5) }
            withExtendedLifetime(rig) {}
        }
    }

    @Test("S55 a callback may have another thread make a call, and join it")
    func crossThread() throws {
        try withRig { (_, client) throws in
            let values = Gathered<Int>()
            try client.function(Job.echo).async(1)
                .addCallback { _ in
                    let thread = try LoopThread.start(named: "inner") {
                        do { values.add(try client.function(Job.echo).blocking(2)) } catch { Issue.record("\(error)") }
                    }
                    thread.join()
                    values.add(3)
                }
            eventually("both are done") { values.values == [2, 3] }
        }
    }

    @Test("S57 closures are released when they have run, in every terminal state, or were removed")
    func retention() throws {
        try withRig(configure: { $0.onCallbackError = { _, _ in } }) { (rig, client) throws in
            let gated = client.function(Job.gated)
            let other = try rig.client()
            let handles: [(String, AsyncResult<String>)] = [
                ("value", try gated.async("value")), ("expired", try gated.async("b")),
                ("cancelled", try gated.async("c")), ("lost", try other.function(Job.gated).async("d")),
                ("failed", try client.function("fail", ((String) -> String).self).async("x")),
                ("removed", try gated.async("e")),
            ]
            var witnesses: [(String, WeakWitness)] = []
            for (name, result) in handles where name != "removed" {
                witnesses.append((name, Self.register(on: result, throws: false)))
                witnesses.append((name + ", throwing", Self.register(on: result, throws: true)))
            }
            #expect(witnesses.contains { !$0.1.isGone })
            witnesses.append(("removed", Self.registerAndRemove(on: handles[5].1)))
            rig.gate.open("value")
            handles[1].1.setExpiry(.milliseconds(10))
            handles[2].1.cancel()
            other.closeBlocking()
            for (name, witness) in witnesses { eventually("\(name) let go") { witness.isGone } }
            // One that is registered afterwards goes as well.
            let late = Self.register(on: handles[0].1, throws: false)
            eventually("the late one let go") { late.isGone }
            #expect(handles[5].1.outcome == nil)
        }
    }

    private static func register(on result: AsyncResult<String>, throws isThrowing: Bool) -> WeakWitness {
        let witness = Witness()
        result.addCallback { _ in
            try withExtendedLifetime(witness) {
                if isThrowing { throw FixtureError(message: "thrown") }
            }
        }
        return WeakWitness(witness)
    }

    private static func registerAndRemove(on result: AsyncResult<String>) -> WeakWitness {
        let witness = Witness()
        let token = result.addCallback { _ in withExtendedLifetime(witness) {} }
        #expect(token.remove())
        return WeakWitness(witness)
    }
}
