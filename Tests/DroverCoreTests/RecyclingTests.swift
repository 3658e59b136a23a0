// SPDX-License-Identifier: Apache-2.0

import DroverCore
import Testing

@Suite("Recycling")
struct RecyclingTests {
    private static func at(_ seconds: UInt64) -> Instant { Instant(nanoseconds: seconds * 1_000_000_000) }

    @Test("so many jobs are enough, and not one less")
    func jobs() {
        let recycling = Recycling(limits: .init(jobs: 3), at: Self.at(0), spread: 0)
        #expect(recycling.isDue(afterJobs: 2) == nil)
        #expect(recycling.isDue(afterJobs: 3) == .jobs(3))
        #expect(recycling.nextLook == .distantFuture)
    }

    @Test("an age is reached up to a tenth earlier, and looked for no sooner")
    func age() {
        var prompt = Recycling(limits: .init(ageNanoseconds: 100_000_000_000), at: Self.at(0), spread: 0)
        var early = Recycling(limits: .init(ageNanoseconds: 100_000_000_000), at: Self.at(0), spread: 1)
        #expect(prompt.nextLook == Self.at(100))
        #expect(early.nextLook == Self.at(90))
        let (before, after) = (prompt.look(at: Self.at(99)) { 0 }, prompt.look(at: Self.at(100)) { 0 })
        #expect(before == nil)
        #expect(after == .age(nanoseconds: 100_000_000_000))
        let sooner = early.look(at: Self.at(90)) { 0 }
        #expect(sooner == .age(nanoseconds: 90_000_000_000))
        #expect(prompt.isDue(afterJobs: .max) == nil)
    }

    @Test("memory is looked at once a second, and not without a limit")
    func memory() {
        var recycling = Recycling(limits: .init(residentBytes: 1000), at: Self.at(0), spread: 0)
        var looks = 0
        var reasons: [Recycling.Reason] = []
        for quarter in 0...20 as ClosedRange<UInt64> {
            let now = Instant(nanoseconds: quarter * 250_000_000)
            let reason = recycling.look(at: now) {
                looks += 1
                return 300 * looks
            }
            if let reason { reasons.append(reason) }
        }
        #expect(looks == 5)
        #expect(reasons == [.residentBytes(1200), .residentBytes(1500)])
    }
}
