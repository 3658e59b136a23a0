// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import DroverZMQ
internal import Logging

// What the machine has decided, and how it is sent.

extension BrokerLoop {
    @available(*, noasync)
    func performActions() {
        guard !self.actions.isEmpty else { return }
        var index = 0
        // Performing an action may add more.
        while index < self.actions.count {
            self.perform(self.actions[index])
            index += 1
        }
        self.actions.removeAll(keepingCapacity: true)
    }

    private func perform(_ action: BrokerAction) {
        switch action {
        case .transmit(let slot, let worker, let id, let isResent):
            self.transmit(slot, to: worker, as: id, isResent: isResent)
        case .define(let worker, let function):
            guard let link = self.workerLinks[worker] else { return }
            let name = Array(self.machine.functionName(function).utf8)
            self.send(Header(.define, number: self.machine.number(of: function)), name, to: link)
        case .sendHello(let worker, let session): self.sendHello(to: worker, session: session)
        case .sendClientBeat(let client):
            self.send(Header(.beat, id: self.core.epoch), toClient: client)
            self.askForKept(client, isBeat: true)
        case .sendWorkerBeat(let worker): self.sendBeat(toWorker: worker)
        case .restamp(let worker): self.workerLinks[worker]?.departures.wasMistaken()
        case .sendCredit(let worker, let credit, let waiting):
            let header = Header(.credit, time: UInt32(clamping: waiting), number: UInt32(clamping: credit))
            self.send(header, toWorker: worker)
        case .sendCancel(let worker, let id, let reason):
            self.workerLinks[worker]?.line.cancelOwn(id)
            self.send(Header(.cancel, id: id, number: reason.rawValue), toWorker: worker)
        case .recall(let worker, let id):
            self.send(Header(.cancel, id: id, number: CancelReason.recalled.rawValue), toWorker: worker)
        case .sendDeadline(let worker, let id, let deadline):
            guard let link = self.workerLinks[worker] else { return }
            link.line.move(id, to: deadline)
            self.send(Header(.deadline, id: id, time: self.time(until: deadline, for: link)), to: link)
        case .tellStalled(let client, let id):
            self.send(Header(.accepted, id: id, number: PhaseReport.stalled), toClient: client)
        case .tellServed(let client, let id, let isServed):
            self.send(Header(.accepted, id: id, number: isServed ? 0 : PhaseReport.unserved), toClient: client)
        case .finish(let slot, let client, let id, let ending):
            self.finish(id, of: client, ending, isBehindEvents: self.hasCallbacks(slot))
            self.forget(slot)
        case .release(let slot): self.forget(slot)
        case .clientLost(let client, _):
            if client < self.clientLinks.count, let link = self.clientLinks[client] {
                link.forgetOutgoing()
                self.forgetUnread(of: link)
                self.gate.isNobodys(link.introducedBy)
                self.clientLinks[client] = nil
            }
            self.forgetQuestions(of: client)
        case .workerLost(let worker, _, let reason):
            // A new life of the worker may already have taken its place.
            if worker < self.workerLinks.count, !self.machine.workers[worker].isLive {
                self.workerLinks[worker]?.forgetOutgoing()
                self.gate.isNobodys(self.workerLinks[worker]?.introducedBy)
                self.workerLinks[worker] = nil
            }
            self.core.configuration.logger.log(
                level: reason == .left ? .info : .warning,
                reason == .left
                    ? "a worker left" : "a worker is lost; calls that it had go to others if they may run twice",
                metadata: [
                    LogKeys.worker: "\(self.machine.workers[worker].offer.name)",
                    LogKeys.reason: "\(reason)", LogKeys.count: "\(self.machine.workerCount)",
                ]
            )
        case .endSubscription(let worker, let number): self.send(Header(.ended, number: number), toWorker: worker)
        case .endClientSubscription(let client, let subscription):
            self.send(Header(.ended, number: subscription), in: .subscription(subscription), toClient: client)
        case .sendFlow(let worker, let number, let isPaused):
            self.send(Header(.flow, id: isPaused ? 0 : 1, number: number), toWorker: worker)
        case .answerQuestion(let worker, let id): self.send(Header(.pong, id: id), toWorker: worker)
        case .failInvocation(let worker, let id, let isLost):
            self.failInvocation(id, worker: worker, isLost: isLost)
        }
    }

    /// The epoch under which the broker is a client of a worker: a different one for each life of the worker here.
    func epoch(for worker: Int) -> UInt64 {
        self.core.epoch &+ self.machine.workers[worker].incarnation
    }

    private func sendHello(to worker: Int, session: UInt32) {
        guard let link = self.workerLinks[worker] else { return }
        let configuration = self.core.configuration
        var hello = Hello(
            client: self.core.identity,
            name: configuration.name,
            beatMilliseconds: Int(configuration.heartbeatInterval.clampedNanoseconds / 1_000_000),
            maxPayloadBytes: configuration.maxPayloadBytes,
            isBroker: true
        )
        hello.takesParts = true
        hello.silenceMilliseconds = Int(configuration.silenceLimit.clampedNanoseconds / 1_000_000)
        let payload = packed { writer throws(CodecError) in try hello.pack(into: &writer) }
        // This may be long after the turn began, and later times count from this reading.
        let stamp = link.departures.hello(at: self.core.now())
        self.send(Header(.hello, id: self.epoch(for: worker), time: stamp, number: session), payload, to: link)
    }

    func sendBeat(toWorker worker: Int) {
        guard worker < self.workerLinks.count, let link = self.workerLinks[worker] else { return }
        self.send(link.departures.beat(epoch: self.epoch(for: worker), at: self.now), to: link)
    }

    /// The time left until `deadline`, for a message that is sent to a worker now; adds the stamp it counts from, if
    /// one is due.
    private func time(until deadline: Instant, for link: PeerLink) -> UInt32 {
        let (time, beat) = link.departures.time(until: deadline, epoch: self.epoch(for: link.worker), at: self.now)
        if let beat { link.out.batch.append(beat) }
        return time
    }

    private func stampIfDue(for link: PeerLink) -> Header? {
        guard link.worker >= 0 else { return nil }
        return link.departures.stampIfDue(epoch: self.epoch(for: link.worker), at: self.now)
    }

    private func transmit(_ slot: UInt32, to worker: Int, as id: UInt64, isResent: Bool) {
        guard let link = self.workerLinks[worker], let request = self.requests[Int(slot)] else { return }
        let call = self.machine.call(in: slot)
        // Don't count it when it goes to the same worker again.
        if call.sends > 1, !isResent { self.core.counters.resent.countAlone() }
        guard request.payloadCount <= link.maxPayloadBytes else {
            return self.refuseTooLarge(slot, request.payloadCount, worker: worker, id: id, limit: link.maxPayloadBytes)
        }
        switch request {
        case .small(let block, let count):
            let bytes = unsafe UnsafeRawBufferPointer(start: block, count: count)
            guard var header = unsafe try? Header(reading: bytes) else { return }
            self.rewrite(&header, slot: slot, as: id, isResent: isResent)
            header.number |= self.caller(ofClient: Int(call.client), for: link)
            header.time = self.time(until: call.deadline, for: link)
            unsafe header.write(to: block)
            unsafe link.out.batch.append(message: bytes)
            self.appended(to: link)
        case .large(let payload):
            var header = payload.header
            self.rewrite(&header, slot: slot, as: id, isResent: isResent)
            header.number |= self.caller(ofClient: Int(call.client), for: link)
            let goesInParts = link.line.takes(header.kind, payloadCount: payload.range.count)
            self.sendLarge(
                header,
                payload.box,
                payload.range,
                deadline: call.deadline,
                to: link,
                goesInParts: goesInParts
            )
        }
    }

    private func rewrite(_ header: inout Header, slot: UInt32, as id: UInt64, isResent: Bool) {
        header.id = id
        header.number = self.machine.functionNumber(in: slot)
        header.flags.remove(.attached)
        header.flags.remove(.renewed)
        if isResent { header.flags.insert(.resent) } else { header.flags.remove(.resent) }
    }

    /// Refuses a request larger than its worker takes: sending it would cost the connection.
    private func refuseTooLarge(_ slot: UInt32, _ count: Int, worker: Int, id: UInt64, limit: Int) {
        let execution: Execution = self.machine.wasSentBefore(slot) ? .mayHaveRun : .didNotRun
        guard let addressee = self.machine.answered(id, from: worker, at: self.now, actions: &self.actions) else {
            return
        }
        self.forget(slot)
        guard let client = addressee.client else { return }
        let name = self.machine.workers[worker].offer.name
        let message =
            "the arguments take \(PeopleText.size(count)), \(name) takes \(PeopleText.size(limit)): send less at once, or raise "
            + "maxPayloadBytes there"
        self.refuse(addressee.id, .tooLarge, message, to: client, execution: execution)
    }

    private func finish(_ id: UInt64, of client: Int, _ ending: BrokerEnding, isBehindEvents: Bool) {
        // If the client is gone, or another has its place by now, no answer is sent or kept.
        guard self.machine.clients[client].isLive, client < self.clientLinks.count, let link = self.clientLinks[client]
        else { return }
        var header = Header(.error, id: id)
        var payload: [UInt8] = []
        var (ending, execution) = (ending, Execution?.none)
        if case .afterRun(let other) = ending { (ending, execution) = (other, .mayHaveRun) }
        switch ending {
        case .afterRun: return
        case .cancelled(let stage): header = Header(.cancelled, id: id, number: stage.rawValue)
        case .revoked:
            let message = "an operator cancelled the call at \(self.core.configuration.name)"
            payload = self.errorPayload(.cancelled, message, false, 0)
        case .lost(let reason, let worker):
            self.core.counters.lost.countAlone()
            var error = ErrorPayload()
            error.code = RemoteError.Code.lost.name
            error.message =
                "\(worker), which had the call, was lost (\(reason.words)); whether the call ran is unknown: make it again if it may "
                + "run twice"
            error.worker = worker
            payload = packed { writer throws(CodecError) in try error.pack(into: &writer) }
        case .forbidden(let function, let queue):
            let message =
                link.access?.grant.problem(submitting: function, to: queue) ?? "\(function) may not be called"
            if let access = link.access { self.core.audit.refused(access.actor, "submit", because: message) }
            payload = self.errorPayload(.forbidden, message, false, 0, execution)
        case .poison(let attempts, let workers):
            var error = ErrorPayload()
            error.code = RemoteError.Code.poison.name
            error.message =
                "workers died \(attempts) times while they had the call, the last time it was all that one had: "
                + "it isn't made again"
            error.attempts = UInt32(clamping: attempts)
            error.workers = workers
            error.worker = workers.last ?? ""
            payload = packed { writer throws(CodecError) in try error.pack(into: &writer) }
        case .declined:
            let message = "the workers sent the call back again and again without running it; make it again later"
            payload = self.errorPayload(.busy, message, true, 0, execution)
        case .noWorker:
            let message =
                "no worker that may run this came within \(PeopleText.time(self.core.configuration.noWorkerPatience)): start one that has the "
                + "function, serves the queue and has the labels and resources"
            payload = self.errorPayload(.unknownFunction, message, true, 0, execution)
        }
        self.answer(header, payload, of: client, by: link, isBehindEvents: isBehindEvents)
    }

    /// Answers a request on the broker's own behalf.
    ///
    /// The answer is kept as a worker's would be: a second copy of the request may be on its way, and must not be taken
    /// for a new one.
    func answer(
        _ header: Header,
        _ payload: [UInt8],
        of client: Int,
        by link: PeerLink,
        isBehindEvents: Bool = false
    ) {
        let isRemoval = header.kind == .cancelled && CancelledStage(rawValue: header.number)?.isRemoval == true
        unsafe payload.withUnsafeBytes { payload in
            unsafe self.answer(
                header,
                payload,
                of: client,
                by: link,
                isRemoval: isRemoval,
                isBehindEvents: isBehindEvents
            )
        }
    }

    /// Sends an answer and keeps it.
    func answer(
        _ header: Header,
        _ payload: UnsafeRawBufferPointer,
        of client: Int,
        by link: PeerLink,
        isRemoval: Bool,
        isBehindEvents: Bool
    ) {
        var header = header
        header.payloadLength = UInt32(payload.count)
        let start = link.out.batch.count
        unsafe link.out.batch.append(header, payload: payload)
        unsafe link.out.batch.withBytes(from: start) { message in
            unsafe self.machine.remember(header.id, message: message, of: client, isRemoval: isRemoval)
        }
        if unsafe link.line.holds(header, payload, isBehindEvents: isBehindEvents) {
            return link.out.batch.removeLast(link.out.batch.count - start)
        }
        self.appended(to: link)
    }

    /// Whether there may be events for the caller of a slot's request.
    func hasCallbacks(_ slot: UInt32) -> Bool {
        Int(slot) < self.requests.count && self.requests[Int(slot)]?.hasCallbacks == true
    }

    /// Frees a slot's request, which is over.
    func forget(_ slot: UInt32) {
        guard Int(slot) < self.requests.count else { return }
        self.requests[Int(slot)]?.free()
        self.requests[Int(slot)] = nil
    }

    // MARK: Sending

    func send(_ header: Header, toClient client: Int) {
        if client < self.clientLinks.count, let link = self.clientLinks[client] { self.send(header, to: link) }
    }

    /// Sends a client a message that belongs to a stream.
    func send(_ header: Header, in stream: PartStream, toClient client: Int) {
        guard client < self.clientLinks.count, let link = self.clientLinks[client] else { return }
        if !link.line.holds(header, in: stream) { self.send(header, to: link) }
    }

    func send(_ header: Header, toWorker worker: Int) {
        if worker < self.workerLinks.count, let link = self.workerLinks[worker] { self.send(header, to: link) }
    }

    func send(_ header: Header, to link: PeerLink) {
        link.out.batch.append(header)
        self.appended(to: link)
    }

    func send(_ header: Header, _ payload: [UInt8], to link: PeerLink) {
        var header = header
        header.payloadLength = UInt32(payload.count)
        unsafe payload.withUnsafeBytes { unsafe link.out.batch.append(header, payload: $0) }
        self.appended(to: link)
    }

    /// Sends a payload from the frame it arrived in, without a copy: in parts, or in a frame of its own.
    ///
    /// A request has a deadline: its header carries the time left when it is sent.
    func sendLarge(
        _ header: Header,
        _ box: MessageBox,
        _ range: Range<Int>,
        deadline: Instant?,
        to link: PeerLink,
        goesInParts: Bool,
        isBehindEvents: Bool = false
    ) {
        var header = header
        header.payloadLength = UInt32(range.count)
        if goesInParts, let source = PartSource(range, of: box) {
            if !link.line.isSending { self.sendingParts.append(link) }
            return link.line.add(header, deadline: deadline, source, isBehindEvents: isBehindEvents)
        }
        if let deadline { header.time = self.time(until: deadline, for: link) }
        header.flags.insert(.attached)
        link.out.batch.append(header)
        self.put(link.out.batch.take(&self.port.frames), attached: box.part(range), on: link)
    }

    /// Sends as many parts of large messages as may be under way, and lets peers send the parts there is room for now.
    private func sendParts() {
        if self.partBudget.waiting > 0 {
            for case let link? in self.clientLinks + self.workerLinks {
                while let grant = link.line.grant() { self.send(grant, to: link) }
            }
        }
        guard !self.sendingParts.isEmpty else { return }
        self.sendingParts.removeAll { link in
            while !link.out.isBlocked,
                var part = link.line.next(into: &link.out.batch, at: self.now, stamp: { self.stampIfDue(for: link) })
            {
                if let attached = part.attached.take() {
                    self.put(link.out.batch.take(&self.port.frames), attached: attached, on: link)
                } else if link.out.batch.count >= OutgoingBatch.flushBytes {
                    self.put(link.out.batch.take(&self.port.frames), attached: nil, on: link)
                }
            }
            if !link.out.batch.isEmpty { self.appended(to: link) }
            if link.client >= 0 { self.lookAfter(link) }
            return !link.line.isSending
        }
    }

    /// Sends a received message on under another header, after whatever it must not overtake.
    ///
    /// For an answer, `isBehindEvents` says that there may be events for its caller.
    ///
    /// - Returns: False if it is larger than the peer takes: sending it would cost the connection.
    @discardableResult
    func forward(_ header: Header, _ incoming: Incoming, to link: PeerLink, isBehindEvents: Bool = false) -> Bool {
        guard unsafe incoming.payload.count <= link.maxPayloadBytes else {
            self.core.counters.undeliverable.countAlone()
            return false
        }
        var header = header
        header.flags.remove(.attached)
        let goesInParts = unsafe link.line.takes(header.kind, payloadCount: incoming.payload.count)
        if !goesInParts, link.line.keepsOrder,
            unsafe link.line.holds(header, incoming.payload, isBehindEvents: isBehindEvents)
        {
            return true
        }
        if let box = incoming.box {
            self.sendLarge(
                header,
                box,
                incoming.range,
                deadline: nil,
                to: link,
                goesInParts: goesInParts,
                isBehindEvents: isBehindEvents
            )
        } else {
            unsafe link.out.batch.append(header, payload: incoming.payload)
            self.appended(to: link)
        }
        return true
    }

    func appended(to link: PeerLink) {
        if link.out.batch.count >= OutgoingBatch.flushBytes {
            self.put(link.out.batch.take(&self.port.frames), attached: nil, on: link)
        } else if !link.out.isDirty {
            link.out.isDirty = true
            self.dirty.append(link)
        }
    }

    /// Sends what has been collected for all peers.
    func flush() {
        if self.core.access != nil { self.observeClosings() }
        if !self.blocked.isEmpty { self.unpark() }
        if !self.sendingParts.isEmpty || self.partBudget.waiting > 0 {
            self.flushDirty()
            self.sendParts()
        }
        self.flushDirty()
        self.lookAfterReaders()
        if self.partBudget.hasNews, let report = self.partBudget.report(at: self.now) {
            self.core.configuration.logger.warning(
                "\(PartBudget.reportMessage)",
                metadata: [LogKeys.reason: "\(report)"]
            )
        }
    }

    func flushDirty() {
        guard !self.dirty.isEmpty else { return }
        var index = 0
        // The loop may add to the list: a PING after what a client was sent asks whether it has read that.
        while index < self.dirty.count {
            let link = self.dirty[index]
            index += 1
            link.out.isDirty = false
            if !link.out.batch.isEmpty { self.put(link.out.batch.take(&self.port.frames), attached: nil, on: link) }
        }
        self.dirty.removeAll(keepingCapacity: true)
    }

    func put(_ frame: consuming Message, attached: consuming Message?, on link: PeerLink) {
        if link.client >= 0 {
            var count = frame.count
            if let second = attached.take() {
                count += second.count
                attached = consume second
            }
            self.sent(count, to: link)
        }
        switch self.port.put(frame, attached: attached, to: &link.out) {
        case .sent, .waiting: break
        case .blocked: self.blocked.append(link)
        case .gone: self.couldNotReach(link)
        }
    }

    private func couldNotReach(_ link: PeerLink) {
        self.core.counters.undeliverable.countAlone()
        link.departures.forget()
        if link.worker >= 0 { self.unreachable.append((link, link.out.routingID)) }
    }

    /// Stops sending to workers whose connection is gone until they are back; the machine decides when they are lost.
    @available(*, noasync)
    func noteUnreachable() {
        guard !self.unreachable.isEmpty else { return }
        for (link, routingID) in self.unreachable
        where self.workerLinks[link.worker] === link && link.out.routingID == routingID {
            self.machine.unreachable(link.worker, at: self.now, actions: &self.actions)
        }
        self.unreachable.removeAll(keepingCapacity: true)
        self.performActions()
    }

    private func unpark() {
        self.blocked.removeAll { link in
            let (isFree, lost) = self.port.unpark(&link.out)
            for _ in 0..<lost { self.couldNotReach(link) }
            return isFree
        }
    }

    /// Answers the sender of the current frame, which may have no session.
    @available(*, noasync)
    func sendDirectly(_ header: Header, _ payload: [UInt8]) {
        var batch = OutgoingBatch(capacity: Header.byteCount + payload.count)
        var header = header
        header.payloadLength = UInt32(payload.count)
        unsafe payload.withUnsafeBytes { unsafe batch.append(header, payload: $0) }
        let attempt = self.port.sendDirectly(batch.take(&self.port.frames), to: self.port.route.bytes)
        if attempt != .sent { self.core.counters.undeliverable.countAlone() }
    }
}
