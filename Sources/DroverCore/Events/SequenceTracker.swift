// SPDX-License-Identifier: Apache-2.0

/// Follows the numbers that a worker gives the events of one subscription, and finds missing ones (contract S76).
package struct SequenceTracker: Equatable, Sendable {
    /// What an arrival means.
    package enum Verdict: Equatable, Sendable {
        case inOrder
        /// This many numbers were skipped.
        case gap(UInt64)
        /// This many numbers that had been skipped arrived after all.
        case late(UInt64)
        /// A number that was seen before.
        case duplicate
    }

    private var next: UInt64 = 0
    /// The most recently skipped numbers that may still arrive.
    ///
    /// Events from a former connection may be read after the first events from the next one.
    private var gaps: [Range<UInt64>] = []
    /// How many gaps are remembered.
    private static var mostGaps: Int { 4 }

    package init() {}

    /// An event with this number arrived, and with it those of the next numbers; nil stands for a call, which takes the
    /// next number without carrying it.
    package mutating func received(_ number: UInt64?, count: Int = 1) -> Verdict {
        let number = number ?? self.next
        let end = number &+ UInt64(count)
        guard number >= self.next else { return self.receivedLate(number..<max(number, end)) }
        let missing = self.passed(upTo: number)
        self.next = max(number, end)
        return missing == 0 ? .inOrder : .gap(missing)
    }

    /// All events with lower numbers have arrived by now, or were lost.
    ///
    /// - Returns: How many numbers are skipped by that.
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
            // Earlier events from the same connection won't arrive any more.
            self.gaps[index] = found.upperBound..<self.gaps[index].upperBound
        }
        self.gaps.removeAll { $0.isEmpty }
        return late == 0 ? .duplicate : .late(late)
    }
}
