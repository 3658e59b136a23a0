// SPDX-License-Identifier: Apache-2.0

public import DroverCodec
internal import DroverRuntime
internal import Synchronization

// Two forms are disfavoured: a closure of several statements without a `return` would fit them as well as their twins for
// handlers without a result, and it means the latter.
extension Worker {
    /// Registers a handler that runs on a thread of the worker; it may block.
    ///
    /// - Parameters:
    ///   - function: The function it implements. A name can be registered once: see ``registrationProblem``.
    ///   - limit: How many of this function may run at once, at least 1; nil for no limit beyond the worker's.
    ///   - timeLimits: How long it may run; nil takes the configuration's limits.
    ///   - body: The handler. What it throws is the caller's `RemoteError`.
    @inlinable
    @_disfavoredOverload
    public func register<each Argument, Result>(
        _ function: Function<repeat each Argument, Result>,
        limit: Int? = nil,
        timeLimits: TimeLimits? = nil,
        _ body: @escaping @Sendable (repeat each Argument) throws -> Result
    ) {
        self.addSync(function.name, limit, timeLimits) { (reader, writer) in
            let arguments = try Self.arguments(of: function, from: &reader)
            let value = try body(repeat each arguments)
            try Self.pack(value, of: function, into: &writer)
        }
    }

    /// Registers a handler without a result; see ``register(_:limit:timeLimits:_:)``.
    ///
    /// - Parameters:
    ///   - function: The function it implements.
    ///   - limit: How many of this function may run at once.
    ///   - timeLimits: How long it may run; nil takes the configuration's limits.
    ///   - body: The handler.
    @inlinable
    public func register<each Argument>(
        _ function: Function<repeat each Argument, Nothing>,
        limit: Int? = nil,
        timeLimits: TimeLimits? = nil,
        _ body: @escaping @Sendable (repeat each Argument) throws -> Void
    ) {
        self.addSync(function.name, limit, timeLimits) { (reader, writer) in
            let arguments = try Self.arguments(of: function, from: &reader)
            try body(repeat each arguments)
            try Self.pack(Nothing(), of: function, into: &writer)
        }
    }

    /// Registers a handler that is told about its request: deadline, cancellation, caller.
    ///
    /// - Parameters:
    ///   - function: The function it implements.
    ///   - limit: How many of this function may run at once.
    ///   - timeLimits: How long it may run; nil takes the configuration's limits.
    ///   - body: The handler, given the request's context first.
    public func register<each Argument, Result>(
        _ function: Function<repeat each Argument, Result>,
        limit: Int? = nil,
        timeLimits: TimeLimits? = nil,
        _ body: @escaping @Sendable (JobContext, repeat each Argument) throws -> Result
    ) {
        self.add(function.name, limit, timeLimits) {
            .syncWithContext { (reader, context, writer) in
                let arguments = try Self.arguments(of: function, from: &reader)
                try Self.pack(try body(context, repeat each arguments), of: function, into: &writer)
            }
        }
    }

    /// Registers an asynchronous handler, which runs as a task; it must not block.
    ///
    /// - Parameters:
    ///   - function: The function it implements.
    ///   - limit: How many of this function may run at once.
    ///   - timeLimits: How long it may run; nil takes the configuration's limits.
    ///   - body: The handler. A cancelled request cancels its task.
    @_disfavoredOverload
    public func register<each Argument, Result>(
        _ function: Function<repeat each Argument, Result>,
        limit: Int? = nil,
        timeLimits: TimeLimits? = nil,
        _ body: @escaping @Sendable @concurrent (repeat each Argument) async throws -> Result
    ) {
        self.add(function.name, limit, timeLimits) {
            .async { (reader, _) in
                let arguments = try Self.arguments(of: function, from: &reader)
                return {
                    let value = try await body(repeat each arguments)
                    return { (writer: inout PackWriter) throws(CodecError) in try function.packResult(value, &writer) }
                }
            }
        }
    }

    /// Registers an asynchronous handler without a result.
    ///
    /// - Parameters:
    ///   - function: The function it implements.
    ///   - limit: How many of this function may run at once.
    ///   - timeLimits: How long it may run; nil takes the configuration's limits.
    ///   - body: The handler. A cancelled request cancels its task.
    public func register<each Argument>(
        _ function: Function<repeat each Argument, Nothing>,
        limit: Int? = nil,
        timeLimits: TimeLimits? = nil,
        _ body: @escaping @Sendable @concurrent (repeat each Argument) async throws -> Void
    ) {
        self.add(function.name, limit, timeLimits) {
            .async { (reader, _) in
                let arguments = try Self.arguments(of: function, from: &reader)
                return {
                    try await body(repeat each arguments)
                    return { (writer: inout PackWriter) throws(CodecError) in
                        try function.packResult(Nothing(), &writer)
                    }
                }
            }
        }
    }

    /// Registers an asynchronous handler that is told about its request.
    ///
    /// - Parameters:
    ///   - function: The function it implements.
    ///   - limit: How many of this function may run at once.
    ///   - timeLimits: How long it may run; nil takes the configuration's limits.
    ///   - body: The handler, given the request's context first.
    public func register<each Argument, Result>(
        _ function: Function<repeat each Argument, Result>,
        limit: Int? = nil,
        timeLimits: TimeLimits? = nil,
        _ body: @escaping @Sendable @concurrent (JobContext, repeat each Argument) async throws -> Result
    ) {
        self.add(function.name, limit, timeLimits) {
            .async { (reader, context) in
                let arguments = try Self.arguments(of: function, from: &reader)
                return {
                    let value = try await body(context, repeat each arguments)
                    return { (writer: inout PackWriter) throws(CodecError) in try function.packResult(value, &writer) }
                }
            }
        }
    }

    /// For the synchronous forms, which are inlinable so that their types are known where the arguments are read.
    @usableFromInline
    func addSync(
        _ name: String,
        _ limit: Int?,
        _ timeLimits: TimeLimits?,
        _ body: @escaping @Sendable (inout PackReader, inout PackWriter) throws -> Void
    ) {
        self.add(name, limit, timeLimits) { .sync(body) }
    }

    private func add(_ name: String, _ limit: Int?, _ timeLimits: TimeLimits?, _ body: () -> Handler.Body) {
        let handler = Handler(
            name: name,
            body: body(),
            limit: limit,
            timeLimits: timeLimits,
            usualLimits: self.configuration.timeLimits
        )
        self.add(handler)
    }

    @inlinable
    static func pack<each Argument, Result>(
        _ value: Result,
        of function: Function<repeat each Argument, Result>,
        into writer: inout PackWriter
    ) throws {
        do throws(CodecError) { try function.packResult(value, &writer) } catch { throw ResultError(cause: error) }
    }

    @inlinable
    static func arguments<each Argument, Result>(
        of function: Function<repeat each Argument, Result>,
        from reader: inout PackReader
    ) throws -> (repeat each Argument) {
        do throws(CodecError) {
            let arguments = try function.unpackArguments(&reader)
            try reader.expectEnd()
            return arguments
        } catch {
            throw ArgumentError(cause: error)
        }
    }
}
