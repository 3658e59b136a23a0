// SPDX-License-Identifier: Apache-2.0

import DroverCore
import Testing

@Suite struct IdleWatchTests {
    @Test("memory is given back some seconds after the last work, a few times, and then no more")
    func times() {
        var watch = IdleWatch()
        var now = Instant(nanoseconds: 1)
        #expect(watch.nextDeadline == .distantFuture)
        watch.worked(at: now)
        now = now.advanced(byNanoseconds: 2_000_000_000)
        watch.worked(at: now)
        let early = watch.isDue(at: now.advanced(byNanoseconds: 2_999_999_999))
        #expect(!early)
        var pauses: [UInt64] = []
        while watch.nextDeadline != .distantFuture {
            pauses.append(watch.nextDeadline.nanoseconds(since: now) / 1_000_000_000)
            now = watch.nextDeadline
            let isDue = watch.isDue(at: now)
            #expect(isDue)
            let isDueAgain = watch.isDue(at: now)
            #expect(!isDueAgain)
        }
        #expect(pauses == [3, 6, 12, 24, 48])
        watch.worked(at: now)
        #expect(watch.nextDeadline.nanoseconds(since: now) == 3_000_000_000)
    }
}
