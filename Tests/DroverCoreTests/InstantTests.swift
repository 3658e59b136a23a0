// SPDX-License-Identifier: Apache-2.0

import DroverCore
import Testing

@Suite("Instant")
struct InstantTests {
    @Test("S31 a sum that overflows is the distant future")
    func sumsSaturate() {
        #expect(Instant(nanoseconds: 5).advanced(byNanoseconds: 7) == Instant(nanoseconds: 12))
        #expect(Instant(nanoseconds: 5).advanced(byNanoseconds: .max) == .distantFuture)
        #expect(Instant.distantFuture.advanced(byNanoseconds: 1) == .distantFuture)
    }

    @Test("the time since a later instant is zero")
    func differencesSaturate() {
        #expect(Instant(nanoseconds: 12).nanoseconds(since: Instant(nanoseconds: 5)) == 7)
        #expect(Instant(nanoseconds: 5).nanoseconds(since: Instant(nanoseconds: 12)) == 0)
    }
}
