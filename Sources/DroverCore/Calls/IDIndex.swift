// SPDX-License-Identifier: Apache-2.0

/// Finds the slot of a 64-bit id: an open-addressing table with linear probing and without tombstones.
///
/// Ids mostly come in sequence, yet the id itself makes a poor home position: a sequence would form one long run, and
/// every new id that hits an older run would have to walk it. So ids are spread by multiplication, but in blocks of
/// four that neighbors share, each a cache line: a sequence fills lines scattered evenly, with room between them. Many
/// sequences at once work well, too.
///
/// A peer that chooses ids to collide can defeat that. An insertion that passes more than ``crowdLimit`` entries is
/// taken for such an attempt, and the table is rebuilt with a keyed mixer that no outsider can predict. The mixer is
/// three times as slow, so honest peers don't pay for it. It stays in use until the table is trimmed while empty.
///
/// Each run of entries is kept in the order of their homes ("Robin Hood"). A search for a missing id needn't walk the
/// whole run, and a removal moves back only those entries that aren't at home, up to the first that is.
struct IDIndex: ~Copyable {
    struct Entry {
        var id: UInt64
        var slot: UInt32
        var home: UInt32
    }

    /// Marks an empty entry; no slot has this number.
    static var none: UInt32 { .max }
    static var crowdLimit: Int { 128 }
    private static var smallestCapacity: Int { 16 }

    private var entries = OwnedBuffer<Entry>()
    private var mask = 0
    /// The shift that leaves exactly the bits of a product that number the blocks.
    private var shift: UInt64 = 0
    private let seed: UInt64
    /// Two odd multipliers derived from the seed.
    private var key: (UInt64, UInt64) = (0, 0)
    private(set) var count = 0
    /// Whether ids go through the keyed mixer.
    private(set) var isMixed = false

    /// Creates an empty index.
    ///
    /// - Parameter seed: A random number unknown to whoever chooses the ids.
    init(seed: UInt64) {
        self.seed = seed
    }

    var capacity: Int { self.entries.count }

    /// How far the farthest entry is from its home.
    ///
    /// - Complexity: O(capacity).
    var longestProbe: Int {
        var longest = 0
        for position in 0..<self.entries.count where self.entries[position].slot != Self.none {
            longest = max(longest, (position &- Int(self.entries[position].home)) & self.mask)
        }
        return longest
    }

    /// The slots of all ids, in no particular order.
    var slots: [UInt32] {
        (0..<self.entries.count).compactMap { self.entries[$0].slot == Self.none ? nil : self.entries[$0].slot }
    }

    func find(_ id: UInt64) -> UInt32? {
        if self.count == 0 { return nil }
        var position = Int(self.home(of: id))
        var distance = 0
        while true {
            let entry = self.entries[position]
            if entry.slot == Self.none { return nil }
            if entry.id == id { return entry.slot }
            if (position &- Int(entry.home)) & self.mask < distance { return nil }
            position = (position &+ 1) & self.mask
            distance &+= 1
        }
    }

    /// Adds an id, or returns its slot if it is there already.
    mutating func insert(_ id: UInt64, slot: UInt32) -> UInt32? {
        if self.count &* 4 >= self.entries.count &* 3 {
            self.rebuild(capacity: max(self.entries.count * 2, Self.smallestCapacity))
        }
        let (existing, passed) = self.place(id, slot: slot)
        if passed > Self.crowdLimit, !self.isMixed {
            self.isMixed = true
            self.key = (Self.finalised(self.seed) | 1, Self.finalised(self.seed &+ 0x9E37_79B9_7F4A_7C15) | 1)
            self.rebuild(capacity: self.entries.count)
        }
        return existing
    }

    /// Removes an id that is present, and closes the gap so that searches needn't step over it.
    mutating func remove(_ id: UInt64) {
        var gap = Int(self.home(of: id))
        while self.entries[gap].id != id || self.entries[gap].slot == Self.none {
            precondition(self.entries[gap].slot != Self.none, "removed an id that isn't in the index")
            gap = (gap &+ 1) & self.mask
        }
        self.count &-= 1
        while true {
            let next = (gap &+ 1) & self.mask
            let entry = self.entries[next]
            // The run is sorted by home: if this entry is at home, those behind it need no earlier place.
            if entry.slot == Self.none || Int(entry.home) == next { break }
            self.entries[gap] = entry
            gap = next
        }
        self.entries[gap].slot = Self.none
    }

    /// Releases memory that the present entries don't need.
    mutating func trim() {
        if self.count == 0 {
            self.entries = OwnedBuffer()
            self.mask = 0
            self.isMixed = false
            return
        }
        var fitting = Self.smallestCapacity
        while fitting * 3 <= self.count * 4 { fitting *= 2 }
        if fitting < self.entries.count { self.rebuild(capacity: fitting) }
    }

    private mutating func rebuild(capacity: Int) {
        let empty = Entry(id: 0, slot: Self.none, home: 0)
        var old = OwnedBuffer(repeating: empty, count: capacity)
        swap(&old, &self.entries)
        self.mask = capacity - 1
        self.shift = UInt64(64 - (capacity.trailingZeroBitCount - 2))
        self.count = 0
        for position in 0..<old.count where old[position].slot != Self.none {
            _ = self.place(old[position].id, slot: old[position].slot)
        }
    }

    private mutating func place(_ id: UInt64, slot: UInt32) -> (existing: UInt32?, passed: Int) {
        let home = self.home(of: id)
        var position = Int(home)
        var passed = 0
        while true {
            let entry = self.entries[position]
            if entry.slot == Self.none { break }
            if entry.id == id { return (entry.slot, passed) }
            if (position &- Int(entry.home)) & self.mask < passed { break }
            position = (position &+ 1) & self.mask
            passed &+= 1
        }
        self.count &+= 1
        var entry = Entry(id: id, slot: slot, home: home)
        // An entry nearer to its home than this one moves forward by one, and the rest of the run with it.
        while self.entries[position].slot != Self.none {
            let displaced = self.entries[position]
            self.entries[position] = entry
            entry = displaced
            position = (position &+ 1) & self.mask
            passed &+= 1
        }
        self.entries[position] = entry
        return (nil, passed)
    }

    private func home(of id: UInt64) -> UInt32 {
        if self.isMixed {
            let product = (id ^ self.key.1).multipliedFullWidth(by: self.key.0)
            return UInt32(truncatingIfNeeded: ((product.high ^ product.low) &* self.key.1) &>> (self.shift &- 2))
        }
        // Multiples of the golden ratio are spread as evenly as possible.
        let block = ((id &>> 2) &* 0x9E37_79B9_7F4A_7C15) &>> self.shift
        return UInt32(truncatingIfNeeded: block &<< 2 | id & 3)
    }

    /// The finalizer of SplitMix64.
    private static func finalised(_ seed: UInt64) -> UInt64 {
        var mixed = (seed ^ (seed &>> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed &>> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed &>> 31)
    }
}
