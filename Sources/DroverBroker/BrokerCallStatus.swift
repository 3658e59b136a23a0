// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
public import DroverRuntime
internal import DroverWire

/// A call that has not ended and what it waits for, as its broker sees it.
public struct BrokerCallStatus: Hashable, Codable, Sendable {
    /// Where a call can be.
    public enum State: String, Codable, Sendable {
        /// Behind another call with its ordering key.
        case held
        /// Waits for a worker.
        case queued
        /// At a worker.
        case sent
    }

    /// A worker, and what keeps it from getting the call.
    public struct Candidate: Hashable, Codable, Sendable {
        /// The worker's name.
        public var worker = ""
        /// What keeps it from getting the call, in words; empty if nothing does.
        public var obstacle = ""

        /// Creates a candidate that may get the call.
        public init() {}
    }

    /// The correlation id, which is unique for each client.
    public var call: UInt64 = 0
    /// The name of the client that made it.
    public var client = ""
    /// The function that is called.
    public var function = ""
    /// The queue; "" is the unnamed one.
    public var queue = ""
    /// The labels that the worker must have.
    public var labels: [String: String] = [:]
    /// The resources that the call occupies.
    public var resources: [String: UInt64] = [:]
    /// The ordering key; nil without one.
    public var orderingKey: String?
    /// 0 to 7; higher goes first.
    public var priority = 4
    /// Where the call is.
    public var state = State.queued
    /// The worker that has the call; nil while none has it.
    public var worker: String?
    /// How often the call was given to a worker that might have run it.
    public var attempts = 0
    /// How many calls in the same line go first.
    public var ahead = 0
    /// The seconds since the call reached the broker; nil if the broker doesn't report it.
    public var secondsHere: Double?
    /// The seconds until its caller stops waiting; nil without a limit.
    public var secondsLeft: Double?
    /// Why the call is where it is, in a sentence.
    public var reason = ""
    /// All workers, as long as none of them has the call.
    public var candidates: [Candidate] = []

    /// Creates the status of a waiting call.
    public init() {}
}

extension BrokerCallStatus {
    init(_ id: UInt64, _ explanation: BrokerMachine.Explanation, at now: Instant) {
        self.call = id
        self.client = explanation.client
        self.function = explanation.function
        self.queue = explanation.demands.queue
        self.labels = explanation.demands.labels
        self.resources = explanation.demands.resources
        self.orderingKey = explanation.key
        self.priority = Int(explanation.priority)
        self.worker = explanation.worker
        self.attempts = explanation.attempts
        self.ahead = explanation.ahead
        if explanation.deadline != .distantFuture {
            self.secondsLeft = Double(explanation.deadline.nanoseconds(since: now)) / 1e9
        }
        self.state =
            switch explanation.state {
            case .held: .held
            case .queued, .apart: .queued
            case .sent, .ended: .sent
            }
        self.candidates = explanation.workers.map { worker in
            var candidate = Candidate()
            candidate.worker = worker.name
            candidate.obstacle = worker.obstacle.map { "\($0)" } ?? ""
            return candidate
        }
        self.reason = self.explained(explanation)
    }

    private func explained(_ explanation: BrokerMachine.Explanation) -> String {
        switch self.state {
        case .sent:
            let place = "it is at \(self.worker ?? "a worker that is gone"), which has not answered yet"
            switch explanation.hold {
            case .limit:
                return
                    "\(place): it waits for others of its function to end, of which that runs no more at once (limit)"
            case .key: return "\(place): it waits for another call of its ordering key to end there"
            case .none, .worker: break
            }
            guard explanation.isStalled else { return place }
            let waiter =
                explanation.isStarted ? "its handler" : "it waits for a slot, and each is held by a handler that"
            return "\(place): \(waiter) waits for a call that waits for a slot; \(PhaseReport.remedy)"
        case .held:
            return "\(self.ahead) calls with the ordering key \"\(self.orderingKey ?? "")\" go first, one at a time"
        case .queued: break
        }
        if explanation.isHeldUp {
            return
                "\(self.client) has left too much of its answers unread: its calls wait until it has read half of what it may leave"
        }
        guard !explanation.workers.isEmpty else { return "no worker has offered itself: start one" }
        if explanation.state == .apart {
            return
                "it may have been running in \(explanation.deaths) deaths of workers, and waits for one that has nothing else"
        }
        let suitable = explanation.workers.filter { $0.obstacle?.isLasting != true }
        guard !suitable.isEmpty else {
            return "none of the \(explanation.workers.count) workers may run it: see what each lacks"
        }
        guard suitable.allSatisfy({ $0.obstacle != nil }) else {
            return self.ahead > 0
                ? self.othersFirst : "it is about to be given to a worker"
        }
        let open = suitable.filter { $0.obstacle != .away }
        if !open.isEmpty, open.allSatisfy({ $0.obstacle?.isStalled ?? false }) {
            return
                "each slot of the workers that may run it, \(suitable.count) of \(explanation.workers.count), is held by a "
                + "handler that waits for a call that waits for a slot; \(PhaseReport.remedy)"
        }
        let others = self.ahead > 0 ? ", and \(self.othersFirst)" : ""
        return
            "the workers that may run it, \(suitable.count) of \(explanation.workers.count), have no room now\(others)"
    }

    private var othersFirst: String {
        self.ahead == 1 ? "a call of its own line goes first" : "\(self.ahead) calls of its own line go first"
    }
}

extension BrokerMachine.Obstacle {
    /// Whether the obstacle lasts as long as the worker does.
    var isLasting: Bool {
        switch self {
        case .lacksFunction, .servesOtherQueues, .lacksLabel, .lacksResource, .draining: true
        case .away, .quiet, .refusing, .paused, .keptForOne, .emptied, .full, .stalled, .atLimit, .resourceInUse:
            false
        }
    }

    /// Whether the worker is stalled.
    var isStalled: Bool { if case .stalled = self { true } else { false } }
}

extension BrokerMachine.Obstacle: CustomStringConvertible {
    /// The obstacle in words.
    package var description: String {
        switch self {
        case .lacksFunction: "has no such function"
        case .servesOtherQueues(let queues):
            "serves other queues: \(queues.sorted().map { $0.isEmpty ? "the unnamed one" : $0 }.joined(separator: ", "))"
        case .lacksLabel(let name, let value, let has):
            has.map { "is \(name)=\($0), not \(name)=\(value)" } ?? "is not \(name)=\(value)"
        case .lacksResource(let name, let has): "has \(name)=\(has) in all"
        case .away: "can't be reached at the moment"
        case .draining: "shuts down"
        case .quiet: "wants no new calls for now"
        case .refusing: "refused a call, and has not said since that it is ready"
        case .paused: "sent calls back again and again, and gets none for up to a second"
        case .keptForOne: "has a call that may have killed workers, and gets no other for some seconds"
        case .emptied: "is kept for some seconds, to have nothing left, for a call that may have killed workers"
        case .full(let calls, let credit): "has \(calls) calls, of \(credit) that it may have"
        case .stalled(let calls):
            "has \(calls) calls, and each of its slots is held by a handler that waits for a call that waits for a slot"
        case .atLimit(let calls):
            "has \(calls) calls that wait for others of their functions to end, of which it runs no more at once (limit)"
        case .resourceInUse(let name, let used, let all): "has \(name) in use: \(used) of \(all)"
        }
    }
}

extension Function where Result == [BrokerCallStatus] {
    /// Explains why the calls with a correlation id are where they are, with one entry for each client that has such a
    /// call.
    public static var brokerWhy: Function<UInt64, [BrokerCallStatus]> { .init("drover.why", isIdempotent: true) }
}

extension Function where Result == [BrokerCallStatus] {
    /// The calls that have waited longest, then the oldest of those that workers have; at most the given number of
    /// each.
    public static var brokerCalls: Function<UInt64, [BrokerCallStatus]> { .init("drover.calls", isIdempotent: true) }
}

/// A call that an operator cancelled.
public struct BrokerCancelledCall: Hashable, Codable, Sendable {
    /// The correlation id, which is unique for each client.
    public var call: UInt64 = 0
    /// The name of the client that made it.
    public var client = ""
    /// The function that is called.
    public var function = ""
    /// The worker that had the call and was asked to stop it; nil if no worker had it, in which case the call is over.
    public var worker: String?

    /// Creates an empty description.
    public init() {}
}

extension Function where Result == [BrokerCancelledCall] {
    /// Cancels the call with a correlation id: the caller gets a `RemoteError` with `cancelled`.
    ///
    /// The second argument is the name or identity of the client whose call is meant; it may be nil as long as only one
    /// client has such a call. The result is empty if there is none. It takes the right `cancel`.
    public static var brokerCancel: Function<UInt64, String?, [BrokerCancelledCall]> {
        .init("drover.cancel", isIdempotent: true)
    }
}

/// What a worker can be told to do through its broker.
public enum WorkerOrder: String, Codable, Sendable, CaseIterable {
    /// Take no new calls, and finish those it has.
    case quiet
    /// Take calls again.
    case resume
    /// Finish what it has, within a grace, and leave.
    case stop
}

extension Function where Result == [String] {
    /// Gives workers an order; the arguments are a worker's name or identity, the order, and the grace in seconds for
    /// `stop`.
    ///
    /// Returns the identities of the workers that were given the order.
    public static var brokerOrder: Function<String, WorkerOrder, Double, [String]> { .init("drover.order") }
}
