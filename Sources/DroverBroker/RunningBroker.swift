// SPDX-License-Identifier: Apache-2.0

public import DroverRuntime
internal import DroverZMQ
internal import Logging
internal import Synchronization

/// A listening broker, made by ``Broker/start(_:)``.
///
/// Stop it with ``stop(grace:)``; one that is merely dropped stops without grace.
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
        if configuration.keys?.allowsDumps == false { ProcessMemory.keepsKeys() }
        let core = try BrokerCore(configuration: configuration)
        let ready = ReadySignal<Result<String, ZMQError>>()
        self.thread = try LoopThread.start(named: "drover-broker") {
            DispatchDescriptors.open()
            do throws(ZMQError) {
                let loop = try BrokerLoop(core: core, address: address.addressToBind)
                _ = ready.set(.success(try loop.address))
                loop.run()
            } catch {
                _ = ready.set(.failure(error))
            }
            core.life.tellEnded()
        }
        self.core = core
        do throws(ZMQError) { self.endpoint = try ready.wait().get() } catch {
            throw ConnectionError(
                .unavailable,
                message: "the broker can't listen at \(address): \(error)",
                cause: error
            )
        }
        if let warning = address.warningToBind(hasKeys: configuration.keys != nil) {
            core.configuration.logger.warning(
                "the broker is open",
                metadata: [LogKeys.endpoint: "\(self.endpoint)", LogKeys.reason: "\(warning)"]
            )
        }
        core.configuration.logger.info("a broker listens", metadata: [LogKeys.endpoint: "\(self.endpoint)"])
    }

    deinit { self.core.life.advance(to: .stopping) }

    /// What the broker has done and currently holds, as of its loop's last turn.
    public var status: BrokerStatus { self.core.status }

    /// Whether the loop that owns the broker's socket is still running: the check for a watchdog to use.
    ///
    /// A process can be running, with its connections open, while nothing serves them.
    ///
    /// - Parameter limit: How long the loop may take.
    /// - Returns: Whether the loop made a turn in time.
    public func responds(within limit: Duration) async -> Bool {
        let before = self.core.turns.load(ordering: .relaxed)
        let deadline = ContinuousClock.now + limit.clamped
        self.core.waker.wake()
        while self.core.turns.load(ordering: .relaxed) == before {
            guard ContinuousClock.now < deadline, self.core.life.state != .stopped else { return false }
            do { try await Task.sleep(for: .milliseconds(2)) } catch { return false }
        }
        return true
    }

    /// Takes no more calls, waits up to `grace` until those it has are answered, says goodbye, and leaves.
    ///
    /// Calls still open then are lost to this broker: their clients send the idempotent ones to another.
    ///
    /// - Parameter grace: How long the calls may take; nil uses the configuration's grace.
    public func stop(grace: Duration? = nil) async {
        self.drain(grace: grace)
        await self.core.life.ended()
    }

    /// Stops, blocking this thread; see ``stop(grace:)``.
    ///
    /// - Parameter grace: How long the calls may take.
    @available(*, noasync, message: "await stop(grace:) instead")
    public func stopBlocking(grace: Duration? = nil) {
        self.drain(grace: grace)
        _ = self.thread.join(within: (grace ?? self.core.configuration.drainGrace).clamped + .seconds(5))
    }

    /// Begins to drain and returns at once.
    ///
    /// - Parameter grace: How long the calls may take; nil uses the configuration's grace.
    public func drain(grace: Duration? = nil) {
        self.core.life.drain(within: grace ?? self.core.configuration.drainGrace)
    }

    /// Runs until one of the signals arrives, the task is cancelled or a graceful shutdown is requested; then drains.
    ///
    /// - Parameter signals: Signals that request the shutdown; a second one ends the grace.
    public func runUntilAsked(to signals: [ShutdownSignal] = [.terminate, .interrupt]) async {
        let configuration = self.core.configuration
        await self.core.life.run(until: signals, grace: configuration.drainGrace, logger: configuration.logger)
        configuration.logger.notice("the broker has stopped", metadata: [LogKeys.endpoint: "\(self.endpoint)"])
    }
}
