// SPDX-License-Identifier: Apache-2.0

public import Drover
internal import DroverZMQ
internal import Logging
public import ServiceLifecycle
internal import Synchronization
internal import UnixSignals

/// Stands between clients and workers: one address for any number of workers.
///
/// ```swift
/// let broker = try Broker().start("tcp://127.0.0.1:5570")
/// ```
///
/// Clients connect to it as to a worker; workers dial it with ``WorkerEndpoint/connect(_:)``.
public final class Broker: Sendable {
    /// How the broker behaves.
    public let configuration: BrokerConfiguration
    private let address: String?

    /// Creates a broker.
    ///
    /// - Parameters:
    ///   - configuration: How it behaves.
    ///   - address: Where it listens when it is run as a `Service`.
    public init(configuration: BrokerConfiguration = .init(), address: String? = nil) {
        self.configuration = configuration
        self.address = address
    }

    /// Starts the broker: when this returns it listens.
    ///
    /// - Parameter address: `tcp://HOST:PORT`, with `*` for any port; `ipc://PATH`; `inproc://NAME`.
    /// - Returns: The running broker.
    /// - Throws: `UsageError` for a setting or an address that can't be used; `ConnectionError` if the address is in use
    ///   or not this machine's.
    public func start(_ address: String) throws -> RunningBroker {
        try RunningBroker(configuration: self.configuration.validated(), address: address)
    }

    /// Runs the broker until the task is cancelled, a graceful shutdown is asked for, or one of the signals comes; then it
    /// drains: takes no more calls, waits within the grace until those that it has are answered, says goodbye.
    ///
    /// - Parameters:
    ///   - address: Where to listen.
    ///   - signals: Signals that ask for the shutdown; a second one ends the grace.
    /// - Throws: As ``start(_:)``.
    public func run(
        _ address: String,
        shutdownSignals signals: [ShutdownSignal] = [.terminate, .interrupt]
    ) async throws {
        let running = try self.start(address)
        await running.runUntilAsked(to: signals)
    }
}

extension Broker: Service {
    /// Runs the broker at the address it was created with, for a `ServiceGroup`, which listens for signals itself.
    ///
    /// - Throws: `UsageError` if it was created without an address; else as ``start(_:)``.
    public func run() async throws {
        guard let address else {
            throw UsageError(
                .badConfiguration,
                "a broker that is run as a service needs an address: Broker(address: ...)"
            )
        }
        try await self.run(address, shutdownSignals: [])
    }
}

/// A broker that listens; made by ``Broker/start(_:)``.
///
/// Stop it with ``stop(grace:)``; one that is dropped stops without grace.
public final class RunningBroker: Sendable {
    /// Where it listens, with the port that was chosen.
    public let endpoint: String
    let core: BrokerCore
    private let thread: LoopThread

    init(configuration: BrokerConfiguration, address: String) throws {
        let address = try Endpoint(address)
        try address.checkBind(
            hasKeys: configuration.keys != nil,
            setting: "keys",
            allowsPlain: configuration.allowsUnencryptedNetwork
        )
        let core = try BrokerCore(configuration: configuration)
        let ready = ReadySignal<Result<String, ZMQError>>()
        self.thread = try LoopThread.start(named: "drover-broker") {
            do throws(ZMQError) {
                let loop = try BrokerLoop(core: core, address: address.address)
                _ = ready.set(.success(try loop.address))
                loop.run()
            } catch {
                _ = ready.set(.failure(error))
            }
            core.finish()
        }
        self.core = core
        do throws(ZMQError) { self.endpoint = try ready.wait().get() } catch {
            throw ConnectionError(.lost, message: "the broker can't listen at \(address): \(error)", cause: error)
        }
        core.configuration.logger.info("a broker listens", metadata: ["drover.endpoint": "\(self.endpoint)"])
    }

    deinit { self.core.advance(to: .stopping) }

    /// What the broker has done and has at hand.
    public var statistics: BrokerStatistics { self.core.statistics }

    /// Takes no more calls, waits up to `grace` until those that it has are answered, says goodbye, and leaves.
    ///
    /// Calls that are left then are lost to this broker: their clients send idempotent ones to another.
    ///
    /// - Parameter grace: How long the calls may take; nil takes the configuration's.
    public func stop(grace: Duration? = nil) async {
        self.drain(grace: grace)
        await self.core.stopped()
    }

    /// Stops, blocking this thread; see ``stop(grace:)``.
    ///
    /// - Parameter grace: How long the calls may take.
    @available(*, noasync, message: "await stop(grace:) instead")
    public func stopBlocking(grace: Duration? = nil) {
        self.drain(grace: grace)
        _ = self.thread.join(within: (grace ?? self.core.configuration.drainGrace) + .seconds(5))
    }

    /// Begins to drain and returns at once.
    ///
    /// - Parameter grace: How long the calls may take; nil takes the configuration's.
    public func drain(grace: Duration? = nil) {
        self.core.drain(grace: grace ?? self.core.configuration.drainGrace)
    }

    /// Runs until one of the signals comes, the task is cancelled or a graceful shutdown is asked for; then drains.
    ///
    /// - Parameter signals: Signals that ask for the shutdown; a second one ends the grace.
    public func runUntilAsked(to signals: [ShutdownSignal] = [.terminate, .interrupt]) async {
        await withTaskGroup(of: Void.self) { group in
            group.addTask { [core = self.core] in
                let asked = await ShutdownSignal.first(of: signals)
                core.configuration.logger.info("the broker drains", metadata: ["drover.reason": "\(asked)"])
                core.drain(grace: core.configuration.drainGrace)
                // A second signal ends the grace.
                if !signals.isEmpty, !Task.isCancelled {
                    _ = await ShutdownSignal.first(of: signals)
                    core.advance(to: .stopping)
                }
            }
            await self.core.stopped()
            group.cancelAll()
        }
    }
}

/// What a broker has done and has at hand.
public struct BrokerStatistics: Hashable, Sendable {
    /// Clients with a session.
    public var clients = 0
    /// Workers with a session.
    public var workers = 0
    /// Calls that wait for a worker.
    public var queued = 0
    /// Calls that workers have.
    public var sent = 0
    /// Calls that came.
    public var received = 0
    /// Calls that were answered by workers, with a value or an error.
    public var answered = 0
    /// Calls that were given to another worker.
    public var resent = 0
    /// Calls whose worker was lost.
    public var lost = 0
    /// Calls that were refused.
    public var refused = 0
    /// Messages that could not be understood.
    public var malformed = 0
    /// Messages whose addressee was gone.
    public var undeliverable = 0
}
