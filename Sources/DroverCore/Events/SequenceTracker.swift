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

    /// An event with this number came, and with it those of the next numbers; nil is a call, which takes the next number
    /// without carrying it.
    package mutating func received(_ number: UInt64?, count: Int = 1) -> Verdict {
        let number = number ?? self.next
        let former = self.next
        self.next = max(former, number &+ UInt64(count))
        guard number >= former else { return .duplicate }
        return number == former ? .inOrder : .gap(number - former)
    }
}
