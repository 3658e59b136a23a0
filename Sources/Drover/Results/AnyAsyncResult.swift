// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
public import DroverWire
public import DroverZMQ
internal import Synchronization

/// A call's handle without its result type: everything but the value.
///
/// A handle starts pending and makes exactly one transition, to one of five ends. Reading it costs no I/O and never
/// blocks; all members may be used from any thread and inside callbacks.
///
/// `@unchecked Sendable`, because:
/// - what the initialiser sets never changes;
/// - `request` belongs to one side at a time: to the caller until the handle is posted to the mailbox, to the poller
///   afterwards (the mailbox orders the two);
/// - `failure` is written once, under `waiting`'s lock and before `status` is released; the value of the subclass is
///   written by the poller before that; readers acquire `status` first;
/// - everything else is atomic or behind that lock.
///
/// By the same rules no two accesses overlap, so they aren't checked at run time.
public class AnyAsyncResult: @unchecked Sendable, MailboxNode {
    @usableFromInline
    enum Status: UInt8 {
        case pending, value, failed, expired, cancelled, lost
    }

    /// What is asked of the worker.
    enum Kind: Sendable {
        case call
        /// Many calls of one function.
        case chunk
        /// A sign of life, answered by the worker's I/O thread; of one endpoint, or of whichever answers first.
        case ping(endpoint: Int?)
    }

    private static var noPing: Int32 { -2 }
    private static var isChunk: Int32 { -3 }
    private static var pingAny: Int32 { -1 }

    /// What few calls have.
    private final class Rarities: Sendable {
        let affinity: UInt64
        let references: [SubscriptionID]

        init(affinity: UInt64, references: [SubscriptionID]) {
            self.affinity = affinity
            self.references = references
        }
    }

    /// The call's number, unique within its client's life.
    public final let correlationID: CorrelationID

    // Many handles may wait at once, so what few calls have is kept apart, and the fields stand in an order without gaps.

    /// The client's number of the function.
    final let function: UInt32
    /// The endpoint that a sign of life is asked of, or one of the numbers below.
    private final let pingTarget: Int32
    final let client: ClientCore
    final let submittedAt: Instant
    private final let rarities: Rarities?

    /// The request as it goes over the wire, header first; see the class's comment for who may touch it.
    @safe @exclusivity(unchecked) final var request: RequestBytes
    /// Phase in the low byte, endpoint above.
    private let progressWord = Atomic<UInt32>(0)
    private let status = Atomic<UInt8>(Status.pending.rawValue)
    final let isIdempotent: Bool
    final let hasMetadata: Bool
    final let cancelsWithWaiter: Bool
    package final let mailboxLink = MailboxLink()
    private let deadlineWord: Atomic<UInt64>
    private let limitWord: Atomic<UInt64>
    private let waiting = Mutex(Waiting())
    @safe @exclusivity(unchecked) private final var failure: FailureBox?
    /// Behind `waiting`'s lock; made when the first event comes or is asked for.
    @safe @exclusivity(unchecked) private final var eventChannel: ResultChannel?

    @usableFromInline
    init(_ ticket: consuming CallTicket) {
        self.correlationID = CorrelationID(ticket.id)
        self.function = ticket.function
        self.client = ticket.client
        self.request = ticket.request.block
        self.hasMetadata = ticket.request.hasMetadata
        switch ticket.request.kind {
        case .call: self.pingTarget = Self.noPing
        case .chunk: self.pingTarget = Self.isChunk
        case .ping(let endpoint): self.pingTarget = endpoint.map { Int32($0) } ?? Self.pingAny
        }
        self.submittedAt = ticket.submittedAt
        self.rarities =
            ticket.affinity == 0 && ticket.request.references.isEmpty
            ? nil : Rarities(affinity: ticket.affinity, references: ticket.request.references)
        self.isIdempotent = ticket.isIdempotent
        self.cancelsWithWaiter = ticket.cancelsWithWaiter
        self.limitWord = Atomic(ticket.limitNanoseconds ?? .max)
        let deadline = ticket.limitNanoseconds.map { ticket.submittedAt.advanced(byNanoseconds: $0) } ?? .distantFuture
        self.deadlineWord = Atomic(deadline.nanoseconds)
    }

    deinit { self.request.free() }

    final var kind: Kind {
        switch self.pingTarget {
        case Self.noPing: .call
        case Self.isChunk: .chunk
        case Self.pingAny: .ping(endpoint: nil)
        default: .ping(endpoint: Int(self.pingTarget))
        }
    }

    /// A hash of the ordering key, 0 without one.
    final var affinity: UInt64 { self.rarities?.affinity ?? 0 }

    /// The subscriptions whose callbacks are among the arguments.
    final var references: [SubscriptionID] { self.rarities?.references ?? [] }

    // MARK: Reading

    /// The function's name.
    public final var functionName: String { self.client.functionName(self.function) }

    /// Whether the call ended in a value, an error, a cancellation or a loss (contract S11).
    public final var isReady: Bool {
        switch self.currentStatus {
        case .value, .failed, .cancelled, .lost: true
        case .pending, .expired: false
        }
    }

    /// Whether the deadline won.
    public final var hasExpired: Bool { self.currentStatus == .expired }

    /// Whether the call failed, was lost or was cancelled (contract S19); false while pending and after an expiry.
    public final var hasError: Bool {
        switch self.currentStatus {
        case .failed, .cancelled, .lost: true
        case .pending, .value, .expired: false
        }
    }

    /// Whether the call has ended, in whatever way.
    public final var isTerminal: Bool { self.currentStatus != .pending }

    /// How far the call has come, as far as this client knows.
    public final var phase: CallProgress {
        self.currentStatus == .pending ? self.lastPhase : .terminal
    }

    /// The point in time at which the call expires, in nanoseconds of the client's clock.
    final var deadline: Instant {
        Instant(nanoseconds: self.deadlineWord.load(ordering: .relaxed))
    }

    @usableFromInline final var currentStatus: Status {
        Status(rawValue: self.status.load(ordering: .acquiring)) ?? .pending
    }

    final var lastPhase: CallProgress {
        let word = self.progressWord.load(ordering: .relaxed)
        switch CallPhase(rawValue: UInt8(truncatingIfNeeded: word)) ?? .local {
        case .local: return .local
        case .sent: return .sent
        case .accepted: return .accepted(worker: self.client.workerName(of: Int(word >> 8)))
        case .running: return .running(worker: self.client.workerName(of: Int(word >> 8)))
        }
    }

    /// The request will not be sent (again).
    final func freeRequest() { self.request.free() }

    final func show(_ phase: CallPhase, endpoint: Int) {
        self.progressWord.store(UInt32(phase.rawValue) | UInt32(max(0, endpoint)) << 8, ordering: .relaxed)
    }

    /// Why the call ended without a value.
    ///
    /// Only to be read once the status says so.
    final var storedFailure: FailureBox? { self.failure }

    // MARK: Ending

    /// Ends the call, if nobody else has: `store` runs if this attempt wins, before anybody can see the end.
    ///
    /// - Returns: Who waits for the end, or nil if it had come already.
    final func settle(_ end: Status, failure: FailureBox? = nil, store: () -> Void = {}) -> Waiting? {
        var channel: ResultChannel?
        let taken: Waiting? = self.waiting.withLock { waiting in
            guard self.status.load(ordering: .relaxed) == Status.pending.rawValue else { return nil }
            store()
            self.failure = failure
            self.status.store(end.rawValue, ordering: .releasing)
            channel = self.eventChannel
            let taken = waiting
            waiting = Waiting()
            return taken
        }
        if let channel { channel.finish() }
        return taken
    }

    /// Ends the call on the caller's thread, and tells the poller.
    final func settleHere(_ end: Status, failure: FailureBox?, reason: CancelReason) -> Bool {
        self.client.tellers.begin()
        defer { self.client.tellers.end() }
        guard let waiting = self.settle(end, failure: failure) else { return false }
        self.client.callEnded(self, as: end)
        self.client.post(.abandon(self, reason))
        waiting.wake(for: self)
        return true
    }

    /// Takes a value reply: decodes it and ends the call.
    ///
    /// Overridden with the result's type.
    ///
    /// - Parameters:
    ///   - payload: The value, encoded.
    ///   - microseconds: How long the handler ran, 0 if the worker doesn't say.
    /// - Returns: Who waits for the end, or nil if it had come already.
    func settle(value payload: UnsafeRawBufferPointer, ran microseconds: UInt32) -> Waiting? { nil }

    /// How many calls it stands for.
    var itemCount: Int { 1 }

    final func timeout(at now: Instant) -> FailureBox {
        let limit = self.limitWord.load(ordering: .relaxed)
        return .timeout(
            AsyncResultTimeout(
                function: self.functionName,
                correlationID: self.correlationID,
                limit: Duration(nanoseconds: limit),
                elapsed: Duration(nanoseconds: now.nanoseconds(since: self.submittedAt)),
                phase: self.lastPhase,
                problem: self.lastPhase == .local ? self.client.problem : nil
            )
        )
    }

    // MARK: Cancelling and expiring

    /// Cancels the call: the handle is cancelled at once, a queued request is removed, a running handler is asked to stop
    /// (contract S98).
    ///
    /// - Returns: Whether this ended the call; false if it had ended before.
    @discardableResult
    public final func cancel() -> Bool {
        self.settleHere(.cancelled, failure: nil, reason: .requested)
    }

    final func moveDeadline(to deadline: Instant, limitNanoseconds: UInt64) -> Bool {
        let now = self.client.now()
        if deadline <= now {
            guard !self.isTerminal else { return false }
            self.limitWord.store(limitNanoseconds, ordering: .relaxed)
            return self.settleHere(.expired, failure: self.timeout(at: now), reason: .expired)
        }
        let isPending = self.waiting.withLock { _ in
            guard self.status.load(ordering: .relaxed) == Status.pending.rawValue else { return false }
            self.limitWord.store(limitNanoseconds, ordering: .relaxed)
            self.deadlineWord.store(deadline.nanoseconds, ordering: .relaxed)
            return true
        }
        if isPending { self.client.post(.deadlineMoved(self)) }
        return isPending
    }

    // MARK: Waiters

    /// Adds a waiter, in one step with the check whether the call has ended (contract S56).
    ///
    /// - Returns: False if the call has ended: the waiter was not added.
    final func add(_ waiter: Waiter) -> Bool {
        self.waiting.withLock { waiting in
            guard self.status.load(ordering: .relaxed) == Status.pending.rawValue else { return false }
            waiting.append(waiter)
            return true
        }
    }

    /// Takes a waiter back that gave up.
    ///
    /// Returns what was registered under the key, if it was still there.
    final func withdraw(_ key: Waiter.Key) -> Waiter? {
        self.waiting.withLock { $0.remove(key) }
    }

    /// Adds a task's continuation, unless the task was cancelled before it came this far.
    final func add(task key: UInt64, _ continuation: Resumption<WaitResult>) {
        let answer: WaitResult? = self.waiting.withLock { waiting in
            guard self.status.load(ordering: .relaxed) == Status.pending.rawValue else { return .ended }
            if waiting.remove(.tombstone(key)) != nil { return .cancelled }
            unsafe waiting.append(.task(key, continuation))
            return nil
        }
        if let answer {
            continuation.resume(returning: answer)
        } else if self.client.isStopped, case .task(_, let unserved)? = self.withdraw(.task(key)) {
            // The poller was stopped before the registration: nobody ends this wait.
            unserved.resume(returning: .ended)
        }
    }

    /// A waiting task was cancelled, perhaps before its continuation was registered.
    final func cancelTask(_ key: UInt64) {
        let continuation: Resumption<WaitResult>? = self.waiting.withLock { waiting in
            if case .task(_, let continuation)? = waiting.remove(.task(key)) { return continuation }
            if self.status.load(ordering: .relaxed) == Status.pending.rawValue { waiting.append(.tombstone(key)) }
            return nil
        }
        if self.cancelsWithWaiter { self.cancel() }
        continuation?.resume(returning: .cancelled)
    }

    /// A waiting task is served: nothing of it may stay behind.
    final func forgetTask(_ key: UInt64) {
        self.waiting.withLock { _ = $0.remove(.tombstone(key)) }
    }

    /// Where the call's events gather.
    final func channel() -> ResultChannel {
        let (channel, isOver) = self.waiting.withLock { _ in
            let channel = self.eventChannel ?? ResultChannel()
            self.eventChannel = channel
            return (channel, self.status.load(ordering: .relaxed) != Status.pending.rawValue)
        }
        if isOver { channel.finish() }
        return channel
    }

    /// The endpoint the call was given to last.
    final var lastEndpoint: Int { Int(self.progressWord.load(ordering: .relaxed) >> 8) }

    /// Takes out the waiters that nothing can serve now, since the poller was stopped.
    final func dismissWaiters() {
        let dismissed = self.waiting.withLock { $0.takeReaders() }
        dismissed.wake(for: self)
    }
}

extension AnyAsyncResult: CustomStringConvertible {
    /// State, function, correlation id, age and remaining time (contract S22).
    public final var description: String {
        let now = self.client.now()
        let age = Duration(nanoseconds: now.nanoseconds(since: self.submittedAt))
        let status = self.currentStatus
        var text = "AsyncResult \(self.functionName) \(self.correlationID) \(status), \(age) old"
        if status == .pending {
            text += ", \(self.lastPhase)"
            if self.lastPhase == .local, let problem = self.client.problem { text += " (\(problem))" }
            let deadline = self.deadline
            if deadline != .distantFuture {
                text += ", expires in \(Duration(nanoseconds: deadline.nanoseconds(since: now)))"
            }
        }
        return text
    }
}
