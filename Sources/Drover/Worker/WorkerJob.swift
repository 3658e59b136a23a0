// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverCore
internal import DroverZMQ
internal import Synchronization

/// A request on its way through the handler threads.
final class WorkerJob: CallbackLinkProvider {
    private enum State: UInt8 {
        case queued, running, cancelledBeforeStart
    }

    let slot: UInt32
    let handler: Handler
    let context: JobContext
    private let frame: MessageBox
    private let payload: Range<Int>
    /// For a request that came through a broker: the way of its callbacks.
    private let callbacks: BrokeredCallbacks?
    /// Whether its client's requests wait.
    let holdUp: HoldUp?
    private let state = Atomic<UInt8>(State.queued.rawValue)
    private let reportsStart = Atomic<Bool>(false)
    private let run = Atomic<UInt32>(0)
    private let task = Mutex<Task<Void, Never>?>(nil)
    /// What runs the tasks of an asynchronous handler.
    private let tasks = Mutex<HandlerTasks?>(nil)
    /// Its client was told that it waits for a slot, or for a call that does; only the loop touches it.
    let isToldToWait = Atomic<Bool>(false)

    init(
        slot: UInt32,
        handler: Handler,
        context: JobContext,
        frame: MessageBox,
        payload: Range<Int>,
        callbacks: BrokeredCallbacks? = nil,
        holdUp: HoldUp? = nil
    ) {
        self.slot = slot
        self.handler = handler
        self.context = context
        self.frame = frame
        self.payload = payload
        self.callbacks = callbacks
        self.holdUp = holdUp
    }

    var worker: WorkerCore { self.context.core }

    func link(to subscription: SubscriptionID, of client: PeerID) -> any CallbackLink {
        self.handler.gotCallback()
        let subscriber =
            self.callbacks?.subscriber(subscription, of: client)
            ?? self.worker.subscribers.subscriber(subscription, of: client, via: nil, core: self.worker)
        return JobCallback(subscriber, for: self.context)
    }

    var isRunning: Bool { self.state.load(ordering: .sequentiallyConsistent) == State.running.rawValue }

    /// The worker has told the client that the request waits; it is to be told of the start as well.
    ///
    /// - Returns: Whether it has started already.
    func reportStart() -> Bool {
        self.reportsStart.store(true, ordering: .sequentiallyConsistent)
        return self.isRunning
    }

    /// How long the handler ran, 0 as long as it hasn't ended.
    var ranMicroseconds: UInt32 { self.run.load(ordering: .relaxed) }

    /// The handler has ended: to be said before the loop is told of it.
    func ran(nanoseconds: UInt64) {
        self.context.ended()
        self.run.store(UInt32(roundedMicroseconds: nanoseconds), ordering: .relaxed)
    }

    /// Takes the job for running.
    ///
    /// Returns false if it was cancelled.
    func begin() -> Bool {
        self.state
            .compareExchange(
                expected: State.queued.rawValue,
                desired: State.running.rawValue,
                ordering: .sequentiallyConsistent
            )
            .exchanged
    }

    var mustReportStart: Bool { self.reportsStart.load(ordering: .sequentiallyConsistent) }

    /// Takes the job out before it starts, or asks the running handler to stop.
    ///
    /// - Returns: Whether it will never start.
    func cancel(because reason: CancellationReason) -> Bool {
        self.context.cancel(because: reason)
        if self.state
            .compareExchange(
                expected: State.queued.rawValue,
                desired: State.cancelledBeforeStart.rawValue,
                ordering: .sequentiallyConsistent
            )
            .exchanged
        {
            return true
        }
        self.task.withLock { $0 }?.cancel()
        return false
    }

    /// Takes the job out if it has not started; a running handler goes on.
    func cancelBeforeStart(because reason: CancellationReason) -> Bool {
        guard
            self.state
                .compareExchange(
                    expected: State.queued.rawValue,
                    desired: State.cancelledBeforeStart.rawValue,
                    ordering: .sequentiallyConsistent
                )
                .exchanged
        else { return false }
        self.context.cancel(because: reason)
        return true
    }

    /// Whether its caller's deadline passed before it started: it must not start then (contract S40).
    func hasLapsed(at now: Instant) -> Bool { now >= self.context.deadline }

    /// Runs the handler.
    ///
    /// `finish` is called once, here or by the handler's task.
    func run(core: WorkerCore, finish: @escaping @Sendable (WorkerReply) -> Void) {
        var writer = PackWriter(capacity: 96, headerBytes: RequestBytes.headerByteCount, limits: core.codecLimits)
        do {
            let work: AsyncWork? = try CurrentJob.with(thread: self.context) { try self.begin(core, &writer) }
            guard let work else {
                finish(.value(RequestBytes(adopting: writer.finish())))
                return
            }
            self.start(work, core: core, finish: finish)
        } catch {
            finish(.error(self.errorBody(error, core)))
        }
    }

    /// Decodes the arguments and runs the handler, or returns what is to be awaited.
    private func begin(_ core: WorkerCore, _ writer: inout PackWriter) throws -> AsyncWork? {
        unsafe try self.frame.withUnsafeBytes { bytes in
            let payload = unsafe UnsafeRawBufferPointer(rebasing: bytes[self.payload])
            return try unsafe withPackReader(over: payload, limits: core.codecLimits) { reader in
                reader.context = self
                switch self.handler.body {
                case .sync(let body):
                    try body(&reader, &writer)
                    return nil
                case .syncWithContext(let body):
                    try body(&reader, self.context, &writer)
                    return nil
                case .async(let body):
                    return try body(&reader, self.context)
                }
            }
        }
    }

    /// Gives the handler's slot back, which waits for calls that wait for slots: it takes one again before it goes on.
    ///
    /// - Returns: False if it keeps it, since it has something to do, or as many as may have given theirs back.
    func giveSlotBack(at now: Instant) -> Bool {
        if self.handler.isAsync { return self.tasks.withLock { $0 }?.giveSlotBack() ?? false }
        return self.context.giveSlotBackWhileBlocked(at: now)
    }

    /// What the caller is told of an error, which may come of a limit that has passed.
    private func errorBody(_ error: any Error, _ core: WorkerCore) -> ErrorBody {
        if error is CancellationError, let reason = self.context.cancellationReason,
            reason == .softTimeLimit || reason == .hardTimeLimit
        {
            return self.handler.overrun(reason, worker: core.name)
        }
        return core.errorBody(error, function: self.handler.name)
    }

    /// An asynchronous handler runs as a task of its own: it belongs to its request, not to the thread that starts it.
    ///
    /// It runs on our threads, for those of Swift's pool block signals, and with them whatever a handler starts.
    private func start(_ work: @escaping AsyncWork, core: WorkerCore, finish: @escaping @Sendable (WorkerReply) -> Void)
    {
        let tasks = HandlerTasks(self.context)
        self.tasks.withLock { $0 = tasks }
        let task = Task(executorPreference: tasks) {
            var writer = PackWriter(capacity: 96, headerBytes: RequestBytes.headerByteCount, limits: core.codecLimits)
            do {
                let pack = try await CurrentJob.with(task: self.context) { try await work() }
                do throws(CodecError) { try pack(&writer) } catch { throw ResultError(cause: error) }
                finish(.value(RequestBytes(adopting: writer.finish())))
            } catch {
                finish(.error(self.errorBody(error, core)))
            }
        }
        self.task.withLock { $0 = task }
        // A cancellation that came before the task was stored is passed on here.
        if self.context.isCancelled { task.cancel() }
    }
}

/// What a handler's run came to.
enum WorkerReply: Sendable {
    case value(RequestBytes)
    case error(ErrorBody)
    /// It never started: it was cancelled, or its time was over.
    case dropped(CancelledReason)

    /// How much memory its answer takes, but for what is small.
    var byteCount: Int { if case .value(let block) = self { block.count } else { 0 } }

    enum CancelledReason: Sendable { case cancelled, lapsed }
}
