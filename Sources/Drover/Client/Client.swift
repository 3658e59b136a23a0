// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverCore
internal import DroverRuntime
public import DroverWire
internal import DroverZMQ
internal import Logging
internal import Synchronization

/// A program's connection to workers: makes calls, holds their results, receives events.
///
/// ```swift
/// let client = try Client("tcp://127.0.0.1:5555")
/// let digest = try await client.call(.checksum, "/etc/hosts")
/// ```
///
/// A client connects lazily and by itself: calls made before a worker is there are queued and expire normally. With
/// several endpoints each call goes to the worker with the fewest outstanding. One background thread, the poller, owns the
/// sockets; callbacks and events run on another. All members may be used from any thread.
///
/// Close a client with ``close(grace:)`` when done; one that is dropped closes without grace once its calls have ended.
public final class Client: Sendable {
    let core: ClientCore
    let poller: PollerControl

    /// Creates a client of one or more workers.
    ///
    /// - Parameters:
    ///   - endpoints: Where the workers listen, such as `tcp://127.0.0.1:5555`.
    ///   - configuration: How the client behaves.
    /// - Throws: `UsageError` with `badConfiguration` for an address or a setting that can't be used; an error of the
    ///   system if it has no thread or descriptor to give.
    public init(_ endpoints: [String], configuration: ClientConfiguration = .init()) throws {
        guard !endpoints.isEmpty else {
            throw UsageError(.badConfiguration, "a client needs at least one endpoint, such as tcp://127.0.0.1:5555")
        }
        let places = try endpoints.map { try Endpoint($0) }
        for place in places {
            try place.checkDial(keys: configuration.keys, allowsPlain: configuration.allowsUnencryptedNetwork)
        }
        if configuration.keys?.allowsDumps == false { ProcessMemory.keepsKeys() }
        let configuration = try configuration.validated()
        self.core = try ClientCore(endpoints: places, configuration: configuration)
        for place in places {
            guard let warning = place.warningToDial(hasKeys: configuration.keys != nil) else { continue }
            configuration.logger.warning(
                "the client is open",
                metadata: [LogKeys.endpoint: "\(place)", LogKeys.reason: "\(warning)"]
            )
        }
        self.poller = PollerControl(core: self.core)
        if configuration.startsPoller { try self.poller.start() }
    }

    /// Creates a client of one worker.
    ///
    /// - Parameters:
    ///   - endpoint: Where the worker listens, such as `tcp://127.0.0.1:5555`.
    ///   - configuration: How the client behaves.
    /// - Throws: As ``init(_:configuration:)-([String],_)``.
    public convenience init(_ endpoint: String, configuration: ClientConfiguration = .init()) throws {
        try self.init([endpoint], configuration: configuration)
    }

    deinit { self.poller.abandon() }

    /// The identity by which workers know this client: random and different for each client.
    public var identity: PeerID { self.core.identity }

    /// What the client has done and seen so far.
    public var statistics: ClientStatistics { self.core.statistics }

    // MARK: Functions

    /// Binds a declared function to this client.
    ///
    /// Sends nothing.
    ///
    /// - Parameters:
    ///   - function: The declaration.
    ///   - options: How its calls are made.
    /// - Returns: The callable function.
    public func function<each Argument, Result>(
        _ function: Function<repeat each Argument, Result>,
        options: CallOptions = .init()
    ) -> RemoteFunction<repeat each Argument, Result> {
        RemoteFunction(function, client: self, options: options)
    }

    /// Binds a function by its name and type.
    ///
    /// Sends nothing; a name that no worker knows ends its calls in a `RemoteError` (contract S1).
    ///
    /// - Parameters:
    ///   - name: What the workers call it.
    ///   - type: Its type, such as `((String) -> Int).self`.
    ///   - options: How its calls are made.
    /// - Returns: The callable function.
    /// - Throws: `UsageError` with `notCallable` for a name that can't be one.
    @inlinable
    public func function<each Argument: Codable & Sendable, Result: Codable & Sendable>(
        _ name: String,
        _ type: ((repeat each Argument) -> Result).Type,
        options: CallOptions = .init()
    ) throws -> RemoteFunction<repeat each Argument, Result> {
        try Self.check(name: name)
        return self.function(Function<repeat each Argument, Result>(name), options: options)
    }

    @usableFromInline
    static func check(name: String) throws {
        guard (1...WireLimits.standard.maxNameBytes).contains(name.utf8.count) else { throw UsageError.badName(name) }
    }

    /// Calls a function and waits for its result.
    ///
    /// - Parameters:
    ///   - function: The declaration.
    ///   - argument: The arguments, by value.
    ///   - timeout: The time until the call expires; nil takes the client's default.
    /// - Returns: What the handler returned.
    /// - Throws: `RemoteError`, `AsyncResultTimeout`, `ConnectionError`, or `CancellationError` if the task is
    ///   cancelled; an error of encoding, with nothing sent.
    public func call<each Argument, Result>(
        _ function: Function<repeat each Argument, Result>,
        _ argument: repeat each Argument,
        timeout: Duration? = nil
    ) async throws -> Result {
        try await RemoteFunction(function, client: self, options: .init())
            .awaiting(repeat each argument, expiry: timeout)
    }

    /// Calls a function and waits for its result until a point in time.
    ///
    /// - Parameters:
    ///   - function: The declaration.
    ///   - argument: The arguments, by value.
    ///   - deadline: When the call expires; at once if that has passed.
    /// - Returns: What the handler returned.
    /// - Throws: As ``call(_:_:timeout:)``.
    public func call<each Argument, Result>(
        _ function: Function<repeat each Argument, Result>,
        _ argument: repeat each Argument,
        deadline: ContinuousClock.Instant
    ) async throws -> Result {
        try await RemoteFunction(function, client: self, options: .init())
            .awaiting(repeat each argument, expiry: deadline - .now)
    }

    /// Cancels every call that has not ended.
    ///
    /// - Parameter results: The handles to cancel.
    /// - Returns: How many calls this ended.
    @discardableResult
    public func cancel<Call: AnyAsyncResult>(_ results: some Sequence<Call>) -> Int {
        results.reduce(0) { $0 + ($1.cancel() ? 1 : 0) }
    }

    /// Cancels every call of this client that was made before and has not ended (contract S98).
    ///
    /// The poller does it, a moment later; to see calls ended at once, cancel their handles.
    public func cancelAll() { self.core.post(.cancelAll(upTo: self.core.latestID)) }

    // MARK: Connection

    /// Waits until a worker or a broker has answered, so that a wrong address or a refused key shows at once.
    ///
    /// Fails as soon as it is known that none of the endpoints can be reached: nothing listens there, a name can't be
    /// looked up, the key is refused, or something other than Drover listens there. If an endpoint has no room for
    /// another client at the moment, this waits for it.
    ///
    /// - Parameters:
    ///   - timeout: How long to wait for an answer.
    ///   - patiently: Waits, for as long, also for a peer that may yet be started, and for a name that may yet be known.
    /// - Returns: The worker or broker that answered first.
    /// - Throws: `ConnectionError` that says why there is no session.
    @discardableResult
    public func connect(timeout: Duration = .seconds(5), patiently: Bool = false) async throws -> WorkerStatus {
        let ping = try self.core.startPing(patiently ? .ping(endpoint: nil) : .knock, expiry: timeout)
        do { return try await ping.value } catch let error as AsyncResultTimeout { throw self.notConnected(error) }
    }

    /// Waits, blocking this thread, until a worker or a broker has answered; see ``connect(timeout:patiently:)``.
    ///
    /// - Parameters:
    ///   - timeout: How long to wait for an answer.
    ///   - patiently: Waits, for as long, also for a peer that may yet be started, and for a name that may yet be known.
    /// - Returns: The worker or broker that answered first.
    /// - Throws: `ConnectionError` that says why there is no session.
    @available(*, noasync, message: "await connect(timeout:patiently:) instead")
    @discardableResult
    public func connectBlocking(timeout: Duration = .seconds(5), patiently: Bool = false) throws -> WorkerStatus {
        let ping = try self.core.startPing(patiently ? .ping(endpoint: nil) : .knock, expiry: timeout)
        do { return try ping.get() } catch let error as AsyncResultTimeout { throw self.notConnected(error) }
    }

    /// Asks a worker's I/O thread for a sign of life, however busy its handlers are (contract S92).
    ///
    /// - Parameters:
    ///   - endpoint: The place of the worker in the client's list of endpoints.
    ///   - timeout: How long to wait.
    /// - Returns: The round trip's time and the worker's load.
    /// - Throws: `AsyncResultTimeout` or `ConnectionError`.
    public func ping(endpoint: Int = 0, timeout: Duration = .seconds(5)) async throws -> Ping {
        guard self.core.endpoints.indices.contains(endpoint) else {
            throw UsageError(
                .badConfiguration,
                "there is no endpoint \(endpoint); the client has \(self.core.endpoints.count)"
            )
        }
        let started = self.core.now()
        let status = try await self.core.startPing(.ping(endpoint: endpoint), expiry: timeout).value
        return Ping(roundTrip: Duration(nanoseconds: self.core.now().nanoseconds(since: started)), worker: status)
    }

    /// Asks a broker how many workers offer a function now.
    ///
    /// With none, the function's calls wait at the broker, and end after the broker's patience.
    ///
    /// - Parameters:
    ///   - function: The function.
    ///   - timeout: How long to wait for the answer.
    /// - Returns: How many; nil if there is no broker that tells it: a worker that is called directly says so when it is called.
    /// - Throws: As ``connect(timeout:patiently:)`` and ``call(_:_:timeout:)``.
    public func workerCount<each Argument, Result>(
        for function: Function<repeat each Argument, Result>,
        timeout: Duration = .seconds(5)
    ) async throws -> Int? {
        try await self.connect(timeout: timeout)
        guard self.core.endpoints.indices.contains(where: { self.core.isBroker($0) }) else { return nil }
        let serving = Function<String, [String: Int]>("drover.serving", isIdempotent: true)
        do { return try await self.call(serving, function.name, timeout: timeout)["workers"] } catch let error
            as RemoteError
            where error.code == .unknownFunction
        {
            return nil
        }
    }

    private func notConnected(_ error: AsyncResultTimeout) -> ConnectionError {
        let places = self.core.endpoints.map { "\($0)" }.joined(separator: ", ")
        let problems = self.core.problems
        return ConnectionError(
            .unavailable,
            message: "no worker or broker answered at \(places) within \(PeopleText.time(error.limit))"
                + (problems.isEmpty ? "" : ": \(problems)") + "; is one running there?"
        )
    }

    /// What is wrong with the connections, in words; empty if nothing is.
    package var connectionProblems: String { self.core.problems }

    /// Waits until the callbacks of all calls that have ended so far, and what else was queued for the callback executor,
    /// have run (contract S51).
    ///
    /// Within a callback that runs there too it returns at once: what is queued waits for that callback to end.
    public func drainCallbacks() async {
        await self.core.notifications.allTold()
        await self.core.callbacks.drained()
    }

    // MARK: Closing

    /// Refuses new calls, lets pending ones finish for up to `grace`, ends the rest as lost, and leaves (contract S89).
    ///
    /// Returns at most 200 ms after the grace. A second close does nothing.
    ///
    /// - Parameter grace: How long pending calls may take.
    public func close(grace: Duration = .zero) async {
        self.poller.beginClose(grace: grace)
        await self.poller.ended()
    }

    /// Closes, blocking this thread; see ``close(grace:)``.
    ///
    /// - Parameter grace: How long pending calls may take.
    @available(*, noasync, message: "await close(grace:) instead")
    public func closeBlocking(grace: Duration = .zero) {
        self.poller.beginClose(grace: grace)
        self.poller.join(within: grace.clamped + .milliseconds(150))
    }
}

/// A worker's answer to a ping.
public struct Ping: Hashable, Sendable {
    /// The round-trip time.
    public let roundTrip: Duration
    /// The worker's load.
    public let worker: WorkerStatus
}
