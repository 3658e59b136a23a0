// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import DroverCore
internal import DroverRuntime
internal import DroverZMQ
internal import Logging
internal import Synchronization

/// The threads that run handlers, and the slots that bound how many run at once.
///
/// Asynchronous handlers take a slot as well, but no thread once their task has been started.
final class HandlerThreads: Sendable {
    private struct State: ~Copyable {
        var queue = Deque<WorkerJob>()
        /// Jobs whose turn came while their clients were held up.
        var aside: [WorkerJob] = []
        var idle: [Parker] = []
        var threads: [LoopThread] = []
        var isStopping = false
        /// Handlers that want their slots back, each with a way to tell it that it has one.
        var rejoining = Deque<@Sendable () -> Void>()
    }

    private let state = Mutex(State())
    private let runningCount = Atomic<Int>(0)
    private let queuedCount = Atomic<Int>(0)
    private let concurrency: Int
    /// How many slots there are: `concurrency`, and one for each of a stuck handler that is replaced.
    private let slots: Atomic<Int>
    /// How many wait to have their slots back.
    private let rejoiningCount = Atomic<Int>(0)
    /// Handlers that have given their slots back while they wait, and how many of them block their threads.
    private let releasedCount = Atomic<Int>(0)
    private let blockedCount = Atomic<Int>(0)
    private let isShort = Atomic<Bool>(false)

    /// Whether jobs wait since the system had no thread to give; ``startMissing(core:)`` asks again.
    var lacksThreads: Bool { self.isShort.load(ordering: .relaxed) }

    init(concurrency: Int) {
        self.concurrency = concurrency
        self.slots = Atomic(concurrency)
    }

    var running: Int { self.runningCount.load(ordering: .relaxed) }
    var queued: Int { self.queuedCount.load(ordering: .relaxed) }

    var slotCount: Int { self.slots.load(ordering: .sequentiallyConsistent) }

    /// Says how many slots of stuck handlers are replaced; jobs that wait take those that are new.
    func setReplacements(_ count: Int, core: WorkerCore) {
        self.slots.store(self.concurrency + count, ordering: .sequentiallyConsistent)
        while let wake = self.state.withLock({ self.nextToRejoin(&$0) }) { wake() }
        var none: [WorkerJob] = []
        self.submit(&none, core: core)
    }

    /// Takes a slot, if one is free.
    func takeSlot() -> Bool {
        var count = self.runningCount.load(ordering: .sequentiallyConsistent)
        while count < self.slotCount {
            let (exchanged, original) = self.runningCount.compareExchange(
                expected: count,
                desired: count + 1,
                ordering: .sequentiallyConsistent
            )
            if exchanged { return true }
            count = original
        }
        return false
    }

    /// Gives a slot back; a handler that wants its own back takes it, else a waiting job.
    func releaseSlot() {
        self.runningCount.subtract(1, ordering: .sequentiallyConsistent)
        // One of the two sees the other: this looks after it has given the slot back, who waits looks after it has said so.
        if self.rejoiningCount.load(ordering: .sequentiallyConsistent) > 0 {
            if let wake = self.state.withLock({ self.nextToRejoin(&$0) }) { return wake() }
        }
        guard self.queuedCount.load(ordering: .sequentiallyConsistent) > 0 else { return }
        self.state.withLock { state in state.queue.isEmpty ? nil : state.idle.popLast() }?.unpark()
    }

    /// Gives a slot to a handler that wants its own back; returns the way to tell it.
    private func nextToRejoin(_ state: inout State) -> (@Sendable () -> Void)? {
        guard !state.rejoining.isEmpty, self.takeSlot() else { return nil }
        self.rejoiningCount.subtract(1, ordering: .sequentiallyConsistent)
        return state.rejoining.popFirst()
    }

    /// A handler gives its slot back while it waits for something.
    ///
    /// - Parameters:
    ///   - blocksThread: Whether it keeps its thread meanwhile: then there may be one more.
    ///   - limit: How many may have done so at once.
    ///   - core: The worker's.
    /// - Returns: False if that many have: it keeps its slot.
    func leaveSlot(blocksThread: Bool, limit: Int, core: WorkerCore) -> Bool {
        guard self.releasedCount.add(1, ordering: .relaxed).newValue <= limit else {
            self.releasedCount.subtract(1, ordering: .relaxed)
            return false
        }
        if blocksThread { self.blockedCount.add(1, ordering: .relaxed) }
        self.releaseSlot()
        if blocksThread, self.queued > 0 {
            var none: [WorkerJob] = []
            self.submit(&none, core: core)
        }
        return true
    }

    /// The handler has what it waited for, and wants a slot again.
    ///
    /// - Parameters:
    ///   - blocksThread: As when it left.
    ///   - wake: Called when it has one, on the thread that gives it, unless that is at once.
    /// - Returns: Whether it has one at once.
    func rejoin(blocksThread: Bool, _ wake: @escaping @Sendable () -> Void) -> Bool {
        self.releasedCount.subtract(1, ordering: .relaxed)
        if blocksThread { self.blockedCount.subtract(1, ordering: .relaxed) }
        return self.state.withLock { state in
            state.rejoining.append(wake)
            self.rejoiningCount.add(1, ordering: .sequentiallyConsistent)
            guard state.rejoining.count == 1, self.takeSlot() else { return false }
            self.rejoiningCount.subtract(1, ordering: .sequentiallyConsistent)
            state.rejoining.removeLast()
            return true
        }
    }

    /// Whether the code that asks runs on one of the threads.
    @available(*, noasync)
    var isCurrent: Bool { self.state.withLock { state in state.threads.contains { $0.isCurrent } } }

    /// Takes a cancelled job out of the queue, if it still waits there.
    func withdraw(_ job: WorkerJob) {
        self.state.withLock { state in
            guard let index = state.queue.firstIndex(where: { $0 === job }) else {
                return state.aside.removeAll { $0 === job }
            }
            state.queue.remove(at: index)
            self.queuedCount.subtract(1, ordering: .sequentiallyConsistent)
        }
    }

    /// Queues jobs and wakes as many threads as can run them.
    ///
    /// Threads are started as they are needed.
    func submit(_ jobs: inout [WorkerJob], core: WorkerCore) {
        var shortage: ZMQError?
        let parkers = self.state.withLock { state -> [Parker] in
            state.queue.append(contentsOf: jobs)
            self.queuedCount.add(jobs.count, ordering: .sequentiallyConsistent)
            // Without new jobs it is those that waited before that count: there are threads or slots again.
            let count = jobs.isEmpty || self.lacksThreads ? state.queue.count : jobs.count
            var wanted = min(count, self.slotCount)
            var woken: [Parker] = []
            while wanted > 0, let parker = state.idle.popLast() {
                woken.append(parker)
                wanted -= 1
            }
            let most = self.slotCount + self.blockedCount.load(ordering: .relaxed)
            while wanted > 0, state.threads.count < most, !state.isStopping {
                do throws(ZMQError) {
                    let thread = try LoopThread.start(named: "drover-handler", signals: .asInProgram) {
                        self.serve(core)
                    }
                    state.threads.append(thread)
                    wanted -= 1
                } catch {
                    // The jobs wait for those there are, and the loop asks again.
                    shortage = self.isShort.exchange(true, ordering: .relaxed) ? nil : error
                    return woken
                }
            }
            self.isShort.store(false, ordering: .relaxed)
            return woken
        }
        if let shortage {
            core.logger.warning("requests wait for threads", metadata: [LogKeys.error: "\(shortage)"])
        }
        for parker in parkers { parker.unpark() }
        jobs.removeAll(keepingCapacity: true)
    }

    /// A client's jobs may run again: those that were put aside come first.
    func resume(_ holdUp: HoldUp, core: WorkerCore) {
        self.state.withLock { state in
            holdUp.goesOn()
            let jobs = state.aside.filter { $0.holdUp === holdUp }
            guard !jobs.isEmpty else { return }
            state.aside.removeAll { $0.holdUp === holdUp }
            for job in jobs.reversed() { state.queue.prepend(job) }
            self.queuedCount.add(jobs.count, ordering: .sequentiallyConsistent)
        }
        var none: [WorkerJob] = []
        if self.queued > 0 { self.submit(&none, core: core) }
    }

    /// Puts those aside at the queue's head whose clients are held up.
    private func putAside(_ state: inout State) {
        while let first = state.queue.first, !state.isStopping, first.holdUp?.putsAside() == true {
            state.queue.removeFirst()
            state.aside.append(first)
            self.queuedCount.subtract(1, ordering: .sequentiallyConsistent)
        }
    }

    /// Asks again for the threads that the system didn't have.
    func startMissing(core: WorkerCore) {
        var none: [WorkerJob] = []
        self.submit(&none, core: core)
    }

    private enum Next {
        case job(WorkerJob)
        case wait
        case leave
    }

    private func serve(_ core: WorkerCore) {
        let parker = Parker()
        while true {
            let next: Next = self.state.withLock { state in
                self.putAside(&state)
                // Who has begun goes on first.
                if let first = state.queue.first, state.rejoining.isEmpty, self.takeSlot() {
                    state.queue.removeFirst()
                    self.queuedCount.subtract(1, ordering: .sequentiallyConsistent)
                    return .job(first)
                }
                if state.isStopping { return .leave }
                state.idle.append(parker)
                return .wait
            }
            switch next {
            case .leave: return
            case .wait:
                // The slot that was missing may have been released before this thread counted as idle.
                if self.queued > 0, self.running < self.slotCount {
                    let wasIdle = self.state.withLock { state in
                        guard let index = state.idle.firstIndex(where: { $0 === parker }) else { return false }
                        state.idle.remove(at: index)
                        return true
                    }
                    if wasIdle { continue }
                }
                _ = parker.park()
            case .job(let job): self.run(job, core)
            }
        }
    }

    private func run(_ job: WorkerJob, _ core: WorkerCore) {
        let started = core.now()
        let isLapsed = job.hasLapsed(at: started)
        guard !isLapsed, job.begin() else {
            // The loop has answered for a job that was cancelled; one that lapsed is taken by whichever thread comes first.
            if isLapsed, job.cancel(because: .deadline) { core.post(.finished(job, .dropped(.lapsed))) }
            self.releaseSlot()
            return
        }
        if job.mustReportStart { core.post(.started(job)) }
        if job.handler.isTimed { core.post(.began(job, at: started)) }
        job.run(core: core) { reply in
            let holdsSlot = job.context.endsHoldingSlot()
            let nanoseconds = core.now().nanoseconds(since: started)
            job.handler.took(nanoseconds: nanoseconds)
            job.ran(nanoseconds: nanoseconds)
            job.holdUp?.hasFinished(reply.byteCount)
            core.post(.finished(job, reply))
            if holdsSlot { self.releaseSlot() }
        }
    }

    /// Ends the threads once the queue is empty.
    func stop() {
        let parkers = self.state.withLock { state in
            state.isStopping = true
            state.queue.append(contentsOf: state.aside)
            self.queuedCount.add(state.aside.count, ordering: .sequentiallyConsistent)
            state.aside = []
            defer { state.idle = [] }
            return state.idle
        }
        for parker in parkers { parker.unpark() }
    }

    /// Waits for the threads.
    ///
    /// A handler that never returns keeps its thread; it is left behind.
    func join(within limit: Duration) -> Bool {
        let threads = self.state.withLock { state in state.threads }
        let deadline = MonotonicClock.deadline(after: limit)
        return threads.reduce(true) { isOver, thread in
            let now = MonotonicClock.now()
            return thread.join(within: .nanoseconds(Int64(clamping: deadline > now ? deadline - now : 0))) && isOver
        }
    }
}
