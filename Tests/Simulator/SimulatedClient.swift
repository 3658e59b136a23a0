// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire

/// A call as the program that made it knows it.
final class CallRecord {
    enum End: Equatable { case answered, failed, expired, lost, cancelled, closed }

    let id: UInt64
    let token: UInt64
    let function: UInt32
    let isIdempotent: Bool
    let isPing: Bool
    let key: String?
    /// The earliest and the latest that was set.
    var earliest: Instant
    var latest: Instant
    /// By how much a broker may take it for later than it is.
    var slack: UInt64 = 0
    var deadline: Instant {
        didSet {
            self.earliest = min(self.earliest, self.deadline)
            self.latest = max(self.latest, self.deadline)
        }
    }
    var end: End?
    /// What its arguments and its result take on a line, beyond a small packet.
    var argumentBytes = 0
    var resultBytes = 0
    /// Events that its handlers sent, and that came.
    var emitted = 0
    var delivered = 0
    var madeAt: UInt64 = 0
    var endedAt: UInt64 = 0
    /// For a broker.
    var priority: UInt8 = 4
    var demands: Demands?
    /// What its arguments refer to.
    var callback: (client: PeerID, subscription: UInt32)?
    var functionName: String { "f\(self.function)" }

    init(id: UInt64, token: UInt64, function: UInt32, isIdempotent: Bool, isPing: Bool, key: String?, deadline: Instant)
    {
        self.id = id
        self.token = token
        self.function = function
        self.isIdempotent = isIdempotent
        self.isPing = isPing
        self.key = key
        (self.earliest, self.latest) = (deadline, deadline)
        self.deadline = deadline
    }
}

/// A client's machine and the thin shell around it: what the poller does, without sockets.
final class SimulatedClient {
    struct Link {
        var connection: Connection?
        /// Sent while there was no connection.
        var parked: [Packet] = []
        var defined: Set<UInt32> = []
        var departures = DepartureClock()
        /// Which of the socket's attempts to connect counts.
        var attempt = 0
        /// When the worker was seen to have closed the connection of a session, which is not back.
        var closedAt: UInt64?
    }

    let index: Int
    let life: Int
    unowned let cluster: Cluster
    let identity: PeerID
    var callbacks: ClientCallbacks
    private let epoch: UInt64
    var machine: ClientMachine
    private(set) var links: [Link]
    private var actions: [ClientAction] = []
    private var handles: [UInt32: CallRecord] = [:]
    private(set) var calls: [CallRecord] = []
    private(set) var open: [UInt64: CallRecord] = [:]
    private var wakeAt: UInt64 = .max
    private var isPerforming = false
    private(set) var hasLeft = false
    private var lastTurn: UInt64 = 0

    init(index: Int, life: Int, workerCount: Int, cluster: Cluster) {
        self.index = index
        self.life = life
        self.cluster = cluster
        self.identity = PeerID(high: UInt64(index), low: cluster.random.next())
        self.epoch = cluster.random.next()
        var configuration = ClientMachine.Configuration()
        configuration.session = Cluster.limits
        configuration.tombstoneCount = 1024
        configuration.aloneNanoseconds = Cluster.aloneNanoseconds
        self.machine = ClientMachine(endpointCount: workerCount, configuration: configuration)
        self.links = Array(repeating: Link(), count: workerCount)
        self.callbacks = ClientCallbacks(endpointCount: workerCount)
    }

    private var now: Instant { Instant(nanoseconds: self.cluster.now) }

    // MARK: The program

    func submit(
        function: UInt32,
        isIdempotent: Bool,
        isPing: Bool,
        key: String?,
        deadline: Instant,
        argumentBytes: Int = 0,
        resultBytes: Int = 0,
        callback: UInt32? = nil
    ) throws(Violation) {
        let id = UInt64(self.calls.count + 1)
        let record = CallRecord(
            id: id,
            token: self.cluster.nextToken(),
            function: function,
            isIdempotent: isIdempotent,
            isPing: isPing,
            key: key,
            deadline: deadline
        )
        record.argumentBytes = argumentBytes
        record.resultBytes = resultBytes
        record.madeAt = self.cluster.now
        record.callback = callback.map { (self.identity, $0) }
        self.calls.append(record)
        self.cluster.records[record.token] = record
        let call = Call(
            id: id,
            function: function,
            isIdempotent: isIdempotent,
            affinity: key.map { UInt64($0.utf8.first ?? 0) } ?? 0,
            isPing: isPing,
            deadline: deadline
        )
        guard let (slot, endpoint) = self.machine.submitted(call, at: self.now) else {
            try check(deadline <= self.now, "call \(id) was refused before its deadline")
            record.end = .expired
            return
        }
        try check(self.handles[slot] == nil, "call \(id) was given slot \(slot), which is taken")
        self.handles[slot] = record
        self.open[id] = record
        if let endpoint { self.transmit(record, to: endpoint, isResent: false) }
        try self.turn()
    }

    func cancel(_ record: CallRecord) throws(Violation) {
        guard record.end == nil else { return }
        let slot = self.machine.abandoned(record.id, as: .requested, at: self.now, actions: &self.actions)
        guard let slot, self.handles[slot] === record else {
            throw Violation("call \(record.id) was cancelled and is not in the machine")
        }
        try self.end(slot, record.id, as: .cancelled)
        try self.turn()
    }

    func move(_ record: CallRecord, to deadline: Instant) throws(Violation) {
        guard record.end == nil else { return }
        record.deadline = deadline
        self.machine.deadlineMoved(record.id, to: deadline, actions: &self.actions)
        try self.turn()
    }

    func leave() throws(Violation) {
        self.hasLeft = true
        for (slot, id) in self.machine.closed() { try self.end(slot, id, as: .closed) }
        try check(self.machine.callCount == 0 && self.machine.timerCount == 0, "a closed client has calls or timers")
        for endpoint in self.links.indices where self.machine.endpoints[endpoint].isOpen {
            self.send(.goodbye(.leaving), to: endpoint)
        }
    }

    /// The process is gone: nobody asks for its calls any more.
    func die() {
        self.hasLeft = true
        for record in self.open.values { record.end = .closed }
        self.open = [:]
        for link in self.links { self.cluster.close(link.connection, byClient: true) }
    }

    /// Ends a callback, or wants no events of one for a while.
    func doWithCallbacks() throws(Violation) {
        guard let subscription = self.callbacks.open.randomElement(using: &self.cluster.random) else { return }
        if self.cluster.random.oneIn(4) {
            self.callbacks.end(subscription)
            for endpoint in self.links.indices { self.send(.ended(subscription), to: endpoint) }
        } else {
            self.pause(subscription, self.cluster.random.oneIn(2))
        }
        try self.turn()
    }

    private func pause(_ subscription: UInt32, _ isPaused: Bool) {
        self.callbacks.pause(subscription, isPaused)
        for endpoint in self.links.indices { self.send(.flow(subscription, isPaused: isPaused), to: endpoint) }
    }

    /// Wants all events again.
    func resumeAll() {
        for (subscription, isPaused) in self.callbacks.flows where isPaused { self.pause(subscription, false) }
    }

    // MARK: The network

    func start() {
        for endpoint in self.links.indices { self.connect(endpoint, after: 1_000_000) }
    }

    private func connect(_ endpoint: Int, after delay: UInt64) {
        self.links[endpoint].attempt += 1
        let attempt = self.links[endpoint].attempt
        let event = Cluster.Event.connect(client: self.index, life: self.life, worker: endpoint, attempt: attempt)
        self.cluster.add(event, after: delay)
    }

    func connectNow(_ endpoint: Int, attempt: Int) throws(Violation) {
        guard self.links[endpoint].attempt == attempt, self.links[endpoint].connection == nil else { return }
        guard let connection = self.cluster.makeConnection(client: self.index, worker: endpoint) else {
            return self.connect(endpoint, after: 100_000_000)
        }
        self.links[endpoint].connection = connection
        self.links[endpoint].closedAt = nil
        let parked = self.links[endpoint].parked
        self.links[endpoint].parked = []
        for packet in parked { self.send(packet, to: endpoint) }
        self.machine.connected(endpoint, at: self.now, actions: &self.actions)
        try self.turn()
    }

    /// The socket has noticed that its connection is gone.
    func disconnected(_ connection: Connection) throws(Violation) {
        let endpoint = connection.worker
        guard self.links[endpoint].connection === connection else { return }
        self.links[endpoint].connection = nil
        self.links[endpoint].parked = []
        self.links[endpoint].departures.forget()
        if self.machine.endpoints[endpoint].epoch != nil { self.links[endpoint].closedAt = self.cluster.now }
        self.machine.disconnected(endpoint, at: self.now, actions: &self.actions)
        self.connect(endpoint, after: 100_000_000)
        try self.turn()
    }

    private func send(_ packet: Packet, to endpoint: Int) {
        self.machine.sent(to: endpoint, at: self.now)
        if let connection = self.links[endpoint].connection {
            self.cluster.sendToWorker(packet, by: connection)
        } else {
            self.links[endpoint].parked.append(packet)
        }
    }

    func received(_ packet: Packet, by connection: Connection) throws(Violation) {
        let endpoint = connection.worker
        guard self.links[endpoint].connection === connection else { return }
        self.machine.heard(from: endpoint, at: self.now)
        switch packet {
        case .welcome(let epoch, let session, let window, let slots, let isResumed, _):
            self.links[endpoint].defined = []
            self.machine.welcomed(
                by: endpoint,
                epoch: epoch,
                session: session,
                window: window,
                slots: slots,
                isResumed: isResumed,
                at: self.now,
                actions: &self.actions
            )
        case .reset: self.machine.resetReceived(from: endpoint, at: self.now, actions: &self.actions)
        case .goodbye(let reason):
            self.machine.goodbyeReceived(from: endpoint, reason: reason, at: self.now, actions: &self.actions)
        case .beat(let epoch, _, _):
            self.machine.beatReceived(from: endpoint, epoch: epoch, at: self.now, actions: &self.actions)
        case .ping(let nonce): self.send(.pong(nonce), to: endpoint)
        case .pong(let id): try self.answered(id, token: nil, isError: false, from: endpoint)
        case .answer(let id, let token, let isError):
            try self.answered(id, token: token, isError: isError, from: endpoint)
        case .cancelled(let id, let stage):
            self.machine.cancellationConfirmed(
                id,
                stage: stage,
                from: endpoint,
                at: self.now,
                actions: &self.actions
            )
        case .phase(let id, let phase, let hold):
            self.machine.phaseReported(id, phase: phase, hold: hold, from: endpoint, actions: &self.actions)
        case .event(let subscription, let sequence, let source):
            try self.checkAddressee(source, subscription)
            self.cluster.outcome.deliveries += 1
            self.cluster.records[source.call]?.delivered += 1
            if try !self.callbacks.received(source, subscription, sequence: sequence, from: endpoint) {
                self.send(.ended(subscription), to: endpoint)
            }
        case .invoke(let subscription, let id, let source):
            try self.checkAddressee(source, subscription)
            self.cluster.outcome.invocations += 1
            if try self.callbacks.received(source, subscription, sequence: nil, from: endpoint) {
                self.send(.invocationAnswer(id: id, token: source.token &+ source.serial), to: endpoint)
            } else {
                self.send(.ended(subscription), to: endpoint)
                self.send(.invocationFailed(id: id), to: endpoint)
            }
        case .emitted(let subscription, let next): self.callbacks.passed(subscription, upTo: next, from: endpoint)
        case .ended(let subscription):
            self.callbacks.end(subscription)
            self.send(.ended(subscription), to: endpoint)
        case .part, .partTaken, .partEnded: break
        case .hello, .define, .request, .cancel, .deadline, .defineAs, .offer, .ready, .recall, .bind,
            .invocationAnswer,
            .invocationFailed, .flow:
            throw Violation("a client received \(packet)")
        }
        try self.turn()
    }

    private func checkAddressee(_ source: EventSource, _ subscription: UInt32) throws(Violation) {
        try check(
            source.client == self.identity && source.subscription == subscription,
            "callback \(subscription) of client \(self.index) was given an event of another"
        )
    }

    private func answered(_ id: UInt64, token: UInt64?, isError: Bool, from endpoint: Int) throws(Violation) {
        switch self.machine.replied(id, from: endpoint, at: self.now) {
        case .deliver(let slot):
            if let token, let record = self.handles[slot] {
                try check(record.token == token, "call \(id) was given the answer of another call")
                try check(
                    !self.cluster.isCalm || record.delivered == record.emitted,
                    "call \(id) was answered before its events came"
                )
            }
            try self.end(slot, id, as: isError ? .failed : .answered)
        case .expire(let slot, _, _): try self.end(slot, id, as: .expired)
        case .late, .duplicate: break
        case .unknown: throw Violation("the answer to \(id) is not known to client \(self.index)")
        }
    }

    private func end(_ slot: UInt32, _ id: UInt64, as end: CallRecord.End) throws(Violation) {
        guard let record = self.handles.removeValue(forKey: slot) else {
            throw Violation("slot \(slot) ended as \(end), and nothing is in it")
        }
        try check(record.id == id, "slot \(slot) ended for call \(id), but holds call \(record.id)")
        try check(record.end == nil, "call \(id) ended as \(end) after it had ended")
        if end == .expired { try check(record.deadline <= self.now, "call \(id) expired before its deadline") }
        record.end = end
        record.endedAt = self.cluster.now
        self.open[id] = nil
    }

    // MARK: A turn

    /// Carries out what the machine asks for, lets it tick and dispatch; sees to it that it wakes in time.
    func turn() throws(Violation) {
        guard !self.hasLeft else { return }
        try self.performActions()
        if self.machine.nextDeadline(after: self.now) <= self.now {
            self.machine.ticked(at: self.now, actions: &self.actions)
            try self.performActions()
        }
        self.machine.dispatch(actions: &self.actions)
        try self.performActions()
        try self.checkClosed()
        try self.checkInvariants()
        let next = max(self.machine.nextDeadline(after: self.now).nanoseconds, self.cluster.now)
        guard next != .max, next < self.wakeAt || self.wakeAt <= self.cluster.now else { return }
        self.wakeAt = next + UInt64(self.cluster.random.below(1_000_000))
        self.cluster.add(.wakeClient(client: self.index, life: self.life), after: self.wakeAt - self.cluster.now)
    }

    private func performActions() throws(Violation) {
        var index = 0
        while index < self.actions.count {
            try self.perform(self.actions[index])
            index += 1
        }
        self.actions.removeAll(keepingCapacity: true)
    }

    private func perform(_ action: ClientAction) throws(Violation) {
        switch action {
        case .transmit(let slot, let endpoint, let isResent, let isRenewed):
            guard let record = self.handles[slot] else {
                throw Violation("slot \(slot) was sent, and nothing is in it")
            }
            let known = self.machine.endpoints[endpoint]
            // To a worker that is the only one some may go ahead.
            // Those with ordering keys are bound to the worker.
            let isBounded =
                isResent || record.isPing || record.key != nil || self.links.count == 1
                || known.unkeyedCount - known.heldCount <= known.credit
            try check(isBounded, "worker \(endpoint) has \(known.outstanding) requests, its credit is \(known.credit)")
            self.transmit(record, to: endpoint, isResent: isResent, isRenewed: isRenewed)
        case .sendHello(let endpoint):
            let epoch = self.epoch &+ self.machine.endpoints[endpoint].losses
            let claimed = self.machine.endpoints[endpoint].claimedSession
            let stamp = self.links[endpoint].departures.hello(at: self.now)
            self.send(.hello(client: self.identity, epoch: epoch, claimed: claimed, stamp: stamp), to: endpoint)
        case .sendBeat(let endpoint):
            let epoch = self.epoch &+ self.machine.endpoints[endpoint].losses
            self.send(Packet(self.links[endpoint].departures.beat(epoch: epoch, at: self.now)), to: endpoint)
        case .sendCancel(let endpoint, let id, .recalled): self.send(.recall(id), to: endpoint)
        case .sendCancel(let endpoint, let id, _): self.send(.cancel(id), to: endpoint)
        case .restamp(let endpoint): self.links[endpoint].departures.wasMistaken()
        case .sendDeadline(let endpoint, let id, let deadline):
            let time = self.timeLeft(until: deadline, for: endpoint)
            self.send(.deadline(id, time: time), to: endpoint)
        case .finish(let slot, let id, let ending):
            switch ending {
            case .expired: try self.end(slot, id, as: .expired)
            case .lost:
                self.cluster.outcome.losses += 1
                try self.end(slot, id, as: .lost)
            case .poison, .declined: try self.end(slot, id, as: .failed)
            }
        case .rebuild(let endpoint):
            self.cluster.close(self.links[endpoint].connection, byClient: true)
            let attempt = self.links[endpoint].attempt
            self.links[endpoint] = Link(attempt: attempt)
            self.connect(endpoint, after: 1_000_000)
        case .opened(let endpoint, let isResumed):
            if isResumed {
                self.cluster.outcome.resumptions += 1
            } else {
                self.cluster.outcome.missing += self.callbacks.begin(at: endpoint)
            }
            // What was said of pauses may have been lost; also in a session whose first welcome was.
            for (subscription, isPaused) in self.callbacks.flows {
                self.send(.flow(subscription, isPaused: isPaused), to: endpoint)
            }
        case .show, .mayHaveRun, .lost: break
        }
    }

    private func transmit(_ record: CallRecord, to endpoint: Int, isResent: Bool, isRenewed: Bool = false) {
        if record.isPing { return self.send(.ping(record.id), to: endpoint) }
        if self.links[endpoint].defined.insert(record.function).inserted {
            self.send(.define(record.function), to: endpoint)
        }
        var flags = Header.Flags()
        if record.isIdempotent { flags.insert(.idempotent) }
        if isResent {
            flags.insert(.resent)
            self.cluster.outcome.resends += 1
        }
        if isRenewed { flags.insert(.renewed) }
        let time = self.timeLeft(until: record.deadline, for: endpoint)
        let header = Header(.request, flags: flags, id: record.id, time: time, number: record.function)
        self.send(.request(header, key: record.key, token: record.token), to: endpoint)
    }

    /// As a header has it, behind the stamp that it counts from.
    private func timeLeft(until deadline: Instant, for endpoint: Int) -> UInt32 {
        let epoch = self.epoch &+ self.machine.endpoints[endpoint].losses
        let (time, beat) = self.links[endpoint].departures.time(until: deadline, epoch: epoch, at: self.now)
        if let beat { self.send(Packet(beat), to: endpoint) }
        return time
    }

    /// A worker that closed its connection, and isn't back in time, is lost.
    private func checkClosed() throws(Violation) {
        let pause = self.cluster.now - max(self.lastTurn, 1)
        self.lastTurn = self.cluster.now
        for endpoint in self.links.indices {
            guard let time = self.links[endpoint].closedAt else { continue }
            guard self.machine.endpoints[endpoint].epoch != nil else {
                self.links[endpoint].closedAt = nil
                continue
            }
            // What the client missed doesn't count.
            let start = pause > Cluster.limits.returnNanoseconds / 4 ? time + pause : time
            self.links[endpoint].closedAt = start
            try check(
                self.cluster.now < start + 2 * Cluster.limits.returnNanoseconds,
                "client \(self.index) keeps calls at worker \(endpoint), which closed the connection"
            )
        }
    }

    private func checkInvariants() throws(Violation) {
        try check(self.machine.callCount == self.open.count, "the machine has other calls than the program")
        for (index, endpoint) in self.machine.endpoints.enumerated() {
            try check(
                endpoint.outstanding <= endpoint.window,
                "client \(self.index) has \(endpoint.outstanding) requests at \(index), which takes \(endpoint.window)"
            )
            try check(endpoint.withdrawn.count <= endpoint.outstanding, "withdrawn requests are not counted")
        }
        let isFree = self.machine.endpoints.contains { $0.isFree }
        let isIdle = self.machine.endpoints.contains { $0.mayTakeSuspect(at: self.now) }
        for record in self.open.values {
            if isFree || isIdle, !record.isPing, record.key == nil, let slot = self.machine.slot(of: record.id) {
                let call = self.machine.call(in: slot)
                let mayBeSent = isFree && self.machine.endpoints.contains { $0.isFree && !$0.isClosed(call.function) }
                let mayWait = call.endpoint >= 0 || !(call.attempts > 1 ? isIdle : mayBeSent)
                try check(mayWait, "call \(record.id) of client \(self.index) waits though a worker has room")
            }
            try check(
                self.now.nanoseconds(since: record.deadline) < 4_000_000,
                "call \(record.id) of client \(self.index) is \(self.now.nanoseconds(since: record.deadline)) ns overdue"
            )
        }
    }

    /// Nothing is open, and nothing is kept.
    var isIdle: Bool {
        self.open.isEmpty && self.machine.timerCount == 0
            && self.machine.endpoints.allSatisfy { $0.outstanding == 0 && $0.heldCount == 0 && $0.isOpen }
    }
}
