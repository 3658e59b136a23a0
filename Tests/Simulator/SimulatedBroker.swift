// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire

/// A broker's machine and the thin shell around it.
final class SimulatedBroker {
    private struct Held {
        var token: UInt64
        var key: String?
        /// Counts the requests that the broker took in.
        var number: Int
        var id: UInt64
        var client: Int
    }

    static let window = 48

    let index: Int
    let life: Int
    unowned let cluster: Cluster
    let identity: PeerID
    private let epoch: UInt64
    private(set) var machine: BrokerMachine
    private var actions: [BrokerAction] = []
    /// What is in each slot.
    private var held: [UInt32: Held] = [:]
    /// The slot of each ordering key's request that a worker has.
    private var keysAtWork: [String: UInt32] = [:]
    private var lastSent: [String: Int] = [:]
    private var taken = 0
    private var turns = 0
    private var wakeAt: UInt64 = .max
    private(set) var isUp = true
    /// When the connection of a worker was seen to be closed.
    private var closedAt: [Int: UInt64] = [:]
    private var departures: [Int: DepartureClock] = [:]
    private var pausedSince: [Int: UInt64] = [:]
    private var lastTurn: UInt64 = 0

    init(index: Int, life: Int, cluster: Cluster) {
        self.index = index
        self.life = life
        self.cluster = cluster
        self.identity = PeerID(high: 9, low: cluster.random.next())
        self.epoch = cluster.random.next()
        var configuration = BrokerMachine.Configuration(seed: cluster.random.next())
        configuration.session = Cluster.limits
        configuration.window = Self.window
        configuration.patienceNanoseconds = 250_000_000
        configuration.stallNanoseconds = 10_000_000
        configuration.aloneNanoseconds = Cluster.aloneNanoseconds
        configuration.maxRoutes = cluster.random.oneIn(4) ? 6 : 64
        configuration.ownShare = 2
        configuration.maxCachedBytes = cluster.random.oneIn(4) ? 1 << 9 : 1 << 14
        self.machine = BrokerMachine(configuration: configuration)
    }

    private var now: Instant { Instant(nanoseconds: self.cluster.now) }

    /// Whose a route is, and which life of it, for what comes by it in parts.
    func session(of connection: Connection) -> UInt64? {
        switch self.machine.peer(route: connection.route) {
        case .client(let client): UInt64(self.machine.clients[client].number)
        case .worker(let worker): self.machine.workers[worker].incarnation
        case nil: nil
        }
    }

    func die() { self.isUp = false }

    /// Goes politely, at the end.
    func leave() {
        for worker in self.machine.workers.indices where self.machine.workers[worker].isLive {
            self.send(.goodbye(.leaving), toWorker: worker)
        }
        self.isUp = false
    }

    // MARK: From clients

    func received(_ packet: Packet, fromClient connection: Connection) throws(Violation) {
        var client: Int?
        if case .client(let index) = self.machine.peer(route: connection.route) {
            client = index
            self.machine.heard(from: .client(index), at: self.now)
        }
        switch (packet, client) {
        case (.hello(let id, let epoch, let claimed, let stamp), _):
            try self.takeHello(id, epoch: epoch, claimed: claimed, stamp: stamp, by: connection)
        case (_, nil): self.cluster.sendToClient(.reset, by: connection)
        case (.define(let number), let client?):
            try check(self.machine.defined(number, name: "f\(number)", by: client), "too many functions")
        case (.request(let header, let key, let token), let client?):
            self.loosen(token, by: connection)
            try self.takeRequest(header, key: key, token: token, client: client)
        case (.cancel(let id), let client?):
            let isKnown = self.machine.cancelReceived(
                id,
                reason: .requested,
                from: client,
                at: self.now,
                actions: &self.actions
            )
            if !isKnown { self.send(.cancelled(id, .unknown), toClient: client) }
        case (.deadline(let id, let time), let client?):
            for held in self.held.values where held.id == id && held.client == client {
                self.loosen(held.token, by: connection)
            }
            self.machine.deadlineReceived(id, time: time, from: client, at: self.now, actions: &self.actions)
        case (.beat(let epoch, let stamp, let isNewClock), let client?):
            if self.machine.clients[client].epoch != epoch {
                self.cluster.sendToClient(.reset, by: connection)
            } else {
                let number = isNewClock ? Header.newClock : 0
                self.stamped(Header(.beat, time: stamp, number: number), client, by: connection)
            }
        case (.ping(let id), let client?): self.send(.pong(id), toClient: client)
        case (.goodbye, let client?): self.machine.clientLeft(client, at: self.now, actions: &self.actions)
        case (.invocationAnswer(let id, let token), let client?):
            if let (worker, id) = self.machine.invocationAnswered(id, by: client) {
                self.send(.invocationAnswer(id: id, token: token), toWorker: worker)
            }
        case (.invocationFailed(let id), let client?):
            if let (worker, id) = self.machine.invocationAnswered(id, by: client) {
                self.send(.invocationFailed(id: id), toWorker: worker)
            }
        case (.ended(let subscription), let client?):
            self.machine.endedReceived(subscription, from: client, actions: &self.actions)
        case (.flow(let subscription, let isPaused), let client?):
            self.machine.flowReceived(subscription, isPaused: isPaused, from: client, actions: &self.actions)
        case (.part, _), (.partTaken, _), (.partEnded, _): break
        default: throw Violation("a broker received \(packet) from a client")
        }
        try self.turn()
    }

    private func takeHello(
        _ id: PeerID,
        epoch: UInt64,
        claimed: UInt32,
        stamp: UInt32,
        by connection: Connection
    ) throws(Violation) {
        let introduction = self.machine.helloReceived(
            client: id,
            epoch: epoch,
            claimed: claimed,
            route: connection.route,
            at: self.now,
            actions: &self.actions
        )
        if case .welcome(let client, _) = introduction {
            self.stamped(Header(.hello, time: stamp), client, by: connection)
        }
        try self.performActions()
        if introduction == .forgotten {
            let welcome = Packet.welcome(
                epoch: self.epoch,
                session: 0,
                window: Self.window,
                isResumed: false,
                answers: epoch
            )
            return self.cluster.sendToClient(welcome, by: connection)
        }
        guard case .welcome(let client, let isResumed) = introduction else { throw Violation("a client was refused") }
        let number = self.machine.clients[client].number
        self.send(
            .welcome(
                epoch: self.epoch,
                session: number,
                window: Self.window,
                isResumed: isResumed,
                answers: epoch
            ),
            toClient: client
        )
        if isResumed { for statement in self.machine.statements(to: client) { self.send(statement) } }
    }

    private func stamped(_ header: Header, _ client: Int, by connection: Connection) {
        self.machine.stamped(header, from: client, at: self.now)
        connection.stamped(header, at: self.cluster.now)
    }

    /// A call's deadline was said by a connection.
    private func loosen(_ token: UInt64, by connection: Connection) {
        guard let record = self.cluster.records[token] else { return }
        record.slack = max(record.slack, connection.slack)
    }

    private func takeRequest(_ header: Header, key: String?, token: UInt64, client: Int) throws(Violation) {
        guard let record = self.cluster.records[token] else { throw Violation("a request that nobody made") }
        var request = BrokerRequest(id: header.id, number: header.number)
        request.time = header.time
        request.isIdempotent = header.flags.contains(.idempotent)
        request.isResent = header.flags.contains(.resent)
        request.isRenewed = header.flags.contains(.renewed)
        request.priority = record.priority
        request.demands = record.demands
        request.key = key
        let verdict = self.machine.requestReceived(request, from: client, at: self.now, actions: &self.actions)
        switch verdict {
        case .taken(let slot):
            self.taken += 1
            try check(self.held[slot] == nil, "slot \(slot) was given out twice")
            self.held[slot] = Held(token: token, key: key, number: self.taken, id: header.id, client: client)
        case .known(let slot):
            try check(self.held[slot]?.token == token, "request \(header.id) is known, but as another")
        case .answerAgain:
            var packet: Packet?
            unsafe self.machine.withResult(header.id, of: client) { message in
                let token = unsafe message.loadUnaligned(fromByteOffset: 0, as: UInt64.self)
                let kind = unsafe message[8]
                if kind >= 2, let stage = CancelledStage(rawValue: UInt32(kind) - 2) {
                    packet = .cancelled(header.id, stage)
                } else {
                    packet = .answer(id: header.id, token: token, isError: kind == 1)
                }
            }
            guard let packet else { throw Violation("the answer to \(header.id) is held, and is not") }
            self.send(packet, toClient: client)
        case .indeterminate:
            try check(!request.isIdempotent, "an idempotent request is indeterminate")
            self.send(.answer(id: header.id, token: token, isError: true), toClient: client)
        case .busy, .tooManyBytes, .draining, .tooManyRoutes, .overQuota:
            self.send(.answer(id: header.id, token: token, isError: true), toClient: client)
        case .lapsed:
            try check(record.earliest <= self.now, "request \(header.id) lapsed before its time was over")
            self.remember(header.id, token, 2 + UInt8(CancelledStage.lapsed.rawValue), client, isRemoval: true)
            self.send(.cancelled(header.id, .lapsed), toClient: client)
        case .duplicateID, .undefinedFunction, .tooManyFunctions:
            throw Violation("the broker says \(verdict) to request \(header.id)")
        }
    }

    // MARK: From workers

    /// The connection of a worker was closed, as is seen when something is sent by it.
    func sawClosing(of connection: Connection) throws(Violation) {
        guard case .worker(let worker) = self.machine.peer(route: connection.route) else { return }
        self.machine.unreachable(worker, at: self.now, actions: &self.actions)
        if self.machine.workers[worker].isLive, self.machine.workers[worker].offer.notices {
            self.closedAt[worker] = self.closedAt[worker] ?? self.cluster.now
        }
        try self.turn()
    }

    func received(_ packet: Packet, fromWorker connection: Connection) throws(Violation) {
        if case .offer(let offer) = packet {
            let worker = self.machine.offerReceived(
                offer,
                route: connection.route,
                at: self.now,
                actions: &self.actions
            )
            try check(worker != nil, "a worker was refused")
            if let worker {
                self.machine.heard(from: .worker(worker), at: self.now)
                self.closedAt[worker] = nil
            }
            return try self.turn()
        }
        guard case .worker(let worker) = self.machine.peer(route: connection.route) else {
            if case .goodbye = packet { return }
            if case .reset = packet { return }
            return self.cluster.sendToWorker(.reset, by: connection)
        }
        self.machine.heard(from: .worker(worker), at: self.now)
        switch packet {
        case .welcome(let epoch, let session, let window, _, _, let answered):
            // The answer to an introduction of a former session.
            guard answered == self.epoch &+ self.machine.workers[worker].incarnation else { break }
            self.machine.welcomed(
                by: worker,
                epoch: epoch,
                session: session,
                window: window,
                at: self.now,
                actions: &self.actions
            )
        case .ready(let epoch, let isQuiet, let isStarved):
            self.machine.readyReceived(
                from: worker,
                epoch: epoch,
                isQuiet: isQuiet,
                isStarved: isStarved,
                at: self.now,
                actions: &self.actions
            )
        case .goodbye(let reason):
            self.machine.goodbyeReceived(from: worker, reason: reason, at: self.now, actions: &self.actions)
        case .reset: self.machine.resetReceived(from: worker, at: self.now, actions: &self.actions)
        case .answer(let id, let token, let isError): try self.answered(id, token, isError, from: worker)
        case .cancelled(let id, let stage):
            if let addressee = self.machine.addressee(id, from: worker) { self.leaveKey(addressee.slot) }
            self.machine.cancellationConfirmed(id, stage: stage, from: worker, at: self.now, actions: &self.actions)
        case .phase(let id, let phase, let hold):
            guard let addressee = self.machine.addressee(id, from: worker) else { break }
            self.machine.phaseReported(
                addressee.slot,
                isStarted: phase == .running,
                isStalled: false,
                hold: hold,
                at: self.now,
                actions: &self.actions
            )
            if let client = addressee.client { self.send(.phase(addressee.id, phase, hold), toClient: client) }
        case .bind, .event, .invoke, .emitted, .ended:
            if self.machine.isInSession(worker) { self.takeCallback(packet, worker) }
        case .part, .partTaken, .partEnded: break
        default: throw Violation("a broker received \(packet) from a worker")
        }
        try self.turn()
    }

    private func takeCallback(_ packet: Packet, _ worker: Int) {
        switch packet {
        case .bind(let number, let subscription, let client):
            if !self.machine.bound(number, to: UInt64(subscription), of: client, by: worker, actions: &self.actions) {
                self.send(.ended(number), toWorker: worker)
            } else if self.machine.isPaused(number, of: worker) {
                self.send(.flow(number, isPaused: true), toWorker: worker)
            }
        case .event(let number, let sequence, let source):
            guard let delivery = self.machine.eventReceived(number, sequence: sequence, from: worker) else {
                return self.send(.ended(number), toWorker: worker)
            }
            self.send(.event(delivery.subscription, sequence: delivery.id, source), toClient: delivery.client)
        case .invoke(let number, let id, let source):
            guard let delivery = self.machine.invocationReceived(number, id: id, from: worker) else {
                return self.send(.invocationFailed(id: id), toWorker: worker)
            }
            self.send(.invoke(delivery.subscription, id: delivery.id, source), toClient: delivery.client)
        case .emitted(let number, let next):
            let question = self.machine.questionReceived(0, afterEventsOf: number, next: next, from: worker)
            guard let question else { return }
            _ = self.machine.questionAnswered(question.id, by: question.client)
            self.send(question)
        case .ended(let number):
            guard let ended = self.machine.endedReceived(number, by: worker, actions: &self.actions) else { return }
            self.send(.ended(ended.subscription), toClient: ended.client)
        default: break
        }
    }

    private func send(_ question: BrokerMachine.PassedQuestion) {
        guard case .subscription(let subscription) = question.stream, let next = question.next else { return }
        self.send(.emitted(subscription, next: next), toClient: question.client)
        if question.isEnded { self.send(.ended(subscription), toClient: question.client) }
    }

    private func answered(_ id: UInt64, _ token: UInt64, _ isError: Bool, from worker: Int) throws(Violation) {
        let before = self.machine.addressee(id, from: worker)
        if let before {
            // Another of the key may go within the next call.
            guard let held = self.held[before.slot] else { throw Violation("an answer to nothing") }
            try check(held.token == token, "request \(before.id) was given the answer of another")
            self.leaveKey(before.slot)
        }
        // Some workers say how long a handler ran, some don't.
        let addressee = self.machine.answered(
            id,
            ranMicroseconds: UInt32(token % 3) * UInt32(token % 5000),
            from: worker,
            at: self.now,
            actions: &self.actions
        )
        try check(addressee == before, "an answer's addressee changed")
        guard let addressee else { return }
        self.held[addressee.slot] = nil
        guard let client = addressee.client else { return }
        self.remember(addressee.id, token, isError ? 1 : 0, client)
        self.send(.answer(id: addressee.id, token: token, isError: isError), toClient: client)
    }

    private func remember(_ id: UInt64, _ token: UInt64, _ kind: UInt8, _ client: Int, isRemoval: Bool = false) {
        var message = [UInt8](repeating: 0, count: 16)
        unsafe message.withUnsafeMutableBytes { bytes in
            unsafe bytes.storeBytes(of: token, as: UInt64.self)
            unsafe bytes[8] = kind
        }
        unsafe message.withUnsafeBytes { bytes in
            unsafe self.machine.remember(id, message: bytes, of: client, isRemoval: isRemoval)
        }
    }

    // MARK: A turn

    func turn() throws(Violation) {
        guard self.isUp else { return }
        try self.performActions()
        if self.machine.nextDeadline <= self.now {
            self.machine.ticked(at: self.now, actions: &self.actions)
            try self.performActions()
        }
        try self.checkClosed()
        try self.checkInvariants()
        let next = max(self.machine.nextDeadline.nanoseconds, self.cluster.now)
        guard next != .max, next < self.wakeAt || self.wakeAt <= self.cluster.now else { return }
        self.wakeAt = next + UInt64(self.cluster.random.below(1_000_000))
        self.cluster.add(.wakeBroker(broker: self.index, life: self.life), after: self.wakeAt - self.cluster.now)
    }

    private func performActions() throws(Violation) {
        let actions = self.actions
        self.actions.removeAll(keepingCapacity: true)
        // Calls that are given back within the same step leave their key before the next one goes.
        for action in actions {
            switch action {
            case .finish(let slot, _, _, _), .release(let slot): self.leaveKey(slot)
            case .workerLost(let worker, _, _): self.leaveKeys(of: worker)
            default: break
            }
        }
        for action in actions { try self.perform(action) }
    }

    private func perform(_ action: BrokerAction) throws(Violation) {
        switch action {
        case .transmit(let slot, let worker, let id, let isResent):
            try self.transmit(slot, worker: worker, id: id, isResent: isResent)
        case .define(let worker, let function):
            self.send(
                .defineAs(self.machine.number(of: function), name: self.machine.functionName(function)),
                toWorker: worker
            )
        case .sendHello(let worker, let session):
            let epoch = self.epoch &+ self.machine.workers[worker].incarnation
            let stamp = self.departures[worker, default: DepartureClock()].hello(at: self.now)
            self.send(.hello(client: self.identity, epoch: epoch, claimed: session, stamp: stamp), toWorker: worker)
        case .sendClientBeat(let client): self.send(.beat(epoch: self.epoch), toClient: client)
        case .sendWorkerBeat(let worker):
            let epoch = self.epoch &+ self.machine.workers[worker].incarnation
            let beat = self.departures[worker, default: DepartureClock()].beat(epoch: epoch, at: self.now)
            self.send(Packet(beat), toWorker: worker)
        case .sendCredit(let worker, let credit, _):
            let known = self.machine.workers[worker]
            try check(credit >= 1 && credit <= known.window, "a credit of \(credit) in a window of \(known.window)")
        case .sendCancel(let worker, let id, _): self.send(.cancel(id), toWorker: worker)
        case .recall(let worker, let id): self.send(.recall(id), toWorker: worker)
        case .restamp(let worker): self.departures[worker]?.wasMistaken()
        case .sendDeadline(let worker, let id, let deadline):
            let time = self.timeLeft(until: deadline, for: worker)
            self.send(.deadline(id, time: time), toWorker: worker)
        case .finish(let slot, let client, let id, let ending): try self.finish(slot, client, id, ending)
        case .release(let slot):
            try check(self.held.removeValue(forKey: slot) != nil, "slot \(slot) is released, and nothing is in it")
        case .clientLost, .workerLost, .tellStalled, .tellServed: break
        case .endSubscription(let worker, let number): self.send(.ended(number), toWorker: worker)
        case .endClientSubscription(let client, let subscription):
            if self.machine.clients[client].isLive { self.send(.ended(subscription), toClient: client) }
        case .sendFlow(let worker, let number, let isPaused):
            self.send(.flow(number, isPaused: isPaused), toWorker: worker)
        case .answerQuestion: break
        case .failInvocation(let worker, let id, _): self.send(.invocationFailed(id: id), toWorker: worker)
        }
    }

    private func transmit(_ slot: UInt32, worker: Int, id: UInt64, isResent: Bool) throws(Violation) {
        // It may have been given back or lost within the same step.
        guard self.machine.addressee(id, from: worker) != nil else { return }
        guard let held = self.held[slot], let record = self.cluster.records[held.token] else {
            throw Violation("slot \(slot) was sent, and nothing is in it")
        }
        let call = self.machine.call(in: slot)
        let known = self.machine.workers[worker]
        if !isResent {
            try check(
                known.occupying <= known.credit,
                "worker \(worker) has \(known.occupying) beside those that it holds, may \(known.credit)"
            )
            try check(known.outstanding <= known.window, "worker \(worker) has more than its window")
            try check(!known.isQuiet && !known.isDraining && known.isOpen, "worker \(worker) takes nothing")
            try check(call.deadline > self.now, "request \(held.id) was sent after its time")
            if let key = held.key {
                let other = self.keysAtWork[key]
                try check(other == nil || other == slot, "two requests of key \(key) are at workers")
                try check(self.lastSent[key] ?? 0 <= held.number, "requests of key \(key) were sent in another order")
                self.keysAtWork[key] = slot
                self.lastSent[key] = held.number
            }
        }
        try check(record.isIdempotent || call.sends <= 1, "request \(held.id) isn't idempotent and was sent twice")
        var flags = Header.Flags()
        if record.isIdempotent { flags.insert(.idempotent) }
        if isResent { flags.insert(.resent) }
        let time = self.timeLeft(until: call.deadline, for: worker)
        let number = self.machine.functionNumber(in: slot)
        let header = Header(.request, flags: flags, id: id, time: time, number: number)
        self.send(.request(header, key: held.key, token: held.token), toWorker: worker)
    }

    private func finish(_ slot: UInt32, _ client: Int, _ id: UInt64, _ ending: BrokerEnding) throws(Violation) {
        guard let held = self.held.removeValue(forKey: slot) else {
            throw Violation("slot \(slot) ended as \(ending), and nothing is in it")
        }
        try check(held.id == id && held.client == client, "slot \(slot) ended for another call")
        // It may have gone in the same tick.
        guard self.machine.clients[client].isLive else { return }
        switch ending {
        case .cancelled(let stage):
            self.remember(id, held.token, 2 + UInt8(stage.rawValue), client, isRemoval: stage.isRemoval)
            self.send(.cancelled(id, stage), toClient: client)
        case .revoked, .lost, .forbidden, .poison, .declined, .noWorker, .afterRun:
            self.remember(id, held.token, 1, client)
            self.send(.answer(id: id, token: held.token, isError: true), toClient: client)
        }
    }

    private func leaveKey(_ slot: UInt32) {
        guard let key = self.held[slot]?.key, self.keysAtWork[key] == slot else { return }
        self.keysAtWork[key] = nil
    }

    private func leaveKeys(of worker: Int) {
        for (key, slot) in self.keysAtWork where self.machine.call(in: slot).worker != Int32(worker) {
            if self.machine.call(in: slot).state != .sent { self.keysAtWork[key] = nil }
        }
    }

    /// As a header has it, behind the stamp that it counts from.
    private func timeLeft(until deadline: Instant, for worker: Int) -> UInt32 {
        let epoch = self.epoch &+ self.machine.workers[worker].incarnation
        let (time, beat) = self.departures[worker, default: DepartureClock()]
            .time(until: deadline, epoch: epoch, at: self.now)
        if let beat { self.send(Packet(beat), toWorker: worker) }
        return time
    }

    private func send(_ packet: Packet, toClient client: Int) {
        self.machine.sent(to: .client(client), at: self.now)
        guard let connection = self.cluster.connections[self.machine.clients[client].route] else { return }
        self.cluster.sendToClient(packet, by: connection)
    }

    private func send(_ packet: Packet, toWorker worker: Int) {
        guard self.machine.workers[worker].isLive else { return }
        self.machine.sent(to: .worker(worker), at: self.now)
        guard let connection = self.cluster.connections[self.machine.workers[worker].route] else { return }
        self.cluster.sendToWorker(packet, by: connection)
    }

    /// A worker that closed its connection, and isn't back in time, is lost.
    private func checkClosed() throws(Violation) {
        let pause = self.cluster.now - max(self.lastTurn, 1)
        self.lastTurn = self.cluster.now
        for (worker, time) in self.closedAt {
            guard self.machine.workers[worker].isLive else {
                self.closedAt[worker] = nil
                continue
            }
            // What the broker missed doesn't count.
            let start = pause > Cluster.limits.returnNanoseconds / 4 ? time + pause : time
            self.closedAt[worker] = start
            try check(
                self.cluster.now < start + 2 * Cluster.limits.returnNanoseconds,
                "broker \(self.index) keeps worker \(worker), whose connection is closed"
            )
        }
    }

    private func checkInvariants() throws(Violation) {
        try check(self.machine.callCount == self.held.count, "the machine has other calls than the broker")
        // In place: a copy of a worker costs much, and this is asked in every turn.
        let live = self.machine.workers.indices.filter { self.machine.workers[$0].isLive }
        let idle = live.filter { index in
            self.machine.workers[index].outstanding
                < min(self.machine.workers[index].credit, self.machine.workers[index].offer.concurrency)
                && self.machine.workers[index].isOpen
                && !self.machine.workers[index].isQuiet && !self.machine.workers[index].isDraining
                && !self.machine.workers[index].isRefusing
                // Each of these must have its reason, see below.
                && !self.machine.workers[index].isPaused && !self.machine.workers[index].isReserved
                && self.machine.workers[index].alone == nil
        }
        try self.checkHeldBack(live)
        let outstanding = live.reduce(0) { $0 + self.machine.workers[$1].outstanding }
        try check(outstanding == self.machine.sentCount, "the workers have \(outstanding) of \(self.machine.sentCount)")
        try check(
            self.machine.sentCount + self.machine.queuedCount == self.held.count,
            "\(self.machine.sentCount) at workers and \(self.machine.queuedCount) waiting are not \(self.held.count)"
        )
        if !idle.isEmpty, self.machine.queuedCount > 0 { try self.checkWaiting(idle) }
        self.turns += 1
        if self.turns.isMultiple(of: 8) { try self.checkCalls() }
    }

    private func checkWaiting(_ idle: [Int]) throws(Violation) {
        for (slot, held) in self.held where self.machine.call(in: slot).state == .queued {
            guard let record = self.cluster.records[held.token] else { continue }
            for worker in idle where self.isSuitable(worker, for: record) {
                // What it has may occupy the resources.
                let hasLeft =
                    record.demands?.resources.isEmpty != false || self.machine.workers[worker].outstanding == 0
                let isFree = hasLeft && !self.machine.isClosed(worker, forCallIn: slot)
                try check(!isFree, "call \(held.id) waits though worker \(worker) has room")
            }
        }
    }

    private func isSuitable(_ worker: Int, for record: CallRecord) -> Bool {
        self.machine.workers[worker].offer.functions.contains(record.functionName)
            && (record.demands.map { self.machine.workers[worker].offer.satisfies($0) } ?? true)
    }

    /// What keeps a worker with room from calls must be a suspect that is alone there, or one that waits for it to be empty, or
    /// that it has declined what it was sent, and then not for long.
    private func checkHeldBack(_ live: [Int]) throws(Violation) {
        let apart = self.held.filter { self.machine.call(in: $0.key).state == .apart }
        for worker in live {
            if let slot = self.machine.workers[worker].alone {
                let call = self.machine.call(in: slot)
                try check(
                    call.state == .sent && call.worker == Int32(worker) && call.attempts > 1,
                    "worker \(worker) is kept for slot \(slot) alone, and doesn't have it"
                )
            }
            if self.machine.workers[worker].isReserved {
                let isWanted = apart.values.contains { held in
                    self.cluster.records[held.token].map { self.isSuitable(worker, for: $0) } ?? false
                }
                try check(isWanted, "worker \(worker) is kept free, and nothing waits for that")
            }
            guard self.machine.workers[worker].isPaused else {
                self.pausedSince[worker] = nil
                continue
            }
            let since = self.pausedSince[worker] ?? self.cluster.now
            self.pausedSince[worker] = since
            try check(self.cluster.now - since < 1_100_000_000, "worker \(worker) is paused for too long")
        }
        for held in apart.values {
            guard let record = self.cluster.records[held.token] else { continue }
            // The machine's wheels turn once a millisecond.
            let past = Instant(nanoseconds: self.cluster.now - 1_100_000)
            let suitable = live.filter {
                self.machine.workers[$0].takesCalls && !self.machine.workers[$0].isResting(at: past)
                    && self.isSuitable($0, for: record)
            }
            let isIdle = suitable.contains { self.machine.workers[$0].outstanding == 0 }
            try check(!isIdle, "call \(held.id) waits to be alone though a worker has nothing")
            let isExpected = live.contains {
                self.machine.workers[$0].isReserved && self.isSuitable($0, for: record)
            }
            try check(suitable.isEmpty || isExpected, "call \(held.id) waits to be alone, and no worker is emptied")
        }
    }

    private func checkCalls() throws(Violation) {
        var sent = 0
        for (slot, held) in self.held {
            let call = self.machine.call(in: slot)
            try check(call.state != .ended, "slot \(slot) is free, and call \(held.id) is in it")
            if call.state == .sent {
                sent += 1
            } else if call.deadline != .distantFuture {
                let overdue = self.now.nanoseconds(since: call.deadline)
                try check(overdue < 4_000_000, "call \(held.id) waits \(overdue) ns after its time")
            }
        }
        try check(self.machine.sentCount == sent, "\(self.machine.sentCount) ids for \(sent) calls at workers")
    }

    /// Nothing is kept for calls.
    var isIdle: Bool {
        self.machine.callCount == 0 && self.machine.sentCount == 0 && self.machine.timerCount == 0
            && self.machine.queuedCount == 0 && self.machine.heldCount == 0 && self.machine.keyCount == 0
            && self.machine.flowCount == 0
    }

    var tables: String {
        "calls \(self.machine.callCount), sent \(self.machine.sentCount), timers \(self.machine.timerCount), queued "
            + "\(self.machine.queuedCount), keys \(self.machine.keyCount), flows \(self.machine.flowCount)"
    }
}
