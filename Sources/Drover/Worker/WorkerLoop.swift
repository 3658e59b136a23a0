// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import DroverCodec
internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import DroverZMQ
internal import Glibc
internal import Logging
internal import Synchronization

/// The worker's I/O loop: owns the ROUTER socket, feeds the worker's machine, carries out its actions.
///
/// It belongs to the holder of the worker's token, one thread at a time. Handlers run on threads of their own, save those
/// that have proved to be quicker than the way there: they run here, while the loop is lent. If one of them takes longer
/// than the standby thread's patience (1 to 5 ms), that thread takes the loop over and goes on serving; see `WorkerLoopThreads`.
final class WorkerLoop {
    /// A request that runs beside the loop: its arguments lie in the arena.
    struct QuickJob {
        let slot: UInt32
        let handler: Handler
        let payload: Range<Int>
        /// For a request that came through a broker: the way of its callbacks.
        let callbacks: BrokeredCallbacks?
    }

    let core: WorkerCore
    let port: RouterPort
    @safe @exclusivity(unchecked) var machine: WorkerMachine
    /// The functions that are served, as far as the loop has learnt of them.
    @safe @exclusivity(unchecked) var handlers: [Handler] = []
    @safe @exclusivity(unchecked) var handlerNumbers: [String: Int32] = [:]
    @safe @exclusivity(unchecked) var links: [WorkerLink?] = []
    @safe @exclusivity(unchecked) var dirty: [Int] = []
    @safe @exclusivity(unchecked) var blocked: Set<Int> = []
    /// Sessions of clients that don't read their answers.
    @safe @exclusivity(unchecked) var heldUp: Set<Int> = []
    let unreadLimit: UnreadLimit
    /// Bytes of answers that clients have not read.
    @safe @exclusivity(unchecked) var unreadBytes = 0
    /// When it may be logged again that a client's requests wait for it to read.
    @safe @exclusivity(unchecked) var nextHoldUpReport = Instant(nanoseconds: 0)
    /// What is kept of large answers, and from which size on it is.
    let kept: KeptTally
    let leastKeptBytes: Int
    /// When it may be logged again that answers were forgotten.
    @safe @exclusivity(unchecked) var nextForgottenReport = Instant(nanoseconds: 0)
    /// What waits to go to clients in parts.
    let unsent = UnsentTally()
    /// Sessions to which messages go in parts.
    @safe @exclusivity(unchecked) var sendingParts: [Int] = []
    let partBudget: PartBudget
    @safe @exclusivity(unchecked) var jobs: [WorkerJob?] = []
    @safe @exclusivity(unchecked) var toRun: [WorkerJob] = []
    @safe @exclusivity(unchecked) var quick = Deque<QuickJob>()
    /// The request that the loop is lent to, if its handler has limits.
    @safe @exclusivity(unchecked) var lentSlot: UInt32?
    @safe @exclusivity(unchecked) var arena: [UInt8] = []
    /// Requests that wait in the machine: the frames with their arguments.
    @safe @exclusivity(unchecked) var held: [UInt32: HeldRequest] = [:]
    @safe @exclusivity(unchecked) var actions: [WorkerAction] = []
    @safe @exclusivity(unchecked) var now: Instant
    @safe @exclusivity(unchecked) var nextTick: Instant
    @safe @exclusivity(unchecked) var idle = IdleWatch()
    /// How many requests had come when the loop looked last.
    @safe @exclusivity(unchecked) var lastReceived = 0
    let isBound: Bool
    /// The connections of clients that stand, if the worker listens with keys.
    @safe @exclusivity(unchecked) var connections = OpenConnections()
    /// Which of them nobody has introduced themselves by.
    @safe @exclusivity(unchecked) var gate = ListenerGate()
    @safe @exclusivity(unchecked) var mayHaveDialEvents = true
    @safe @exclusivity(unchecked) var dials: [BrokerDial] = []
    /// What brokers were told of the worker's being quiet.
    @safe @exclusivity(unchecked) var isQuietTold = false
    @safe @exclusivity(unchecked) var isDrainAnnounced = false
    /// What the clients of brokers call requests that take long.
    @safe @exclusivity(unchecked) var origins = CallOrigins()
    /// What is known of handlers that wait for calls.
    @safe @exclusivity(unchecked) var waits = StallWatch()
    /// When the worker leaves by itself; nil for never.
    @safe @exclusivity(unchecked) var recycling: Recycling?
    /// Which allow-list the sessions were last held against.
    @safe @exclusivity(unchecked) var accessGeneration: UInt64 = 1
    /// How many sessions there may be: as many as are allowed, and as there are descriptors for.
    let places: Int
    /// The events that are being sent; empty in between.
    @safe @exclusivity(unchecked) var eventRun = EventRun()
    /// The session that was sent an event last.
    @safe @exclusivity(unchecked) var lastSession = 0
    /// Whether another thread stands by to take the loop over; without one no handler may run here.
    var hasStandby: Bool { self.core.standbyCount.load(ordering: .relaxed) > 0 }

    static let receiveBatch = 512
    /// With more quick requests at hand than this their number counts, not the time of each.
    static let gatherThreshold = 16
    /// How often a turn looks for more of them before it runs them.
    static let gatherLooks = 2
    /// A handler that is expected to take at most so long runs here whatever else there is.
    static let quickNanoseconds: UInt64 = 3_000
    /// One that takes at most so long runs here if nothing else waits.
    static let loneNanoseconds: UInt64 = 50_000
    /// Of smaller frames only the arguments are kept, as a copy.
    static let copiedFrameBytes = 8 << 10
    /// Larger arguments aren't copied to the arena; their handlers run on the handler threads.
    static let quickPayloadBytes = 4 << 10

    /// Binds the socket, if there is an address, and begins to dial brokers.
    @available(*, noasync)
    init(core: WorkerCore, address: String?, brokers: [Endpoint]) throws(ZMQError) {
        self.core = core
        self.partBudget = PartBudget(
            maxPayloadBytes: core.configuration.maxPayloadBytes,
            counters: core.counters.parts
        )
        let limit = UnreadLimit(perClient: core.configuration.maxUnreadBytes)
        self.unreadLimit = limit
        self.kept = KeptTally(limit: limit)
        self.leastKeptBytes = AnswerKeep.leastBytes(maxCachedBytes: core.configuration.maxCachedResultBytes)
        let socket = try Socket(.router, in: core.context.context)
        try socket.set(.routerMandatory, true)
        let addresses = [address].compactMap { $0 } + brokers.map(\.address)
        try socket.prepare(
            for: addresses,
            maxPayloadBytes: core.configuration.maxPayloadBytes,
            maxFrameBytes: core.configuration.maxFrameBytes
        )
        let now = core.now()
        var monitor: Monitor?
        if !brokers.isEmpty || address != nil {
            // Tells how handshakes with brokers end, and who connects.
            var events: Monitor.Events = []
            if !brokers.isEmpty || core.access != nil { events = [.handshake, .disconnected, .connectRetried] }
            if address != nil { events.formUnion(ListenerGate.events) }
            monitor = try socket.monitor(events)
        }
        for (number, broker) in brokers.enumerated() {
            let silence = core.configuration.silenceLimit.clampedNanoseconds
            try socket.connectEncrypted(core.configuration.keys, to: broker.address)
            let address = broker.nameToLookUp == nil ? broker.addressToDial() : nil
            self.dials.append(
                try Self.dial(broker, at: address, number: number, socket: socket, silence: silence, at: now)
            )
        }
        // Last, for what is set for it holds for later connects as well, and its address is asked for.
        if let address {
            if let keys = core.configuration.listenerKeys, let access = core.access {
                try socket.listenEncrypted(keys.own, domain: access.domain)
            } else {
                try socket.set(.curveServer, false)
            }
            try socket.bindPatiently(address, mode: core.configuration.socketMode)
        }
        self.isBound = address != nil
        self.port = try RouterPort(socket: socket, monitor: monitor, logger: core.logger)
        var configuration = WorkerMachine.Configuration(seed: core.randomness.seed)
        configuration.session = PeerSession.Limits(
            beatNanoseconds: core.configuration.heartbeatInterval.clampedNanoseconds,
            silenceNanoseconds: core.configuration.silenceLimit.clampedNanoseconds
        )
        configuration.window = core.configuration.window
        let places = Places(descriptors: Descriptors.limit, open: Descriptors.openCount ?? 32)
        self.places = min(core.configuration.maxClients, places.count)
        configuration.maxSessions = self.places
        configuration.maxCachedBytes = core.configuration.maxCachedResultBytes
        configuration.maxGrownBytes = core.configuration.maxUnreadBytes
        configuration.reportDelayNanoseconds = core.configuration.reportDelay.clampedNanoseconds
        configuration.stopGraceNanoseconds = core.configuration.cancellationGrace.clampedNanoseconds
        configuration.maxReplacements = core.configuration.maxReplacedSlots ?? core.configuration.concurrency
        self.machine = WorkerMachine(configuration: configuration)
        self.recycling = core.configuration.recycling.limits.map { limits in
            Recycling(limits: limits, at: now, spread: core.randomness.spread)
        }
        self.now = now
        self.nextTick = brokers.isEmpty ? .distantFuture : now
        for index in self.dials.indices where self.dials[index].dialled == nil { self.lookUp(index) }
        self.learnHandlers()
    }

    /// Where it listens, with the port that was chosen; empty if it only dials.
    @available(*, noasync)
    var address: String { get throws(ZMQError) { self.isBound ? try self.port.socket.get(.lastEndpoint) : "" } }

    /// Another thread holds the loop from now on.
    @available(*, noasync)
    func moveToCurrentThread() {
        self.port.moveToCurrentThread()
        self.watchLentJob()
    }

    /// Why the loop was left.
    enum Exit {
        /// The worker has stopped.
        case stopped
        /// Another thread took the loop over while this one ran a handler.
        case takenOver
    }

    /// Serves until the worker stops or another thread takes over.
    @available(*, noasync)
    func run() -> Exit {
        while true {
            guard self.turn() else { return .takenOver }
            if self.mayLeave {
                self.leave()
                return .stopped
            }
            self.sleep()
        }
    }

    // MARK: A turn

    /// - Returns: False if the loop is another thread's now.
    @available(*, noasync)
    func turn() -> Bool {
        self.lookAfterAccess()
        var isBusy = false
        if self.core.handlerCount > self.handlers.count { self.learnHandlers() }
        var posts = self.core.mailbox.takeAll()
        if !posts.isEmpty {
            isBusy = true
            self.now = self.core.now()
        }
        while let post = posts.next() { self.take(post.kind) }
        if self.core.mustLookAtWaits.load(ordering: .relaxed) { self.lookAtWaits() }
        // What may run now is queued before a message that takes it back is read.
        self.performActions()
        if self.receive() {
            isBusy = true
            self.gather()
        }
        if self.now >= self.nextTick || !isBusy {
            self.now = self.core.now()
            if self.mayHaveDialEvents { self.observeDials() }
            if self.gate.look(at: self.now) { self.gate.report(to: self.core.logger, at: self.now) }
            if self.now >= self.nextTick {
                self.machine.ticked(at: self.now, actions: &self.actions)
                self.dialAgainWhereDue()
                if self.core.threads.lacksThreads { self.core.threads.startMissing(core: self.core) }
                self.offerWhereDue()
            }
            self.tellChanges()
            self.tellQuiet()
        }
        self.performActions()
        guard self.startJobs() else { return false }
        self.flush()
        return true
    }

    /// Looks for more requests if there are many: their answers then go out in fewer frames, of which each costs four
    /// threads a wake-up.
    @available(*, noasync)
    func gather() {
        guard self.quick.count > Self.gatherThreshold else { return }
        for _ in 0..<Self.gatherLooks {
            sched_yield()
            if !self.receive() { return }
        }
    }

    // MARK: Receiving

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
        let key = self.routeKey()
        let attachedCount = self.port.attachedByteCount
        if key >= Self.dialledRoutes, !self.isFromDialled() {
            return self.malformed(WireError(.badFraming, "a frame by the route of another connection"))
        }
        var session = self.machine.session(route: key)
        if self.core.access != nil, let known = session, !self.isFrame(from: known, route: key) { session = nil }
        if let session { self.machine.heard(from: session, at: self.now) }
        if self.port.message.count > Self.copiedFrameBytes {
            // Handlers read a large frame where it lies.
            let box = self.port.takeMessage(isAskedAgain: self.core.access != nil)
            unsafe box.withUnsafeBytes { bytes in
                unsafe self.takeMessages(bytes, of: box, attachedCount: attachedCount, route: key, session)
            }
        } else {
            unsafe self.port.message.withUnsafeBytes { bytes in
                unsafe self.takeMessages(bytes, of: nil, attachedCount: attachedCount, route: key, session)
            }
        }
    }

    @available(*, noasync)
    func takeMessages(
        _ bytes: UnsafeRawBufferPointer,
        of frame: MessageBox?,
        attachedCount: Int?,
        route: UInt64,
        _ known: Int?
    ) {
        var session = known
        var limits = WireLimits.standard
        limits.maxPayloadBytes = self.core.configuration.maxPayloadBytes
        var reader = unsafe FrameReader(bytes, attachedByteCount: attachedCount, limits: limits)
        do throws(WireError) {
            while let part = try reader.next() {
                if part.isAttached {
                    let box = self.port.takeAttached()
                    unsafe box.withUnsafeBytes { payload in
                        unsafe self.take(
                            part.header,
                            payload,
                            0..<payload.count,
                            of: box,
                            route: route,
                            session: &session
                        )
                    }
                } else {
                    let payload = unsafe UnsafeRawBufferPointer(rebasing: bytes[part.payload])
                    unsafe self.take(part.header, payload, part.payload, of: frame, route: route, session: &session)
                }
            }
        } catch {
            self.malformed(error)
            if error.code == .unsupportedVersion, session == nil {
                let body = ErrorBody(code: .unsupported, message: "\(error)", worker: self.core.name)
                self.refuse(body, to: self.port.route.bytes)
            }
            if let header = reader.lastHeader, header.kind == .request, let session {
                self.refuse(
                    header.id,
                    ErrorBody(
                        code: error.code == .tooLarge ? .tooLarge : .badArguments,
                        message: "\(error)",
                        execution: .didNotRun,
                        worker: self.core.name
                    ),
                    to: session
                )
            }
        }
    }

    @available(*, noasync)
    func take(
        _ header: Header,
        _ payload: UnsafeRawBufferPointer,
        _ range: Range<Int>,
        of frame: MessageBox?,
        route: UInt64,
        session known: inout Int?
    ) {
        guard let session = known else {
            if unsafe self.takeWithoutSession(header, payload, route: route) { return }
            if header.kind == .hello {
                known = unsafe self.welcome(header, payload, route: route)
            } else {
                self.reset(route)
            }
            return
        }
        guard let kind = header.kind else { return self.unknownKind(header, session) }
        switch kind {
        case .request:
            if self.isDrainAnnounced { self.links[session]?.clearance.heard() }
            unsafe self.takeRequest(header, payload, range, of: frame, session)
        case .hello: known = unsafe self.welcome(header, payload, route: route)
        case .define: unsafe self.define(header, payload, session)
        case .cancel:
            if header.number == CancelReason.recalled.rawValue {
                self.recall(header, session)
            } else {
                self.cancel(header, session)
            }
        case .deadline: self.moveDeadline(header, session)
        case .part: unsafe self.takePart(header, payload, route: route, session)
        case .partTaken: self.partTaken(header, session)
        case .partEnded: self.links[session]?.line.ended(header)
        case .beat:
            if self.machine.beatReceived(header.id, from: session, at: self.now, actions: &self.actions) {
                self.stamped(header, session)
            } else {
                self.reset(route)
            }
        case .ping: self.pong(header.id, session)
        case .pong: self.pongReceived(header.id, session)
        case .goodbye: self.machine.goodbyeReceived(from: session, at: self.now, actions: &self.actions)
        case .reply, .error: unsafe self.takeAnswer(header, payload, session)
        case .pending: unsafe self.takePending(header, payload, session)
        case .ended: self.subscriptionEnded(header.number, in: session)
        case .flow: self.flow(header, in: session)
        case .credit: self.creditReceived(header, session)
        case .control: self.ordered(header, session)
        case .caller: unsafe self.vouched(header, payload, session)
        case .origin: unsafe self.originReceived(header, payload, session)
        case .reset: self.resetReceived(by: route)
        case .welcome, .refused, .accepted, .started, .progress, .cancelled, .event, .invoke, .offer, .ready, .bind:
            // What only clients and brokers are sent.
            self.core.counters.unknownMessages.count()
        }
        self.performActions()
        if kind == .goodbye { known = nil }
    }

    /// Takes a part of a large message, and the message if it is whole now.
    @available(*, noasync)
    private func takePart(
        _ header: Header,
        _ payload: UnsafeRawBufferPointer,
        route: UInt64,
        _ session: Int
    ) {
        guard let link = self.links[session] else { return }
        let limit = self.core.configuration.maxPayloadBytes
        let (arrival, answer) = unsafe link.line.take(
            header,
            payload,
            maxPayloadBytes: limit,
            countedFrom: self.machine.origin(of: session, at: self.now),
            at: self.now
        )
        if let answer { self.send(answer, to: session) }
        switch arrival {
        case .nothing: break
        case .whole(let box):
            unsafe box.withUnsafeBytes { bytes in
                unsafe self.takeMessages(bytes, of: box, attachedCount: nil, route: route, session)
            }
        case .refused(let message, let error):
            self.malformed(error)
            guard message.kind == .request else { return }
            let body = ErrorBody(code: .tooLarge, message: "\(error)", execution: .didNotRun, worker: self.core.name)
            self.refuse(message.id, body, to: session)
        case .malformed(let error): self.malformed(error)
        }
    }

    func unknownKind(_ header: Header, _ session: Int) {
        self.core.counters.unknownMessages.count()
        // An id of 0 names nothing that an answer could end.
        guard header.flags.contains(.mustUnderstand), header.id != 0 else { return }
        let message = "this worker does not know messages of kind \(header.rawKind); update it"
        self.refuse(header.id, ErrorBody(code: .unsupported, message: message, worker: self.core.name), to: session)
    }

    func malformed(_ error: WireError) {
        self.core.counters.malformedMessages.count()
        self.core.logger.debug("a malformed message was dropped", metadata: [LogKeys.error: "\(error)"])
    }
}

/// A request that waits for others of its ordering key.
struct HeldRequest: Sendable {
    let box: MessageBox
    /// Where its arguments stand.
    let payload: Range<Int>
    /// Whether it carries many calls.
    let isChunk: Bool
    /// Whom it is from, if that is known.
    let caller: Caller?
    /// Whether its client was told that it is held.
    var isTold = false
}
