// SPDX-License-Identifier: Apache-2.0

/// What will happen, in the order of time, and of entry within an instant.
struct EventQueue<Event> {
    /// Small, since the heap moves them: the events stay where they are.
    private struct Entry: BitwiseCopyable {
        var time: UInt64
        var number: UInt64
        var place: Int

        func isBefore(_ other: Self) -> Bool {
            self.time != other.time ? self.time < other.time : self.number < other.number
        }
    }

    /// A binary heap.
    private var entries: [Entry] = []
    private var events: [Event?] = []
    private var freePlaces: [Int] = []
    private var number: UInt64 = 0

    mutating func add(_ event: Event, at time: UInt64) {
        self.number += 1
        let place: Int
        if let free = self.freePlaces.popLast() {
            place = free
            self.events[place] = event
        } else {
            place = self.events.count
            self.events.append(event)
        }
        let entry = Entry(time: time, number: self.number, place: place)
        self.entries.append(entry)
        var child = self.entries.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard entry.isBefore(self.entries[parent]) else { break }
            self.entries[child] = self.entries[parent]
            child = parent
        }
        self.entries[child] = entry
    }

    mutating func next() -> (time: UInt64, event: Event)? {
        guard let first = self.entries.first, let event = self.events[first.place] else { return nil }
        self.events[first.place] = nil
        self.freePlaces.append(first.place)
        let last = self.entries.removeLast()
        let count = self.entries.count
        guard count > 0 else { return (first.time, event) }
        var parent = 0
        while 2 * parent + 1 < count {
            var least = 2 * parent + 1
            if least + 1 < count, self.entries[least + 1].isBefore(self.entries[least]) { least += 1 }
            guard self.entries[least].isBefore(last) else { break }
            self.entries[parent] = self.entries[least]
            parent = least
        }
        self.entries[parent] = last
        return (first.time, event)
    }
}
