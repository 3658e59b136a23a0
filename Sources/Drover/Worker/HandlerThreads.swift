// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import DroverCore
internal import DroverZMQ
internal import Logging
internal import Synchronization

/// The threads that run handlers, and the slots that bound how many run at once.
///
/// Asynchronous handlers take a slot as well, but no thread once their task has been started.
final class HandlerThreads: Sendable {
    private struct State: ~Copyable {
        var queue = Deque<WorkerJob>()
        var idle: [Parker] = []
        var threads: [LoopThread] = []
        var isStopping = false
    }

    private let state = Mutex(State())
    private let runningCount = Atomic<Int>(0)
    private let queuedCount = Atomic<Int>(0)
    private let concurrency: Int
    /// How many slots there are: `concurrency`, and one for each of a stuck handler that is replaced.
    private let slots: Atomic<Int>
    private let isShort = Atomic<Bool>(false)

    /// Whether jobs wait since the system had no thread to give; ``startMissing(core:)`` asks again.
    var lacksThreads: Bool { self.isShort.load(ordering: .relaxed) }

    init(concurrency: Int) {
        self.concurrency = concurrency
        self.slots = Atomic(concurrency)
    }

    var running: Int { self.runningCount.load(ordering: .relaxed) }
    var queued: Int { self.queuedCount.load(ordering: .relaxed) }

    private var slotCount: Int { self.slots.load(ordering: .sequentiallyConsistent) }

    /// Says how many slots of stuck handlers are replaced; jobs that wait take those that are new.
    func setReplacements(_ count: Int, core: WorkerCore) {
        self.slots.store(self.concurrency + count, ordering: .sequentiallyConsistent)
        var none: [WorkerJob] = []
        self.submit(&none, core: core)
    }

    /// Takes a slot, if one is free.
    func takeSlot() -> Bool {
        var count = self.runningCount.load(ordering: .relaxed)
        while count < self.slotCount {
            let (exchanged, original) = self.runningCount.compareExchange(
                expected: count,
                desired: count + 1,
                ordering: .acquiringAndReleasing
            )
            if exchanged { return true }
            count = original
        }
        return false
    }

    /// Gives a slot back; a waiting job takes it.
    func releaseSlot() {
        self.runningCount.subtract(1, ordering: .acquiringAndReleasing)
        guard self.queuedCount.load(ordering: .sequentiallyConsistent) > 0 else { return }
        self.state.withLock { state in state.queue.isEmpty ? nil : state.idle.popLast() }?.unpark()
    }

    /// Takes a cancelled job out of the queue, if it still waits there.
    func withdraw(_ job: WorkerJob) {
        self.state.withLock { state in
            guard let index = state.queue.firstIndex(where: { $0 === job }) else { return }
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
            while wanted > 0, state.threads.count < self.slotCount, !state.isStopping {
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
                if let first = state.queue.first, self.takeSlot() {
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
            // The loop has answered for a job that was cancelled; one that lapsed is taken by whoever comes first.
            if isLapsed, job.cancel(because: .deadline) { core.post(.finished(job, .dropped(.lapsed))) }
            self.releaseSlot()
            return
        }
        if job.mustReportStart { core.post(.started(job)) }
        if job.handler.isTimed { core.post(.began(job, at: started)) }
        job.run(core: core) { reply in
            let nanoseconds = core.now().nanoseconds(since: started)
            job.handler.took(nanoseconds: nanoseconds)
            job.ran(nanoseconds: nanoseconds)
            core.post(.finished(job, reply))
            self.releaseSlot()
        }
    }

    /// Ends the threads once the queue is empty.
    func stop() {
        let parkers = self.state.withLock { state in
            state.isStopping = true
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
