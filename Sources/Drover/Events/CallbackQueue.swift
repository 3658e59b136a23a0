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

    /// The queue whose work a thread does at the moment.
    private static let place = ThreadPlace<CallbackQueue>()

    @available(*, noasync)
    static var current: CallbackQueue? { self.place.current ?? self.ofTask }

    /// An asynchronous callback, and the queue whose thread waits for it.
    private final class Stay: Sendable {
        let queue: CallbackQueue
        let isOver = Atomic<Bool>(false)

        init(of queue: CallbackQueue) { self.queue = queue }
    }

    @TaskLocal private static var stay: Stay?
    /// Whether there was such a task: else nobody needs to look.
    private static let hasTasks = Atomic<Bool>(false)

    /// The queue whose thread waits for the task: not for one that a callback has left behind.
    static var ofTask: CallbackQueue? {
        guard self.hasTasks.load(ordering: .relaxed), let stay = self.stay else { return nil }
        return stay.isOver.load(ordering: .acquiring) ? nil : stay.queue
    }

    static func with<Value>(task queue: CallbackQueue?, _ body: () async throws -> Value) async rethrows -> Value {
        guard let queue else { return try await body() }
        self.hasTasks.store(true, ordering: .relaxed)
        let stay = Stay(of: queue)
        defer { stay.isOver.store(true, ordering: .releasing) }
        return try await self.$stay.withValue(stay, operation: body)
    }

    private let state = Mutex(State())
    /// The call that a callback blocks the queue for.
    private let blocked = Mutex<BlockedCallback?>(nil)
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
            if Self.place.with(self, { self.drain() }) { self.schedule() }
        }
    }

    // MARK: Callbacks that wait

    /// A callback on this queue blocks its thread until a call has ended.
    ///
    /// - Parameters:
    ///   - result: The call.
    ///   - waiter: Who waits for it.
    /// - Returns: To be ended when the wait has.
    func block(for result: AnyAsyncResult, waiter: Waiter.Key) -> BlockedCallback {
        let block = BlockedCallback(result, waiter: waiter, in: self)
        self.blocked.withLock { $0 = block }
        // A handler may have asked before: the poller saw no block then, or this sees the question.
        for reference in result.references {
            guard let subscription = result.client.subscriptions.find(reference), subscription.isAsked(on: self) else {
                continue
            }
            block.isAsked(by: subscription)
        }
        return block
    }

    func unblock() { self.blocked.withLock { $0 = nil } }

    /// A handler calls a callback of this queue, and waits for what it returns.
    func asked(by subscription: Subscription) {
        self.blocked.withLock { $0 }?.isAsked(by: subscription)
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

    /// Waits until everything queued so far has run, events included; returns at once within a callback of this queue, which
    /// what is queued waits for.
    func drained() async {
        if Self.ofTask === self { return }
        await withResumption { continuation in
            let isDone = self.state.withLock { state in
                guard state.isScheduled else { return true }
                // Events have no number of their own: this one comes behind all that are there.
                state.deliveries.append(.closure {})
                self.queuedCount.add(1, ordering: .releasing)
                state.drainWaiters.append((state.firstNumber + UInt64(state.deliveries.count), continuation))
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
