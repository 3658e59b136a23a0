// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import DroverZMQ
internal import Logging
internal import Synchronization

/// The broker's thread: owns the ROUTER socket, feeds the machine, carries out its actions.
///
/// One turn: receive a bounded batch, split each frame into messages, let the machine decide, regroup what goes out per
/// peer; flush at the end. It waits for nothing but its socket, and only when there is nothing to do.
final class BrokerLoop {
    let core: BrokerCore
    @safe @exclusivity(unchecked) var socket: Socket
    @safe @exclusivity(unchecked) var machine: BrokerMachine
    @safe @exclusivity(unchecked) var clientLinks: [PeerLink?] = []
    @safe @exclusivity(unchecked) var workerLinks: [PeerLink?] = []
    /// The requests that have not been answered, by slot.
    @safe @exclusivity(unchecked) var requests: [StoredRequest?] = []
    @safe @exclusivity(unchecked) var actions: [BrokerAction] = []
    @safe @exclusivity(unchecked) var dirty: [PeerLink] = []
    @safe @exclusivity(unchecked) var blocked: [PeerLink] = []
    /// Peers to which messages go in parts.
    @safe @exclusivity(unchecked) var sendingParts: [PeerLink] = []
    let partBudget: PartBudget
    /// What waits to go to clients in parts.
    let unsent = UnsentTally()
    /// What all clients were sent and have not read.
    @safe @exclusivity(unchecked) var unreadBytes = 0
    let unreadLimit: UnreadLimit
    /// What is kept of large answers, and from which size on it is.
    let kept: KeptTally
    let leastKeptBytes: Int
    /// When it may be logged again that answers were forgotten.
    @safe @exclusivity(unchecked) var nextForgottenReport = Instant(nanoseconds: 0)
    @safe @exclusivity(unchecked) var lastUnreadQuestion: UInt64 = 0
    /// When it may be logged again that a client's calls wait for it to read.
    @safe @exclusivity(unchecked) var nextHoldUpReport = Instant(nanoseconds: 0)
    /// When it may be logged again that requests take as many bytes as they may.
    @safe @exclusivity(unchecked) var nextBytesReport = Instant(nanoseconds: 0)
    /// Workers to which something could not be sent in this turn, with the route that it was to go by.
    @safe @exclusivity(unchecked) var unreachable: [(link: PeerLink, routingID: [UInt8])] = []
    /// Tells that connections were closed; nil if it can't be watched.
    @safe @exclusivity(unchecked) var monitor: Monitor?
    @safe @exclusivity(unchecked) var monitorDescriptor: CInt = -1
    /// The monitor may have something to tell.
    @safe @exclusivity(unchecked) var mayHaveClosings = true
    /// Connections that were closed, by descriptor, whose workers are to be tried.
    @safe @exclusivity(unchecked) var closings: [Closing] = []
    /// The connections that stand, if the broker has keys.
    @safe @exclusivity(unchecked) var connections = OpenConnections()
    /// Which of them nobody has introduced themselves by.
    @safe @exclusivity(unchecked) var gate = ListenerGate()
    /// The descriptor of the connection that the frame at hand came by, if nobody is known by its route.
    @safe @exclusivity(unchecked) var strangersDescriptor: CInt = -1
    @safe @exclusivity(unchecked) var frames = FramePool()
    @safe @exclusivity(unchecked) var route = Message()
    @safe @exclusivity(unchecked) var message = Message()
    @safe @exclusivity(unchecked) var attached = Message()
    @safe @exclusivity(unchecked) var poll = DescriptorPoll(capacity: 3)
    @safe @exclusivity(unchecked) var now: Instant
    @safe @exclusivity(unchecked) var nextTick = Instant.distantFuture
    /// The socket was used last by a receive that found nothing.
    @safe @exclusivity(unchecked) var isDrained = false
    /// What clients' function numbers ask of the broker itself.
    @safe @exclusivity(unchecked) var questions: [QuestionKey: Question] = [:]
    /// Which allow-list the links were last held against.
    @safe @exclusivity(unchecked) var accessGeneration: UInt64 = 1
    /// When the log may say again that there are too few descriptors for all sessions.
    @safe @exclusivity(unchecked) var nextPlacesWarning = Instant(nanoseconds: 0)
    @safe @exclusivity(unchecked) var idle = IdleWatch()
    /// How many calls had come when the loop looked last.
    @safe @exclusivity(unchecked) private var lastReceived = 0
    private let descriptor: CInt

    /// How many frames one turn receives at most.
    static let receiveBatch = 512
    /// How often a busy loop looks after what is due.
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
        // A ROUTER doesn't tell when a peer's connection is closed.
        let monitor = try socket.monitor(ListenerGate.events.union(.handshakeFailedProtocol))
        try socket.bindPatiently(address, mode: configuration.socketMode)
        self.descriptor = try socket.get(.fileDescriptor)
        self.monitorDescriptor = try monitor.fileDescriptor
        self.monitor = consume monitor
        self.socket = socket
        var machine = BrokerMachine.Configuration(seed: core.randomness.seed)
        machine.session = PeerSession.Limits(
            beatNanoseconds: configuration.heartbeatInterval.clampedNanoseconds,
            silenceNanoseconds: configuration.silenceLimit.clampedNanoseconds
        )
        // A sixteenth of the beat: with many peers it wakes some ten times a second to show signs of life, not once for each.
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
        // One key must not take all of them either.
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

    /// Where it listens, with the port that was chosen.
    @available(*, noasync)
    var address: String { get throws(ZMQError) { try self.socket.get(.lastEndpoint) } }

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
        // Calls that came have deadlines of their own, and a busy loop doesn't sleep, where it would look for the first.
        if isBusy { self.nextTick = min(self.nextTick, self.now.advanced(byNanoseconds: Self.busyTickNanoseconds)) }
        if self.now >= self.nextTick || !isBusy {
            self.now = self.core.now()
            if self.now >= self.nextTick {
                // While there is no end of work no poll looks after the monitor.
                self.mayHaveClosings = true
                self.machine.ticked(at: self.now, actions: &self.actions)
                self.performActions()
                self.publishCounts()
                // What was due is done; when something is next is seen before the loop sleeps.
                self.nextTick = self.machine.nextDeadline
            }
        }
        self.flush()
        self.noteUnreachable()
        if !isBusy { self.trim() }
    }

    @available(*, noasync)
    func receive() -> Bool {
        var count = 0
        while count < Self.receiveBatch {
            do throws(ZMQError) {
                guard try self.socket.receive(into: &self.route) else {
                    self.isDrained = true
                    break
                }
                if count == 0 { self.now = self.core.now() }
                count += 1
                try self.takeFrame()
            } catch {
                self.core.configuration.logger.warning("a receive failed", metadata: ["drover.error": "\(error)"])
                break
            }
        }
        return count > 0
    }

    @available(*, noasync)
    private func takeFrame() throws(ZMQError) {
        let route = self.routeKey()
        guard self.route.hasMore else { return self.malformed(WireError(.badFraming, "a message without a frame")) }
        _ = try self.socket.receive(into: &self.message)
        var attachedCount: Int?
        if self.message.hasMore {
            _ = try self.socket.receive(into: &self.attached)
            attachedCount = self.attached.count
            if self.attached.hasMore {
                while self.attached.hasMore { _ = try self.socket.receive(into: &self.attached) }
                return self.malformed(WireError(.badFraming, "a message of more than two frames"))
            }
        }
        var peer = self.machine.peer(route: route)
        if self.core.access != nil, let known = peer, !self.isFrame(from: known) { peer = nil }
        if peer == nil { self.strangersDescriptor = self.message.sourceDescriptor }
        if let peer { self.machine.heard(from: peer, at: self.now) }
        if self.message.count > OutgoingBatch.flushBytes {
            // A large payload is sent on from where it lies.
            let box = MessageBox(self.core.access == nil ? self.message.take() : self.message.share())
            unsafe box.withUnsafeBytes { bytes in
                unsafe self.takeMessages(bytes, of: box, attachedCount: attachedCount, route: route, &peer)
            }
        } else {
            unsafe self.message.withUnsafeBytes { bytes in
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
                    let box = MessageBox(self.attached.take())
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
            // It said goodbye, or was given up.
            if !self.machine.clients[client].isLive { peer = nil }
        case (let kind?, .worker(let worker)):
            self.take(incoming, kind, fromWorker: worker)
            // A goodbye or another epoch may have ended it.
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

    /// Takes a part of a large message, and the message if it is whole now.
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
        self.core.configuration.logger.debug("a malformed message was dropped", metadata: ["drover.error": "\(error)"])
    }

    /// Where a message comes from, as a number.
    private func routeKey() -> UInt64 {
        unsafe self.route.withUnsafeBytes { bytes in
            // The ids that libzmq gives are a zero byte and a number.
            if bytes.count == 5, unsafe bytes[0] == 0 {
                return unsafe UInt64(bytes.loadUnaligned(fromByteOffset: 1, as: UInt32.self))
            }
            return unsafe UInt64(hashOfRoute: bytes)
        }
    }

    // MARK: Sleeping and leaving

    @available(*, noasync)
    private func sleep() {
        guard self.isQuiet else { return }
        self.now = self.core.now()
        self.nextTick = self.machine.nextDeadline
        self.giveBackIfIdle()
        var wakeAt = min(self.nextTick, self.nextClosing, self.idle.nextDeadline, self.gate.nextLook)
        // Frames that libzmq would not take are tried again soon: a ROUTER can't say which peer has room.
        if !self.blocked.isEmpty { wakeAt = min(wakeAt, self.now.advanced(byNanoseconds: 1_000_000)) }
        if self.core.life.state == .draining { wakeAt = min(wakeAt, self.core.life.drainDeadline) }
        if wakeAt <= self.now { return }
        // Until something comes, this is how the broker is.
        self.publishCounts()
        self.poll.removeAll()
        let waker = self.poll.add(self.core.waker.fileDescriptor)
        _ = self.poll.add(self.descriptor)
        let monitor = self.monitor == nil ? nil : self.poll.add(self.monitorDescriptor)
        do throws(ZMQError) {
            try self.poll.wait(milliseconds: wakeAt.pollMilliseconds(at: self.now))
        } catch {
            self.core.configuration.logger.warning("a poll failed", metadata: ["drover.error": "\(error)"])
        }
        if self.poll.isReady(waker) { self.core.waker.drain() }
        if let monitor, self.poll.isReady(monitor) { self.mayHaveClosings = true }
        self.now = self.core.now()
    }

    @available(*, noasync)
    private var isQuiet: Bool {
        if self.isDrained { return true }
        do throws(ZMQError) {
            self.isDrained = !(try self.socket.get(.events).contains(.readable))
        } catch {
            self.core.configuration.logger.warning(
                "a look at the socket failed",
                metadata: ["drover.error": "\(error)"]
            )
            self.isDrained = true
        }
        return self.isDrained
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

    /// After a burst the memory it needed is given back.
    private func trim() {
        if self.machine.callCount == 0, self.requests.capacity > 4096 {
            self.machine.trim()
            self.requests = []
        }
    }

    /// Some seconds after the last call the memory that calls needed is given back.
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
    /// One whose connection is broken counts until its session is over: it may come back for its answers.
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
        // What was said last must leave the machine; a linger that can't be set only shortens the goodbye.
        try? self.socket.set(.linger, .seconds(1))
    }
}

/// A message that was received, with its payload where it lies.
@safe
struct Incoming {
    let header: Header
    let payload: UnsafeRawBufferPointer
    /// The payload's place in `box`.
    let range: Range<Int>
    /// The frame, if the payload is large enough to be sent on from there.
    let box: MessageBox?
}
