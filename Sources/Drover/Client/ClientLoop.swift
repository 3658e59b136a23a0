// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverCore
internal import DroverWire
internal import DroverZMQ
internal import Glibc
internal import Logging
internal import Synchronization

/// The poller: owns a client's sockets, feeds its machine, carries out the machine's actions.
///
/// One turn: take what callers posted, receive a bounded batch, let the machine dispatch, flush, wake who waits; sleep
/// only if nothing was there. It never runs user code, save that results are decoded here.
///
/// It is used by one thread at a time, nearly always the poller's; see ``LoopSeat``.
final class ClientLoop {
    private let core: ClientCore
    @safe @exclusivity(unchecked) private var book: ClientBook
    @safe @exclusivity(unchecked) private var links: [ClientLink]
    @safe @exclusivity(unchecked) private var actions: [ClientAction] = []
    /// Handles that ended in this turn and have somebody to tell.
    @safe @exclusivity(unchecked) private var ended: [(AnyAsyncResult, Waiting)] = []
    @safe @exclusivity(unchecked) private var endCounts = EndCounts()
    @safe @exclusivity(unchecked) private var now: Instant
    @safe @exclusivity(unchecked) private var nextTick = Instant.distantFuture
    @safe @exclusivity(unchecked) private var message = Message()
    @safe @exclusivity(unchecked) private var attached = Message()
    @safe @exclusivity(unchecked) private var poll: DescriptorPoll
    @safe @exclusivity(unchecked) private var lastSubscription: Subscription?
    @safe @exclusivity(unchecked) private var turns = 0

    /// With more calls outstanding than this their number counts, not the time of each.
    private static let monitorPeriod = 64
    private static let gatherThreshold = 16
    /// How often a turn looks for more calls before it sends.
    private static let gatherLooks = 64
    /// How many frames one turn receives at most, so that callers aren't starved.
    private static let receiveBatch = 512

    @available(*, noasync)
    init(core: ClientCore, book: consuming ClientBook) {
        self.core = core
        self.book = book
        self.now = core.now()
        self.poll = DescriptorPoll(capacity: 1 + core.endpoints.count * 2)
        self.links = core.endpoints.indices.map { ClientLink(index: $0, endpoint: core.endpoints[$0], core: core) }
    }

    /// Serves until the client is stopped or closed.
    ///
    /// Returns the calls that are left.
    @available(*, noasync)
    func run() -> ClientBook {
        self.core.seat.take(self)
        defer { self.core.seat.leave() }
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
    private func turn() {
        self.core.tellers.beginTurn()
        defer { self.core.tellers.endTurn() }
        var isBusy = false
        self.turns &+= 1
        // Commands first, then calls, but worked off the other way round: the call that a command is about was posted
        // before the command, so it is in this lot or was in an earlier one.
        var commands = self.core.commands.takeAll()
        if self.book.machine.callCount > Self.gatherThreshold { self.gather() }
        var submissions = self.core.submissions.takeAll()
        if !submissions.isEmpty || !commands.isEmpty {
            isBusy = true
            self.now = self.core.now()
        }
        while let result = submissions.next() { self.submit(result) }
        while let command = commands.next() { self.carryOut(command.kind) }
        if isBusy { self.flush() }
        for link in self.links {
            // While there is no end of work no poll looks after the monitors.
            if link.mayHaveConnectionEvents || self.turns % Self.monitorPeriod == 0 { self.observeConnection(of: link) }
            if self.receive(from: link) { isBusy = true }
        }
        if self.now >= self.nextTick || !isBusy {
            self.now = self.core.now()
            if self.now >= self.nextTick {
                self.book.machine.ticked(at: self.now, actions: &self.actions)
                self.performActions()
            }
        }
        self.book.machine.dispatch(actions: &self.actions)
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
        self.core.tellers.begin()
        defer { self.core.tellers.end() }
        self.now = self.core.now()
        let wakeAt = self.nextTick
        var submissions = self.core.submissions.takeAll()
        while let result = submissions.next() { self.submit(result) }
        self.book.machine.dispatch(actions: &self.actions)
        self.performActions()
        self.flush()
        self.wakeWaiters()
        // The poller sleeps no longer than it meant to; a socket that has something to tell has perhaps told it here.
        return self.nextTick >= wakeAt && self.isQuiet
    }

    /// Waits as long as a busy caller posts, so that what it posts goes out together.
    ///
    /// A frame costs four threads a wake-up, a call in a frame next to nothing. With many calls outstanding a few
    /// microseconds are no matter: as long as one more look finds more, there is no hurry to send.
    @available(*, noasync)
    private func gather() {
        var newest = self.core.submissions.newest
        guard newest != 0 else { return }
        for _ in 0..<Self.gatherLooks {
            sched_yield()
            let next = self.core.submissions.newest
            if next == newest { return }
            newest = next
        }
    }

    @available(*, noasync)
    private func submit(_ result: consuming AnyAsyncResult) {
        guard !result.isTerminal else {
            // Cancelled or expired before it came this far: there is nothing to send.
            result.freeRequest()
            return
        }
        let isPing: Bool
        var target: Int32 = Call.noEndpoint
        switch result.kind {
        case .call: isPing = false
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
            target: target,
            deadline: result.deadline
        )
        guard let (slot, endpoint) = self.book.machine.submitted(call, at: self.now) else {
            self.end(result, .expired, result.timeout(at: self.now))
            return
        }
        if call.deadline < self.nextTick { self.nextTick = call.deadline }
        guard let endpoint else { return self.book.put(result, in: slot) }
        let link = self.links[endpoint]
        guard result.request.payloadCount <= link.maxPayloadBytes else {
            let refused = copy result
            self.book.put(result, in: slot)
            return self.refuse(refused, in: slot, link)
        }
        self.transmit(result, by: link, isResent: false)
        self.book.put(result, in: slot)
    }

    /// Sends a call's request, which must not be more than the worker takes: that would break the connection, and again
    /// when it is back.
    @available(*, noasync)
    private func transmit(_ result: AnyAsyncResult, by link: ClientLink, isResent: Bool) {
        result.show(.sent, endpoint: link.index)
        self.attempt(link) { link throws(ZMQError) in
            try link.send(result, isResent: isResent, at: self.now)
        }
    }

    private func refuse(_ result: AnyAsyncResult, in slot: UInt32, _ link: ClientLink) {
        let id = result.correlationID.rawValue
        let count = result.request.payloadCount
        guard self.book.machine.spoiled(id, from: link.index, at: self.now) == slot, self.book.take(slot) != nil else {
            return
        }
        result.request.free()
        let worker = self.core.workerName(of: link.index)
        let error = RemoteError(
            .tooLarge,
            message:
                "the arguments take \(count) bytes, \(worker) takes \(link.maxPayloadBytes): send less at once, or "
                + "raise maxPayloadBytes there",
            worker: worker,
            function: result.functionName,
            correlationID: result.correlationID
        )
        self.end(result, .failed, .remote(error))
    }

    @available(*, noasync)
    private func carryOut(_ command: ClientCommand.Kind) {
        switch command {
        case .abandon(let result, let reason):
            let id = result.correlationID.rawValue
            if let slot = self.book.machine.abandoned(id, as: reason, at: self.now, actions: &self.actions) {
                self.book.take(slot)?.request.free()
                self.performActions()
            }
        case .deadlineMoved(let result):
            let deadline = result.deadline
            self.book.machine.deadlineMoved(result.correlationID.rawValue, to: deadline, actions: &self.actions)
            self.nextTick = min(self.nextTick, deadline)
            self.performActions()
        case .unsubscribe(let id):
            if self.lastSubscription?.id == id { self.lastSubscription = nil }
            self.tellAll(Header(.ended, number: id.rawValue))
        case .flow(let id, let isPaused):
            self.tellAll(Header(.flow, id: isPaused ? 0 : 1, number: id.rawValue))
        case .answer(let invocation, let block, let isError):
            self.attempt(self.links[invocation.endpoint]) { link throws(ZMQError) in
                try link.send(Header(isError ? .error : .reply, id: invocation.id), consuming: block)
            }
        case .cancelAll:
            for result in self.book.openHandles { result.cancel() }
        }
    }

    /// Says something to every worker that there is a session with.
    @available(*, noasync)
    private func tellAll(_ header: Header) {
        for link in self.links where self.book.machine.endpoints[link.index].isOpen {
            self.attempt(link) { link throws(ZMQError) in try link.send(header) }
        }
    }

    // MARK: Receiving

    @available(*, noasync)
    private func receive(from link: ClientLink) -> Bool {
        var count = 0
        while count < Self.receiveBatch {
            do throws(ZMQError) {
                guard try link.receive(into: &self.message) else { break }
                if count == 0 {
                    self.now = self.core.now()
                    self.book.machine.heard(from: link.index, at: self.now)
                }
                count += 1
                try self.takeFrame(from: link)
            } catch {
                self.socketFailed(link, error)
                break
            }
        }
        if count > 0 { self.performActions() }
        return count > 0
    }

    /// Takes one ZeroMQ message: a frame of messages and perhaps an attached payload.
    @available(*, noasync)
    private func takeFrame(from link: ClientLink) throws(ZMQError) {
        var attachedCount: Int?
        if self.message.hasMore {
            _ = try link.receive(into: &self.attached)
            attachedCount = self.attached.count
            if self.attached.hasMore {
                while self.attached.hasMore { _ = try link.receive(into: &self.attached) }
                self.malformed(WireError(.badFraming, "a message of more than two frames"), from: link, header: nil)
                return
            }
        }
        let message = self.message.take()
        let firstEvent = unsafe message.withUnsafeBytes { bytes in
            unsafe self.takeMessages(bytes, of: nil, startingAt: 0, attachedCount: attachedCount, from: link)
        }
        guard let firstEvent else { return }
        // Events keep the frame. They are taken where they stand: behind them the reply may come that ends their callback.
        let box = MessageBox(message)
        unsafe box.withUnsafeBytes { bytes in
            _ = unsafe self.takeMessages(
                bytes,
                of: box,
                startingAt: firstEvent,
                attachedCount: attachedCount,
                from: link
            )
        }
    }

    /// Takes a frame's messages one after the other; `box` keeps the frame, nil as long as nobody has to.
    ///
    /// Returns where the first event stands if there is no box for it: the rest is to be taken again with one.
    @available(*, noasync)
    private func takeMessages(
        _ bytes: UnsafeRawBufferPointer,
        of box: MessageBox?,
        startingAt start: Int,
        attachedCount: Int?,
        from link: ClientLink
    ) -> Int? {
        var limits = WireLimits.standard
        limits.maxPayloadBytes = self.core.configuration.maxPayloadBytes
        var reader = unsafe FrameReader(bytes, from: start, attachedByteCount: attachedCount, limits: limits)
        do throws(WireError) {
            while let part = try reader.next() {
                if part.isAttached {
                    let box = MessageBox(self.attached.take())
                    unsafe box.withUnsafeBytes { payload in
                        unsafe self.take(part.header, payload: payload, range: 0..<payload.count, of: box, from: link)
                    }
                } else {
                    if box == nil, part.header.kind == .event || part.header.kind == .invoke {
                        return part.payload.lowerBound - Header.byteCount
                    }
                    let payload = unsafe UnsafeRawBufferPointer(rebasing: bytes[part.payload])
                    unsafe self.take(part.header, payload: payload, range: part.payload, of: box, from: link)
                }
            }
        } catch {
            self.malformed(error, from: link, header: reader.lastHeader)
        }
        return nil
    }

    @available(*, noasync)
    private func take(
        _ header: Header,
        payload: UnsafeRawBufferPointer,
        range: Range<Int>,
        of box: MessageBox?,
        from link: ClientLink
    ) {
        guard let kind = header.kind else {
            self.core.counters.unknownMessages.count()
            return
        }
        guard header.contentType == ContentType.messagePack.rawValue else {
            let error = WireError(.badPayload, "content type \(header.contentType) is not known here")
            return self.malformed(error, from: link, header: header)
        }
        switch kind {
        case .reply, .error, .pong:
            unsafe self.takeAnswer(header, kind: kind, payload: payload, from: link)
        case .event, .invoke:
            if let box { self.deliver(header, payload: range, of: box, from: link) }
        case .progress:
            unsafe self.takeProgress(header, payload: payload)
        case .accepted:
            self.book.machine.phaseReported(header.id, phase: .accepted, from: link.index, actions: &self.actions)
        case .started:
            self.book.machine.phaseReported(header.id, phase: .running, from: link.index, actions: &self.actions)
        case .cancelled:
            self.book.machine.cancellationConfirmed(
                header.id,
                stage: CancelledStage(rawValue: header.number) ?? .unknown,
                from: link.index,
                at: self.now,
                actions: &self.actions
            )
        case .ended:
            if let subscription = self.core.subscriptions.remove(SubscriptionID(header.number)) { subscription.end() }
            self.lastSubscription = nil
        case .beat:
            self.book.machine.beatReceived(
                from: link.index,
                epoch: header.id,
                at: self.now,
                actions: &self.actions
            )
        case .ping:
            self.attempt(link) { link throws(ZMQError) in try link.send(Header(.pong, id: header.id)) }
        default:
            unsafe self.takeSession(header, kind: kind, payload: payload, from: link)
        }
    }

    @available(*, noasync)
    private func takeSession(
        _ header: Header,
        kind: MessageKind,
        payload: UnsafeRawBufferPointer,
        from link: ClientLink
    ) {
        switch kind {
        case .welcome:
            do throws(WireError) {
                unsafe self.welcome(try Welcome(reading: payload), header, from: link)
            } catch {
                self.malformed(error, from: link, header: nil)
            }
        case .reset:
            self.book.machine.resetReceived(from: link.index, at: self.now, actions: &self.actions)
        case .goodbye:
            self.book.machine.goodbyeReceived(
                from: link.index,
                reason: GoodbyeReason(rawValue: header.number) ?? .leaving,
                at: self.now,
                actions: &self.actions
            )
        case .refused:
            let body = unsafe ErrorBody(reading: payload)
            link.lastProblem = body.map { "the worker refused the handshake: \($0.message)" }
            self.book.machine.refused(by: link.index, reason: .refused, at: self.now, actions: &self.actions)
        default:
            // What only workers are sent.
            self.core.counters.unknownMessages.count()
        }
    }

    @available(*, noasync)
    private func takeAnswer(
        _ header: Header,
        kind: MessageKind,
        payload: UnsafeRawBufferPointer,
        from link: ClientLink
    ) {
        switch self.book.machine.replied(header.id, from: link.index, at: self.now) {
        case .deliver(let slot):
            guard let result = self.book.take(slot) else { return }
            result.request.release()
            let waiting: Waiting?
            if kind == .error {
                waiting = unsafe self.settleError(result, payload: payload)
            } else {
                waiting = unsafe result.settle(value: payload)
            }
            self.note(result, waiting)
        case .expire(let slot, let function, let nanoseconds):
            guard let result = self.book.take(slot) else { return }
            result.request.release()
            self.end(result, .expired, result.timeout(at: self.now))
            self.reportLate(header.id, function: function, nanoseconds: nanoseconds)
        case .late(let function, let nanoseconds):
            self.reportLate(header.id, function: function, nanoseconds: nanoseconds)
        case .duplicate: self.core.counters.duplicateReplies.count()
        case .unknown: self.core.counters.unknownReplies.count()
        }
    }

    /// A reply came that nobody waits for any more.
    private func reportLate(_ id: UInt64, function: UInt32, nanoseconds: UInt64) {
        self.core.counters.lateReplies.count()
        guard let hook = self.core.configuration.onLateReply else { return }
        let reply = LateReply(
            correlationID: CorrelationID(id),
            function: self.core.function(function)?.name ?? "",
            lateness: Duration(nanoseconds: nanoseconds)
        )
        self.core.callbacks.enqueue { hook(reply) }
    }

    private func settleError(_ result: AnyAsyncResult, payload: UnsafeRawBufferPointer) -> Waiting? {
        guard let body = unsafe ErrorBody(reading: payload) else {
            let message = "the worker's error for \(result.functionName) \(result.correlationID) can't be understood"
            return result.settle(.lost, failure: .connection(ConnectionError(.protocol, message: message)))
        }
        return result.settle(.failed, failure: .remote(body.error(of: result)))
    }

    private func takeProgress(_ header: Header, payload: UnsafeRawBufferPointer) {
        self.core.counters.events.count()
        guard let slot = self.book.machine.slot(of: header.id), let result = self.book.handle(in: slot) else {
            self.core.counters.strayEvents.count()
            return
        }
        result.channel().yield(ResultEvent(sequence: Int(header.time), bytes: unsafe [UInt8](payload)))
    }

    @available(*, noasync)
    private func deliver(_ header: Header, payload: Range<Int>, of box: MessageBox, from link: ClientLink) {
        self.core.counters.events.count()
        let id = SubscriptionID(header.number)
        if self.lastSubscription?.id != id { self.lastSubscription = self.core.subscriptions.find(id) }
        let isCall = header.rawKind == MessageKind.invoke.rawValue
        let deadline =
            header.time == Header.noTimeLimit
            ? Instant.distantFuture : self.now.advanced(byNanoseconds: UInt64(header.time) * 1_000_000)
        let arrival = Subscription.Arrival(
            frame: box,
            payload: payload,
            number: 0,
            invocation: isCall ? .init(endpoint: link.index, id: header.id, deadline: deadline) : nil
        )
        let consequence =
            self.lastSubscription?.receive(arrival, sequence: isCall ? nil : header.id, from: link.index) ?? .refuse
        switch consequence {
        case .none: break
        case .pause: self.reply(to: link, Header(.flow, id: 0, number: id.rawValue))
        case .unsubscribe:
            self.core.subscriptions.remove(id)?.end()
            self.lastSubscription = nil
            self.reply(to: link, Header(.ended, number: id.rawValue))
        case .refuse:
            self.core.counters.strayEvents.count()
            self.reply(to: link, Header(.ended, number: id.rawValue))
            if isCall {
                let body = ErrorBody(code: .subscriberGone, message: "the callback's subscription \(id) is over")
                self.attempt(link) { link throws(ZMQError) in
                    try link.send(Header(.error, id: header.id), consuming: body.packed())
                }
            }
        }
    }

    @available(*, noasync)
    private func reply(to link: ClientLink, _ header: Header) {
        self.attempt(link) { link throws(ZMQError) in try link.send(header) }
    }

    /// Bytes that can't be understood: counted and logged; if they name a call, that one is lost (contract S73).
    @available(*, noasync)
    private func malformed(_ error: WireError, from link: ClientLink, header: Header?) {
        self.core.counters.malformedMessages.count()
        self.core.logger.debug(
            "a malformed message was dropped",
            metadata: [LogKeys.endpoint: "\(link.endpoint)", LogKeys.error: "\(error)"]
        )
        link.lastProblem = "\(error)"
        guard let header, let kind = header.kind, kind == .reply || kind == .error,
            let slot = self.book.machine.spoiled(header.id, from: link.index, at: self.now),
            let result = self.book.take(slot)
        else { return }
        let failure = ConnectionError(
            .protocol,
            message: "the reply to \(result.functionName) \(result.correlationID) can't be understood: \(error)"
        )
        self.end(result, .lost, .connection(failure))
    }

    // MARK: Sessions

    @available(*, noasync)
    private func welcome(_ welcome: Welcome, _ header: Header, from link: ClientLink) {
        link.failedHandshakes = 0
        link.forgetFunctions()
        // Workers that don't say take what this client allows.
        link.maxPayloadBytes = welcome.maxPayloadBytes > 0 ? welcome.maxPayloadBytes : Int.max
        self.core.setWorkerName(welcome.name, of: link.index)
        self.book.machine.welcomed(
            by: link.index,
            epoch: header.id,
            session: header.number,
            window: welcome.window,
            isResumed: welcome.isResumed,
            at: self.now,
            actions: &self.actions
        )
    }

    /// What the monitor saw of the connection.
    @available(*, noasync)
    private func observeConnection(of link: ClientLink) {
        do throws(ZMQError) {
            while let event = try link.nextConnectionEvent() {
                switch event {
                case .handshakeSucceeded:
                    link.failedHandshakes = 0
                    self.book.machine.connected(link.index, at: self.now, actions: &self.actions)
                case .disconnected, .closed:
                    link.forgetOutgoing()
                    self.book.machine.disconnected(link.index, at: self.now, actions: &self.actions)
                case .connectRetried:
                    link.lastProblem = link.lastProblem ?? "nobody listens there"
                case .handshakeFailedAuth:
                    self.handshakeFailed(link, reason: .authentication, "the worker refused this client's key")
                case .handshakeFailedProtocol, .handshakeFailedNoDetail:
                    self.handshakeFailed(link, reason: .protocol, "the peer there does not speak ZeroMQ as Drover does")
                default: break
                }
                self.performActions()
            }
        } catch {
            self.socketFailed(link, error)
        }
    }

    @available(*, noasync)
    private func handshakeFailed(_ link: ClientLink, reason: LossReason, _ problem: String) {
        link.lastProblem = problem
        link.failedHandshakes += 1
        guard link.failedHandshakes >= ClientLink.handshakeLimit else { return }
        link.failedHandshakes = 0
        self.book.machine.refused(by: link.index, reason: reason, at: self.now, actions: &self.actions)
    }

    @available(*, noasync)
    private func open(_ link: ClientLink) {
        do throws(ZMQError) {
            try link.open()
        } catch {
            link.lastProblem = "\(error)"
            self.core.logger.warning(
                "an endpoint can't be connected to",
                metadata: [LogKeys.endpoint: "\(link.endpoint)", LogKeys.error: "\(error)"]
            )
            self.book.machine.refused(by: link.index, reason: .protocol, at: self.now, actions: &self.actions)
            // The machine asks for a new socket; what failed now would fail again at once.
            self.actions.removeAll { $0 == .rebuild(endpoint: link.index) }
        }
    }

    @available(*, noasync)
    private func socketFailed(_ link: ClientLink, _ error: ZMQError) {
        self.core.logger.warning(
            "a socket failed and is made anew",
            metadata: [LogKeys.endpoint: "\(link.endpoint)", LogKeys.error: "\(error)"]
        )
        link.lastProblem = "\(error)"
        link.close(linger: .zero)
        self.book.machine.disconnected(link.index, at: self.now, actions: &self.actions)
        self.open(link)
    }

    // MARK: Actions

    @available(*, noasync)
    private func performActions() {
        guard !self.actions.isEmpty else { return }
        var index = 0
        // Carrying out an action may add others.
        while index < self.actions.count {
            self.perform(self.actions[index])
            index += 1
        }
        self.actions.removeAll(keepingCapacity: true)
    }

    @available(*, noasync)
    private func perform(_ action: ClientAction) {
        switch action {
        case .transmit(let slot, let endpoint, let isResent):
            guard let result = self.book.handle(in: slot) else { return }
            if isResent { self.core.counters.resends.count() }
            let link = self.links[endpoint]
            if result.request.payloadCount > link.maxPayloadBytes {
                self.refuse(result, in: slot, link)
            } else {
                self.transmit(result, by: link, isResent: isResent)
            }
        case .sendHello(let endpoint):
            let hello = Hello(
                client: self.core.identity,
                name: self.core.name,
                beatMilliseconds: Int(self.core.configuration.heartbeatInterval.clampedNanoseconds / 1_000_000),
                maxPayloadBytes: self.core.configuration.maxPayloadBytes
            )
            self.attempt(self.links[endpoint]) { link throws(ZMQError) in
                let claimed = self.book.machine.endpoints[endpoint].claimedSession
                let header = Header(.hello, id: self.epoch(for: endpoint), number: claimed)
                try link.send(header, consuming: hello.packed())
            }
        case .sendBeat(let endpoint):
            self.reply(to: self.links[endpoint], Header(.beat, id: self.epoch(for: endpoint)))
        case .sendCancel(let endpoint, let id, let reason):
            self.reply(to: self.links[endpoint], Header(.cancel, id: id, number: reason.rawValue))
        case .sendDeadline(let endpoint, let id, let deadline):
            let left = ClientLink.remaining(until: deadline, at: self.now)
            self.reply(to: self.links[endpoint], Header(.deadline, id: id, time: left))
        case .finish(let slot, _, let ending):
            guard let result = self.book.take(slot) else { return }
            result.request.free()
            switch ending {
            case .expired: self.end(result, .expired, result.timeout(at: self.now))
            case .lost(let reason):
                let place = self.lastPlace(of: result)
                self.end(result, .lost, .connection(self.error(reason, of: place.link, worker: place.worker)))
            }
        case .show(let slot, let phase, let endpoint):
            self.book.handle(in: slot)?.show(phase, endpoint: endpoint)
        case .opened(let endpoint, let isResumed):
            self.sessionOpened(self.links[endpoint], isResumed: isResumed)
        case .lost(let endpoint, let reason):
            self.sessionLost(self.links[endpoint], reason: reason)
        case .rebuild(let endpoint):
            self.links[endpoint].close(linger: .zero)
            self.open(self.links[endpoint])
        }
    }

    /// What this client's life is called towards a worker.
    ///
    /// One that was given up is met under another epoch, so that it ends the session that was left, with all that still
    /// runs or waits in it.
    private func epoch(for endpoint: Int) -> UInt64 {
        self.core.epoch &+ self.book.machine.endpoints[endpoint].losses
    }

    private func lastPlace(of result: AnyAsyncResult) -> (link: ClientLink, worker: String) {
        let link = self.links[min(result.lastEndpoint, self.links.count - 1)]
        return (link, self.core.workerName(of: link.index))
    }

    private func error(_ reason: LossReason, of link: ClientLink, worker: String) -> ConnectionError {
        let place = worker.isEmpty ? "the worker at \(link.endpoint)" : "\(worker) at \(link.endpoint)"
        let detail = link.lastProblem.map { " (\($0))" } ?? ""
        switch reason {
        case .silent:
            let limit = self.core.configuration.silenceLimit
            return ConnectionError(
                .lost,
                message:
                    "\(place) was silent for \(limit); whether the call ran is unknown: make it again if it may run twice"
            )
        case .restarted:
            return ConnectionError(
                .lost,
                message: "\(place) was restarted; whether the call ran is unknown: make it again if it may run twice"
            )
        case .forgotten:
            return ConnectionError(
                .lost,
                message:
                    "\(place) had given this client up; whether the call ran is unknown: make it again if it may run twice"
            )
        case .left:
            return ConnectionError(.lost, message: "\(place) was shut down before it answered; make the call again")
        case .authentication:
            return ConnectionError(
                .authentication,
                message: "\(place) refuses this client's key; have the key allowed there, or use an allowed one"
            )
        case .protocol:
            return ConnectionError(
                .protocol,
                message: "\(link.endpoint) can't be talked to\(detail); check the address"
            )
        case .refused:
            return ConnectionError(.protocol, message: "\(place) does not accept this client\(detail)")
        }
    }

    @available(*, noasync)
    private func sessionOpened(_ link: ClientLink, isResumed: Bool) {
        self.core.counters.sessions.count()
        let worker = self.core.workerName(of: link.index)
        self.core.logger.debug(
            "a session began",
            metadata: [LogKeys.endpoint: "\(link.endpoint)", LogKeys.worker: "\(worker)"]
        )
        link.lastProblem = nil
        for subscription in self.core.subscriptions.all {
            // A pause, or its end, may have gone with the former connection; a new worker numbers its events anew.
            if !isResumed { subscription.forgetSequence(of: link.index) }
            let pause = Header(.flow, id: subscription.isPaused ? 0 : 1, number: subscription.id.rawValue)
            if isResumed { self.reply(to: link, pause) }
        }
        guard let hook = self.core.configuration.onConnect else { return }
        let connection = Connection(endpoint: link.endpoint, worker: worker, isResumed: isResumed)
        self.core.callbacks.enqueue { hook(connection) }
    }

    @available(*, noasync)
    private func sessionLost(_ link: ClientLink, reason: LossReason) {
        self.core.counters.disconnections.count()
        let error = self.error(reason, of: link, worker: self.core.workerName(of: link.index))
        self.core.logger.warning(
            "a worker is lost",
            metadata: [LogKeys.endpoint: "\(link.endpoint)", LogKeys.error: "\(error)"]
        )
        guard let hook = self.core.configuration.onDisconnect else { return }
        let disconnection = Disconnection(endpoint: link.endpoint, error: error)
        self.core.callbacks.enqueue { hook(disconnection) }
    }

    /// Ends a handle from here; who waits is told at the end of the turn.
    private func end(_ result: AnyAsyncResult, _ status: AnyAsyncResult.Status, _ failure: FailureBox) {
        self.note(result, result.settle(status, failure: failure))
    }

    /// A handle was ended here, unless `waiting` is nil: counts it, and keeps who waits for the end of the turn.
    private func note(_ result: AnyAsyncResult, _ waiting: Waiting?) {
        guard let waiting else { return }
        self.endCounts.count(result.currentStatus)
        self.core.jobsEnded(with: result)
        if !waiting.isEmpty { self.ended.append((result, waiting)) }
    }

    @available(*, noasync)
    private func attempt(_ link: ClientLink, _ send: (ClientLink) throws(ZMQError) -> Void) {
        do throws(ZMQError) { try send(link) } catch { self.socketFailed(link, error) }
    }

    @available(*, noasync)
    private func flush() {
        for link in self.links {
            self.attempt(link) { link throws(ZMQError) in
                if link.isBlocked { try link.unpark() }
                try link.flush()
            }
            if link.hasSent {
                link.hasSent = false
                self.book.machine.sent(to: link.index, at: self.now)
            }
        }
    }

    private func wakeWaiters() {
        if self.endCounts.total > 0 {
            self.core.add(self.endCounts)
            self.endCounts = EndCounts()
        }
        guard !self.ended.isEmpty else { return }
        for (result, waiting) in self.ended { waiting.wake(for: result) }
        self.ended.removeAll(keepingCapacity: true)
    }

    // MARK: Sleeping and leaving

    @available(*, noasync)
    private func sleep() {
        guard self.isQuiet else { return }
        self.now = self.core.now()
        self.core.counters.tableEntries.store(self.book.machine.callCount, ordering: .relaxed)
        self.core.counters.timers.store(self.book.machine.timerCount, ordering: .relaxed)
        self.trimIfIdle()
        self.nextTick = self.book.machine.nextDeadline(after: self.now)
        let mayUseCommands = self.core.commands.prepareToSleep()
        let maySleep = self.core.submissions.prepareToSleep() && mayUseCommands
        guard maySleep else {
            self.core.commands.didWake(isSignalled: false)
            self.core.submissions.didWake(isSignalled: false)
            return
        }
        var wakeAt = self.nextTick
        if self.core.currentState == .closing {
            wakeAt = min(wakeAt, Instant(nanoseconds: self.core.closeDeadline.load(ordering: .relaxed)))
        }
        self.poll.removeAll()
        let waker = self.poll.add(self.core.waker.fileDescriptor)
        for link in self.links {
            link.addToPoll(&self.poll)
        }
        do throws(ZMQError) {
            let limit = Self.milliseconds(until: wakeAt, at: self.now)
            try self.core.seat.whileAway { () throws(ZMQError) in try self.poll.wait(milliseconds: limit) }
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

    /// Whether all sockets wait for something to happen.
    @available(*, noasync)
    private var isQuiet: Bool {
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
    private func trimIfIdle() {
        guard self.book.machine.callCount == 0 else { return }
        if self.actions.capacity > 4096 { self.actions = [] }
        if self.ended.capacity > 4096 { self.ended = [] }
    }

    private static func milliseconds(until instant: Instant, at now: Instant) -> Int {
        guard instant != .distantFuture else { return -1 }
        let nanoseconds = instant.nanoseconds(since: now)
        return Int(min((nanoseconds + 999_999) / 1_000_000, 3_600_000))
    }

    private var isFinished: Bool {
        self.book.machine.callCount == 0
            || self.core.now().nanoseconds >= self.core.closeDeadline.load(ordering: .relaxed)
    }

    @available(*, noasync)
    private func leave(isClosing: Bool) -> ClientBook {
        self.core.tellers.beginTurn()
        defer { self.core.tellers.endTurn() }
        if isClosing { self.loseAll() }
        for link in self.links {
            if isClosing, self.book.machine.endpoints[link.index].isOpen {
                self.reply(to: link, Header(.goodbye, number: GoodbyeReason.leaving.rawValue))
            }
            self.attempt(link) { link throws(ZMQError) in try link.flush() }
            link.close(linger: isClosing ? .milliseconds(100) : .zero)
        }
        self.book.machine.suspended(at: self.now)
        if !isClosing {
            for result in self.book.openHandles { result.dismissWaiters() }
        }
        self.wakeWaiters()
        return self.book.leave()
    }

    /// The client is closed: whatever has not ended is lost.
    private func loseAll() {
        for (slot, _) in self.book.machine.closed() {
            guard let result = self.book.take(slot) else { continue }
            result.request.free()
            self.end(result, .lost, .connection(self.core.closedError))
        }
        self.core.counters.tableEntries.store(0, ordering: .relaxed)
        self.core.counters.timers.store(0, ordering: .relaxed)
    }
}
