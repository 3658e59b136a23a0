// SPDX-License-Identifier: Apache-2.0

/// Follows the numbers that a worker gives the events of one subscription, and finds what is missing (contract S76).
package struct SequenceTracker: Equatable, Sendable {
    /// What an arrival means.
    package enum Verdict: Equatable, Sendable {
        case inOrder
        /// So many numbers were passed over.
        case gap(UInt64)
        /// A number that was seen or passed over before.
        case duplicate
    }

    private var next: UInt64 = 0

    package init() {}

    /// An event with this number came; nil is a call, which takes the next number without carrying it.
    package mutating func received(_ number: UInt64?) -> Verdict {
        let number = number ?? self.next
        guard number >= self.next else { return .duplicate }
        defer { self.next = number &+ 1 }
        return number == self.next ? .inOrder : .gap(number - self.next)
    }
}
