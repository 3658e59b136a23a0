// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import DroverZMQ
internal import Logging
internal import Synchronization

/// The broker's thread, which owns the ROUTER socket, feeds the machine, and performs its actions.
///
/// One turn: receive a bounded batch, split each frame into messages, let the machine decide, regroup the output by
/// peer, and flush at the end. The loop waits only on its socket, and only when there is nothing to do.
final class BrokerLoop {
    let core: BrokerCore
    let port: RouterPort
    @safe @exclusivity(unchecked) var machine: BrokerMachine
    @safe @exclusivity(unchecked) var clientLinks: [PeerLink?] = []
    @safe @exclusivity(unchecked) var workerLinks: [PeerLink?] = []
    /// The unanswered requests, by slot.
    @safe @exclusivity(unchecked) var requests: [StoredRequest?] = []
    @safe @exclusivity(unchecked) var actions: [BrokerAction] = []
    @safe @exclusivity(unchecked) var dirty: [PeerLink] = []
    @safe @exclusivity(unchecked) var blocked: [PeerLink] = []
    /// Peers that messages are being sent to in parts.
    @safe @exclusivity(unchecked) var sendingParts: [PeerLink] = []
    let partBudget: PartBudget
    /// What is waiting to be sent to clients in parts.
    let unsent = UnsentTally()
    /// Bytes that were sent to clients and not yet read, in total.
    @safe @exclusivity(unchecked) var unreadBytes = 0
    let unreadLimit: UnreadLimit
    /// How much is kept of large answers, and the size from which they are kept.
    let kept: KeptTally
    let leastKeptBytes: Int
    /// When the next warning about forgotten answers may be logged.
    @safe @exclusivity(unchecked) var nextForgottenReport = Instant(nanoseconds: 0)
    @safe @exclusivity(unchecked) var lastUnreadQuestion: UInt64 = 0
    /// When the next warning about calls that wait for their client to read may be logged.
    @safe @exclusivity(unchecked) var nextHoldUpReport = Instant(nanoseconds: 0)
    /// When the next warning about requests at their byte limit may be logged.
    @safe @exclusivity(unchecked) var nextBytesReport = Instant(nanoseconds: 0)
    /// Workers that couldn't be sent something in this turn, with the route that was tried.
    @safe @exclusivity(unchecked) var unreachable: [(link: PeerLink, routingID: [UInt8])] = []
    /// Whether the monitor may have something to report.
    @safe @exclusivity(unchecked) var mayHaveClosings = true
    /// Closed connections, by descriptor, whose workers are to be probed.
    @safe @exclusivity(unchecked) var closings: [Closing] = []
    /// The open connections, if the broker has keys.
    @safe @exclusivity(unchecked) var connections = OpenConnections()
    /// Watches for connections over which no session has been introduced.
    @safe @exclusivity(unchecked) var gate = ListenerGate()
    /// The descriptor of the connection that the current frame arrived over, if no peer is known by its route.
    @safe @exclusivity(unchecked) var strangersDescriptor: CInt = -1
    @safe @exclusivity(unchecked) var now: Instant
    @safe @exclusivity(unchecked) var nextTick = Instant.distantFuture
    /// The broker's own functions, by the numbers that clients gave them.
    @safe @exclusivity(unchecked) var questions: [QuestionKey: Question] = [:]
    /// The generation of the allow-list that the sessions were last checked against.
    @safe @exclusivity(unchecked) var accessGeneration: UInt64 = 1
    /// When the next warning about too few descriptors for all sessions may be logged.
    @safe @exclusivity(unchecked) var nextPlacesWarning = Instant(nanoseconds: 0)
    @safe @exclusivity(unchecked) var idle = IdleWatch()
    /// How many calls had been received when the loop last looked.
    @safe @exclusivity(unchecked) private var lastReceived = 0

    /// The most frames that one turn receives.
    static let receiveBatch = 512
    /// How often a busy loop checks what is due.
    static let busyTickNanoseconds: UInt64 = 10_000_000

    /// Binds the socket.
    @available(*, noasync)
    init(core: BrokerCore, address: String) throws(ZMQError) {
        self.core = core
        let configuration = core.configuration
        self.partBudget = PartBudget(
            maxPayloadBytes: configuration.maxPayloadBytes,
            counters: core.counters.parts
        )
        let limit = UnreadLimit(perClient: configuration.maxUnreadBytes)
        self.unreadLimit = limit
        self.kept = KeptTally(limit: limit)
        self.leastKeptBytes = AnswerKeep.leastBytes(maxCachedBytes: configuration.maxCachedResultBytes)
        let socket = try Socket(.router, in: core.context.context)
        try socket.set(.routerMandatory, true)
        try socket.prepare(
            for: [address],
            maxPayloadBytes: configuration.maxPayloadBytes,
            maxFrameBytes: configuration.maxFrameBytes
        )
        try socket.set(.handshakeInterval, configuration.handshakeLimit)
        try socket.set(.backlog, configuration.backlog)
        if let keys = configuration.keys, let access = core.access {
            try socket.listenEncrypted(keys.own, domain: access.domain)
        }
        // A ROUTER doesn't report that a peer's connection was closed.
        let monitor = try socket.monitor(ListenerGate.events.union(.handshakeFailedProtocol))
        try socket.bindPatiently(address, mode: configuration.socketMode)
        self.port = try RouterPort(socket: socket, monitor: monitor, logger: configuration.logger)
        var machine = BrokerMachine.Configuration(seed: core.randomness.seed)
        machine.session = PeerSession.Limits(
            beatNanoseconds: configuration.heartbeatInterval.clampedNanoseconds,
            silenceNanoseconds: configuration.silenceLimit.clampedNanoseconds
        )
        // A sixteenth of the heartbeat: with many peers, the loop wakes some ten times a second for heartbeats, not
        // once per peer.
        machine.session.gridNanoseconds = machine.session.beatNanoseconds / 16
        machine.window = configuration.window
        machine.maxQueued = configuration.maxQueuedCalls
        machine.maxQueuedPerRoute = configuration.maxQueuedCalls
        machine.maxQueuedBytes = configuration.roomForRequests
        machine.maxUnreadBytes = configuration.maxUnreadBytes
        machine.maxClients = configuration.maxClients
        machine.maxWorkers = configuration.maxWorkers
        machine.quotas = configuration.quotas.known
        machine.places = Places(descriptors: Descriptors.limit, open: Descriptors.openCount ?? 32)
        // Nor may one key take all of them.
        let half = max(16, machine.places.count / 2)
        machine.quotas.clients = machine.quotas.clients ?? min(half, configuration.usualClients)
        machine.quotas.workers = machine.quotas.workers ?? min(half, configuration.usualWorkers)
        machine.maxAttempts = UInt8(clamping: configuration.maxAttempts)
        machine.maxCachedBytes = configuration.maxCachedResultBytes
        machine.maxGrownBytes = configuration.maxUnreadBytes
        machine.patienceNanoseconds = configuration.noWorkerPatience.clampedNanoseconds
        self.machine = BrokerMachine(configuration: machine)
        self.now = core.now()
    }

    /// Where the broker listens, with the port that was chosen.
    @available(*, noasync)
    var address: String { get throws(ZMQError) { try self.port.socket.get(.lastEndpoint) } }

    /// Serves until the broker stops.
    @available(*, noasync)
    func run() {
        while true {
            self.turn()
            if self.mayLeave { return self.leave() }
            self.sleep()
        }
    }

    // MARK: A turn

    @available(*, noasync)
    func turn() {
        self.core.turns.store(self.core.turns.load(ordering: .relaxed) &+ 1, ordering: .relaxed)
        self.lookAfterAccess()
        let isBusy = self.receive()
        self.lookAfterClosings()
        // New calls have their own deadlines, and a busy loop doesn't sleep, which is when it would look for the
        // earliest.
        if isBusy { self.nextTick = min(self.nextTick, self.now.advanced(byNanoseconds: Self.busyTickNanoseconds)) }
        if self.now >= self.nextTick || !isBusy {
            self.now = self.core.now()
            if self.now >= self.nextTick {
                // As long as there is work, no poll checks the monitor.
                self.mayHaveClosings = true
                self.machine.ticked(at: self.now, actions: &self.actions)
                self.performActions()
                self.publishCounts()
                // What was due is done; the loop looks for what is due next before it sleeps.
                self.nextTick = self.machine.nextDeadline
            }
        }
        self.flush()
        self.noteUnreachable()
        if !isBusy { self.trim() }
    }

    @available(*, noasync)
    func receive() -> Bool {
        self.port.receive(atMost: Self.receiveBatch) { arrival, isFirst in
            if isFirst { self.now = self.core.now() }
            switch arrival {
            case .malformed(let error): self.malformed(error)
            case .frame: self.takeFrame()
            }
        }
    }

    @available(*, noasync)
    private func takeFrame() {
        let route = self.port.routeKey
        let attachedCount = self.port.attachedByteCount
        var peer = self.machine.peer(route: route)
        if self.core.access != nil, let known = peer, !self.isFrame(from: known) { peer = nil }
        if peer == nil { self.strangersDescriptor = self.port.message.sourceDescriptor }
        if let peer { self.machine.heard(from: peer, at: self.now) }
        if self.port.message.count > OutgoingBatch.flushBytes {
            // A large payload is sent on from where it is.
            let box = self.port.takeMessage(isAskedAgain: self.core.access != nil)
            unsafe box.withUnsafeBytes { bytes in
                unsafe self.takeMessages(bytes, of: box, attachedCount: attachedCount, route: route, &peer)
            }
        } else {
            unsafe self.port.message.withUnsafeBytes { bytes in
                unsafe self.takeMessages(bytes, of: nil, attachedCount: attachedCount, route: route, &peer)
            }
        }
    }

    @available(*, noasync)
    private func takeMessages(
        _ bytes: UnsafeRawBufferPointer,
        of frame: MessageBox?,
        attachedCount: Int?,
        route: UInt64,
        _ peer: inout BrokerPeer?
    ) {
        var limits = WireLimits.standard
        limits.maxPayloadBytes = self.core.configuration.maxPayloadBytes
        var reader = unsafe FrameReader(bytes, attachedByteCount: attachedCount, limits: limits)
        do throws(WireError) {
            while let part = try reader.next() {
                if part.isAttached {
                    let box = self.port.takeAttached()
                    unsafe box.withUnsafeBytes { payload in
                        let place = 0..<payload.count
                        let incoming = unsafe Incoming(header: part.header, payload: payload, range: place, box: box)
                        self.take(incoming, route: route, &peer)
                    }
                } else {
                    let payload = unsafe UnsafeRawBufferPointer(rebasing: bytes[part.payload])
                    let incoming = unsafe Incoming(
                        header: part.header,
                        payload: payload,
                        range: part.payload,
                        box: payload.count >= OutgoingBatch.flushBytes ? frame : nil
                    )
                    self.take(incoming, route: route, &peer)
                }
            }
        } catch {
            self.malformed(error)
            if peer == nil, error.code == .unsupportedVersion { self.refuse(.unsupported, "\(error)") }
            if case .client(let client) = peer, let header = reader.lastHeader, header.kind == .request {
                let code: RemoteError.Code = error.code == .tooLarge ? .tooLarge : .badArguments
                self.refuse(header.id, code, "\(error)", to: client, execution: .didNotRun)
            }
        }
    }

    @available(*, noasync)
    private func take(_ incoming: Incoming, route: UInt64, _ peer: inout BrokerPeer?) {
        switch (incoming.header.kind, peer) {
        case (.hello, .client), (.hello, nil): peer = self.welcome(incoming, route: route)
        case (.offer, .worker), (.offer, nil): peer = self.offered(incoming, route: route)
        case (.hello, _), (.offer, _):
            self.malformed(WireError(.badPayload, "a peer that is client and worker at once"))
        case (.part, .client(let client)):
            let origin = self.machine.origin(of: client, at: self.now)
            self.takePart(incoming, by: self.clientLinks[client], countedFrom: origin, route: route, &peer)
        case (.part, .worker(let worker)):
            self.takePart(incoming, by: self.workerLinks[worker], route: route, &peer)
        case (.partTaken, .client(let client)):
            self.partTaken(incoming.header, client)
        case (.partTaken, .worker(let worker)):
            self.workerLinks[worker]?.line.acknowledged(incoming.header, at: self.now)
        case (.partEnded, .client(let client)): self.clientLinks[client]?.line.ended(incoming.header)
        case (.partEnded, .worker(let worker)): self.workerLinks[worker]?.line.ended(incoming.header)
        case (let kind?, .client(let client)):
            self.take(incoming, kind, fromClient: client)
            // The client said goodbye, or was given up.
            if !self.machine.clients[client].isLive { peer = nil }
        case (let kind?, .worker(let worker)):
            self.take(incoming, kind, fromWorker: worker)
            // A goodbye or a new epoch may have ended the worker.
            if !self.machine.workers[worker].isLive { peer = self.machine.peer(route: route) }
        case (nil, .client(let client)):
            self.core.counters.unknown.countAlone()
            if incoming.header.flags.contains(.mustUnderstand), incoming.header.id != 0 {
                let message = "this broker does not know messages of kind \(incoming.header.rawKind); update it"
                self.refuse(incoming.header.id, .unsupported, message, to: client)
                if !self.machine.clients[client].isLive { peer = nil }
            }
        case (nil, .worker): self.core.counters.unknown.countAlone()
        case (.refused, nil), (.reset, nil): self.core.counters.unknown.countAlone()
        case (_, nil): self.reset()
        }
        self.performActions()
    }

    /// Takes a part of a large message and, if that completes it, the message.
    @available(*, noasync)
    private func takePart(
        _ incoming: Incoming,
        by link: PeerLink?,
        countedFrom origin: Instant? = nil,
        route: UInt64,
        _ peer: inout BrokerPeer?
    ) {
        guard let link else { return }
        let limit = self.core.configuration.maxPayloadBytes
        let (arrival, answer) = unsafe link.line.take(
            incoming.header,
            incoming.payload,
            maxPayloadBytes: limit,
            countedFrom: origin,
            at: self.now
        )
        if let answer { self.send(answer, to: link) }
        switch arrival {
        case .nothing: break
        case .whole(let box):
            unsafe box.withUnsafeBytes { bytes in
                unsafe self.takeMessages(bytes, of: box, attachedCount: nil, route: route, &peer)
            }
        case .refused(let message, let error):
            self.malformed(error)
            guard case .client(let client) = peer, message.kind == .request else { return }
            self.refuse(message.id, .tooLarge, "\(error)", to: client, execution: .didNotRun)
        case .malformed(let error): self.malformed(error)
        }
    }

    func malformed(_ error: WireError) {
        self.core.counters.malformed.countAlone()
        self.core.configuration.logger.debug("a malformed message was dropped", metadata: [LogKeys.error: "\(error)"])
    }

    // MARK: Sleeping and leaving

    @available(*, noasync)
    private func sleep() {
        guard self.port.isQuiet else { return }
        self.now = self.core.now()
        self.nextTick = self.machine.nextDeadline
        self.giveBackIfIdle()
        var wakeAt = min(self.nextTick, self.nextClosing, self.idle.nextDeadline, self.gate.nextLook)
        // Frames that libzmq wouldn't take are retried soon: a ROUTER can't say which peer has room.
        if !self.blocked.isEmpty { wakeAt = min(wakeAt, self.now.advanced(byNanoseconds: 1_000_000)) }
        if self.core.life.state == .draining { wakeAt = min(wakeAt, self.core.life.drainDeadline) }
        if wakeAt <= self.now { return }
        // These counts hold until something arrives.
        self.publishCounts()
        let wakeUp = self.port.wait(
            waker: self.core.waker.fileDescriptor,
            milliseconds: wakeAt.pollMilliseconds(at: self.now)
        )
        if wakeUp.isSignalled { self.core.waker.drain() }
        if wakeUp.monitorHasNews { self.mayHaveClosings = true }
        self.now = self.core.now()
    }

    func publishCounts() {
        self.core.counters.clients.store(self.machine.clientCount - self.onlookerCount, ordering: .relaxed)
        self.core.counters.workers.store(self.machine.workerCount, ordering: .relaxed)
        self.core.counters.queued.store(self.machine.queuedCount, ordering: .relaxed)
        self.core.counters.keptBytes.store(self.machine.keptBytes, ordering: .relaxed)
        self.core.counters.unreadBytes.store(self.unreadBytes + self.unsent.bytes, ordering: .relaxed)
        self.core.counters.heldUp.store(self.machine.heldUp.count, ordering: .relaxed)
        self.core.counters.forgottenNews.store(self.machine.forgottenNews, ordering: .relaxed)
        self.core.counters.sent.store(self.machine.sentCount, ordering: .relaxed)
        self.core.counters.closedNewcomers.store(self.gate.closedCount + self.gate.turnedAwayCount, ordering: .relaxed)
        self.core.counters.starved.store(Int(clamping: self.machine.starvedCount), ordering: .relaxed)
        self.core.counters.slots.store(self.machine.slotCount, ordering: .relaxed)
    }

    /// Gives memory back after a burst of calls.
    private func trim() {
        if self.machine.callCount == 0, self.requests.capacity > 4096 {
            self.machine.trim()
            self.requests = []
        }
    }

    /// Gives back the memory that calls needed, some seconds after the last one.
    private func giveBackIfIdle() {
        let received = self.core.counters.received.load(ordering: .relaxed)
        if self.machine.callCount > 0 || received != self.lastReceived || !self.blocked.isEmpty {
            self.lastReceived = received
            if self.machine.callCount > Self.manyCalls { HeapReserve.usedMuch() }
            self.idle.worked(at: self.now)
        } else if self.idle.isDue(at: self.now) {
            self.machine.trim()
            self.requests = []
            HeapReserve.giveBack()
        }
    }

    private static let manyCalls = 4096

    @available(*, noasync)
    private var mayLeave: Bool {
        switch self.core.life.state {
        case .running: return false
        case .draining:
            if !self.machine.isDraining {
                self.machine.drain()
                self.tellAll(Header(.goodbye, number: GoodbyeReason.draining.rawValue), workersToo: false)
            }
            return self.core.now() >= self.core.life.drainDeadline
                || self.machine.callCount == 0 && self.blocked.isEmpty && self.sendingParts.isEmpty && self.isCleared()
        case .stopping, .stopped: return true
        }
    }

    /// Whether no client has anything under way any more; asks those that haven't said so.
    ///
    /// A client whose connection is broken counts until its session is over: it may come back for its answers.
    private func isCleared() -> Bool {
        var isCleared = true
        for client in self.clientLinks.indices where self.machine.clients[client].isLive {
            guard let link = self.clientLinks[client] else { continue }
            if link.line.isSending || link.line.isReceiving || link.kept?.hasParts == true {
                isCleared = false
                continue
            }
            if link.clearance.mustAsk {
                let nonce = self.nextQuestion()
                link.clearance.asked(nonce)
                self.send(Header(.ping, id: nonce), to: link)
            }
            isCleared = isCleared && link.clearance.isClear
        }
        if !isCleared { self.flush() }
        return isCleared
    }

    private func tellAll(_ header: Header, workersToo: Bool) {
        for link in self.clientLinks + (workersToo ? self.workerLinks : []) {
            if let link { self.send(header, to: link) }
        }
        self.flush()
    }

    @available(*, noasync)
    private func leave() {
        self.tellAll(Header(.goodbye, number: GoodbyeReason.leaving.rawValue), workersToo: true)
        for request in self.requests { request?.free() }
        self.requests = []
        // The last messages must leave the machine; if the linger can't be set, that only shortens the goodbye.
        try? self.port.socket.set(.linger, .seconds(1))
    }
}

/// A received message, with its payload still in place.
@safe
struct Incoming {
    let header: Header
    let payload: UnsafeRawBufferPointer
    /// The payload's range in `box`.
    let range: Range<Int>
    /// The frame, if the payload is large enough to be sent on from there.
    let box: MessageBox?
}
