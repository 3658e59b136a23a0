// SPDX-License-Identifier: Apache-2.0

package import DroverCore
package import DroverZMQ
package import Logging
internal import ServiceLifecycle
internal import Synchronization

/// How far a worker or a broker is on the way from running to stopped; it never goes back.
package final class Lifecycle: Sendable {
    package enum State: UInt8, Sendable {
        case running
        /// Takes nothing new; leaves when what it has is done.
        case draining
        /// The grace is over: leaves at once.
        case stopping
        case stopped
    }

    private let stateWord = Atomic<UInt8>(State.running.rawValue)
    private let drainWord = Atomic<UInt64>(.max)
    private let waiters = Mutex<[CheckedContinuation<Void, Never>]>([])
    private let waker: Waker

    /// Begins to run; each step wakes the loop by `waker`.
    package init(waker: Waker) { self.waker = waker }

    package var state: State { State(rawValue: self.stateWord.load(ordering: .sequentiallyConsistent)) ?? .stopped }

    /// When the grace of a drain is over; the distant future before there was one.
    package var drainDeadline: Instant { Instant(nanoseconds: self.drainWord.load(ordering: .relaxed)) }

    /// Goes on to a later state, unless that is past.
    package func advance(to state: State) {
        var known = self.stateWord.load(ordering: .sequentiallyConsistent)
        while known < state.rawValue {
            let (exchanged, original) = self.stateWord.compareExchange(
                expected: known,
                desired: state.rawValue,
                ordering: .sequentiallyConsistent
            )
            if exchanged { return self.waker.wake() }
            known = original
        }
    }

    /// Begins to drain, for `grace` at most; a later drain replaces the grace.
    package func drain(within grace: Duration) {
        self.drainWord.store(MonotonicClock.deadline(after: grace), ordering: .relaxed)
        self.advance(to: .draining)
        // Also if it drains already: its loop may sleep until the former grace is over.
        self.waker.wake()
    }

    /// Suspends until it has stopped.
    package func ended() async {
        await withCheckedContinuation { continuation in
            let isOver = self.waiters.withLock { waiters in
                if self.state == .stopped { return true }
                waiters.append(continuation)
                return false
            }
            if isOver { continuation.resume() }
        }
    }

    /// It has stopped: resumes those that wait for that.
    package func tellEnded() {
        self.advance(to: .stopped)
        let waiters = self.waiters.withLock { waiters in
            defer { waiters = [] }
            return waiters
        }
        for waiter in waiters { waiter.resume() }
    }

    /// Waits for one of the signals, a graceful shutdown or cancellation, drains, and returns when it has stopped.
    ///
    /// A second signal, or one after a graceful shutdown, ends the grace.
    package func run(until signals: [ShutdownSignal], grace: Duration, logger: Logger) async {
        let isAsked = Atomic(false)
        /// Returns whether it was the first to ask.
        let ask = { @Sendable [self] (reason: String) -> Bool in
            guard !isAsked.exchange(true, ordering: .acquiringAndReleasing) else { return false }
            guard self.state != .stopped else { return true }
            logger.info("draining", metadata: [LogKeys.reason: "\(reason)"])
            self.drain(within: grace)
            return true
        }
        await withTaskGroup(of: Void.self) { group in
            group.addTask {
                // Returns when the service group asks, and when the task is cancelled.
                try? await gracefulShutdown()
                _ = ask("shutdown")
            }
            if !signals.isEmpty {
                group.addTask {
                    await ShutdownSignal.hear(signals, logger: logger) { signal in
                        if !ask(signal.name) { self.advance(to: .stopping) }
                    }
                }
            }
            await self.ended()
            group.cancelAll()
        }
    }
}
