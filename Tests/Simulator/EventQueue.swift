// SPDX-License-Identifier: Apache-2.0

/// What will happen, in the order of time, and of entry within an instant.
struct EventQueue<Event> {
    private struct Entry {
        var time: UInt64
        var number: UInt64
        var event: Event

        func isBefore(_ other: Self) -> Bool {
            self.time != other.time ? self.time < other.time : self.number < other.number
        }
    }

    /// A binary heap.
    private var entries: [Entry] = []
    private var number: UInt64 = 0

    mutating func add(_ event: Event, at time: UInt64) {
        self.number += 1
        self.entries.append(Entry(time: time, number: self.number, event: event))
        var child = self.entries.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard self.entries[child].isBefore(self.entries[parent]) else { return }
            self.entries.swapAt(child, parent)
            child = parent
        }
    }

    mutating func next() -> (time: UInt64, event: Event)? {
        guard let first = self.entries.first else { return nil }
        let last = self.entries.removeLast()
        guard !self.entries.isEmpty else { return (first.time, first.event) }
        self.entries[0] = last
        var parent = 0
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < self.entries.count {
                if self.entries[child].isBefore(self.entries[least]) { least = child }
            }
            guard least != parent else { break }
            self.entries.swapAt(parent, least)
            parent = least
        }
        return (first.time, first.event)
    }
}
