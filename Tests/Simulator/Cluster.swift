// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire

/// Clients and workers on a network that loses, delays, blocks and breaks, in one thread and in virtual time.
///
/// Everything follows from the seed. The machines are the real ones; what is written here is the shell around them and the
/// faults. Invariants are checked in every turn of every node and at the end: see ``run()``.
package final class Cluster {
    /// What a history contained, to see that it was worth running.
    package struct Outcome: Sendable {
        package var calls = 0
        package var answered = 0
        package var losses = 0
        package var resumptions = 0
        package var resends = 0
        package var runs = 0
        package var events = 0
        package var crashes = 0
        /// Events and invocations of callbacks that came, and events that were found missing.
        package var deliveries = 0
        package var missing = 0
        package var invocations = 0
        /// Large packets that came in parts, and events that handlers sent.
        package var transfers = 0
        package var emitted = 0

        package init() {}

        package static func += (sum: inout Self, other: Self) {
            sum.calls += other.calls
            sum.answered += other.answered
            sum.losses += other.losses
            sum.resumptions += other.resumptions
            sum.resends += other.resends
            sum.runs += other.runs
            sum.events += other.events
            sum.crashes += other.crashes
            sum.deliveries += other.deliveries
            sum.missing += other.missing
            sum.invocations += other.invocations
            sum.transfers += other.transfers
            sum.emitted += other.emitted
        }
    }

    enum Event {
        case toWorker(Packet, Connection)
        case toClient(Packet, Connection)
        case connect(client: Int, life: Int, worker: Int, attempt: Int)
        case disconnected(Connection, life: Int)
        case wakeClient(client: Int, life: Int)
        case wakeWorker(worker: Int, life: Int)
        case finish(worker: Int, life: Int, job: SimulatedJob)
        case act(client: Int)
        case fault
        case goOnClient(Int)
        case goOnWorker(Int)
        case startWorker(Int)
        case endWorker(Int, life: Int)
        case dial(worker: Int, life: Int, broker: Int, attempt: Int)
        case offer(worker: Int, life: Int, broker: Int)
        case workerDisconnected(Connection, life: Int)
        case wakeBroker(broker: Int, life: Int)
        case goOnBroker(Int)
        case startBroker(Int)
        case brokerSawClosing(Connection, life: Int)
    }

    static let limits = {
        var limits = PeerSession.Limits(beatNanoseconds: 100_000_000, silenceNanoseconds: 300_000_000)
        limits.returnNanoseconds = 150_000_000
        return limits
    }()
    /// Some handlers run for longer.
    static let aloneNanoseconds: UInt64 = 60_000_000
    private static let millisecond: UInt64 = 1_000_000
    private static let start: UInt64 = 10_000_000_000
    /// How long calls are made and faults happen.
    private static let busyTime: UInt64 = 1_200_000_000

    var random: SeededRandom
    private(set) var now = Cluster.start
    private var events = EventQueue<Event>()
    private var clients: [SimulatedClient] = []
    private var workers: [SimulatedWorker] = []
    private var paths: [[Path]] = []
    private var brokers: [SimulatedBroker] = []
    /// By broker and worker.
    private var brokerPaths: [[Path]] = []
    /// All callbacks that workers knew, with the brokers that they were bound at.
    var subscribers: [(broker: PeerID, SimulatedSubscriber)] = []
    private var stalledBrokers: [Int: [Event]] = [:]
    private var stalledClients: [Int: [Event]] = [:]
    private var stalledWorkers: [Int: [Event]] = [:]
    private var lastRoute: UInt64 = 0
    private var lastToken: UInt64 = 0
    private var runs: [UInt64: Int] = [:]
    /// By the ROUTERs' routing ids.
    var connections: [UInt64: Connection] = [:]
    var records: [UInt64: CallRecord] = [:]
    var outcome = Outcome()

    /// Whether requests of one key start in the order they were made: with several workers, or if calls are moved, they
    /// may take different ways.
    let keepsOrder: Bool
    private let movesDeadlines: Bool
    /// Whether a broker stands between the clients and the workers, which dial it.
    let isBrokered: Bool
    /// Whether nothing is broken or cancelled: what is slow must come nevertheless, and once.
    let isCalm: Bool
    /// Whether lines are slow, and some of what is said is large.
    let isSlow: Bool
    /// For what is slow and large: the other histories are as they would be without.
    private var sizes: SeededRandom

    package init(random: SeededRandom, isBrokered: Bool = false, isCalm: Bool = false) {
        self.random = random
        self.isBrokered = isBrokered
        self.isCalm = isCalm
        var sizes = random
        sizes = sizes.split()
        let isSlow = sizes.oneIn(8)
        self.isSlow = isCalm || isSlow
        self.sizes = sizes
        let clientCount = isCalm ? 1 : 1 + self.random.below(isBrokered ? 4 : 2)
        let workerCount = self.random.oneIn(6) ? 3 : 1 + self.random.below(isBrokered ? 4 : 2)
        self.movesDeadlines = self.random.oneIn(2)
        self.keepsOrder = workerCount == 1 && !self.movesDeadlines && !isBrokered
        let brokerCount = !isBrokered ? 0 : self.random.oneIn(3) ? 2 : 1
        let endpointCount = isBrokered ? brokerCount : workerCount
        for client in 0..<clientCount {
            self.clients.append(SimulatedClient(index: client, life: 0, workerCount: endpointCount, cluster: self))
            self.paths.append((0..<endpointCount).map { _ in Path() })
            for worker in 0..<endpointCount where self.random.oneIn(3) {
                // Slower than the first hello's patience at times.
                self.paths[client][worker].latency = UInt64(self.random.below(120)) * Self.millisecond + 1
            }
        }
        for worker in 0..<workerCount {
            self.workers.append(SimulatedWorker(index: worker, life: 0, brokerCount: brokerCount, cluster: self))
        }
        for broker in 0..<brokerCount {
            self.brokers.append(SimulatedBroker(index: broker, life: 0, cluster: self))
            self.brokerPaths.append((0..<workerCount).map { _ in Path() })
            for worker in 0..<workerCount where self.random.oneIn(3) {
                self.brokerPaths[broker][worker].latency = UInt64(self.random.below(120)) * Self.millisecond + 1
            }
        }
        if self.isSlow { self.slowDown() }
    }

    /// Makes lines slow: 20 Mbit/s, most of them.
    private func slowDown() {
        func path() -> Path {
            var path = Path()
            path.nanosecondsPerByte = self.sizes.oneIn(4) ? 0 : 400
            return path
        }
        for client in self.paths.indices {
            for worker in self.paths[client].indices { self.paths[client][worker] = path() }
        }
        for broker in self.brokerPaths.indices {
            for worker in self.brokerPaths[broker].indices { self.brokerPaths[broker][worker] = path() }
        }
        if self.isCalm, let first = self.paths.first, first.allSatisfy({ $0.nanosecondsPerByte == 0 }) {
            self.paths[0][0].nanosecondsPerByte = 400
        }
    }

    /// Lives through a history.
    ///
    /// - Throws: The first invariant that does not hold.
    package func run() throws(Violation) -> Outcome {
        for client in self.clients {
            client.start()
            self.add(.act(client: client.index), after: UInt64(self.random.below(50)) * Self.millisecond)
        }
        for worker in self.workers { worker.dialAll() }
        if !self.isCalm { self.add(.fault, after: UInt64(self.random.below(200)) * Self.millisecond) }
        try self.proceed { self.now >= Self.start + Self.busyTime }
        try self.heal()
        let healedAt = self.now
        // What was said last has arrived by then.
        let settledAt = healedAt + 500 * Self.millisecond
        try self.proceed {
            self.now > settledAt && self.isIdle && self.disagreement == nil
                || self.now > healedAt + 30_000 * Self.millisecond
        }
        try self.checkEnd()
        if self.isCalm { try self.checkCalm() }
        for client in self.clients { try client.leave() }
        let leftAt = self.now
        try self.proceed { self.now > leftAt + 1000 * Self.millisecond }
        for broker in self.brokers {
            try check(broker.machine.clientCount == 0, "broker \(broker.index) keeps clients that left")
            try check(
                broker.machine.invocationCount == 0,
                "broker \(broker.index) keeps invocations of clients that left"
            )
        }
        for worker in self.workers {
            try check(worker.callbacks.count == 0, "worker \(worker.index) keeps callbacks of clients that left")
        }
        if self.isBrokered {
            for broker in self.brokers { broker.leave() }
            let leftAt = self.now
            try self.proceed { self.now > leftAt + 1000 * Self.millisecond }
        }
        for worker in self.workers {
            try check(worker.machine.sessionCount == 0, "worker \(worker.index) keeps sessions nobody has")
        }
        return self.outcome
    }

    private func proceed(until isOver: () -> Bool) throws(Violation) {
        while !isOver() {
            guard let (time, event) = self.events.next() else { return }
            self.now = max(self.now, time)
            self.outcome.events += 1
            try check(self.outcome.events < 200_000, "the nodes are busy without end")
            try self.happen(event)
        }
    }

    private var isIdle: Bool {
        self.clients.allSatisfy { $0.isIdle } && self.workers.allSatisfy { $0.isIdle }
            && self.brokers.allSatisfy { self.isIdle($0) }
    }

    /// It has nothing to do, and all workers.
    private func isIdle(_ broker: SimulatedBroker) -> Bool {
        broker.isUp && broker.isIdle && broker.machine.workerCount == self.workers.count
            && broker.machine.workers.allSatisfy { !$0.isLive || $0.isOpen }
    }

    /// What was sent to callbacks, came, or is missing agrees, or this tells where it doesn't.
    private var disagreement: String? {
        let living = Set(self.workers.flatMap { $0.callbacks.bound.map { $0.token } })
        for (endpoint, broker) in self.brokers.enumerated() {
            let bound = self.subscribers.filter { $0.broker == broker.identity }.map { $0.1 }
            for client in self.clients {
                let own = bound.filter { $0.client == client.identity }
                for (subscription, sources) in Dictionary(grouping: own, by: { $0.subscription }) {
                    let found = client.callbacks.disagreement(
                        subscription,
                        from: endpoint,
                        with: sources,
                        living: living
                    )
                    if let found { return "client \(client.index): \(found)" }
                }
            }
        }
        return nil
    }

    private func checkEnd() throws(Violation) {
        if let disagreement { throw Violation(disagreement) }
        for client in self.clients {
            for record in client.calls {
                try check(record.end != nil, "call \(record.id) of client \(client.index) never ended")
                self.outcome.calls += 1
                if record.end == .answered { self.outcome.answered += 1 }
            }
            try check(client.machine.callCount == 0, "client \(client.index) has calls left")
            try check(client.machine.timerCount == 0, "client \(client.index) has timers left")
            for (worker, endpoint) in client.machine.endpoints.enumerated() {
                try check(endpoint.isOpen, "client \(client.index) has no session with worker \(worker)")
                try check(endpoint.outstanding == 0, "client \(client.index) still counts requests at worker \(worker)")
                try check(endpoint.withdrawn.isEmpty, "client \(client.index) remembers requests of worker \(worker)")
            }
        }
        for broker in self.brokers {
            try check(broker.isIdle, "the tables of broker \(broker.index) are not empty: \(broker.tables)")
            try check(self.isIdle(broker), "broker \(broker.index) has not found its workers again")
        }
        for worker in self.workers {
            for subscriber in worker.callbacks.bound where subscriber.isPaused {
                let client = self.clients.first { $0.identity == subscriber.client }
                let isWanted = client?.callbacks.isWanted(subscriber.subscription) ?? false
                try check(!isWanted, "worker \(worker.index) sends client \(subscriber.client) nothing for ever")
            }
        }
        for worker in self.workers {
            try check(worker.isIdle, "worker \(worker.index) has requests or timers left")
            try check(
                worker.machine.sessions.allSatisfy { !$0.isLive || $0.requests.count == 0 },
                "a session of worker \(worker.index) has requests left"
            )
        }
    }

    /// Where nothing broke, everything came: once, in its time, without anybody being taken for lost.
    private func checkCalm() throws(Violation) {
        try check(
            self.outcome.losses == 0 && self.outcome.resends == 0,
            "\(self.outcome.resends) requests were sent again"
        )
        try check(self.outcome.resumptions == 0 && self.outcome.missing == 0, "a session was lost")
        try check(self.runs.values.allSatisfy { $0 == 1 }, "a request ran twice")
        for client in self.clients {
            for record in client.calls {
                let isAnswered = record.end == .answered || record.end == .failed
                try check(isAnswered, "call \(record.id) was not answered")
                try check(
                    record.delivered == record.emitted,
                    "of \(record.emitted) events of call \(record.id) \(record.delivered) came"
                )
                guard record.argumentBytes + record.resultBytes < 1000, record.callback == nil else { continue }
                let took = record.endedAt - record.madeAt
                try check(took < 1_200 * Self.millisecond, "small call \(record.id) took \(took / Self.millisecond) ms")
            }
        }
    }

    // MARK: What nodes ask for

    func nextToken() -> UInt64 {
        self.lastToken += 1
        return self.lastToken
    }

    /// A handler was started for a call.
    func ran(_ token: UInt64) throws(Violation) {
        self.outcome.runs += 1
        self.runs[token, default: 0] += 1
        guard let record = self.records[token] else { throw Violation("something ran that nobody called") }
        try check(
            record.isIdempotent || self.runs[token] == 1,
            "call \(record.id) ran \(self.runs[token] ?? 0) times and is not idempotent"
        )
    }

    func add(_ event: Event, after delay: UInt64) {
        self.events.add(event, at: self.now + delay)
    }

    func makeConnection(client: Int, worker: Int) -> Connection? {
        let path = self.paths[client][worker]
        let isUp = self.isBrokered ? self.brokers[worker].isUp : self.workers[worker].isUp
        guard isUp, path.blockedToWorker <= self.now, path.blockedToClient <= self.now else { return nil }
        self.lastRoute += 1
        let life = self.isBrokered ? self.brokers[worker].life : self.workers[worker].life
        let connection = Connection(route: self.lastRoute, client: client, worker: worker, workerLife: life)
        self.connections[self.lastRoute] = connection
        return connection
    }

    func makeConnection(toBroker broker: Int, from worker: Int) -> Connection? {
        let path = self.brokerPaths[broker][worker]
        guard self.brokers[broker].isUp, path.blockedToWorker <= self.now, path.blockedToClient <= self.now else {
            return nil
        }
        self.lastRoute += 1
        let life = self.workers[worker].life
        let connection = Connection(route: self.lastRoute, client: -1, worker: worker, workerLife: life, broker: broker)
        self.connections[self.lastRoute] = connection
        return connection
    }

    private func path(of connection: Connection) -> Path {
        connection.broker.map { self.brokerPaths[$0][connection.worker] }
            ?? self.paths[connection.client][connection.worker]
    }

    func sendToWorker(_ packet: Packet, by connection: Connection) {
        guard connection.isUp else { return }
        guard self.isSlow else { return self.put(packet, 64, toWorker: true, by: connection) }
        self.send(packet, by: connection, toWorker: true)
    }

    func sendToClient(_ packet: Packet, by connection: Connection) {
        guard connection.isUp else { return }
        guard self.isSlow else { return self.put(packet, 64, toWorker: false, by: connection) }
        self.send(packet, by: connection, toWorker: false)
    }

    /// Sends a packet, in parts if it is large, behind what it must not overtake.
    private func send(_ packet: Packet, by connection: Connection, toWorker: Bool) {
        let line = toWorker ? connection.near : connection.far
        let (bytes, isBehindEvents) = self.size(of: packet)
        if !line.takes(packet, bytes: bytes, isBehindEvents: isBehindEvents) {
            self.put(packet, bytes, toWorker: toWorker, by: connection)
        }
        self.pump(connection, toWorker: toWorker)
    }

    /// Sends what may go in parts now.
    private func pump(_ connection: Connection, toWorker: Bool) {
        let line = toWorker ? connection.near : connection.far
        while connection.isUp {
            let next = line.next(at: Instant(nanoseconds: self.now))
            guard !next.isEmpty else { return }
            for (packet, bytes) in next { self.put(packet, bytes, toWorker: toWorker, by: connection) }
        }
    }

    /// How many bytes a packet takes, and whether it answers a call with a callback.
    private func size(of packet: Packet) -> (bytes: Int, isBehindEvents: Bool) {
        switch packet {
        case .request(_, _, let token): return (64 + (self.records[token]?.argumentBytes ?? 0), false)
        case .answer(_, let token, _):
            let record = self.records[token]
            return (64 + (record?.resultBytes ?? 0), record?.callback != nil)
        case .event(_, _, let source), .invoke(_, _, let source):
            return ((source.token &+ source.serial) % 4 == 0 ? 1_500_000 : 64, false)
        default: return (64, false)
        }
    }

    private func put(_ packet: Packet, _ bytes: Int, toWorker: Bool, by connection: Connection) {
        let path = self.path(of: connection)
        let cost = UInt64(bytes) * path.nanosecondsPerByte
        if toWorker {
            connection.busyToWorker = max(connection.busyToWorker, self.now) + cost
            let last = max(connection.lastToWorker, cost > 0 ? connection.busyToWorker : 0)
            connection.lastToWorker = self.arrival(path, blockedUntil: path.blockedToWorker, last: last)
            self.events.add(.toWorker(packet, connection), at: connection.lastToWorker)
        } else {
            connection.busyToClient = max(connection.busyToClient, self.now) + cost
            let last = max(connection.lastToClient, cost > 0 ? connection.busyToClient : 0)
            connection.lastToClient = self.arrival(path, blockedUntil: path.blockedToClient, last: last)
            self.events.add(.toClient(packet, connection), at: connection.lastToClient)
        }
    }

    private func arrival(_ path: Path, blockedUntil: UInt64, last: UInt64) -> UInt64 {
        let latency = UInt64(self.random.below(Int(path.latency)))
        return max(self.now + latency, blockedUntil, last)
    }

    /// A packet has come: the node is told, and its end of the line does what the loops do.
    private func arrived(_ packet: Packet, by connection: Connection, toWorker: Bool) throws(Violation) {
        guard self.isSlow else { return try self.give(packet, by: connection, toWorker: toWorker) }
        let (own, now) = (toWorker ? connection.far : connection.near, Instant(nanoseconds: self.now))
        let before = self.session(of: connection, atWorker: toWorker)
        switch packet {
        case .welcome(_, let session, _, _, _, _) where !toWorker: own.welcomed(by: session)
        case .hello where toWorker: own.forgetIncoming()
        case .cancel(let id): own.cancelTheirs(id)
        case .cancelled(let id, _): own.cancelledByThem(id)
        default: break
        }
        try self.give(packet, by: connection, toWorker: toWorker)
        let session = self.session(of: connection, atWorker: toWorker)
        if session != before {
            // What another session was told, or began to say, is nothing to this one.
            own.forgetOutgoing()
            own.forgetIncoming()
        }
        guard session != nil else { return }
        switch packet {
        case .part(let part):
            let (whole, answer) = try own.take(part, at: now)
            self.put(answer, 48, toWorker: !toWorker, by: connection)
            if let whole {
                self.outcome.transfers += 1
                try self.give(whole, by: connection, toWorker: toWorker)
            }
        case .partTaken(let transfer, let end, let isWanted):
            own.acknowledged(transfer, end: end, isWanted: isWanted, at: now)
        case .partEnded(let transfer): own.endTheirs(transfer)
        default: break
        }
        self.pump(connection, toWorker: !toWorker)
    }

    private func give(_ packet: Packet, by connection: Connection, toWorker: Bool) throws(Violation) {
        switch (toWorker, connection.broker) {
        case (true, nil) where self.isBrokered:
            try self.brokers[connection.worker].received(packet, fromClient: connection)
        case (true, _): try self.workers[connection.worker].received(packet, by: connection)
        case (false, let broker?): try self.brokers[broker].received(packet, fromWorker: connection)
        case (false, nil): try self.clients[connection.client].received(packet, by: connection)
        }
    }

    /// What a node knows the other side by: parts that come by a connection without are not taken.
    private func session(of connection: Connection, atWorker: Bool) -> UInt64? {
        switch (atWorker, connection.broker) {
        case (true, nil) where self.isBrokered:
            return self.brokers[connection.worker].session(of: connection)
        case (true, _): return self.workers[connection.worker].session(of: connection)
        case (false, let broker?): return self.brokers[broker].session(of: connection)
        case (false, nil):
            return self.clients[connection.client].links[connection.worker].connection === connection ? 1 : nil
        }
    }

    /// Breaks a connection: what is on its way is lost, save what may have left the client before it closed.
    func close(_ connection: Connection?, byClient: Bool) {
        guard let connection, connection.isUp else { return }
        connection.isUp = false
        connection.drains = byClient && self.random.oneIn(2)
    }

    // MARK: Events

    private func happen(_ event: Event) throws(Violation) {
        if self.isStalled(event) { return }
        switch event {
        case .toWorker(let packet, let connection) where self.isBrokered && connection.broker == nil:
            let broker = self.brokers[connection.worker]
            guard connection.isUp || connection.drains, broker.isUp, broker.life == connection.workerLife else {
                return
            }
            try self.arrived(packet, by: connection, toWorker: true)
        case .toClient(let packet, let connection) where connection.broker != nil:
            guard connection.isUp || connection.drains, let index = connection.broker, self.brokers[index].isUp else {
                return
            }
            try self.arrived(packet, by: connection, toWorker: false)
        case .dial(let worker, let life, let broker, let attempt):
            if self.workers[worker].life == life { self.workers[worker].dialNow(broker, attempt: attempt) }
        case .offer(let worker, let life, let broker):
            if self.workers[worker].life == life { self.workers[worker].offerAgain(to: broker) }
        case .workerDisconnected(let connection, let life):
            let worker = self.workers[connection.worker]
            if worker.life == life { worker.disconnected(connection) }
        case .wakeBroker(let broker, let life):
            if self.brokers[broker].life == life { try self.brokers[broker].turn() }
        case .goOnBroker(let broker): try self.goOn(broker: broker)
        case .startBroker(let broker): self.startBroker(broker)
        case .toWorker(let packet, let connection):
            let worker = self.workers[connection.worker]
            guard connection.isUp || connection.drains, worker.isUp, worker.life == connection.workerLife else {
                return
            }
            try self.arrived(packet, by: connection, toWorker: true)
        case .toClient(let packet, let connection):
            guard connection.isUp else { return }
            try self.arrived(packet, by: connection, toWorker: false)
        case .connect(let client, let life, let worker, let attempt):
            guard self.clients[client].life == life, !self.clients[client].hasLeft else { return }
            try self.clients[client].connectNow(worker, attempt: attempt)
        case .disconnected(let connection, let life):
            guard self.clients[connection.client].life == life, !self.clients[connection.client].hasLeft else { return }
            try self.clients[connection.client].disconnected(connection)
        case .wakeClient(let client, let life):
            if self.clients[client].life == life { try self.clients[client].turn() }
        case .wakeWorker(let worker, let life):
            if self.workers[worker].life == life { try self.workers[worker].turn() }
        case .finish(let worker, let life, let job):
            if self.workers[worker].life == life, self.workers[worker].isUp { try self.workers[worker].finished(job) }
        case .act(let client): try self.act(client)
        case .fault: try self.doHarm()
        case .goOnClient(let client): try self.goOn(client: client)
        case .goOnWorker(let worker): try self.goOn(worker: worker)
        case .startWorker(let worker): self.startWorker(worker)
        case .brokerSawClosing(let connection, let life):
            guard let broker = connection.broker, self.brokers[broker].life == life, self.brokers[broker].isUp else {
                return
            }
            try self.brokers[broker].sawClosing(of: connection)
        case .endWorker(let worker, let life):
            if self.workers[worker].life == life, self.workers[worker].isUp { self.stopWorker(worker, politely: true) }
        }
    }

    /// Keeps what happens to a node that stands still until it goes on.
    private func isStalled(_ event: Event) -> Bool {
        switch event {
        case .wakeBroker(let broker, _): return self.stalledBrokers[broker]?.append(event) != nil
        case .brokerSawClosing(let connection, _):
            return self.stalledBrokers[connection.broker ?? 0]?.append(event) != nil
        case .toWorker(_, let connection) where self.isBrokered && connection.broker == nil:
            return self.stalledBrokers[connection.worker]?.append(event) != nil
        case .toClient(_, let connection) where connection.broker != nil:
            return self.stalledBrokers[connection.broker ?? 0]?.append(event) != nil
        case .dial(let worker, _, _, _), .offer(let worker, _, _):
            return self.stalledWorkers[worker]?.append(event) != nil
        case .workerDisconnected(let connection, _):
            return self.stalledWorkers[connection.worker]?.append(event) != nil
        case .toWorker(_, let connection):
            return self.stalledWorkers[connection.worker]?.append(event) != nil
        case .wakeWorker(let worker, _), .finish(let worker, _, _):
            return self.stalledWorkers[worker]?.append(event) != nil
        case .toClient(_, let connection), .disconnected(let connection, _):
            return self.stalledClients[connection.client]?.append(event) != nil
        case .connect(let client, _, _, _), .wakeClient(let client, _), .act(let client):
            return self.stalledClients[client]?.append(event) != nil
        case .fault, .goOnClient, .goOnWorker, .startWorker, .endWorker, .goOnBroker, .startBroker: return false
        }
    }

    private func goOn(client: Int) throws(Violation) {
        guard let missed = self.stalledClients.removeValue(forKey: client) else { return }
        // The clock is looked at before or after what has come meanwhile.
        if self.random.oneIn(2) { try self.clients[client].turn() }
        for event in missed { try self.happen(event) }
    }

    private func goOn(worker: Int) throws(Violation) {
        guard let missed = self.stalledWorkers.removeValue(forKey: worker) else { return }
        if self.random.oneIn(2) { try self.workers[worker].turn() }
        for event in missed { try self.happen(event) }
    }

    private func goOn(broker: Int) throws(Violation) {
        guard let missed = self.stalledBrokers.removeValue(forKey: broker) else { return }
        if self.random.oneIn(2) { try self.brokers[broker].turn() }
        for event in missed { try self.happen(event) }
    }

    /// A program does something with its client.
    private func act(_ index: Int) throws(Violation) {
        guard self.now < Self.start + Self.busyTime else { return }
        let client = self.clients[index]
        self.add(.act(client: index), after: UInt64(self.random.below(self.isBrokered ? 160 : 80)) * Self.millisecond)
        guard !client.hasLeft else { return }
        if self.isCalm { return try self.actCalmly(client) }
        if self.isBrokered, self.random.oneIn(4) { try client.doWithCallbacks() }
        switch self.random.below(10) {
        case 0:
            if let record = client.calls.last(where: { $0.end == nil }) { try client.cancel(record) }
        case 1 where self.movesDeadlines:
            guard let record = client.calls.last(where: { $0.end == nil }) else { return }
            try client.move(record, to: self.someDeadline())
        default:
            for _ in 0...self.random.below(4) {
                let (function, isIdempotent) = (UInt32(self.random.below(3)), self.random.oneIn(2))
                let key = self.random.oneIn(3) ? ["a", "b"][self.random.below(2)] : nil
                var deadline = self.someDeadline()
                // Those with a limit don't go in parts here: their times count from stamps.
                if self.isSlow, key != nil { deadline = .distantFuture }
                let isUnlimited = deadline == .distantFuture && !self.movesDeadlines
                try client.submit(
                    function: function,
                    isIdempotent: isIdempotent,
                    isPing: false,
                    key: key,
                    deadline: deadline,
                    argumentBytes: isUnlimited ? self.someSize(of: client) : 0,
                    resultBytes: self.someSize(of: client)
                )
                if self.isBrokered, let record = client.calls.last { self.decorate(record, of: client) }
            }
            if self.random.oneIn(8) {
                let deadline = Instant(nanoseconds: self.now + UInt64(self.random.below(40)) * Self.millisecond)
                try client.submit(function: 0, isIdempotent: false, isPing: true, key: nil, deadline: deadline)
            }
        }
    }

    /// Makes a call that nothing gets in the way of, at times a large one.
    private func actCalmly(_ client: SimulatedClient) throws(Violation) {
        try client.submit(
            function: 0,
            isIdempotent: self.random.oneIn(2),
            isPing: false,
            key: nil,
            deadline: .distantFuture,
            argumentBytes: self.someSize(of: client),
            resultBytes: self.someSize(of: client),
            callback: self.isBrokered && self.random.oneIn(3) ? client.callbacks.some(isNew: self.random.oneIn(3)) : nil
        )
    }

    /// A few values of some megabytes, the others small.
    private func someSize(of client: SimulatedClient) -> Int {
        let large = client.calls.count { $0.argumentBytes + $0.resultBytes > 1000 }
        guard self.isSlow, large < 3, self.sizes.oneIn(6) else { return 0 }
        return 1_100_000 + self.sizes.below(2_000_000)
    }

    /// What only a broker reads.
    private func decorate(_ record: CallRecord, of client: SimulatedClient) {
        if self.random.oneIn(3) {
            record.callback = (client.identity, client.callbacks.some(isNew: self.random.oneIn(3)))
        }
        if self.random.oneIn(4) { record.priority = UInt8(self.random.below(8)) }
        if self.random.oneIn(4) { record.demands = Demands(resources: ["gpu": UInt64(1 + self.random.below(2))]) }
        if self.random.oneIn(64) { record.demands = Demands(queue: "night") }
    }

    private func someDeadline() -> Instant {
        guard !self.random.oneIn(3) else { return .distantFuture }
        let isShort = self.random.oneIn(3)
        return Instant(nanoseconds: self.now + UInt64(self.random.below(isShort ? 30 : 700)) * Self.millisecond)
    }

    // MARK: Harm

    private func doHarm() throws(Violation) {
        guard self.now < Self.start + Self.busyTime else { return }
        self.add(.fault, after: UInt64(self.random.below(160)) * Self.millisecond)
        if self.isBrokered, !self.random.oneIn(3) { return self.doHarmToBroker() }
        let client = self.random.below(self.clients.count)
        let worker = self.random.below(self.isBrokered ? self.brokers.count : self.workers.count)
        let until = self.now + UInt64(self.random.below(600)) * Self.millisecond
        switch self.random.below(12) {
        case 0, 1, 2, 3:
            if let connection = self.clients[client].links[worker].connection { self.breakDown(connection) }
        case 4: self.paths[client][worker].blockedToWorker = until
        case 5: self.paths[client][worker].blockedToClient = until
        case 6:
            self.paths[client][worker].blockedToWorker = until
            self.paths[client][worker].blockedToClient = until
        case 7:
            guard self.stalledClients[client] == nil else { return }
            self.stalledClients[client] = []
            self.events.add(.goOnClient(client), at: until)
        case 8:
            let worker = self.isBrokered ? self.random.below(self.workers.count) : worker
            guard self.stalledWorkers[worker] == nil else { return }
            self.stalledWorkers[worker] = []
            self.events.add(.goOnWorker(worker), at: until)
        case 9:
            let worker = self.isBrokered ? self.random.below(self.workers.count) : worker
            if self.workers[worker].isUp, self.random.oneIn(2) { self.stopWorker(worker, politely: false) }
        case 10:
            let worker = self.isBrokered ? self.random.below(self.workers.count) : worker
            guard self.workers[worker].isUp, self.random.oneIn(2), self.stalledWorkers[worker] == nil else { return }
            try self.workers[worker].drain()
            self.events.add(.endWorker(worker, life: self.workers[worker].life), at: until)
        default:
            if self.random.oneIn(3) { self.restartClient(client) }
        }
    }

    private func doHarmToBroker() {
        let worker = self.random.below(self.workers.count)
        let broker = self.random.below(self.brokers.count)
        let until = self.now + UInt64(self.random.below(600)) * Self.millisecond
        switch self.random.below(12) {
        case 0, 1, 2:
            guard let connection = self.workers[worker].dials[broker].connection, connection.isUp else { return }
            self.close(connection, byClient: false)
            let delays: [UInt64] = [1, 10, 50, 150, 500]
            let delay = delays[self.random.below(delays.count)] * Self.millisecond
            self.add(.workerDisconnected(connection, life: self.workers[worker].life), after: delay)
            self.tellBroker(connection, after: delays[self.random.below(delays.count)] * Self.millisecond)
        case 3: self.brokerPaths[broker][worker].blockedToWorker = until
        case 4: self.brokerPaths[broker][worker].blockedToClient = until
        case 5:
            self.brokerPaths[broker][worker].blockedToWorker = until
            self.brokerPaths[broker][worker].blockedToClient = until
        case 6:
            guard self.stalledBrokers[broker] == nil else { return }
            self.stalledBrokers[broker] = []
            self.events.add(.goOnBroker(broker), at: until)
        case 7, 8:
            if self.workers[worker].isUp { self.stopWorker(worker, politely: self.random.oneIn(4)) }
        case 9: if self.random.oneIn(2) { self.stopBroker(broker) }
        default: if self.workers[worker].isUp { self.workers[worker].setQuiet(self.random.oneIn(2)) }
        }
    }

    /// A broker learns that a worker's connection was closed.
    private func tellBroker(_ connection: Connection?, after delay: UInt64) {
        guard let connection, let broker = connection.broker else { return }
        self.add(.brokerSawClosing(connection, life: self.brokers[broker].life), after: delay)
    }

    private func stopBroker(_ index: Int) {
        let broker = self.brokers[index]
        guard broker.isUp else { return }
        broker.die()
        self.outcome.crashes += 1
        self.stalledBrokers[index] = nil
        for client in self.clients {
            guard let connection = client.links[index].connection, connection.isUp else { continue }
            self.close(connection, byClient: false)
            self.add(.disconnected(connection, life: client.life), after: Self.millisecond)
        }
        for worker in self.workers {
            guard let connection = worker.dials[index].connection, connection.isUp else { continue }
            self.close(connection, byClient: false)
            self.add(.workerDisconnected(connection, life: worker.life), after: Self.millisecond)
        }
        self.add(.startBroker(index), after: UInt64(self.random.below(400)) * Self.millisecond)
    }

    private func startBroker(_ index: Int) {
        let old = self.brokers[index]
        guard !old.isUp else { return }
        self.brokers[index] = SimulatedBroker(index: index, life: old.life + 1, cluster: self)
    }

    /// Breaks a connection; the client's socket notices soon or when the heartbeats of the transport fail to come.
    private func breakDown(_ connection: Connection) {
        self.close(connection, byClient: false)
        let delays: [UInt64] = [1, 10, 50, 150, 500, 1500]
        let delay = delays[self.random.below(delays.count)] * Self.millisecond
        self.add(.disconnected(connection, life: self.clients[connection.client].life), after: delay)
    }

    private func stopWorker(_ worker: Int, politely: Bool) {
        self.workers[worker].die(politely: politely)
        self.stalledWorkers[worker] = nil
        for dial in self.workers[worker].dials {
            self.close(dial.connection, byClient: politely)
            self.tellBroker(dial.connection, after: Self.millisecond)
        }
        for client in self.clients where !self.isBrokered {
            guard let connection = client.links[worker].connection, connection.isUp else { continue }
            // A goodbye is given time to arrive.
            if politely, self.random.oneIn(2) {
                let life = client.life
                self.events.add(.disconnected(connection, life: life), at: connection.lastToClient + 1)
            } else {
                self.close(connection, byClient: false)
                self.add(.disconnected(connection, life: client.life), after: Self.millisecond)
            }
        }
        self.add(.startWorker(worker), after: UInt64(self.random.below(400)) * Self.millisecond)
    }

    private func startWorker(_ worker: Int) {
        guard !self.workers[worker].isUp else { return }
        let life = self.workers[worker].life + 1
        self.workers[worker] = SimulatedWorker(
            index: worker,
            life: life,
            brokerCount: self.brokers.count,
            cluster: self
        )
        self.workers[worker].dialAll()
    }

    private func restartClient(_ index: Int) {
        let old = self.clients[index]
        old.die()
        self.stalledClients[index] = nil
        let client = SimulatedClient(
            index: index,
            life: old.life + 1,
            workerCount: self.paths[index].count,
            cluster: self
        )
        self.clients[index] = client
        client.start()
        self.add(.act(client: index), after: 0)
    }

    /// All faults end.
    private func heal() throws(Violation) {
        for client in self.clients.indices {
            for worker in self.paths[client].indices {
                self.paths[client][worker].blockedToWorker = 0
                self.paths[client][worker].blockedToClient = 0
            }
            try self.goOn(client: client)
        }
        for worker in self.workers.indices {
            try self.goOn(worker: worker)
            if !self.workers[worker].isUp { self.startWorker(worker) }
            if self.isBrokered { self.workers[worker].setQuiet(false) }
        }
        for broker in self.brokers.indices {
            for worker in self.workers.indices {
                self.brokerPaths[broker][worker].blockedToWorker = 0
                self.brokerPaths[broker][worker].blockedToClient = 0
            }
            try self.goOn(broker: broker)
            self.startBroker(broker)
        }
        for client in self.clients { client.resumeAll() }
    }
}
