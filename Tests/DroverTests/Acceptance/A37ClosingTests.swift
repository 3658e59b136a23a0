// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverZMQ
import Foundation
import Testing

extension ServingTests {
    /// The contract's scenarios of closing, stopping and cancelling.
    @Suite(.serialized, .tags(.acceptance), .timeLimit(.minutes(1)))
    struct ClosingTests {}
}

extension ServingTests.ClosingTests {
    @Test("A37 close ends after its grace; waiter and callback are told")
    func close() throws {
        let rig = try Rig()
        defer { rig.stop() }
        try expectTime("close", atLeast: .milliseconds(200), atMost: .milliseconds(400)) {
            let client = try rig.client()
            let result = try client.function(Job.gated).async("t\(client.identity)")
            let (callbacks, waiters) = (Gathered<String>(), Gathered<String>())
            result.addCallback { callbacks.add("\($0.outcome.map { "\($0)" } ?? "nil")") }
            let waiter = try LoopThread.start(named: "waiter") {
                do { try result.wait() } catch let error as ConnectionError { waiters.add("\(error.code)") } catch {
                    waiters.add("\(error)")
                }
            }
            eventually("the handler runs") { rig.gate.begun.contains("t\(client.identity)") }
            let time = elapsed { client.closeBlocking(grace: .milliseconds(200)) }
            expectEnd(of: [waiter])
            #expect(waiters.values == ["closed"])
            eventually("the callback ran") { callbacks.count == 1 }
            #expect(callbacks.values.first?.hasPrefix("lost") == true)
            return time
        }
    }

    @Test("A38 closing and stopping twice, in a callback or after the peer's death is harmless")
    func closeTwice() async throws {
        let raw = try RawWorker()
        let client = try Client.forTest(raw.endpoint)
        let poller = try BackgroundPoller(serving: client)
        let result = try client.function(Job.echo).async(1)
        try await becomesTrue("the request came") { raw.requests.count == 1 }
        let stopped = Gathered<Bool>()
        result.addCallback { _ in
            // In a callback: they ask for the stop and don't wait for it.
            _ = poller.stop()
            _ = poller.stop()
            stopped.add(true)
        }
        raw.stop()
        try await becomesTrue("the callback ran when the worker was lost") { stopped.count == 1 }
        try await becomesTrue("the poller left") { !poller.isRunning }
        #expect(poller.stop())
        #expect(poller.stop())
        await client.close()
        await client.close()
        await client.close(grace: .seconds(5))
        #expect(poller.stop())

        // With a worker that lives, close in a callback.
        let rig = try Rig()
        let second = try rig.client()
        let closed = Gathered<Bool>()
        try second.function(Job.echo).async(1)
            .addCallback { _ in
                second.closeBlocking()
                second.closeBlocking()
                closed.add(true)
            }
        try await becomesTrue("the callback ran") { closed.count == 1 }
        await second.close()
        let error = #expect(throws: ConnectionError.self) { try second.function(Job.echo).async(2) }
        #expect(error?.code == .closed)
        rig.stop()
        rig.stop()
    }

    @Test("A42 cancelling a queued job, a running one, and one that has finished")
    func cancel() throws {
        try withRig(concurrency: 1) { (rig, client) throws in
            let gated = client.function(Job.gated)
            rig.gate.open("finished")
            let finished = try gated.async("finished")
            #expect(try finished.get() == "finished")
            let running = try gated.async("running")
            eventually("it runs") { rig.gate.begun == ["finished", "running"] }
            let queued = try gated.async("queued")
            eventually("it waits there") { rig.running.status.queued == 1 }

            #expect(queued.cancel())
            #expect(queued.outcome == .cancelled)
            #expect(running.cancel())
            #expect(running.outcome == .cancelled)
            eventually("the handler has stopped") { rig.cancelled.values == ["running"] }
            #expect(!finished.cancel())
            #expect(try finished.get() == "finished")
            // The one handler thread is free again, and never ran the queued job.
            #expect(try client.function(Job.log).blocking() == ["finished"])
            #expect(rig.gate.begun == ["finished", "running"])
        }
    }
}
