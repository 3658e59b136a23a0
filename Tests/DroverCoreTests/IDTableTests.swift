// SPDX-License-Identifier: Apache-2.0

import Simulator
import Testing

@testable import DroverCore

@Suite("Table by id")
struct IDTableTests {
    @Test("a slot keeps its value until it is removed, and is the next to be used again")
    func slotsAreStable() {
        var table = IDTable<String>(limit: 100, seed: 0)
        #expect(table.insert(10, "a") == .inserted(0))
        #expect(table.insert(11, "b") == .inserted(1))
        #expect(table.insert(12, "c") == .inserted(2))
        table[1] += "!"
        let removed = table.remove(1)
        #expect(removed == "b!")
        let gone = table.slot(of: 11)
        #expect(gone == nil)
        #expect(table.insert(13, "d") == .inserted(1))
        for id in 14..<100 as Range<UInt64> { _ = table.insert(id, "x") }
        let first = table.slot(of: 10)
        let value = table[0]
        #expect(first == 0)
        #expect(value == "a")
    }

    @Test("an id that is there already and a table at its limit change nothing")
    func refusals() {
        var table = IDTable<Int>(limit: 2, seed: 0)
        #expect(table.insert(1, 1) == .inserted(0))
        #expect(table.insert(1, 9) == .exists(0))
        #expect(table.insert(2, 2) == .inserted(1))
        #expect(table.insert(3, 3) == .full)
        #expect(table.insert(2, 9) == .exists(1))
        table.remove(0)
        #expect(table.insert(3, 3) == .inserted(0))
        let values = [table[0], table[1]]
        #expect(values == [3, 2])
    }

    @Test("live slots are visited in order, also while they are removed")
    func visiting() {
        var table = IDTable<UInt64>(limit: 100, seed: 0)
        for id in 0..<20 as Range<UInt64> { _ = table.insert(id, id) }
        for slot in 5..<15 as Range<UInt32> { table.remove(slot) }
        var seen: [UInt64] = []
        var next = table.firstSlot(from: 0)
        while let slot = next {
            seen.append(table.remove(slot))
            next = table.firstSlot(from: slot + 1)
        }
        #expect(seen == [0, 1, 2, 3, 4, 15, 16, 17, 18, 19])
        let isEmpty = table.isEmpty
        #expect(isEmpty)
    }

    @Test("S102 an emptied table gives all its memory back, a smaller one what lies behind its last slot")
    func trimming() {
        var table = IDTable<UInt64>(limit: 1 << 20, seed: 0)
        for id in 0..<10_000 as Range<UInt64> { _ = table.insert(id, id) }
        for slot in 3..<10_000 as Range<UInt32> where slot != 5 { table.remove(slot) }
        table.trim()
        let small = table.capacity
        let values = [table[0], table[1], table[2], table[5]]
        #expect(small == 6)
        #expect(values == [0, 1, 2, 5])
        // Free slots below the last live one are still used, lowest first.
        #expect(table.insert(77, 77) == .inserted(3))
        #expect(table.insert(78, 78) == .inserted(4))
        #expect(table.insert(79, 79) == .inserted(6))
        var next = table.firstSlot(from: 0)
        while let slot = next {
            table.remove(slot)
            next = table.firstSlot(from: slot)
        }
        table.trim()
        let empty = table.capacity
        #expect(empty == 0)
        #expect(table.insert(5, 5) == .inserted(0))
    }

    /// Counts how many of its kind are alive.
    private final class Tally {
        var count = 0
    }

    private struct Unique: ~Copyable {
        let tally: Tally
        init(_ tally: Tally) {
            self.tally = tally
            tally.count += 1
        }
        deinit { self.tally.count -= 1 }
    }

    @Test("S102 values are released when they are removed, refused, or their table goes")
    func ownership() {
        let tally = Tally()
        do {
            var table = IDTable<Unique>(limit: 50, seed: 0)
            for id in 0..<60 as Range<UInt64> { _ = table.insert(id, Unique(tally)) }
            _ = table.insert(1, Unique(tally))
            #expect(tally.count == 50)
            for slot in 10..<50 as Range<UInt32> { _ = table.remove(slot) }
            #expect(tally.count == 10)
            table.trim()
            #expect(tally.count == 10)
            #expect(table[3].tally === tally)
        }
        #expect(tally.count == 0)
    }

    @Test("random histories agree with a dictionary, whatever the ids")
    func agreesWithModel() throws {
        try withSeeds(2000) { random in
            let limit = 1 + random.below(300)
            var table = IDTable<UInt64>(limit: limit, seed: random.next())
            var model: [UInt64: (slot: UInt32, value: UInt64)] = [:]
            var free: [UInt32] = []
            var nextID = random.next()
            let kind = random.below(4)
            let shift = UInt64(random.below(60))
            for _ in 0..<400 {
                var id: UInt64
                switch kind {
                case 0: id = nextID
                case 1: id = UInt64(random.below(400)) << shift
                case 2: id = UInt64(random.below(400)) &* 0x9E37_79B9_7F4A_7C15
                default: id = random.oneIn(2) ? nextID : UInt64(random.below(40))
                }
                nextID &+= 1
                if random.oneIn(2) || model.isEmpty {
                    if random.oneIn(4), let known = model.keys.min() { id = known }
                    let expected: IDTable<UInt64>.Insertion
                    if let known = model[id] {
                        expected = .exists(known.slot)
                    } else if model.count == limit {
                        expected = .full
                    } else {
                        let slot = free.popLast() ?? UInt32(model.count)
                        model[id] = (slot, id &* 3)
                        expected = .inserted(slot)
                    }
                    let insertion = table.insert(id, id &* 3)
                    try check(insertion == expected, "insert \(id): \(insertion), not \(expected)")
                } else {
                    // The oldest, the newest or any.
                    let ids = model.keys.sorted()
                    id = random.oneIn(2) ? ids[0] : ids[random.below(ids.count)]
                    guard let slot = table.slot(of: id) else { throw Violation("\(id) not found") }
                    try check(slot == model[id]?.slot, "\(id) in slot \(slot)")
                    try check(table.id(of: slot) == id, "id of \(slot)")
                    try check(table.remove(slot) == id &* 3, "value of \(id)")
                    try check(table.slot(of: id) == nil && !table.isLive(slot), "\(id) still there")
                    free.append(slot)
                    model[id] = nil
                }
                if model.isEmpty, random.oneIn(2) {
                    table.trim()
                    free = []
                    try check(table.capacity == 0, "not trimmed")
                }
                try check(table.count == model.count, "count")
            }
            for (id, entry) in model {
                try check(table.slot(of: id) == entry.slot && table[entry.slot] == entry.value, "\(id) lost")
            }
            var live: [UInt32] = []
            var next = table.firstSlot(from: 0)
            while let slot = next {
                live.append(slot)
                next = table.firstSlot(from: slot + 1)
            }
            try check(live == model.values.map(\.slot).sorted(), "live slots \(live)")
        }
    }

    @Test("S104 ids made to collide are mixed before they get slow, and stay right")
    func hostileIDs() {
        // With the plain hash all of these have the same home in any table: the inverse of its multiplier, times
        // numbers whose high bits are equal.
        let inverse: UInt64 = 0xF1DE_83E1_9937_733D
        #expect(inverse &* 0x9E37_79B9_7F4A_7C15 == 1)
        var index = IDIndex(seed: 42)
        var ids: [UInt64] = []
        var candidate: UInt64 = 0
        while ids.count < 20_000 {
            let block = candidate &* inverse
            candidate += 1
            if block >> 62 == 0 { ids.append(block << 2) }
        }
        for (slot, id) in ids.enumerated() {
            let existing = index.insert(id, slot: UInt32(slot))
            #expect(existing == nil)
        }
        let isMixed = index.isMixed
        let longest = index.longestProbe
        #expect(isMixed)
        #expect(longest < 64)
        for (slot, id) in ids.enumerated() where slot % 3 != 0 { index.remove(id) }
        for (slot, id) in ids.enumerated() {
            let found = index.find(id)
            #expect(found == (slot % 3 == 0 ? UInt32(slot) : nil))
        }
        for (slot, id) in ids.enumerated() where slot % 3 == 0 { index.remove(id) }
        index.trim()
        let isStillMixed = index.isMixed
        #expect(!isStillMixed)
    }

    @Test("ids in sequence, ids in many sequences and ids equal in their low bits need no mixing and few probes")
    func honestIDs() {
        for shift in [0, 1, 2, 8, 16, 20, 32, 40] as [UInt64] {
            for sequences in [1, 7, 100] as [UInt64] {
                var index = IDIndex(seed: 42)
                var random = SeededRandom(seed: shift)
                for _ in 0..<sequences {
                    let start = random.next() >> 8
                    for step in 0..<(20_000 / sequences) { _ = index.insert(start &+ (step << shift), slot: 1) }
                }
                let isMixed = index.isMixed
                let longest = index.longestProbe
                #expect(!isMixed, "shift \(shift), \(sequences) sequences")
                #expect(longest <= IDIndex.crowdLimit, "shift \(shift), \(sequences) sequences")
            }
        }
    }
}
