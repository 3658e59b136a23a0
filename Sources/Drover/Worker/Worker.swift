// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import DroverZMQ
public import ServiceLifecycle
internal import Synchronization

/// Runs registered functions for clients.
///
/// ```swift
/// let worker = Worker(concurrency: 4)
/// worker.register(.checksum) { path in try sha256(path) }
/// try await worker.run(.bind("tcp://127.0.0.1:5555"))
/// ```
///
/// Up to `concurrency` handlers run at once: synchronous closures on threads of the worker, asynchronous ones as tasks.
/// Pings, cancellations and heartbeats never wait for handlers.
public final class Worker: Sendable {
    /// How the worker behaves.
    public let configuration: WorkerConfiguration
    let registry = Mutex(Registry())
    private let endpoint: WorkerEndpoint?

    /// Creates a worker.
    ///
    /// - Parameters:
    ///   - concurrency: How many handlers run at once; nil takes the configuration's.
    ///   - configuration: How the worker behaves.
    ///   - endpoint: Where it listens when it is run as a `Service`.
    public init(
        concurrency: Int? = nil,
        configuration: WorkerConfiguration = .init(),
        endpoint: WorkerEndpoint? = nil
    ) {
        var configuration = configuration
        if let concurrency { configuration.concurrency = concurrency }
        self.configuration = configuration
        self.endpoint = endpoint
    }

    /// Starts the worker: when this returns it listens.
    ///
    /// Functions that are registered later are served from then on and announced to brokers.
    ///
    /// - Parameter endpoint: Where to listen.
    /// - Returns: The running worker, to learn its address and to stop it.
    /// - Throws: `UsageError` for a setting or an address that can't be used, or if a name was registered twice;
    ///   `ConnectionError` if the address is in use or not this machine's.
    public func start(_ endpoint: WorkerEndpoint) throws -> RunningWorker {
        let (handlers, problem) = self.registry.withLock { ($0.handlers, $0.problem) }
        if let problem { throw problem }
        if ChildServer.isCurrent {
            ChildServer.serve(handlers, self.configuration)
            ChildServer.park()
        }
        if let problem = handlers.values.lazy.compactMap({ $0.problem }).first { throw problem }
        if handlers.count > WireLimits.standard.maxFunctions { throw UsageError.tooManyFunctions(handlers.count) }
        let running = try RunningWorker(
            configuration: self.configuration.validated(),
            handlers: handlers,
            endpoint: endpoint
        )
        self.registry.withLock { $0.started(running.core, with: handlers) }
        return running
    }

    /// Runs the worker until the task is cancelled, a graceful shutdown is asked for, or one of the signals arrives;
    /// then it drains: takes no more requests, finishes running handlers within the grace, says goodbye (contract S91).
    ///
    /// - Parameters:
    ///   - endpoint: Where to listen.
    ///   - signals: Signals that ask for the shutdown; a second one ends the grace.
    /// - Returns: Why the worker left by itself; nil if it was asked to. See ``RecyclingPolicy``.
    /// - Throws: As ``start(_:)``.
    @discardableResult
    public func run(
        _ endpoint: WorkerEndpoint,
        shutdownSignals signals: [ShutdownSignal] = [.terminate, .interrupt]
    ) async throws -> RecyclingReason? {
        if ChildServer.isCurrent {
            // The thread stays free for asynchronous handlers.
            ChildServer.serve(self.registry.withLock { $0.handlers }, self.configuration)
            await ChildServer.suspend()
        }
        let running = try self.start(endpoint)
        return await running.runUntilAsked(to: signals)
    }
}

extension Worker: Service {
    /// Runs the worker at the endpoint it was created with, for a `ServiceGroup`, which listens for signals itself.
    ///
    /// - Throws: `UsageError` if it was created without an endpoint; else as ``start(_:)``.
    public func run() async throws {
        guard let endpoint else {
            throw UsageError(
                .badConfiguration,
                "a worker that is run as a service needs an endpoint: Worker(endpoint: ...)"
            )
        }
        try await self.run(endpoint, shutdownSignals: [])
    }
}

/// Where a worker is reached: it listens for clients, dials brokers, or both.
public struct WorkerEndpoint: Hashable, Sendable {
    /// The address to listen at, if it listens.
    public let address: String?
    /// The brokers to dial.
    public let brokers: [String]

    /// Listens for clients that connect directly.
    ///
    /// - Parameter address: `tcp://HOST:PORT`, with `*` for any port, or `ipc://PATH`.
    /// - Returns: The endpoint.
    public static func bind(_ address: String) -> WorkerEndpoint { WorkerEndpoint(address: address, brokers: []) }

    /// Dials brokers, and serves whatever they pass on.
    ///
    /// The worker needs no address that others can reach. It keeps dialing brokers that are away.
    ///
    /// - Parameter brokers: The brokers' addresses, such as `tcp://broker:5570`.
    /// - Returns: The endpoint.
    public static func connect(_ brokers: String...) -> WorkerEndpoint {
        WorkerEndpoint(address: nil, brokers: brokers)
    }

    /// Dials brokers, and also listens for clients that connect directly.
    ///
    /// - Parameters:
    ///   - address: The address to listen at; nil listens nowhere.
    ///   - brokers: The brokers' addresses.
    /// - Returns: The endpoint.
    public static func bind(_ address: String?, connecting brokers: [String]) -> WorkerEndpoint {
        WorkerEndpoint(address: address, brokers: brokers)
    }
}
