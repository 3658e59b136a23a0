// SPDX-License-Identifier: Apache-2.0

/// A lock that one thread holds most of the time and others try to get while it sleeps.
///
/// Only the serving thread waits for it; others try, and take another path if it is held. What one holder wrote, the
/// next one sees.
package final class TurnLock: Sendable {
    private static let free: UInt32 = 0
    private static let held: UInt32 = 1
    /// The lock is held, and the serving thread sleeps until it is released.
    private static let awaited: UInt32 = 2

    private let word = FutexWord(TurnLock.free)

    package init() {}

    /// Takes the lock if it is free.
    package func tryToAcquire() -> Bool {
        self.word.compareExchange(Self.free, Self.held)
    }

    /// Takes the lock, waiting for it; only for the serving thread.
    @available(*, noasync)
    package func acquire() {
        if self.tryToAcquire() { return }
        while self.word.exchange(Self.awaited) != Self.free {
            _ = self.word.wait(while: Self.awaited, until: MonotonicClock.never)
        }
    }

    /// Releases the lock; only for its holder.
    package func release() {
        if self.word.exchange(Self.free) == Self.awaited { self.word.wake(1) }
    }
}
