// SPDX-License-Identifier: Apache-2.0

/// How ids are spread over an ``IDTable``.
package enum IDHashing: Sendable {
    /// For ids that this process numbers itself, one after the other: the quickest.
    case sequential
    /// For ids that somebody else chooses, with a secret random number that they can't know.
    case seeded(UInt64)
}

/// Finds the slot of a 64-bit id: an open-addressing table with linear probing and without tombstones.
///
/// The id itself is no good as a home position, not even for ids in sequence: they'd form one long run, and any older
/// id in its way would shift, and make every removal walk, the rest of it. So ids are spread by multiplication, but in
/// blocks of four, a cache line, which neighbours share: a sequence fills lines here and there with room between them.
/// Ids chosen by others go through a keyed mixer first, and singly, so that nobody can aim at one place.
package struct IDIndex: Sendable {
    private struct Entry: Sendable {
        var id: UInt64
        var slot: UInt32
    }

    /// Marks an empty entry; no slot has this number.
    static var none: UInt32 { .max }
    private static var smallestCapacity: Int { 16 }

    private var entries: [Entry] = []
    private var mask = 0
    /// The shift that leaves as many bits of a product as there are positions, or blocks of positions.
    private var shift: UInt64 = 0
    private let isSequential: Bool
    private let key: (UInt64, UInt64)
    package private(set) var count = 0

    package init(_ hashing: IDHashing) {
        switch hashing {
        case .sequential:
            self.isSequential = true
            self.key = (0, 0)
        case .seeded(let seed):
            self.isSequential = false
            // Two odd multipliers out of one seed (the finaliser of SplitMix64).
            self.key = (Self.mixed(seed) | 1, Self.mixed(seed &+ 0x9E37_79B9_7F4A_7C15) | 1)
        }
    }

    var capacity: Int { self.entries.count }

    package func find(_ id: UInt64) -> UInt32? {
        if self.count == 0 { return nil }
        var position = self.home(of: id)
        while true {
            let entry = self.entries[position]
            if entry.slot == Self.none { return nil }
            if entry.id == id { return entry.slot }
            position = (position &+ 1) & self.mask
        }
    }

    /// Adds an id that isn't there yet.
    package mutating func insert(_ id: UInt64, slot: UInt32) {
        if self.count &* 2 >= self.entries.count {
            self.rebuild(capacity: max(self.entries.count * 2, Self.smallestCapacity))
        }
        self.place(Entry(id: id, slot: slot))
        self.count &+= 1
    }

    /// Removes an id that is there, and closes the gap so that searches needn't step over it.
    package mutating func remove(_ id: UInt64) {
        var gap = self.home(of: id)
        while self.entries[gap].id != id || self.entries[gap].slot == Self.none {
            precondition(self.entries[gap].slot != Self.none, "removed an id that isn't in the index")
            gap = (gap &+ 1) & self.mask
        }
        self.count &-= 1
        var position = gap
        while true {
            position = (position &+ 1) & self.mask
            let entry = self.entries[position]
            if entry.slot == Self.none { break }
            // An entry may move back only as far as its home.
            let distance = (position &- self.home(of: entry.id)) & self.mask
            if distance >= (position &- gap) & self.mask {
                self.entries[gap] = entry
                gap = position
            }
        }
        self.entries[gap].slot = Self.none
    }

    /// Gives back what the present entries don't need.
    mutating func trim() {
        if self.count == 0 {
            self.entries = []
            self.mask = 0
            return
        }
        var fitting = Self.smallestCapacity
        while fitting <= self.count * 2 { fitting *= 2 }
        if fitting < self.entries.count { self.rebuild(capacity: fitting) }
    }

    private mutating func rebuild(capacity: Int) {
        let old = self.entries
        self.entries = Array(repeating: Entry(id: 0, slot: Self.none), count: capacity)
        self.mask = capacity - 1
        let positionBits = capacity.trailingZeroBitCount
        self.shift = UInt64(64 - (self.isSequential ? positionBits - 2 : positionBits))
        for entry in old where entry.slot != Self.none { self.place(entry) }
    }

    private mutating func place(_ entry: Entry) {
        var position = self.home(of: entry.id)
        while self.entries[position].slot != Self.none { position = (position &+ 1) & self.mask }
        self.entries[position] = entry
    }

    private func home(of id: UInt64) -> Int {
        if self.isSequential {
            // Multiples of the golden section are spread as evenly as can be.
            let block = ((id &>> 2) &* 0x9E37_79B9_7F4A_7C15) &>> self.shift
            return Int(truncatingIfNeeded: block &<< 2 | id & 3)
        }
        let product = (id ^ self.key.1).multipliedFullWidth(by: self.key.0)
        return Int(truncatingIfNeeded: ((product.high ^ product.low) &* self.key.1) &>> self.shift)
    }

    private static func mixed(_ seed: UInt64) -> UInt64 {
        var mixed = (seed ^ (seed &>> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed &>> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed &>> 31)
    }
}
