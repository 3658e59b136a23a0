// SPDX-License-Identifier: Apache-2.0

import Glibc
import Synchronization
import Testing

@testable import DroverZMQ

@Suite("Loop thread", .timeLimit(.minutes(1)))
struct LoopThreadTests {
    @Test("a thread has its name, cut to what the system takes")
    func name() throws {
        let name = ReadySignal<String>()
        let thread = try LoopThread.start(named: "drover with a long name") {
            var buffer = [UInt8](repeating: 0, count: 64)
            let file = open("/proc/thread-self/comm", O_RDONLY)
            let count = read(file, &buffer, buffer.count)
            close(file)
            name.set(String(decoding: buffer.prefix(max(count - 1, 0)), as: UTF8.self))
        }
        #expect(name.wait() == "drover with a l")
        #expect(thread.join())
        #expect(thread.join(within: Duration.zero))
    }

    @Test("signals go to other threads, faults stay")
    func signals() throws {
        func isTermBlocked() -> Bool {
            var mask = sigset_t()
            pthread_sigmask(SIG_SETMASK, nil, &mask)
            return sigismember(&mask, SIGTERM) == 1
        }
        let wasBlocked = isTermBlocked()
        let blocked = ReadySignal<[Bool]>()
        let thread = try LoopThread.start(named: "signals") {
            var mask = sigset_t()
            pthread_sigmask(SIG_SETMASK, nil, &mask)
            blocked.set([SIGTERM, SIGINT, SIGHUP, SIGSEGV, SIGABRT].map { sigismember(&mask, $0) == 1 })
        }
        #expect(blocked.wait() == [true, true, true, false, false])
        thread.join()
        #expect(isTermBlocked() == wasBlocked)
    }

    @Test("a thread for code of users takes the signals that the program takes, whoever starts it")
    func programSignals() throws {
        @Sendable func mask() -> UInt64? {
            let file = open("/proc/thread-self/status", O_RDONLY)
            defer { close(file) }
            var buffer = [UInt8](repeating: 0, count: 4096)
            let count = read(file, &buffer, buffer.count)
            return ProgramSignals.blockedBits(inStatus: String(decoding: buffer.prefix(max(count, 0)), as: UTF8.self))
        }
        let masks = ReadySignal<[UInt64?]>()
        let outer = try LoopThread.start(named: "blocks") {
            let own = mask()
            let inner = try? LoopThread.start(named: "users", signals: .asInProgram) { masks.set([own, mask()]) }
            inner?.join()
        }
        outer.join()
        var main: UInt64 = 0
        for number in CInt(1)...64 {
            if var mask = ProgramSignals.mainMask(), sigismember(&mask, number) == 1 { main |= 1 << UInt64(number - 1) }
        }
        let found = masks.wait()
        #expect(found[1] == main)
        #expect(found[0] != main)
        #expect(ProgramSignals.blockedBits(inStatus: "Name:\tx\nSigBlk:\t0000000000004000\n") == 1 << 14)
        #expect(ProgramSignals.blockedBits(inStatus: "Name:\tx\n") == nil)
    }

    @Test("a join waits no longer than its limit, and works for several threads")
    func joinWithin() throws {
        let parker = Parker()
        let thread = try LoopThread.start(named: "waits") { _ = parker.park() }
        #expect(!thread.join(within: .milliseconds(5)))
        let joined = Counter()
        let others = try (0..<3)
            .map { number in
                try LoopThread.start(named: "joins \(number)") { if thread.join() { joined.increment() } }
            }
        parker.unpark()
        for other in others { #expect(other.join(within: .seconds(10))) }
        #expect(joined.value == 3)
    }

    @Test("a thread knows itself, and can't wait for its own end")
    func itself() throws {
        let known = ReadySignal<LoopThread>()
        let answers = ReadySignal<[Bool]>()
        let thread = try LoopThread.start(named: "itself") {
            let me = known.wait()
            answers.set([me.isCurrent, me.join()])
        }
        known.set(thread)
        #expect(answers.wait() == [true, false])
        #expect(!thread.isCurrent)
        #expect(thread.join())
        #expect(!thread.isCurrent)
    }

    @Test("what the body holds is released before the join returns")
    func releasesBody() throws {
        final class Held: Sendable {
            let counter: Counter
            init(_ counter: Counter) { self.counter = counter }
            deinit { self.counter.increment() }
        }
        let released = Counter()
        let thread = try LoopThread.start(named: "holder") { [held = Held(released)] in _ = held.counter.value }
        thread.join()
        #expect(released.value == 1)
    }

    @Test("a ready signal gives its first value to all")
    func readySignal() throws {
        let signal = ReadySignal<Int>()
        #expect(signal.current == nil)
        #expect(signal.wait(until: MonotonicClock.deadline(after: .milliseconds(2))) == nil)
        let sum = Counter()
        let threads = try (0..<3)
            .map { number in
                try LoopThread.start(named: "waits \(number)") { if signal.wait() == 7 { sum.increment() } }
            }
        #expect(signal.set(7))
        #expect(!signal.set(8))
        for thread in threads { #expect(thread.join(within: .seconds(10))) }
        #expect(sum.value == 3)
    }
}
