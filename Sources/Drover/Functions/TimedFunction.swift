// SPDX-License-Identifier: Apache-2.0

/// A wrapper whose call returns a handle at once that expires by itself: RPyC's `timed`.
///
/// Each call has its own deadline, counted from the call; queueing counts (contract S59).
public struct TimedFunction<each Argument: Codable & Sendable, Result: Codable & Sendable>: Sendable {
    /// The function behind it.
    public let function: RemoteFunction<repeat each Argument, Result>
    /// The time each call has, or nil for no limit.
    ///
    /// Zero and less always expire.
    public let limit: Duration?

    /// Makes a call and returns its handle at once.
    ///
    /// - Parameter argument: The arguments, by value.
    /// - Returns: A handle that ends in `AsyncResultTimeout` if no answer comes in time.
    /// - Throws: As ``RemoteFunction/async(_:)``.
    @inlinable
    public func callAsFunction(_ argument: repeat each Argument) throws -> AsyncResult<Result> {
        try self.function.submit(repeat each argument, expiry: self.limit ?? .never)
    }
}

/// Wraps a remote function so that each call returns its handle at once and expires after `limit`.
///
/// Sends nothing.
///
/// - Parameters:
///   - function: A function of a client.
///   - limit: The time each call has; nil for no limit.
/// - Returns: The wrapper, independent of any other of the same function.
public func timed<each Argument, Result>(
    _ function: RemoteFunction<repeat each Argument, Result>,
    _ limit: Duration?
) -> TimedFunction<repeat each Argument, Result> {
    TimedFunction(function: function, limit: limit)
}

/// Wraps the function behind an asynchronous wrapper with an expiry.
///
/// - Parameters:
///   - function: A wrapper.
///   - limit: The time each call has; nil for no limit.
/// - Returns: The wrapper.
public func timed<each Argument, Result>(
    _ function: AsyncFunction<repeat each Argument, Result>,
    _ limit: Duration?
) -> TimedFunction<repeat each Argument, Result> {
    TimedFunction(function: function.function, limit: limit)
}

extension Duration {
    /// Longer than any clock runs.
    @usableFromInline static var never: Duration { .seconds(Int64.max) }
}
