// SPDX-License-Identifier: Apache-2.0

/// Remembers the most recently ended calls, to tell late and duplicate replies from unknown ones (contract S41, S95).
///
/// Ids rise by one, so an id's number gives its place, and a lookup takes one access. A newer id replaces the one in
/// its place.
package struct TombstoneRing: Sendable {
    /// A call that ended.
    package struct Tombstone: Equatable, Sendable {
        package var id: UInt64
        package var function: UInt32
        package var wasAnswered: Bool
        package var endedAt: Instant
    }

    private var places: [Tombstone]
    private let mask: Int

    /// Creates an empty ring.
    ///
    /// - Parameter capacity: How many calls it remembers, rounded up to a power of two.
    package init(capacity: Int) {
        var size = 1
        while size < max(1, capacity) { size *= 2 }
        self.mask = size - 1
        let empty = Tombstone(id: 0, function: 0, wasAnswered: false, endedAt: Instant(nanoseconds: 0))
        self.places = Array(repeating: empty, count: size)
    }

    /// Remembers that a call ended.
    package mutating func insert(_ id: UInt64, function: UInt32, wasAnswered: Bool, endedAt: Instant) {
        self.places[Int(truncatingIfNeeded: id) & self.mask] = Tombstone(
            id: id,
            function: function,
            wasAnswered: wasAnswered,
            endedAt: endedAt
        )
    }

    /// What is remembered about a call; ids start at 1, so 0 finds nothing.
    package func find(_ id: UInt64) -> Tombstone? {
        let place = self.places[Int(truncatingIfNeeded: id) & self.mask]
        return id != 0 && place.id == id ? place : nil
    }

    /// An answer arrived after all.
    package mutating func markAnswered(_ id: UInt64) {
        let index = Int(truncatingIfNeeded: id) & self.mask
        if self.places[index].id == id { self.places[index].wasAnswered = true }
    }
}
