// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverCore
internal import DroverWire
internal import DroverZMQ
internal import Synchronization

/// What a subscription does when its events come faster than the callback takes them (contract S78).
public enum OverflowPolicy: Hashable, Sendable {
    /// Makes room by dropping the oldest event that waits.
    case dropOldest
    /// Drops the event that came.
    case dropNewest
    /// Ends the subscription.
    case unsubscribe
    /// Asks the workers to pause, so that their handlers wait: nothing is dropped.
    ///
    /// What is on its way when the limit is reached comes all the same: some 8,000 events of each worker at most.
    case pushBack
}

/// How long a callback can be reached by workers.
public enum CallbackLifetime: UInt32, Hashable, Sendable {
    /// Until the calls that it was an argument of have ended.
    case job = 0
    /// Until it is cancelled, by either side, or the client is closed.
    case untilCancelled = 1
}

/// What became of a subscription's events.
public struct SubscriptionStatistics: Hashable, Sendable {
    /// Events and calls that came.
    public var received = 0
    /// Events and calls that the callback was run for.
    public var delivered = 0
    /// Events dropped because the queue was full, or the subscription over.
    public var dropped = 0
    /// Events that a worker numbered but that never came.
    ///
    /// They were lost with a connection, or were larger than this client takes. Known before the call whose handler emitted them
    /// ends, as long as the session with the worker goes on. Those of a worker that was lost are in no count.
    public var missing = 0
    /// Errors that the callback threw.
    public var failed = 0
}

/// One callback of a client: where its events wait, and the closure that takes them.
final class Subscription: Sendable {
    struct Invocation: Sendable {
        let endpoint: Int
        /// The session of the endpoint that it came in; in another its id may stand for another.
        let session: UInt64
        let id: UInt64
        let deadline: Instant
    }

    /// Decodes the arguments, runs the closure and, for a call, packs its answer.
    ///
    /// In a type of its own: a bare closure that is handed about in optionals and tuples is wrapped anew each time.
    struct Body: Sendable {
        let run: @Sendable (inout PackReader, _ answer: Bool, inout PackWriter) throws -> Void
    }

    struct State: Sendable {
        var waiting = WaitingEvents()
        var isActive = false
        var body: Body?
        var isEnded = false
        var isPaused = false
        /// Whether it ever was: if not, no endpoint can be mistaken about it.
        var wasPaused = false
        /// The endpoints that were asked for a pause.
        var paused: Set<Int> = []
        var openJobs = 0
        var statistics = SubscriptionStatistics()
        var sequences: [Int: SequenceTracker] = [:]
    }

    let id: SubscriptionID
    let lifetime: CallbackLifetime
    let policy: OverflowPolicy
    let limit: Int
    private let queue: CallbackQueue
    private let state: Mutex<State>
    // A cycle, by way of the client's table of subscriptions, until the client closes, as it does at the latest when it is
    // dropped: then the table is emptied. Events that wait for the callback executor meanwhile are still delivered. (A weak
    // reference would make each retain and release of the core, two for each call, several times as expensive.)
    private let client: ClientCore

    init(
        id: SubscriptionID,
        lifetime: CallbackLifetime,
        policy: OverflowPolicy,
        limit: Int,
        queue: CallbackQueue,
        client: ClientCore,
        body: Body
    ) {
        self.id = id
        self.lifetime = lifetime
        self.policy = policy
        self.limit = max(1, limit)
        self.queue = queue
        self.client = client
        self.state = Mutex(State(body: body))
    }

    var statistics: SubscriptionStatistics { self.state.withLock { $0.statistics } }
    var isPaused: Bool { self.state.withLock { $0.isPaused } }
    var wasPaused: Bool { self.state.withLock { $0.wasPaused } }

    /// The events of an endpoint are numbered anew.
    func forgetSequence(of endpoint: Int) {
        self.state.withLock { state in
            state.sequences[endpoint] = nil
            // A new worker knows of no pause.
            state.paused.remove(endpoint)
        }
    }

    var isEnded: Bool { self.state.withLock { $0.isEnded } }

    // MARK: On the poller

    /// What the poller must do after an arrival.
    enum Consequence { case none, pause, unsubscribe, refuse }

    /// Takes events that came together, or a call.
    ///
    /// - Returns: What is to be done, and how many of them nobody takes.
    func receive(_ arrived: ArrivedEvents, from endpoint: Int) -> (consequence: Consequence, refused: Int) {
        var arrived = arrived
        arrived.number = self.queue.currentNumber
        let (outcome, mustActivate) = self.state.withLock { state -> ((Consequence, Int), Bool) in
            state.track(arrived, from: endpoint)
            guard !state.isEnded else {
                state.statistics.received += arrived.count
                state.statistics.dropped += arrived.count
                return ((.refuse, arrived.count), false)
            }
            let outcome = state.add(arrived, policy: self.policy, limit: self.limit, from: endpoint)
            let mustActivate = !state.isActive && !state.waiting.isEmpty
            if mustActivate { state.isActive = true }
            return (outcome, mustActivate)
        }
        if mustActivate { self.queue.activate(self) }
        if arrived.invocation != nil { self.queue.asked(by: self) }
        return outcome
    }

    /// An endpoint has sent all events below a number: what of them has not come was lost.
    func passed(upTo number: UInt64, from endpoint: Int) {
        self.state.withLock { $0.passed(upTo: number, from: endpoint) }
    }

    /// Whether a handler waits for the callback, which waits for this queue.
    func isAsked(on queue: CallbackQueue) -> Bool {
        self.queue === queue && self.state.withLock { $0.waiting.hasInvocation }
    }

    /// Whether this call's handler alone may call the callback.
    func isOnly(in result: AnyAsyncResult) -> Bool {
        self.lifetime == .job && result.references.contains(self.id) && self.state.withLock { $0.openJobs == 1 }
    }

    // MARK: On the callback executor

    /// Runs the closure for events that came before the delivery of this number.
    ///
    /// Returns whether it ran any.
    func deliver(upTo number: UInt64, most: Int) -> Bool {
        var count = 0
        while count < most {
            // Several at a time, since the poller wants the lock for what comes.
            let batch = min(Self.deliveryBatch, most - count)
            let (body, arrived, mustResume) = self.state.withLock { state -> (Body?, ArrivedEvents?, Bool) in
                let arrived = state.waiting.takeFirst(batch, upTo: number)
                state.statistics.delivered += arrived?.count ?? 0
                let mustResume = state.isPaused && state.waiting.count <= self.limit / 2
                if mustResume {
                    state.isPaused = false
                    state.paused = []
                }
                return (state.body, arrived, mustResume)
            }
            if mustResume { self.client.post(.resume(self.id)) }
            guard let arrived else { break }
            if let body {
                if let invocation = arrived.invocation {
                    self.answer(invocation, body, for: arrived)
                } else {
                    self.run(body, for: arrived)
                }
            }
            count += arrived.count
        }
        return count > 0
    }

    private static let deliveryBatch = 32
    /// What may come after a pause was asked for: of 128 workers all that each may have on its way.
    fileprivate static let pushBackSlack = 128 * EventWindow.limit

    /// Called by the queue, after which it forgets the subscription until the next event.
    func deactivateIfIdle() -> Bool {
        self.state.withLock { state in
            guard state.waiting.isEmpty else { return false }
            state.isActive = false
            if state.isEnded { state.body = nil }
            return true
        }
    }

    private func run(_ body: Body, for arrived: ArrivedEvents) {
        // Events have no answer; the closure is given a writer all the same.
        var noAnswer = PackWriter(capacity: 0)
        unsafe arrived.frame.withUnsafeBytes { bytes in
            for payload in arrived.payloads {
                do {
                    let arguments = unsafe UnsafeRawBufferPointer(rebasing: bytes[payload])
                    try unsafe withPackReader(over: arguments, limits: .received) { reader in
                        try body.run(&reader, false, &noAnswer)
                    }
                } catch {
                    self.failed(error)
                }
            }
        }
    }

    private func answer(_ invocation: Invocation, _ body: Body, for arrived: ArrivedEvents) {
        var answer = PackWriter(
            capacity: 128,
            headerBytes: RequestBytes.headerByteCount,
            limits: self.client.codecLimits
        )
        do {
            try unsafe arrived.frame.withUnsafeBytes { bytes in
                for payload in arrived.payloads {
                    let arguments = unsafe UnsafeRawBufferPointer(rebasing: bytes[payload])
                    try unsafe withPackReader(over: arguments, limits: .received) { reader in
                        try body.run(&reader, true, &answer)
                    }
                }
            }
            self.client.post(.answer(invocation, RequestBytes(adopting: answer.finish()), isError: false))
        } catch {
            self.failed(error)
            let block = ErrorBody(thrown: error, hop: "callback \(self.id) of client \(self.client.name)")
                .packed(atMost: self.client.leastPayloadLimit)
            self.client.post(.answer(invocation, block, isError: true))
        }
    }

    private func failed(_ error: any Error) {
        self.state.withLock { $0.statistics.failed += 1 }
        self.client.reportEventError(error, of: self)
    }

    // MARK: Life

    /// The callback was passed to a call.
    func jobStarted() { self.state.withLock { $0.openJobs += 1 } }

    /// A call that it was passed to has ended.
    ///
    /// Returns whether that was the last and the callback lives no longer.
    func jobEnded() -> Bool {
        self.state.withLock { state in
            state.openJobs -= 1
            return self.lifetime == .job && state.openJobs <= 0 && !state.isEnded
        }
    }

    /// Nothing more is taken; what waits is delivered, then the closure is released.
    func end() {
        self.state.withLock { state in
            state.isEnded = true
            if state.waiting.isEmpty, !state.isActive { state.body = nil }
        }
    }
}

extension Subscription.State {
    /// Queues what came, as far as the subscription's policy lets it (contract S78).
    fileprivate mutating func add(
        _ arrived: ArrivedEvents,
        policy: OverflowPolicy,
        limit: Int,
        from endpoint: Int
    ) -> (Subscription.Consequence, Int) {
        let excess = self.waiting.count + arrived.count - limit
        guard excess > 0, arrived.invocation == nil else {
            self.statistics.received += arrived.count
            self.waiting.append(arrived)
            return (.none, 0)
        }
        switch policy {
        case .dropOldest:
            self.statistics.received += arrived.count
            self.waiting.append(arrived)
            self.statistics.dropped += self.waiting.dropOldest(downTo: limit)
            return (.none, 0)
        case .dropNewest:
            self.statistics.received += arrived.count
            self.append(arrived, butLast: excess)
            self.statistics.dropped += min(excess, arrived.count)
            return (.none, 0)
        case .unsubscribe:
            // The first that is too many ends the subscription; those behind it find it ended.
            self.statistics.received += arrived.count
            self.append(arrived, butLast: excess)
            self.statistics.dropped += min(excess, arrived.count)
            return (.unsubscribe, min(excess, arrived.count) - 1)
        case .pushBack:
            self.statistics.received += arrived.count
            self.waiting.append(arrived)
            // Never reached by workers that bound what is on its way, unless there are more than a hundred.
            self.statistics.dropped += self.waiting.dropOldest(downTo: limit + Subscription.pushBackSlack)
            self.isPaused = true
            self.wasPaused = true
            // Each that sends is asked, once: one may have come later, or not have known the subscription yet.
            return (self.paused.insert(endpoint).inserted ? .pause : .none, 0)
        }
    }

    private mutating func append(_ arrived: ArrivedEvents, butLast excess: Int) {
        var taken = arrived
        taken.keepFirst(max(0, arrived.count - excess))
        self.waiting.append(taken)
    }

    fileprivate mutating func track(_ arrived: ArrivedEvents, from endpoint: Int) {
        let verdict = self.sequences[endpoint, default: SequenceTracker()]
            .received(arrived.sequence, count: arrived.count)
        switch verdict {
        case .inOrder, .duplicate: break
        case .gap(let count): self.miss(count)
        case .late(let count): self.statistics.missing -= Int(clamping: count)
        }
    }

    fileprivate mutating func passed(upTo number: UInt64, from endpoint: Int) {
        self.miss(self.sequences[endpoint, default: SequenceTracker()].passed(upTo: number))
    }

    private mutating func miss(_ count: UInt64) {
        // A peer may claim any number.
        let (sum, overflow) = self.statistics.missing.addingReportingOverflow(Int(clamping: count))
        self.statistics.missing = overflow ? .max : sum
    }
}
