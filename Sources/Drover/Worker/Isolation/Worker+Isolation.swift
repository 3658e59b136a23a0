// SPDX-License-Identifier: Apache-2.0

public import DroverCodec
internal import DroverRuntime
internal import Synchronization

extension Worker {
    /// Registers a handler that runs on a thread of the worker, or alone in a child process; it may block.
    ///
    /// - Parameters:
    ///   - function: The function it implements. A name can be registered once: see ``registrationProblem``. A function
    ///     with a process of its own must be registered before the worker is started.
    ///   - limit: How many of this function may run at once; nil for no limit beyond the worker's.
    ///   - timeLimits: How long it may run; nil takes the configuration's limits.
    ///   - isolation: Where it runs.
    ///   - body: The handler. What it throws is the caller's `RemoteError`; a crash is one with `crashed`.
    @_disfavoredOverload
    public func register<each Argument, Result>(
        _ function: Function<repeat each Argument, Result>,
        limit: Int? = nil,
        timeLimits: TimeLimits? = nil,
        isolation: Isolation,
        _ body: @escaping @Sendable (repeat each Argument) throws -> Result
    ) {
        guard isolation.isProcess else {
            return self.register(function, limit: limit, timeLimits: timeLimits, body)
        }
        self.addIsolated(
            function,
            limit,
            timeLimits,
            .sync { (reader, writer) in
                let arguments = try Self.arguments(of: function, from: &reader)
                let value = try body(repeat each arguments)
                try Self.pack(value, of: function, into: &writer)
            }
        )
    }

    /// Registers a handler without a result; see ``register(_:limit:timeLimits:isolation:_:)``.
    ///
    /// - Parameters:
    ///   - function: The function it implements.
    ///   - limit: How many of this function may run at once.
    ///   - timeLimits: How long it may run; nil takes the configuration's limits.
    ///   - isolation: Where it runs.
    ///   - body: The handler.
    public func register<each Argument>(
        _ function: Function<repeat each Argument, Nothing>,
        limit: Int? = nil,
        timeLimits: TimeLimits? = nil,
        isolation: Isolation,
        _ body: @escaping @Sendable (repeat each Argument) throws -> Void
    ) {
        guard isolation.isProcess else {
            return self.register(function, limit: limit, timeLimits: timeLimits, body)
        }
        self.addIsolated(
            function,
            limit,
            timeLimits,
            .sync { (reader, writer) in
                let arguments = try Self.arguments(of: function, from: &reader)
                try body(repeat each arguments)
                try Self.pack(Nothing(), of: function, into: &writer)
            }
        )
    }

    /// Registers an asynchronous handler that runs as a task, in the worker's process or alone in a child.
    ///
    /// - Parameters:
    ///   - function: The function it implements.
    ///   - limit: How many of this function may run at once.
    ///   - timeLimits: How long it may run; nil takes the configuration's limits.
    ///   - isolation: Where it runs.
    ///   - body: The handler.
    @_disfavoredOverload
    public func register<each Argument, Result>(
        _ function: Function<repeat each Argument, Result>,
        limit: Int? = nil,
        timeLimits: TimeLimits? = nil,
        isolation: Isolation,
        _ body: @escaping @Sendable @concurrent (repeat each Argument) async throws -> Result
    ) {
        guard isolation.isProcess else {
            return self.register(function, limit: limit, timeLimits: timeLimits, body)
        }
        self.addIsolated(
            function,
            limit,
            timeLimits,
            .async { reader in
                let arguments = try Self.arguments(of: function, from: &reader)
                return {
                    let value = try await body(repeat each arguments)
                    return { (writer: inout PackWriter) throws(CodecError) in try function.packResult(value, &writer) }
                }
            }
        )
    }

    /// Registers an asynchronous handler without a result; see ``register(_:limit:timeLimits:isolation:_:)``.
    ///
    /// - Parameters:
    ///   - function: The function it implements.
    ///   - limit: How many of this function may run at once.
    ///   - timeLimits: How long it may run; nil takes the configuration's limits.
    ///   - isolation: Where it runs.
    ///   - body: The handler.
    public func register<each Argument>(
        _ function: Function<repeat each Argument, Nothing>,
        limit: Int? = nil,
        timeLimits: TimeLimits? = nil,
        isolation: Isolation,
        _ body: @escaping @Sendable @concurrent (repeat each Argument) async throws -> Void
    ) {
        guard isolation.isProcess else {
            return self.register(function, limit: limit, timeLimits: timeLimits, body)
        }
        self.addIsolated(
            function,
            limit,
            timeLimits,
            .async { reader in
                let arguments = try Self.arguments(of: function, from: &reader)
                return {
                    try await body(repeat each arguments)
                    return { (writer: inout PackWriter) throws(CodecError) in
                        try function.packResult(Nothing(), &writer)
                    }
                }
            }
        )
    }

    /// Whether this process is a child that was started to run isolated handlers.
    ///
    /// Such a process runs the program up to where it starts its worker, which then serves the parent and never returns.
    /// What must not happen twice before that, such as opening a port, can be left out by this.
    public static var isChild: Bool { ChildServer.isCurrent }

    private func addIsolated<each Argument, Result>(
        _ function: Function<repeat each Argument, Result>,
        _ limit: Int?,
        _ timeLimits: TimeLimits?,
        _ body: IsolatedFunction.Body
    ) {
        let isolated = IsolatedFunction(
            name: function.name,
            isIdempotent: function.isIdempotent,
            refusal: hasCallback(repeat (each Argument).self)
                ? "\(function.name) takes a callback, which can't be called from a process of its own: register it "
                    + "without isolation"
                : nil,
            body: body
        )
        let handler = Handler(
            name: function.name,
            body: .syncWithContext { (reader, context, writer) in
                try isolated.runInChild(&reader, context, &writer)
            },
            limit: limit,
            timeLimits: timeLimits,
            usualLimits: self.configuration.timeLimits,
            isolated: isolated
        )
        self.add(handler)
    }
}
