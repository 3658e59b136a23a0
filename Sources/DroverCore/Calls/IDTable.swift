// SPDX-License-Identifier: Apache-2.0

/// Values by 64-bit id, each in a slot whose number stays the same until the value is removed.
///
/// Look up an id once, then use its slot. Slots are small, dense numbers, reused last in, first out, and so make good
/// keys for a ``TimerWheel`` and for arrays beside this one. Once the table has had its greatest size, inserting,
/// finding and removing allocate no memory. They release none either; for that, call ``trim()`` in a quiet moment.
@safe
package struct IDTable<Value: ~Copyable>: ~Copyable {
    /// The result of an insertion.
    package enum Insertion: Equatable, Sendable {
        /// The value is now in this slot.
        case inserted(UInt32)
        /// The id is there already, in this slot; the new value was dropped.
        case exists(UInt32)
        /// The table is at its limit; the new value was dropped.
        case full
    }

    struct Slot: BitwiseCopyable {
        var id: UInt64
        /// The next free slot, or ``live``.
        var next: UInt32
    }

    private static var live: UInt32 { .max - 1 }
    private static var none: UInt32 { .max }

    private var index: IDIndex
    private var slots = OwnedBuffer<Slot>()
    /// Has `slots.count` places; those of live slots are initialized.
    private var values: UnsafeMutablePointer<Value>
    /// The number of slots that have ever been used; those beyond aren't in the free list.
    private var usedSlots = 0
    private var firstFree = IDTable.none

    /// The greatest number of values.
    package let limit: Int

    /// Creates an empty table.
    ///
    /// - Parameters:
    ///   - limit: The greatest number of values.
    ///   - seed: A random number unknown to whoever chooses the ids; any number if this process chooses them.
    package init(limit: Int, seed: UInt64) {
        precondition(limit > 0 && limit < Int(Self.live), "a table holds 1 to 2^32 - 3 values")
        self.limit = limit
        self.index = IDIndex(seed: seed)
        unsafe self.values = .allocate(capacity: 0)
    }

    deinit {
        for slot in 0..<self.usedSlots where self.slots[slot].next == Self.live {
            unsafe (self.values + slot).deinitialize(count: 1)
        }
        unsafe self.values.deallocate()
    }

    /// The number of values.
    package var count: Int { self.index.count }

    package var isEmpty: Bool { self.index.count == 0 }

    /// The number of slots for which there is memory.
    package var capacity: Int { self.slots.count }

    /// Puts a value into a free slot, unless its id is there already or the table is full.
    package mutating func insert(_ id: UInt64, _ value: consuming Value) -> Insertion {
        if self.index.count >= self.limit {
            return if let slot = self.index.find(id) { .exists(slot) } else { .full }
        }
        let isNew = self.firstFree == Self.none
        let slot = isNew ? UInt32(truncatingIfNeeded: self.usedSlots) : self.firstFree
        if let existing = self.index.insert(id, slot: slot) { return .exists(existing) }
        if isNew {
            if self.usedSlots == self.slots.count { self.resize(to: min(max(self.usedSlots * 2, 16), self.limit)) }
            self.usedSlots &+= 1
        } else {
            self.firstFree = self.slots[Int(slot)].next
        }
        self.slots[Int(slot)] = Slot(id: id, next: Self.live)
        unsafe (self.values + Int(slot)).initialize(to: value)
        return .inserted(slot)
    }

    /// The slot of an id, or nil if it isn't there.
    package func slot(of id: UInt64) -> UInt32? {
        self.index.find(id)
    }

    /// Tells whether the slot holds a value.
    package func isLive(_ slot: UInt32) -> Bool {
        Int(slot) < self.usedSlots && self.slots[Int(slot)].next == Self.live
    }

    /// The id of the value in a live slot.
    package func id(of slot: UInt32) -> UInt64 {
        precondition(self.isLive(slot), "the slot is empty")
        return self.slots[Int(slot)].id
    }

    /// The value in a live slot, in place.
    package subscript(slot: UInt32) -> Value {
        _read {
            yield unsafe self.place(of: slot).pointee
        }
        _modify {
            yield unsafe &self.place(of: slot).pointee
        }
    }

    /// Takes the value out of a live slot, which is then free.
    @discardableResult
    package mutating func remove(_ slot: UInt32) -> Value {
        let value = unsafe self.place(of: slot).move()
        self.index.remove(self.slots[Int(slot)].id)
        self.slots[Int(slot)].next = self.firstFree
        self.firstFree = slot
        return value
    }

    /// The first live slot that isn't before `start`, or nil.
    ///
    /// Iterates over the table in the order of slots; the program may change the table meanwhile: `var next =
    /// table.firstSlot(from: 0); while let slot = next { ...; next = table.firstSlot(from: slot + 1) }`.
    ///
    /// - Complexity: O(number of free slots passed).
    package func firstSlot(from start: UInt32) -> UInt32? {
        var slot = Int(start)
        while slot < self.usedSlots {
            if self.slots[slot].next == Self.live { return UInt32(slot) }
            slot += 1
        }
        return nil
    }

    /// Releases the memory behind the highest live slot, all of it if the table is empty, unless that would be less
    /// than half.
    ///
    /// - Complexity: O(capacity).
    package mutating func trim() {
        var needed = self.usedSlots
        while needed > 0, self.slots[needed - 1].next != Self.live { needed -= 1 }
        self.index.trim()
        if needed > self.slots.count / 2 { return }
        self.usedSlots = needed
        self.firstFree = Self.none
        for slot in (0..<needed).reversed() where self.slots[slot].next != Self.live {
            self.slots[slot].next = self.firstFree
            self.firstFree = UInt32(slot)
        }
        self.resize(to: needed)
    }

    private func place(of slot: UInt32) -> UnsafeMutablePointer<Value> {
        precondition(self.isLive(slot), "the slot is empty")
        return unsafe self.values + Int(slot)
    }

    /// Moves the slots to memory for `capacity` slots, at least `usedSlots`.
    private mutating func resize(to capacity: Int) {
        let new = UnsafeMutablePointer<Value>.allocate(capacity: capacity)
        for slot in 0..<self.usedSlots where self.slots[slot].next == Self.live {
            unsafe (new + slot).moveInitialize(from: self.values + slot, count: 1)
        }
        unsafe self.values.deallocate()
        unsafe self.values = new
        self.slots.resize(to: capacity, filling: Slot(id: 0, next: Self.none))
    }
}

/// `@unchecked`: only the table accesses its memory, and it can't be copied, so it moves from one thread to another
/// whole or not at all.
extension IDTable: @unchecked Sendable where Value: Sendable & ~Copyable {}
