// SPDX-License-Identifier: Apache-2.0

import DroverCore
import Testing

@Suite("OfferSchedule")
struct OfferingTests {
    private static func at(_ milliseconds: UInt64) -> Instant { Instant(nanoseconds: milliseconds * 1_000_000) }

    @Test("an offer is repeated with pauses that double up to the longest, until the broker introduces itself")
    func pauses() {
        var offering = OfferSchedule(longestNanoseconds: 500_000_000, at: Self.at(0))
        var times: [UInt64] = []
        for millisecond in 0..<3000 as Range<UInt64> where offering.isDue(at: Self.at(millisecond)) {
            times.append(millisecond)
        }
        #expect(times == [0, 100, 300, 700, 1200, 1700, 2200, 2700])
        offering.settled()
        #expect(offering.nextDeadline == .distantFuture)
        let isDue = offering.isDue(at: Self.at(10_000))
        #expect(!isDue)
    }

    @Test("a broker that asks again is told at once, but asking many times changes nothing")
    func restart() {
        var offering = OfferSchedule(longestNanoseconds: 500_000_000, at: Self.at(0))
        offering.settled()
        offering.restart(at: Self.at(50))
        let isDue = offering.isDue(at: Self.at(50))
        #expect(isDue)
        for millisecond in 51..<150 as Range<UInt64> {
            offering.restart(at: Self.at(millisecond))
            let isDueAgain = offering.isDue(at: Self.at(millisecond))
            #expect(!isDueAgain)
        }
        #expect(offering.nextDeadline == Self.at(150))
    }
}
