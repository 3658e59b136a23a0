// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverWire
import DroverZMQ
import Foundation
import Synchronization
import Testing

extension ServingTests {
    /// Contract section C: expiry.
    @Suite(.serialized, .tags(.acceptance), .timeLimit(.minutes(1)))
    struct ExpiryTests {}
}

extension ServingTests.ExpiryTests {
    // MARK: What is set

    @Test("S25 there is no limit unless the client has a default, for no way of calling")
    func defaultExpiry() async throws {
        let answer: @Sendable (RawMessage) -> [RawMessage] = {
            $0.kind == .request ? [RawMessage(.reply, id: $0.id, payload: Packed.value(1))] : []
        }
        for limit in [nil, Duration.seconds(60)] {
            let raw = try RawWorker(script: answer)
            let client = try Client.forTest(raw.endpoint) { $0.defaultExpiry = limit }
            let echo = client.function(Job.echo)
            let result = try echo.async(1)
            _ = try await result.value
            _ = try await echo(2)
            _ = try { try echo.blocking(3) }()
            _ = try await client.call(Job.echo, 4)
            #expect(raw.requests.count == 4)
            for request in raw.requests {
                if limit == nil {
                    #expect(request.header.time == Header.noTimeLimit)
                } else {
                    #expect((50_000...60_000).contains(request.header.time))
                }
            }
            await client.close()
            raw.stop()
        }
        // It is a real limit.
        let rig = try Rig()
        let client = try rig.client { $0.defaultExpiry = .milliseconds(50) }
        let gated = client.function(Job.gated)
        let result = try gated.async("a")
        await #expect(throws: AsyncResultTimeout.self) { try await result.value }
        await #expect(throws: AsyncResultTimeout.self) { try await gated("b") }
        #expect(throws: AsyncResultTimeout.self) { try { try gated.blocking("c") }() }
        // A call's own limit goes before it, none at all too.
        let free = try timed(gated, nil)("d")
        rig.gate.open("d")
        try await Task.sleep(for: .milliseconds(80))
        #expect(try await free.value == "d")
        await client.close()
        rig.stop()
    }

    @Test("A8 S26 an expiry counts from where it is set, not from the call")
    func origin() throws {
        try withRig { (_, client) throws in
            try expectTime("the expiry", atLeast: .milliseconds(800), atMost: .milliseconds(850)) {
                let started = MonotonicClock.now()
                let result = try client.function(Job.gated).async("t")
                block(for: .milliseconds(500))
                #expect(result.setExpiry(.milliseconds(300)))
                let error = #expect(throws: AsyncResultTimeout.self) { try result.wait() }
                #expect(error?.limit == .milliseconds(300))
                return .nanoseconds(Int64(MonotonicClock.now() - started))
            }
        }
    }

    @Test("S26 a deadline is a point in time, set on the handle or with the call")
    func deadline() async throws {
        let rig = try Rig()
        let client = try rig.client()
        let gated = client.function(Job.gated)
        try await expectTime("setDeadline", atLeast: .milliseconds(200), atMost: .milliseconds(250)) {
            let started = ContinuousClock.now
            let result = try gated.async("t")
            try await Task.sleep(for: .milliseconds(100))
            #expect(result.setDeadline(at: started + .milliseconds(200)))
            await #expect(throws: AsyncResultTimeout.self) { try await result.value }
            return ContinuousClock.now - started
        }
        try await expectTime("deadline of async", atLeast: .milliseconds(100), atMost: .milliseconds(150)) {
            let started = ContinuousClock.now
            let result = try gated.async("t", deadline: started + .milliseconds(100))
            await #expect(throws: AsyncResultTimeout.self) { try await result.value }
            return ContinuousClock.now - started
        }
        await expectTime("deadline of call", atLeast: .milliseconds(100), atMost: .milliseconds(150)) {
            let started = ContinuousClock.now
            await #expect(throws: AsyncResultTimeout.self) {
                try await client.call(Job.gated, "t", deadline: started + .milliseconds(100))
            }
            return ContinuousClock.now - started
        }
        // One that has passed counts as elapsed.
        let late = try gated.async("t", deadline: .now - .seconds(1))
        #expect(late.hasExpired)
        await client.close()
        rig.stop()
    }

    @Test("S27 S28 A9 a later setting replaces the earlier one; nil removes it")
    func replace() throws {
        try withRig { (rig, client) throws in
            let gated = client.function(Job.gated)
            try expectTime("the shorter one", atLeast: .milliseconds(100), atMost: .milliseconds(150)) {
                let result = try gated.async("t")
                #expect(result.setExpiry(.seconds(60)))
                return elapsed {
                    #expect(result.setExpiry(.milliseconds(100)))
                    #expect(throws: AsyncResultTimeout.self) { try result.wait() }
                }
            }
            try expectTime("the longer one", atLeast: .milliseconds(200), atMost: .milliseconds(250)) {
                let result = try gated.async("t")
                #expect(result.setExpiry(.milliseconds(150)))
                return elapsed {
                    #expect(result.setExpiry(.milliseconds(200)))
                    #expect(throws: AsyncResultTimeout.self) { try result.wait() }
                }
            }
            try expectTime("the value", atLeast: .milliseconds(500), atMost: .milliseconds(550)) {
                let started = MonotonicClock.now()
                let result = try client.function(Job.sleep).async(0.5, "t")
                #expect(result.setExpiry(.milliseconds(400)))
                block(for: .milliseconds(100))
                #expect(result.setExpiry(nil))
                #expect(try result.get() == "t")
                return .nanoseconds(Int64(MonotonicClock.now() - started))
            }
            withExtendedLifetime(rig) {}
        }
    }

    @Test("A10 A11 S29 S30 zero, a negative time and a past deadline expire a pending handle at once, no other")
    func elapsedLimits() throws {
        try withRig { (rig, client) throws in
            let gated = client.function(Job.gated)
            rig.gate.open("done")
            let limits: [@Sendable (AnyAsyncResult) -> Bool] = [
                { $0.setExpiry(.zero) }, { $0.setExpiry(.seconds(-1)) }, { $0.setExpiry(.nanoseconds(-1)) },
                { $0.setExpiry(.seconds(Int64.min)) }, { $0.setDeadline(at: .now - .seconds(5)) },
            ]
            for set in limits {
                let result = try gated.async("t")
                #expect(set(result))
                #expect(result.hasExpired && !result.isReady && !result.hasError)
                #expect(throws: AsyncResultTimeout.self) { try result.get() }
                let done = try gated.async("done")
                #expect(try done.get() == "done")
                #expect(!set(done))
                #expect(done.isReady && !done.hasExpired)
                #expect(try done.get() == "done")
            }
        }
    }

    @Test("A12 S31 no duration is too long: it means never")
    func huge() throws {
        try withRig { (rig, client) throws in
            let gated = client.function(Job.gated)
            let result = try client.function(Job.sleep).async(0.1, "t")
            #expect(result.setExpiry(.seconds(100 * 365 * 86_400)))
            try result.wait()
            #expect(try result.get() == "t")
            let longest = Duration(secondsComponent: Int64.max, attosecondsComponent: 999_999_999_999_999_999)
            for (number, limit) in [longest, .seconds(Int64.max), .seconds(Int64.max / 1_000_000_000)].enumerated() {
                let held = try gated.async("\(number)")
                #expect(held.setExpiry(limit))
                let other = try timed(gated, limit)("\(number)")
                let waited = ReadySignal<Bool>()
                let waiter = try LoopThread.start(named: "waiter") {
                    _ = waited.set((try? held.wait(timeout: limit)) ?? false)
                }
                #expect(try !held.wait(timeout: .milliseconds(20)))
                #expect(!other.isTerminal)
                rig.gate.open("\(number)")
                #expect(try held.get() == "\(number)")
                #expect(try other.get() == "\(number)")
                #expect(waited.wait())
                expectEnd(of: [waiter])
            }
        }
    }

    @Test("A13 S32 stepping the wall clock changes nothing; the wire carries the remaining time")
    func clock() throws {
        try withRawWorker { (raw, client) throws in
            let result = try timed(client.function(Job.echo), .seconds(100))(1)
            eventually("the request came") { raw.requests.count == 1 }
            let time = try #require(raw.requests.first).header.time
            #expect((90_000...100_000).contains(time), "\(time) ms were left")
            result.cancel()
        }
        // A library before the C library's lies to another process about its wall clock.
        guard !isSanitized else { return }
        let folder = FileManager.default.temporaryDirectory.appending(path: "drover-clock-\(getpid())")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let library = try SteppedClock.build(in: folder)
        let process = try WorkerProcess(arguments: ["clock"], environment: ["LD_PRELOAD": library])
        let (status, _) = process.waitForExit()
        eventually("the process said all") { process.printed.contains("over") }
        #expect(status == 0)
        #expect(process.printed.contains("wall clock stepped by 1000 s"), "\(process.printed)")
        #expect(process.printed.contains("of 100 s: pending"), "\(process.printed)")
        #expect(process.printed.contains("of 0.3 s: right"), "\(process.printed)")
        #expect(process.printed.contains("of 0.3 s, stepped back: right"), "\(process.printed)")
        #expect(process.printed.contains("value: done"), "\(process.printed)")
    }

    // MARK: The transition

    @Test("A5 A6 A7 S33 at the deadline waiters, tasks and callbacks learn of it; later reads throw at once")
    func atDeadline() throws {
        try withRig { (_, client) throws in
            try expectTime("the expiry", atLeast: .milliseconds(300), atMost: .milliseconds(350)) {
                let result = try client.function(Job.gated).async("t")
                let called = Gathered<(UInt64, Bool)>()
                result.addCallback { called.add((MonotonicClock.now(), $0.hasExpired)) }
                let task = Task { try await result.value }
                let started = MonotonicClock.now()
                let time = elapsed {
                    result.setExpiry(.milliseconds(300))
                    #expect(throws: AsyncResultTimeout.self) { try result.wait() }
                }
                #expect(result.hasExpired && !result.isReady && !result.hasError)
                expectTime("reading what has expired", atMost: .milliseconds(5)) {
                    elapsed {
                        #expect(throws: AsyncResultTimeout.self) { try result.wait() }
                        #expect(throws: AsyncResultTimeout.self) { try result.get() }
                        #expect(throws: AsyncResultTimeout.self) { try result.wait(timeout: .seconds(9)) }
                    }
                }
                eventually("the callback ran") { called.count == 1 }
                let (at, sawExpired) = try #require(called.values.first)
                #expect(sawExpired)
                #expect(at - started >= 300_000_000)
                let told = Gathered<Bool>()
                Task { if case .failure(let error) = await task.result { told.add(error is AsyncResultTimeout) } }
                eventually("the task was told") { told.values == [true] }
                #expect(called.count == 1)
                return max(time, .nanoseconds(Int64(at - started)))
            }
        }
    }

    @Test("S33 on an idle machine the timer is at most 20 ms late")
    func precision() throws {
        try withRig { (_, client) throws in
            let gated = client.function(Job.gated)
            for limit in [1, 7, 30, 120] {
                try expectTime(
                    "\(limit) ms",
                    atLeast: .milliseconds(limit),
                    atMost: .milliseconds(limit + 20),
                    attempts: 5
                ) {
                    let done = ReadySignal<UInt64>()
                    let started = MonotonicClock.now()
                    let result = try timed(gated, .milliseconds(limit))("t")
                    // Nobody waits: the poller does it by itself.
                    result.addCallback { _ in _ = done.set(MonotonicClock.now()) }
                    return .nanoseconds(Int64(done.wait() - started))
                }
            }
        }
    }

    @Test("S34 S33 the deadline holds whatever the peer sends and whatever callbacks do")
    func overshoot() throws {
        try withRawWorker { (raw, client) throws in
            let release = ReadySignal<Void>()
            defer { _ = release.set(()) }
            let (callbackRuns, callbackThread) = (ReadySignal<Void>(), ReadySignal<UInt>())
            let blocked = try client.function(Job.echo).async(1)
            blocked.addCallback { _ in
                _ = callbackRuns.set(())
                release.wait()
            }
            blocked.cancel()
            callbackRuns.wait()
            let isOver = Atomic<Bool>(false)
            try expectTime("the expiry", atLeast: .milliseconds(200), atMost: .milliseconds(250)) {
                isOver.store(false, ordering: .relaxed)
                let started = MonotonicClock.now()
                let result = try timed(client.function(Job.echo), .milliseconds(200))(2)
                result.addCallback { _ in _ = callbackThread.set(ThreadID.current.number) }
                let id = result.correlationID.rawValue
                let sender = try LoopThread.start(named: "sender") {
                    while !isOver.load(ordering: .relaxed) {
                        raw.send(
                            RawMessage(.accepted, id: id),
                            RawMessage(.started, id: id),
                            RawMessage(.reply, id: 1 << 40, payload: Packed.value(1))
                        )
                        usleep(100)
                    }
                }
                #expect(throws: AsyncResultTimeout.self) { try result.wait() }
                let time = Duration.nanoseconds(Int64(MonotonicClock.now() - started))
                isOver.store(true, ordering: .relaxed)
                expectEnd(of: [sender])
                return time
            }
            // User code ran on no waiter's thread.
            #expect(callbackThread.current == nil)
            _ = release.set(())
            #expect(callbackThread.wait() != ThreadID.current.number)
        }
    }

    @Test("A43 an event's callback that sleeps delays no expiry")
    func besideEvents() throws {
        try withRig { (rig, client) throws in
            let isInside = ReadySignal<Void>()
            let (release, events) = (ReadySignal<Void>(), Gathered<Int>())
            let callback = client.callback { (number: Int) in
                _ = isInside.set(())
                // A second, or longer on a slow machine.
                _ = release.wait(until: MonotonicClock.deadline(after: .seconds(20)))
                events.add(number)
            }
            let ticking = try client.function(Job.tick).async(callback, 1, 0)
            isInside.wait()
            try expectTime("the expiry", atLeast: .milliseconds(300), atMost: .milliseconds(350)) {
                let result = try client.function(Job.gated).async("t")
                return elapsed {
                    result.setExpiry(.milliseconds(300))
                    #expect(throws: AsyncResultTimeout.self) { try result.wait() }
                }
            }
            #expect(events.count == 0)
            _ = release.set(())
            #expect(try ticking.get() == 1)
            eventually("the event is handled") { events.values == [0] }
            withExtendedLifetime(rig) {}
        }
    }

    @Test("S35 the arrival decides: before the deadline the reply wins, whenever anybody looks, after it never")
    func replyOrExpiry() throws {
        let rig = try Rig()
        let client = try rig.client { $0.startsPoller = false }
        let poller = try BackgroundPoller(serving: client)
        let gated = client.function(Job.gated)
        rig.gate.open("early")
        // The callback executor is busy until long after the deadline.
        let release = ReadySignal<Void>()
        let holding = try gated.async("early")
        holding.addCallback { _ in release.wait() }
        let early = try timed(gated, .seconds(5))("early")
        #expect(try early.wait(timeout: .seconds(5)))
        early.setExpiry(.milliseconds(1))
        let seen = Gathered<Bool>()
        early.addCallback { seen.add($0.hasExpired) }
        block(for: .milliseconds(50))
        #expect(early.outcome == .value("early"))
        _ = release.set(())
        eventually("the callback saw the value") { seen.values == [false] }

        // This one's reply waits in the socket, while no poller takes it, until its deadline has passed.
        let late = try timed(gated, .milliseconds(300))("late")
        eventually("the handler runs") { rig.gate.begun.contains("late") }
        #expect(poller.stop())
        rig.gate.open("late")
        eventually("it has answered") { rig.log.values.contains("late") }
        block(for: .milliseconds(400))
        #expect(!late.isTerminal)
        try poller.start()
        #expect(throws: AsyncResultTimeout.self) { try late.get() }
        #expect(late.hasExpired)
        client.closeBlocking()
        rig.stop()
    }

    @Test("S36 A10 a handle that has ended never expires: setExpiry says so and changes nothing")
    func completedFirst() throws {
        try withRig { (rig, client) throws in
            let handles = try HandlesOfEachState(rig, client, other: rig.client())
            for (name, result) in handles.ended {
                let before = result.outcome
                for limit in [nil, .zero, .seconds(-1), .nanoseconds(1), .seconds(60)] as [Duration?] {
                    #expect(!result.setExpiry(limit), "\(name)")
                }
                #expect(!result.setDeadline(at: .now))
                #expect(!result.setDeadline(at: .now + .seconds(1)))
                block(for: .milliseconds(5))
                #expect(result.outcome == before, "\(name)")
            }
            #expect(handles.pending.setExpiry(.seconds(60)))
            #expect(handles.pending.setExpiry(nil))
            #expect(handles.pending.setDeadline(at: .now + .seconds(60)))
            #expect(handles.pending.setExpiry(.zero))
            #expect(handles.pending.hasExpired)
        }
    }

    @Test("S37 a late reply is counted and told to the hook; the handle and its callbacks don't notice")
    func lateReply() throws {
        let late = Gathered<LateReply>()
        try withRawWorker(configure: { $0.onLateReply = { late.add($0) } }) { (raw, client) throws in
            let result = try timed(client.function(Job.echo), .milliseconds(100))(1)
            let calls = Gathered<Bool>()
            let witness = WeakWitness(Self.register(on: result, calls))
            eventually("the request came") { raw.requests.count == 1 }
            #expect(throws: AsyncResultTimeout.self) { try result.get() }
            let before = result.outcome
            eventually("the callback was released before the reply comes") { calls.count == 1 && witness.isGone }
            block(for: .milliseconds(50))
            raw.send(RawMessage(.reply, id: result.correlationID.rawValue, payload: Packed.value(1)))
            eventually("the hook was told") { late.count == 1 }
            let told = try #require(late.values.first)
            #expect(told.correlationID == result.correlationID)
            #expect(told.function == "echo")
            #expect(told.lateness >= .milliseconds(50) && told.lateness < .seconds(10), "\(told.lateness)")
            #expect(client.statistics.lateReplies == 1)
            #expect(result.outcome == before)
            #expect(result.hasExpired && calls.count == 1)
        }
    }

    private static func register(on result: AsyncResult<Int>, _ calls: Gathered<Bool>) -> Witness {
        let witness = Witness()
        result.addCallback {
            withExtendedLifetime(witness) {}
            calls.add($0.hasExpired)
        }
        return witness
    }

    @Test("S38 expired is final")
    func final() throws {
        try withRig { (rig, client) throws in
            let result = try client.function(Job.gated).async("t")
            result.setExpiry(.zero)
            let before = result.outcome
            #expect(!result.setExpiry(.seconds(60)))
            #expect(!result.setExpiry(nil))
            #expect(!result.setDeadline(at: .now + .seconds(60)))
            #expect(!result.cancel())
            rig.gate.open("t")
            // Whatever came for it came before this answer.
            #expect(try client.function(Job.gated).blocking("t") == "t")
            #expect(result.outcome == before)
            #expect(result.hasExpired && !result.isReady)
            #expect(throws: AsyncResultTimeout.self) { try result.get() }
        }
    }

    @Test("S39 a change of the expiry takes effect on waits in progress, at once")
    func whileWaiting() throws {
        try withRig { (_, client) throws in
            let gated = client.function(Job.gated)
            func waited(_ change: (AsyncResult<String>) -> Void) throws -> Duration {
                let result = try gated.async("t")
                let isOver = ReadySignal<UInt64>()
                result.setExpiry(.milliseconds(300))
                let started = MonotonicClock.now()
                let waiter = try LoopThread.start(named: "waiter") {
                    #expect(throws: AsyncResultTimeout.self) { try result.wait() }
                    _ = isOver.set(MonotonicClock.now())
                }
                block(for: .milliseconds(100))
                change(result)
                let end = isOver.wait()
                expectEnd(of: [waiter])
                return .nanoseconds(Int64(end - started))
            }
            try expectTime("shortened", atLeast: .milliseconds(150), atMost: .milliseconds(200)) {
                try waited { $0.setExpiry(.milliseconds(50)) }
            }
            try expectTime("ended at once", atLeast: .milliseconds(100), atMost: .milliseconds(150)) {
                try waited { $0.setExpiry(.zero) }
            }
            try expectTime("lengthened", atLeast: .milliseconds(500), atMost: .milliseconds(550)) {
                try waited { $0.setExpiry(.milliseconds(400)) }
            }
        }
    }

    // MARK: The worker's side

    @Test("S40 S61 the worker drops a job that lapsed unstarted, and cancels a running one")
    func job() throws {
        try withRig(concurrency: 1) { (rig, client) throws in
            let gated = client.function(Job.gated)
            let running = try timed(gated, .milliseconds(300))("running")
            eventually("it runs") { rig.gate.begun == ["running"] }
            let queued = try timed(gated, .milliseconds(100))("queued")
            #expect(throws: AsyncResultTimeout.self) { try queued.get() }
            #expect(throws: AsyncResultTimeout.self) { try running.get() }
            eventually("the running one saw its cancellation") { rig.cancelled.values == ["running"] }
            #expect(try client.function(Job.report).blocking(0) == 0)
            #expect(rig.gate.begun == ["running"])
            eventually("the other is counted") { rig.running.status.dropped == 1 }
            #expect(rig.log.values.isEmpty)
        }
    }

    @Test("S40 the handler can see how much time is left")
    func remainingTime() throws {
        let worker = Worker(
            concurrency: 1,
            configuration: {
                var configuration = WorkerConfiguration()
                configuration.logger = .quiet
                return configuration
            }()
        )
        let remaining = Function<Double>("remaining")
        worker.register(remaining) { (context: JobContext) -> Double in
            context.remainingTime.map { $0 / .seconds(1) } ?? -1
        }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        let client = try Client.forTest(running.endpoint)
        #expect(try client.function(remaining).blocking() == -1)
        let left = try timed(client.function(remaining), .seconds(100))().get()
        #expect((50...100).contains(left))
        client.closeBlocking()
        running.stopBlocking(grace: .zero)
    }

    @Test("S41 the table's entry goes with the transition; a reply that comes then is known as late")
    func tableEntry() throws {
        try withRawWorker { (raw, client) throws in
            let echo = client.function(Job.echo)
            let results = try (0..<100).map { try timed(echo, .milliseconds($0 < 50 ? 1000 : 60_000))($0) }
            eventually("the requests came") { raw.requests.count == 100 }
            eventually("all are in the table") { client.statistics.tableEntriesNow == 100 }
            for result in results.prefix(50) { #expect(throws: AsyncResultTimeout.self) { try result.get() } }
            eventually("half the entries are gone") {
                client.statistics.tableEntriesNow == 50 && client.statistics.timersNow <= 52
            }
            for result in results.suffix(50) { result.setExpiry(.zero) }
            eventually("all entries are gone") { client.statistics.tableEntriesNow == 0 }
            for result in results {
                raw.send(RawMessage(.reply, id: result.correlationID.rawValue, payload: Packed.value(1)))
            }
            raw.send(RawMessage(.reply, id: 1 << 40, payload: Packed.value(1)))
            eventually("all are counted") {
                client.statistics.lateReplies == 100 && client.statistics.unknownReplies == 1
            }
            #expect(results.allSatisfy { $0.hasExpired })
        }
    }
}

/// A library that is loaded before the C library and adds to its wall clock.
private enum SteppedClock {
    private static let source = """
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <sys/time.h>
        #include <time.h>
        static volatile long step;
        void drover_step_clock(long seconds) { step = seconds; }
        int clock_gettime(clockid_t clock, struct timespec *at) {
            static int (*next)(clockid_t, struct timespec *);
            if (!next) next = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
            int result = next(clock, at);
            if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) at->tv_sec += step;
            return result;
        }
        int gettimeofday(struct timeval *at, void *zone) {
            struct timespec now;
            (void)zone;
            clock_gettime(CLOCK_REALTIME, &now);
            at->tv_sec = now.tv_sec;
            at->tv_usec = now.tv_nsec / 1000;
            return 0;
        }
        time_t time(time_t *at) {
            struct timespec now;
            clock_gettime(CLOCK_REALTIME, &now);
            if (at) *at = now.tv_sec;
            return now.tv_sec;
        }
        """

    /// Builds the library.
    ///
    /// - Returns: Its path.
    static func build(in folder: URL) throws -> String {
        let (file, library) = (folder.appending(path: "clock.c"), folder.appending(path: "clock.so"))
        try self.source.write(to: file, atomically: true, encoding: .utf8)
        let compiler = Process()
        compiler.executableURL = URL(filePath: "/usr/bin/env")
        compiler.arguments = ["clang", "-shared", "-fPIC", "-o", library.path, file.path, "-ldl"]
        try compiler.run()
        compiler.waitUntilExit()
        try #require(compiler.terminationStatus == 0)
        return library.path
    }
}
