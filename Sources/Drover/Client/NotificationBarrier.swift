// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// Knows whether a call may have ended whose waiters and callbacks have not been told yet.
///
/// The end of a call is published first (contract S51); its callbacks are queued a moment later, by the poller at the end of
/// its turn. Who has seen the end and waits for the callbacks must not come in between.
///
/// **Why it sees them.** A thread begins here before it publishes the end, by a release; who has seen that end has acquired
/// it, so it sees the beginning as well, or what came after it. The end here is a release after the callbacks were queued.
struct NotificationBarrier: ~Copyable, Sendable {
    /// The poller's turns, begun and ended: odd during a turn.
    ///
    /// Only the poller writes.
    private let turns = Atomic<UInt64>(0)
    /// Other threads that are ending a call.
    private let others = Atomic<Int>(0)

    func beginTurn() { self.turns.store(self.turns.load(ordering: .relaxed) | 1, ordering: .relaxed) }

    func endTurn() { self.turns.store((self.turns.load(ordering: .relaxed) | 1) + 1, ordering: .releasing) }

    func begin() { self.others.add(1, ordering: .relaxed) }

    func end() { self.others.subtract(1, ordering: .releasing) }

    /// Waits until who is told of a call that has ended by now has been told.
    func allTold() async {
        let turn = self.turns.load(ordering: .acquiring)
        // A turn takes microseconds; there may always be another one, but not the same.
        while turn & 1 != 0, self.turns.load(ordering: .acquiring) == turn { await Self.pause() }
        while self.others.load(ordering: .acquiring) != 0 { await Self.pause() }
    }

    private static func pause() async {
        await Task.yield()
        try? await Task.sleep(for: .microseconds(50))
    }
}
