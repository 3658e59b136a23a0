// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverCore
public import DroverRuntime
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
/// - `content` and `coldFields` are changed under `lock` alone. `content` is read without it only after the end: it changes for the
///   last time before `status` is released, and readers acquire `status` first. Of `coldFields` the same holds for a failed call's
///   error, and what the initialiser put there is only read;
/// - everything else is atomic.
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
        /// The same of whichever answers first, as long as one can be reached.
        case knock
    }

    private static var noPing: Int16 { -2 }
    private static var isChunk: Int16 { -3 }
    private static var pingAny: Int16 { -1 }
    private static var knocks: Int16 { -4 }

    /// What few calls need; kept out of line.
    private final class ColdFields {
        /// A hash of the ordering key, 0 without one; never changes.
        let affinity: UInt64
        /// Never changes.
        let references: [SubscriptionID]
        /// Made when the first event comes or is asked for.
        var eventChannel: ResultChannel?
        /// The limit that was set after the call was made.
        var limit: UInt64?
        /// Who has it behind a broker, as the broker said.
        var worker: String?
        /// The request whose handler made it; never changes, but may be gone: another may be where it was.
        weak let maker: JobContext?

        init(affinity: UInt64 = 0, references: [SubscriptionID] = [], maker: JobContext? = nil) {
            self.affinity = affinity
            self.references = references
            self.maker = maker
        }
    }

    /// What a call was made with.
    private struct Flags: OptionSet {
        let rawValue: UInt8
        static let idempotent = Flags(rawValue: 1)
        static let metadata = Flags(rawValue: 2)
        static let endsWithWaiter = Flags(rawValue: 4)
        /// It had cold fields from the start.
        static let coldFields = Flags(rawValue: 8)
        /// A handler made it; the cold fields say which.
        static let nested = Flags(rawValue: 16)
    }

    /// The call's number, unique within its client's life.
    public final let correlationID: CorrelationID

    // A program may hold handles by the hundred thousand. So what few calls have is kept apart, what a call needs before its
    // end and what it has after it share a place, and the fields stand in an order without gaps.

    final let client: ClientCore
    final let submittedAt: Instant
    /// The request as it goes over the wire, header first; see the class's comment for who may touch it.
    @safe @exclusivity(unchecked) final var request: RequestBytes
    /// Phase in the low byte, with bits for a call that is stalled, and for one that may have run; endpoint above.
    private let progressWord = Atomic<UInt32>(0)
    package final let mailboxLink = MailboxLink()
    private let deadlineWord: Atomic<UInt64>
    /// Before the end who waits for it, a ``Waiting``; afterwards the value's words, or why there is none, a ``FailureBox?``.
    @safe @exclusivity(unchecked) @usableFromInline final var content: (UInt, UInt, UInt) = (0, 0, 0)
    @safe @exclusivity(unchecked) private final var coldFields: ColdFields?
    /// The client's number of the function.
    final let function: UInt32
    private let lock = Mutex<Void>(())
    private let status = Atomic<UInt8>(Status.pending.rawValue)
    private final let flags: Flags
    /// The endpoint that a sign of life is asked of, or one of the numbers above.
    private final let pingTarget: Int16

    @usableFromInline
    init(_ ticket: consuming CallTicket) {
        self.correlationID = CorrelationID(ticket.id)
        self.function = ticket.function
        self.client = ticket.client
        self.request = ticket.request.block
        switch ticket.request.kind {
        case .call: self.pingTarget = Self.noPing
        case .chunk: self.pingTarget = Self.isChunk
        case .knock: self.pingTarget = Self.knocks
        case .ping(let endpoint): self.pingTarget = endpoint.map { Int16(clamping: $0) } ?? Self.pingAny
        }
        self.submittedAt = ticket.submittedAt
        var flags: Flags = []
        if ticket.isIdempotent { flags.insert(.idempotent) }
        if ticket.request.hasMetadata { flags.insert(.metadata) }
        if ticket.cancelsWithWaiter { flags.insert(.endsWithWaiter) }
        let maker = CurrentJob.maker
        if maker != nil { flags.insert(.nested) }
        if ticket.affinity != 0 || !ticket.request.references.isEmpty || maker != nil {
            flags.insert(.coldFields)
            self.coldFields = ColdFields(
                affinity: ticket.affinity,
                references: ticket.request.references,
                maker: maker
            )
        }
        self.flags = flags
        let deadline = ticket.limitNanoseconds.map { ticket.submittedAt.advanced(byNanoseconds: $0) } ?? .distantFuture
        self.deadlineWord = Atomic(deadline.nanoseconds)
        // Known when this is compiled.
        precondition(MemoryLayout<Waiting>.size <= MemoryLayout<(UInt, UInt, UInt)>.size)
        unsafe withUnsafeMutableBytes(of: &self.content) { content in
            _ = unsafe content.initializeMemory(as: Waiting.self, repeating: Waiting())
        }
    }

    deinit {
        self.request.free()
        switch self.currentStatus {
        case .pending: _ = self.takeWaiting()
        case .value: break
        case .failed, .expired, .cancelled, .lost:
            unsafe withUnsafeMutableBytes(of: &self.content) { content in
                _ = unsafe content.baseAddress?.assumingMemoryBound(to: FailureBox?.self).deinitialize(count: 1)
            }
        }
    }

    final var isIdempotent: Bool { self.flags.contains(.idempotent) }
    final var hasMetadata: Bool { self.flags.contains(.metadata) }
    /// Whether a request's handler made it, or it ends with its waiter: then it ends with that request.
    final func ends(with context: JobContext) -> Bool {
        self.cancelsWithWaiter
            || (self.flags.contains(.nested) && self.coldFields?.maker === context)
    }

    private final var cancelsWithWaiter: Bool { self.flags.contains(.endsWithWaiter) }

    final var kind: Kind {
        switch self.pingTarget {
        case Self.noPing: .call
        case Self.isChunk: .chunk
        case Self.knocks: .knock
        case Self.pingAny: .ping(endpoint: nil)
        default: .ping(endpoint: Int(self.pingTarget))
        }
    }

    /// A hash of the ordering key, 0 without one.
    final var affinity: UInt64 { self.flags.contains(.coldFields) ? self.coldFields?.affinity ?? 0 : 0 }

    /// The subscriptions whose callbacks are among the arguments.
    final var references: [SubscriptionID] { self.flags.contains(.coldFields) ? self.coldFields?.references ?? [] : [] }

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

    private static var stalledBit: UInt32 { 0x80 }
    /// It was at a worker that may have started it, and is lost.
    private static var ranBit: UInt32 { 0x40 }
    /// What it waits for at its worker, in the bits between the phase and that.
    private static var holdShift: UInt32 { 4 }
    private static var holdMask: UInt32 { 0x30 }

    private static func phase(in word: UInt32) -> CallPhase {
        CallPhase(rawValue: UInt8(truncatingIfNeeded: word & 0x0F)) ?? .local
    }

    final var lastPhase: CallProgress {
        let word = self.progressWord.load(ordering: .relaxed)
        switch Self.phase(in: word) {
        case .local: return .local
        case .sent: return .sent
        case .accepted: return .accepted(worker: self.workerName(in: word))
        case .running: return .running(worker: self.workerName(in: word))
        }
    }

    private final func workerName(in word: UInt32) -> String {
        let endpoint = Int(word >> 8)
        let behind = self.client.isBroker(endpoint) ? self.lock.withLock { _ in self.coldFields?.worker } : nil
        return behind ?? self.client.workerName(of: endpoint)
    }

    /// A broker said which worker has the call.
    final func isAt(_ worker: String) {
        self.lock.withLock { _ in
            let coldFields = self.coldFields ?? ColdFields()
            coldFields.worker = worker
            self.coldFields = coldFields
        }
    }

    /// The request will not be sent (again).
    final func freeRequest() { self.request.free() }

    final func show(_ phase: CallPhase, isStalled: Bool = false, hold: HoldReason = .none, endpoint: Int) {
        let state = (isStalled ? Self.stalledBit : 0) | UInt32(hold.rawValue) << Self.holdShift
        let ran = self.progressWord.load(ordering: .relaxed) & Self.ranBit
        let word = UInt32(phase.rawValue) | state | ran | UInt32(max(0, endpoint)) << 8
        self.progressWord.store(word, ordering: .relaxed)
    }

    /// The worker that had it may have started it; whatever comes of it elsewhere, it isn't sure not to have run.
    final func mayRunAgain() {
        let word = self.progressWord.load(ordering: .relaxed)
        self.progressWord.store(word | Self.ranBit, ordering: .relaxed)
    }

    /// What another worker, or this side, says of a call of which one before may have started it.
    final func corrected(_ failure: FailureBox) -> FailureBox {
        guard self.progressWord.load(ordering: .relaxed) & Self.ranBit != 0 else { return failure }
        switch failure {
        case .remote(var error):
            if error.execution == .didNotRun { error.execution = .mayHaveRun }
            return .remote(error)
        case .connection(var error):
            if error.execution == .didNotRun { error.execution = .mayHaveRun }
            return .connection(error)
        case .timeout(var error):
            error.mayHaveRun = true
            return .timeout(error)
        }
    }

    /// Whether it waits for a slot, or for a call that does, as far as the client knows; held ones are among them.
    final func waitsForSlot(at now: Instant) -> Bool {
        guard self.currentStatus == .pending else { return false }
        let word = self.progressWord.load(ordering: .relaxed)
        switch Self.phase(in: word) {
        case .local: return false
        // Brokers don't say what waits with them; they pass on that it runs.
        case .sent:
            return now.nanoseconds(since: self.submittedAt) >= Self.stallNanoseconds
                && self.client.isBroker(Int(word >> 8))
        case .accepted: return true
        case .running: return word & Self.stalledBit != 0
        }
    }

    /// Whether its worker holds it for its function's limit or its ordering key, as far as the client knows.
    final var isHeld: Bool {
        let word = self.progressWord.load(ordering: .relaxed)
        return Self.phase(in: word) == .accepted && word & Self.holdMask != 0
    }

    private static var stallNanoseconds: UInt64 { 40_000_000 }

    /// What keeps the call from going on, in words; nil for nothing that is known.
    private var problem: String? {
        let word = self.progressWord.load(ordering: .relaxed)
        let isStalled = word & Self.stalledBit != 0
        if self.client.askedBack.withLock({ $0.contains(self.correlationID.rawValue) }) {
            return
                "its handler may wait for a callback that waits for the thread of the callback that waits for it; call without "
                + "waiting there, or give the callbacks threads of their own"
        }
        switch Self.phase(in: word) {
        case .local: return self.client.problem
        case .sent: return nil
        case .accepted:
            switch HoldReason(rawValue: UInt8(truncatingIfNeeded: (word & Self.holdMask) >> Self.holdShift)) {
            case .limit:
                return "it waits for others of its function to end, of which its worker runs no more at once (limit)"
            case .key: return "it waits for another call of its ordering key to end"
            case .worker:
                return
                    "no worker there may run it: start one that has the function, serves the queue and has the labels and resources"
            case .some(.none), nil: break
            }
            return isStalled
                ? "it waits for a slot, and each is held by a handler that \(Self.stallText)" : nil
        case .running: return isStalled ? "its handler \(Self.stallText)" : nil
        }
    }

    private static var stallText: String { "waits for a call that waits for a slot; \(PhaseReport.remedy)" }

    /// Why the call ended without a value.
    ///
    /// Only to be read once the status says so.
    final var storedFailure: FailureBox? {
        let content = self.content.0
        return unsafe withUnsafeBytes(of: content) { unsafe $0.load(as: FailureBox?.self) }
    }

    /// The value's words.
    ///
    /// Only to be read once the status says that there is a value. Any number of threads may read them at once, so they are
    /// read, and never held for a change.
    @inlinable final var valueWords: ValueWords { ValueWords((self.content.0, self.content.1)) }

    // MARK: Ending

    /// Those who wait, to be changed: nobody else does so meanwhile.
    ///
    /// Only under the lock, and only while the call is pending.
    private func change<Result>(_ body: (inout Waiting) -> Result) -> Result {
        unsafe withUnsafeMutableBytes(of: &self.content) { content in
            unsafe body(&content.assumingMemoryBound(to: Waiting.self)[0])
        }
    }

    /// Takes out those who wait, and leaves their place empty.
    private func takeWaiting() -> Waiting {
        unsafe withUnsafeMutableBytes(of: &self.content) { content in
            unsafe content.assumingMemoryBound(to: Waiting.self).moveElement(from: 0)
        }
    }

    /// Those who wait, to be changed under the lock; nil if the call has ended.
    private func withWaiting<Result: Sendable>(_ body: (inout Waiting) -> sending Result) -> Result? {
        self.lock.withLock { _ in
            guard self.status.load(ordering: .relaxed) == Status.pending.rawValue else { return nil }
            return self.change(body)
        }
    }

    /// Ends the call, if nobody else has: `store` runs if this attempt wins, before anybody can see the end.
    ///
    /// - Returns: Who waits for the end, or nil if it had come already.
    final func settle(
        _ end: Status,
        failure: FailureBox? = nil,
        words: ValueWords = ValueWords(),
        store: () -> Void = {}
    ) -> Waiting? {
        var channel: ResultChannel?
        let taken: Waiting? = self.lock.withLock { _ in
            guard self.status.load(ordering: .relaxed) == Status.pending.rawValue else { return nil }
            store()
            let taken = self.takeWaiting()
            if end == .value {
                self.content = (words.words.0, words.words.1, 0)
            } else {
                unsafe withUnsafeMutableBytes(of: &self.content) { content in
                    _ = unsafe content.baseAddress?
                        .initializeMemory(
                            as: FailureBox?.self,
                            to: failure.map(self.corrected)
                        )
                }
            }
            self.status.store(end.rawValue, ordering: .releasing)
            channel = self.coldFields?.eventChannel
            return taken
        }
        if let channel { channel.finish() }
        return taken
    }

    /// Ends the call on the caller's thread, and notifies the poller.
    final func settleHere(_ end: Status, failure: FailureBox?, reason: CancelReason) -> Bool {
        self.client.notifications.begin()
        defer { self.client.notifications.end() }
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

    /// In how many deaths of workers it may have been running before it was made.
    var attempts: UInt8 { 0 }

    final func timeout(at now: Instant) -> FailureBox {
        let limit = self.lock.withLock { _ in
            // What was set when the call was made can be seen from its deadline.
            self.coldFields?.limit ?? self.deadline.nanoseconds(since: self.submittedAt)
        }
        return .timeout(
            AsyncResultTimeout(
                function: self.functionName,
                correlationID: self.correlationID,
                limit: Duration(nanoseconds: limit),
                elapsed: Duration(nanoseconds: now.nanoseconds(since: self.submittedAt)),
                phase: self.lastPhase,
                problem: self.problem
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
        let isOver = deadline <= now
        let isPending = self.lock.withLock { _ in
            guard self.status.load(ordering: .relaxed) == Status.pending.rawValue else { return false }
            let coldFields = self.coldFields ?? ColdFields()
            coldFields.limit = limitNanoseconds
            self.coldFields = coldFields
            if !isOver { self.deadlineWord.store(deadline.nanoseconds, ordering: .relaxed) }
            return true
        }
        if isPending, isOver { return self.settleHere(.expired, failure: self.timeout(at: now), reason: .expired) }
        if isPending { self.client.post(.deadlineMoved(self)) }
        return isPending
    }

    // MARK: Waiters

    /// Adds a waiter, in one step with the check whether the call has ended (contract S56).
    ///
    /// - Returns: False if the call has ended: the waiter was not added.
    final func add(_ waiter: Waiter) -> Bool {
        self.withWaiting { $0.append(waiter) } != nil
    }

    /// Takes a waiter back that gave up.
    ///
    /// Returns what was registered under the key, if it was still there.
    final func withdraw(_ key: Waiter.Key) -> Waiter? {
        self.withWaiting { $0.remove(key) } ?? nil
    }

    /// Adds a task's continuation, unless the task was cancelled before it came this far.
    final func add(task key: UInt64, _ continuation: Resumption<WaitResult>) {
        let answer: WaitResult? =
            self.withWaiting { waiting in
                if waiting.remove(.tombstone(key)) != nil { return .cancelled }
                unsafe waiting.append(.task(key, continuation))
                return nil
            } ?? .ended
        if let answer {
            continuation.resume(returning: answer)
        } else if self.client.isStopped, case .task(_, let unserved)? = self.withdraw(.task(key)) {
            // The poller was stopped before the registration: nothing ends this wait.
            unserved.resume(returning: .ended)
        }
    }

    /// A waiting task was cancelled, perhaps before its continuation was registered.
    final func cancelTask(_ key: UInt64) {
        let continuation: Resumption<WaitResult>? =
            self.withWaiting { waiting in
                if case .task(_, let continuation)? = waiting.remove(.task(key)) { return continuation }
                waiting.append(.tombstone(key))
                return nil
            } ?? nil
        if self.cancelsWithWaiter { self.cancel() }
        continuation?.resume(returning: .cancelled)
    }

    /// A waiting task is served: nothing of it may stay behind.
    final func forgetTask(_ key: UInt64) {
        _ = self.withWaiting { _ = $0.remove(.tombstone(key)) }
    }

    /// Where the call's events gather.
    final func channel() -> ResultChannel {
        let (channel, isOver) = self.lock.withLock { _ in
            let coldFields = self.coldFields ?? ColdFields()
            let channel = coldFields.eventChannel ?? ResultChannel()
            coldFields.eventChannel = channel
            self.coldFields = coldFields
            return (channel, self.status.load(ordering: .relaxed) != Status.pending.rawValue)
        }
        if isOver { channel.finish() }
        return channel
    }

    /// The endpoint the call was given to last.
    final var lastEndpoint: Int { Int(self.progressWord.load(ordering: .relaxed) >> 8) }

    /// Takes out the waiters that nothing can serve now, since the poller was stopped.
    final func dismissWaiters() {
        self.withWaiting { $0.takeReaders() }?.wake(for: self)
    }
}

extension AnyAsyncResult: CustomStringConvertible {
    /// State, function, correlation id, age and remaining time (contract S22).
    public final var description: String {
        let now = self.client.now()
        let age = Duration(nanoseconds: now.nanoseconds(since: self.submittedAt))
        let status = self.currentStatus
        var text = "AsyncResult \(self.functionName) \(self.correlationID) \(status), \(PeopleText.time(age)) old"
        if status == .pending {
            text += ", \(self.lastPhase)"
            if let problem { text += " (\(problem))" }
            let deadline = self.deadline
            if deadline != .distantFuture {
                text += ", expires in \(PeopleText.time(Duration(nanoseconds: deadline.nanoseconds(since: now))))"
            }
        }
        return text
    }
}
