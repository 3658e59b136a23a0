// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire

/// A request on its way through a worker.
final class SimulatedJob {
    enum State { case held, queued, running, gone }

    let slot: UInt32
    let id: UInt64
    let token: UInt64
    let key: String?
    var deadline: Instant
    /// Counts the requests that the worker took in.
    let number: Int
    let session: UInt32
    var state: State
    var isUnwanted = false
    var mustReportStart = false
    /// Whether its client was told that it is held.
    var isToldHeld = false
    /// Who its session is with.
    let peer: PeerID
    /// By how much this worker may take its deadline for later than it is.
    var slack: UInt64
    /// What it waits for, and until when.
    var invocation: UInt64?
    var invocationLimit: UInt64 = 0

    init(
        slot: UInt32,
        id: UInt64,
        token: UInt64,
        key: String?,
        deadline: Instant,
        number: Int,
        session: UInt32,
        peer: PeerID,
        slack: UInt64,
        state: State
    ) {
        self.slot = slot
        self.id = id
        self.token = token
        self.key = key
        self.deadline = deadline
        self.number = number
        self.session = session
        self.peer = peer
        self.slack = slack
        self.state = state
    }

    func isOf(_ session: Int, _ machine: borrowing WorkerMachine) -> Bool {
        machine.request(in: self.slot)?.session == Int32(session)
    }
}

/// A worker's machine and the thin shell around it: what the worker's loop and handler threads do, without either.
final class SimulatedWorker {
    static let functionLimits: [Int?] = [nil, 1, 2]

    let index: Int
    let life: Int
    unowned let cluster: Cluster
    private let epoch: UInt64
    private let window: Int
    private let concurrency: Int
    private let keepsAllResults: Bool
    private(set) var machine: WorkerMachine
    private var actions: [WorkerAction] = []
    private var jobs: [UInt32: SimulatedJob] = [:]
    private var queue: [SimulatedJob] = []
    private var running = 0
    private var taken = 0
    private var runningKeys: [String: UInt64] = [:]
    private var lastStarted: [String: Int] = [:]
    private var lastStartedID: [String: UInt64] = [:]
    private var wakeAt: UInt64 = .max
    private(set) var isUp = true
    /// How the worker stands with a broker.
    struct Dial {
        var connection: Connection?
        /// Which of the socket's attempts to connect counts.
        var attempt = 0
        var offerInterval: UInt64 = 0
        var isOffering = false
    }

    private(set) var dials: [Dial]
    private(set) var callbacks = WorkerCallbacks()
    private var isQuiet = false
    private let offered: [String]
    private let notices: Bool
    private let resources: [String: UInt64]

    init(index: Int, life: Int, brokerCount: Int, cluster: Cluster) {
        self.dials = Array(repeating: Dial(), count: brokerCount)
        self.index = index
        self.life = life
        self.cluster = cluster
        self.epoch = cluster.random.next()
        self.window = cluster.isCalm ? 64 : 1 + cluster.random.below(6)
        self.concurrency = cluster.isCalm ? 16 : 1 + cluster.random.below(4)
        self.keepsAllResults = !cluster.random.oneIn(4)
        var configuration = WorkerMachine.Configuration(seed: cluster.random.next())
        configuration.session = Cluster.limits
        configuration.window = self.window
        configuration.maxCachedBytes = self.keepsAllResults ? 1 << 14 : 1 << 9
        configuration.functionLimits = Self.functionLimits
        self.machine = WorkerMachine(configuration: configuration)
        // Seldom less than all.
        let isPartial = cluster.isBrokered && cluster.random.oneIn(4)
        self.offered = isPartial ? ["f0", "f1"] : ["f0", "f1", "f2"]
        self.notices = !cluster.isBrokered || !cluster.random.oneIn(4)
        self.resources = cluster.isBrokered && !cluster.random.oneIn(3) ? ["gpu": 2] : [:]
    }

    private var now: Instant { Instant(nanoseconds: self.cluster.now) }

    // MARK: The network

    func received(_ packet: Packet, by connection: Connection) throws(Violation) {
        let route = connection.route
        let session = self.machine.session(route: route)
        if case .reset = packet, let broker = connection.broker { return self.beginOffering(to: broker) }
        if let session { self.machine.heard(from: session, at: self.now) }
        switch (packet, session) {
        case (.hello(let client, let epoch, let claimed, let stamp), _):
            let introduction = self.machine.helloReceived(
                client: client,
                epoch: epoch,
                claimed: claimed,
                name: "",
                route: route,
                at: self.now,
                actions: &self.actions
            )
            if case .welcome(let session, _) = introduction {
                self.stamped(Header(.hello, time: stamp), session, by: connection)
            }
            try self.performActions()
            if introduction == .forgotten {
                let welcome = Packet.welcome(
                    epoch: self.epoch,
                    session: 0,
                    window: self.window,
                    isResumed: false,
                    answers: epoch
                )
                self.cluster.sendToClient(welcome, by: connection)
                // The broker gives this worker up when it reads that.
                if let broker = connection.broker { self.beginOffering(to: broker) }
                return
            }
            guard case .welcome(let session, let isResumed) = introduction else {
                throw Violation("a client was refused")
            }
            self.cluster.connections[route] = connection
            let number = self.machine.sessions[session].number
            self.send(
                .welcome(
                    epoch: self.epoch,
                    session: number,
                    window: self.window,
                    slots: self.concurrency,
                    isResumed: isResumed,
                    answers: epoch
                ),
                to: session
            )
            if let broker = connection.broker { self.introduced(broker, client, isResumed: isResumed, session) }
        case (_, nil): self.cluster.sendToClient(.reset, by: connection)
        case (.define(let number), let session?):
            let isDefined = self.machine.defined(number, name: "f\(number)", handler: Int32(number), in: session)
            try check(isDefined, "function \(number) could not be defined")
        case (.defineAs(let number, let name), let session?):
            guard let handler = Int32(name.dropFirst()), self.offered.contains(name) else {
                throw Violation("function \(name) was not offered")
            }
            let isDefined = self.machine.defined(number, name: name, handler: handler, in: session)
            try check(isDefined, "function \(number) could not be defined")
        case (.recall(let id), let session?): try self.takeRecall(id, session: session)
        case (.request(let header, let key, let token), let session?):
            try self.takeRequest(header, key: key, token: token, session: session, by: connection)
        case (.cancel(let id), let session?):
            switch self.machine.cancelReceived(id, from: session, actions: &self.actions) {
            case .unknown: self.send(.cancelled(id, .unknown), to: session)
            case .removed(let slot):
                self.jobs.removeValue(forKey: slot)?.state = .gone
                self.confirm(.beforeStart, of: id, to: session)
            case .stop(let slot):
                try self.performActions()
                try self.stop(slot)
            }
        case (.deadline(let id, let time), let session?):
            let slot = self.machine.deadlineReceived(id, time: time, from: session, at: self.now)
            if let slot { try self.moveDeadline(slot, id, by: connection) }
        case (.beat(let epoch, let stamp, let isNewClock), let session?):
            if self.machine.beatReceived(epoch, from: session, at: self.now, actions: &self.actions) {
                let number = isNewClock ? Header.newClock : 0
                self.stamped(Header(.beat, time: stamp, number: number), session, by: connection)
            } else {
                self.cluster.sendToClient(.reset, by: connection)
            }
        case (.ping(let id), let session?): self.send(.pong(id), to: session)
        case (.goodbye, let session?):
            self.machine.goodbyeReceived(from: session, at: self.now, actions: &self.actions)
        case (.invocationAnswer(let id, let token), let session?):
            try self.callbacks.answered(id, token: token, by: self.machine.sessions[session].client)
        case (.invocationFailed(let id), let session?):
            try self.callbacks.answered(id, token: nil, by: self.machine.sessions[session].client)
        case (.ended(let number), let session?): self.callbacks.end(number, via: self.machine.sessions[session].client)
        case (.flow(let number, let isPaused), let session?):
            self.callbacks.pause(number, via: self.machine.sessions[session].client, isPaused)
        case (.pong, _), (.part, _), (.partTaken, _), (.partEnded, _): break
        case (.welcome, _), (.reset, _), (.answer, _), (.cancelled, _), (.phase, _), (.offer, _), (.ready, _),
            (.bind, _),
            (.event, _), (.invoke, _), (.emitted, _):
            throw Violation("a worker received \(packet)")
        }
        try self.turn()
    }

    /// The session of a route, for what comes by it in parts.
    func session(of connection: Connection) -> UInt64? {
        self.machine.session(route: connection.route).map { UInt64(self.machine.sessions[$0].number) }
    }

    private func send(_ packet: Packet, to session: Int) {
        self.machine.sent(to: session, at: self.now)
        guard let connection = self.cluster.connections[self.machine.sessions[session].route] else { return }
        self.cluster.sendToClient(packet, by: connection)
    }

    // MARK: Requests

    private func stamped(_ header: Header, _ session: Int, by connection: Connection) {
        self.machine.stamped(header, from: session, at: self.now)
        connection.stamped(header, at: self.cluster.now)
    }

    private func takeRequest(
        _ header: Header,
        key: String?,
        token: UInt64,
        session: Int,
        by connection: Connection
    ) throws(Violation) {
        let verdict = self.machine.requestReceived(header, key: key, from: session, at: self.now)
        switch verdict {
        case .run(let slot, _): self.enqueue(try self.take(slot, header, key, token, session, by: connection))
        case .hold(let slot, _): _ = try self.take(slot, header, key, token, session, by: connection)
        case .known(let slot):
            try check(self.jobs[slot]?.token == token, "request \(header.id) is known, but as another")
            try self.moveDeadline(slot, header.id, by: connection)
            self.report(slot, session: session, id: header.id)
        case .answerAgain:
            var answer: Packet?
            unsafe self.machine.withResult(header.id, of: session) { message in
                if let stage = unsafe CancelledStage(rawValue: UInt32(message[17])), unsafe message[16] == 2 {
                    answer = .cancelled(header.id, stage)
                } else {
                    let token = unsafe message.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
                    answer = unsafe .answer(id: header.id, token: token, isError: message[16] != 0)
                }
            }
            guard let answer else { throw Violation("the answer to \(header.id) is held, and is not") }
            self.send(answer, to: session)
        case .indeterminate:
            try check(!header.flags.contains(.idempotent), "an idempotent request is indeterminate")
            self.send(.answer(id: header.id, token: token, isError: true), to: session)
        case .draining where self.cluster.isBrokered: self.send(.cancelled(header.id, .beforeStart), to: session)
        case .draining: self.send(.answer(id: header.id, token: token, isError: true), to: session)
        case .busy where !self.keepsAllResults:
            // An idempotent request whose answer was forgotten runs again, though its client may have the answer by now.
            self.send(.answer(id: header.id, token: token, isError: true), to: session)
        case .lapsed:
            let earliest = self.cluster.records[token]?.earliest ?? .distantFuture
            try check(earliest <= self.now, "request \(header.id) lapsed before its time was over")
            self.confirm(.lapsed, of: header.id, to: session)
        case .unknownFunction, .undefinedFunction, .busy, .duplicateID:
            throw Violation("worker \(self.index) says \(verdict) to request \(header.id)")
        }
    }

    private func take(
        _ slot: UInt32,
        _ header: Header,
        _ key: String?,
        _ token: UInt64,
        _ session: Int,
        by connection: Connection
    ) throws(Violation) -> SimulatedJob {
        self.taken += 1
        let job = SimulatedJob(
            slot: slot,
            id: header.id,
            token: token,
            key: key,
            deadline: self.machine.request(in: slot)?.deadline ?? .distantFuture,
            number: self.taken,
            session: self.machine.sessions[session].number,
            peer: self.machine.sessions[session].client,
            slack: connection.slack,
            state: .held
        )
        try self.checkDeadline(of: job)
        self.jobs[slot] = job
        return job
    }

    /// The way here may make a deadline seem later than it is, never earlier.
    private func checkDeadline(of job: SimulatedJob) throws(Violation) {
        guard let record = self.cluster.records[job.token] else { return }
        try check(job.deadline >= record.earliest, "the deadline of request \(job.id) is taken for earlier than it is")
    }

    private func moveDeadline(_ slot: UInt32, _ id: UInt64, by connection: Connection) throws(Violation) {
        guard let job = self.jobs[slot], job.id == id, let request = self.machine.request(in: slot) else {
            throw Violation("the deadline of request \(id) was moved, and another's is meant")
        }
        job.deadline = request.deadline
        job.slack = max(job.slack, connection.slack)
        try self.checkDeadline(of: job)
    }

    private func enqueue(_ job: SimulatedJob) {
        job.state = .queued
        self.queue.append(job)
    }

    private func report(_ slot: UInt32, session: Int, id: UInt64) {
        let job = self.jobs[slot]
        job?.mustReportStart = true
        let isRunning = job?.state == .running
        let hold = isRunning ? HoldReason.none : self.machine.request(in: slot)?.hold ?? .none
        if hold != .none { job?.isToldHeld = true }
        self.send(.phase(id, isRunning ? .running : .accepted, hold), to: session)
    }

    /// Takes a job out before it starts, or asks its handler to stop.
    private func stop(_ slot: UInt32) throws(Violation) {
        // A request may lapse and lose its client in one tick, and is stopped for both.
        guard let job = self.jobs[slot] else { return }
        job.isUnwanted = true
        switch job.state {
        case .queued: try self.drop(job, .beforeStart)
        case .running:
            // Some handlers look, some don't.
            if self.cluster.random.oneIn(2) { self.finishLater(job, within: 5) }
        case .held, .gone: throw Violation("request \(job.id) is to be stopped, and is \(job.state)")
        }
    }

    private func drop(_ job: SimulatedJob, _ stage: CancelledStage) throws(Violation) {
        job.state = .gone
        self.queue.removeAll { $0 === job }
        self.jobs[job.slot] = nil
        guard let addressee = self.machine.finished(job.slot, actions: &self.actions) else {
            throw Violation("slot \(job.slot) is not taken")
        }
        if let session = addressee.session { self.confirm(stage, of: addressee.id, to: session) }
    }

    // MARK: Handlers

    private func startJobs() throws(Violation) {
        while self.running < self.concurrency, let job = self.queue.first {
            guard job.deadline > self.now else {
                try self.drop(job, .lapsed)
                try self.performActions()
                continue
            }
            self.queue.removeFirst()
            try self.start(job)
        }
    }

    private func start(_ job: SimulatedJob) throws(Violation) {
        try check(!job.isUnwanted, "request \(job.id) started after it was cancelled")
        if let record = self.cluster.records[job.token], record.latest < self.now {
            let late = self.now.nanoseconds(since: record.latest)
            let (slack, isEndless) = job.slack.addingReportingOverflow(record.slack)
            try check(
                isEndless || late <= slack,
                "request \(job.id) started \(late) ns after its caller's time was over, of which \(slack) may go unseen"
            )
        }
        let known = self.machine.request(in: job.slot)?.deadline
        try check(known == job.deadline, "request \(job.id) starts with another deadline than its own")
        job.state = .running
        self.running += 1
        try self.cluster.ran(job.token)
        if let key = job.key {
            try check(self.runningKeys[key] == nil, "two requests of key \(key) run at once")
            self.runningKeys[key] = job.token
            try check(self.lastStarted[key] ?? 0 < job.number, "requests of key \(key) started in another order")
            self.lastStarted[key] = job.number
            // With one worker and nothing forgotten it is the order in which they were made.
            if self.cluster.keepsOrder, self.keepsAllResults {
                let place = "\(job.session) \(key)"
                try check(self.lastStartedID[place] ?? 0 < job.id, "request \(job.id) of key \(key) started late")
                self.lastStartedID[place] = job.id
            }
        }
        if let request = self.machine.request(in: job.slot), request.session >= 0, job.mustReportStart {
            self.send(.phase(job.id, .running, .none), to: Int(request.session))
        }
        self.useCallback(of: job)
        self.finishLater(job, within: self.cluster.random.oneIn(8) ? 250 : 20)
    }

    /// A handler emits events, or asks something.
    private func useCallback(of job: SimulatedJob) {
        guard let callback = self.cluster.records[job.token]?.callback else { return }
        for _ in 0..<self.cluster.random.below(4) {
            guard let session = self.machine.session(of: job.peer),
                let (number, subscriber) = self.subscriber(callback, of: job, session)
            else { return }
            if self.cluster.random.oneIn(4), job.invocation == nil {
                let (id, source) = self.callbacks.invoke(subscriber, via: job.peer)
                job.invocation = id
                job.invocationLimit = self.cluster.now + 150_000_000
                self.send(.invoke(number, id: id, source), to: session)
            } else if !subscriber.isPaused {
                let sequence = subscriber.sequence
                var source = subscriber.next()
                source.call = job.token
                self.cluster.outcome.emitted += 1
                self.cluster.records[job.token]?.emitted += 1
                self.send(.event(number, sequence: sequence, source), to: session)
            }
        }
    }

    private func subscriber(
        _ callback: (client: PeerID, subscription: UInt32),
        of job: SimulatedJob,
        _ session: Int
    ) -> (UInt32, SimulatedSubscriber)? {
        let found = self.callbacks.subscriber(
            callback.subscription,
            of: callback.client,
            via: job.peer,
            token: self.cluster.nextToken()
        )
        guard let found else { return nil }
        if found.isNew {
            self.cluster.subscribers.append((job.peer, found.subscriber))
            self.send(.bind(found.number, to: callback.subscription, of: callback.client), to: session)
        }
        return (found.number, found.subscriber)
    }

    /// A handler has nothing more to say to a callback.
    private func endCallback(of job: SimulatedJob) {
        guard let callback = self.cluster.records[job.token]?.callback, !self.cluster.isCalm,
            self.cluster.random.oneIn(12),
            let session = self.machine.session(of: job.peer),
            let (number, _) = self.subscriber(callback, of: job, session)
        else { return }
        self.callbacks.end(number, via: job.peer, isOwn: true)
        self.send(.ended(number), to: session)
    }

    private func finishLater(_ job: SimulatedJob, within milliseconds: Int) {
        let delay = UInt64(self.cluster.random.below(milliseconds * 1_000_000))
        self.cluster.add(.finish(worker: self.index, life: self.life, job: job), after: delay)
    }

    func finished(_ job: SimulatedJob) throws(Violation) {
        guard job.state == .running else { return }
        if let id = job.invocation, self.callbacks.isPending(id) {
            guard self.cluster.now >= job.invocationLimit else { return self.finishLater(job, within: 10) }
            self.callbacks.giveUp(id)
        }
        self.useCallback(of: job)
        if let id = job.invocation { self.callbacks.giveUp(id) }
        self.endCallback(of: job)
        job.state = .gone
        self.running -= 1
        self.jobs[job.slot] = nil
        if let key = job.key { self.runningKeys[key] = nil }
        guard let addressee = self.machine.finished(job.slot, actions: &self.actions) else {
            throw Violation("slot \(job.slot) is not taken")
        }
        try check(addressee.id == job.id, "the answer to \(job.id) is addressed to \(addressee.id)")
        if let session = addressee.session {
            let isError = job.isUnwanted || self.cluster.random.oneIn(10)
            self.remember(job.id, token: job.token, kind: isError ? 1 : 0, stage: 0, of: session)
            self.send(.answer(id: job.id, token: job.token, isError: isError), to: session)
        }
        try self.turn()
    }

    /// Says that a request will not run, and keeps that as its answer.
    private func confirm(_ stage: CancelledStage, of id: UInt64, to session: Int) {
        self.remember(id, token: 0, kind: 2, stage: UInt8(stage.rawValue), of: session)
        self.send(.cancelled(id, stage), to: session)
    }

    private func remember(_ id: UInt64, token: UInt64, kind: UInt8, stage: UInt8, of session: Int) {
        var message = [UInt8](repeating: 0, count: 24)
        unsafe message.withUnsafeMutableBytes { bytes in
            unsafe bytes.storeBytes(of: id, as: UInt64.self)
            unsafe bytes.storeBytes(of: token, toByteOffset: 8, as: UInt64.self)
            unsafe bytes[16] = kind
            unsafe bytes[17] = stage
        }
        unsafe message.withUnsafeBytes { bytes in
            unsafe self.machine.remember(id, message: bytes, of: session, isRemoval: kind == 2)
        }
    }

    // MARK: A turn

    func turn() throws(Violation) {
        guard self.isUp else { return }
        try self.performActions()
        if self.machine.nextDeadline(after: self.now) <= self.now {
            self.machine.ticked(at: self.now, actions: &self.actions)
            try self.performActions()
        }
        try self.startJobs()
        try self.performActions()
        try self.checkInvariants()
        let next = max(self.machine.nextDeadline(after: self.now).nanoseconds, self.cluster.now)
        guard next != .max, next < self.wakeAt || self.wakeAt <= self.cluster.now else { return }
        self.wakeAt = next + UInt64(self.cluster.random.below(1_000_000))
        self.cluster.add(.wakeWorker(worker: self.index, life: self.life), after: self.wakeAt - self.cluster.now)
    }

    private func performActions() throws(Violation) {
        var index = 0
        while index < self.actions.count {
            try self.perform(self.actions[index])
            index += 1
        }
        self.actions.removeAll(keepingCapacity: true)
    }

    private func perform(_ action: WorkerAction) throws(Violation) {
        switch action {
        case .run(let slot, _):
            guard let job = self.jobs[slot], job.state == .held else {
                throw Violation("slot \(slot) is to run, and nothing is held in it")
            }
            self.enqueue(job)
            if job.isToldHeld { _ = self.machine.reportAgain(slot, id: job.id, at: self.now) }
        case .stop(let slot): try self.stop(slot)
        case .interrupt(let slot), .abandon(let slot, _, _), .giveUp(let slot, _, _):
            throw Violation("slot \(slot) is over a limit of its run time, and no function has one")
        case .lapsed(let slot, let session, let id):
            self.jobs.removeValue(forKey: slot)?.state = .gone
            self.confirm(.lapsed, of: id, to: session)
        case .forbidden(let slot, _, _, _, _), .withdraw(let slot, _):
            throw Violation("slot \(slot) is taken from its client, and nothing has keys")
        case .dropped(let slot): self.jobs.removeValue(forKey: slot)?.state = .gone
        case .report(let slot, let session, let id): self.report(slot, session: session, id: id)
        case .sendBeat(let session):
            guard self.cluster.isBrokered else { return self.send(.beat(epoch: self.epoch), to: session) }
            self.sendReady(to: session)
        case .sessionLost(_, let client):
            self.callbacks.forget(client)
            for (broker, dial) in self.dials.enumerated() {
                guard let connection = dial.connection, self.machine.session(route: connection.route) == nil else {
                    continue
                }
                self.beginOffering(to: broker)
            }
        }
    }

    private func checkInvariants() throws(Violation) {
        try check(self.machine.requestCount == self.jobs.count, "the machine has other requests than the worker")
        let held = self.jobs.values.count { $0.state == .held }
        try check(self.machine.heldCount == held, "the machine holds \(self.machine.heldCount), the worker \(held)")
        for (function, limit) in Self.functionLimits.enumerated() {
            guard let limit else { continue }
            let active = self.jobs.values.count { job in
                job.state != .held && self.machine.request(in: job.slot)?.handler == Int32(function)
            }
            try check(active <= limit, "\(active) requests of function \(function) run, its limit is \(limit)")
        }
    }

    // MARK: A broker

    func dialAll() {
        for broker in self.dials.indices { self.dial(broker, after: 1_000_000) }
    }

    private func dial(_ broker: Int, after delay: UInt64) {
        self.dials[broker].attempt += 1
        let attempt = self.dials[broker].attempt
        self.cluster.add(.dial(worker: self.index, life: self.life, broker: broker, attempt: attempt), after: delay)
    }

    func dialNow(_ broker: Int, attempt: Int) {
        guard self.isUp, attempt == self.dials[broker].attempt, self.dials[broker].connection == nil else { return }
        guard let connection = self.cluster.makeConnection(toBroker: broker, from: self.index) else {
            return self.dial(broker, after: 100_000_000)
        }
        self.dials[broker].connection = connection
        self.beginOffering(to: broker)
    }

    /// The socket has noticed that its connection is gone.
    func disconnected(_ connection: Connection) {
        guard self.isUp, let broker = connection.broker, self.dials[broker].connection === connection else { return }
        self.dials[broker].connection = nil
        self.dials[broker].isOffering = false
        self.dial(broker, after: 50_000_000)
    }

    private func beginOffering(to broker: Int) {
        guard self.isUp, self.dials[broker].connection != nil else { return }
        self.dials[broker].offerInterval = 100_000_000
        self.sendOffer(to: broker)
        guard !self.dials[broker].isOffering else { return }
        self.dials[broker].isOffering = true
        self.cluster.add(.offer(worker: self.index, life: self.life, broker: broker), after: 100_000_000)
    }

    /// No introduction has come for a while.
    func offerAgain(to broker: Int) {
        guard self.isUp, self.dials[broker].isOffering, self.dials[broker].connection != nil else { return }
        self.sendOffer(to: broker)
        let interval = min(2 * self.dials[broker].offerInterval, Cluster.limits.silenceNanoseconds)
        self.dials[broker].offerInterval = interval
        self.cluster.add(.offer(worker: self.index, life: self.life, broker: broker), after: interval)
    }

    /// A broker has introduced itself.
    private func introduced(_ broker: Int, _ peer: PeerID, isResumed: Bool, _ session: Int) {
        self.dials[broker].isOffering = false
        guard isResumed else { return self.callbacks.begin(with: peer) }
        for packet in self.callbacks.statements(to: peer) { self.send(packet, to: session) }
        self.sendReady(to: session)
    }

    private func sendOffer(to broker: Int) {
        guard let connection = self.dials[broker].connection else { return }
        let offer = WorkerOffer(
            worker: PeerID(high: 8, low: UInt64(self.index)),
            epoch: self.epoch,
            name: "worker \(self.index)",
            concurrency: self.concurrency,
            functions: self.offered,
            resources: self.resources,
            notices: self.notices
        )
        self.cluster.sendToClient(.offer(offer), by: connection)
    }

    /// Becomes quiet, or stops being so.
    func setQuiet(_ isQuiet: Bool) {
        self.isQuiet = isQuiet
        for session in self.machine.sessions.indices where self.machine.sessions[session].isLive {
            self.sendReady(to: session)
        }
    }

    private func sendReady(to session: Int) {
        let isQuiet = self.isQuiet || self.machine.isDraining
        let isStarved = self.cluster.random.oneIn(8)
        self.send(.ready(epoch: self.epoch, isQuiet: isQuiet, isStarved: isStarved), to: session)
    }

    private func takeRecall(_ id: UInt64, session: Int) throws(Violation) {
        guard let job = self.jobs.values.first(where: { $0.id == id && $0.isOf(session, self.machine) }) else { return }
        switch job.state {
        case .queued: try self.drop(job, .beforeStart)
        case .held:
            guard case .removed(let slot) = self.machine.cancelReceived(id, from: session, actions: &self.actions)
            else { throw Violation("request \(id) is held and was not removed") }
            self.jobs.removeValue(forKey: slot)?.state = .gone
            self.confirm(.beforeStart, of: id, to: session)
        case .running, .gone: break
        }
    }

    /// Takes no new requests.
    func drain() throws(Violation) {
        self.machine.drain()
        self.tellAll(.goodbye(.draining))
        try self.turn()
    }

    /// The process is gone, with or without a goodbye.
    func die(politely: Bool) {
        if politely { self.tellAll(.goodbye(.leaving)) }
        self.isUp = false
    }

    private func tellAll(_ packet: Packet) {
        for session in self.machine.sessions.indices where self.machine.sessions[session].isLive {
            self.send(packet, to: session)
        }
    }

    var isIdle: Bool { self.machine.requestCount == 0 && self.machine.heldCount == 0 && self.machine.timerCount == 0 }
}
