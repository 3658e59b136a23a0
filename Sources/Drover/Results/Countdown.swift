// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// Counts down to the last of several.
final class Countdown: Sendable {
    private let remaining: Atomic<Int>

    init(_ count: Int) { self.remaining = Atomic(count) }

    /// Counts one.
    ///
    /// Returns whether it was the last.
    func isOver() -> Bool { self.remaining.subtract(1, ordering: .acquiringAndReleasing).newValue == 0 }
}
