// SPDX-License-Identifier: Apache-2.0

/// Finds an object by a type, in a few instructions.
///
/// A program has a bounded number of types, so nothing is ever forgotten. One thread uses a table at a time.
@safe
struct TypeTable<Entry: AnyObject>: ~Copyable {
    @safe
    private struct Slot {
        var type: ObjectIdentifier?
        var entry: Unmanaged<Entry>?
    }

    private var slots: UnsafeMutablePointer<Slot>
    /// The number of slots minus one; the number is a power of two, and at least half of the slots are free.
    private var mask: Int
    private var count = 0

    init() {
        unsafe self.slots = Self.slots(16)
        self.mask = 15
    }

    deinit {
        self.forEach { entry in unsafe Unmanaged.passUnretained(entry).release() }
        unsafe self.slots.deallocate()
    }

    private static func slots(_ count: Int) -> UnsafeMutablePointer<Slot> {
        let slots = UnsafeMutablePointer<Slot>.allocate(capacity: count)
        unsafe slots.initialize(repeating: Slot(), count: count)
        return unsafe slots
    }

    /// The object that belongs to the type.
    @inline(__always)
    subscript(type: Any.Type) -> Entry? {
        let id = ObjectIdentifier(type)
        var index = self.index(of: id)
        while let found = unsafe self.slots[index].type {
            if found == id { return unsafe self.slots[index].entry?.takeUnretainedValue() }
            index = (index &+ 1) & self.mask
        }
        return nil
    }

    @inline(__always)
    private func index(of type: ObjectIdentifier) -> Int {
        // Metadata is aligned, and types used together are close in memory: the product's upper half tells them apart.
        let spread = UInt64(UInt(bitPattern: type)) &* 0x9E37_79B9_7F4A_7C15
        return Int(truncatingIfNeeded: spread >> 32) & self.mask
    }

    /// Notes the object of a type that has none yet.
    mutating func insert(_ entry: Entry, for type: Any.Type) {
        if 2 * (self.count + 1) > self.mask { self.grow() }
        self.count += 1
        unsafe self.put(Slot(type: ObjectIdentifier(type), entry: Unmanaged.passRetained(entry)))
    }

    private func put(_ slot: Slot) {
        guard let type = slot.type else { return }
        var index = self.index(of: type)
        while unsafe self.slots[index].type != nil { index = (index &+ 1) & self.mask }
        unsafe self.slots[index] = slot
    }

    private mutating func grow() {
        let (old, oldCount) = unsafe (self.slots, self.mask + 1)
        self.mask = 2 * oldCount - 1
        unsafe self.slots = Self.slots(2 * oldCount)
        for index in 0..<oldCount { unsafe self.put(old[index]) }
        unsafe old.deallocate()
    }

    func forEach(_ body: (Entry) -> Void) {
        for index in 0...self.mask {
            if let entry = unsafe self.slots[index].entry { unsafe body(entry.takeUnretainedValue()) }
        }
    }
}
