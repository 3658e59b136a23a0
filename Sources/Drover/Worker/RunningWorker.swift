// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
public import DroverRuntime
public import DroverWire
internal import DroverZMQ
internal import Logging
internal import Synchronization

/// A worker that listens; made by ``Worker/start(_:)``.
///
/// Stop it with ``stop(grace:)``; one that is dropped stops without grace.
public final class RunningWorker: Sendable {
    /// Where it listens, with the port that was chosen; empty if it only dials brokers.
    public let endpoint: String
    let core: WorkerCore
    private let loopThreads: WorkerLoopThreads

    init(configuration: WorkerConfiguration, handlers: [String: Handler], endpoint: WorkerEndpoint) throws {
        let address = try endpoint.address.map { try Endpoint($0) }
        let brokers = try endpoint.brokers.map { try Endpoint($0) }
        guard address != nil || !brokers.isEmpty else {
            throw UsageError(.badConfiguration, "a worker needs an address to listen at or a broker to dial")
        }
        guard Set(brokers).count == brokers.count else {
            throw UsageError(.badConfiguration, "a broker is named twice; name each once")
        }
        try address?
            .checkBind(
                hasKeys: configuration.listenerKeys != nil,
                setting: "listenerKeys",
                allowsPlain: configuration.allowsUnencryptedNetwork
            )
        for broker in brokers {
            try broker.checkDial(keys: configuration.keys, allowsPlain: configuration.allowsUnencryptedNetwork)
        }
        if configuration.keys?.allowsDumps == false || configuration.listenerKeys?.allowsDumps == false {
            ProcessMemory.keepsKeys()
        }
        self.core = try WorkerCore(configuration: configuration, handlers: handlers)
        self.loopThreads = WorkerLoopThreads(core: self.core)
        do {
            self.endpoint = try self.loopThreads.start(at: address?.addressToBind, dialling: brokers)
        } catch let error as ZMQError {
            let what =
                address.map { "listen at \($0)" } ?? "dial \(brokers.map(\.address).joined(separator: ", "))"
            throw ConnectionError(.unavailable, message: "the worker can't \(what): \(error)", cause: error)
        }
        let opening = address.flatMap { $0.warningToBind(hasKeys: configuration.listenerKeys != nil) }
        let warnings =
            [(self.endpoint, opening)]
            + brokers.map { ($0.address, $0.warningToDial(hasKeys: configuration.keys != nil)) }
        for case (let place, let warning?) in warnings {
            self.core.logger.warning(
                "the worker is open",
                metadata: [LogKeys.endpoint: "\(place)", LogKeys.reason: "\(warning)"]
            )
        }
        self.core.logger.debug("a worker listens", metadata: [LogKeys.endpoint: "\(self.endpoint)"])
    }

    deinit { self.core.life.advance(to: .stopping) }

    /// How loaded the worker is.
    public var status: WorkerStatus { self.core.status }

    /// Whether brokers give the worker new requests; while it is quiet they don't, and what it has it finishes.
    ///
    /// Clients that come directly are not held off.
    public var isQuiet: Bool {
        get { self.core.isQuiet.load(ordering: .relaxed) }
        set {
            self.core.isQuiet.store(newValue, ordering: .relaxed)
            self.core.waker.wake()
        }
    }

    /// Why the worker leaves, or left, by itself; nil if it doesn't.
    ///
    /// See ``RecyclingPolicy``.
    public var recyclingReason: RecyclingReason? { self.core.recyclingReason.withLock { $0 } }

    /// How many brokers have welcomed the worker.
    public var brokerCount: Int { self.core.counters.brokers.current }

    /// Takes no more requests, lets running handlers finish for up to `grace`, says goodbye to clients, and leaves.
    ///
    /// Within a handler of this worker it begins to drain and returns at once: the worker can't end before the handler has.
    ///
    /// - Parameter grace: How long running handlers may take; then they are cancelled. Nil takes the configuration's.
    public func stop(grace: Duration? = nil) async {
        self.drain(grace: grace)
        if let job = CurrentJob.ofTask, job.core === self.core, !job.isOver { return }
        await self.core.life.ended()
    }

    /// Stops, blocking this thread; see ``stop(grace:)``, also for what it does within a handler.
    ///
    /// - Parameter grace: How long running handlers may take.
    @available(*, noasync, message: "await stop(grace:) instead")
    public func stopBlocking(grace: Duration? = nil) {
        self.drain(grace: grace)
        if self.core.threads.isCurrent || self.loopThreads.isCurrent { return }
        _ = self.loopThreads.join(within: (grace ?? self.core.configuration.drainGrace).clamped + .seconds(5))
    }

    /// Begins to drain and returns at once.
    ///
    /// - Parameter grace: How long running handlers may take; nil takes the configuration's.
    public func drain(grace: Duration? = nil) {
        self.core.life.drain(within: grace ?? self.core.configuration.drainGrace)
    }

    /// Runs until one of the signals comes, the task is cancelled or a graceful shutdown is asked for; then drains.
    ///
    /// - Parameter signals: Signals that ask for the shutdown; a second one ends the grace.
    /// - Returns: Why the worker left by itself; nil if it was asked to. See ``RecyclingPolicy``.
    @discardableResult
    public func runUntilAsked(to signals: [ShutdownSignal] = [.terminate, .interrupt]) async -> RecyclingReason? {
        let configuration = self.core.configuration
        await self.core.life.run(until: signals, grace: configuration.drainGrace, logger: configuration.logger)
        let reason = self.recyclingReason
        configuration.logger.notice(
            "the worker has left",
            metadata: [LogKeys.reason: "\(reason.map { "by itself: \($0)" } ?? "it was asked to")"]
        )
        return reason
    }
}
