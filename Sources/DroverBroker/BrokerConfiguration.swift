// SPDX-License-Identifier: Apache-2.0

public import DroverRuntime
internal import DroverWire
internal import DroverZMQ
public import Logging

/// How a broker behaves.
///
/// All settings have defaults that suit a dedicated machine.
public struct BrokerConfiguration: Sendable {
    /// The broker's name, in answers, errors and logs.
    public var name = "broker"
    /// How many calls one client may have here at once, waiting or at workers.
    public var window = 1 << 21
    /// How many calls may wait in total; beyond that, clients are told to come back later.
    public var maxQueuedCalls = 4 << 20
    /// How many bytes the requests of unfinished calls may take here, but at least two of the largest; beyond that,
    /// clients are told to come back later.
    ///
    /// One client may use half of it. A client that has little here isn't kept out by what others have filled, which
    /// can stretch the limit by a quarter.
    public var maxQueuedBytes = 2 << 30
    /// How many bytes of answers and events one client may leave unread; beyond that, its calls wait here until it has
    /// read half.
    ///
    /// What a client doesn't read stays in this process. All clients together may leave four times as much; beyond
    /// that, the calls of those that left more than a small share of it wait. The same limits apply to the bytes of
    /// large answers kept, for one client and for all, until they have been read, in case a connection breaks.
    public var maxUnreadBytes = 64 << 20
    /// How many clients there may be, if there are enough descriptors: an eighth of those stays free.
    public var maxClients = 4096
    /// How many workers there may be.
    public var maxWorkers = 4096
    /// The largest request or reply, in bytes.
    public var maxPayloadBytes = 64 << 20
    /// The most bytes that a peer may send in one frame, at least 2 MiB; nil allows as many as a payload may have.
    ///
    /// A frame is decrypted in one go, at about a millisecond per megabyte, and meanwhile no other peer's bytes move.
    /// Peers that take parts, as all of Drover's do, send no frame of much over 1 MiB, whatever the payload. A peer
    /// that doesn't loses its connection when it sends a longer frame. Set it where clients don't trust each other.
    public var maxFrameBytes: Int?
    /// How many bytes of small answers are kept per client, for requests that are sent again after a reconnection.
    ///
    /// Sixteen times as many are kept while they aren't known to have been read, up to ``maxUnreadBytes`` more for all
    /// clients together. Answers larger than a sixteenth of this are kept separately until the client has read them, up
    /// to ``maxUnreadBytes``. 0 keeps neither kind.
    public var maxCachedResultBytes = 256 << 10
    /// How long a call waits for a worker that may run it when there is none.
    public var noWorkerPatience: Duration = .seconds(10)
    /// How often a worker may die while it may be running an idempotent call before the call ends as a `RemoteError`
    /// with `poison`.
    ///
    /// Before its last attempt such a call is kept apart: it goes to a worker that has nothing else to do and gets
    /// nothing else for five seconds, so that only this call can be to blame. With 1, the first death is the last: it
    /// ends all idempotent calls that the worker had, whichever was to blame. Calls that wait here, or that a worker
    /// has sent back, use up no attempt.
    public var maxAttempts = 3
    /// How often a peer hears from this broker when there is nothing else to send.
    public var heartbeatInterval: Duration = .seconds(2)
    /// How long a peer may be silent before it counts as gone.
    public var silenceLimit: Duration = .seconds(6)
    /// How long calls may take when the broker is asked to shut down.
    public var drainGrace: Duration = .seconds(30)
    /// The keys with which the broker listens; nil lets in everyone who can reach it.
    public var keys: ListenerKeys?
    /// How much one key may use, unless its line in the allow-list says otherwise.
    public var quotas = KeyQuotas()
    /// How long a connection may take to prove its key, or that it speaks ZeroMQ, before it is closed.
    public var handshakeLimit: Duration = .seconds(5)
    /// How many connections may wait to be accepted.
    public var backlog = 1024
    /// Whether an address that other machines can reach may be bound without encryption.
    public var allowsUnencryptedNetwork = false
    /// Who may connect to the socket of an `ipc://` address, as file permissions: by default, its owner.
    ///
    /// `0o660` lets its group in. An abstract socket (`ipc://@name`) has no file: every user of the machine may
    /// connect.
    public var socketMode: UInt32 = 0o600
    /// Where the broker logs.
    public var logger = Logger(label: "drover.broker")

    /// Creates the default configuration.
    public init() {}

    /// How many clients one key may have by default: half, if there is something to share.
    var usualClients: Int { self.maxClients < 64 ? self.maxClients : self.maxClients / 2 }

    /// How many workers one key may have by default.
    var usualWorkers: Int { self.maxWorkers < 64 ? self.maxWorkers : self.maxWorkers / 2 }

    /// How many bytes requests may take here: half of that must have room for the largest request.
    var roomForRequests: Int { max(self.maxQueuedBytes, 2 * (self.maxPayloadBytes + Header.byteCount)) }

    func validated() throws -> BrokerConfiguration {
        func check(_ isValid: Bool, _ message: String) throws {
            guard isValid else { throw UsageError(.badConfiguration, message) }
        }
        try check(self.window > 0, "window is \(self.window); it must be at least 1")
        try check(self.maxQueuedCalls > 0, "maxQueuedCalls is \(self.maxQueuedCalls); it must be at least 1")
        try check(self.maxQueuedBytes > 0, "maxQueuedBytes is \(self.maxQueuedBytes); it must be at least 1")
        try check(self.maxUnreadBytes >= 1 << 20, "maxUnreadBytes is \(self.maxUnreadBytes); it must be at least 1 MiB")
        try check(self.maxClients > 0, "maxClients is \(self.maxClients); it must be at least 1")
        try check(self.maxWorkers > 0, "maxWorkers is \(self.maxWorkers); it must be at least 1")
        try check((1...255).contains(self.maxAttempts), "maxAttempts is \(self.maxAttempts); it must be 1 to 255")
        try check(
            (1024...(1 << 30)).contains(self.maxPayloadBytes),
            "maxPayloadBytes is \(self.maxPayloadBytes); it must be between 1 KiB and 1 GiB"
        )
        try check(
            self.maxFrameBytes ?? .max >= 2 << 20,
            "maxFrameBytes is \(self.maxFrameBytes ?? 0); it must be at least 2 MiB"
        )
        try check(
            (Duration.milliseconds(100)...Duration.seconds(3600)).contains(self.handshakeLimit),
            "handshakeLimit is \(self.handshakeLimit); it must be between 0.1 seconds and an hour"
        )
        try check((1...65_535).contains(self.backlog), "backlog is \(self.backlog); it must be 1 to 65535")
        try check(self.socketMode <= 0o777, "socketMode is \(self.socketMode); it is 0o777 at most, such as 0o660")
        if let problem = self.quotas.problem { throw UsageError(.badConfiguration, problem) }
        try check(self.noWorkerPatience > .zero, "noWorkerPatience must be positive")
        try check(self.heartbeatInterval > .zero, "heartbeatInterval must be positive")
        // Compared as they are used: beyond 292 years all are the same.
        try check(
            self.silenceLimit.clampedNanoseconds > self.heartbeatInterval.clampedNanoseconds,
            "silenceLimit (\(self.silenceLimit)) must be longer than heartbeatInterval (\(self.heartbeatInterval))"
        )
        var configuration = self
        configuration.logger = self.logger.legible
        return configuration
    }
}
