// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire
import Testing

@Suite struct TransitClockTests {
    private static func at(_ milliseconds: UInt64) -> Instant { Instant(nanoseconds: milliseconds * 1_000_000) }

    private static func milliseconds(_ nanoseconds: UInt64) -> UInt64 { nanoseconds / 1_000_000 }

    @Test("what a stamp took longer than the least trip is the time it was under way")
    func excess() {
        var clock = TransitClock()
        #expect(clock.origin(at: Self.at(5)) == Self.at(5), "without a stamp times count from the arrival")
        #expect(clock.stamped(70_000_000, at: Self.at(1000)) == 0)
        #expect(Self.milliseconds(clock.stamped(70_100_000, at: Self.at(1600))) == 499, "less what clocks may drift")
        let origin = clock.origin(at: Self.at(9000))
        #expect(origin >= Self.at(1100) && origin < Self.at(1101), "a stamp holds until the next")
        // A quicker trip is the new measure, for those that come after it.
        #expect(clock.stamped(71_000_000, at: Self.at(1700)) == 0)
        #expect(Self.milliseconds(clock.stamped(71_001_000, at: Self.at(2000))) == 298)
    }

    @Test("stamps wrap around, and may be anything")
    func wrap() {
        var clock = TransitClock()
        clock.stamped(.max - 9_999, at: Self.at(1000))
        #expect(Self.milliseconds(clock.stamped(40_000, at: Self.at(1250))) == 199)
        for stamp in [0x7FFF_FFFF, 0x8000_0000, 1, .max, 0x4000_0000] as [UInt32] {
            for _ in 0..<5 { clock.stamped(stamp, at: Instant(nanoseconds: 1)) }
            clock.stamped(stamp, at: .distantFuture)
            #expect(clock.origin(at: Self.at(1)) <= .distantFuture)
        }
    }

    @Test("clocks that drift apart by less than a thousandth never make a deadline earlier")
    func drift() {
        var clock = TransitClock()
        for second in 1..<86_400 as Range<UInt64> {
            // The peer's clock is slow by 900 of a million.
            let stamp = UInt32(truncatingIfNeeded: second * 999_100)
            #expect(clock.stamped(stamp, at: Self.at(50 + second * 1000)) == 0)
        }
    }

    @Test("a jam of ten minutes is seen to its end")
    func longJam() {
        var clock = TransitClock()
        clock.stamped(1_000_000, at: Self.at(1000))
        let excess = clock.stamped(601_000_000, at: Self.at(604_000))
        #expect((2400...3000).contains(Self.milliseconds(excess)))
    }

    @Test("a peer that says that its clock stood still is measured anew, as is one that says hello")
    func anew() {
        var clock = TransitClock()
        clock.received(Header(.hello, time: 1000_000), at: Self.at(1000))
        clock.received(Header(.beat, time: 1100_000), at: Self.at(9100))
        #expect(clock.origin(at: Self.at(9200)) < Self.at(1200))
        clock.received(Header(.beat, time: 1200_000, number: Header.newClock), at: Self.at(9200))
        #expect(clock.origin(at: Self.at(9300)) == Self.at(9200))
        clock.received(Header(.beat), at: Self.at(9400))
        #expect(clock.origin(at: Self.at(9500)) == Self.at(9200), "a beat without a stamp says nothing")
        clock.received(Header(.hello, time: 1500_000), at: Self.at(20_000))
        #expect(clock.origin(at: Self.at(20_001)) == Self.at(20_000))
        clock.received(Header(.hello), at: Self.at(20_100))
        #expect(clock.origin(at: Self.at(20_200)) == Self.at(20_200), "an older peer")
    }

    @Test("what is sent at one time has one stamp, and nothing without a limit has any")
    func departures() {
        var clock = DepartureClock()
        let now = Instant(nanoseconds: 5_000_400_900)
        #expect(clock.time(until: .distantFuture, epoch: 7, at: now).beat == nil, "no limit, no stamp")
        let first = clock.time(until: Self.at(5300), epoch: 7, at: now)
        #expect(first.beat == Header(.beat, id: 7, time: 5_000_400) && first.time == 300)
        let second = clock.time(until: Self.at(5400), epoch: 7, at: now)
        #expect(second.beat == nil && second.time == 400, "one stamp for what is sent at once")
        let third = clock.time(until: Self.at(5300), epoch: 7, at: Self.at(5001))
        #expect(third.beat == Header(.beat, id: 7, time: 5_001_000) && third.time == 299)
        #expect(clock.time(until: Self.at(5001), epoch: 7, at: Self.at(5001)).time == 0, "it must not start any more")
        clock.forget()
        #expect(clock.time(until: Self.at(5300), epoch: 7, at: Self.at(5001)).beat != nil)
        clock.wasMistaken()
        let again = clock.time(until: Self.at(5300), epoch: 7, at: Self.at(5001)).beat
        #expect(again == Header(.beat, id: 7, time: 5_001_000, number: Header.newClock))
        #expect(clock.beat(epoch: 7, at: Self.at(5002)) == Header(.beat, id: 7, time: 5_002_000))
        #expect(clock.hello(at: Instant(nanoseconds: 1000 << 32)) == 1, "0 says nothing")
    }

    @Test("a worker drops what was longer under way than it had time, and counts the rest from its caller's clock")
    func worker() throws {
        var configuration = WorkerMachine.Configuration(seed: 7)
        configuration.functionLimits = [nil]
        var machine = WorkerMachine(configuration: configuration)
        var actions: [WorkerAction] = []
        let client = PeerID(high: 1, low: 2)
        let introduction = machine.helloReceived(
            client: client,
            epoch: 1,
            name: "",
            route: 1,
            at: Self.at(1000),
            actions: &actions
        )
        guard case .welcome(let session, _) = introduction else { throw CancellationError() }
        _ = machine.defined(0, name: "f", handler: 0, in: session)
        machine.stamped(Header(.hello, time: 50_000_000), from: session, at: Self.at(1000))
        machine.stamped(Header(.beat, time: 50_100_000), from: session, at: Self.at(1600))
        let late = Header(.request, id: 1, time: 300)
        #expect(machine.requestReceived(late, key: nil, from: session, at: Self.at(1600)) == .lapsed)
        let early = Header(.request, id: 2, time: 800)
        let verdict = machine.requestReceived(early, key: nil, from: session, at: Self.at(1600))
        guard case .run(let slot, _) = verdict else { throw CancellationError() }
        let deadline = try #require(machine.request(in: slot)?.deadline)
        #expect(deadline >= Self.at(1900) && deadline < Self.at(1902))
        _ = machine.deadlineReceived(2, time: 900, from: session, at: Self.at(1650))
        let moved = try #require(machine.request(in: slot)?.deadline)
        #expect(moved >= Self.at(2000) && moved < Self.at(2002))
    }

    @Test("a broker does, too; a worker that drops what is in time is told to measure anew")
    func broker() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1)
        bench.machine.stamped(Header(.hello, time: 50_000_000), from: client, at: bench.now)
        bench.now = bench.now.advanced(byNanoseconds: 600_000_000)
        bench.machine.stamped(Header(.beat, time: 50_100_000), from: client, at: bench.now)
        #expect(bench.request(1, from: client, time: 300) == .lapsed)
        bench.actions = []
        guard case .taken(let slot) = bench.request(2, from: client, time: 800) else { throw CancellationError() }
        let left = bench.machine.call(in: slot).deadline.nanoseconds(since: bench.now)
        #expect((300_000_000..<302_000_000).contains(left))
        let sent = try #require(bench.transmitted().first)
        bench.machine.cancellationConfirmed(
            sent.id,
            stage: .lapsed,
            from: worker,
            at: bench.now,
            actions: &bench.actions
        )
        #expect(bench.actions.first == .restamp(worker: worker))
        #expect(bench.transmitted().map { $0.call } == [2])
    }
}
