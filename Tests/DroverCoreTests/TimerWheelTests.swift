// SPDX-License-Identifier: Apache-2.0

import DroverCore
import Simulator
import Testing

@Suite("Timer wheel")
struct TimerWheelTests {
    private static let millisecond: UInt64 = 1_000_000

    private static func at(milliseconds: UInt64) -> Instant {
        Instant(nanoseconds: milliseconds * Self.millisecond)
    }

    @Test("an empty wheel has no deadline")
    func emptyWheelSleeps() {
        var wheel = TimerWheel(now: Self.at(milliseconds: 5))
        var due: [UInt32] = []
        #expect(wheel.nextDeadline == nil)
        wheel.advance(to: Self.at(milliseconds: 1_000_000), into: &due)
        #expect(due.isEmpty)
        #expect(wheel.nextDeadline == nil)
    }

    @Test("S33 a timer fires at the first tick that isn't before its deadline")
    func firesAtTheDeadline() {
        var wheel = TimerWheel(now: Self.at(milliseconds: 0))
        var due: [UInt32] = []
        wheel.schedule(7, at: Instant(nanoseconds: 1_500_000))
        #expect(wheel.nextDeadline == Self.at(milliseconds: 2))
        wheel.advance(to: Instant(nanoseconds: 1_999_999), into: &due)
        #expect(due.isEmpty)
        wheel.advance(to: Self.at(milliseconds: 2), into: &due)
        #expect(due == [7])
        #expect(wheel.count == 0)
        #expect(wheel.nextDeadline == nil)
    }

    @Test("S30 a deadline that has passed fires in the next advance, although time stands still")
    func passedDeadlineFiresAtOnce() {
        let now = Instant(nanoseconds: 1_700_000)
        var wheel = TimerWheel(now: now)
        var due: [UInt32] = []
        wheel.schedule(1, at: Instant(nanoseconds: 0))
        wheel.schedule(2, at: now)
        #expect(wheel.nextDeadline == now)
        wheel.advance(to: now, into: &due)
        #expect(due == [1, 2])
        wheel.schedule(3, at: now)
        wheel.advance(to: Instant(nanoseconds: 0), into: &due)
        #expect(due == [1, 2, 3])
    }

    @Test("S27 the later schedule replaces the earlier one, shorter or longer")
    func schedulingAgainReplaces() {
        var wheel = TimerWheel(now: Self.at(milliseconds: 0))
        var due: [UInt32] = []
        wheel.schedule(0, at: Self.at(milliseconds: 10))
        wheel.schedule(0, at: Self.at(milliseconds: 5000))
        wheel.advance(to: Self.at(milliseconds: 4999), into: &due)
        #expect(due.isEmpty)
        wheel.schedule(0, at: Self.at(milliseconds: 5001))
        wheel.advance(to: Self.at(milliseconds: 5001), into: &due)
        #expect(due == [0])
        #expect(wheel.count == 0)
    }

    @Test("S31 the distant future never comes and costs nothing")
    func distantFutureIsNever() {
        var wheel = TimerWheel(now: Self.at(milliseconds: 0))
        var due: [UInt32] = []
        wheel.schedule(0, at: Self.at(milliseconds: 5))
        wheel.schedule(0, at: .distantFuture)
        #expect(wheel.nextDeadline == nil)
        let isScheduled = wheel.isScheduled(0)
        #expect(!isScheduled)
        // A hundred years are not for ever.
        let century: UInt64 = 100 * 365 * 24 * 3600 * 1000
        wheel.schedule(1, at: Self.at(milliseconds: century))
        #expect(wheel.nextDeadline == Self.at(milliseconds: century))
        wheel.advance(to: Self.at(milliseconds: century - 1), into: &due)
        #expect(due.isEmpty)
        wheel.advance(to: Self.at(milliseconds: century), into: &due)
        #expect(due == [1])
    }

    @Test("sleeping until the next deadline wakes at most seven times in vain, however many timers share it")
    func doesNotSpin() {
        for distance in [1, 63, 64, 65, 4095, 4096, 262_145, 999_999_999, 123_456_789_012] as [UInt64] {
            var wheel = TimerWheel(now: Self.at(milliseconds: 3))
            var due: [UInt32] = []
            for key in 0..<100 as Range<UInt32> { wheel.schedule(key, at: Self.at(milliseconds: 3 + distance)) }
            var wakes = 0
            while let next = wheel.nextDeadline, wakes < 100 {
                #expect(next <= Self.at(milliseconds: 3 + distance))
                wheel.advance(to: next, into: &due)
                wakes += 1
            }
            #expect(due == Array(0..<100))
            #expect(wakes <= 8)
        }
    }

    @Test("a jump of hours fires everything once, in order of deadlines")
    func jumpsFireInOrder() {
        var wheel = TimerWheel(now: Self.at(milliseconds: 77))
        var random = SeededRandom(seed: 1)
        let count = isSanitized ? 10_000 : 100_000
        let deadlines = (0..<count).map { _ in UInt64(random.below(3 * 3600 * 1000)) + 78 }
        for (key, deadline) in deadlines.enumerated() {
            wheel.schedule(UInt32(key), at: Self.at(milliseconds: deadline))
        }
        var due: [UInt32] = []
        wheel.advance(to: Self.at(milliseconds: 24 * 3600 * 1000), into: &due)
        // Sorting by (tick, key) is what a stable order of scheduling comes to.
        let expected = deadlines.indices.sorted { (deadlines[$0], $0) < (deadlines[$1], $1) }
        #expect(due == expected.map { UInt32($0) })
    }

    @Test("S102 trimming gives the links back")
    func trimming() {
        var wheel = TimerWheel(now: Self.at(milliseconds: 0))
        for key in 0..<10_000 as Range<UInt32> { wheel.schedule(key, at: Self.at(milliseconds: 50)) }
        #expect(wheel.capacity >= 10_000)
        for key in 3..<10_000 as Range<UInt32> { wheel.cancel(key) }
        wheel.trim()
        #expect(wheel.capacity < 100)
        var due: [UInt32] = []
        wheel.schedule(5000, at: Self.at(milliseconds: 49))
        wheel.advance(to: Self.at(milliseconds: 50), into: &due)
        #expect(due == [5000, 0, 1, 2])
        wheel.trim()
        #expect(wheel.capacity == 0)
    }

    @Test("random histories agree with a sorted list")
    func agreesWithModel() throws {
        try withSeeds(3000) { random in
            var model = Model(now: UInt64(random.below(1 << 40)))
            var wheel = TimerWheel(now: Instant(nanoseconds: model.now))
            let keys = 1 + random.below(40)
            let horizon = 1 << (10 + random.below(46))
            for _ in 0..<150 {
                let key = UInt32(random.below(keys))
                switch random.below(10) {
                case 0..<5:
                    var deadline = model.now + UInt64(random.below(horizon))
                    if random.oneIn(8) { deadline -= min(deadline, UInt64(random.below(horizon))) }
                    if random.oneIn(4) { deadline = deadline / 1_000_000 * 1_000_000 }
                    if random.oneIn(50) { deadline = .max }
                    wheel.schedule(key, at: Instant(nanoseconds: deadline))
                    model.schedule(key, at: deadline)
                case 5:
                    wheel.cancel(key)
                    model.timers[key] = nil
                case 6:
                    if let next = wheel.nextDeadline { try Self.advance(&wheel, &model, to: next.nanoseconds) }
                default:
                    let step = random.oneIn(5) ? 0 : UInt64(random.below(horizon / (1 + random.below(20)) + 1))
                    let back = random.oneIn(20) ? UInt64(random.below(1000)) : 0
                    try Self.advance(&wheel, &model, to: model.now + step - min(model.now, back))
                }
                try check(wheel.count == model.timers.count, "\(wheel.count) timers, not \(model.timers.count)")
                try check(wheel.isScheduled(key) == (model.timers[key] != nil), "key \(key)")
                try Self.checkDeadline(wheel.nextDeadline, model)
            }
        }
    }

    private static func advance(_ wheel: inout TimerWheel, _ model: inout Model, to now: UInt64) throws {
        var due: [UInt32] = []
        wheel.advance(to: Instant(nanoseconds: now), into: &due)
        let expected = model.advance(to: now)
        try check(due == expected, "fired \(due), not \(expected)")
    }

    private static func checkDeadline(_ deadline: Instant?, _ model: Model) throws {
        guard let earliest = model.timers.values.map({ max($0.tick * Self.millisecond, model.now) }).min() else {
            return try check(deadline == nil, "a deadline without timers")
        }
        guard let deadline else { throw Violation("no deadline with timers") }
        try check(deadline.nanoseconds <= earliest, "sleeps past \(earliest), until \(deadline)")
        let due = model.timers.values.contains { $0.isDue }
        try check(due == (deadline.nanoseconds <= model.now), "would spin or sleep at \(deadline), due \(due)")
        // So few timers share a bucket that the answer is exact.
        if model.timers.count <= 16 { try check(deadline.nanoseconds == earliest, "\(deadline), not \(earliest)") }
    }

    /// What a wheel should do, by sorting.
    private struct Model {
        struct Entry {
            var tick: UInt64
            var isDue: Bool
            var order: Int
        }

        var now: UInt64
        var timers: [UInt32: Entry] = [:]
        var order = 0

        init(now: UInt64) {
            self.now = now
        }

        mutating func schedule(_ key: UInt32, at deadline: UInt64) {
            self.timers[key] = nil
            if deadline == .max { return }
            self.order += 1
            let isDue = deadline <= self.now
            let tick = (max(deadline, 1) - 1) / TimerWheelTests.millisecond + 1
            self.timers[key] = Entry(tick: isDue ? 0 : tick, isDue: isDue, order: self.order)
        }

        mutating func advance(to now: UInt64) -> [UInt32] {
            self.now = max(self.now, now)
            let tick = self.now / TimerWheelTests.millisecond
            let due = self.timers.filter { $0.value.isDue || $0.value.tick <= tick }
            for key in due.keys { self.timers[key] = nil }
            return due.sorted { ($0.value.tick, $0.value.order) < ($1.value.tick, $1.value.order) }.map(\.key)
        }
    }
}
