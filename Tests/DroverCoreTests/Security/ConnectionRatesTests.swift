// SPDX-License-Identifier: Apache-2.0

import DroverCore
import Testing

@Suite struct ConnectionRatesTests {
    private static func at(_ milliseconds: UInt64) -> Instant { Instant(nanoseconds: milliseconds * 1_000_000) }

    @Test("a key may open many connections at once, and for long as many as time allows; others don't suffer")
    func rates() {
        var rates = ConnectionRates(burst: 10, perSecond: 2)
        let burst = (0..<15).map { _ in rates.admits("greedy", at: Self.at(1000)) }
        #expect(burst == (0..<15).map { $0 < 10 })
        let other = rates.admits("modest", at: Self.at(1000))
        #expect(other)
        // Two a second, however often it is tried.
        let later = (1...40).map { rates.admits("greedy", at: Self.at(1000 + 100 * $0)) }
        #expect(later.count { $0 } == 8)
        // It never gathers more than the burst.
        let muchLater = (0..<15).map { _ in rates.admits("greedy", at: Self.at(1_000_000)) }
        #expect(muchLater.count { $0 } == 10)
        // A clock that jumps back gives nothing and takes nothing.
        let back = rates.admits("greedy", at: Self.at(0))
        #expect(!back)
        rates.forget { $0 == "modest" }
        #expect(rates.count == 1)
    }
}
