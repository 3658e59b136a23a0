// SPDX-License-Identifier: Apache-2.0

import DroverCore
import Testing

@Suite
struct StallWatchTests {
    private static let stalled = StallWatch.Slots(count: 2, taken: 2, waiting: 2)

    private static func at(_ milliseconds: UInt64) -> Instant {
        Instant(nanoseconds: 1_000_000_000 + milliseconds * 1_000_000)
    }

    @Test("it looks every 20 ms as long as handlers wait")
    func looks() {
        var watch = StallWatch()
        #expect(watch.nextLook == .distantFuture)
        #expect(watch.mustLook(at: Self.at(0)) == false)
        #expect(watch.nextLook == Self.at(20))
        #expect(watch.mustLook(at: Self.at(19)) == false)
        #expect(watch.mustLook(at: Self.at(25)) == true)
        #expect(watch.nextLook == Self.at(45))
        watch.stop()
        #expect(watch.nextLook == .distantFuture)
    }

    @Test("slots are given back when two looks agree that all are held by handlers that wait")
    func givesBack() {
        var watch = StallWatch()
        for slots in [
            StallWatch.Slots(count: 2, taken: 1, waiting: 1), StallWatch.Slots(count: 2, taken: 2, waiting: 1),
            StallWatch.Slots(count: 2, taken: 2, waiting: 0, stuck: 2),
        ] {
            for time in [UInt64(0), 20, 40] { #expect(watch.found(slots, at: Self.at(time)) == false) }
        }
        #expect(watch.found(Self.stalled, at: Self.at(60)) == false)
        #expect(watch.found(Self.stalled, at: Self.at(80)) == true)
        watch.gaveBack(2, at: Self.at(80))
        // It begins anew.
        #expect(watch.found(StallWatch.Slots(count: 3, taken: 3, waiting: 2, stuck: 1), at: Self.at(100)) == false)
        #expect(watch.found(StallWatch.Slots(count: 3, taken: 3, waiting: 2, stuck: 1), at: Self.at(120)) == true)
        #expect(!watch.isStalled)
    }

    @Test("if none may be given back it is said when it has lasted, and logged once a minute, until something goes on")
    func says() {
        var watch = StallWatch()
        #expect(watch.found(Self.stalled, at: Self.at(0)) == false)
        #expect(watch.found(Self.stalled, at: Self.at(20)) == true)
        watch.gaveBack(0, at: Self.at(20))
        #expect(!watch.isStalled)
        #expect(watch.mayWarn(at: Self.at(20)) == false)
        #expect(watch.found(Self.stalled, at: Self.at(150)) == true)
        watch.gaveBack(0, at: Self.at(150))
        #expect(watch.isStalled)
        #expect(watch.mayWarn(at: Self.at(150)) == true)
        #expect(watch.mayWarn(at: Self.at(60_149)) == false)
        #expect(watch.mayWarn(at: Self.at(60_150)) == true)
        #expect(watch.found(StallWatch.Slots(count: 2, taken: 1, waiting: 1), at: Self.at(60_200)) == false)
        #expect(!watch.isStalled)
    }

    @Test("another stall soon after one that was logged is logged as well, once in five seconds at most")
    func again() {
        var watch = StallWatch()
        func stall(at time: UInt64) -> Bool {
            _ = watch.found(StallWatch.Slots(count: 2, taken: 1, waiting: 1), at: Self.at(time))
            _ = watch.found(Self.stalled, at: Self.at(time + 20))
            _ = watch.found(Self.stalled, at: Self.at(time + 200))
            watch.gaveBack(0, at: Self.at(time + 200))
            return watch.mayWarn(at: Self.at(time + 200))
        }
        let warned = [stall(at: 0), stall(at: 1000), stall(at: 5100), stall(at: 10_200)]
        #expect(warned == [true, false, true, true])
        #expect(watch.mayWarn(at: Self.at(20_000)) == false)
    }
}
