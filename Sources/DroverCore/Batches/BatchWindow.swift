// SPDX-License-Identifier: Apache-2.0

/// The places of a batch: which items are under way, which have ended, and which may be delivered next.
///
/// It can't be copied: it has one owner, and reading it must not copy what it holds.
///
/// An item takes a place before it is called and keeps it until its outcome is delivered. So the size limits how many
/// items are outstanding or wait for their turn, both together, however many items there are.
package struct BatchWindow: ~Copyable, Sendable {
    /// How many places there are.
    package let size: Int
    /// Whether outcomes are delivered in the order of the items.
    package let isOrdered: Bool
    /// How many items have taken a place.
    package private(set) var takenCount = 0
    /// How many items were delivered.
    package private(set) var deliveredCount = 0
    /// Whether no more items will come.
    package private(set) var isClosed = false

    private struct Place: Sendable {
        var index: Int
        var hasEnded: Bool
    }

    /// Grows up to the size as places are first used.
    private var places: [Place] = []
    /// Without order: places that are free again; the last one is taken first, because its memory is warm.
    private var freed: [UInt32] = []
    /// Without order: places whose items may be delivered.
    private var ready = ReadyPlaces()

    /// A window without items.
    ///
    /// - Parameters:
    ///   - size: How many places there are, at least one.
    ///   - isOrdered: Whether outcomes are delivered in the order of the items.
    package init(size: Int, isOrdered: Bool) {
        self.size = min(max(1, size), Int(UInt32.max))
        self.isOrdered = isOrdered
    }

    /// How many items have a place.
    package var heldCount: Int { self.takenCount - self.deliveredCount }

    /// Whether an item may come.
    package var hasRoom: Bool { !self.isClosed && self.heldCount < self.size }

    /// Whether all items were delivered and no more will come.
    package var isFinished: Bool { self.isClosed && self.heldCount == 0 }

    /// Whether fetching items is worthwhile: enough places are free to fetch many at once, or there is nothing else to
    /// do.
    package var wantsItems: Bool {
        self.hasRoom && (self.size - self.heldCount >= max(1, self.size / 8) || !self.hasDeliverable)
    }

    /// The place that the next delivery waits for; nil if any will do.
    package var awaitedPlace: UInt32? {
        self.isOrdered && self.heldCount > 0 ? self.place(of: self.deliveredCount) : nil
    }

    /// Whether something may be delivered.
    package var hasDeliverable: Bool {
        guard self.isOrdered else { return !self.ready.isEmpty }
        return self.heldCount > 0 && self.places[Int(self.place(of: self.deliveredCount))].hasEnded
    }

    /// Gives the next item a place; one must be free.
    ///
    /// - Returns: The place.
    package mutating func take() -> UInt32 {
        precondition(self.hasRoom, "a full or closed window was asked for a place")
        let place: UInt32
        if self.isOrdered {
            place = self.place(of: self.takenCount)
        } else {
            place = self.freed.popLast() ?? UInt32(self.places.count)
        }
        let entry = Place(index: self.takenCount, hasEnded: false)
        if Int(place) == self.places.count { self.places.append(entry) } else { self.places[Int(place)] = entry }
        self.takenCount += 1
        return place
    }

    /// The number of the item that has the place.
    package func index(in place: UInt32) -> Int { self.places[Int(place)].index }

    /// Whether the place's item has ended.
    package func hasEnded(in place: UInt32) -> Bool { self.places[Int(place)].hasEnded }

    /// The item in the place has ended; called once for each item.
    package mutating func ended(in place: UInt32) {
        precondition(!self.places[Int(place)].hasEnded, "an item of a batch ended twice")
        self.places[Int(place)].hasEnded = true
        if !self.isOrdered { self.ready.append(place) }
    }

    /// Delivers the next item, if one can be delivered, which frees its place.
    ///
    /// - Returns: The place the item had.
    package mutating func deliver() -> UInt32? {
        guard self.hasDeliverable else { return nil }
        let place: UInt32
        if self.isOrdered {
            place = self.place(of: self.deliveredCount)
        } else {
            place = self.ready.takeFirst()
            self.freed.append(place)
        }
        self.deliveredCount += 1
        return place
    }

    /// No more items will come.
    ///
    /// - Parameter count: How many items there were, if fewer than have taken a place: the last ones then give up
    ///   theirs.
    package mutating func closed(after count: Int? = nil) {
        self.isClosed = true
        if let count { self.takenCount = max(self.deliveredCount, min(self.takenCount, count)) }
    }

    private func place(of index: Int) -> UInt32 { UInt32(index % self.size) }
}

/// Places in the order they became ready.
///
/// This is an array with a start index, so that users of the window see what it is made of: otherwise each access would
/// look up types.
private struct ReadyPlaces: Sendable {
    private var places: [UInt32] = []
    private var start = 0

    var isEmpty: Bool { self.start == self.places.count }

    mutating func append(_ place: UInt32) { self.places.append(place) }

    /// Takes the first place; there must be one.
    mutating func takeFirst() -> UInt32 {
        let place = self.places[self.start]
        self.start += 1
        if self.isEmpty {
            self.places.removeAll(keepingCapacity: true)
            self.start = 0
        } else if self.start >= 1024, self.start * 2 >= self.places.count {
            self.places.removeFirst(self.start)
            self.start = 0
        }
        return place
    }
}
