// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import DroverZMQ
internal import Synchronization

/// What waits for the callback executor: result callbacks in order, and subscriptions that have events.
///
/// An event that arrived before a reply is delivered before that reply's callback (contract S83): each event remembers how
/// many callbacks had been queued when it came, and a callback runs only after all events with a number up to its own.
final class CallbackQueue: Sendable {
    enum Delivery: Sendable {
        case result(AnyAsyncResult, CallbackToken)
        case closure(@Sendable () throws -> Void)
    }

    struct State: Sendable {
        var deliveries = Deque<Delivery>()
        /// The number of the first delivery in the queue.
        var firstNumber: UInt64 = 0
        var active: [Subscription] = []
        var isScheduled = false
        var isRunning = false
        var drainWaiters: [(number: UInt64, continuation: Resumption<Void>)] = []
    }

    private let state = Mutex(State())
    /// How many deliveries were ever queued.
    private let queuedCount = Atomic<UInt64>(0)
    private let executor: any CallbackExecutor
    private let onError: @Sendable (any Error, AnyAsyncResult?) -> Void

    /// How many deliveries one run of the executor may make before it lets others run.
    private static let batch = 512

    init(executor: any CallbackExecutor, onError: @escaping @Sendable (any Error, AnyAsyncResult?) -> Void) {
        self.executor = executor
        self.onError = onError
    }

    /// The number that an event arriving now gets.
    var currentNumber: UInt64 { self.queuedCount.load(ordering: .acquiring) }

    func enqueue(_ result: AnyAsyncResult, _ token: CallbackToken) {
        self.append(.result(result, token))
    }

    func enqueue(_ closure: @escaping @Sendable () throws -> Void) {
        self.append(.closure(closure))
    }

    /// A subscription has its first waiting event.
    func activate(_ subscription: Subscription) {
        let mustSchedule = self.state.withLock { state in
            state.active.append(subscription)
            return state.schedule()
        }
        if mustSchedule { self.schedule() }
    }

    private func append(_ delivery: Delivery) {
        let mustSchedule = self.state.withLock { state in
            state.deliveries.append(delivery)
            self.queuedCount.add(1, ordering: .releasing)
            return state.schedule()
        }
        if mustSchedule { self.schedule() }
    }

    private func schedule() {
        self.executor.run { [self] in
            if self.drain() { self.schedule() }
        }
    }

    /// Delivers up to one batch.
    ///
    /// Returns whether more is there.
    private func drain() -> Bool {
        for _ in 0..<Self.batch {
            let (next, number, subscriptions) = self.state.withLock { state in
                (state.deliveries.first, state.firstNumber, state.active)
            }
            var hasEvents = false
            for subscription in subscriptions {
                // With a callback waiting, only the events that came before it.
                if subscription.deliver(upTo: next == nil ? .max : number, most: Self.batch) { hasEvents = true }
            }
            if let next, !hasEvents {
                self.run(next)
                self.finished(number)
            } else if next == nil, !hasEvents {
                break
            }
        }
        return self.state.withLock { state in
            state.active.removeAll { $0.deactivateIfIdle() }
            let hasMore = !state.deliveries.isEmpty || !state.active.isEmpty
            state.isScheduled = hasMore
            return hasMore
        }
    }

    private func run(_ delivery: Delivery) {
        switch delivery {
        case .result(let result, let token):
            guard let closure = token.take() else { return }
            do { try closure(result) } catch { self.onError(error, result) }
        case .closure(let closure):
            do { try closure() } catch { self.onError(error, nil) }
        }
    }

    private func finished(_ number: UInt64) {
        let waiters = self.state.withLock { state in
            state.deliveries.removeFirst()
            state.firstNumber += 1
            guard !state.drainWaiters.isEmpty else { return [Resumption<Void>]() }
            let done = state.drainWaiters.filter { $0.number <= state.firstNumber }.map { $0.continuation }
            state.drainWaiters.removeAll { $0.number <= state.firstNumber }
            return done
        }
        for waiter in waiters { waiter.resume() }
    }

    /// Waits until everything queued so far has run.
    func drained() async {
        await withResumption { continuation in
            let isDone = self.state.withLock { state in
                let number = state.firstNumber + UInt64(state.deliveries.count)
                guard number > state.firstNumber else { return true }
                state.drainWaiters.append((number, continuation))
                return false
            }
            if isDone { continuation.resume() }
        }
    }
}

extension CallbackQueue.State {
    /// Marks the queue as scheduled.
    ///
    /// Returns whether it was not.
    fileprivate mutating func schedule() -> Bool {
        defer { self.isScheduled = true }
        return !self.isScheduled
    }
}
