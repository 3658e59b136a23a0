// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import DroverCodec
internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import DroverZMQ
internal import Logging
internal import Synchronization

extension WorkerLoop {
    @available(*, noasync)
    func take(_ post: WorkerPost.Kind) {
        switch post {
        case .finished(let job, let reply): self.finished(job, reply)
        case .finishedLate(let slot, let reply): self.finished(slot, reply)
        case .slotReleased(let slot, let id, let isReleased):
            if self.machine.slotReleased(slot, id: id, isReleased) { self.stuckChanged() }
            self.tellReleased(slot, id: id)
            self.nextTick = min(self.nextTick, self.now)
        case .began(let job, let started): self.began(job, at: started)
        case .started(let job):
            guard let request = self.machine.request(in: job.slot), request.session >= 0,
                request.id == job.context.correlationID.rawValue
            else { return }
            self.send(Header(.started, id: request.id), to: Int(request.session))
        case .progress(let context, let sequence, let block): self.sendProgress(of: context, sequence, block)
        case .lookedUp(let dial, let answer): self.lookedUp(dial, answer)
        case .events(let subscriber): self.sendEvents(of: subscriber)
        case .event(let subscriber, let block):
            guard let session = self.session(of: subscriber) else { return self.drop(block) }
            let units = EventWindow.units(ofPayload: block.payloadCount)
            self.core.counters.events.count()
            // One that is too large takes its number as well: the client notices that it misses one.
            let number = self.number(of: subscriber, in: session)
            let header = Header(.event, id: subscriber.nextSequence(), number: number)
            let isTaken = self.isTaken(block, by: session, as: "an event")
            if isTaken { self.send(block, as: header, to: session) } else { self.drop(block) }
            if subscriber.sent(units) {
                self.ask(subscriber, session)
            } else if !isTaken {
                self.state(subscriber, as: number, to: session)
            }
        case .invoke(let subscriber, let id, let block):
            guard let session = self.session(of: subscriber) else {
                self.core.replies.take(id, from: subscriber.peer)?
                    .finish(.failure(Subscriber.gone(subscriber.subscription)))
                return self.drop(block)
            }
            if let limit = self.links[session]?.maxPayloadBytes, block.payloadCount > limit {
                let body = self.tooLarge("the callback's arguments take", block.payloadCount, limit: limit)
                self.core.replies.take(id, from: subscriber.peer)?
                    .finish(.failure(body.error(function: "callback", correlationID: CorrelationID(id))))
                return self.drop(block)
            }
            _ = subscriber.nextSequence()
            let header = Header(
                .invoke,
                id: id,
                time: Header.noTimeLimit,
                number: self.number(of: subscriber, in: session)
            )
            self.core.replies.sent(id, by: self.machine.sessions[session].connection)
            self.send(block, as: header, to: session)
        case .ended(let subscriber):
            self.core.subscribers.end(subscriber)
            guard let session = self.machine.session(of: subscriber.peer) else { return }
            self.core.subscribers.rememberEnd(
                of: subscriber.subscription,
                of: subscriber.client,
                via: subscriber.via
            )
            // A broker is told of its end even if it never heard of it: only then does the client.
            let number = self.number(of: subscriber, in: session)
            self.links[session]?.broker?.unbind(number)
            self.links[session]?.givenUp.append((number, subscriber))
            self.sendEnd(of: number, to: session)
        }
    }

    /// Sends what a subscriber's handlers have emitted.
    private func sendEvents(of subscriber: Subscriber) {
        self.eventRun = subscriber.takeEvents(leaving: exchange(&self.eventRun, with: EventRun()))
        defer { self.eventRun.removeAll() }
        guard let session = self.session(of: subscriber), let link = self.links[session] else {
            return self.core.counters.undeliverable.count(self.eventRun.count)
        }
        self.core.counters.events.count(self.eventRun.count)
        let number = self.number(of: subscriber, in: session)
        var refused = 0
        unsafe self.eventRun.number(
            from: subscriber.nextSequence(count: self.eventRun.count),
            subscription: number,
            limit: link.maxPayloadBytes,
            pieceBytes: self.core.configuration.coalescesMessages ? OutgoingBatch.flushBytes / 4 : 0,
            refuse: { count in
                self.warnOfSize(self.tooLarge("an event takes", count, limit: link.maxPayloadBytes))
                self.core.counters.undeliverable.count()
                refused += 1
            }
        ) { messages in
            if unsafe link.line.holds(messages, in: .subscription(number)) { return }
            unsafe link.out.batch.append(message: messages)
            self.appended(to: link, session)
        }
        if subscriber.sent(self.eventRun.units) {
            self.ask(subscriber, session)
        } else if refused > 0 {
            self.state(subscriber, as: number, to: session)
        }
    }

    private func sendProgress(of context: JobContext, _ sequence: UInt32, _ block: RequestBytes) {
        let id = context.correlationID.rawValue
        guard let request = self.machine.request(in: context.slot), request.id == id, request.session >= 0 else {
            return self.drop(block)
        }
        let session = Int(request.session)
        let units = EventWindow.units(ofPayload: block.payloadCount)
        if self.isTaken(block, by: session, as: "progress") {
            self.send(block, as: Header(.progress, id: id, time: sequence), to: session)
        } else {
            self.drop(block)
        }
        if context.sent(units) { self.ask(context, session) }
    }

    /// Asks a client, or a broker, whether it has read what it was sent so far.
    func ask(_ told: any Told, _ session: Int) {
        guard !told.isOver, let link = self.links[session] else { return }
        let (header, payload) = told.question(link.questions.ask(about: told), in: session, of: self)
        self.send(question: header, payload, by: link, session)
    }

    /// Tells a peer how many events there were: what of them has not come by then was lost.
    ///
    /// It answers, which doesn't matter.
    private func state(_ subscriber: Subscriber, as number: UInt32, to session: Int) {
        guard subscriber.emittedCount > 0, let link = self.links[session] else { return }
        let (header, payload) = subscriber.statement(link.questions.nextNonce(), as: number)
        self.send(question: header, payload, by: link, session)
    }

    /// A session goes on by another connection, and what was said of callbacks by the former one may be lost.
    ///
    /// Says of each what it is bound to, if the peer is a broker, how many events there were, and perhaps that it was given up.
    /// To be sent before anything else: the answer to a call whose events were lost comes later, so that its caller finds them
    /// counted.
    func restateCallbacks(to session: Int) {
        guard session < self.links.count, let link = self.links[session] else { return }
        var callbacks = link.givenUp.map { (number: $0.number, subscriber: $0.subscriber, isGivenUp: true) }
        if let broker = link.broker {
            callbacks += broker.bindings.map { ($0.number, $0.subscriber, false) }
        } else {
            let own = self.core.subscribers.own(of: self.machine.sessions[session].client)
            callbacks += own.map { ($0.subscription.rawValue, $0, false) }
        }
        for (number, subscriber, isGivenUp) in callbacks.sorted(by: { $0.number < $1.number }) {
            if link.broker != nil { self.sendBinding(of: subscriber, as: number, to: session) }
            self.state(subscriber, as: number, to: session)
            if isGivenUp { self.sendEnd(of: number, to: session) }
        }
    }

    private func sendEnd(of number: UInt32, to session: Int) {
        let end = Header(.ended, number: number)
        if self.links[session]?.line.holds(end, in: .subscription(number)) == true { return }
        self.send(end, to: session)
    }

    private func send(question header: Header, _ payload: [UInt8], by link: WorkerLink, _ session: Int) {
        var header = header
        header.payloadLength = UInt32(payload.count)
        unsafe payload.withUnsafeBytes { payload in
            // It asks about what was told before it, some of which may go in parts.
            if let stream = unsafe PartStream(askedAboutBy: header, payload),
                unsafe link.line.holds(header, payload, in: stream)
            {
                return
            }
            unsafe link.out.batch.append(header, payload: payload)
            self.appended(to: link, session)
        }
    }

    /// A peer has read what it was asked about.
    func read(_ told: any Told, _ session: Int) { if told.read() { self.ask(told, session) } }

    /// A client, or a broker, has read what came before a PING.
    func pongReceived(_ nonce: UInt64, _ session: Int) {
        guard let link = self.links[session], !self.answersRead(nonce, by: link, session),
            !self.keptRead(nonce, by: link, session), !link.clearance.answered(nonce)
        else { return }
        if let told = link.questions.answered(nonce) { self.read(told, session) }
    }

    func session(of subscriber: Subscriber) -> Int? {
        if let session = self.machine.session(of: subscriber.peer, likely: self.lastSession) {
            self.lastSession = session
            return session
        }
        // The client is gone, or was never here: the next emit fails.
        self.core.subscribers.end(subscriber)
        return nil
    }

    /// Whether a client takes something that large; nobody who could be told waits for it.
    private func isTaken(_ block: RequestBytes, by session: Int, as what: String) -> Bool {
        guard let limit = self.links[session]?.maxPayloadBytes, block.payloadCount > limit else { return true }
        self.warnOfSize(self.tooLarge("\(what) takes", block.payloadCount, limit: limit))
        return false
    }

    private func warnOfSize(_ body: ErrorBody) {
        self.core.logger.warning("something can't be sent", metadata: [LogKeys.error: "\(body.message)"])
    }

    /// What is said of a payload over a limit: a client's, or this worker's if that is lower.
    private func tooLarge(_ what: String, _ count: Int, limit: Int, _ execution: Execution = .didNotRun) -> ErrorBody {
        let isOwn = limit == self.core.configuration.maxPayloadBytes
        return ErrorBody(
            code: .tooLarge,
            message:
                "\(what) \(PeopleText.size(count)), the limit of \(isOwn ? self.core.name : "the client") is "
                + "\(PeopleText.size(limit)): send less at once, or raise maxPayloadBytes there",
            execution: execution,
            worker: self.core.name
        )
    }

    func drop(_ block: RequestBytes) {
        var block = block
        self.core.counters.undeliverable.count()
        block.free()
    }

    /// A client answered a callback.
    func takeAnswer(_ header: Header, _ payload: UnsafeRawBufferPointer, _ session: Int) {
        guard let reply = self.core.replies.take(header.id, from: self.machine.sessions[session].client) else {
            self.core.counters.unknownMessages.count()
            return
        }
        guard header.kind == .error else { return reply.finish(.success(unsafe [UInt8](payload))) }
        let body = unsafe ErrorBody(reading: payload) ?? ErrorBody(code: .internal, message: "an unreadable error")
        if body.isLoss { return reply.finish(.failure(ConnectionError(.lost, message: body.message))) }
        reply.finish(.failure(body.error(function: "callback", correlationID: CorrelationID(header.id))))
    }

    /// A client says which callbacks it runs, after its session went on by another connection.
    func takePending(_ header: Header, _ payload: UnsafeRawBufferPointer, _ session: Int) {
        // It may be about a connection before the present one.
        guard header.number == self.machine.sessions[session].connection else { return }
        let client = self.machine.sessions[session].client
        var ids: [UInt64] = []
        do throws(WireError) {
            try unsafe PendingPayload.read(payload) { ids.append($0) }
        } catch {
            return self.malformed(error)
        }
        self.core.replies.arePending(ids, of: client, connection: header.number)
        if header.time == 0 { self.core.replies.endLost(of: client, before: header.number) }
    }

    // MARK: Answers

    func finished(_ job: WorkerJob, _ reply: WorkerReply) {
        if self.jobs[Int(job.slot)] === job { self.jobs[Int(job.slot)] = nil }
        if let holdUp = job.holdUp, holdUp.took(reply.byteCount) { self.core.threads.resume(holdUp, core: self.core) }
        self.finished(job.slot, reply, ran: job.ranMicroseconds)
    }

    /// - Parameters:
    ///   - slot: The request's.
    ///   - reply: What it came to.
    ///   - microseconds: How long the handler ran, 0 if that isn't known: a broker gives credit by it.
    func finished(_ slot: UInt32, _ reply: WorkerReply, ran microseconds: UInt32 = 0) {
        let addressee = self.machine.finished(slot, actions: &self.actions)
        if let addressee, addressee.isLate { return self.dropLate(reply) }
        switch reply {
        case .value(let block):
            self.core.counters.completed.count()
            self.answer(.reply, block, to: addressee, ran: microseconds)
        case .error(let body):
            self.core.counters.completed.count()
            self.core.counters.failed.count()
            let limit = addressee?.session.flatMap { self.links[$0]?.maxPayloadBytes } ?? .max
            self.answer(.error, body.packed(atMost: limit), to: addressee, ran: microseconds)
        case .dropped(let reason):
            self.core.counters.dropped.count()
            guard let addressee, let session = addressee.session else { return }
            let stage: CancelledStage = reason == .lapsed ? .lapsed : .beforeStart
            self.confirm(stage, of: addressee.id, to: session)
        }
    }

    /// Says that a request that was here will not run, and keeps that as its answer: another copy of it, which was sent again
    /// after a connection was lost, may be on its way, and must not be taken for a new request.
    func confirm(_ stage: CancelledStage, of id: UInt64, to session: Int) {
        guard let link = self.links[session] else { return self.core.counters.undeliverable.count() }
        let start = link.out.batch.count
        link.out.batch.append(Header(.cancelled, id: id, number: stage.rawValue))
        self.remember(id, from: start, of: link, session, isRemoval: true)
        self.appended(to: link, session)
    }

    /// Answers a quick handler's request from the writer's bytes.
    func answer(
        _ slot: UInt32,
        _ failure: ErrorBody?,
        value writer: borrowing PackWriter,
        ran microseconds: UInt32
    ) {
        if let failure { return self.finished(slot, .error(failure), ran: microseconds) }
        self.core.counters.completed.count()
        guard let addressee = self.machine.finished(slot, actions: &self.actions), let session = addressee.session,
            let link = self.links[session]
        else {
            self.core.counters.undeliverable.count()
            return
        }
        if writer.count > PartLine.threshold || Header.byteCount + writer.count > self.leastKeptBytes
            || link.line.keepsOrder, writer.count <= link.maxPayloadBytes
        {
            let block = RequestBytes(copying: writer)
            let header = Header(.reply, id: addressee.id, time: microseconds)
            return self.answer(header, block, to: session, isBehindEvents: addressee.isBehindEvents)
        }
        let start = link.out.batch.count
        let isSent = unsafe writer.withBytes { bytes in
            guard bytes.count <= link.maxPayloadBytes else { return false }
            unsafe link.out.batch.append(
                Header(.reply, payloadLength: UInt32(bytes.count), id: addressee.id, time: microseconds),
                payload: bytes
            )
            return true
        }
        guard isSent else {
            let count = writer.count
            return self.refuseResult(of: addressee.id, count: count, by: link, session)
        }
        self.remember(addressee.id, from: start, of: link, session)
        let count = link.out.batch.count - start
        self.appended(to: link, session)
        self.sentAnswer(count, by: link, session)
    }

    func answer(
        _ kind: MessageKind,
        _ block: RequestBytes,
        to addressee: WorkerMachine.Addressee?,
        ran microseconds: UInt32
    ) {
        var block = block
        guard let addressee, let session = addressee.session, let link = self.links[session] else {
            self.core.counters.undeliverable.count()
            block.free()
            return
        }
        if block.payloadCount > link.maxPayloadBytes {
            let count = block.payloadCount
            block.free()
            return self.refuseResult(of: addressee.id, count: count, by: link, session)
        }
        let header = Header(kind, id: addressee.id, time: microseconds)
        self.answer(header, block, to: session, isBehindEvents: addressee.isBehindEvents)
    }

    /// Sends an answer, and keeps it.
    func answer(_ header: Header, _ block: RequestBytes, to session: Int, isBehindEvents: Bool = false) {
        var header = header
        header.payloadLength = UInt32(block.payloadCount)
        if block.count > self.leastKeptBytes {
            return self.answerLargely(header, block, to: session, isBehindEvents: isBehindEvents)
        }
        // Before it is sent: sending may empty the batch, and an answer that is neither kept nor passed over would let a
        // request that comes again run again.
        if let base = unsafe block.base {
            unsafe header.write(to: base)
            let message = unsafe UnsafeRawBufferPointer(start: base, count: block.count)
            unsafe self.machine.remember(header.id, message: message, of: session)
        } else {
            self.machine.forgetResult(header.id, of: session)
        }
        let count = block.count
        let isCounted = self.send(block, as: header, to: session, isBehindEvents: isBehindEvents)
        if let link = self.links[session] { self.sentAnswer(isCounted ? 0 : count, by: link, session) }
    }

    /// Says that there is a result, or an error, that the client would not take.
    private func refuseResult(of id: UInt64, count: Int, by link: WorkerLink, _ session: Int) {
        self.machine.forgetResult(id, of: session)
        self.refuse(id, self.tooLarge("the result takes", count, limit: link.maxPayloadBytes, .ran), to: session)
    }

    func remember(_ id: UInt64, from start: Int, of link: WorkerLink, _ session: Int, isRemoval: Bool = false) {
        unsafe link.out.batch.withBytes(from: start) { message in
            unsafe self.machine.remember(id, message: message, of: session, isRemoval: isRemoval)
        }
    }
}
