// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverZMQ
import Foundation
import Testing

extension ServingTests {
    /// Contract section E: timed functions and their error.
    @Suite(.serialized, .tags(.acceptance), .timeLimit(.minutes(1)))
    struct TimedTests {}
}

extension ServingTests.TimedTests {
    @Test("A14 S58 a timed function returns pending handles at once, each with its limit")
    func returnsHandles() throws {
        try withRig { (_, client) throws in
            try client.connectBlocking()
            let limited = timed(client.function(Job.sleep), .milliseconds(500))
            try expectTime("the limit", atLeast: .milliseconds(500), atMost: .milliseconds(550)) {
                var results: [AsyncResult<String>] = []
                var started = MonotonicClock.now()
                for seconds in [0.1, 1.0] {
                    try expectTime("a submission", atMost: .milliseconds(20), attempts: 1) {
                        started = MonotonicClock.now()
                        return try elapsed { results.append(try limited(seconds, "q")) }
                    }
                }
                #expect(results.allSatisfy { !$0.isTerminal })
                #expect(try results[0].get() == "q")
                #expect(throws: AsyncResultTimeout.self) { try results[1].get() }
                return .nanoseconds(Int64(MonotonicClock.now() - started))
            }
        }
    }

    @Test("S58 the awaiting form has a timeout too")
    func awaitingForm() async throws {
        let rig = try Rig()
        let client = try rig.client()
        #expect(try await client.call(Job.echo, 6, timeout: .seconds(60)) == 6)
        await expectTime("the timeout", atLeast: .milliseconds(100), atMost: .milliseconds(150)) {
            await elapsed {
                let error = await #expect(throws: AsyncResultTimeout.self) {
                    try await client.call(Job.gated, "a", timeout: .milliseconds(100))
                }
                #expect(error?.limit == .milliseconds(100))
                #expect(error?.function == "gated")
            }
        }
        await client.close()
        rig.stop()
    }

    @Test("S59 each call's clock starts with the call, and queueing counts")
    func clockStart() throws {
        try withRig(concurrency: 1) { (rig, client) throws in
            let gated = client.function(Job.gated)
            let limited = timed(gated, .milliseconds(300))
            let blocking = try gated.async("blocks")
            eventually("the only handler runs") { rig.gate.begun == ["blocks"] }
            // The wrapper is old when it is called.
            block(for: .milliseconds(100))
            try expectTime("waiting in the worker's queue", atLeast: .milliseconds(300), atMost: .milliseconds(350)) {
                let started = MonotonicClock.now()
                let first = try limited("first")
                block(for: .milliseconds(100))
                let startedSecond = MonotonicClock.now()
                let second = try limited("second")
                #expect(throws: AsyncResultTimeout.self) { try first.get() }
                let time = Duration.nanoseconds(Int64(MonotonicClock.now() - started))
                #expect(!second.isTerminal || MonotonicClock.now() - startedSecond >= 300_000_000)
                #expect(throws: AsyncResultTimeout.self) { try second.get() }
                #expect(MonotonicClock.now() - startedSecond >= 300_000_000)
                return time
            }
            #expect(rig.gate.begun == ["blocks"])
            rig.gate.open("blocks")
            #expect(try blocking.get() == "blocks")
        }
    }

    @Test("A15 S60 nil is no limit, zero and less always time out; wrappers are independent")
    func limits() throws {
        try withRig { (_, client) throws in
            let echo = client.function(Job.echo)
            #expect(try timed(echo, nil)(1).get() == 1)
            #expect(timed(echo, nil).limit == nil)
            for limit in [Duration.zero, .seconds(-1), .nanoseconds(-1)] {
                for _ in 0..<50 {
                    let result = try timed(echo, limit)(2)
                    #expect(throws: AsyncResultTimeout.self) { try result.get() }
                    #expect(result.hasExpired)
                }
            }
            let gated = client.function(Job.gated)
            let (short, long) = (timed(gated, .milliseconds(50)), timed(async(gated), .seconds(60)))
            let patient = try long("t")
            #expect(throws: AsyncResultTimeout.self) { try short("t").get() }
            #expect(!patient.isTerminal)
            #expect(short.limit == .milliseconds(50) && long.limit == .seconds(60))
            #expect(try gated.async("t").phase != .terminal)
            client.cancelAll()
        }
    }

    @Test("S61 after a timeout every read throws at once; client and worker go on")
    func afterwards() throws {
        try withRig(concurrency: 1) { (rig, client) throws in
            // Long enough for the handler to begin, on a loaded machine too.
            let result = try timed(client.function(Job.gated), .milliseconds(500))("t")
            #expect(throws: AsyncResultTimeout.self) { try result.get() }
            let first = #expect(throws: AsyncResultTimeout.self) { try result.get() }
            expectTime("reading again", atMost: .milliseconds(5)) {
                elapsed {
                    let again = #expect(throws: AsyncResultTimeout.self) { try result.get() }
                    #expect(again == first)
                    #expect(throws: AsyncResultTimeout.self) { try result.wait() }
                }
            }
            // The worker was told, so its only handler is free for the next.
            eventually("the handler saw it") { rig.cancelled.values == ["t"] }
            #expect(try client.function(Job.sleep).blocking(0, "next") == "next")
            #expect(client.statistics.disconnections == 0)
        }
    }

    @Test("A36 S62 the error of a call that no worker was there for says that it was not accepted")
    func noWorker() throws {
        let client = try Client.forTest(try ServingTests.ConnectionTests.unusedEndpoint())
        let sleep = client.function(Job.sleep)
        try expectTime("the expiry", atLeast: .milliseconds(500), atMost: .milliseconds(550)) {
            let started = MonotonicClock.now()
            var made: AsyncResult<String>?
            try expectTime("a submission", atMost: .milliseconds(20)) {
                try elapsed { made = try timed(sleep, .milliseconds(500))(1, "t") }
            }
            let result = try #require(made)
            #expect(!result.isTerminal)
            let error = try #require(#expect(throws: AsyncResultTimeout.self) { try result.get() })
            let time = Duration.nanoseconds(Int64(MonotonicClock.now() - started))
            #expect(error.phase == .local || error.phase == .sent)
            #expect("\(error)".contains("not accepted"), "\(error)")
            return time
        }
        client.closeBlocking()
    }

    @Test("S62 the error carries function, id, limit, elapsed time and the last phase seen")
    func error() throws {
        func timeout(of result: AnyAsyncResult) throws -> AsyncResultTimeout {
            let error = try #require(#expect(throws: AsyncResultTimeout.self) { try result.wait() })
            #expect(error.correlationID == result.correlationID)
            #expect(error.function == result.functionName)
            #expect(error.limit == .milliseconds(300))
            #expect(error.elapsed >= .milliseconds(300) && error.elapsed < .seconds(10), "\(error.elapsed)")
            for part in [error.function, "\(error.correlationID)", "\(error.phase)"] {
                #expect("\(error)".contains(part), "\(error)")
            }
            return error
        }
        let limit = Duration.milliseconds(300)
        // Sent, but nobody says that it came.
        try withRawWorker { (raw, client) throws in
            let result = try timed(client.function(Job.echo), limit)(1)
            eventually("the request came") { raw.requests.count == 1 }
            #expect(try timeout(of: result).phase == .sent)
        }
        try withRig(concurrency: 1) { (_, client) throws in
            let gated = client.function(Job.gated)
            let running = try timed(gated, limit)("running")
            let queued = try timed(gated, limit)("queued")
            #expect(try timeout(of: running).phase == .running(worker: "worker"))
            #expect(try timeout(of: queued).phase == .accepted(worker: "worker"))
        }
        let alone = try Client.forTest(try ServingTests.ConnectionTests.unusedEndpoint())
        #expect(try timeout(of: timed(alone.function(Job.echo), limit)(1)).phase == .local)
        alone.closeBlocking()
    }

    @Test("S63 a timeout is no remote error, a remote error no timeout, nor either a connection's")
    func families() throws {
        func family(of body: () throws -> Void) -> String {
            do { try body() } catch is AsyncResultTimeout { return "timeout" } catch is ConnectionError {
                return "connection"
            } catch is RemoteError { return "remote" } catch is CancellationError { return "cancellation" } catch {
                return "\(error)"
            }
            return "none"
        }
        try withRig { (rig, client) throws in
            let gated = client.function(Job.gated)
            let expired = try timed(gated, .milliseconds(20))("t")
            let failed = try client.function(Job.failTimeout).async()
            let cancelled = try gated.async("t")
            cancelled.cancel()
            let other = try rig.client()
            let lost = try other.function(Job.gated).async("t")
            other.closeBlocking()
            #expect(family { _ = try expired.get() } == "timeout")
            #expect(family { _ = try failed.get() } == "remote")
            #expect(family { _ = try cancelled.get() } == "cancellation")
            #expect(family { _ = try lost.get() } == "connection")
        }
    }
}
