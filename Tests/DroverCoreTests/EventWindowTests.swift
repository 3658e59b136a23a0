// SPDX-License-Identifier: Apache-2.0

import DroverCore
import Testing

/// How far a worker gets ahead of who reads.
@Suite struct EventWindowTests {
    @Test("S82 a peer is asked how far it has read after every few thousand events, once at a time")
    func asking() {
        var window = EventWindow()
        window.take(EventWindow.period)
        let early = window.sent(EventWindow.period - 1)
        let asked = window.sent(1)
        #expect(!early && asked && window.isAsking)
        // No second question before the first is answered.
        window.take(EventWindow.period)
        let hasty = window.sent(EventWindow.period)
        #expect(!hasty)
        let again = window.answered()
        #expect(again && window.unread == EventWindow.period)
        let last = window.answered()
        #expect(!last && window.unread == 0 && !window.isAsking)
        let strange = window.answered()
        #expect(!strange && window.unread == 0)
    }

    @Test("what is large counts as much as it takes, and one message always has room")
    func units() {
        #expect(EventWindow.units(ofPayload: 0) == 1)
        #expect(EventWindow.units(ofPayload: 4095) == 1)
        #expect(EventWindow.units(ofPayload: 64 << 20) == 1 + 16384)
        var window = EventWindow()
        #expect(window.hasRoom)
        window.take(EventWindow.units(ofPayload: 64 << 20))
        #expect(!window.hasRoom)
    }

    @Test("S78 whatever is emitted, sent and read when: no more than the bound is unread, and none waits for ever")
    func property() {
        for seed in 1...200 as ClosedRange<UInt64> {
            var state = seed &* 0x9E37_79B9_7F4A_7C15
            func random(_ limit: Int) -> Int {
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                return Int(state >> 33) % limit
            }
            var window = EventWindow()
            var (queued, questions) = (0, 0)
            for _ in 0..<2000 {
                switch random(3) {
                case 0:
                    for _ in 0..<random(3000) where window.hasRoom {
                        window.take(1)
                        queued += 1
                    }
                case 1:
                    let count = random(queued + 1)
                    queued -= count
                    if window.sent(count) { questions += 1 }
                default:
                    guard questions > 0 else { continue }
                    questions -= 1
                    if window.answered() { questions += 1 }
                }
                #expect(window.unread <= EventWindow.limit)
                #expect(questions == (window.isAsking ? 1 : 0))
            }
            // All is sent and read in the end: who waits is woken.
            if window.sent(queued) { questions += 1 }
            while questions > 0 { questions = window.answered() ? 1 : 0 }
            #expect(window.isHalfEmpty && window.unread < EventWindow.period)
        }
    }
}
