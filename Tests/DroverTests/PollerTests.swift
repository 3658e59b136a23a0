// SPDX-License-Identifier: Apache-2.0

import DroverWire
import DroverZMQ
import Foundation
import Synchronization
import Testing

@testable import Drover

/// Everything that is proved over sockets with a clock: one test after the other, or they would disturb each other.
@Suite(.serialized)
struct ServingTests {}

extension ServingTests {
    /// Contract section F: the background poller.
    @Suite(.serialized)
    struct PollerTests {}
}

extension ServingTests.PollerTests {
    @Test("S64 a client starts its poller itself, or leaves that to a BackgroundPoller", .timeLimit(.minutes(1)))
    func start() throws {
        let rig = try Rig()
        let client = try rig.client()
        #expect(try client.function(Job.echo).blocking(5) == 5)

        let own = try rig.client { $0.startsPoller = false }
        let result = try own.function(Job.echo).async(6)
        #expect(throws: UsageError.self) { try result.wait() }
        #expect(!result.isTerminal)
        let poller = try BackgroundPoller(serving: own)
        #expect(poller.isRunning)
        #expect(try result.get() == 6)
        client.closeBlocking()
        own.closeBlocking()
        rig.stop()
    }

    @Test("S65 replies, expiries and events are handled while the program blocks elsewhere", .timeLimit(.minutes(1)))
    func purpose() throws {
        let rig = try Rig()
        let client = try rig.client()
        let (replied, expired, event) = (ReadySignal<Int>(), ReadySignal<Bool>(), ReadySignal<Int>())
        try client.function(Job.echo).async(3).onCompletion { _ = replied.set(try $0.get()) }
        let sleeping = try client.function(Job.sleep).async(0.5, "long")
        sleeping.setExpiry(.milliseconds(50))
        sleeping.addCallback { _ = expired.set($0.hasExpired) }
        let callback = client.callback { (number: Int) in _ = event.set(number) }
        _ = try client.function(Job.tick).async(callback, 1, 0)
        // From here on this thread uses the client no more: it sleeps in the kernel.
        let limit = MonotonicClock.deadline(after: .seconds(10))
        #expect(replied.wait(until: limit) == 3)
        #expect(expired.wait(until: limit) == true)
        #expect(event.wait(until: limit) == 0)
        client.closeBlocking()
        rig.stop()
    }

    @Test("S66 a reply reaches its callback in under 1 ms at the median, under 10 ms at p99", .timeLimit(.minutes(1)))
    func latency() throws {
        let rig = try Rig()
        let client = try rig.client()
        let stamp = client.function(Job.stamp)
        var latencies: [UInt64] = []
        for round in 0..<600 {
            let done = ReadySignal<Result<UInt64, any Error>>()
            try stamp.async().onCompletion { answer in _ = done.set(answer.map { Clock.now() - $0 }) }
            let latency = try #require(done.wait(until: MonotonicClock.deadline(after: .seconds(10)))).get()
            if round >= 100 { latencies.append(latency) }
        }
        latencies.sort()
        let (median, late) = (latencies[250], latencies[495])
        #expect(median < (isSanitized ? 5_000_000 : 1_000_000), "p50 is \(median) ns")
        #expect(late < (isSanitized ? 50_000_000 : 10_000_000), "p99 is \(late) ns")
        client.closeBlocking()
        rig.stop()
    }

    @Test("S66 an idle client uses no processor time", .timeLimit(.minutes(1)))
    func idle() throws {
        let rig = try Rig {
            $0.heartbeatInterval = .seconds(2)
            $0.silenceLimit = .seconds(6)
        }
        let poller = ReadySignal<Int>()
        let client = try rig.client {
            $0.heartbeatInterval = .seconds(2)
            $0.silenceLimit = .seconds(6)
            // A session's beginning is logged on the poller's thread.
            $0.logger = .calling { _, line in if line.hasPrefix("a session began") { _ = poller.set(kernelThreadID()) }
            }
        }
        #expect(try client.function(Job.echo).blocking(1) == 1)
        let thread = poller.wait()
        let before = try Self.processorTime(of: thread)
        block(for: .seconds(1))
        let used = try Self.processorTime(of: thread) - before
        #expect(used < (isSanitized ? 20_000_000 : 2_000_000), "the idle poller used \(used) ns in a second")
        client.closeBlocking()
        rig.stop()
    }

    /// What a thread of this process has run, in nanoseconds.
    private static func processorTime(of thread: Int) throws -> Int {
        let text = try String(contentsOfFile: "/proc/self/task/\(thread)/schedstat", encoding: .utf8)
        return try #require(text.split(separator: " ").first.flatMap { Int($0) })
    }

    @Test("S67 no callback runs on a thread that makes calls", .timeLimit(.minutes(1)))
    func eventThread() throws {
        let rig = try Rig()
        let client = try rig.client()
        let callers = Gathered<UInt>()
        let runners = Gathered<UInt>()
        let callback = client.callback(.init(lifetime: .untilCancelled)) { (_: Int) in
            runners.add(ThreadID.current.number)
        }
        try onThreads(4) { _ in
            callers.add(ThreadID.current.number)
            do {
                for number in 0..<200 {
                    let result = try client.function(Job.echo).async(number)
                    result.addCallback { _ in runners.add(ThreadID.current.number) }
                    if number % 20 == 0 { _ = try client.function(Job.tick).async(callback, 3, 0) }
                    #expect(try result.get() == number)
                    // On a handle that has ended as well.
                    result.addCallback { _ in runners.add(ThreadID.current.number) }
                }
            } catch { Issue.record("\(error)") }
        }
        eventually("all callbacks ran") { runners.count == 4 * 200 * 2 + 4 * 10 * 3 }
        #expect(Set(runners.values).isDisjoint(with: callers.values))
        #expect(Set(runners.values).count == 1)
        client.closeBlocking()
        rig.stop()
    }

    @Test(
        "S68 stop returns after the poller has left; calls stay pending and are served by the next",
        .timeLimit(.minutes(1))
    )
    func stop() throws {
        let rig = try Rig()
        let client = try rig.client { $0.startsPoller = false }
        let poller = try BackgroundPoller(serving: client)
        let result = try client.function(Job.gated).async("a")
        eventually("the handler runs") { rig.gate.begun == ["a"] }
        let waiterError = ReadySignal<String>()
        let isWaiting = ReadySignal<Void>()
        let waiter = try LoopThread.start(named: "waiter") {
            _ = isWaiting.set(())
            do {
                try result.wait()
                _ = waiterError.set("none")
            } catch let error as UsageError { _ = waiterError.set("\(error.code)") } catch {
                _ = waiterError.set("\(error)")
            }
        }
        isWaiting.wait()
        #expect(poller.stop())
        #expect(!poller.isRunning)
        #expect(poller.stop(grace: .seconds(1)))
        #expect(waiterError.wait() == "notRunning")
        waiter.join()
        #expect(!result.isTerminal)
        #expect(throws: UsageError.self) { try result.get() }
        #expect(throws: UsageError.self) { _ = try result.wait(timeout: .milliseconds(10)) }
        let queued = try client.function(Job.echo).async(9)
        rig.gate.open("a")
        try poller.start()
        #expect(try queued.get() == 9)
        #expect(try result.get() == "a")
        client.closeBlocking()
        rig.stop()
    }

    @Test("S2 S66 a lone call is sent by its caller while the poller sleeps", .timeLimit(.minutes(1)))
    func loneCalls() throws {
        let rig = try Rig()
        let client = try rig.client { $0.spinLimit = .zero }
        let echo = client.function(Job.echo)
        for number in 0..<500 { #expect(try echo.blocking(number) == number) }
        #expect(client.core.counters.sentByCallers.current > 0)
        client.closeBlocking()
        rig.stop()
    }

    @Test("S2 S66 lone calls end whether or not the poller looks out for them", .timeLimit(.minutes(1)))
    func loneCallsWithPauses() throws {
        let rig = try Rig()
        let client = try rig.client()
        let echo = client.function(Job.echo)
        for number in 0..<300 {
            #expect(try echo.blocking(number) == number)
            // Sometimes the poller waits in vain, and is asleep when the next call comes.
            if number % 10 == 0 { usleep(1000) }
        }
        client.closeBlocking()
        rig.stop()
        #expect(throws: UsageError.self) { try rig.client { $0.spinLimit = .seconds(1) } }
        #expect(throws: UsageError.self) { try rig.client { $0.spinLimit = .milliseconds(-1) } }
    }

    @Test("S68 lone calls that meet the poller's stops and starts end all the same", .timeLimit(.minutes(1)))
    func loneCallsAndStops() throws {
        let rig = try Rig()
        let client = try rig.client {
            $0.startsPoller = false
            $0.spinLimit = .zero
        }
        let poller = try BackgroundPoller(serving: client)
        let isOver = Atomic<Bool>(false)
        let served = Atomic<Int>(0)
        let callers = try (0..<2)
            .map { _ in
                try LoopThread.start(named: "caller") {
                    let echo = client.function(Job.echo)
                    while !isOver.load(ordering: .relaxed) {
                        do {
                            let result = try echo.async(1)
                            do {
                                if try result.get() == 1 { served.add(1, ordering: .relaxed) }
                            } catch is UsageError {
                                // Stopped meanwhile: the next poller serves it.
                                continue
                            }
                        } catch { Issue.record("\(error)") }
                    }
                }
            }
        for _ in 0..<30 {
            let before = served.load(ordering: .relaxed)
            eventually("calls are served") { served.load(ordering: .relaxed) > before }
            #expect(poller.stop())
            try poller.start()
        }
        isOver.store(true, ordering: .relaxed)
        expectEnd(of: callers)
        eventually("no call is left") { client.statistics.outstandingNow == 0 }
        client.closeBlocking()
        rig.stop()
    }

    @Test("S68 stop is bounded by its grace", .timeLimit(.minutes(1)))
    func stopGrace() throws {
        let rig = try Rig()
        let client = try rig.client { $0.startsPoller = false }
        let poller = try BackgroundPoller(serving: client)
        #expect(try client.function(Job.echo).blocking(1) == 1)
        #expect(elapsed { poller.stop(grace: .milliseconds(500)) } < .milliseconds(700))
        client.closeBlocking()
        rig.stop()
    }

    @Test("S69 stopping again, after a close or after a loss, does nothing", .timeLimit(.minutes(1)))
    func stopAgain() throws {
        let raw = try RawWorker()
        let client = try Client.forTest(raw.endpoint)
        let poller = try BackgroundPoller(serving: client)
        let result = try client.function(Job.echo).async(1)
        eventually("the request came") { raw.requests.count == 1 }
        raw.stop()
        eventually("the call is lost") { result.isTerminal }
        #expect(poller.stop())
        #expect(poller.stop())
        client.closeBlocking()
        #expect(poller.stop())
        #expect(!poller.isRunning)
        #expect(throws: ConnectionError.self) { try poller.start() }
    }

    @Test("S70 stop in a callback signals and does not join", .timeLimit(.minutes(1)))
    func stopInCallback() throws {
        let rig = try Rig()
        let client = try rig.client { $0.startsPoller = false }
        let poller = try BackgroundPoller(serving: client)
        let duration = ReadySignal<Duration>()
        try client.function(Job.echo).async(1).addCallback { _ in _ = duration.set(elapsed { poller.stop() }) }
        #expect(try #require(duration.wait(until: MonotonicClock.deadline(after: .seconds(5)))) < .milliseconds(100))
        eventually("the poller has left") { poller.stop(grace: .seconds(1)) }
        try poller.start()
        #expect(try client.function(Job.echo).blocking(2) == 2)
        client.closeBlocking()
        rig.stop()
    }

    @Test("S71 onDisconnect runs on the callback executor, and the poller reconnects", .timeLimit(.minutes(1)))
    func connectionDeath() throws {
        let rig = try Rig()
        let endpoint = rig.endpoint
        let threads = Gathered<UInt>()
        let disconnections = Gathered<Disconnection>()
        let client = try rig.client {
            $0.onDisconnect = { disconnection in
                threads.add(ThreadID.current.number)
                disconnections.add(disconnection)
            }
        }
        try client.function(Job.echo).async(1).addCallback { _ in threads.add(ThreadID.current.number) }
        let pending = try client.function(Job.gated).async("never")
        eventually("the handler runs") { rig.gate.begun == ["never"] }
        rig.stop()
        eventually("the loss is told") { disconnections.count == 1 }
        let reason = try #require(disconnections.values.first)
        #expect(reason.error.code == .lost)
        #expect(reason.error.message.contains(endpoint))
        #expect(reason.endpoint.address == endpoint)
        eventually("the call is lost") { pending.isTerminal }
        #expect(Set(threads.values).count == 1)

        let second = try Rig(at: endpoint)
        #expect(try client.function(Job.echo).blocking(2) == 2)
        client.closeBlocking()
        second.stop()
    }

    @Test("S72 there is one poller per client", .timeLimit(.minutes(1)))
    func several() throws {
        let rig = try Rig()
        let sessions = Gathered<Int>()
        let client = try rig.client {
            $0.logger = .calling { _, line in if line.hasPrefix("a session began") { sessions.add(kernelThreadID()) } }
        }
        let one = try BackgroundPoller(serving: client)
        let other = try BackgroundPoller(serving: client)
        #expect(try client.function(Job.echo).blocking(1) == 1)
        #expect(one.isRunning && other.isRunning)
        #expect(sessions.count == 1)
        #expect(rig.running.status.clients == 1)
        other.stop()
        #expect(!one.isRunning)
        client.closeBlocking()
        rig.stop()
    }

    @Test("S73 malformed input is counted and costs at most the one call that it names", .timeLimit(.minutes(1)))
    func malformed() throws {
        let raw = try RawWorker { message in
            guard message.kind == .request else { return [] }
            guard let number = try? message.value(as: [Int].self).first else { return [] }
            switch number {
            // A text where a number was promised; a frame cut short; a content type that nobody knows.
            case 1: return [RawMessage(.reply, id: message.id, payload: Packed.value("text"))]
            case 2: return [RawMessage(.reply, id: message.id, payload: [0xC1])]
            case 3: return [RawMessage(.error, id: message.id, payload: [0x93])]
            case 4:
                var odd = RawMessage(.reply, id: message.id, payload: Packed.value(4))
                odd.header.contentType = 9
                return [odd]
            case 5:
                var cut = RawMessage(.reply, id: message.id, payload: Packed.value(5))
                cut.header.payloadLength = 1000
                return [cut]
            default: return [RawMessage(.reply, id: message.id, payload: Packed.value(number))]
            }
        }
        let lines = Gathered<String>()
        let client = try Client.forTest(raw.endpoint) { $0.logger = .calling { _, line in lines.add(line) } }
        let results = try (0..<10).map { try client.function(Job.echo).async($0) }
        for (number, result) in results.enumerated() {
            if number == 1 {
                // It was understood, and is only of another type.
                let error = #expect(throws: RemoteError.self) { try result.get() }
                #expect(error?.code == .badResult)
            } else if (2...5).contains(number) {
                let error = #expect(throws: ConnectionError.self) { try result.get() }
                #expect(error?.code == .protocol, "\(number): \(String(describing: error))")
            } else {
                #expect(try result.get() == number)
            }
        }
        #expect(client.statistics.malformedMessages >= 2)
        #expect(lines.values.contains { $0.contains("malformed") })
        eventually("the table is empty") { client.statistics.tableEntriesNow <= 1 }
        client.closeBlocking()
        raw.stop()
    }

    @Test(
        "S68 who waits for a place when the poller stops is told, and so is who would wait from then on",
        .timeLimit(.minutes(1))
    )
    func stopWithoutPlaces() async throws {
        let rig = try Rig()
        let client = try rig.client {
            $0.startsPoller = false
            $0.maxOutstandingCalls = 1
        }
        let poller = try BackgroundPoller(serving: client)
        let echo = client.function(Job.echo)
        let held = try client.function(Job.gated).async("a")
        let (slow, more) = AsyncStream<Int>.makeStream()
        await withTaskGroup(of: UsageError.Code?.self) { group in
            func add(_ body: @escaping @Sendable () async throws -> Void) {
                group.addTask {
                    do { try await body() } catch { return (error as? UsageError)?.code }
                    return nil
                }
            }
            add { _ = try await client.call(Job.echo, 1) }
            add { _ = try await client.call(Job.echo, 1, timeout: .seconds(1000)) }
            add { _ = try await client.map(Job.echo, over: 0..<10).collect() }
            add { _ = try await client.map(Job.echo, over: AsyncStream { $0.yield(1) }).collect() }
            add { _ = try await client.map(Job.echo, over: slow).collect() }
            add {
                let ended = AsyncStream<UsageError.Code?>.makeStream()
                Thread.detachNewThread {
                    do { _ = try client.map(Job.echo, over: 0..<10).collectBlocking() } catch {
                        ended.continuation.yield((error as? UsageError)?.code)
                    }
                    ended.continuation.finish()
                }
                for await code in ended.stream where code == .notRunning { throw UsageError.notRunning }
            }
            // Any of them may be late: then it is told at once.
            try? await Task.sleep(for: .milliseconds(50))
            #expect(poller.stop())
            more.yield(1)
            add { _ = try await client.call(Job.echo, 1) }
            for await code in group { #expect(code == .notRunning) }
        }
        try poller.start()
        rig.gate.open("a")
        #expect(try await held.value == "a")
        #expect(try await echo(3) == 3)
        #expect(client.statistics.outstandingNow == 0)
        await client.close()
        rig.stop()
    }
}
