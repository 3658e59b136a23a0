// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import DroverZMQ

@Suite("Parker", .timeLimit(.minutes(1)))
struct ParkerTests {
    @Test("an unpark that comes first is remembered, once")
    func remembersUnpark() {
        let parker = Parker()
        parker.unpark()
        parker.unpark()
        #expect(parker.park())
        #expect(!parker.park(until: MonotonicClock.now()))
    }

    @Test("a deadline ends the park, not before its time")
    func deadline() {
        let parker = Parker()
        let deadline = MonotonicClock.deadline(after: .milliseconds(3))
        #expect(!parker.park(until: deadline))
        #expect(MonotonicClock.now() >= deadline)
        #expect(!parker.park(until: 0))
        parker.unpark()
        #expect(parker.park(until: 0))
    }

    @Test("deadlines beyond all clocks are never")
    func saturates() {
        #expect(MonotonicClock.deadline(after: .seconds(Int64.max)) == MonotonicClock.never)
        #expect(MonotonicClock.deadline(after: .seconds(9_000_000_000)) < MonotonicClock.never)
        #expect(MonotonicClock.deadline(after: .seconds(-5)) <= MonotonicClock.now())
        #expect(MonotonicClock.deadline(after: .seconds(Int64.max) * 10) == MonotonicClock.never)
        #expect(MonotonicClock.deadline(after: .seconds(Int64.min) * 10) <= MonotonicClock.now())
        #expect(MonotonicClock.deadline(after: .nanoseconds(Int64.max)) < MonotonicClock.never)
        let parker = Parker()
        parker.unpark()
        #expect(parker.park(until: MonotonicClock.never - 1))
    }

    @Test("two threads hand a value to and fro")
    func pingPong() throws {
        final class Shared: @unchecked Sendable {
            // Changed only by the thread whose turn it is.
            var value = 0
            let there = Parker()
            let back = Parker()
        }
        let shared = Shared()
        let rounds = 20_000
        let thread = try LoopThread.start(named: "echo") {
            for _ in 0..<rounds {
                _ = shared.there.park()
                shared.value += 1
                shared.back.unpark()
            }
        }
        for round in 0..<rounds {
            shared.value += 1
            shared.there.unpark()
            // With a deadline every other time, so that both ways to sleep are met.
            let parked = shared.back.park(until: round % 2 == 0 ? nil : MonotonicClock.deadline(after: .seconds(30)))
            if !parked { Issue.record("not unparked in round \(round)") }
        }
        #expect(shared.value == 2 * rounds)
        #expect(thread.join(within: .seconds(10)))
    }

    @Test("each thread has one parker of its own")
    func current() throws {
        let mine = Parker.current
        #expect(Parker.current === mine)
        let other = ReadySignal<Parker>()
        let thread = try LoopThread.start(named: "other") {
            other.set(Parker.current)
            _ = Parker.current.park()
        }
        let theirs = other.wait()
        #expect(theirs !== mine)
        theirs.unpark()
        #expect(thread.join(within: .seconds(10)))
    }
}
