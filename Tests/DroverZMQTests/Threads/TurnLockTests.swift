// SPDX-License-Identifier: Apache-2.0

import DroverZMQ
import Synchronization
import Testing

@Suite("Turn lock", .timeLimit(.minutes(1)))
struct TurnLockTests {
    @Test("who tries for a lock that is held doesn't get it; after the release, anybody does")
    func tries() {
        let lock = TurnLock()
        #expect(lock.tryToAcquire())
        #expect(!lock.tryToAcquire())
        lock.release()
        #expect(lock.tryToAcquire())
    }

    @Test("the serving thread and those that try never hold the lock together, and each sees what the last one wrote")
    func exclusion() throws {
        let lock = TurnLock()
        // Plain memory behind atomics without ordering: only the lock orders the two words.
        let first = Atomic<Int>(0)
        let second = Atomic<Int>(0)
        let torn = Atomic<Int>(0)
        let isOver = Atomic<Bool>(false)
        let taken = Atomic<Int>(0)
        @Sendable func turn() {
            let seen = first.load(ordering: .relaxed)
            if second.load(ordering: .relaxed) != seen { torn.add(1, ordering: .relaxed) }
            first.store(seen + 1, ordering: .relaxed)
            second.store(seen + 1, ordering: .relaxed)
        }
        let triers = try (0..<3)
            .map { _ in
                try LoopThread.start(named: "trier") {
                    while !isOver.load(ordering: .relaxed) {
                        guard lock.tryToAcquire() else { continue }
                        turn()
                        taken.add(1, ordering: .relaxed)
                        lock.release()
                    }
                }
            }
        let server = try LoopThread.start(named: "server") {
            for _ in 0..<20_000 {
                lock.acquire()
                turn()
                lock.release()
            }
            isOver.store(true, ordering: .relaxed)
        }
        _ = server.join()
        for trier in triers { _ = trier.join() }
        #expect(torn.load(ordering: .relaxed) == 0)
        #expect(first.load(ordering: .relaxed) == 20_000 + taken.load(ordering: .relaxed))
    }
}
