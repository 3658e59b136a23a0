// SPDX-License-Identifier: Apache-2.0

internal import Drover
internal import DroverCore
internal import DroverWire
internal import DroverZMQ
internal import Synchronization

/// What a broker's loop and its owner share.
final class BrokerCore: Sendable {
    enum State: UInt8 {
        case running
        /// No new calls; leaves when none is left.
        case draining
        /// The grace is over.
        case stopping
        case stopped
    }

    let configuration: BrokerConfiguration
    let identity: PeerID
    let epoch: UInt64
    let context: SharedContext
    let waker: Waker
    /// Whose keys are let in; nil for a broker without keys.
    let access: ListenerAccess?
    let counters = BrokerCounters()
    let drainDeadline = Atomic<UInt64>(.max)
    private let state = Atomic<UInt8>(State.running.rawValue)
    private let stopWaiters = Mutex<[CheckedContinuation<Void, Never>]>([])

    init(configuration: BrokerConfiguration) throws {
        self.configuration = configuration
        var generator = SystemRandomNumberGenerator()
        self.identity = PeerID(high: generator.next(), low: generator.next())
        self.epoch = generator.next() >> 1
        self.context = try SharedContext.acquire()
        let waker = try Waker()
        self.waker = waker
        self.access = try configuration.keys.map { [context] keys in
            try ListenerAccess(keys, in: context, logger: configuration.logger) { waker.wake() }
        }
    }

    func now() -> Instant { Instant(nanoseconds: MonotonicClock.now()) }

    var currentState: State { State(rawValue: self.state.load(ordering: .sequentiallyConsistent)) ?? .stopped }

    /// Moves on to a later state; never back.
    func advance(to state: State) {
        var known = self.state.load(ordering: .sequentiallyConsistent)
        while known < state.rawValue {
            let (exchanged, original) = self.state.compareExchange(
                expected: known,
                desired: state.rawValue,
                ordering: .sequentiallyConsistent
            )
            if exchanged { return self.waker.wake() }
            known = original
        }
    }

    func drain(grace: Duration) {
        let deadline = self.now().advanced(byNanoseconds: grace.clampedNanoseconds)
        self.drainDeadline.store(deadline.nanoseconds, ordering: .relaxed)
        self.advance(to: .draining)
    }

    /// Suspends until the loop has been left.
    func stopped() async {
        await withCheckedContinuation { continuation in
            let isOver = self.stopWaiters.withLock { waiters in
                if self.currentState == .stopped { return true }
                waiters.append(continuation)
                return false
            }
            if isOver { continuation.resume() }
        }
    }

    /// The loop has been left.
    func finish() {
        self.advance(to: .stopped)
        let waiters = self.stopWaiters.withLock { waiters in
            defer { waiters = [] }
            return waiters
        }
        for waiter in waiters { waiter.resume() }
    }

    var statistics: BrokerStatistics {
        var statistics = BrokerStatistics()
        statistics.clients = self.counters.clients.load(ordering: .relaxed)
        statistics.workers = self.counters.workers.load(ordering: .relaxed)
        statistics.queued = self.counters.queued.load(ordering: .relaxed)
        statistics.sent = self.counters.sent.load(ordering: .relaxed)
        statistics.received = self.counters.received.load(ordering: .relaxed)
        statistics.answered = self.counters.answered.load(ordering: .relaxed)
        statistics.resent = self.counters.resent.load(ordering: .relaxed)
        statistics.lost = self.counters.lost.load(ordering: .relaxed)
        statistics.refused = self.counters.refused.load(ordering: .relaxed)
        statistics.malformed = self.counters.malformed.load(ordering: .relaxed)
        statistics.undeliverable = self.counters.undeliverable.load(ordering: .relaxed)
        return statistics
    }
}

/// The counters behind a broker's statistics; only the loop writes.
struct BrokerCounters: ~Copyable, Sendable {
    let clients = Atomic<Int>(0)
    let workers = Atomic<Int>(0)
    let queued = Atomic<Int>(0)
    let sent = Atomic<Int>(0)
    let received = Atomic<Int>(0)
    let answered = Atomic<Int>(0)
    let resent = Atomic<Int>(0)
    let lost = Atomic<Int>(0)
    let refused = Atomic<Int>(0)
    let malformed = Atomic<Int>(0)
    let unknown = Atomic<Int>(0)
    let undeliverable = Atomic<Int>(0)
    let resets = Atomic<Int>(0)
}

extension Atomic<Int> {
    /// One more; for counters with one writer.
    func count() { self.store(self.load(ordering: .relaxed) &+ 1, ordering: .relaxed) }
}
