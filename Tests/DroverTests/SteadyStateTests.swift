// SPDX-License-Identifier: Apache-2.0

import Drover
import Foundation
import Testing

extension ServingTests {
    /// Memory, descriptors and threads under calls that end in all ways.
    ///
    /// `DROVER_STEADY_CALLS` says how many calls.
    @Suite(.serialized)
    struct SteadyStateTests {}
}

extension ServingTests.SteadyStateTests {
    /// What the allocator may keep beyond the level after the first 100,000 calls, or the first tenth of fewer; AddressSanitizer's keeps 64 MiB of freed memory.
    private static let tolerance = (isSanitized ? 128 : 24) << 20

    @Test("S102 memory, descriptors and threads stay at the level of the first calls", .timeLimit(.minutes(60)))
    func level() throws {
        let rig = try Rig()
        let client = try rig.client()
        let total = setting("DROVER_STEADY_CALLS", 100_000)
        let batch = 500
        let echo = client.function(Job.echo)
        let fail = client.function(Job.fail)
        let expiring = timed(echo, .milliseconds(1))
        func run(_ calls: Int) throws {
            for _ in 0..<max(1, calls / batch) {
                var results: [AnyAsyncResult] = []
                results.reserveCapacity(batch)
                for number in 0..<batch {
                    switch number % 4 {
                    case 0:
                        let result = try echo.async(number)
                        result.addCallback { _ in }
                        results.append(result)
                    case 1: results.append(try fail.async("x"))
                    case 2: results.append(try expiring(number))
                    default:
                        let result = try echo.async(number)
                        result.setExpiry(.seconds(60))
                        result.cancel()
                        results.append(result)
                    }
                }
                for result in results where !result.isTerminal { _ = try? result.wait() }
            }
            eventually("all has ended") { client.statistics.outstandingNow == 0 && rig.running.status.queued == 0 }
        }
        try run(min(total / 10, 100_000))
        let settled = Footprint.now
        for part in 1..<10 {
            try run(total / 10)
            let now = Footprint.now
            let growth = now.residentBytes - settled.residentBytes
            #expect(growth < Self.tolerance, "after \(part + 1) tenths: from \(settled) to \(now)")
            // What earlier tests left to be closed may go meanwhile; nothing may come.
            #expect(now.descriptors <= settled.descriptors + 2, "from \(settled) to \(now)")
            #expect(now.threads <= settled.threads + 2, "from \(settled) to \(now)")
        }
        eventually("the tables are empty") {
            client.statistics.tableEntriesNow == 0 && client.statistics.timersNow == 0
        }
        client.closeBlocking()
        rig.stop()
    }

    @Test("S102 clients and workers that come and go leave nothing behind", .timeLimit(.minutes(5)))
    func comingAndGoing() throws {
        func once(_ number: Int) throws {
            let rig = try Rig()
            let client = try rig.client()
            let result = try client.function(Job.echo).async(number)
            result.addCallback { _ in }
            #expect(try result.get() == number)
            client.closeBlocking()
            rig.stop()
        }
        for number in 0..<10 { try once(number) }
        // libzmq closes sockets and threads end in the background.
        let settled = Self.lowest()
        for number in 0..<50 { try once(number) }
        let now = Self.lowest()
        #expect(now.descriptors <= settled.descriptors + 4, "from \(settled) to \(now)")
        #expect(now.threads <= settled.threads + 4, "from \(settled) to \(now)")
        #expect(now.residentBytes - settled.residentBytes < Self.tolerance, "from \(settled) to \(now)")
    }

    @Test("S102 handlers that return after their worker is gone leave nothing behind", .timeLimit(.minutes(1)))
    func lateHandlers() throws {
        let gate = Gate()
        func once() throws -> WeakWitness {
            let witness = Witness()
            let worker = Worker(concurrency: 2)
            let late = Function<Int, Int>("late")
            worker.register(late) { (number: Int) in
                gate.enter("\(number)")
                while !gate.isOpen("all") { usleep(1000) }
                return withExtendedLifetime(witness) { number }
            }
            let running = try worker.start(.bind("tcp://127.0.0.1:*"))
            let client = try Client.forTest(running.endpoint)
            // One may run beside the worker's loop; the other has a thread of its own.
            for number in 0..<2 { _ = try client.function(late).async(number) }
            eventually("both handlers run") { gate.begun.count == 2 }
            running.stopBlocking(grace: .zero)
            client.closeBlocking()
            return WeakWitness(witness)
        }
        let witness = try once()
        #expect(!witness.isGone)
        gate.open("all")
        eventually("the worker is gone") { witness.isGone }
    }

    /// The lowest of what is seen within half a second.
    private static func lowest() -> Footprint {
        var lowest = Footprint.now
        for _ in 0..<50 {
            let now = Footprint.now
            lowest = Footprint(
                residentBytes: min(lowest.residentBytes, now.residentBytes),
                descriptors: min(lowest.descriptors, now.descriptors),
                threads: min(lowest.threads, now.threads)
            )
            block(for: .milliseconds(10))
        }
        return lowest
    }
}
