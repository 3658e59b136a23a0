// SPDX-License-Identifier: Apache-2.0

import Glibc
import Testing

@testable import DroverZMQ

@Suite("LoopToken", .timeLimit(.minutes(1)))
struct LoopTokenTests {
    @Test("the holder gets back what nobody took")
    func reclaims() {
        let token = LoopToken()
        #expect(token.currentLoan() == nil)
        let ticket = token.lend()
        #expect(token.currentLoan() == ticket)
        #expect(token.reclaim(ticket))
        #expect(token.currentLoan() == nil)
        #expect(!token.reclaim(ticket))
    }

    @Test("who takes over has it, and the former holder doesn't")
    func takesOver() throws {
        let token = LoopToken()
        let ticket = token.lend()
        let seen = try #require(token.currentLoan())
        #expect(token.takeOver(seen))
        #expect(!token.reclaim(ticket))
        #expect(!token.takeOver(seen))
        // The new holder lends it in turn.
        #expect(token.reclaim(token.lend()))
    }

    @Test("a loan seen before the last one can't be taken over")
    func ticketsAreNotConfused() throws {
        let token = LoopToken()
        let first = token.lend()
        let seen = try #require(token.currentLoan())
        #expect(token.reclaim(first))
        let second = token.lend()
        #expect(second != first)
        #expect(!token.takeOver(seen))
        #expect(!token.reclaim(first))
        #expect(token.reclaim(second))
    }

    @Test("lending what is lent is a mistake of the program")
    func lendingTwice() async {
        await #expect(processExitsWith: .failure) {
            let token = LoopToken()
            _ = token.lend()
            _ = token.lend()
        }
    }

    @Test("a standby thread takes over a loan that lasts, also after it fell asleep", arguments: [1, 1_000_000])
    func standsBy(quiet: Int) throws {
        let token = LoopToken()
        let thread = try LoopThread.start(named: "standby") {
            if token.standByUntilTakenOver(period: .microseconds(200), quiet: quiet) {
                // Holds it, and gives it back by a loan that the main thread takes over.
                _ = token.lend()
            }
        }
        if quiet == 1 {
            while !token.hasSleeper { sched_yield() }
        }
        let ticket = token.lend()
        #expect(thread.join(within: .seconds(10)))
        #expect(!token.reclaim(ticket))
        let loan = try #require(token.currentLoan())
        #expect(loan != ticket)
        #expect(token.takeOver(loan))
    }

    @Test("retiring ends all standing by, asleep, looking, or yet to come")
    func retires() throws {
        let token = LoopToken()
        let held = Counter()
        let threads = try [1, 1, 1_000_000]
            .map { quiet in
                try LoopThread.start(named: "standby") {
                    let period = Duration.milliseconds(quiet == 1 ? 1 : 3_600_000)
                    if token.standByUntilTakenOver(period: period, quiet: quiet) { held.increment() }
                }
            }
        while !token.hasSleeper { sched_yield() }
        token.retire()
        for thread in threads { #expect(thread.join(within: .seconds(10))) }
        #expect(held.value == 0)
        #expect(!token.standByUntilTakenOver())
        #expect(token.reclaim(token.lend()))
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

/// A loop with state that only the token protects.
private final class ContestedLoop: @unchecked Sendable {
    let token = LoopToken()
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
                guard self.token.standByUntilTakenOver(period: .microseconds(50), quiet: 3) else { return }
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
                    self.token.retire()
                    return
                }
                // Now and then the loop is held so long that the others fall asleep.
                if next() % 128 == 0 { usleep(600) }
                let ticket = self.token.lend()
                switch next() % 32 {
                case 0: usleep(UInt32(next() % 300))
                case 1...4: sched_yield()
                default: break
                }
                guard self.token.reclaim(ticket) else { break }
            }
        }
    }
}
