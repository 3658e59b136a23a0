// SPDX-License-Identifier: Apache-2.0

public import DroverRuntime
public import DroverWire
package import DroverZMQ
public import Logging

/// How a client behaves.
///
/// All have defaults that suit a program beside its workers.
public struct ClientConfiguration: Sendable {
    /// The client's name in errors, in workers' logs and in what `drover why` shows; by default, host and process id.
    public var name: String = ProcessName.current
    /// How many calls may be outstanding; more are refused with `backpressure`, or wait if they are awaited.
    public var maxOutstandingCalls = 65_536
    /// The expiry of calls that set none; nil for no limit (contract S25).
    public var defaultExpiry: Duration?
    /// The largest request or reply, in bytes.
    public var maxPayloadBytes = 64 << 20
    /// Whether small messages for one worker that are ready at the same moment share a frame.
    ///
    /// It adds no waiting.
    public var coalescesMessages = true
    /// How long the poller looks out for the answer to a lone call, or for the next one, before it sleeps.
    ///
    /// That halves the time of a call where processors sleep in between. It takes processor time only from threads that have
    /// nothing to do, and only as long as it pays: after answers that took longer it is tried ever more seldom. Zero never does.
    public var spinLimit: Duration = .microseconds(200)
    /// How often the client sends a worker a heartbeat if there is nothing else to send.
    public var heartbeatInterval: Duration = .seconds(2)
    /// The silence limit: a worker that is silent for this long is lost.
    public var silenceLimit: Duration = .seconds(6)
    /// How often a worker may die while it may be running an idempotent call; then the call ends as a `RemoteError` with
    /// `poison`.
    ///
    /// Before its last attempt such a call is kept apart: it goes to a worker that has nothing else to do, and gets nothing else for
    /// five seconds, so that it alone can be to blame. With 1 the first death is the last: it ends all idempotent calls that the worker
    /// may have been running, whichever was to blame. Calls that wait on this side, or that a worker has sent back, spend no attempt.
    /// Brokers count for themselves.
    public var maxAttempts = 3
    /// How many events of a callback may wait, and what happens to more.
    public var eventQueueLimit = 10_000
    /// What happens to events over the limit.
    public var eventOverflow = OverflowPolicy.pushBack
    /// The keys for encrypted connections; nil speaks in the clear, which is refused for addresses of other machines.
    public var keys: ConnectionKeys?
    /// Whether addresses of other machines may be spoken to without encryption.
    public var allowsUnencryptedNetwork = false
    /// Whether the client starts its poller itself; if not, see ``BackgroundPoller``.
    public var startsPoller = true
    /// Where callbacks and events run; nil for a thread of the client's own.
    public var callbackExecutor: (any CallbackExecutor)?
    /// Where the client logs; it logs to trace and debug, and to warning what an operator must see.
    public var logger = Logger(label: "drover.client")
    /// Called for replies that came after their call had ended without them: correlation id, function, lateness.
    public var onLateReply: (@Sendable (LateReply) -> Void)?
    /// Called for errors that callbacks threw; by default they are logged.
    public var onCallbackError: (@Sendable (any Error, CallbackErrorSource) -> Void)?
    /// Called when a worker is lost.
    public var onDisconnect: (@Sendable (Disconnection) -> Void)?
    /// Called when a session with a worker begins.
    public var onConnect: (@Sendable (Connection) -> Void)?
    /// Whether calls go to brokers that drain, as questions may: those are answered until the end.
    package var asksWhoDrains = false
    /// Looks up the names in addresses.
    package var resolver = NameResolver.shared

    /// Creates the default configuration.
    public init() {}

    func validated() throws -> ClientConfiguration {
        func check(_ isValid: Bool, _ message: String) throws {
            guard isValid else { throw UsageError(.badConfiguration, message) }
        }
        try check(
            self.maxOutstandingCalls > 0,
            "maxOutstandingCalls is \(self.maxOutstandingCalls); it must be at least 1"
        )
        try check(
            (1024...(1 << 30)).contains(self.maxPayloadBytes),
            "maxPayloadBytes is \(self.maxPayloadBytes); it must be between 1 KiB and 1 GiB"
        )
        try check(self.heartbeatInterval > .zero, "heartbeatInterval must be positive")
        // As they are used: beyond 292 years all are the same.
        try check(
            self.silenceLimit.clampedNanoseconds > self.heartbeatInterval.clampedNanoseconds,
            "silenceLimit (\(self.silenceLimit)) must be longer than heartbeatInterval (\(self.heartbeatInterval))"
        )
        try check(
            self.spinLimit >= .zero && self.spinLimit <= .milliseconds(10),
            "spinLimit is \(self.spinLimit); it must be between zero and 10 ms: longer waits are better slept through"
        )
        try check((1...255).contains(self.maxAttempts), "maxAttempts is \(self.maxAttempts); it must be 1 to 255")
        try check(self.eventQueueLimit > 0, "eventQueueLimit is \(self.eventQueueLimit); it must be at least 1")
        var configuration = self
        configuration.logger = self.logger.legible
        return configuration
    }
}

/// A reply that came too late.
public struct LateReply: Hashable, Sendable {
    /// The call.
    public let correlationID: CorrelationID
    /// Its function.
    public let function: String
    /// How long after the call's end the reply came.
    public let lateness: Duration
}

/// Where an error that a callback threw came from.
public enum CallbackErrorSource: Hashable, Sendable {
    /// A result callback.
    case result(function: String, correlationID: CorrelationID)
    /// An event's callback.
    case subscription(SubscriptionID)
    /// One of the configuration's hooks.
    case hook
}

/// A session with a worker began.
public struct Connection: Hashable, Sendable {
    /// Where the worker is.
    public let endpoint: Endpoint
    /// The worker's name.
    public let worker: String
    /// Whether the worker still knew this client and its calls.
    public let isResumed: Bool
}

/// A worker was lost.
public struct Disconnection: Sendable {
    /// Where the worker was.
    public let endpoint: Endpoint
    /// Why it is considered lost.
    public let error: ConnectionError
}
