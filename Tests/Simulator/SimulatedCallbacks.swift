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
        /// By the sources' tokens: what came, and what may come next.
        var seen: [UInt64: UInt64] = [:]
        var next: [UInt64: UInt64] = [:]
        var missing: UInt64 = 0
        /// What is missing of what sources sent before the last that came of them.
        var skipped: UInt64 { self.next.values.reduce(0, +) - self.count }

        mutating func passed(upTo number: UInt64) { self.missing += self.tracker.passed(upTo: number) }
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
        var isOver = false
        if case .duplicate = verdict { isOver = true }
        if case .late = verdict { isOver = true }
        try check(!isOver, "an event of callback \(subscription) has a number that is over")
        arrivals.count += 1
        let seen = arrivals.seen[source.token, default: 0]
        try check(
            source.serial >= arrivals.next[source.token, default: 0],
            "an event of callback \(subscription) came twice, or late"
        )
        arrivals.seen[source.token] = seen + 1
        arrivals.next[source.token] = source.serial + 1
        if case .gap(let count) = verdict { arrivals.missing += count }
        // What is missing must show in the numbers, and in front of an invocation, which has none, it was told.
        let skipped = arrivals.skipped
        try check(skipped <= arrivals.missing, "\(skipped) events are missing, the numbers say \(arrivals.missing)")
        self.states[subscription]?.arrivals[endpoint] = arrivals
        return true
    }
}

extension ClientCallbacks {
    /// A PING told the number of the next event.
    mutating func passed(_ subscription: UInt32, upTo number: UInt64, from endpoint: Int) {
        self.states[subscription]?.arrivals[endpoint].passed(upTo: number)
    }

    /// What doesn't agree with what was sent to a callback by way of an endpoint; nil if all that came and is missing was sent,
    /// and all that was sent came or is missing.
    ///
    /// Of what those sent who are gone since, some may be in no count.
    func disagreement(
        _ subscription: UInt32,
        from endpoint: Int,
        with sources: [SimulatedSubscriber],
        living: Set<UInt64>
    ) -> String? {
        guard let state = self.states[subscription], state.isOpen else { return nil }
        let arrivals = state.arrivals[endpoint]
        let counted = arrivals.count + arrivals.missing
        let least = sources.reduce(0) {
            $0 + (living.contains($1.token) ? $1.sequence : arrivals.next[$1.token, default: 0])
        }
        let most = sources.reduce(0) { $0 + $1.sequence }
        if (least...most).contains(counted) { return nil }
        let came = "\(arrivals.count) came, \(arrivals.missing) are missing"
        return "of \(least) to \(most) events of callback \(subscription) \(came)"
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
        /// What handlers gave up.
        var givenUp: [UInt32: SimulatedSubscriber] = [:]
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

    /// What is or was bound, in the order of the numbers, how many events there were, and that it was given up.
    func statements(to peer: PeerID) -> [Packet] {
        guard let side = self.sides[peer] else { return [] }
        return side.givenUp.merging(side.numbers) { $1 }.sorted { $0.key < $1.key }
            .flatMap { number, subscriber in
                var packets = [Packet.bind(number, to: subscriber.subscription, of: subscriber.client)]
                if subscriber.sequence > 0 { packets.append(.emitted(number, next: subscriber.sequence)) }
                if side.givenUp[number] != nil { packets.append(.ended(number)) }
                return packets
            }
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

    mutating func end(_ number: UInt32, via peer: PeerID, isOwn: Bool = false) {
        if !isOwn { self.sides[peer]?.givenUp[number] = nil }
        guard let subscriber = self.sides[peer]?.numbers.removeValue(forKey: number) else { return }
        if isOwn { self.sides[peer]?.givenUp[number] = subscriber }
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
