// SPDX-License-Identifier: Apache-2.0

/// A wrapper whose call returns a handle at once: RPyC's `async_`.
///
/// Made by ``async(_:)-(RemoteFunction<Argument,Result>)``; there is one per client, function and options while any is held (contract S5).
public final class AsyncFunction<each Argument: Codable & Sendable, Result: Codable & Sendable>: Sendable {
    /// The function behind it.
    public let function: RemoteFunction<repeat each Argument, Result>
    private let key: WrapperKey

    fileprivate init(_ function: RemoteFunction<repeat each Argument, Result>, key: WrapperKey) {
        self.function = function
        self.key = key
    }

    deinit { self.function.client.core.wrappers.released(self.key) }

    /// Makes a call and returns its handle at once.
    ///
    /// - Parameter argument: The arguments, by value.
    /// - Returns: A pending handle.
    /// - Throws: As ``RemoteFunction/async(_:)``.
    @inlinable
    public func callAsFunction(_ argument: repeat each Argument) throws -> AsyncResult<Result> {
        try self.function.async(repeat each argument)
    }
}

/// Wraps a remote function so that a call returns its handle at once.
///
/// Sends nothing.
///
/// - Parameter function: A function of a client.
/// - Returns: The wrapper; the same one as long as any is held.
public func async<each Argument, Result>(
    _ function: RemoteFunction<repeat each Argument, Result>
) -> AsyncFunction<repeat each Argument, Result> {
    let key = WrapperKey(
        type: ObjectIdentifier(AsyncFunction<repeat each Argument, Result>.self),
        name: function.name,
        options: function.options
    )
    return function.client.core.wrappers.wrapper(for: key) { AsyncFunction(function, key: key) }
}

/// Wrapping a wrapper returns that wrapper (contract S5).
///
/// - Parameter function: A wrapper.
/// - Returns: The same wrapper.
public func async<each Argument, Result>(
    _ function: AsyncFunction<repeat each Argument, Result>
) -> AsyncFunction<repeat each Argument, Result> {
    function
}
