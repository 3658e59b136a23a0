// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
package import DroverWire

/// Everything a worker decides: whose messages it accepts, which requests run and when, how it answers those that may
/// not run, and when a client is gone.
///
/// A request is identified by its correlation id on the wire, and by a slot between machine and loop; the slot stays
/// taken until the loop says that the request ended, even if its client is gone by then.
package struct WorkerMachine: ~Copyable {
    package struct Configuration: Sendable {
        package var session = PeerSession.Limits.standard
        /// How many requests one client may have here at once.
        package var window = 1024
        /// How many clients there may be.
        package var maxSessions = 1024
        /// How many functions one client may define.
        package var maxFunctions = WireLimits.standard.maxFunctions
        /// How many bytes of answers are kept per client for re-sent requests.
        package var maxCachedBytes = 256 << 10
        /// How many more bytes of answers, over all clients, are kept while the clients aren't known to have read them.
        package var maxGrownBytes = 0
        /// A request that is unanswered for this long is reported as accepted or started.
        package var reportDelayNanoseconds: UInt64 = 5_000_000
        /// Secret randomness, so that no client can choose ids that collide.
        package let seed: UInt64
        /// How many calls of each function may run at once; nil for no limit beyond the worker's.
        package var functionLimits: [Int?] = []
        /// How long a handler may keep running after it was asked to stop.
        package var stopGraceNanoseconds: UInt64 = 10_000_000_000
        /// How many stuck handlers have their slots replaced.
        package var maxReplacements = 0
        /// How long a handler of each function may run.
        package var runLimits: [RunLimits] = []

        /// - Parameter seed: Drawn anew for each life; it has no default, so that it can't be forgotten.
        package init(seed: UInt64) { self.seed = seed }
    }

    private struct FunctionGate: Sendable {
        let limit: Int?
        var active = 0
        var blocked = Deque<UInt32>()
    }

    /// Access this in place only: a copy would share its tables and make the next change copy them.
    package internal(set) var sessions: [WorkerSession] = []
    private var freeSessions: [Int] = []
    private var sessionNumber: UInt32 = 0
    private var routes: [UInt64: Int] = [:]
    private var clients: [PeerID: Int] = [:]

    var requests: [WorkerRequest?] = []
    private var freeRequests: [UInt32] = []
    var wheel = TimerWheel(now: Instant(nanoseconds: 0))
    var clock: RunClock
    var passed: [RunClock.Passed] = []
    /// When the grace period of handlers that were asked to stop ends.
    var stopWheel = TimerWheel(now: Instant(nanoseconds: 0))
    private var gates: [FunctionGate]
    private var keys = OrderingKeys<OrderingKey>()
    /// The ordering keys of the requests that have one.
    private var keyOf: [UInt32: OrderingKey] = [:]
    /// The queues that requests name, as far as a client may lose the right to them.
    private var queueOf: [UInt32: String] = [:]
    /// Requests in the order they arrived, to report those that take long; may contain ended ones.
    var unreported = Deque<(slot: UInt32, id: UInt64, dueAt: Instant)>()
    var due: [UInt32] = []
    let configuration: Configuration
    /// How many bytes above the usual limit the kept answers take.
    private var grownBytes = 0
    private var lastRoute: (route: UInt64, session: Int)?

    /// How many requests have not ended.
    package private(set) var requestCount = 0
    /// How many requests wait for their ordering key or their function's limit.
    package private(set) var heldCount = 0
    /// Whether the worker takes no new requests.
    package private(set) var isDraining = false
    package var sessionCount: Int { self.clients.count }
    package var timerCount: Int { self.wheel.count + self.clock.count + self.stopWheel.count }
    /// How many requests were answered without their handlers, which are stuck: they keep running after their hard
    /// limits, or after the grace period of a cancellation.
    package internal(set) var abandonedCount = 0
    /// How many of the stuck handlers hold slots, as opposed to waiting without one.
    package var stuckSlotCount: Int { self.abandonedCount - self.abandonedReleasedCount }
    /// How many extra slots there are, in place of those that stuck handlers hold.
    package var replacementCount: Int { min(self.stuckSlotCount, self.configuration.maxReplacements) }

    /// How many requests have handlers that have given up their slots while they wait.
    package private(set) var releasedCount = 0
    /// How many of those are stuck.
    package internal(set) var abandonedReleasedCount = 0

    package init(configuration: Configuration) {
        self.configuration = configuration
        self.gates = configuration.functionLimits.map { FunctionGate(limit: $0) }
        self.clock = RunClock(limits: configuration.runLimits)
    }

    /// The slot of a session's request; nil if it isn't here, or has ended.
    package func slot(of id: UInt64, in session: Int) -> UInt32? { self.sessions[session].requests.find(id) }

    package func request(in slot: UInt32) -> WorkerRequest? { self.requests[Int(slot)] }

    // MARK: Sessions

    /// The session whose messages arrive over this route.
    package mutating func session(route: UInt64) -> Int? {
        if let last = self.lastRoute, last.route == route { return last.session }
        guard let index = self.routes[route] else { return nil }
        self.lastRoute = (route, index)
        return index
    }

    /// How the worker responds to a client's introduction.
    package enum Introduction: Equatable, Sendable {
        case welcome(session: Int, isResumed: Bool)
        /// The session that the client wants to resume is gone: it must begin another.
        case forgotten
        /// There are too many clients.
        case refuse(limit: Int)
    }

    /// A client introduced itself.
    ///
    /// `claimed` is the session that it wants to resume. If that is gone, no new one is made: whatever the client sent
    /// after it was welcomed to the former one, above all re-sent requests, would be mistaken for part of the new one,
    /// which doesn't know what has run.
    ///
    /// It `isReconnected` if its connection is a new one although its route is the same, as with a broker that was
    /// dialed.
    package mutating func helloReceived(
        client: PeerID,
        epoch: UInt64,
        claimed: UInt32 = 0,
        name: String,
        route: UInt64,
        isReconnected: Bool = false,
        at now: Instant,
        actions: inout [WorkerAction]
    ) -> Introduction {
        self.lastRoute = nil
        if let index = self.clients[client], self.sessions[index].epoch == epoch {
            guard claimed == 0 || claimed == self.sessions[index].number else { return .forgotten }
            let former = self.sessions[index].route
            if former != route || isReconnected { self.sessions[index].connection &+= 1 }
            if former != route {
                // This connection now belongs to another client: the former one is gone.
                if let other = self.routes[route] { self.loseSession(other, at: now, actions: &actions) }
                self.routes[former] = nil
                self.routes[route] = index
                self.sessions[index].route = route
            }
            self.sessions[index].session.established(at: now)
            return .welcome(session: index, isResumed: true)
        }
        guard claimed == 0 else { return .forgotten }
        if let index = self.clients[client] {
            self.loseSession(index, at: now, actions: &actions)
        }
        if let index = self.routes[route] {
            // This connection now belongs to another client: the former one is gone.
            self.loseSession(index, at: now, actions: &actions)
        }
        guard self.clients.count < self.configuration.maxSessions else {
            return .refuse(limit: self.configuration.maxSessions)
        }
        var peer = PeerSession(limits: self.configuration.session)
        peer.established(at: now)
        self.sessionNumber &+= 1
        let session = WorkerSession(
            number: self.sessionNumber,
            client: client,
            epoch: epoch,
            name: name,
            route: route,
            session: peer,
            maxCachedBytes: self.configuration.maxCachedBytes,
            seed: self.configuration.seed
        )
        let index: Int
        if let free = self.freeSessions.popLast() {
            index = free
            self.sessions[index] = session
        } else {
            index = self.sessions.count
            self.sessions.append(session)
        }
        self.routes[route] = index
        self.clients[client] = index
        return .welcome(session: index, isResumed: false)
    }

    /// The session of a client, by its identity.
    package func session(of client: PeerID) -> Int? { self.clients[client] }

    /// The session of a client that probably has the given one, which saves the lookup.
    package func session(of client: PeerID, likely guess: Int) -> Int? {
        if guess < self.sessions.count, self.sessions[guess].isLive, self.sessions[guess].client == client {
            return guess
        }
        return self.clients[client]
    }

    /// A client said after how much silence it gives up the worker; 0 if it didn't say.
    package mutating func givenUp(by session: Int, afterNanoseconds silence: UInt64) {
        self.sessions[session].session.givenUp(afterNanoseconds: silence)
    }

    /// A client sent something; called once per received frame.
    package mutating func heard(from session: Int, at now: Instant) {
        self.sessions[session].session.heard(at: now)
    }

    /// A client said, in a HELLO or a BEAT, what its clock shows; `now` is when the message was read, not earlier.
    package mutating func stamped(_ header: Header, from session: Int, at now: Instant) {
        self.sessions[session].transit.received(header, at: now)
    }

    /// The deadline of a client's request that has `time` left, as headers give it.
    package func deadline(_ time: UInt32, in session: Int, at now: Instant) -> Instant {
        Instant(deadlineAfter: time, at: self.origin(of: session, at: now))
    }

    /// The instant that the times of a client's requests count from.
    package func origin(of session: Int, at now: Instant) -> Instant { self.sessions[session].transit.origin(at: now) }

    /// Something was sent to a client; called once per sent frame.
    package mutating func sent(to session: Int, at now: Instant) {
        self.sessions[session].session.sent(at: now)
    }

    /// A client gave its epoch in a BEAT.
    ///
    /// - Parameters:
    ///   - epoch: The epoch it gave.
    ///   - session: The session that it belongs to, by its route.
    ///   - now: The time.
    ///   - actions: Where the resulting actions go.
    /// - Returns: False if the epoch isn't that of the client that introduced itself.
    package mutating func beatReceived(
        _ epoch: UInt64,
        from session: Int,
        at now: Instant,
        actions: inout [WorkerAction]
    ) -> Bool {
        guard self.sessions[session].epoch == epoch else { return false }
        if self.sessions[session].session.beatReceived(at: now) == .sendHeartbeat {
            actions.append(.sendBeat(session: session))
        }
        return true
    }

    /// A client left, or its route turned out to be dead.
    package mutating func goodbyeReceived(from session: Int, at now: Instant, actions: inout [WorkerAction]) {
        self.loseSession(session, at: now, actions: &actions)
    }

    /// A client gave a function a number.
    ///
    /// - Returns: False if it has defined too many.
    package mutating func defined(_ number: UInt32, name: String, handler: Int32?, in session: Int) -> Bool {
        guard Int(number) < self.configuration.maxFunctions else { return false }
        while self.sessions[session].functions.count <= Int(number) {
            self.sessions[session].functions.append(WorkerSession.undefinedFunction)
        }
        self.sessions[session].functions[Int(number)] = handler ?? WorkerSession.unknownFunction
        self.sessions[session].unknownNames[number] = nil
        if handler == nil, self.sessions[session].unknownNames.count < Self.unknownNames {
            self.sessions[session].unknownNames[number] = name
        }
        return true
    }

    /// How many names of unregistered functions are kept per client, so that errors can give them.
    private static var unknownNames: Int { 256 }

    /// One more function is served: it gets the next number.
    ///
    /// Clients that named it earlier needn't name it again.
    ///
    /// - Parameters:
    ///   - name: Its name.
    ///   - limit: How many of its calls may run at once; nil for no limit beyond the worker's.
    ///   - runLimits: How long its handler may run.
    package mutating func registered(_ name: String, limit: Int? = nil, runLimits: RunLimits = RunLimits()) {
        let handler = Int32(self.gates.count)
        self.gates.append(FunctionGate(limit: limit))
        self.clock.added(runLimits)
        for session in self.sessions.indices where self.sessions[session].isLive {
            self.sessions[session].registered(name, as: handler)
        }
    }

    // MARK: Requests

    /// What the worker does with a request.
    package enum RequestVerdict: Equatable, Sendable {
        /// Run it.
        case run(slot: UInt32, handler: Int32)
        /// It waits for its ordering key or its function's limit; an action will say when it runs.
        case hold(slot: UInt32, handler: Int32)
        /// It is here already and will be answered.
        case known(slot: UInt32)
        /// It has been answered; answer again from the session's results.
        case answerAgain
        /// It may have run, and its answer is no longer kept.
        case indeterminate
        /// No handler is registered for the function.
        case unknownFunction(name: String)
        /// The function number was not defined in this session.
        case undefinedFunction
        /// The client has too many requests here.
        case busy(window: Int)
        /// The worker takes no more requests.
        case draining
        /// Its time had run out when it arrived.
        case lapsed
        /// Its id is in use.
        case duplicateID
    }

    /// The function that a client's number stands for, as far as it is known.
    package func handler(_ number: UInt32, in session: Int) -> Int32 {
        guard Int(number) < self.sessions[session].functions.count else { return WorkerSession.undefinedFunction }
        return self.sessions[session].functions[Int(number)]
    }

    /// A request arrived.
    ///
    /// - Parameters:
    ///   - header: Its header.
    ///   - key: Its ordering key.
    ///   - scope: The tenant that the key belongs to; equal keys of other tenants are different keys.
    ///   - queue: Its queue, if the client may lose the right to it; see ``restrict(_:actions:to:)``.
    ///   - session: The session it belongs to.
    ///   - now: The time.
    /// - Returns: What to do with it.
    package mutating func requestReceived(
        _ header: Header,
        key: String?,
        scope: String = "",
        queue: String = "",
        from session: Int,
        at now: Instant
    ) -> RequestVerdict {
        if let slot = self.sessions[session].requests.find(header.id) {
            guard header.flags.contains(.resent) else { return .duplicateID }
            // Its client may have moved its deadline while there was no connection to report that.
            self.setDeadline(self.deadline(header.time, in: session, at: now), of: slot)
            return .known(slot: slot)
        }
        if header.flags.contains(.resent) {
            switch self.sessions[session].results.find(header.id) {
            case .held: return .answerAgain
            case .removed where !header.flags.contains(.renewed): return .answerAgain
            case .forgotten where !header.flags.contains(.idempotent): return .indeterminate
            case .removed, .forgotten, .never: break
            }
        }
        // The request may have been on its way for longer than its time allowed.
        guard header.time > 0, self.deadline(header.time, in: session, at: now) > now else { return .lapsed }
        guard !self.isDraining else { return .draining }
        guard Int(header.number) < self.sessions[session].functions.count else { return .undefinedFunction }
        let handler = self.sessions[session].functions[Int(header.number)]
        guard handler >= 0 else {
            guard handler == WorkerSession.unknownFunction else { return .undefinedFunction }
            return .unknownFunction(name: self.sessions[session].unknownNames[header.number] ?? "")
        }
        guard self.sessions[session].requests.count < self.configuration.window else {
            return .busy(window: self.configuration.window)
        }
        let key = key.map { OrderingKey(scope: scope, name: $0) }
        return self.admit(header, key: key, queue: queue, handler: handler, session: session, at: now)
    }

    private mutating func admit(
        _ header: Header,
        key: OrderingKey?,
        queue: String,
        handler: Int32,
        session: Int,
        at now: Instant
    ) -> RequestVerdict {
        let deadline = self.deadline(header.time, in: session, at: now)
        let request = WorkerRequest(
            session: Int32(session),
            id: header.id,
            handler: handler,
            deadline: deadline,
            state: .held,
            receivedAt: now,
            isKeyed: key != nil,
            hasCallbacks: header.flags.contains(.callbacks)
        )
        let slot = self.takeSlot(request)
        if let key { self.keyOf[slot] = key }
        if !queue.isEmpty { self.queueOf[slot] = queue }
        self.sessions[session].requests.insert(header.id, slot: slot)
        if deadline != .distantFuture { self.wheel.schedule(slot, at: deadline) }
        let reportAt = now.advanced(byNanoseconds: self.configuration.reportDelayNanoseconds)
        self.unreported.append((slot, header.id, reportAt))
        if let key, self.keys.admit(key, slot) == .queued {
            self.heldCount += 1
            self.requests[Int(slot)]?.hold = .key
            return .hold(slot: slot, handler: handler)
        }
        guard self.enter(slot, handler: handler) else {
            self.heldCount += 1
            return .hold(slot: slot, handler: handler)
        }
        return .run(slot: slot, handler: handler)
    }

    /// Whether the function's limit lets the request through; if not, it waits at the gate.
    private mutating func enter(_ slot: UInt32, handler: Int32) -> Bool {
        let gate = Int(handler)
        if let limit = self.gates[gate].limit, self.gates[gate].active >= limit {
            self.gates[gate].blocked.append(slot)
            self.requests[Int(slot)]?.hold = .limit
            return false
        }
        self.gates[gate].active += 1
        self.requests[Int(slot)]?.state = .dispatched
        self.requests[Int(slot)]?.hold = .none
        return true
    }

    /// Where the answer to a request goes.
    package struct Addressee: Equatable, Sendable {
        /// The session, or nil if the client is gone.
        package var session: Int?
        package var id: UInt64
        /// Whether it was answered when its hard limit passed: this answer is no longer wanted.
        package var isLate = false
        /// Whether events may have been sent to this caller: the answer must not overtake them.
        package var isBehindEvents = false

        package init(session: Int?, id: UInt64, isLate: Bool = false, isBehindEvents: Bool = false) {
            self.session = session
            self.id = id
            self.isLate = isLate
            self.isBehindEvents = isBehindEvents
        }
    }

    /// A request has ended; requests that waited for it may run now.
    package mutating func finished(_ slot: UInt32, actions: inout [WorkerAction]) -> Addressee? {
        guard let request = self.requests[Int(slot)] else { return nil }
        self.free(slot, request)
        if request.state != .held { self.leave(request.handler, actions: &actions) }
        self.passKey(of: request, slot: slot, actions: &actions)
        return Addressee(
            session: request.session >= 0 ? Int(request.session) : nil,
            id: request.id,
            isLate: request.state == .abandoned,
            isBehindEvents: request.hasCallbacks
        )
    }

    /// What to do about a client's cancellation.
    package enum CancelVerdict: Equatable, Sendable {
        /// The request was held and is gone: confirm.
        case removed(slot: UInt32)
        /// The request was given to the handler threads: stop it there.
        case stop(slot: UInt32)
        /// There is no such request.
        case unknown
    }

    /// A client no longer wants a request.
    package mutating func cancelReceived(
        _ id: UInt64,
        from session: Int,
        actions: inout [WorkerAction]
    ) -> CancelVerdict {
        guard let slot = self.sessions[session].requests.find(id) else { return .unknown }
        return self.removeIfHeld(slot, actions: &actions) ? .removed(slot: slot) : .stop(slot: slot)
    }

    /// From now on a client may call only some functions in some queues: its waiting requests for any others end.
    ///
    /// Running requests keep running: they were allowed when they began.
    package mutating func restrict(
        _ session: Int,
        actions: inout [WorkerAction],
        to isAllowed: (_ handler: Int32, _ queue: String) -> Bool
    ) {
        for slot in self.slots(of: session) {
            // The end of another request of its ordering key may just have released it.
            guard let request = self.requests[Int(slot)], request.state != .abandoned else { continue }
            let queue = self.queueOf[slot] ?? ""
            guard !isAllowed(request.handler, queue) else { continue }
            if self.removeIfHeld(slot, actions: &actions) {
                actions.append(
                    .forbidden(slot: slot, session: session, id: request.id, handler: request.handler, queue: queue)
                )
            } else {
                actions.append(.withdraw(slot: slot, queue: queue))
            }
        }
    }

    /// A client moved the deadline of a request.
    ///
    /// - Returns: The request's slot; nil if it isn't here, which is no error: its answer may be on its way.
    package mutating func deadlineReceived(
        _ id: UInt64,
        time: UInt32,
        from session: Int,
        at now: Instant
    ) -> UInt32? {
        guard let slot = self.sessions[session].requests.find(id) else { return nil }
        self.setDeadline(self.deadline(time, in: session, at: now), of: slot)
        return slot
    }

    /// A handler has given up its slot while it waits, or has one again.
    ///
    /// - Returns: Whether the handler is stuck: then ``replacementCount`` may have changed.
    package mutating func slotReleased(_ slot: UInt32, id: UInt64, _ isReleased: Bool) -> Bool {
        guard Int(slot) < self.requests.count, let request = self.requests[Int(slot)], request.id == id,
            request.state != .held, request.isReleased != isReleased
        else { return false }
        let change = isReleased ? 1 : -1
        self.requests[Int(slot)]?.isReleased = isReleased
        self.releasedCount += change
        guard request.state == .abandoned else { return false }
        self.abandonedReleasedCount += change
        return true
    }

    /// Takes no new requests from now on.
    package mutating func drain() {
        self.isDraining = true
    }

    // MARK: Answers

    /// Keeps an answer for a re-sent request.
    ///
    /// - Parameters:
    ///   - id: The request.
    ///   - message: The answer as it goes over the wire.
    ///   - session: The session it belongs to.
    ///   - isRemoval: Whether the answer says that the request was taken out before it ran.
    package mutating func remember(
        _ id: UInt64,
        message: UnsafeRawBufferPointer,
        of session: Int,
        isRemoval: Bool = false
    ) {
        let before = self.sessions[session].results.grownBytes
        unsafe self.sessions[session].results
            .remember(
                id,
                message: message,
                isRemoval: isRemoval,
                mayGrow: self.configuration.maxGrownBytes - self.grownBytes
            )
        self.grownBytes += self.sessions[session].results.grownBytes - before
    }

    /// A question went to a client, behind all its answers, about what it has read.
    package mutating func askedAboutResults(of session: Int) { self.sessions[session].results.asked() }

    /// The client has answered that question, or the question may have been lost.
    package mutating func resultsRead(of session: Int, isLost: Bool = false) {
        if isLost { return self.sessions[session].results.questionLost() }
        let before = self.sessions[session].results.grownBytes
        self.sessions[session].results.read()
        self.grownBytes += self.sessions[session].results.grownBytes - before
    }

    /// Passes the kept answer to request `id` to `body`.
    package func withResult(_ id: UInt64, of session: Int, _ body: (UnsafeRawBufferPointer) -> Void) {
        unsafe self.sessions[session].results.withMessage(id, body)
    }

    /// The answer to `id` was sent, but is too large to keep.
    package mutating func forgetResult(_ id: UInt64, of session: Int) {
        self.sessions[session].results.pass(over: id)
    }

    /// Releases memory that only a peak needed.
    package mutating func trim() {
        guard self.requestCount == 0 else { return }
        self.requests = []
        self.freeRequests = []
        self.unreported = []
    }

    // MARK: Inside

    private mutating func takeSlot(_ request: WorkerRequest) -> UInt32 {
        self.requestCount += 1
        if let slot = self.freeRequests.popLast() {
            self.requests[Int(slot)] = request
            return slot
        }
        self.requests.append(request)
        return UInt32(self.requests.count - 1)
    }

    private mutating func free(_ slot: UInt32, _ request: WorkerRequest) {
        if request.deadline != .distantFuture { self.wheel.cancel(slot) }
        self.clock.ended(slot)
        if request.isStopping { self.stopWheel.cancel(slot) }
        if request.isReleased { self.releasedCount -= 1 }
        if request.state == .abandoned {
            self.abandonedCount -= 1
            if request.isReleased { self.abandonedReleasedCount -= 1 }
        }
        if request.session >= 0 { self.sessions[Int(request.session)].requests.remove(request.id) }
        if !self.queueOf.isEmpty { self.queueOf[slot] = nil }
        self.requests[Int(slot)] = nil
        self.freeRequests.append(slot)
        self.requestCount -= 1
    }

    /// Removes a held request from whatever it waits in.
    mutating func removeIfHeld(_ slot: UInt32, actions: inout [WorkerAction]) -> Bool {
        guard let request = self.requests[Int(slot)], request.state == .held else { return false }
        self.heldCount -= 1
        let gate = Int(request.handler)
        if let index = self.gates[gate].blocked.firstIndex(of: slot) {
            self.gates[gate].blocked.remove(at: index)
            self.free(slot, request)
            self.passKey(of: request, slot: slot, actions: &actions)
        } else {
            self.free(slot, request)
            if let key = self.keyOf.removeValue(forKey: slot) { self.keys.remove(key, slot) }
        }
        return true
    }

    /// One call fewer of a function runs: the next at its gate may run.
    private mutating func leave(_ handler: Int32, actions: inout [WorkerAction]) {
        let gate = Int(handler)
        self.gates[gate].active -= 1
        if let next = self.gates[gate].blocked.popFirst() {
            self.gates[gate].active += 1
            self.requests[Int(next)]?.state = .dispatched
            self.requests[Int(next)]?.hold = .none
            self.heldCount -= 1
            actions.append(.run(slot: next, handler: handler))
        }
    }

    /// Passes a request's ordering key on to the next request, which may start.
    private mutating func passKey(of request: WorkerRequest, slot: UInt32, actions: inout [WorkerAction]) {
        guard request.isKeyed, let key = self.keyOf.removeValue(forKey: slot), let next = self.keys.finished(key),
            let handler = self.requests[Int(next)]?.handler
        else { return }
        if self.enter(next, handler: handler) {
            self.heldCount -= 1
            actions.append(.run(slot: next, handler: handler))
        }
    }

    /// The requests of a session, those behind an ordering key first: if all of them are removed, the key must not pass
    /// to one that is removed as well.
    private func slots(of session: Int) -> [UInt32] {
        let slots = self.requests.indices.filter { self.requests[$0]?.session == Int32(session) }.map { UInt32($0) }
        return slots.filter { self.isBehindKey($0) } + slots.filter { !self.isBehindKey($0) }
    }

    /// Whether a request waits for another of its ordering key.
    private func isBehindKey(_ slot: UInt32) -> Bool {
        self.requests[Int(slot)]?.hold == .key
    }

    mutating func loseSession(_ index: Int, at now: Instant, actions: inout [WorkerAction]) {
        guard self.sessions[index].isLive else { return }
        self.lastRoute = nil
        let route = self.sessions[index].route
        let client = self.sessions[index].client
        let slots = self.slots(of: index)
        self.grownBytes -= self.sessions[index].results.grownBytes
        self.sessions[index].end()
        self.freeSessions.append(index)
        if self.routes[route] == index { self.routes[route] = nil }
        if self.clients[client] == index { self.clients[client] = nil }
        for slot in slots { self.requests[Int(slot)]?.session = -1 }
        for slot in slots {
            if self.removeIfHeld(slot, actions: &actions) {
                actions.append(.dropped(slot: slot))
            } else {
                actions.append(.stop(slot: slot))
            }
        }
        actions.append(.sessionLost(session: index, client: client))
    }
}
