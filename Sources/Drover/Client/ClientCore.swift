// SPDX-License-Identifier: Apache-2.0

public import DroverCodec
internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import DroverZMQ
internal import Logging
internal import Synchronization

/// What a client's callers, its handles and its poller share.
@usableFromInline
final class ClientCore: Sendable {
    enum State: UInt8 {
        /// The poller was never started or has been stopped; it may start again.
        case stopped
        case running
        /// `stop` was called; the poller leaves its loop.
        case stopping
        /// `close` was called; calls may end until the grace is over.
        case closing
        case closed
    }

    let configuration: ClientConfiguration
    let endpoints: [Endpoint]
    let identity: PeerID
    let epoch: UInt64
    let codecLimits: CodecLimits
    let context: SharedContext

    let submissions: Mailbox<AnyAsyncResult>
    let commands: Mailbox<ClientCommand>
    let waker: Waker
    let ownership = LoopOwnership()
    let callbacks: CallbackQueue
    let callbackThread: CallbackThread?
    let wrappers = WrapperCache()
    let subscriptions = SubscriptionTable()
    let counters = ClientCounters()
    /// The calls and their handles while no poller serves them; the running poller has them.
    let callTable: Mutex<CallTable?>

    let notifications = NotificationBarrier()
    private let state = Atomic<UInt8>(State.stopped.rawValue)
    private let lastID = Atomic<UInt64>(0)
    /// The id of the call that was made last.
    var latestID: UInt64 { self.lastID.load(ordering: .relaxed) }
    private let lastWaiterKey = Atomic<UInt64>(0)
    private let outstanding = Atomic<Int>(0)
    private let leastPeerLimit = Atomic<Int>(.max)
    private let placeWaiterCount = Atomic<Int>(0)
    private let placeWaiters = Mutex(PlaceQueue())
    private let functions = Mutex<[String: FunctionInfo]>([:])
    private let functionList = Mutex<[FunctionInfo]>([])
    private let workerNames: Mutex<[String]>
    /// The endpoints that pass calls on.
    private let brokers = Mutex<Set<Int>>([])
    /// Calls that callbacks block their threads for, and that wait for those threads themselves.
    let askedBack = Mutex<Set<UInt64>>([])
    private let linkProblems = Mutex<[Int: String]>([:])
    /// The name under which pings show in errors.
    let pingInfo = FunctionInfo(name: "ping", number: .max)
    /// Set by the poller's thread when it starts; 0 without one.
    let pollerThread = Atomic<UInt>(0)
    /// When `close` gives up waiting for calls.
    let closeDeadline = Atomic<UInt64>(0)

    var name: String { self.configuration.name }
    var logger: Logger { self.configuration.logger }

    init(endpoints: [Endpoint], configuration: ClientConfiguration) throws {
        self.configuration = configuration
        self.endpoints = endpoints
        let randomness = LifeRandomness()
        self.identity = randomness.identity
        self.epoch = randomness.epoch
        self.codecLimits = CodecLimits(maxBytes: configuration.maxPayloadBytes)
        self.context = try SharedContext.acquire()
        self.waker = try Waker()
        self.submissions = Mailbox(waker: self.waker)
        self.commands = Mailbox(waker: self.waker)
        self.workerNames = Mutex(Array(repeating: "", count: endpoints.count))
        var machine = ClientMachine.Configuration()
        machine.session = PeerSession.Limits(
            beatNanoseconds: configuration.heartbeatInterval.clampedNanoseconds,
            silenceNanoseconds: configuration.silenceLimit.clampedNanoseconds
        )
        machine.maxAttempts = UInt8(clamping: configuration.maxAttempts)
        self.callTable = Mutex(CallTable(endpointCount: endpoints.count, configuration: machine))
        let logger = configuration.logger
        let hook = configuration.onCallbackError
        let report: @Sendable (any Error, AnyAsyncResult?) -> Void = { error, result in
            if let hook {
                hook(
                    error,
                    result.map { .result(function: $0.functionName, correlationID: $0.correlationID) } ?? .hook
                )
            } else {
                logger.warning(
                    "a callback threw",
                    metadata: [
                        LogKeys.error: "\(error)",
                        LogKeys.function: "\(result?.functionName ?? "-")",
                        LogKeys.correlationID: "\(result?.correlationID.rawValue ?? 0)",
                    ]
                )
            }
        }
        if let executor = configuration.callbackExecutor {
            self.callbackThread = nil
            self.callbacks = CallbackQueue(executor: executor, onError: report)
        } else {
            let waker = self.waker
            let thread = CallbackThread { error in
                logger.warning("callbacks wait for a thread", metadata: [LogKeys.error: "\(error)"])
                // The poller asks again.
                waker.wake()
            }
            self.callbackThread = thread
            self.callbacks = CallbackQueue(executor: thread, onError: report)
        }
    }

    /// How long to wait before a thread that the system didn't give is asked for again.
    static let threadPauseNanoseconds: UInt64 = 100_000_000

    deinit { self.callbackThread?.stop() }

    func now() -> Instant { Instant(nanoseconds: MonotonicClock.now()) }

    // MARK: State

    var currentState: State { State(rawValue: self.state.load(ordering: .sequentiallyConsistent)) ?? .closed }
    var isRunning: Bool {
        switch self.currentState {
        case .running, .closing: true
        case .stopped, .stopping, .closed: false
        }
    }

    /// Moves from one state to another, if it is the one it is in.
    func move(from: State, to: State) -> Bool {
        self.state
            .compareExchange(
                expected: from.rawValue,
                desired: to.rawValue,
                ordering: .sequentiallyConsistent
            )
            .exchanged
    }

    /// After a local close a call is refused at once (contract S4).
    func checkOpen() throws {
        switch self.currentState {
        case .closing, .closed:
            var error = self.closedError
            error.execution = .didNotRun
            throw error
        case .stopped, .running, .stopping: break
        }
    }

    func checkRunning() throws {
        if self.isStopped { throw UsageError.notRunning }
    }

    /// Whether nobody ends calls until a poller is started again.
    var isStopped: Bool {
        switch self.currentState {
        case .stopped, .stopping: true
        case .running, .closing, .closed: false
        }
    }

    /// Whether this thread may wait for a handle.
    func checkWaiting() throws {
        guard self.pollerThread.load(ordering: .relaxed) != ThreadID.current.number else {
            throw UsageError.wouldDeadlock
        }
        try self.checkRunning()
    }

    var closedError: ConnectionError {
        ConnectionError(.closed, message: "the client \"\(self.name)\" was closed; make a new one")
    }

    /// The least that this client or a peer that it has met takes as one payload.
    var leastPayloadLimit: Int { min(self.configuration.maxPayloadBytes, self.leastPeerLimit.load(ordering: .relaxed)) }

    /// A peer said how much it takes.
    func met(limit: Int) {
        if limit < self.leastPeerLimit.load(ordering: .relaxed) { self.leastPeerLimit.store(limit, ordering: .relaxed) }
    }

    // MARK: Calls

    var backpressure: ConnectionError {
        self.counters.refusals.count()
        return ConnectionError(
            .backpressure,
            message:
                "\(self.configuration.maxOutstandingCalls) calls are outstanding, the client's limit: wait for some, "
                + "await the call, or raise maxOutstandingCalls"
        )
    }

    /// Takes one of the places for outstanding calls.
    func takePlace() -> Bool {
        let (old, _) = self.outstanding.add(1, ordering: .sequentiallyConsistent)
        if old < self.configuration.maxOutstandingCalls { return true }
        self.outstanding.subtract(1, ordering: .sequentiallyConsistent)
        return false
    }

    /// Begins to encode a request.
    @usableFromInline
    func beginRequest(_ options: CallOptions, of function: FunctionInfo, deaths: UInt8 = 0) throws -> PackWriter {
        try self.checkOpen()
        if let refusal = function.refusal { throw refusal }
        try options.check()
        var writer = PackWriter(capacity: 72, headerBytes: RequestBytes.headerByteCount, limits: self.codecLimits)
        // Asked first, for an empty optional of that size has to be made and destroyed.
        if deaths > 0 {
            var metadata = options.metadata ?? RequestMetadata()
            metadata.deaths = UInt64(deaths)
            try metadata.pack(into: &writer)
        } else if options.hasMetadata, let metadata = options.metadata {
            try metadata.pack(into: &writer)
        }
        return writer
    }

    /// Ends the encoding of a request.
    ///
    /// The call has no place yet.
    @usableFromInline
    func encoded(
        _ writer: consuming PackWriter,
        of function: FunctionInfo,
        options: CallOptions,
        expiry: Duration?
    ) throws -> CallTicket {
        let references = writer.hasReferences ? try self.ownCallbacks(writer.references) : []
        return self.encoded(writer, of: function, references, options: options, expiry: expiry, as: .call)
    }

    /// The subscriptions of this client among what a request refers to.
    ///
    /// - Throws: `UsageError` if one of them has ended: its receiver could only be told so.
    private func ownCallbacks(_ references: [NotedReference]) throws -> [SubscriptionID] {
        var own: [SubscriptionID] = []
        // A callback that came from another client is that one's business, and has a number that may be one of ours.
        for reference in references where PeerID(high: reference.high, low: reference.low) == self.identity {
            let id = SubscriptionID(reference.number)
            guard self.subscriptions.find(id) != nil else {
                let cause =
                    self.subscriptions.cause(of: id)?.words
                    ?? "it was cancelled, or the calls that it was passed to have ended; make a new one"
                throw UsageError(.callbackEnded, "callback \(id) has ended, so it can't be passed on: \(cause)")
            }
            own.append(id)
        }
        return own
    }

    func encoded(
        _ writer: consuming PackWriter,
        of function: FunctionInfo,
        _ references: [SubscriptionID],
        options: CallOptions,
        expiry: Duration?,
        as kind: AnyAsyncResult.Kind,
        hasDeaths: Bool = false
    ) -> CallTicket {
        let request = EncodedRequest(
            block: RequestBytes(adopting: writer.finish()),
            hasMetadata: options.hasMetadata || hasDeaths,
            references: references,
            kind: kind
        )
        return self.ticket(for: request, of: function, options: options, expiry: expiry)
    }

    func ticket(
        for request: EncodedRequest,
        of function: FunctionInfo,
        options: CallOptions,
        expiry: Duration?
    ) -> CallTicket {
        let limit = (expiry ?? self.configuration.defaultExpiry)?.clampedNanoseconds
        // Of a call without a limit only people are told how old it is.
        let now = limit == nil ? Instant(nanoseconds: MonotonicClock.roughly()) : self.now()
        return CallTicket(
            id: self.lastID.add(1, ordering: .relaxed).newValue,
            function: function.number,
            client: self,
            request: request,
            affinity: options.affinity,
            isIdempotent: options.isIdempotent ?? false,
            cancelsWithWaiter: options.cancelsWithWaiter,
            submittedAt: now,
            limitNanoseconds: limit
        )
    }

    /// Ends the encoding of a request and takes a place for its call.
    @usableFromInline
    func prepare(
        _ writer: consuming PackWriter,
        of function: FunctionInfo,
        options: CallOptions,
        expiry: Duration?
    ) throws -> CallTicket {
        guard self.takePlace() else { throw self.backpressure }
        do { return try self.encoded(writer, of: function, options: options, expiry: expiry) } catch {
            self.giveBackPlace()
            throw error
        }
    }

    /// Takes a place for a call that may wait for one.
    @usableFromInline
    func takePlace(for ticket: inout CallTicket) async throws {
        if self.takePlace() { return }
        do {
            let limit = ticket.limitNanoseconds.map { Duration(nanoseconds: $0) }
            try await self.waitForPlace(function: self.functionName(ticket.function), expiry: limit)
        } catch {
            ticket.request.block.free()
            throw error
        }
    }

    /// Hands a call that has a place to the poller.
    @usableFromInline
    func start(_ result: AnyAsyncResult) {
        for reference in result.references { self.subscriptions.jobStarted(reference) }
        if result.deadline <= result.submittedAt {
            // Zero always times out, so there is nothing to send (contract S60).
            let timeout = result.timeout(at: result.submittedAt)
            self.notifications.begin()
            defer { self.notifications.end() }
            guard let waiting = result.settle(.expired, failure: timeout) else { return }
            self.callEnded(result, as: .expired)
            return waiting.wake(for: result)
        }
        if self.submissions.post(result) {
            // With more calls outstanding the poller gathers them; a lone one goes faster from here.
            let isSent = self.outstanding.load(ordering: .relaxed) == 1 && self.ownership.send()
            if isSent { self.counters.sentByCallers.count() } else { self.submissions.wakeConsumer() }
        }
        // A close may have come between the check and the push: the poller has then left and would never see the call.
        if self.currentState == .closed { self.losePosted() }
    }

    /// A call has ended on a thread other than the poller's, which counts by the turn; called once per call.
    func callEnded(_ result: AnyAsyncResult, as end: AnyAsyncResult.Status) {
        var counts = EndCounts()
        counts.count(end)
        self.jobsEnded(with: result)
        self.add(counts)
    }

    /// Ends the subscriptions that lived as long as the call.
    func jobsEnded(with result: AnyAsyncResult) {
        guard !result.references.isEmpty else { return }
        self.jobsEnded(with: result.references)
    }

    /// Ends those of the subscriptions that nothing keeps any longer.
    func jobsEnded(with references: some Sequence<SubscriptionID>) {
        for reference in references where self.subscriptions.jobEnded(reference) {
            self.post(.unsubscribe(reference))
        }
    }

    /// Adds what ended, and gives the places back.
    func add(_ counts: EndCounts) {
        if counts.values > 0 { self.counters.values.count(counts.values) }
        if counts.failures > 0 { self.counters.failures.count(counts.failures) }
        if counts.expiries > 0 { self.counters.expiries.count(counts.expiries) }
        if counts.cancellations > 0 { self.counters.cancellations.count(counts.cancellations) }
        if counts.losses > 0 { self.counters.losses.count(counts.losses) }
        self.outstanding.subtract(counts.total, ordering: .sequentiallyConsistent)
        for _ in 0..<counts.total {
            guard self.placeWaiterCount.load(ordering: .sequentiallyConsistent) > 0 else { return }
            self.grantPlace()
        }
    }

    private func grantPlace() {
        let waiter = self.placeWaiters.withLock { waiters -> PlaceWaiter? in
            guard !waiters.isEmpty, self.takePlace() else { return nil }
            self.placeWaiterCount.subtract(1, ordering: .sequentiallyConsistent)
            return waiters.takeFirst()
        }
        waiter?.answer(.hasPlace)
    }

    /// The poller stops: who waits for a place would wait until another one is started.
    func refusePlaces() {
        let waiters = self.placeWaiters.withLock { waiters -> [PlaceWaiter] in
            var taken: [PlaceWaiter] = []
            while let waiter = waiters.takeFirst() { taken.append(waiter) }
            self.placeWaiterCount.subtract(taken.count, ordering: .sequentiallyConsistent)
            return taken
        }
        for waiter in waiters { waiter.answer(.isStopped) }
    }

    /// Suspends until there is a place, which is taken then.
    ///
    /// - Throws: `UsageError` with `notRunning` while no poller is there that could make room; `CancellationError`;
    ///   `AsyncResultTimeout`.
    func waitForPlace(function: String, expiry: Duration?) async throws {
        guard let expiry else { return try await self.placeTaken() }
        let started = self.now()
        try await withThrowingTaskGroup(of: Bool.self) { group in
            group.addTask {
                try await self.placeTaken()
                return true
            }
            group.addTask {
                try await Task.sleep(for: expiry)
                return false
            }
            let hasPlace = try await group.next() ?? false
            group.cancelAll()
            if hasPlace { return }
            // The place may have come while the time ran out: it must not be lost.
            while let late = await group.nextResult() {
                if case .success(true) = late { self.giveBackPlace() }
            }
            throw AsyncResultTimeout(
                function: function,
                correlationID: CorrelationID(0),
                limit: expiry,
                elapsed: Duration(nanoseconds: self.now().nanoseconds(since: started)),
                phase: .local
            )
        }
    }

    /// A place that was taken isn't needed.
    func giveBackPlace() {
        self.outstanding.subtract(1, ordering: .sequentiallyConsistent)
        if self.placeWaiterCount.load(ordering: .sequentiallyConsistent) > 0 { self.grantPlace() }
    }

    private func placeTaken() async throws {
        let key = self.nextWaiterKey()
        let answer = await withTaskCancellationHandler {
            await withResumption { (continuation: Resumption<PlaceAnswer>) in
                let answer = self.placeWaiters.withLock { waiters -> PlaceAnswer? in
                    if Task.isCancelled { return .isCancelled }
                    return self.placeAtOnce(or: .task(continuation), as: key, in: &waiters)
                }
                if let answer { continuation.resume(returning: answer) }
            }
        } onCancel: {
            let waiter = self.placeWaiters.withLock { waiters -> PlaceWaiter? in
                guard let waiter = waiters.remove(key) else { return nil }
                self.placeWaiterCount.subtract(1, ordering: .sequentiallyConsistent)
                return waiter
            }
            waiter?.answer(.isCancelled)
        }
        switch answer {
        case .hasPlace: return
        case .isCancelled: throw CancellationError()
        case .isStopped: throw UsageError.notRunning
        }
    }

    /// Blocks this thread until there is a place, which is taken then.
    ///
    /// - Throws: `UsageError` with `notRunning` while no poller is there that could make room.
    @available(*, noasync)
    func waitForPlaceBlocking() throws {
        let signal = ReadySignal<PlaceAnswer>()
        let answer = self.placeWaiters.withLock { waiters in
            self.placeAtOnce(or: .thread(signal), as: self.nextWaiterKey(), in: &waiters)
        }
        if case .isStopped = answer ?? signal.wait() { throw UsageError.notRunning }
    }

    /// Takes a place if there is one; else somebody waits for one from now on, unless nothing can make room.
    ///
    /// Under the waiters' lock, which who stops the poller takes after it has said so.
    private func placeAtOnce(or waiter: PlaceWaiter, as key: UInt64, in waiters: inout PlaceQueue) -> PlaceAnswer? {
        // First show that somebody waits, then try: a call that ends in between sees the one or gives the other.
        self.placeWaiterCount.add(1, ordering: .sequentiallyConsistent)
        let answer: PlaceAnswer? = self.takePlace() ? .hasPlace : self.isStopped ? .isStopped : nil
        if answer == nil {
            waiters.append(waiter, as: key)
        } else {
            self.placeWaiterCount.subtract(1, ordering: .sequentiallyConsistent)
        }
        return answer
    }

    func nextWaiterKey() -> UInt64 { self.lastWaiterKey.add(1, ordering: .relaxed).newValue }

    /// Takes a place even if there is none: for what must get through when the client is full.
    func takePlaceRegardless() { self.outstanding.add(1, ordering: .sequentiallyConsistent) }

    var outstandingCount: Int { self.outstanding.load(ordering: .relaxed) }

    // MARK: Poller

    func post(_ command: ClientCommand.Kind) {
        self.commands.push(ClientCommand(command))
        // A callback may return long after the poller has left.
        if self.currentState == .closed { self.losePosted() }
    }

    // MARK: Names

    func info(ofFunction name: String) -> FunctionInfo {
        self.functions.withLock { functions in
            if let known = functions[name] { return known }
            let info = self.functionList.withLock { list in
                let info = FunctionInfo(name: name, number: UInt32(list.count))
                // What can't be called isn't kept: a program may make up names without end.
                if info.refusal == nil { list.append(info) }
                return info
            }
            if info.refusal == nil { functions[name] = info }
            return info
        }
    }

    func function(_ number: UInt32) -> FunctionInfo? {
        self.functionList.withLock { Int(number) < $0.count ? $0[Int(number)] : nil }
    }

    /// A function's name, by its number; signs of life have none.
    func functionName(_ number: UInt32) -> String { self.function(number)?.name ?? self.pingInfo.name }

    func workerName(of endpoint: Int) -> String {
        self.workerNames.withLock { endpoint < $0.count ? $0[endpoint] : "" }
    }

    /// An endpoint said who it is.
    func setWorkerName(_ name: String, of endpoint: Int, isBroker: Bool) {
        self.workerNames.withLock { $0[endpoint] = name }
        self.brokers.withLock { brokers in
            if isBroker { brokers.insert(endpoint) } else { brokers.remove(endpoint) }
        }
    }

    /// Whether an endpoint passes calls on: what was sent to it may wait there.
    func isBroker(_ endpoint: Int) -> Bool { self.brokers.withLock { $0.contains(endpoint) } }

    func setProblem(_ problem: String?, of endpoint: Int) {
        self.linkProblems.withLock { $0[endpoint] = problem }
    }

    /// What is wrong with the connections, in words; nil for nothing.
    var problem: String? {
        let problems = self.problems
        return problems.isEmpty ? nil : problems
    }

    /// What is wrong with the connections, in words.
    var problems: String {
        self.linkProblems.withLock { problems in
            problems.sorted { $0.key < $1.key }.map { "\(self.endpoints[$0.key]): \($0.value)" }.joined(separator: "; ")
        }
    }

    /// A queue of its own for a subscription that runs beside the others.
    func makeQueue(on executor: any CallbackExecutor) -> CallbackQueue {
        CallbackQueue(executor: executor, onError: { _, _ in })
    }

    // MARK: Reports

    func reportEventError(_ error: any Error, of subscription: Subscription) {
        if let hook = self.configuration.onCallbackError {
            hook(error, .subscription(subscription.id))
        } else {
            self.logger.warning(
                "an event's callback threw",
                metadata: [LogKeys.error: "\(error)", LogKeys.subscription: "\(subscription.id)"]
            )
        }
    }

    var statistics: ClientStatistics {
        var statistics = ClientStatistics()
        statistics.calls = Int(self.lastID.load(ordering: .relaxed))
        statistics.values = self.counters.values.current
        statistics.failures = self.counters.failures.current
        statistics.expiries = self.counters.expiries.current
        statistics.cancellations = self.counters.cancellations.current
        statistics.losses = self.counters.losses.current
        statistics.refusals = self.counters.refusals.current
        statistics.resends = self.counters.resends.current
        statistics.lateReplies = self.counters.lateReplies.current
        statistics.duplicateReplies = self.counters.duplicateReplies.current
        statistics.unknownReplies = self.counters.unknownReplies.current
        statistics.malformedMessages = self.counters.malformedMessages.current
        statistics.partsRefused = self.counters.parts.refused.current
        statistics.oversizedMessages = self.counters.parts.oversized.current
        statistics.abandonedMessages = self.counters.parts.abandoned.current
        statistics.unknownMessages = self.counters.unknownMessages.current
        statistics.events = self.counters.events.current
        statistics.strayEvents = self.counters.strayEvents.current
        statistics.strayAnswers = self.counters.strayAnswers.current
        statistics.sessions = self.counters.sessions.current
        statistics.disconnections = self.counters.disconnections.current
        statistics.outstandingNow = self.outstandingCount
        statistics.tableEntriesNow = self.counters.tableEntries.current
        statistics.timersNow = self.counters.timers.current
        statistics.subscriptionsNow = self.subscriptions.count
        statistics.wrappersNow = self.wrappers.count
        return statistics
    }
}

extension UsageError {
    static var notRunning: UsageError {
        UsageError(.notRunning, "the client's poller is stopped, so nothing can end this wait; start it again")
    }

    static var wouldDeadlock: UsageError {
        UsageError(.wouldDeadlock, "this thread serves the client and can't wait for it; wait on another thread")
    }

    /// A callback blocks its thread for a call whose handler calls a callback of the same thread.
    static func asksBack(_ result: AnyAsyncResult) -> UsageError {
        UsageError(
            .wouldDeadlock,
            "the handler of \(result.functionName) \(result.correlationID) calls a callback back that waits for this thread, "
                + "which waits for that call: don't wait in a callback, or give the callbacks executors of their own"
        )
    }
}
