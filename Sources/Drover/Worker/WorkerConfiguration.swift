// SPDX-License-Identifier: Apache-2.0

public import DroverRuntime
package import DroverZMQ
public import Logging

/// How a worker behaves.
///
/// All have defaults that suit a machine of its own.
public struct WorkerConfiguration: Sendable {
    /// The worker's name in answers, errors and logs; by default, host and process id, such as `host7-4711`.
    ///
    /// An order of `drover workers` to a name goes to all workers that have it.
    public var name: String = ProcessName.current
    /// How many handlers run at once.
    public var concurrency = 4
    /// How many requests one client may have here at once, running or waiting.
    public var window = 1024
    /// How many clients there may be, if there are descriptors for as many: an eighth of those stays free.
    public var maxClients = 1024
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
    /// How many bytes of answers a client may leave unread; its further requests wait until it has read half, and others go on.
    ///
    /// All clients together may leave four times as many: then those wait who left more than a small part of it. As many bytes of
    /// large answers are kept for a client, and for all, until they have been read, in case that its connection breaks.
    public var maxUnreadBytes = 64 << 20
    /// A request that is unanswered for this long is reported to its client as accepted or started.
    public var reportDelay: Duration = .milliseconds(5)
    /// Whether small messages for one client that are ready at the same moment share a frame.
    ///
    /// It adds no waiting.
    public var coalescesMessages = true
    /// How often the worker sends a client a heartbeat if there is nothing else to send.
    public var heartbeatInterval: Duration = .seconds(2)
    /// The silence limit: a client silent for this long is gone: its waiting requests are dropped, its
    /// running ones are cancelled.
    public var silenceLimit: Duration = .seconds(6)
    /// How long running handlers may take when the worker is asked to shut down; then they are cancelled.
    public var drainGrace: Duration = .seconds(30)
    /// How long a handler may run, if it was registered without limits of its own; unlimited unless set.
    public var timeLimits = TimeLimits.unlimited
    /// How long a handler may run on after it was cancelled; then it is stuck: its call is answered without it, it is counted in
    /// `WorkerStatus.stuck`, and its slot is replaced.
    ///
    /// It counts for calls that were cancelled, by a caller, its deadline or its end; limits of the run time are apart.
    public var cancellationGrace: Duration = .seconds(10)
    /// How many slots of stuck handlers are replaced at once, each by a thread more; nil for as many as `concurrency`.
    ///
    /// Beyond it a stuck handler keeps its slot until it ends.
    public var maxReplacedSlots: Int?
    /// How many handlers may have given their slots back at once, by ``JobContext/withSlotReleased(_:)``; a further one keeps its
    /// slot while it waits.
    ///
    /// Synchronous ones block a thread each.
    public var maxReleasedSlots = 256
    /// When the worker leaves by itself, so that a fresh one takes its place; never, unless it is set.
    public var recycling = RecyclingPolicy()
    /// How long the process of an isolated handler has, with all it has started, between SIGTERM and SIGKILL when its call is
    /// cancelled.
    public var isolationGrace: Duration = .seconds(2)
    /// The keys for encrypted connections to brokers; nil speaks to them in the clear.
    public var keys: ConnectionKeys?
    /// The keys with which the worker listens, if it does; nil lets in every peer that can reach it.
    public var listenerKeys: ListenerKeys?
    /// Whether an address that other machines can reach may be bound or dialled without encryption.
    public var allowsUnencryptedNetwork = false
    /// Who may connect to the socket of an `ipc://` address, as permissions of a file: its owner, by default.
    ///
    /// `0o660` lets its group in. An abstract socket (`ipc://@name`) has no file: every user of the machine may connect to it.
    public var socketMode: UInt32 = 0o600
    /// The queues that the worker serves for brokers; the unnamed one, "", is that of calls that name none.
    public var queues: Set<String> = [""]
    /// What the worker is, for calls that ask for it through a broker, such as `["zone": "eu"]`.
    public var labels: [String: String] = [:]
    /// What the worker has of each resource that calls may occupy, such as `["gpu": 2]`.
    public var resources: [String: UInt64] = [:]
    /// Where the worker logs.
    public var logger = Logger(label: "drover.worker")
    /// Looks up the names in addresses.
    package var resolver = NameResolver.shared

    /// Creates the default configuration.
    public init() {}

    func validated() throws -> WorkerConfiguration {
        func check(_ isValid: Bool, _ message: String) throws {
            guard isValid else { throw UsageError(.badConfiguration, message) }
        }
        try check((1...4096).contains(self.concurrency), "concurrency is \(self.concurrency); it must be 1 to 4096")
        try check(self.maxUnreadBytes >= 1 << 20, "maxUnreadBytes is \(self.maxUnreadBytes); it must be at least 1 MiB")
        try check(self.timeLimits.problem == nil, "timeLimits: \(self.timeLimits.problem ?? "")")
        try check(self.recycling.maxJobs ?? 1 > 0, "recycling.maxJobs must be at least 1")
        try check(self.recycling.maxAge ?? .seconds(1) > .zero, "recycling.maxAge must be positive")
        try check(self.cancellationGrace > .zero, "cancellationGrace must be positive")
        try check(
            self.maxReplacedSlots ?? 0 >= 0,
            "maxReplacedSlots must be 0 at least; nil for as many as concurrency"
        )
        try check(self.maxReleasedSlots >= 0, "maxReleasedSlots must be 0 at least")
        try check(self.socketMode <= 0o777, "socketMode is \(self.socketMode); it is 0o777 at most, such as 0o660")
        try check(self.window > 0, "window is \(self.window); it must be at least 1")
        try check(self.maxClients > 0, "maxClients is \(self.maxClients); it must be at least 1")
        try check(
            (1024...(1 << 30)).contains(self.maxPayloadBytes),
            "maxPayloadBytes is \(self.maxPayloadBytes); it must be between 1 KiB and 1 GiB"
        )
        try check(
            self.maxFrameBytes ?? .max >= 2 << 20,
            "maxFrameBytes is \(self.maxFrameBytes ?? 0); it must be at least 2 MiB"
        )
        try check(!self.queues.isEmpty, "queues is empty; a worker serves one at least, [\"\"] for the unnamed one")
        let termProblem =
            termProblem("queues", self.queues) ?? termProblem("labels", self.labels.keys)
            ?? termProblem("labels", self.labels.values) ?? termProblem("resources", self.resources.keys)
        try check(termProblem == nil, termProblem ?? "")
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
