// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import DroverZMQ

/// The poller's side of one endpoint: its socket, what is about to be sent, what the worker has been told.
///
/// Belongs to the poller's thread, like the socket in it.
final class ClientLink {
    /// A frame that libzmq would not take yet.
    private final class Parked {
        var message: Message
        let more: Bool

        init(_ message: consuming Message, more: Bool) {
            self.message = message
            self.more = more
        }
    }

    let index: Int
    let endpoint: Endpoint
    private let core: ClientCore
    @safe @exclusivity(unchecked) private(set) var socket: Socket?
    @safe @exclusivity(unchecked) private(set) var monitor: Monitor?
    @safe @exclusivity(unchecked) private var batch = OutgoingBatch()
    @safe @exclusivity(unchecked) private var frames = FramePool()
    @safe @exclusivity(unchecked) private var parked = Deque<Parked>()
    /// What becomes readable when something happens to the socket, or to the monitor.
    @safe @exclusivity(unchecked) private var socketDescriptor: CInt = -1
    @safe @exclusivity(unchecked) private var monitorDescriptor: CInt = -1
    /// Where they stand in the last poll.
    @safe @exclusivity(unchecked) private var monitorPlace: Int?
    /// The socket was used last by a receive that found nothing.
    @safe @exclusivity(unchecked) private var isDrained = false
    /// The monitor may have something to tell.
    @safe @exclusivity(unchecked) var mayHaveConnectionEvents = false
    /// Functions the worker knows the number of, in this session.
    @safe @exclusivity(unchecked) private var defined: [Bool] = []
    /// The largest request that the worker takes.
    @safe @exclusivity(unchecked) var maxPayloadBytes = Int.max
    /// Handshakes that failed one after the other.
    @safe @exclusivity(unchecked) var failedHandshakes = 0
    /// A session has stood here: who closes handshakes from now on may stand in for a peer that is away.
    @safe @exclusivity(unchecked) private(set) var wasMet = false
    /// What went wrong with the connection last, for error messages.
    var lastProblem: String? {
        didSet { self.core.setProblem(self.lastProblem, of: self.index) }
    }
    /// When a connection that was refused, or that couldn't be made, is tried again.
    @safe @exclusivity(unchecked) var reopensAt = Instant.distantFuture
    /// How often it was refused, one time after the other.
    @safe @exclusivity(unchecked) private var refusals = Backoff(longestNanoseconds: 2_000_000_000)
    /// How often it couldn't be made, one time after the other.
    @safe @exclusivity(unchecked) private var openings = Backoff()
    /// The address that the socket connects to.
    @safe @exclusivity(unchecked) private(set) var dialled = ""
    /// A connection stands.
    @safe @exclusivity(unchecked) var isUp = false
    /// An attempt failed, or the connection broke, since the address was dialled: libzmq pauses before each further attempt.
    @safe @exclusivity(unchecked) private(set) var hasFailed = false
    /// A connection broke, of which libzmq says next that it pauses: no attempt has failed.
    @safe @exclusivity(unchecked) private var pauses = false
    @safe @exclusivity(unchecked) private var isLookingUp = false
    /// What the name stood for when it was looked up last.
    @safe @exclusivity(unchecked) private var hosts: [String] = []
    /// How many of those were not dialled since.
    @safe @exclusivity(unchecked) private var untried = 0
    /// How often the name was looked up.
    @safe @exclusivity(unchecked) private var lookUps = 0
    /// Attempts to connect that failed since the socket was made, or the name was looked up.
    @safe @exclusivity(unchecked) private var retries = 0
    /// What goes out and comes in in parts.
    let line: PartLine
    let partBudget: PartBudget
    /// The worker's invocations that this side has not answered.
    @safe @exclusivity(unchecked) var invocations = OpenInvocations()
    /// Answers to them that were given while there was no way to the worker, to be sent when it has welcomed this side.
    @safe @exclusivity(unchecked) private var heldAnswers: Deque<(header: Header, block: RequestBytes)> = []
    /// Which of the session's connections this is, as the worker's welcome said; 0 if it did not.
    @safe @exclusivity(unchecked) var connection: UInt32 = 0
    /// What the worker was told of this side's clock, in this session.
    @safe @exclusivity(unchecked) var departures = DepartureClock()
    /// What this client's life is called in the session.
    @safe @exclusivity(unchecked) var epoch: UInt64 = 0
    /// Something was sent since the machine was told last.
    @safe @exclusivity(unchecked) var hasSent = false

    /// Attempts that must fail before the name is looked up again: about a second.
    private static let retriesBeforeLookUp = 6
    /// Handshakes that must fail one after the other before the endpoint counts as refusing.
    static let handshakeLimit = 3

    init(index: Int, endpoint: Endpoint, core: ClientCore) {
        self.index = index
        self.endpoint = endpoint
        self.core = core
        self.partBudget = PartBudget(limit: .max, counters: core.counters.parts)
        self.line = PartLine(budget: self.partBudget, keepsAnswers: true)
    }

    deinit { self.forgetInvocations() }

    /// Whether frames wait for room in the socket.
    var isBlocked: Bool { !self.parked.isEmpty }

    // MARK: Socket

    @available(*, noasync)
    func open(at address: String) throws(ZMQError) {
        let socket = try Socket(.dealer, in: self.core.context.context)
        // On a connection that isn't up nothing may queue in libzmq: it would be lost or late. It queues here.
        try socket.set(.immediate, true)
        try socket.prepare(for: [address], maxPayloadBytes: self.core.configuration.maxPayloadBytes)
        if let keys = self.core.configuration.keys {
            try socket.connectEncrypted(keys, to: self.endpoint.address)
        }
        let monitor = try socket.monitor([.connected, .disconnected, .connectRetried, .handshake, .closed])
        try socket.connectTo(address)
        self.monitorDescriptor = try monitor.fileDescriptor
        self.socketDescriptor = try socket.get(.fileDescriptor)
        self.monitor = consume monitor
        self.socket = consume socket
        self.isDrained = false
        self.mayHaveConnectionEvents = true
        self.reopensAt = .distantFuture
        self.openings.succeeded()
        self.dialled = address
        self.retries = 0
        self.pauses = false
        self.hasFailed = false
    }

    /// A connection broke, or was closed before it was one.
    func broke() {
        self.isUp = false
        self.hasFailed = true
        self.pauses = true
    }

    /// libzmq pauses before its next attempt.
    ///
    /// - Returns: Whether an attempt has failed, and not a connection that there was.
    func didPause() -> Bool {
        self.hasFailed = true
        return !exchange(&self.pauses, with: false)
    }

    /// What failed before says nothing of the attempt that begins now.
    func beginAnew() {
        self.hasFailed = false
        self.failedHandshakes = 0
    }

    /// Begins to look the endpoint's name up.
    ///
    /// - Returns: The number of this look-up: the answer to a former one is of no use any more.
    func beginLookUp() -> Int {
        self.lookUps += 1
        self.isLookingUp = true
        self.retries = 0
        return self.lookUps
    }

    /// The answer to a look-up came.
    ///
    /// - Returns: False if it is a former one's.
    func endLookUp(_ number: Int) -> Bool {
        guard number == self.lookUps, self.isLookingUp else { return false }
        self.isLookingUp = false
        return true
    }

    /// An attempt to connect failed.
    ///
    /// - Returns: Whether it is time to look the name up again: its host may have moved.
    func failedToConnect() -> Bool {
        self.retries += 1
        return self.retries >= Self.retriesBeforeLookUp && !self.isLookingUp && self.endpoint.nameToLookUp != nil
    }

    /// The name stands for these hosts, of which one is dialled now: the others are tried at once if it can't be reached.
    func foundHosts(_ hosts: [String]) {
        self.hosts = hosts
        self.untried = hosts.count - 1
    }

    /// Another address of the endpoint's that wasn't dialled since its name was looked up.
    func nextUntried() -> String? {
        guard self.untried > 0 else { return nil }
        self.untried -= 1
        return self.next(of: self.hosts)
    }

    /// The address to dial next, of those that the name stands for: the one after the one that was dialled last.
    func next(of hosts: [String]) -> String? {
        let addresses = hosts.map { self.endpoint.addressToDial(at: $0) }
        guard let index = addresses.firstIndex(of: self.dialled) else { return addresses.first }
        return addresses[(index + 1) % addresses.count]
    }

    /// Whether it could not be made when that was tried last.
    var isShort: Bool { self.openings.failures > 0 }

    /// The peer refused this side: the next try comes after a while that doubles up to two seconds.
    func postpone(from now: Instant) {
        self.reopensAt = self.refusals.failed(at: now)
    }

    /// The connection couldn't be made, for want of a descriptor perhaps: the next try comes after a while that doubles up to
    /// five seconds.
    ///
    /// - Returns: Whether it is the first time.
    func couldNotOpen(at now: Instant) -> Bool {
        self.hasFailed = true
        self.reopensAt = self.openings.failed(at: now)
        return self.openings.failures == 1
    }

    /// The peer has let this side in.
    func accepted() {
        self.refusals.succeeded()
        self.failedHandshakes = 0
        self.wasMet = true
    }

    /// Whether users have been told of the refusal already.
    var isRefusedAgain: Bool { self.refusals.failures > 1 }

    @available(*, noasync)
    func close(linger: Duration) {
        // The socket goes anyway; a linger that can't be set only shortens the goodbye.
        try? self.socket?.set(.linger, linger)
        self.monitor = nil
        self.socket = nil
        self.isUp = false
        self.hasFailed = true
        self.forgetTraffic()
        self.defined.removeAll()
    }

    /// The connection is gone and with it what was on its way, in parts too: the session's next beginning sends again what
    /// matters.
    func forgetTraffic() {
        self.parked.removeAll()
        self.batch.removeAll()
        self.departures.forget()
        self.line.reset()
    }

    /// A session begins: the worker knows no function numbers.
    func forgetFunctions() {
        self.defined.removeAll(keepingCapacity: true)
    }

    // MARK: Invocations

    /// Sends an answer to an invocation, or keeps it until the session goes on; one that nobody waits for is dropped and counted.
    ///
    /// - Parameters:
    ///   - invocation: What is answered.
    ///   - header: The answer's.
    ///   - block: What it says.
    ///   - isOpen: Whether the session is: what is sent while it isn't is lost.
    /// - Throws: What the socket says.
    @available(*, noasync)
    func answer(
        _ invocation: Subscription.Invocation,
        _ header: Header,
        consuming block: RequestBytes,
        isOpen: Bool
    ) throws(ZMQError) {
        guard self.invocations.isOpen(invocation.id, in: invocation.session) else {
            var block = block
            block.free()
            self.core.counters.strayAnswers.count()
            return
        }
        guard isOpen else {
            self.heldAnswers.append((header, block))
            return
        }
        self.invocations.answered(invocation.id)
        try self.send(header, consuming: block)
    }

    /// The session goes on: tells the worker what of its invocations will be answered, then what was kept.
    @available(*, noasync)
    func restateInvocations() throws(ZMQError) {
        // The first connection lost none.
        if self.connection > 1 {
            let ids = self.invocations.ids + self.line.unsentAnswers
            for list in PendingPayload.lists(of: ids, forPayloadsOf: self.maxPayloadBytes) {
                let header = Header(
                    .pending,
                    payloadLength: UInt32(list.bytes.count),
                    time: list.hasMore ? 1 : 0,
                    number: self.connection
                )
                unsafe list.bytes.withUnsafeBytes { unsafe self.batch.append(header, payload: $0) }
                try self.flushIfFull()
            }
        }
        while !self.heldAnswers.isEmpty {
            let (header, block) = self.heldAnswers.removeFirst()
            self.invocations.answered(header.id)
            try self.send(header, consuming: block)
        }
    }

    /// The session is over, and with it all that was asked in it.
    func forgetInvocations() {
        self.invocations.begin()
        self.line.forgetAnswers()
        let held = exchange(&self.heldAnswers, with: [])
        for (_, var block) in held { block.free() }
        self.core.counters.strayAnswers.count(held.count)
    }

    /// Another thread uses the sockets from now on; see ``LoopOwnership``.
    @available(*, noasync)
    func moveToCurrentThread() {
        self.socket?.moveToCurrentThread()
        self.monitor?.moveToCurrentThread()
    }

    // MARK: Sending

    @available(*, noasync)
    func send(_ header: Header) throws(ZMQError) {
        self.batch.append(header)
        try self.flushIfFull()
    }

    @available(*, noasync)
    func send(_ header: Header, payload: UnsafeRawBufferPointer) throws(ZMQError) {
        unsafe self.batch.append(header, payload: payload)
        try self.flushIfFull()
    }

    /// Sends a call's request, its function's number before it if the worker doesn't know it.
    @available(*, noasync)
    func send(_ result: AnyAsyncResult, as repetition: Header.Flags, at now: Instant) throws(ZMQError) {
        let kind = result.kind
        switch kind {
        case .ping, .knock: return try self.send(Header(.ping, id: result.correlationID.rawValue))
        case .call, .chunk: break
        }
        try self.define(result.function)
        var flags = repetition
        if result.isIdempotent { flags.insert(.idempotent) }
        if result.hasMetadata { flags.insert(.metadata) }
        if !result.references.isEmpty { flags.insert(.callbacks) }
        var header = Header(
            .request,
            flags: flags,
            payloadLength: UInt32(result.request.payloadCount),
            id: result.correlationID.rawValue,
            number: result.function
        )
        if case .chunk = kind { header.contentType = ContentType.chunk.rawValue }
        guard let base = unsafe result.request.base else { return }
        // In parts it goes with what is left when its turn has come.
        let key = result.affinity
        if self.line.takes(.request, payloadCount: result.request.payloadCount)
            || self.line.keepsOrder && key != 0 && self.line.isUnderWay(.key(key))
        {
            guard let shared = result.request.share() else { return }
            let source = unsafe PartSource(shared.base + Header.byteCount, owner: shared)
            return self.line.add(header, deadline: result.deadline, source, in: key != 0 ? .key(key) : nil)
        }
        header.time = self.time(until: result.deadline, at: now)
        if result.request.payloadCount >= OutgoingBatch.flushBytes {
            try self.sendLarge(header, of: &result.request, isResent: repetition.contains(.resent))
        } else {
            unsafe header.write(to: base)
            unsafe self.batch.append(message: UnsafeRawBufferPointer(start: base, count: result.request.count))
            try self.flushIfFull()
        }
    }

    /// What is left until `deadline`, for a message that is sent now; adds the stamp that it counts from, if one is due.
    func time(until deadline: Instant, at now: Instant) -> UInt32 {
        let (time, beat) = self.departures.time(until: deadline, epoch: self.epoch, at: now)
        if let beat { self.batch.append(beat) }
        return time
    }

    /// Sends an encoded message whose block is given away.
    @available(*, noasync)
    func send(_ header: Header, consuming block: RequestBytes) throws(ZMQError) {
        var block = block
        var header = header
        header.payloadLength = UInt32(block.payloadCount)
        if let base = unsafe block.base {
            if self.line.takes(header.kind, payloadCount: block.payloadCount) {
                if let shared = block.share() {
                    self.line.add(
                        header,
                        deadline: nil,
                        unsafe PartSource(shared.base + Header.byteCount, owner: shared)
                    )
                }
            } else if block.payloadCount >= OutgoingBatch.flushBytes {
                try self.sendLarge(header, of: &block, isResent: false)
            } else {
                unsafe header.write(to: base)
                unsafe self.batch.append(message: UnsafeRawBufferPointer(start: base, count: block.count))
                try self.flushIfFull()
            }
        }
        block.free()
    }

    /// Sends from the block itself.
    ///
    /// When it goes out again libzmq may still read it, so the header gets a frame of its own.
    @available(*, noasync)
    private func sendLarge(_ header: Header, of block: inout RequestBytes, isResent: Bool) throws(ZMQError) {
        try self.flush()
        guard let shared = block.share() else { return }
        if isResent {
            var header = header
            header.flags.insert(.attached)
            self.batch.append(header)
            try self.put(self.batch.take(&self.frames), more: true)
            let payload = unsafe Message(
                adopting: shared.base + Header.byteCount,
                count: block.payloadCount,
                owner: shared
            )
            try self.put(payload, more: false)
        } else {
            unsafe header.write(to: shared.base)
            let whole = unsafe Message(adopting: shared.base, count: block.count, owner: shared)
            try self.put(whole, more: false)
        }
    }

    /// Sends what has gathered as one frame.
    @available(*, noasync)
    func flush() throws(ZMQError) {
        guard !self.batch.isEmpty else { return }
        try self.put(self.batch.take(&self.frames), more: false)
    }

    /// Sends parts of large messages, as many as may be under way, behind all else.
    @available(*, noasync)
    func sendParts(at now: Instant) throws(ZMQError) {
        while self.parked.isEmpty,
            var part = self.line.next(
                into: &self.batch,
                at: now,
                stamp: { self.departures.stampIfDue(epoch: self.epoch, at: now) }
            )
        {
            if let attached = part.attached.take() {
                try self.put(self.batch.take(&self.frames), more: true)
                try self.put(attached, more: false)
            } else {
                try self.flushIfFull()
            }
        }
        try self.flush()
    }

    /// Tries again what libzmq would not take.
    @available(*, noasync)
    func unpark() throws(ZMQError) {
        while let first = self.parked.first {
            self.isDrained = false
            guard try self.socket?.send(&first.message, more: first.more) ?? true else { return }
            self.parked.removeFirst()
        }
    }

    /// Whether there is nothing to do until a descriptor becomes readable.
    @available(*, noasync)
    func isQuiet() throws(ZMQError) -> Bool {
        // The descriptor of a socket that was never read from says nothing of what is there.
        if self.mayHaveConnectionEvents { return false }
        if self.isDrained { return true }
        guard let events = try self.socket?.get(.events) else { return true }
        self.isDrained = !events.contains(.readable)
        return self.isDrained && !(self.isBlocked && events.contains(.writable))
    }

    /// Adds the socket and its monitor to what a poll waits for.
    func addToPoll(_ poll: inout DescriptorPoll) {
        self.monitorPlace = nil
        if self.socket != nil { _ = poll.add(self.socketDescriptor) }
        if self.monitor != nil { self.monitorPlace = poll.add(self.monitorDescriptor) }
    }

    /// Notes what the poll found.
    func didPoll(_ poll: borrowing DescriptorPoll) {
        if let place = self.monitorPlace, poll.isReady(place) { self.mayHaveConnectionEvents = true }
    }

    /// Receives the next frame into `message`.
    ///
    /// Returns false if there is none.
    @available(*, noasync)
    func receive(into message: inout Message) throws(ZMQError) -> Bool {
        if try self.socket?.receive(into: &message) ?? false { return true }
        self.isDrained = true
        return false
    }

    /// The next thing the monitor saw.
    @available(*, noasync)
    func nextConnectionEvent() throws(ZMQError) -> Monitor.Event.Kind? {
        if let event = try self.monitor?.next() { return event.kind }
        self.mayHaveConnectionEvents = false
        return nil
    }

    @available(*, noasync)
    private func flushIfFull() throws(ZMQError) {
        if !self.core.configuration.coalescesMessages || self.batch.count >= OutgoingBatch.flushBytes {
            try self.flush()
        }
    }

    @available(*, noasync)
    private func put(_ message: consuming Message, more: Bool) throws(ZMQError) {
        self.hasSent = true
        guard self.parked.isEmpty, self.socket != nil else {
            self.parked.append(Parked(message, more: more))
            return
        }
        self.isDrained = false
        if try self.socket?.send(&message, more: more) ?? false { return }
        self.parked.append(Parked(message, more: more))
    }

    @available(*, noasync)
    private func define(_ function: UInt32) throws(ZMQError) {
        let number = Int(function)
        if number < self.defined.count, self.defined[number] { return }
        while self.defined.count <= number { self.defined.append(false) }
        self.defined[number] = true
        let name = Array(self.core.functionName(function).utf8)
        let header = Header(.define, payloadLength: UInt32(name.count), number: function)
        unsafe name.withUnsafeBytes { unsafe self.batch.append(header, payload: $0) }
        try self.flushIfFull()
    }

}
