// SPDX-License-Identifier: Apache-2.0

public import DroverCodec
internal import DroverWire
internal import DroverZMQ
internal import Synchronization

/// How a callback's events are taken.
public struct CallbackOptions: Sendable {
    /// How long workers can reach the callback.
    public var lifetime: CallbackLifetime
    /// How many events may wait, 1 at least: less counts as 1; nil takes the client's setting.
    public var queueLimit: Int?
    /// What happens to more; nil takes the client's setting.
    public var overflow: OverflowPolicy?
    /// An executor of its own, to run beside the client's other callbacks; nil for the client's.
    public var executor: (any CallbackExecutor)?

    /// Creates options.
    ///
    /// - Parameters:
    ///   - lifetime: How long workers can reach the callback.
    ///   - queueLimit: How many events may wait.
    ///   - overflow: What happens to more.
    ///   - executor: Where it runs, if not with the client's other callbacks.
    public init(
        lifetime: CallbackLifetime = .job,
        queueLimit: Int? = nil,
        overflow: OverflowPolicy? = nil,
        executor: (any CallbackExecutor)? = nil
    ) {
        self.lifetime = lifetime
        self.queueLimit = queueLimit
        self.overflow = overflow
        self.executor = executor
    }
}

extension Client {
    /// Makes a reference to a closure that workers can call and emit to; pass it as a call's argument.
    ///
    /// Its events are delivered one at a time, in order, on the callback executor, while the program does something else.
    ///
    /// - Parameters:
    ///   - options: How its events are taken.
    ///   - body: The closure. What it throws is reported, and is the answer of a worker that waits for one.
    /// - Returns: The reference.
    @inlinable
    public func callback<each Argument: Codable & Sendable, Return: Codable & Sendable>(
        _ options: CallbackOptions = .init(),
        _ body: @escaping @Sendable (repeat each Argument) throws -> Return
    ) -> Callback<repeat each Argument, Return> {
        self.subscribe(options) { (reader, isCall, answer) in
            let value = try body(repeat each unpackAllArguments(repeat (each Argument).self, from: &reader))
            if isCall { try packValue(value, into: &answer) }
        }
    }

    /// Makes a reference to a closure without a result; see `callback(_:_:)`.
    ///
    /// - Parameters:
    ///   - options: How its events are taken.
    ///   - body: The closure.
    /// - Returns: The reference.
    @_disfavoredOverload
    @inlinable
    public func callback<each Argument: Codable & Sendable>(
        _ options: CallbackOptions = .init(),
        _ body: @escaping @Sendable (repeat each Argument) throws -> Void
    ) -> Callback<repeat each Argument, Nothing> {
        self.subscribe(options) { (reader, isCall, answer) in
            try body(repeat each unpackAllArguments(repeat (each Argument).self, from: &reader))
            if isCall { try packValue(Nothing(), into: &answer) }
        }
    }

    /// Makes a reference to an asynchronous closure; see `callback(_:_:)`.
    ///
    /// The next event waits until it has returned.
    ///
    /// - Parameters:
    ///   - options: How its events are taken.
    ///   - body: The closure.
    /// - Returns: The reference.
    public func asyncCallback<each Argument: Codable & Sendable, Return: Codable & Sendable>(
        _ options: CallbackOptions = .init(),
        _ body: @escaping @Sendable @concurrent (repeat each Argument) async throws -> Return
    ) -> Callback<repeat each Argument, Return> {
        self.subscribe(options) { (reader, isCall, answer) in
            let arguments = try unpackAllArguments(repeat (each Argument).self, from: &reader)
            let outcome = ReadySignal<Result<Return, any Error>>()
            // The callback thread is no thread of the tasks, so it may wait for one.
            let queue = CallbackQueue.current
            Task(executorPreference: TaskThreads.shared) {
                do {
                    let value = try await CallbackQueue.with(task: queue) { try await body(repeat each arguments) }
                    outcome.set(.success(value))
                } catch {
                    outcome.set(.failure(error))
                }
            }
            let value = try outcome.wait().get()
            if isCall { try packValue(value, into: &answer) }
        }
    }

    /// Makes a reference to an asynchronous closure without a result; see `asyncCallback(_:_:)`.
    ///
    /// - Parameters:
    ///   - options: How its events are taken.
    ///   - body: The closure.
    /// - Returns: The reference.
    @_disfavoredOverload
    public func asyncCallback<each Argument: Codable & Sendable>(
        _ options: CallbackOptions = .init(),
        _ body: @escaping @Sendable @concurrent (repeat each Argument) async throws -> Void
    ) -> Callback<repeat each Argument, Nothing> {
        self.asyncCallback(options) { (argument: repeat each Argument) async throws -> Nothing in
            try await body(repeat each argument)
            return Nothing()
        }
    }

    /// Ends a callback: workers that use it are notified, queued events are still delivered, then the closure is
    /// released.
    ///
    /// - Parameter callback: A callback of this client.
    public func cancel<each Argument, Return>(_ callback: Callback<repeat each Argument, Return>) {
        guard callback.client == self.identity,
            let subscription = self.core.subscriptions.remove(callback.subscription, because: .cancelled)
        else { return }
        subscription.end()
        self.core.post(.unsubscribe(callback.subscription))
    }

    /// What became of a callback's events; of the last 256 callbacks that have ended, too.
    ///
    /// - Parameter callback: A callback of this client.
    /// - Returns: The counts so far; nil if the callback isn't this client's, or ended long ago.
    public func statistics<each Argument, Return>(
        of callback: Callback<repeat each Argument, Return>
    ) -> SubscriptionStatistics? {
        guard callback.client == self.identity else { return nil }
        return self.core.subscriptions.findOrRemember(callback.subscription)?.statistics
    }

    @usableFromInline
    func subscribe<each Argument, Return>(
        _ options: CallbackOptions,
        _ body: @escaping @Sendable (inout PackReader, _ answer: Bool, inout PackWriter) throws -> Void
    ) -> Callback<repeat each Argument, Return> {
        let core = self.core
        let subscription = core.subscriptions.add { id in
            Subscription(
                id: id,
                lifetime: options.lifetime,
                policy: options.overflow ?? core.configuration.eventOverflow,
                limit: max(1, options.queueLimit ?? core.configuration.eventQueueLimit),
                queue: options.executor.map { core.makeQueue(on: $0) } ?? core.callbacks,
                client: core,
                body: Subscription.Body(run: body)
            )
        }
        return Callback(client: self.identity, subscription: subscription.id, lifetime: options.lifetime, link: nil)
    }
}
