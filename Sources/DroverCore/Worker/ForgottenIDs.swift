// SPDX-License-Identifier: Apache-2.0

/// The ids of requests that were answered and whose answers are no longer kept.
///
/// The set is exact as long as it takes few ranges. Ranges are needed because requests overtake each other: one with a
/// lower id than others that were answered may never have arrived, above all a large one that is sent in parts. If
/// there are too many ranges, all ids up to the end of the lowest ones count as forgotten.
package struct ForgottenIDs: Equatable, Sendable {
    /// The ranges in rising order, with at least one id between two.
    private var ranges: [ClosedRange<UInt64>] = []
    /// All ids up to this one count as forgotten.
    private var upTo: UInt64 = 0
    /// How many ranges are kept: 16 KiB.
    package static var mostRanges: Int { 1024 }

    package init() {}

    /// How many ranges there are.
    package var rangeCount: Int { self.ranges.count }

    package func contains(_ id: UInt64) -> Bool {
        if id <= self.upTo { return true }
        let place = self.place(of: id)
        return place < self.ranges.count && self.ranges[place].contains(id)
    }

    package mutating func insert(_ id: UInt64) {
        guard id > self.upTo else { return }
        // Most ids are the next one, or close to it.
        let place = self.place(of: id)
        if place < self.ranges.count, self.ranges[place].contains(id) { return }
        let touchesLower = place > 0 && self.ranges[place - 1].upperBound == id - 1
        let touchesUpper = place < self.ranges.count && self.ranges[place].lowerBound - 1 == id
        switch (touchesLower, touchesUpper) {
        case (true, true):
            self.ranges[place - 1] = self.ranges[place - 1].lowerBound...self.ranges[place].upperBound
            self.ranges.remove(at: place)
        case (true, false): self.ranges[place - 1] = self.ranges[place - 1].lowerBound...id
        case (false, true): self.ranges[place] = id...self.ranges[place].upperBound
        case (false, false):
            self.ranges.insert(id...id, at: place)
            if self.ranges.count > Self.mostRanges { self.simplify() }
        }
    }

    /// Gives up half of the ranges at once, so that it needn't be done each time.
    private mutating func simplify() {
        let count = self.ranges.count / 2
        self.upTo = self.ranges[count - 1].upperBound
        self.ranges.removeFirst(count)
    }

    /// The first range that ends at or above an id.
    private func place(of id: UInt64) -> Int {
        guard let last = self.ranges.last, id <= last.upperBound else { return self.ranges.count }
        var (low, high) = (0, self.ranges.count - 1)
        while low < high {
            let middle = (low + high) / 2
            if self.ranges[middle].upperBound < id { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
