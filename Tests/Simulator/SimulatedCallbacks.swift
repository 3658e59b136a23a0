// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire

/// A client's callbacks, and what came for them.
struct ClientCallbacks {
    private struct State {
        var isOpen = true
        /// What was said of pauses last.
        var isPaused: Bool?
        var arrivals: [Arrivals]
    }

    /// What came from one endpoint in one session.
    private struct Arrivals {
        var tracker = SequenceTracker()
        var count: UInt64 = 0
        /// By the sources' tokens: what came, what may come next, and what was missing when the last event came.
        var seen: [UInt64: UInt64] = [:]
        var next: [UInt64: UInt64] = [:]
        var skipped: [UInt64: UInt64] = [:]
        var missing: UInt64 = 0
    }

    private let endpointCount: Int
    private var states: [UInt32: State] = [:]

    init(endpointCount: Int) {
        self.endpointCount = endpointCount
    }

    var open: [UInt32] { self.states.filter { $0.value.isOpen }.keys.sorted() }

    var flows: [(UInt32, Bool)] {
        self.open.compactMap { subscription in self.states[subscription]?.isPaused.map { (subscription, $0) } }
    }

    /// Whether it is there and not paused.
    func isWanted(_ subscription: UInt32) -> Bool {
        self.states[subscription].map { $0.isOpen && $0.isPaused != true } ?? false
    }

    /// A callback to pass to a call.
    mutating func some(isNew: Bool) -> UInt32 {
        if !isNew, let last = self.open.last { return last }
        let subscription = UInt32(self.states.count + 1)
        self.states[subscription] = State(arrivals: Array(repeating: Arrivals(), count: self.endpointCount))
        return subscription
    }

    mutating func end(_ subscription: UInt32) { self.states[subscription]?.isOpen = false }

    mutating func pause(_ subscription: UInt32, _ isPaused: Bool) { self.states[subscription]?.isPaused = isPaused }

    /// Another session begins at an endpoint: its numbers begin again.
    ///
    /// - Returns: How many events were missing in the former.
    mutating func begin(at endpoint: Int) -> Int {
        var missing: UInt64 = 0
        for subscription in self.states.keys {
            missing += self.states[subscription]?.arrivals[endpoint].missing ?? 0
            self.states[subscription]?.arrivals[endpoint] = Arrivals()
        }
        return Int(missing)
    }

    /// An event came, or an invocation, which carries no number.
    ///
    /// - Returns: Whether there is such a callback.
    mutating func received(
        _ source: EventSource,
        _ subscription: UInt32,
        sequence: UInt64?,
        from endpoint: Int
    ) throws(Violation) -> Bool {
        guard var arrivals = self.states[subscription]?.arrivals[endpoint] else {
            throw Violation("an event for callback \(subscription), which the client never had")
        }
        guard self.states[subscription]?.isOpen == true else { return false }
        let verdict = arrivals.tracker.received(sequence)
        try check(verdict != .duplicate, "an event of callback \(subscription) has a number that is over")
        arrivals.count += 1
        let seen = arrivals.seen[source.token, default: 0]
        try check(
            source.serial >= arrivals.next[source.token, default: 0],
            "an event of callback \(subscription) came twice, or late"
        )
        arrivals.seen[source.token] = seen + 1
        arrivals.next[source.token] = source.serial + 1
        if let sequence {
            // What is missing must show in the numbers.
            arrivals.skipped[source.token] = source.serial - seen
            arrivals.missing = sequence + 1 - min(sequence + 1, arrivals.count)
            let skipped = arrivals.skipped.values.reduce(0, +)
            try check(skipped <= arrivals.missing, "\(skipped) events are missing, the numbers say \(arrivals.missing)")
        }
        self.states[subscription]?.arrivals[endpoint] = arrivals
        return true
    }
}

/// One client's callback as a worker knows it, by way of one broker.
final class SimulatedSubscriber {
    let client: PeerID
    let subscription: UInt32
    let token: UInt64
    var sequence: UInt64 = 0
    var isPaused = false
    var isEnded = false

    init(client: PeerID, subscription: UInt32, token: UInt64) {
        self.client = client
        self.subscription = subscription
        self.token = token
    }

    func next() -> EventSource {
        defer { self.sequence += 1 }
        return EventSource(
            token: self.token,
            serial: self.sequence,
            client: self.client,
            subscription: self.subscription
        )
    }
}

/// A worker's callbacks, by the brokers that their clients are behind.
struct WorkerCallbacks {
    private struct Side {
        var numbers: [UInt32: SimulatedSubscriber] = [:]
        var next: UInt32 = 0
    }

    private var sides: [PeerID: Side] = [:]
    private var invocations: [UInt64: (peer: PeerID, subscriber: SimulatedSubscriber, answer: UInt64)] = [:]
    private var lastInvocation: UInt64 = 0

    var bound: [SimulatedSubscriber] { self.sides.values.flatMap { $0.numbers.values } }
    var count: Int { self.bound.count + self.invocations.count }

    /// A session with a broker begins.
    mutating func begin(with peer: PeerID) { self.sides[peer] = Side() }

    /// A session with a broker is over.
    mutating func forget(_ peer: PeerID) {
        for (_, subscriber) in self.sides[peer]?.numbers ?? [:] { subscriber.isEnded = true }
        self.sides[peer] = nil
        self.invocations = self.invocations.filter { $0.value.peer != peer }
    }

    /// What is bound, in the order of the numbers.
    func bindings(with peer: PeerID) -> [Packet] {
        (self.sides[peer]?.numbers ?? [:]).sorted { $0.key < $1.key }
            .map { .bind($0.key, to: $0.value.subscription, of: $0.value.client) }
    }

    /// The callback with its number, which is bound now if it wasn't.
    mutating func subscriber(
        _ subscription: UInt32,
        of client: PeerID,
        via peer: PeerID,
        token: UInt64
    ) -> (number: UInt32, subscriber: SimulatedSubscriber, isNew: Bool)? {
        guard let side = self.sides[peer] else { return nil }
        if let known = side.numbers.first(where: { $0.value.client == client && $0.value.subscription == subscription })
        {
            return (known.key, known.value, false)
        }
        let made = SimulatedSubscriber(client: client, subscription: subscription, token: token)
        self.sides[peer]?.numbers[side.next] = made
        self.sides[peer]?.next += 1
        return (side.next, made, true)
    }

    mutating func end(_ number: UInt32, via peer: PeerID) {
        guard let subscriber = self.sides[peer]?.numbers.removeValue(forKey: number) else { return }
        subscriber.isEnded = true
        self.invocations = self.invocations.filter { $0.value.subscriber !== subscriber }
    }

    func pause(_ number: UInt32, via peer: PeerID, _ isPaused: Bool) {
        self.sides[peer]?.numbers[number]?.isPaused = isPaused
    }

    mutating func invoke(_ subscriber: SimulatedSubscriber, via peer: PeerID) -> (id: UInt64, source: EventSource) {
        self.lastInvocation += 1
        let source = subscriber.next()
        self.invocations[self.lastInvocation] = (peer, subscriber, source.token &+ source.serial)
        return (self.lastInvocation, source)
    }

    func isPending(_ id: UInt64) -> Bool { self.invocations[id] != nil }

    /// An answer came, or nil: nobody is there to give one.
    mutating func answered(_ id: UInt64, token: UInt64?, by peer: PeerID) throws(Violation) {
        guard let invocation = self.invocations[id], invocation.peer == peer else { return }
        if let token { try check(token == invocation.answer, "invocation \(id) was given the answer of another") }
        self.invocations[id] = nil
    }

    mutating func giveUp(_ id: UInt64) { self.invocations[id] = nil }
}
