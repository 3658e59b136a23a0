// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// Finds an object by a type, from any thread and without a lock.
///
/// A program has a bounded number of types, so nothing is ever forgotten, and a table that became too small stays where
/// it is, for threads that are still reading it: all old tables together are no larger than the last.
@safe
package final class SharedTypeTable: Sendable {
    /// Written once: the entry first, the type last.
    private struct Slot: ~Copyable {
        let type = Atomic<UInt>(0)
        let entry = Atomic<UInt>(0)
    }

    /// The first slot of the table; before it is a slot whose entry is the number of slots minus one.
    private let table: Atomic<UInt>
    private let state = Mutex(State())

    private struct State: Sendable {
        var count = 0
        /// Tables that became too small.
        var former: [UInt] = []
    }

    /// Creates an empty table.
    package init() {
        unsafe self.table = Atomic(UInt(bitPattern: Self.newTable(32)))
    }

    deinit {
        let last = self.table.load(ordering: .acquiring)
        for table in self.state.withLock({ $0.former }) { Self.free(table, withEntries: false) }
        Self.free(last, withEntries: true)
    }

    private static func free(_ table: UInt, withEntries: Bool) {
        guard let slots = unsafe UnsafeMutablePointer<Slot>(bitPattern: table) else { return }
        let count = unsafe Int(bitPattern: slots.pointee.entry.load(ordering: .relaxed)) + 1
        for index in 1...count where withEntries {
            let entry = unsafe UnsafeRawPointer(bitPattern: slots[index].entry.load(ordering: .relaxed))
            if let entry = unsafe entry { unsafe Unmanaged<AnyObject>.fromOpaque(entry).release() }
        }
        unsafe slots.deinitialize(count: count + 1)
        unsafe slots.deallocate()
    }

    private static func newTable(_ count: Int) -> UnsafeMutablePointer<Slot> {
        let slots = UnsafeMutablePointer<Slot>.allocate(capacity: count + 1)
        for index in 0...count { unsafe (slots + index).initialize(to: Slot()) }
        unsafe slots.pointee.entry.store(UInt(count - 1), ordering: .relaxed)
        return unsafe slots
    }

    /// The object of the type; `make` makes it for a type that has none yet, and if two threads ask at once, one
    /// of their objects is used for both.
    ///
    /// - Parameters:
    ///   - type: The type.
    ///   - make: Makes the object.
    /// - Returns: The object, the same each time.
    package func entry<Entry: AnyObject & Sendable>(of type: Any.Type, _ make: () -> Entry) -> Entry {
        if let known = self.find(type, as: Entry.self) { return known }
        let made = make()
        return self.state.withLock { state in
            if let known = self.find(type, as: Entry.self) { return known }
            self.insert(type, unsafe UInt(bitPattern: Unmanaged.passRetained(made).toOpaque()), &state)
            return made
        }
    }

    private func find<Entry: AnyObject & Sendable>(_ type: Any.Type, as: Entry.Type) -> Entry? {
        guard let slots = unsafe UnsafeMutablePointer<Slot>(bitPattern: self.table.load(ordering: .acquiring)) else {
            return nil
        }
        let mask = unsafe Int(bitPattern: slots.pointee.entry.load(ordering: .relaxed))
        let id = UInt(bitPattern: ObjectIdentifier(type))
        var index = Self.first(id, mask)
        while true {
            let found = unsafe slots[index + 1].type.load(ordering: .acquiring)
            if found == 0 { return nil }
            if found == id {
                let entry = unsafe slots[index + 1].entry.load(ordering: .relaxed)
                guard let object = unsafe UnsafeRawPointer(bitPattern: entry) else { return nil }
                return unsafe Unmanaged<Entry>.fromOpaque(object).takeUnretainedValue()
            }
            index = (index &+ 1) & mask
        }
    }

    /// Puts an object in; the caller has the lock.
    private func insert(_ type: Any.Type, _ entry: UInt, _ state: inout State) {
        guard var slots = unsafe UnsafeMutablePointer<Slot>(bitPattern: self.table.load(ordering: .relaxed)) else {
            return
        }
        var mask = unsafe Int(bitPattern: slots.pointee.entry.load(ordering: .relaxed))
        if 2 * (state.count + 1) > mask {
            let places = unsafe Self.newTable(2 * (mask + 1))
            let wider = 2 * (mask + 1) - 1
            for index in 1...(mask + 1) {
                let id = unsafe slots[index].type.load(ordering: .relaxed)
                if id == 0 { continue }
                unsafe Self.put(id, slots[index].entry.load(ordering: .relaxed), in: places, wider)
            }
            state.former.append(UInt(bitPattern: slots))
            self.table.store(UInt(bitPattern: places), ordering: .releasing)
            unsafe slots = places
            mask = wider
        }
        state.count += 1
        unsafe Self.put(UInt(bitPattern: ObjectIdentifier(type)), entry, in: slots, mask)
    }

    private static func put(_ type: UInt, _ entry: UInt, in slots: UnsafeMutablePointer<Slot>, _ mask: Int) {
        var index = self.first(type, mask)
        while unsafe slots[index + 1].type.load(ordering: .relaxed) != 0 { index = (index &+ 1) & mask }
        unsafe slots[index + 1].entry.store(entry, ordering: .relaxed)
        unsafe slots[index + 1].type.store(type, ordering: .releasing)
    }

    private static func first(_ type: UInt, _ mask: Int) -> Int {
        Int(truncatingIfNeeded: (UInt64(type) &* 0x9E37_79B9_7F4A_7C15) >> 32) & mask
    }
}
