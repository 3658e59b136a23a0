// SPDX-License-Identifier: Apache-2.0

import DroverCore
import Testing

@Suite struct ProgressMeterTests {
    private static func at(_ seconds: Double) -> Instant { Instant(nanoseconds: 1_000_000_000 + UInt64(seconds * 1e9)) }

    @Test("a steady rate is told from the beginning on")
    func steady() throws {
        var meter = ProgressMeter(at: Self.at(0))
        #expect(meter.rate(0, at: Self.at(0)) == nil, "no time has passed")
        for second in stride(from: 0.5, through: 600, by: 0.5) {
            let count = Int(second * 100)
            meter.counted(count, at: Self.at(second))
            let rate = try #require(meter.rate(count, at: Self.at(second)))
            #expect(abs(rate - 100) < 1)
            let remaining = try #require(meter.remainingNanoseconds(count, of: 100_000, at: Self.at(second)))
            #expect(abs(Double(remaining) / 1e9 - Double(100_000 - count) / 100) < 10)
        }
    }

    @Test("the rate follows when the work becomes slower")
    func slower() throws {
        var meter = ProgressMeter(at: Self.at(0))
        for tenth in 1...100 { meter.counted(tenth * 100, at: Self.at(Double(tenth) / 10)) }
        for tenth in 1...100 { meter.counted(10_000 + tenth, at: Self.at(10 + Double(tenth) / 10)) }
        let rate = try #require(meter.rate(10_100, at: Self.at(20)))
        #expect(abs(rate - 10) < 1, "\(rate)")
    }

    @Test("nothing for a while lets the rate fall to zero, and nobody can say how long the rest takes")
    func stalled() throws {
        var meter = ProgressMeter(at: Self.at(0))
        for second in 1...10 { meter.counted(second, at: Self.at(Double(second))) }
        meter.counted(10, at: Self.at(40))
        #expect(meter.rate(10, at: Self.at(60)) == 0)
        #expect(meter.remainingNanoseconds(10, of: 20, at: Self.at(60)) == nil)
    }

    @Test("items of minutes give a rate that doesn't jump")
    func longItems() throws {
        var meter = ProgressMeter(at: Self.at(0))
        for minute in 1...60 { meter.counted(minute, at: Self.at(Double(minute) * 60)) }
        for second in 0..<60 {
            let rate = try #require(meter.rate(60, at: Self.at(3600 + Double(second))))
            #expect(abs(rate * 60 - 1) < 0.2, "\(rate * 60) a minute, \(second) s after the last")
        }
    }

    @Test("what is done takes no time, what can't be said isn't")
    func ends() {
        let meter = ProgressMeter(at: Self.at(0))
        #expect(meter.remainingNanoseconds(5, of: 5, at: Self.at(1)) == 0)
        #expect(meter.remainingNanoseconds(6, of: 5, at: Self.at(1)) == 0)
        #expect(meter.remainingNanoseconds(0, of: 5, at: Self.at(1)) == nil)
        #expect(meter.remainingNanoseconds(1, of: .max, at: Self.at(100)) == nil)
        #expect(meter.rate(3, at: Instant(nanoseconds: 0)) == nil, "a clock that is behind the beginning")
    }
}
