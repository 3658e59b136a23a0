// SPDX-License-Identifier: Apache-2.0

public import DroverCodec
public import DroverRuntime

/// A function bound to a client: callable.
///
/// ```swift
/// let checksum = client.function(.checksum)
/// let digest = try await checksum("/etc/hosts")            // wait for it here
/// let result = try checksum.async("/etc/hosts")            // or hold its handle at once
/// ```
///
/// Making one sends nothing. It holds its client.
public final class RemoteFunction<each Argument: Codable & Sendable, Result: Codable & Sendable>: Sendable {
    /// The declaration.
    public let function: Function<repeat each Argument, Result>
    /// How its calls are made.
    public let options: CallOptions
    /// The client whose calls these are.
    public let client: Client
    @usableFromInline let core: ClientCore
    @usableFromInline let info: FunctionInfo

    init(_ function: Function<repeat each Argument, Result>, client: Client, options: CallOptions) {
        var options = options
        options.isIdempotent = options.isIdempotent ?? function.isIdempotent
        self.function = function
        self.options = options
        self.client = client
        self.core = client.core
        self.info = client.core.info(ofFunction: function.name)
    }

    /// The name that both sides know the function by.
    public var name: String { self.function.name }

    /// The same function with other options for its calls.
    ///
    /// - Parameter options: How calls of the new value are made.
    /// - Returns: A function of the same client.
    public func with(_ options: CallOptions) -> RemoteFunction<repeat each Argument, Result> {
        RemoteFunction(self.function, client: self.client, options: options)
    }

    /// Makes a call and returns its handle at once; nothing here waits for the network (contract S2).
    ///
    /// - Parameter argument: The arguments, by value.
    /// - Returns: A pending handle.
    /// - Throws: `ConnectionError` with `backpressure` over the client's limit of outstanding calls, or `closed`;
    ///   an error of encoding, with nothing sent (contract S3).
    @inlinable
    public func async(_ argument: repeat each Argument) throws -> AsyncResult<Result> {
        try self.submit(repeat each argument, expiry: self.options.expiry)
    }

    /// Makes a call with a deadline and returns its handle at once.
    ///
    /// - Parameters:
    ///   - argument: The arguments, by value.
    ///   - deadline: The point in time at which the call expires; one that has passed expires it at once.
    /// - Returns: A pending handle.
    /// - Throws: As ``async(_:)``.
    public func async(_ argument: repeat each Argument, deadline: ContinuousClock.Instant) throws -> AsyncResult<Result>
    {
        try self.submit(repeat each argument, expiry: deadline - .now)
    }

    /// Makes a call and waits for its result.
    ///
    /// Waits for room if the client has as many calls outstanding as it may.
    ///
    /// - Parameter argument: The arguments, by value.
    /// - Returns: What the handler returned.
    /// - Throws: `RemoteError`, `AsyncResultTimeout`, `ConnectionError`, or `CancellationError` if the task is
    ///   cancelled; an error of encoding.
    @inlinable
    public func callAsFunction(_ argument: repeat each Argument) async throws -> Result {
        try await self.awaiting(repeat each argument, expiry: self.options.expiry)
    }

    /// Makes a call and blocks this thread until its result is there.
    ///
    /// - Parameter argument: The arguments, by value.
    /// - Returns: What the handler returned.
    /// - Throws: As the awaiting form, and `UsageError` on a thread that can't wait.
    @available(*, noasync, message: "call the function with await instead")
    @inlinable
    public func blocking(_ argument: repeat each Argument) throws -> Result {
        try self.submit(repeat each argument, expiry: self.options.expiry).get()
    }

    /// Inlinable, so that the codec and the handle are specialised where the types are known.
    @inlinable
    func submit(_ argument: repeat each Argument, expiry: Duration?) throws -> AsyncResult<Result> {
        var writer = try self.core.beginRequest(self.options, of: self.info)
        try self.function.packArguments(&writer, repeat each argument)
        let ticket = try self.core.prepare(writer, of: self.info, options: self.options, expiry: expiry)
        let result = AsyncResult<Result>(ticket, readResult: self.function.readResult)
        self.core.start(result)
        return result
    }

    @inlinable
    func awaiting(_ argument: repeat each Argument, expiry: Duration?) async throws -> Result {
        let core = self.core
        var writer = try core.beginRequest(self.options, of: self.info)
        try self.function.packArguments(&writer, repeat each argument)
        var ticket = try core.encoded(writer, of: self.info, options: self.options, expiry: expiry)
        try await core.takePlace(for: &ticket)
        // Nothing else can reach its result.
        ticket.endsWithItsTask()
        let result = AsyncResult<Result>(ticket, readResult: self.function.readResult)
        core.start(result)
        return try await result.value
    }
}
