// SPDX-License-Identifier: Apache-2.0

public import DroverRuntime
internal import DroverWire
internal import Logging
internal import Synchronization

/// The functions of a worker, and who serves them.
///
/// A value: ``Worker`` keeps it under a lock, for functions may be registered from any thread at any time.
struct Registry: Sendable {
    private struct Server: Sendable { weak var core: WorkerCore? }

    private(set) var handlers: [String: Handler] = [:]
    /// The first registration that was refused.
    private(set) var problem: UsageError?
    private var servers: [Server] = []

    /// Takes a handler; who runs already serves it from now on.
    ///
    /// - Returns: Why it was refused; nil if it wasn't.
    mutating func add(_ handler: Handler) -> UsageError? {
        self.servers.removeAll { $0.core.map { $0.life.state == .stopped } ?? true }
        if let refusal = self.refusal(of: handler) {
            self.problem = self.problem ?? refusal
            return refusal
        }
        self.handlers[handler.name] = handler
        for server in self.servers { server.core?.register(handler) }
        return nil
    }

    private func refusal(of handler: Handler) -> UsageError? {
        let name = handler.name
        if self.handlers[name] != nil {
            return UsageError(
                .badConfiguration,
                "the function \"\(name)\" is registered twice: remove one of the two, or give one another name"
            )
        }
        guard !self.servers.isEmpty else { return nil }
        if handler.isolated != nil {
            return UsageError(
                .badConfiguration,
                "the function \"\(name)\" with a process of its own is registered after the worker was started, and the "
                    + "processes don't know it: register it before"
            )
        }
        if self.handlers.count >= WireLimits.standard.maxFunctions {
            return UsageError.tooManyFunctions(self.handlers.count + 1)
        }
        return handler.problem
    }

    /// A worker was started with these handlers; it is told of those that came meanwhile.
    mutating func started(_ core: WorkerCore, with known: [String: Handler]) {
        self.servers.append(Server(core: core))
        for (name, handler) in self.handlers where known[name] == nil { core.register(handler) }
    }
}

extension Worker {
    /// Why the first registration that was refused was: its name was registered before, or it can't be served.
    ///
    /// ``start(_:)`` throws it. On a worker that runs already a refused function is logged as an error, and nothing
    /// changes: the handler that was there stays. Nil if all were taken.
    public var registrationProblem: UsageError? { self.registry.withLock { $0.problem } }

    func add(_ handler: Handler) {
        guard let refusal = self.registry.withLock({ $0.add(handler) }) else { return }
        self.configuration.logger.error(
            "a function was not registered",
            metadata: [LogKeys.function: "\(handler.name)", LogKeys.error: "\(refusal)"]
        )
    }
}

extension UsageError {
    static func tooManyFunctions(_ count: Int) -> UsageError {
        UsageError(
            .badConfiguration,
            "the worker registers \(count) functions; \(WireLimits.standard.maxFunctions) is the limit"
        )
    }
}

extension Handler {
    /// Why no worker can serve it.
    var problem: UsageError? {
        let isName = (1...WireLimits.standard.maxNameBytes).contains(self.name.utf8.count)
        if !isName { return UsageError.badName(self.name) }
        if let limit = self.limit, limit < 1 {
            return UsageError(
                .badConfiguration,
                "\(self.name), limit: \(limit) would let none run; it must be at least 1, or nil for no limit"
            )
        }
        if let refusal = self.isolated?.refusal { return UsageError(.badConfiguration, refusal) }
        guard !self.hasUsualLimits, let problem = self.timeLimits.problem else { return nil }
        return UsageError(.badConfiguration, "\(self.name), timeLimits: \(problem)")
    }
}
