// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverWire
internal import DroverZMQ
internal import Synchronization

/// Where a batch's consumer is told what happens, and what the batch's progress is read from.
///
/// It is told by whoever ends its calls (mostly the poller), by the feeder of an asynchronous input, and by whoever cancels
/// it. What comes while the consumer is busy gathers, and is taken all at once. It holds neither calls nor consumer.
@usableFromInline
final class BatchInbox: Sendable {
    private enum Sleeper: Sendable {
        case task(Resumption<Void>)
        case thread(Parker)

        func wake() {
            switch self {
            case .task(let continuation): continuation.resume()
            case .thread(let parker): parker.unpark()
            }
        }
    }

    private struct State: Sendable {
        var ended: [BatchMark] = []
        var hasNews = false
        var hasWaitedEnough = false
        var isCancelled = false
        var isOver = false
        var sleeper: Sleeper?
        /// The callbacks that items were given, which live as long as the batch.
        var held: Set<SubscriptionID> = []
        /// The mark whose end the sleeper waits for; nil for any.
        var awaited: UInt32?

        var doneCount = 0
        var failedCount = 0
        var total: Int?
        var meter: ProgressMeter?
        var overAt: Instant?

        /// Whether the consumer need not sleep.
        var hasMail: Bool { !self.ended.isEmpty || self.hasNews || self.isCancelled }

        mutating func takeSleeper() -> Sleeper? {
            let taken = self.sleeper
            self.sleeper = nil
            return taken
        }
    }

    private let state: Mutex<State>
    /// Says that a look is worth while; the lock orders what is found then.
    private let mail = Atomic<Bool>(false)
    private let wakesOnFailure: Bool
    let core: ClientCore

    init(core: ClientCore, total: Int?, wakesOnFailure: Bool) {
        var state = State()
        state.total = total
        self.state = Mutex(state)
        self.core = core
        self.wakesOnFailure = wakesOnFailure
    }

    // MARK: Told by others

    /// A call has ended.
    func ended(_ mark: BatchMark, as status: AnyAsyncResult.Status, itemCount: Int) {
        let sleeper = self.state.withLock { state -> Sleeper? in
            guard !state.isOver else { return nil }
            state.ended.append(mark)
            // A call that has not ended was let go by a poller that was stopped.
            if status != .pending { state.doneCount += itemCount }
            let isFailure = status != .value
            if isFailure, status != .pending { state.failedCount += itemCount }
            self.mail.store(true, ordering: .relaxed)
            // Of a chunk only who reads its answer knows whether items failed.
            let maySayFailure = isFailure || mark.chunk != nil
            guard state.awaited == nil || state.awaited == mark.word || maySayFailure && self.wakesOnFailure else {
                return nil
            }
            return state.takeSleeper()
        }
        sleeper?.wake()
    }

    /// The feeder has something.
    func newsCame() {
        let sleeper = self.state.withLock { state in
            state.hasNews = true
            self.mail.store(true, ordering: .relaxed)
            return state.takeSleeper()
        }
        sleeper?.wake()
    }

    /// The first answers have had their time.
    func waitedEnough() {
        self.state.withLock { $0.hasWaitedEnough = true }
        self.newsCame()
    }

    /// Nobody wants the rest.
    func cancel() {
        let sleeper = self.state.withLock { state -> Sleeper? in
            guard !state.isOver else { return nil }
            state.isCancelled = true
            self.mail.store(true, ordering: .relaxed)
            return state.takeSleeper()
        }
        sleeper?.wake()
    }

    // MARK: For the consumer

    /// Whether there may be something to take.
    var hasMail: Bool { self.mail.load(ordering: .relaxed) }

    var hasWaitedEnough: Bool { self.state.withLock { $0.hasWaitedEnough } }

    var isCancelled: Bool { self.state.withLock { $0.isCancelled } }

    func begin() {
        let now = self.core.now()
        self.state.withLock { $0.meter = ProgressMeter(at: now) }
    }

    /// Exchanges the marks of calls that have ended for an empty array, whose memory is used again.
    ///
    /// - Returns: Whether the batch was cancelled.
    func take(_ ended: inout [BatchMark]) -> Bool {
        let now = self.core.now()
        return self.state.withLock { state in
            self.mail.store(false, ordering: .relaxed)
            swap(&ended, &state.ended)
            state.hasNews = false
            state.meter?.counted(state.doneCount, at: now)
            return state.isCancelled
        }
    }

    /// An item ended before there was a call: its arguments can't be encoded.
    func refused() {
        self.state.withLock { state in
            state.doneCount += 1
            state.failedCount += 1
        }
    }

    /// A chunk's answer says something else of its items than that they all were done well.
    func corrected(done: Int, failed: Int) {
        self.state.withLock { state in
            state.doneCount += done
            state.failedCount += failed
        }
    }

    /// The input is at its end: now it is known how many items there are.
    func inputEnded(after count: Int) {
        self.state.withLock { $0.total = count }
    }

    /// An item's call, which hasn't started, was given callbacks: they end when the batch does, not with the call.
    func hold(_ callbacks: [SubscriptionID]) {
        guard !callbacks.isEmpty else { return }
        let new = self.state.withLock { state in
            state.isOver ? [] : callbacks.filter { state.held.insert($0).inserted }
        }
        for callback in new { self.core.subscriptions.jobStarted(callback) }
    }

    /// The consumer is gone: what ends from now on isn't counted.
    func close() {
        let now = self.core.now()
        let held = self.state.withLock { state -> Set<SubscriptionID> in
            guard !state.isOver else { return [] }
            state.isOver = true
            state.overAt = now
            state.ended = []
            defer { state.held = [] }
            return state.held
        }
        self.core.jobsEnded(with: held)
    }

    /// Suspends until the call of a mark has ended, any call if it is nil, or something else has happened.
    ///
    /// A cancelled task cancels the batch.
    func sleep(until mark: UInt32?) async {
        await withTaskCancellationHandler {
            await withResumption { continuation in
                if !self.rest(.task(continuation), until: mark) { continuation.resume() }
            }
        } onCancel: {
            self.cancel()
        }
    }

    /// Blocks this thread until the call of a mark has ended, any call if it is nil, or something else has happened.
    @available(*, noasync)
    func sleepBlocking(until mark: UInt32?) {
        let parker = Parker.current
        guard self.rest(.thread(parker), until: mark) else { return }
        // Without a deadline it returns when unparked only, which is done once: by who took the sleeper out.
        _ = parker.park()
    }

    /// Leaves the sleeper to be woken.
    ///
    /// - Returns: False if there is no need to sleep.
    private func rest(_ sleeper: Sleeper, until mark: UInt32?) -> Bool {
        let mustSleep = self.state.withLock { state in
            guard !state.hasMail else { return false }
            state.sleeper = sleeper
            state.awaited = mark
            return true
        }
        guard mustSleep, self.core.isStopped else { return mustSleep }
        // The poller was stopped before the sleeper was there to be woken.
        return self.state.withLock { $0.takeSleeper() } == nil
    }

    // MARK: Progress

    var progress: BatchProgress {
        let now = self.core.now()
        return self.state.withLock { state in
            let reading = state.overAt ?? now
            let count = state.doneCount
            var progress = BatchProgress()
            progress.done = count
            progress.failed = state.failedCount
            progress.total = state.total.map { max($0, count) }
            progress.isOver = state.isOver
            guard let meter = state.meter else { return progress }
            progress.elapsed = Duration(nanoseconds: reading.nanoseconds(since: meter.beginning))
            progress.rate = meter.rate(count, at: reading)
            if !state.isOver, let total = progress.total {
                progress.remaining = meter.remainingNanoseconds(count, of: total, at: reading)
                    .map { Duration(nanoseconds: $0) }
            }
            return progress
        }
    }
}
