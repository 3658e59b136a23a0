// SPDX-License-Identifier: Apache-2.0

import DroverWire
import Testing

@testable import DroverCore

/// How long handlers may run, in virtual time.
@Suite struct RunLimitTests {
    private static func at(_ milliseconds: UInt64) -> Instant { Instant(nanoseconds: milliseconds * 1_000_000) }

    /// A worker with one client, which stands by.
    ///
    /// Its functions: 0 without limits; 1 with 100 ms soft and 300 ms hard; 2 with 100 ms soft; 3 with 100 ms hard, one
    /// at a time.
    private struct Bench: ~Copyable {
        var machine: WorkerMachine
        var actions: [WorkerAction] = []
        let client = PeerID(high: 1, low: 2)

        init(window: Int = 8) {
            var configuration = WorkerMachine.Configuration(seed: 7)
            configuration.window = window
            configuration.session = PeerSession.Limits(
                beatNanoseconds: 3_600_000_000_000,
                silenceNanoseconds: 7_200_000_000_000
            )
            configuration.maxReplacements = 1
            configuration.functionLimits = [nil, nil, nil, 1]
            configuration.runLimits = [
                RunLimits(),
                RunLimits(softNanoseconds: 100_000_000, hardNanoseconds: 300_000_000),
                RunLimits(softNanoseconds: 100_000_000),
                RunLimits(hardNanoseconds: 100_000_000),
            ]
            self.machine = WorkerMachine(configuration: configuration)
            _ = self.machine.helloReceived(
                client: self.client,
                epoch: 1,
                name: "",
                route: 1,
                at: RunLimitTests.at(0),
                actions: &self.actions
            )
            for number in 0..<4 {
                _ = self.machine.defined(UInt32(number), name: "f\(number)", handler: Int32(number), in: 0)
            }
        }

        mutating func request(
            _ id: UInt64,
            _ number: UInt32,
            flags: Header.Flags = [],
            time: UInt32 = Header.noTimeLimit,
            key: String? = nil,
            at now: UInt64 = 0
        ) -> WorkerMachine.RequestVerdict {
            let header = Header(.request, flags: flags, id: id, time: time, number: number)
            return self.machine.requestReceived(header, key: key, from: 0, at: RunLimitTests.at(now))
        }

        /// What happens until `now`, reports apart.
        mutating func tick(_ now: UInt64) -> [WorkerAction] {
            self.actions = []
            self.machine.ticked(at: RunLimitTests.at(now), actions: &self.actions)
            defer { self.actions = [] }
            return self.actions.filter { if case .report = $0 { false } else { true } }
        }

        mutating func began(_ slot: UInt32, at now: UInt64) -> Instant {
            self.machine.began(slot, at: RunLimitTests.at(now))
        }

        mutating func finish(_ slot: UInt32) -> (WorkerMachine.Addressee?, [WorkerAction]) {
            self.actions = []
            let addressee = self.machine.finished(slot, actions: &self.actions)
            defer { self.actions = [] }
            return (addressee, self.actions)
        }
    }

    @Test("a handler is interrupted at its soft limit and abandoned at its hard one, each once")
    func bothLimits() {
        var bench = Bench()
        #expect(bench.request(7, 1) == .run(slot: 0, handler: 1))
        #expect(bench.began(0, at: 10) == Self.at(110))
        #expect(bench.machine.nextDeadline(after: Self.at(20)) <= Self.at(110))
        #expect(bench.tick(109) == [])
        #expect(bench.tick(110) == [.interrupt(slot: 0)])
        #expect(bench.tick(111) == [])
        #expect(bench.tick(309) == [])
        #expect(bench.tick(310) == [.abandon(slot: 0, session: 0, id: 7)])
        #expect(bench.tick(10_000) == [])
        #expect(bench.machine.timerCount == 0)
        #expect(bench.machine.abandonedCount == 1)
        #expect(bench.machine.requestCount == 1)
        let (addressee, _) = bench.finish(0)
        #expect(addressee?.isLate == true)
        #expect(addressee?.session == nil)
        #expect(bench.machine.abandonedCount == 0)
        #expect(bench.machine.requestCount == 0)
    }

    @Test("one limit alone, and a look that comes after both")
    func oneLimit() {
        var bench = Bench()
        _ = bench.request(1, 2)
        _ = bench.request(2, 3)
        _ = bench.request(3, 1)
        for slot in UInt32(0)..<3 { _ = bench.began(slot, at: 0) }
        #expect(
            bench.tick(5_000) == [
                .interrupt(slot: 0), .abandon(slot: 1, session: 0, id: 2), .abandon(slot: 2, session: 0, id: 3),
            ]
        )
        #expect(bench.tick(10_000) == [])
        #expect(bench.machine.abandonedCount == 2)
    }

    @Test("what a request waits doesn't count, be it for a thread, at its function's gate or for its key")
    func waiting() {
        var bench = Bench()
        #expect(bench.request(1, 3) == .run(slot: 0, handler: 3))
        #expect(bench.request(2, 3) == .hold(slot: 1, handler: 3))
        #expect(bench.request(3, 1, key: "k") == .run(slot: 2, handler: 1))
        #expect(bench.request(4, 1, key: "k") == .hold(slot: 3, handler: 1))
        // None has begun.
        #expect(bench.tick(10_000) == [])
        // Those that are held can't begin.
        #expect(bench.began(1, at: 10_000) == .distantFuture)
        #expect(bench.began(3, at: 10_000) == .distantFuture)
        #expect(bench.tick(20_000) == [])
        #expect(bench.finish(0).1 == [.run(slot: 1, handler: 3)])
        #expect(bench.tick(30_000) == [])
        #expect(bench.began(1, at: 30_000) == Self.at(30_100))
        #expect(bench.tick(30_099) == [])
        #expect(bench.tick(30_100) == [.abandon(slot: 1, session: 0, id: 2)])
    }

    @Test("a handler that ends has no limits any more, nor has the next one in its slot")
    func completion() {
        var bench = Bench()
        _ = bench.request(1, 1)
        _ = bench.began(0, at: 0)
        #expect(bench.tick(100) == [.interrupt(slot: 0)])
        let (addressee, _) = bench.finish(0)
        #expect(addressee == WorkerMachine.Addressee(session: 0, id: 1))
        #expect(bench.machine.timerCount == 0)
        #expect(bench.request(2, 0, at: 200) == .run(slot: 0, handler: 0))
        #expect(bench.tick(1_000) == [])
        #expect(bench.finish(0).0?.isLate == false)
    }

    @Test("a function without limits has no timer")
    func unlimited() {
        var bench = Bench()
        _ = bench.request(1, 0)
        #expect(bench.began(0, at: 0) == .distantFuture)
        #expect(bench.machine.timerCount == 0)
        #expect(bench.tick(1_000_000) == [])
    }

    @Test("S27 a deadline before the limits stops no handler that runs, and the limits hold")
    func earlierDeadline() {
        var bench = Bench()
        _ = bench.request(1, 1, time: 50)
        _ = bench.began(0, at: 0)
        // The loop stops it only if it hasn't begun.
        #expect(bench.tick(50) == [.stop(slot: 0)])
        #expect(bench.tick(100) == [.interrupt(slot: 0)])
        #expect(bench.tick(300) == [.abandon(slot: 0, session: 0, id: 1)])
    }

    @Test("S28 a hard limit before the deadline ends the request; a deadline that is moved moves no limit")
    func earlierLimit() {
        var bench = Bench()
        _ = bench.request(1, 1, time: 10_000)
        _ = bench.began(0, at: 0)
        #expect(bench.machine.deadlineReceived(1, time: 20_000, from: 0, at: Self.at(50)) == 0)
        #expect(bench.tick(100) == [.interrupt(slot: 0)])
        #expect(bench.tick(300) == [.abandon(slot: 0, session: 0, id: 1)])
        #expect(bench.machine.deadlineReceived(1, time: 1, from: 0, at: Self.at(400)) == nil)
        #expect(bench.tick(30_000) == [])
        #expect(bench.machine.timerCount == 0)
    }

    @Test("S97 an abandoned request is over for its client: answered again, not to be cancelled, out of the window")
    func answered() {
        var bench = Bench(window: 1)
        _ = bench.request(1, 3)
        _ = bench.began(0, at: 0)
        #expect(bench.request(2, 0) == .busy(window: 1))
        #expect(bench.tick(100) == [.abandon(slot: 0, session: 0, id: 1)])
        let message = [UInt8](repeating: 7, count: 24)
        unsafe message.withUnsafeBytes { bytes in unsafe bench.machine.remember(1, message: bytes, of: 0) }
        #expect(bench.request(1, 3, flags: .resent) == .answerAgain)
        #expect(bench.machine.cancelReceived(1, from: 0, actions: &bench.actions) == .unknown)
        #expect(bench.request(2, 0) == .run(slot: 1, handler: 0))
    }

    @Test("S9 an abandoned handler keeps its place at the gate and its key until it ends")
    func occupied() {
        var bench = Bench()
        _ = bench.request(1, 3, key: "k")
        #expect(bench.request(2, 3) == .hold(slot: 1, handler: 3))
        #expect(bench.request(3, 0, key: "k") == .hold(slot: 2, handler: 0))
        _ = bench.began(0, at: 0)
        #expect(bench.tick(100) == [.abandon(slot: 0, session: 0, id: 1)])
        #expect(bench.machine.heldCount == 2)
        #expect(bench.finish(0).1 == [.run(slot: 1, handler: 3), .run(slot: 2, handler: 0)])
    }

    @Test("the hard limit holds for a handler whose client is gone; a client that goes later has nothing to stop")
    func lostClient() {
        var bench = Bench()
        _ = bench.request(1, 3)
        _ = bench.request(2, 1)
        _ = bench.began(0, at: 0)
        _ = bench.began(1, at: 0)
        #expect(bench.tick(100) == [.abandon(slot: 0, session: 0, id: 1), .interrupt(slot: 1)])
        bench.machine.goodbyeReceived(from: 0, at: Self.at(200), actions: &bench.actions)
        #expect(bench.actions == [.stop(slot: 1), .sessionLost(session: 0, client: bench.client)])
        #expect(bench.tick(300) == [.abandon(slot: 1, session: nil, id: 2)])
        #expect(bench.finish(0).0?.isLate == true)
        #expect(bench.finish(1).0?.isLate == true)
        #expect(bench.machine.requestCount == 0)
    }

    @Test("many handlers with limits: each is told what it is due, and nothing is left")
    func many() {
        var bench = Bench(window: 4096)
        var expected: [UInt64: [WorkerAction]] = [:]
        var ending: [UInt64: [UInt32]] = [:]
        var state: UInt64 = 7
        func next(_ bound: UInt64) -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return (state >> 33) % bound
        }
        for slot in UInt32(0)..<1000 {
            _ = bench.request(UInt64(slot) + 1, 1)
            let (began, end) = (next(500), 1 + next(600))
            // All begin before the clock moves: an instant that lies ahead is one like any other.
            _ = bench.began(slot, at: began)
            if end > 100 { expected[began + 100, default: []].append(.interrupt(slot: slot)) }
            if end > 300 {
                expected[began + 300, default: []].append(.abandon(slot: slot, session: 0, id: UInt64(slot) + 1))
            }
            ending[began + end, default: []].append(slot)
        }
        var wrong: [UInt64] = []
        for now in UInt64(0)...1200 {
            for slot in ending[now] ?? [] { _ = bench.finish(slot) }
            let happened = bench.tick(now).map { "\($0)" }
            if happened.sorted() != (expected[now] ?? []).map({ "\($0)" }).sorted() { wrong.append(now) }
        }
        #expect(wrong == [])
        #expect(bench.machine.requestCount == 0)
        #expect(bench.machine.timerCount == 0)
        #expect(bench.machine.abandonedCount == 0)
    }

    @Test(
        "a handler that runs on after it was asked to stop is given up when its grace is over, once, and its slot replaced"
    )
    func givenUp() {
        var bench = Bench()
        for id in UInt64(1)...3 { _ = bench.request(id, 0) }
        #expect(bench.machine.cancelReceived(1, from: 0, actions: &bench.actions) == .stop(slot: 0))
        #expect(bench.machine.stopping(0, at: Self.at(10)) == Self.at(10_010))
        // The grace counts from the first time.
        #expect(bench.machine.stopping(0, at: Self.at(500)) == .distantFuture)
        #expect(bench.machine.nextDeadline(after: Self.at(20)) <= Self.at(10_010))
        #expect(bench.tick(10_009) == [])
        #expect(bench.machine.replacementCount == 0)
        #expect(bench.tick(10_010) == [.giveUp(slot: 0, session: 0, id: 1)])
        #expect(bench.tick(100_000) == [])
        #expect(bench.machine.abandonedCount == 1)
        #expect(bench.machine.replacementCount == 1)
        // No more are replaced than may be.
        _ = bench.machine.stopping(1, at: Self.at(100_000))
        #expect(bench.tick(200_000) == [.giveUp(slot: 1, session: 0, id: 2)])
        #expect(bench.machine.abandonedCount == 2)
        #expect(bench.machine.replacementCount == 1)
        #expect(bench.finish(0).0?.isLate == true)
        #expect(bench.machine.replacementCount == 1)
        #expect(bench.finish(1).0?.isLate == true)
        #expect(bench.machine.abandonedCount == 0)
        #expect(bench.machine.replacementCount == 0)
        #expect(bench.machine.timerCount == 0)
        #expect(bench.finish(2).0?.isLate == false)
    }

    @Test("a handler that stops within its grace is not given up, nor is one that its hard limit ended before")
    func stopsInTime() {
        var bench = Bench()
        _ = bench.request(1, 0)
        _ = bench.request(2, 3)
        _ = bench.began(1, at: 0)
        _ = bench.machine.stopping(0, at: Self.at(10))
        _ = bench.machine.stopping(1, at: Self.at(10))
        #expect(bench.tick(100) == [.abandon(slot: 1, session: 0, id: 2)])
        #expect(bench.finish(0).0?.isLate == false)
        #expect(bench.machine.timerCount == 0)
        #expect(bench.request(3, 0, at: 200) == .run(slot: 0, handler: 0))
        #expect(bench.tick(20_000) == [])
        #expect(bench.machine.abandonedCount == 1)
        // What has ended can't be asked to stop.
        #expect(bench.machine.stopping(1, at: Self.at(20_000)) == .distantFuture)
    }

    @Test("handlers that have given their slots back are counted until they have them again, or end")
    func released() {
        var bench = Bench()
        for id in UInt64(1)...2 { _ = bench.request(id, 0) }
        _ = bench.machine.slotReleased(0, id: 1, true)
        _ = bench.machine.slotReleased(0, id: 1, true)
        #expect(bench.machine.releasedCount == 1)
        // Another request that had the slot before.
        _ = bench.machine.slotReleased(1, id: 9, true)
        _ = bench.machine.slotReleased(77, id: 1, true)
        #expect(bench.machine.releasedCount == 1)
        _ = bench.machine.slotReleased(0, id: 1, false)
        #expect(bench.machine.releasedCount == 0)
        _ = bench.machine.slotReleased(1, id: 2, true)
        _ = bench.finish(1)
        #expect(bench.machine.releasedCount == 0)
        _ = bench.machine.slotReleased(1, id: 2, false)
        #expect(bench.machine.releasedCount == 0)
    }

    @Test("a stuck handler that has given its slot back holds none that is to be replaced")
    func releasedAndStuck() {
        var bench = Bench()
        _ = bench.request(1, 0)
        var isStuck = bench.machine.slotReleased(0, id: 1, true)
        #expect(!isStuck)
        _ = bench.machine.stopping(0, at: Self.at(0))
        #expect(bench.tick(20_000) == [.giveUp(slot: 0, session: 0, id: 1)])
        #expect(bench.machine.abandonedCount == 1)
        #expect(bench.machine.replacementCount == 0)
        isStuck = bench.machine.slotReleased(0, id: 1, false)
        #expect(isStuck)
        #expect(bench.machine.replacementCount == 1)
        isStuck = bench.machine.slotReleased(0, id: 1, true)
        #expect(isStuck)
        #expect(bench.machine.replacementCount == 0)
        #expect(bench.finish(0).0?.isLate == true)
        #expect(bench.machine.abandonedReleasedCount == 0)
        #expect(bench.machine.releasedCount == 0)
    }
}
