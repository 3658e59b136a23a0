// SPDX-License-Identifier: Apache-2.0

import DroverCore
import Simulator
import Testing

@Suite struct ResultCacheTests {
    private static func remember(_ cache: inout ResultCache, _ id: UInt64, _ count: Int) {
        let message = [UInt8](repeating: UInt8(truncatingIfNeeded: id), count: count)
        unsafe message.withUnsafeBytes { bytes in unsafe cache.remember(id, message: bytes) }
    }

    @Test("S97 an answer is held, was forgotten, or never came: in any history")
    func histories() throws {
        try withSeeds { random in
            var cache = ResultCache(maxBytes: 1024)
            var counts: [UInt64: Int] = [:]
            var highestGone: UInt64 = 0
            for id in 1...UInt64(60) where !random.oneIn(4) {
                let count = random.below(80)
                Self.remember(&cache, id, count)
                counts[id] = count
                // Looked for seldom, answers are found as well.
                guard id > 50 || random.oneIn(8) else { continue }
                for (id, count) in counts {
                    switch cache.find(id) {
                    case .held:
                        var isRight = false
                        unsafe cache.withMessage(id) { bytes in
                            isRight = unsafe bytes.count == count && bytes.allSatisfy { $0 == UInt8(id) }
                        }
                        try check(isRight, "the answer to \(id) is another")
                    case .removed: throw Violation("\(id) was answered, and the cache says that it never ran")
                    case .forgotten: highestGone = max(highestGone, id)
                    case .never: throw Violation("\(id) was answered, and the cache says never")
                    }
                }
                try check(cache.find(id + 1000) == .never, "an id above all is not known")
            }
            try check(highestGone > 0, "nothing was forgotten")
        }
    }

    @Test("S97 a cache that may grow forgets nothing that has not been read, and is as long as usual when it has")
    func growth() throws {
        try withSeeds { random in
            var cache = ResultCache(maxBytes: 1024)
            var unread: [UInt64: Int] = [:]
            var asked: [UInt64] = []
            var isOpen = false
            for id in 1...UInt64(300) {
                let count = 24 + random.below(40)
                let message = [UInt8](repeating: UInt8(truncatingIfNeeded: id), count: count)
                unsafe message.withUnsafeBytes { unsafe cache.remember(id, message: $0, mayGrow: 1 << 20) }
                unread[id] = count
                switch random.below(40) {
                case 0 where !isOpen:
                    cache.asked()
                    (isOpen, asked) = (true, Array(unread.keys))
                case 1...2 where isOpen:
                    cache.read()
                    for id in asked { unread[id] = nil }
                    isOpen = false
                case 3:
                    cache.questionLost()
                    isOpen = false
                default: break
                }
                guard random.oneIn(10) else { continue }
                for (id, count) in unread {
                    try check(cache.find(id) == .held, "the answer to \(id) was not read, and is forgotten")
                    var isRight = false
                    unsafe cache.withMessage(id) { bytes in
                        isRight =
                            unsafe bytes.count == count && bytes.allSatisfy { $0 == UInt8(truncatingIfNeeded: id) }
                    }
                    try check(isRight, "the answer to \(id) is another")
                }
            }
            cache.asked()
            cache.read()
            try check(cache.grownBytes == 0, "it is longer than usual")
            try check(cache.find(300) == .held, "the last answer is held")
        }
    }

    @Test("S97 a cache that may not grow further forgets, as one that never may")
    func growthIsBounded() {
        var cache = ResultCache(maxBytes: 1024)
        let message = [UInt8](repeating: 1, count: 64)
        for id in 1...UInt64(1000) {
            unsafe message.withUnsafeBytes { unsafe cache.remember(id, message: $0, mayGrow: 3000 - cache.grownBytes) }
        }
        #expect(cache.grownBytes == 1024)
        #expect(cache.find(1) == .forgotten && cache.find(1000) == .held && cache.find(970) == .held)
        var other = ResultCache(maxBytes: 1024)
        for id in 1...UInt64(1000) {
            unsafe message.withUnsafeBytes { unsafe other.remember(id, message: $0, mayGrow: 1 << 30) }
        }
        #expect(other.grownBytes == 15 * 1024)
    }

    @Test("S97 a request that was taken out is known as such, until it runs after all")
    func removal() {
        var cache = ResultCache(maxBytes: 1024)
        let message = [UInt8](repeating: 1, count: 24)
        unsafe message.withUnsafeBytes { bytes in unsafe cache.remember(7, message: bytes, isRemoval: true) }
        #expect(cache.find(7) == .removed)
        Self.remember(&cache, 7, 24)
        #expect(cache.find(7) == .held)
    }

    @Test("S97 a cache without room remembers that there were answers")
    func withoutRoom() {
        var cache = ResultCache(maxBytes: 0)
        Self.remember(&cache, 3, 24)
        #expect(cache.count == 0)
        #expect(cache.find(3) == .forgotten)
        #expect(cache.find(2) == .never && cache.find(4) == .never)
    }
}

@Suite struct TombstoneRingTests {
    @Test("S41 the last calls are remembered, older ones give way, S95 an id is never taken for another")
    func ring() {
        var ring = TombstoneRing(capacity: 3)
        let now = Instant(nanoseconds: 5)
        for id in 1...6 { ring.insert(UInt64(id), function: UInt32(id), wasAnswered: false, endedAt: now) }
        #expect(ring.find(1) == nil)
        #expect(ring.find(2) == nil)
        #expect(ring.find(0) == nil)
        #expect(ring.find(6)?.function == 6)
        ring.markAnswered(2)
        ring.markAnswered(6)
        #expect(ring.find(6)?.wasAnswered == true)
    }
}

@Suite struct SequenceTrackerTests {
    @Test(
        "S76 what is missing is told, what came before is a duplicate, what comes late was not missing, a call takes a number"
    )
    func arrivals() {
        var tracker = SequenceTracker()
        let numbers: [UInt64?] = [0, 1, nil, 3, 5, 4, 5, 6]
        let verdicts = numbers.map { tracker.received($0) }
        #expect(verdicts == [.inOrder, .inOrder, .inOrder, .inOrder, .gap(1), .late(1), .duplicate, .inOrder])
    }

    @Test("S76 numbers that come together count like one after the other")
    func together() {
        var tracker = SequenceTracker()
        #expect(tracker.received(0, count: 5) == .inOrder)
        #expect(tracker.received(5) == .inOrder)
        #expect(tracker.received(8, count: 2) == .gap(2))
        #expect(tracker.received(3, count: 2) == .duplicate)
        #expect(tracker.received(10) == .inOrder)
    }

    @Test("S76 numbers that are said to be over are missing, once, and what is read late of them is not")
    func told() {
        var tracker = SequenceTracker()
        #expect(tracker.received(0, count: 3) == .inOrder)
        #expect(tracker.passed(upTo: 3) == 0)
        #expect(tracker.passed(upTo: 10) == 7)
        #expect(tracker.passed(upTo: 10) == 0)
        #expect(tracker.passed(upTo: 4) == 0)
        // A call takes the number behind them.
        #expect(tracker.received(nil) == .inOrder)
        #expect(tracker.received(11) == .inOrder)
        // By the former connection, whose last messages were read after the first of the new one: 3 is lost.
        #expect(tracker.received(4, count: 2) == .late(2))
        #expect(tracker.received(4) == .duplicate)
        #expect(tracker.received(6, count: 4) == .late(4))
        #expect(tracker.received(12) == .inOrder)
        #expect(tracker.received(7) == .duplicate)
    }

    @Test("whatever a peer claims, the numbers are taken, and only the latest gaps are kept")
    func claims() {
        var tracker = SequenceTracker()
        for number in stride(from: UInt64(1), through: 19, by: 2) { #expect(tracker.received(number) == .gap(1)) }
        #expect(tracker.received(0) == .duplicate)
        #expect(tracker.received(18) == .late(1))
        #expect(tracker.received(.max) == .gap(.max - 20))
        #expect(tracker.received(.max, count: 3) == .inOrder)
        #expect(tracker.passed(upTo: .max) == 0)
    }
}

@Suite struct SpinPolicyTests {
    @Test("what never comes in time is looked out for ever more seldom, and what does always")
    func policy() {
        var policy = SpinPolicy()
        for _ in 0..<10 {
            let begins = policy.begins()
            #expect(begins)
            policy.ended(inTime: true)
        }
        var attempts: [Int] = []
        for wait in 0..<1000 where policy.begins() {
            attempts.append(wait)
            policy.ended(inTime: false)
        }
        // The pauses double: 1, 3, 7, up to the longest.
        #expect(Array(attempts.prefix(8)) == [0, 2, 6, 14, 30, 62, 126, 254])
        #expect(attempts.count == 13)
        while !policy.begins() {}
        policy.ended(inTime: true)
        #expect(policy == SpinPolicy())
    }
}

@Suite struct OrderingKeysTests {
    @Test("S9 jobs of a key start one at a time in their order, and a key leaves nothing behind")
    func order() {
        var keys = OrderingKeys<String>()
        #expect(keys.admit("a", 1) == .start)
        #expect(keys.admit("a", 2) == .queued)
        #expect(keys.admit("a", 3) == .queued)
        #expect(keys.admit("b", 4) == .start)
        #expect(keys.remove("a", 2) == true)
        #expect(keys.remove("a", 2) == false)
        #expect(keys.finished("a") == 3)
        #expect(keys.finished("a") == nil)
        #expect(keys.count == 1)
        #expect(keys.finished("b") == nil)
        #expect(keys.count == 0)
    }
}
