// SPDX-License-Identifier: Apache-2.0

public import DroverRuntime
internal import DroverWire
internal import DroverZMQ
public import Logging

/// How a broker behaves.
///
/// All have defaults that suit a machine of its own.
public struct BrokerConfiguration: Sendable {
    /// The broker's name, in answers, errors and logs.
    public var name = "broker"
    /// How many calls one client may have here at once, waiting or at workers.
    public var window = 1 << 21
    /// How many calls may wait in all; beyond it clients are told to come back later.
    public var maxQueuedCalls = 4 << 20
    /// How many bytes the requests of calls that have not ended may take here, but at least two of the largest; beyond it clients
    /// are told to come back later.
    ///
    /// One client may use half of it. What others have filled keeps nobody out who has little here: that can stretch it by a
    /// quarter.
    public var maxQueuedBytes = 2 << 30
    /// How many bytes of answers and events one client may leave unread; beyond it its calls wait here until it has read half.
    ///
    /// What a client doesn't read stays in this process. All clients together may leave four times as much; then the calls of
    /// those wait who left more than a small share of it. As many bytes of large answers are kept for a client, and for all, until
    /// they have been read, in case that its connection breaks.
    public var maxUnreadBytes = 64 << 20
    /// How many clients there may be, if there are descriptors for as many: an eighth of those stays free.
    public var maxClients = 4096
    /// How many workers there may be.
    public var maxWorkers = 4096
    /// The largest request or reply, in bytes.
    public var maxPayloadBytes = 64 << 20
    /// The most bytes that a peer may send in one frame, 2 MiB at least; nil for as many as a payload may have.
    ///
    /// A frame is decrypted in one go, at about a millisecond a megabyte, and meanwhile nobody else's bytes move. Peers that take parts, as all
    /// of Drover's do, send no frame of much over 1 MiB, whatever the payload. One that doesn't loses its connection when it sends a
    /// longer frame. Set it where clients don't trust each other.
    public var maxFrameBytes: Int?
    /// How many bytes of small answers are kept per client, for requests that are sent again after a reconnection.
    ///
    /// Sixteen times as many are while they are not known to have been read, for all clients together up to ``maxUnreadBytes``
    /// more. Answers of more than a sixteenth of this are kept beside it until the client has read them, up to ``maxUnreadBytes``. 0 keeps
    /// none of either.
    public var maxCachedResultBytes = 256 << 10
    /// How long a call waits for a worker that may run it, if there is none.
    public var noWorkerPatience: Duration = .seconds(10)
    /// How often a worker may die while it may be running an idempotent call; then the call ends as a `RemoteError` with
    /// `poison`.
    ///
    /// Before its last attempt such a call is kept apart: it goes to a worker that has nothing else to do, and gets nothing else for
    /// five seconds, so that it alone can be to blame. With 1 the first death is the last: it ends all idempotent calls that the worker
    /// had, whichever was to blame. Calls that wait here, or that a worker has sent back, spend no attempt.
    public var maxAttempts = 3
    /// How often a peer hears from this broker if there is nothing else to say.
    public var heartbeatInterval: Duration = .seconds(2)
    /// A peer that is silent for so long is gone.
    public var silenceLimit: Duration = .seconds(6)
    /// How long calls may take when the broker is asked to shut down.
    public var drainGrace: Duration = .seconds(30)
    /// The keys with which the broker listens; nil lets everybody in who can reach it.
    public var keys: ListenerKeys?
    /// How much one key may use, unless its line in the allow-list says otherwise.
    public var quotas = KeyQuotas()
    /// How long a connection may take to prove its key, or that it speaks ZeroMQ; then it is closed.
    public var handshakeLimit: Duration = .seconds(5)
    /// How many connections may wait to be accepted.
    public var backlog = 1024
    /// Whether an address that other machines can reach may be bound without encryption.
    public var allowsUnencryptedNetwork = false
    /// Who may connect to the socket of an `ipc://` address, as permissions of a file: its owner, by default.
    ///
    /// `0o660` lets its group in. An abstract socket (`ipc://@name`) has no file: every user of the machine may connect to it.
    public var socketMode: UInt32 = 0o600
    /// Where the broker logs.
    public var logger = Logger(label: "drover.broker")

    /// Creates the default configuration.
    public init() {}

    /// How many clients one key may have unless that is said: half, if there is something to share.
    var usualClients: Int { self.maxClients < 64 ? self.maxClients : self.maxClients / 2 }

    /// And how many workers.
    var usualWorkers: Int { self.maxWorkers < 64 ? self.maxWorkers : self.maxWorkers / 2 }

    /// How many bytes requests may take here: half of it must have room for the largest.
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
        // As they are used: beyond 292 years all are the same.
        try check(
            self.silenceLimit.clampedNanoseconds > self.heartbeatInterval.clampedNanoseconds,
            "silenceLimit (\(self.silenceLimit)) must be longer than heartbeatInterval (\(self.heartbeatInterval))"
        )
        var configuration = self
        configuration.logger = self.logger.legible
        return configuration
    }
}
