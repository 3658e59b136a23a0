// SPDX-License-Identifier: Apache-2.0

public import DroverRuntime
public import ServiceLifecycle

/// Stands between clients and workers: one address for any number of workers.
///
/// ```swift
/// let broker = try Broker().start("tcp://127.0.0.1:5570")
/// ```
///
/// Clients connect to it as they would to a worker; workers dial it with `WorkerEndpoint.connect(_:)`.
public final class Broker: Sendable {
    /// How the broker behaves.
    public let configuration: BrokerConfiguration
    private let address: String?

    /// Creates a broker.
    ///
    /// - Parameters:
    ///   - configuration: How it behaves.
    ///   - address: Where it listens when run as a `Service`.
    public init(configuration: BrokerConfiguration = .init(), address: String? = nil) {
        self.configuration = configuration
        self.address = address
    }

    /// Starts the broker, which is listening by the time this returns.
    ///
    /// - Parameter address: `tcp://HOST:PORT`, with `*` for any port, or `ipc://PATH`.
    /// - Returns: The running broker.
    /// - Throws: `UsageError` for a setting or an address that can't be used; `ConnectionError` if the address is in
    ///   use or doesn't belong to this machine.
    public func start(_ address: String) throws -> RunningBroker {
        try RunningBroker(configuration: self.configuration.validated(), address: address)
    }

    /// Runs the broker until the task is cancelled, a graceful shutdown is requested, or one of the signals arrives,
    /// and then drains it.
    ///
    /// While it drains, it takes no more calls, waits within the grace until those it has are answered, and says
    /// goodbye.
    ///
    /// - Parameters:
    ///   - address: Where to listen.
    ///   - signals: Signals that request the shutdown; a second one ends the grace.
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
    /// - Throws: `UsageError` if it was created without an address; otherwise as ``start(_:)``.
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
