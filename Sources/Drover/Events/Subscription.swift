// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
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
    /// Asks the worker to pause; what is on its way still counts against twice the limit, then the oldest go.
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
    /// Events dropped because the queue was full.
    public var dropped = 0
    /// Events that a worker numbered but that never came.
    public var missing = 0
    /// Errors that the callback threw.
    public var failed = 0
}

/// One callback of a client: where its events wait, and the closure that takes them.
final class Subscription: Sendable {
    /// One event or one call of the callback.
    struct Arrival: Sendable {
        let frame: MessageBox
        let payload: Range<Int>
        /// How many result callbacks were queued before; see ``CallbackQueue``.
        var number: UInt64
        /// Whom to answer, for a call.
        let invocation: Invocation?
    }

    struct Invocation: Sendable {
        let endpoint: Int
        let id: UInt64
        let deadline: Instant
    }

    /// Decodes the arguments, runs the closure and, for a call, packs its answer.
    typealias Body = @Sendable (inout PackReader, _ answer: Bool, inout PackWriter) throws -> Void

    struct State: Sendable {
        var waiting = Deque<Arrival>()
        var isActive = false
        var body: Body?
        var isEnded = false
        var isPaused = false
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
    // reference would make each retain and release of the core, two for each call, several times as dear.)
    private let client: ClientCore

    init(
        id: SubscriptionID,
        lifetime: CallbackLifetime,
        policy: OverflowPolicy,
        limit: Int,
        queue: CallbackQueue,
        client: ClientCore,
        body: @escaping Body
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

    /// The events of an endpoint are numbered anew.
    func forgetSequence(of endpoint: Int) { self.state.withLock { $0.sequences[endpoint] = nil } }

    var isEnded: Bool { self.state.withLock { $0.isEnded } }

    // MARK: On the poller

    /// What the poller must do after an arrival.
    enum Consequence { case none, pause, unsubscribe, refuse }

    func receive(_ arrival: Arrival, sequence: UInt64?, from endpoint: Int) -> Consequence {
        var arrival = arrival
        arrival.number = self.queue.currentNumber
        let (consequence, mustActivate) = self.state.withLock { state -> (Consequence, Bool) in
            guard !state.isEnded else { return (.refuse, false) }
            state.statistics.received += 1
            state.track(sequence, from: endpoint)
            var consequence = Consequence.none
            if arrival.invocation == nil, state.waiting.count >= self.limit {
                switch self.policy {
                case .dropOldest:
                    state.dropOldest()
                case .dropNewest:
                    state.statistics.dropped += 1
                    return (.none, false)
                case .unsubscribe:
                    state.statistics.dropped += 1
                    return (.unsubscribe, false)
                case .pushBack:
                    if !state.isPaused {
                        state.isPaused = true
                        consequence = .pause
                    }
                    if state.waiting.count >= 2 * self.limit { state.dropOldest() }
                }
            }
            state.waiting.append(arrival)
            let mustActivate = !state.isActive
            state.isActive = true
            return (consequence, mustActivate)
        }
        if mustActivate { self.queue.activate(self) }
        return consequence
    }

    // MARK: On the callback executor

    /// Runs the closure for events that came before the delivery of this number.
    ///
    /// Returns whether it ran any.
    func deliver(upTo number: UInt64, most: Int) -> Bool {
        var arrivals: [Arrival] = []
        var count = 0
        while count < most {
            // Several at a time, since the poller wants the lock for each that comes.
            let batch = min(Self.deliveryBatch, most - count)
            let (body, mustResume) = self.state.withLock { state -> (Body?, Bool) in
                while arrivals.count < batch, let first = state.waiting.first, first.number <= number {
                    arrivals.append(first)
                    state.waiting.removeFirst()
                }
                state.statistics.delivered += arrivals.count
                let mustResume = state.isPaused && state.waiting.count <= self.limit / 2
                if mustResume { state.isPaused = false }
                return (state.body, mustResume)
            }
            if mustResume { self.client.post(.flow(self.id, isPaused: false)) }
            if arrivals.isEmpty { break }
            if let body { for arrival in arrivals { self.run(body, for: arrival) } }
            count += arrivals.count
            arrivals.removeAll(keepingCapacity: true)
        }
        return count > 0
    }

    private static let deliveryBatch = 32

    /// Called by the queue, after which it forgets the subscription until the next event.
    func deactivateIfIdle() -> Bool {
        self.state.withLock { state in
            guard state.waiting.isEmpty else { return false }
            state.isActive = false
            if state.isEnded { state.body = nil }
            return true
        }
    }

    private func run(_ body: Body, for arrival: Arrival) {
        var answer = PackWriter(
            capacity: arrival.invocation == nil ? 0 : 128,
            headerBytes: arrival.invocation == nil ? 0 : RequestBytes.headerByteCount,
            limits: self.client.codecLimits
        )
        do {
            unsafe try arrival.frame.withUnsafeBytes { bytes in
                let payload = unsafe UnsafeRawBufferPointer(rebasing: bytes[arrival.payload])
                try unsafe withPackReader(over: payload) { reader in
                    try body(&reader, arrival.invocation != nil, &answer)
                }
            }
            if let invocation = arrival.invocation {
                self.client.post(.answer(invocation, RequestBytes(adopting: answer.finish()), isError: false))
            }
        } catch {
            self.state.withLock { $0.statistics.failed += 1 }
            self.client.reportEventError(error, of: self)
            if let invocation = arrival.invocation {
                let block = ErrorBody(thrown: error, hop: "callback \(self.id) of client \(self.client.name)").packed()
                self.client.post(.answer(invocation, block, isError: true))
            }
        }
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
    fileprivate mutating func dropOldest() {
        // A call waits for its answer; only events may go.
        guard let index = self.waiting.firstIndex(where: { $0.invocation == nil }) else { return }
        self.waiting.remove(at: index)
        self.statistics.dropped += 1
    }

    fileprivate mutating func track(_ sequence: UInt64?, from endpoint: Int) {
        switch self.sequences[endpoint, default: SequenceTracker()].received(sequence) {
        case .inOrder, .duplicate: break
        case .gap(let count):
            // A peer may claim any number.
            let (sum, overflow) = self.statistics.missing.addingReportingOverflow(Int(clamping: count))
            self.statistics.missing = overflow ? .max : sum
        }
    }
}
