// SPDX-License-Identifier: Apache-2.0

/// Follows the numbers that a worker gives the events of one subscription, and finds what is missing (contract S76).
package struct SequenceTracker: Equatable, Sendable {
    /// What an arrival means.
    package enum Verdict: Equatable, Sendable {
        case inOrder
        /// So many numbers were passed over.
        case gap(UInt64)
        /// So many numbers that had been passed over came after all.
        case late(UInt64)
        /// A number that was seen before.
        case duplicate
    }

    private var next: UInt64 = 0
    /// The latest numbers that were passed over and may still come.
    ///
    /// What a former connection brought may be read after the first of what the next one brings.
    private var gaps: [Range<UInt64>] = []
    /// So many are remembered.
    private static var mostGaps: Int { 4 }

    package init() {}

    /// An event with this number came, and with it those of the next numbers; nil is a call, which takes the next number
    /// without carrying it.
    package mutating func received(_ number: UInt64?, count: Int = 1) -> Verdict {
        let number = number ?? self.next
        let end = number &+ UInt64(count)
        guard number >= self.next else { return self.receivedLate(number..<max(number, end)) }
        let missing = self.passed(upTo: number)
        self.next = max(number, end)
        return missing == 0 ? .inOrder : .gap(missing)
    }

    /// What has a lower number has come by now, or was lost.
    ///
    /// - Returns: How many numbers are passed over by that.
    package mutating func passed(upTo number: UInt64) -> UInt64 {
        guard number > self.next else { return 0 }
        defer { self.next = number }
        if self.gaps.count == Self.mostGaps { self.gaps.removeFirst() }
        self.gaps.append(self.next..<number)
        return number - self.next
    }

    private mutating func receivedLate(_ numbers: Range<UInt64>) -> Verdict {
        self.next = max(self.next, numbers.upperBound)
        var late: UInt64 = 0
        for index in self.gaps.indices {
            let found = self.gaps[index].clamped(to: numbers)
            guard !found.isEmpty else { continue }
            late += UInt64(found.count)
            // What was in front of them by the same connection doesn't come any more.
            self.gaps[index] = found.upperBound..<self.gaps[index].upperBound
        }
        self.gaps.removeAll { $0.isEmpty }
        return late == 0 ? .duplicate : .late(late)
    }
}
