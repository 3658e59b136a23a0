// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import DroverZMQ
internal import Glibc
internal import Logging
internal import Synchronization

/// The poller: owns a client's sockets, feeds its machine, carries out the machine's actions.
///
/// One turn: take what callers posted, receive a bounded batch, let the machine dispatch, flush, wake who waits; sleep
/// only if nothing was there. It never runs user code, except that results are decoded here.
///
/// It is used by one thread at a time, nearly always the poller's; see ``LoopOwnership``.
final class ClientLoop {
    let core: ClientCore
    @safe @exclusivity(unchecked) var callTable: CallTable
    @safe @exclusivity(unchecked) var links: [ClientLink]
    @safe @exclusivity(unchecked) var actions: [ClientAction] = []
    /// Handles that ended in this turn and have somebody to tell.
    @safe @exclusivity(unchecked) var ended: [EndedCall] = []
    @safe @exclusivity(unchecked) var endCounts = EndCounts()
    @safe @exclusivity(unchecked) var now: Instant
    @safe @exclusivity(unchecked) var nextTick = Instant.distantFuture
    @safe @exclusivity(unchecked) private var idle = IdleWatch()
    @safe @exclusivity(unchecked) var message = Message()
    @safe @exclusivity(unchecked) var attached = Message()
    @safe @exclusivity(unchecked) var poll: DescriptorPoll
    @safe @exclusivity(unchecked) var lastSubscription: Subscription?
    @safe @exclusivity(unchecked) var turns = 0
    /// Somebody wants to know whether a peer is there, and what is known may be old.
    @safe @exclusivity(unchecked) var isKnocked = false
    /// Whether to look out for the answer to a lone call, and for the call after it.
    @safe @exclusivity(unchecked) var answerSpin = SpinPolicy()
    @safe @exclusivity(unchecked) var callSpin = SpinPolicy()
    /// A call was sent or answered since the last sleep.
    @safe @exclusivity(unchecked) var hasServed = false
    /// How long to look out; 0 where there is but one processor, which others need then.
    let spinNanoseconds: UInt64

    /// After how many turns without a sleep the monitors are looked after.
    static let monitorPeriod = 64
    /// With more calls outstanding than this their number counts, not the time of each.
    static let gatherThreshold = 16
    /// How long a turn waits at most for more calls before it sends.
    static let gatherNanoseconds: UInt64 = 50_000
    /// How many frames one turn receives at most, so that callers aren't starved.
    static let receiveBatch = 512

    @available(*, noasync)
    init(core: ClientCore, callTable: consuming CallTable) {
        self.core = core
        self.callTable = callTable
        self.now = core.now()
        self.poll = DescriptorPoll(capacity: 1 + core.endpoints.count * 2)
        self.spinNanoseconds =
            sysconf(CInt(_SC_NPROCESSORS_ONLN)) > 1 ? core.configuration.spinLimit.clampedNanoseconds : 0
        self.links = core.endpoints.indices.map { ClientLink(index: $0, endpoint: core.endpoints[$0], core: core) }
    }

    /// Serves until the client is stopped or closed.
    ///
    /// Returns the calls that are left.
    @available(*, noasync)
    func run() -> CallTable {
        self.core.ownership.take(self)
        defer { self.core.ownership.leave() }
        for link in self.links { self.open(link) }
        self.nextTick = self.now
        while true {
            self.turn()
            switch self.core.currentState {
            case .running: break
            case .stopped, .stopping: return self.leave(isClosing: false)
            case .closing, .closed: if self.isFinished { return self.leave(isClosing: true) }
            }
            self.sleep()
        }
    }

    // MARK: A turn

    @available(*, noasync)
    func turn() {
        self.core.notifications.beginTurn()
        defer { self.core.notifications.endTurn() }
        var isBusy = false
        self.turns &+= 1
        // Commands first, then calls, but worked off the other way round: the call that a command is about was posted
        // before the command, so it is in this lot or was in an earlier one.
        var commands = self.core.commands.takeAll()
        if self.callTable.machine.callCount > Self.gatherThreshold { self.gather() }
        var submissions = self.core.submissions.takeAll()
        if !submissions.isEmpty || !commands.isEmpty {
            isBusy = true
            self.now = self.core.now()
        }
        while let result = submissions.next() { self.submit(result) }
        while let command = commands.next() { self.carryOut(command.kind) }
        if self.isKnocked { self.dialAnew() }
        if isBusy { self.flush() }
        for link in self.links {
            if link.reopensAt <= self.now {
                link.reopensAt = .distantFuture
                self.open(link)
            }
            // While there is no end of work no poll looks after the monitors.
            if link.mayHaveConnectionEvents || self.turns % Self.monitorPeriod == 0 { self.observeConnection(of: link) }
            if self.receive(from: link) { isBusy = true }
        }
        if self.now >= self.nextTick || !isBusy {
            self.now = self.core.now()
            if let thread = self.core.callbackThread, thread.lacksThread { thread.start() }
            if self.now >= self.nextTick {
                self.callTable.machine.ticked(at: self.now, actions: &self.actions)
                self.performActions()
            }
        }
        self.callTable.machine.dispatch(actions: &self.actions)
        self.performActions()
        self.flush()
        self.wakeWaiters()
    }

    /// Sends a lone call's request on its caller's thread, while the poller sleeps.
    ///
    /// Nothing is received here: that would run code that the caller doesn't expect (decoding), and there is nothing else
    /// outstanding.
    ///
    /// - Returns: False if the poller must be woken.
    func sendForCaller() -> Bool {
        for link in self.links { link.moveToCurrentThread() }
        // What has expired by now ends here.
        self.core.notifications.begin()
        defer { self.core.notifications.end() }
        self.now = self.core.now()
        let wakeAt = self.nextTick
        var submissions = self.core.submissions.takeAll()
        while let result = submissions.next() { self.submit(result) }
        self.callTable.machine.dispatch(actions: &self.actions)
        self.performActions()
        self.flush()
        self.wakeWaiters()
        // The poller sleeps no longer than it meant to; a socket that has something to tell has perhaps told it here.
        return self.nextTick >= wakeAt && !self.isKnocked && self.isQuiet
    }

    /// Waits as long as a busy caller posts, so that what it posts goes out together.
    ///
    /// A frame costs four threads a wake-up, a call in a frame next to nothing. With many calls outstanding a few
    /// microseconds are no matter: as long as one more look finds more, there is no hurry to send.
    @available(*, noasync)
    func gather() {
        var newest = self.core.submissions.newest
        guard newest != 0 else { return }
        let end = self.core.now().advanced(byNanoseconds: Self.gatherNanoseconds)
        while self.core.now() < end {
            sched_yield()
            let next = self.core.submissions.newest
            if next == newest { return }
            newest = next
        }
    }

    @available(*, noasync)
    func submit(_ result: consuming AnyAsyncResult) {
        guard !result.isTerminal else {
            // Cancelled or expired before it came this far: there is nothing to send.
            result.freeRequest()
            return
        }
        let isPing: Bool
        var isImpatient = false
        var target: Int32 = Call.noEndpoint
        var isBundle = false
        switch result.kind {
        case .call: isPing = false
        case .chunk:
            isPing = false
            isBundle = result.itemCount > 1
        case .knock:
            isPing = true
            isImpatient = true
            self.knocked()
        case .ping(let endpoint):
            isPing = true
            target = endpoint.map { Int32($0) } ?? Call.noEndpoint
        }
        let call = Call(
            id: result.correlationID.rawValue,
            function: result.function,
            isIdempotent: result.isIdempotent,
            affinity: result.affinity,
            isPing: isPing,
            isImpatient: isImpatient,
            target: target,
            attempts: result.attempts,
            isBundle: isBundle,
            deadline: result.deadline
        )
        guard let (slot, endpoint) = self.callTable.machine.submitted(call, at: self.now) else {
            self.end(result, .expired, result.timeout(at: self.now))
            return
        }
        if call.deadline < self.nextTick { self.nextTick = call.deadline }
        self.hasServed = true
        guard let endpoint else { return self.callTable.put(result, in: slot) }
        let link = self.links[endpoint]
        guard result.request.payloadCount <= link.maxPayloadBytes else {
            let refused = copy result
            self.callTable.put(result, in: slot)
            return self.refuse(refused, in: slot, link)
        }
        self.transmit(result, by: link)
        self.callTable.put(result, in: slot)
    }

    /// Sends a call's request, which must not be more than the worker takes: that would break the connection, and again
    /// when it is back.
    @available(*, noasync)
    func transmit(_ result: AnyAsyncResult, by link: ClientLink, as repetition: Header.Flags = []) {
        result.show(.sent, endpoint: link.index)
        self.attempt(link) { link throws(ZMQError) in
            try link.send(result, as: repetition, at: self.now)
        }
    }

    func refuse(_ result: AnyAsyncResult, in slot: UInt32, _ link: ClientLink) {
        let id = result.correlationID.rawValue
        let count = result.request.payloadCount
        guard self.callTable.machine.spoiled(id, from: link.index, at: self.now) == slot,
            self.callTable.take(slot) != nil
        else { return }
        result.freeRequest()
        let worker = self.core.workerName(of: link.index)
        let error = RemoteError(
            .tooLarge,
            message:
                "the arguments take \(PeopleText.size(count)), \(worker) takes \(PeopleText.size(link.maxPayloadBytes)): send less at "
                + "once, or raise maxPayloadBytes there",
            execution: .didNotRun,
            worker: worker,
            function: result.functionName,
            correlationID: result.correlationID
        )
        self.end(result, .failed, .remote(error))
    }

    @available(*, noasync)
    func carryOut(_ command: ClientCommand.Kind) {
        switch command {
        case .abandon(let result, let reason):
            let id = result.correlationID.rawValue
            if let slot = self.callTable.machine.abandoned(id, as: reason, at: self.now, actions: &self.actions) {
                self.callTable.take(slot)?.freeRequest()
                self.performActions()
            }
        case .deadlineMoved(let result):
            let deadline = result.deadline
            self.callTable.machine.deadlineMoved(result.correlationID.rawValue, to: deadline, actions: &self.actions)
            self.nextTick = min(self.nextTick, deadline)
            self.performActions()
        case .unsubscribe(let id):
            if self.lastSubscription?.id == id { self.lastSubscription = nil }
            self.tellAll(Header(.ended, number: id.rawValue))
        case .resume(let id):
            // A pause that was asked for since this command was posted is not ended by it: another command will come.
            guard let subscription = self.core.subscriptions.find(id), !subscription.isPaused else { break }
            self.tellAll(Header(.flow, id: 1, number: id.rawValue))
        case .answer(let invocation, let block, let isError):
            let isOpen = self.callTable.machine.endpoints[invocation.endpoint].isOpen
            let header = Header(isError ? .error : .reply, id: invocation.id)
            self.attempt(self.links[invocation.endpoint]) { link throws(ZMQError) in
                try link.answer(invocation, header, consuming: block, isOpen: isOpen)
            }
        case .lookedUp(let endpoint, let lookUp, let answer):
            self.lookedUp(self.links[endpoint], lookUp, answer)
        case .cancelAll(let latest):
            for result in self.callTable.openHandles where result.correlationID.rawValue <= latest { result.cancel() }
        }
    }

    /// Says something to every worker that there is a session with.
    @available(*, noasync)
    func tellAll(_ header: Header) {
        for link in self.links where self.callTable.machine.endpoints[link.index].isOpen {
            self.attempt(link) { link throws(ZMQError) in try link.send(header) }
        }
    }

    // MARK: Sleeping and leaving

    @available(*, noasync)
    func sleep() {
        guard self.isQuiet else { return }
        self.now = self.core.now()
        self.core.counters.tableEntries.store(self.callTable.machine.callCount, ordering: .relaxed)
        self.core.counters.timers.store(self.callTable.machine.timerCount, ordering: .relaxed)
        self.trimIfIdle()
        self.giveBackIfIdle()
        self.nextTick = min(self.callTable.machine.nextDeadline(after: self.now), self.idle.nextDeadline)
        if self.spins() { return }
        let mayUseCommands = self.core.commands.prepareToSleep()
        let maySleep = self.core.submissions.prepareToSleep() && mayUseCommands
        guard maySleep else {
            self.core.commands.didWake(isSignalled: false)
            self.core.submissions.didWake(isSignalled: false)
            return
        }
        var wakeAt = self.nextTick
        for link in self.links { wakeAt = min(wakeAt, link.reopensAt) }
        if self.core.callbackThread?.lacksThread == true {
            wakeAt = min(wakeAt, self.now.advanced(byNanoseconds: ClientCore.threadPauseNanoseconds))
        }
        if self.core.currentState == .closing {
            wakeAt = min(wakeAt, Instant(nanoseconds: self.core.closeDeadline.load(ordering: .relaxed)))
        }
        let waker = self.fillPoll()
        do throws(ZMQError) {
            let limit = wakeAt.pollMilliseconds(at: self.now)
            try self.core.ownership.whileAway { () throws(ZMQError) in try self.poll.wait(milliseconds: limit) }
        } catch {
            self.core.logger.warning("a poll failed", metadata: [LogKeys.error: "\(error)"])
        }
        for link in self.links {
            link.moveToCurrentThread()
            link.didPoll(self.poll)
        }
        self.core.commands.didWake(isSignalled: self.poll.isReady(waker))
        self.core.submissions.didWake(isSignalled: false)
        self.now = self.core.now()
    }

    /// Puts all descriptors into the poll.
    ///
    /// - Returns: The waker's place.
    private func fillPoll() -> Int {
        self.poll.removeAll()
        let waker = self.poll.add(self.core.waker.fileDescriptor)
        for link in self.links { link.addToPoll(&self.poll) }
        return waker
    }

    /// Looks out for the answer to a lone call, or for the next one, if that is likely to come sooner than this thread would be
    /// woken.
    ///
    /// - Returns: Whether there is something to do.
    @available(*, noasync)
    private func spins() -> Bool {
        guard self.hasServed else { return false }
        self.hasServed = false
        let count = self.callTable.machine.callCount
        guard count <= 1, self.spinNanoseconds > 0, self.core.currentState == .running else { return false }
        guard count == 1 ? self.answerSpin.begins() : self.callSpin.begins() else { return false }
        let waker = self.fillPoll()
        let end = min(self.now.advanced(byNanoseconds: self.spinNanoseconds), self.nextTick)
        do throws(ZMQError) {
            let isInTime = try self.poll.spin(until: end.nanoseconds) {
                !self.core.submissions.isEmpty || !self.core.commands.isEmpty
            }
            if count == 1 { self.answerSpin.ended(inTime: isInTime) } else { self.callSpin.ended(inTime: isInTime) }
            for link in self.links { link.didPoll(self.poll) }
            self.now = self.core.now()
            // A wake-up is taken by who sleeps; one that was left behind would end this at once each time.
            return isInTime && !self.poll.isReady(waker)
        } catch {
            return false
        }
    }

    /// Whether all sockets wait for something to happen.
    @available(*, noasync)
    var isQuiet: Bool {
        for link in self.links {
            do throws(ZMQError) {
                guard try link.isQuiet() else { return false }
            } catch {
                self.socketFailed(link, error)
                return false
            }
        }
        return true
    }

    /// After a burst the memory it needed is given back.
    func trimIfIdle() {
        guard self.callTable.machine.callCount == 0 else { return }
        if self.actions.capacity > 4096 { self.actions = [] }
        if self.ended.capacity > 4096 { self.ended = [] }
    }

    /// Some seconds after the last call the memory that calls needed is given back.
    private func giveBackIfIdle() {
        let count = self.callTable.machine.callCount
        if count > 0 || self.hasServed {
            if count > Self.manyCalls { HeapReserve.usedMuch() }
            self.idle.worked(at: self.now)
        } else if self.idle.isDue(at: self.now) {
            self.callTable.trim()
            HeapReserve.giveBack()
        }
    }

    private static let manyCalls = 4096

    var isFinished: Bool {
        self.callTable.machine.callCount == 0
            || self.core.now().nanoseconds >= self.core.closeDeadline.load(ordering: .relaxed)
    }

    @available(*, noasync)
    func leave(isClosing: Bool) -> CallTable {
        self.core.notifications.beginTurn()
        defer { self.core.notifications.endTurn() }
        if isClosing {
            self.loseAll()
        } else {
            // Waiters of calls that were posted last must be dismissed as well.
            var submissions = self.core.submissions.takeAll()
            while let result = submissions.next() { self.submit(result) }
        }
        for link in self.links {
            if isClosing, self.callTable.machine.endpoints[link.index].isOpen {
                self.reply(to: link, Header(.goodbye, number: GoodbyeReason.leaving.rawValue))
            }
            self.attempt(link) { link throws(ZMQError) in try link.flush() }
            link.close(linger: isClosing ? .milliseconds(100) : .zero)
        }
        self.callTable.machine.suspended(at: self.now)
        if !isClosing {
            for result in self.callTable.openHandles { result.dismissWaiters() }
        }
        self.wakeWaiters()
        return self.callTable.leave()
    }

    /// The client is closed: whatever has not ended is lost.
    func loseAll() {
        for (slot, _) in self.callTable.machine.closed() {
            guard let result = self.callTable.take(slot) else { continue }
            result.freeRequest()
            self.end(result, .lost, .connection(self.core.closedError.of(callIn: result.lastPhase)))
        }
        self.core.counters.tableEntries.store(0, ordering: .relaxed)
        self.core.counters.timers.store(0, ordering: .relaxed)
    }
}
