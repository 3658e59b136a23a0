// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import DroverZMQ
internal import Logging
internal import Synchronization

/// What a worker's loop, its handlers and its owner share.
final class WorkerCore: Sendable {
    let configuration: WorkerConfiguration
    let randomness: LifeRandomness
    var identity: PeerID { self.randomness.identity }
    var epoch: UInt64 { self.randomness.epoch }
    let context: SharedContext
    /// Whose keys are let in, if the worker listens with keys.
    let access: ListenerAccess?
    let codecLimits: CodecLimits
    /// All that were ever registered.
    ///
    /// The loop keeps a copy. None goes, and none changes its place.
    private let registered: Mutex<[Handler]>
    private let registeredCount: Atomic<Int>
    let mailbox: Mailbox<WorkerPost>
    let waker: Waker
    let loopToken = LoopToken()
    /// Threads that could take the loop over at this moment.
    let standbyCount = Atomic<Int>(0)
    let threads: HandlerThreads
    /// The child processes, if a handler is isolated.
    let isolation: IsolationPool?
    let subscribers = SubscriberTable()
    let replies = ReplyTable()
    let counters = WorkerCounters()
    let life: Lifecycle
    /// Why the worker leaves by itself, once it does.
    let recyclingReason = Mutex<RecyclingReason?>(nil)
    /// Brokers are asked for no new requests.
    let isQuiet = Atomic<Bool>(false)
    /// How often handlers wait for calls at the moment.
    let nestedWaits = Atomic<Int>(0)
    /// The loop is to look at what they wait for.
    let mustLookAtWaits = Atomic<Bool>(false)

    init(configuration: WorkerConfiguration, handlers: [String: Handler]) throws {
        CurrentJob.prepare()
        self.configuration = configuration
        self.randomness = LifeRandomness()
        self.context = try SharedContext.acquire()
        if handlers.values.contains(where: { $0.isAsync }) { try TaskThreads.shared.prepare() }
        self.codecLimits = CodecLimits(maxBytes: configuration.maxPayloadBytes)
        self.registered = Mutex(handlers.values.sorted { $0.name < $1.name })
        self.registeredCount = Atomic(handlers.count)
        let waker = try Waker()
        self.waker = waker
        self.life = Lifecycle(waker: waker)
        self.access = try configuration.listenerKeys.map { [context, logger = configuration.logger] keys in
            try ListenerAccess(keys, in: context, logger: logger) { waker.wake() }
        }
        self.mailbox = Mailbox(waker: self.waker)
        self.threads = HandlerThreads(concurrency: configuration.concurrency)
        self.isolation = IsolationPool(
            handlers,
            grace: configuration.isolationGrace,
            maxErrorBytes: configuration.maxPayloadBytes
        )
    }

    var name: String { self.configuration.name }
    var logger: Logger { self.configuration.logger }

    func now() -> Instant { Instant(nanoseconds: MonotonicClock.now()) }

    /// How many functions are registered.
    var handlerCount: Int { self.registeredCount.load(ordering: .acquiring) }

    /// The functions beyond the first ones, of which there are so many.
    func handlers(from count: Int) -> ArraySlice<Handler> { self.registered.withLock { $0[count...] } }

    /// Serves another function from now on: a request that comes after this has returned finds it.
    func register(_ handler: Handler) {
        self.registered.withLock { handlers in
            handlers.append(handler)
            self.registeredCount.store(handlers.count, ordering: .releasing)
        }
        // Brokers are to be told, and there may be no other reason to wake.
        self.waker.wake()
    }

    /// The loop has been left: its waiters are told, and the handler threads leave when they are done.
    func finish() {
        self.life.advance(to: .stopped)
        self.discardPosts()
        self.threads.stop()
        self.isolation?.close()
        self.life.tellEnded()
    }

    /// How loaded the worker is.
    var status: WorkerStatus {
        var status = WorkerStatus()
        status.worker = self.name
        status.running = self.threads.running
        status.queued = self.threads.queued
        status.concurrency = self.configuration.concurrency
        status.clients = self.counters.clients.current
        status.received = self.counters.received.current
        status.completed = self.counters.completed.current
        status.failed = self.counters.failed.current
        status.dropped = self.counters.dropped.current
        status.stuck = self.counters.stuck.current
        status.heldUp = self.counters.heldUp.current
        status.partsRefused = self.counters.parts.refused.current
        status.oversizedMessages = self.counters.parts.oversized.current
        status.abandonedMessages = self.counters.parts.abandoned.current
        status.forgottenNews = self.subscribers.forgottenCount
        status.forgottenAnswers = self.counters.forgottenAnswers.current
        status.isDraining = self.life.state != .running
        return status
    }

    func post(_ kind: WorkerPost.Kind) {
        self.mailbox.push(WorkerPost(kind))
        // A handler may return long after the loop was left.
        if self.life.state == .stopped { self.discardPosts() }
    }

    /// Drops what nobody will take any more: a job that is posted holds its worker, and so the mailbox that it lies in.
    private func discardPosts() {
        var posts = self.mailbox.takeRest()
        while let post = posts.next() {
            switch post.kind {
            case .finished(_, .value(var block)), .finishedLate(_, .value(var block)), .progress(_, _, var block),
                .event(_, var block):
                block.free()
            case .invoke(let subscriber, _, var block):
                block.free()
                self.replies.endAll(
                    of: subscriber.peer,
                    client: subscriber.client,
                    subscription: subscriber.subscription
                )
            case .finished, .finishedLate, .started, .began, .slotReleased, .events, .ended, .lookedUp: break
            }
        }
    }

    /// What a handler's error tells the caller.
    func errorBody(_ error: any Error, function: String) -> ErrorBody {
        Self.errorBody(error, function: function, worker: self.name)
    }

    static func errorBody(_ error: any Error, function: String, worker: String) -> ErrorBody {
        switch error {
        case let error as IsolationError: error.body
        case let error as ResultError:
            ErrorBody(
                code: error.cause.code == .tooLarge ? .tooLarge : .failed,
                message: "the result of \(function) can't be sent: \(error.cause)",
                execution: .ran,
                worker: worker
            )
        case let error as ArgumentError:
            ErrorBody(
                code: .badArguments,
                message: "\(function) can't take these arguments: \(error.cause); declare it with the same types on "
                    + "both sides",
                worker: worker
            )
        default: ErrorBody(thrown: error, hop: "\(function) on \(worker)", worker: worker)
        }
    }
}

extension WorkerCore: CallbackLinkProvider {
    var worker: WorkerCore { self }

    func link(to subscription: SubscriptionID, of client: PeerID) -> any CallbackLink {
        JobCallback(self.subscribers.subscriber(subscription, of: client, via: nil, core: self), for: nil)
    }
}

/// Something a thread asks of the worker's loop.
final class WorkerPost: MailboxNode {
    enum Kind: Sendable {
        case finished(WorkerJob, WorkerReply)
        case started(WorkerJob)
        /// The name of a broker was looked up.
        case lookedUp(dial: Int, NameResolver.Answer)
        /// A handler with limits has begun.
        case began(WorkerJob, at: Instant)
        /// A handler that ran beside the loop came back after another thread had taken it.
        case finishedLate(slot: UInt32, WorkerReply)
        case progress(JobContext, UInt32, RequestBytes)
        /// A handler has given its slot back, or has one again.
        case slotReleased(slot: UInt32, id: UInt64, Bool)
        /// A subscriber has events.
        case events(Subscriber)
        /// A large event, which goes by itself.
        case event(Subscriber, RequestBytes)
        case invoke(Subscriber, id: UInt64, RequestBytes)
        case ended(Subscriber)
    }

    let kind: Kind
    let mailboxLink = MailboxLink()

    init(_ kind: Kind) { self.kind = kind }
}

/// The counters behind a worker's status.
struct WorkerCounters: ~Copyable, Sendable {
    let received = Atomic<Int>(0)
    let completed = Atomic<Int>(0)
    let failed = Atomic<Int>(0)
    let dropped = Atomic<Int>(0)
    let refused = Atomic<Int>(0)
    let answeredAgain = Atomic<Int>(0)
    let undeliverable = Atomic<Int>(0)
    /// Large answers that were kept no longer though their client may not have read them.
    let forgottenAnswers = Atomic<Int>(0)
    /// Handlers that run on after their hard limits.
    let stuck = Atomic<Int>(0)
    /// Answers of handlers that came after their hard limits.
    let late = Atomic<Int>(0)
    let malformedMessages = Atomic<Int>(0)
    let unknownMessages = Atomic<Int>(0)
    let resets = Atomic<Int>(0)
    let events = Atomic<Int>(0)
    /// Emitted in a pause that a client asked for, or faster than clients read: their handlers waited or were told.
    let eventsHeldBack = Atomic<Int>(0)
    let takeovers = Atomic<Int>(0)
    /// Clients whose requests had to wait, since they didn't read their answers.
    let heldUp = Atomic<Int>(0)
    let clients = Atomic<Int>(0)
    let brokers = Atomic<Int>(0)
    let requests = Atomic<Int>(0)
    let timers = Atomic<Int>(0)
    let parts = PartCounters()
}
