// SPDX-License-Identifier: Apache-2.0

import Glibc
import Testing

@testable import DroverZMQ

@Suite("Baton", .timeLimit(.minutes(1)))
struct BatonTests {
    @Test("the holder gets back what nobody took")
    func reclaims() {
        let baton = Baton()
        #expect(baton.currentLoan() == nil)
        let ticket = baton.lend()
        #expect(baton.currentLoan() == ticket)
        #expect(baton.reclaim(ticket))
        #expect(baton.currentLoan() == nil)
        #expect(!baton.reclaim(ticket))
    }

    @Test("who takes over has it, and the former holder doesn't")
    func takesOver() throws {
        let baton = Baton()
        let ticket = baton.lend()
        let seen = try #require(baton.currentLoan())
        #expect(baton.takeOver(seen))
        #expect(!baton.reclaim(ticket))
        #expect(!baton.takeOver(seen))
        // The new holder lends it in turn.
        #expect(baton.reclaim(baton.lend()))
    }

    @Test("a loan seen before the last one can't be taken over")
    func ticketsAreNotConfused() throws {
        let baton = Baton()
        let first = baton.lend()
        let seen = try #require(baton.currentLoan())
        #expect(baton.reclaim(first))
        let second = baton.lend()
        #expect(second != first)
        #expect(!baton.takeOver(seen))
        #expect(!baton.reclaim(first))
        #expect(baton.reclaim(second))
    }

    @Test("lending what is lent is a mistake of the program")
    func lendingTwice() async {
        await #expect(processExitsWith: .failure) {
            let baton = Baton()
            _ = baton.lend()
            _ = baton.lend()
        }
    }

    @Test("a standby thread takes over a loan that lasts, also after it fell asleep", arguments: [1, 1_000_000])
    func standsBy(quiet: Int) throws {
        let baton = Baton()
        let thread = try LoopThread.start(named: "standby") {
            if baton.standByUntilTakenOver(period: .microseconds(200), quiet: quiet) {
                // Holds it, and gives it back by a loan that the main thread takes over.
                _ = baton.lend()
            }
        }
        if quiet == 1 {
            while !baton.hasSleeper { sched_yield() }
        }
        let ticket = baton.lend()
        #expect(thread.join(within: .seconds(10)))
        #expect(!baton.reclaim(ticket))
        let loan = try #require(baton.currentLoan())
        #expect(loan != ticket)
        #expect(baton.takeOver(loan))
    }

    @Test("retiring ends all standing by, asleep, looking, or yet to come")
    func retires() throws {
        let baton = Baton()
        let held = Counter()
        let threads = try [1, 1, 1_000_000]
            .map { quiet in
                try LoopThread.start(named: "standby") {
                    let period = Duration.milliseconds(quiet == 1 ? 1 : 3_600_000)
                    if baton.standByUntilTakenOver(period: period, quiet: quiet) { held.increment() }
                }
            }
        while !baton.hasSleeper { sched_yield() }
        baton.retire()
        for thread in threads { #expect(thread.join(within: .seconds(10))) }
        #expect(held.value == 0)
        #expect(!baton.standByUntilTakenOver())
        #expect(baton.reclaim(baton.lend()))
    }

    @Test("one thread at a time, whoever lends, reclaims, stands by or sleeps", arguments: [2, 3])
    func stress(threadCount: Int) throws {
        let loop = ContestedLoop(rounds: 6_000)
        // One thread is the first holder, the others stand by.
        let threads = try (0..<threadCount)
            .map { number in
                try LoopThread.start(named: "runner \(number)") { loop.run(isHolder: number == 0, seed: number) }
            }
        for thread in threads { #expect(thread.join(within: .seconds(50))) }
        #expect(loop.rounds >= 6_000)
        #expect(loop.total == loop.sum.value)
        #expect(loop.takeovers.value > 0)
    }
}

/// A loop with state that only the baton protects.
private final class ContestedLoop: @unchecked Sendable {
    let baton = Baton()
    let sum = Counter()
    let takeovers = Counter()
    // Only the holder touches these two; a second holder at the same time would lose counts, and ThreadSanitizer
    // would see any access that isn't ordered.
    private(set) var total = 0
    private(set) var rounds = 0
    private let limit: Int

    init(rounds: Int) {
        self.limit = rounds
    }

    func run(isHolder: Bool, seed: Int) {
        var random = UInt64(seed + 1) &* 0x9E37_79B9_7F4A_7C15
        func next() -> UInt64 {
            random ^= random << 13
            random ^= random >> 7
            random ^= random << 17
            return random
        }
        var isHolder = isHolder
        while true {
            if !isHolder {
                guard self.baton.standByUntilTakenOver(period: .microseconds(50), quiet: 3) else { return }
                self.takeovers.increment()
            }
            isHolder = false
            while true {
                for _ in 0..<next() % 16 {
                    self.total += 1
                    self.sum.increment()
                }
                self.rounds += 1
                if self.rounds >= self.limit {
                    self.baton.retire()
                    return
                }
                // Now and then the loop is held so long that the others fall asleep.
                if next() % 128 == 0 { usleep(600) }
                let ticket = self.baton.lend()
                switch next() % 32 {
                case 0: usleep(UInt32(next() % 300))
                case 1...4: sched_yield()
                default: break
                }
                guard self.baton.reclaim(ticket) else { break }
            }
        }
    }
}
