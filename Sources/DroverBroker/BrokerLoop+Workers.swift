// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import DroverZMQ
internal import Logging

// What workers send.

extension BrokerLoop {
    @available(*, noasync)
    func offered(_ incoming: Incoming, route: UInt64) -> BrokerPeer? {
        let offer: Offer
        do throws(WireError) { offer = try unsafe Offer(reading: incoming.payload) } catch {
            self.malformed(error)
            self.refuse(.unsupported, "\(error)")
            return self.machine.peer(route: route)
        }
        self.observeClosings()
        var access: LinkAccess?
        if let control = self.core.access {
            access = self.admitted(offer, by: control)
            if access == nil { return nil }
        }
        let known = WorkerOffer(
            worker: offer.worker,
            epoch: incoming.header.id,
            name: offer.name,
            concurrency: offer.concurrency,
            stuck: offer.stuck,
            functions: offer.functions,
            queues: Set(offer.queues),
            labels: offer.labels,
            resources: offer.resources,
            notices: offer.notices
        )
        guard self.machine.hasNumbers(for: known) else {
            self.core.counters.refused.countAlone()
            let message =
                "the workers of \(self.core.configuration.name) offer \(WireLimits.standard.maxFunctions) functions, its limit: "
                + "register fewer, or use another broker"
            self.refuse(.busy, message)
            return self.machine.peer(route: route)
        }
        // The resulting actions concern the worker's link, which must exist before they are performed.
        let claim = access?.grant.claim
        guard
            let worker = self.machine.offerReceived(
                known,
                tenant: claim,
                route: route,
                at: self.now,
                actions: &self.actions
            )
        else {
            self.core.counters.refused.countAlone()
            if let refusal = self.machine.refusalOfWorker, refusal.quota != nil {
                self.refuse(.busy, self.overQuota(refusal, access, action: "work"))
                return nil
            }
            if let refusal = self.machine.refusalOfWorker, refusal.isForDescriptors {
                self.refuse(.busy, self.lackOfDescriptors(refusal.limit))
                return nil
            }
            let limit = self.core.configuration.maxWorkers
            self.refuse(.busy, "the broker has \(limit) workers, its limit; raise maxWorkers there or stop workers")
            return nil
        }
        while self.workerLinks.count <= worker { self.workerLinks.append(nil) }
        let routingID = self.port.route.bytes
        // The place may have been another worker's, or this one's in an earlier life, whose end is among the actions.
        let incarnation = self.machine.workers[worker].incarnation
        if let link = self.workerLinks[worker], link.incarnation == incarnation {
            if link.out.routingID != routingID {
                link.moved(to: routingID)
                link.out.connection.introduced(by: self.strangersDescriptor)
            }
        } else {
            self.core.configuration.logger.info(
                "a worker offers itself",
                metadata: [LogKeys.worker: "\(offer.name)", LogKeys.count: "\(self.machine.workerCount)"]
            )
            let limit = self.core.configuration.maxPayloadBytes
            self.workerLinks[worker] = PeerLink(
                routingID: routingID,
                maxPayloadBytes: limit,
                line: PartLine(budget: self.partBudget, session: incarnation, keepsAnswers: true),
                worker: worker,
                incarnation: incarnation
            )
            self.workerLinks[worker]?.out.connection.introduced(by: self.strangersDescriptor)
        }
        if let link = self.workerLinks[worker] { self.introduced(link, access) }
        return .worker(worker)
    }

    /// Tells a worker which correlation id and client a long-running call has, so that both sides log the same.
    private func tellOrigin(_ id: UInt64, of client: Int, toWorker worker: Int, itsID: UInt64) {
        guard let link = self.workerLinks[worker] else { return }
        let origin = OriginPayload(id: id, client: self.machine.clients[client].name)
        let payload = packed { writer throws(CodecError) in try origin.pack(into: &writer) }
        self.send(Header(.origin, id: itsID), payload, to: link)
    }

    @available(*, noasync)
    func take(_ incoming: Incoming, _ kind: MessageKind, fromWorker worker: Int) {
        let header = incoming.header
        switch kind {
        case .reply, .error: self.takeAnswer(incoming, kind, worker)
        case .accepted, .started, .progress:
            guard let addressee = self.machine.addressee(header.id, from: worker) else {
                return self.core.counters.unknown.countAlone()
            }
            if kind != .progress {
                self.machine.phaseReported(
                    addressee.slot,
                    isStarted: kind == .started,
                    isStalled: header.number & PhaseReport.stalled != 0,
                    hold: HoldReason(header),
                    at: self.now,
                    actions: &self.actions
                )
            }
            guard let client = addressee.client, let link = self.clientLinks[client] else { return }
            if kind == .started { self.tellOrigin(addressee.id, of: client, toWorker: worker, itsID: header.id) }
            var report = header
            report.id = addressee.id
            guard kind != .progress else {
                self.forward(report, incoming, to: link)
                return
            }
            let name = self.machine.workers[worker].offer.name
            self.send(report, packed { writer throws(CodecError) in try writer.pack(name) }, to: link)
        case .cancelled:
            self.workerLinks[worker]?.line.cancelledByPeer(header.id)
            self.machine.cancellationConfirmed(
                header.id,
                stage: CancelledStage(rawValue: header.number) ?? .unknown,
                from: worker,
                at: self.now,
                actions: &self.actions
            )
        case .ready:
            let state = ReadyState(rawValue: header.number)
            self.machine.readyReceived(
                from: worker,
                epoch: header.id,
                isQuiet: state.contains(.quiet),
                isStarved: state.contains(.starved),
                isStalled: state.contains(.stalled),
                at: self.now,
                actions: &self.actions
            )
        case .welcome: self.welcomed(incoming, worker)
        case .event, .invoke, .bind, .ended:
            if self.machine.isInSession(worker) { self.takeCallback(incoming, kind, worker) }
        case .ping: self.takeQuestion(incoming, worker)
        case .beat, .pong: break
        case .goodbye:
            let reason = GoodbyeReason(rawValue: header.number) ?? .leaving
            // Everything it sent before has been read, so it need not wait.
            if reason == .leaving { self.sendDirectly(Header(.goodbye, number: reason.rawValue), []) }
            self.machine.goodbyeReceived(from: worker, reason: reason, at: self.now, actions: &self.actions)
        case .reset: self.machine.resetReceived(from: worker, at: self.now, actions: &self.actions)
        case .refused:
            let refusal = unsafe try? ErrorPayload(reading: incoming.payload, most: WireLimits.maxMapBytes)
            let message = refusal?.message ?? "for no reason that can be read"
            self.core.configuration.logger.warning(
                "a worker refuses this broker",
                metadata: [LogKeys.worker: "\(self.machine.workers[worker].offer.name)", LogKeys.error: "\(message)"]
            )
        default: self.core.counters.unknown.countAlone()
        }
    }

    private func welcomed(_ incoming: Incoming, _ worker: Int) {
        do throws(WireError) {
            let welcome = try unsafe Welcome(reading: incoming.payload)
            // It answers the HELLO of an earlier session, and was on its way when the worker was given up.
            if let answered = welcome.answeredEpoch, answered != self.epoch(for: worker) { return }
            if let link = self.workerLinks[worker] {
                link.takesCallers = welcome.takesCallers && self.core.access != nil
                link.toldCallers.forget()
                link.line.welcomed(
                    takesParts: welcome.takesParts,
                    epoch: incoming.header.id,
                    session: incoming.header.number
                )
                // Answers whose sending begins again.
                if link.line.isSending { self.sendingParts.append(link) }
            }
            if welcome.maxPayloadBytes > 0 {
                self.workerLinks[worker]?.maxPayloadBytes = min(
                    welcome.maxPayloadBytes,
                    self.core.configuration.maxPayloadBytes
                )
            }
            self.machine.welcomed(
                by: worker,
                epoch: incoming.header.id,
                session: incoming.header.number,
                window: welcome.window,
                at: self.now,
                actions: &self.actions
            )
            self.machine.givenUp(by: .worker(worker), afterNanoseconds: welcome.silenceNanoseconds)
            // This goes ahead of everything else that resuming the session sends.
            if self.machine.isInSession(worker) {
                self.restateInvocations(of: worker, connection: incoming.header.time)
            }
        } catch {
            self.malformed(error)
        }
    }

    private func takeAnswer(_ incoming: Incoming, _ kind: MessageKind, _ worker: Int) {
        let id = incoming.header.id
        if kind == .error, let stage = unsafe Self.removal(saidBy: incoming.payload) {
            if stage == .beforeStart { self.machine.holdOff(worker) }
            return self.machine.cancellationConfirmed(
                id,
                stage: stage,
                from: worker,
                at: self.now,
                actions: &self.actions
            )
        }
        let answered = self.machine.answered(
            id,
            ranMicroseconds: incoming.header.time,
            from: worker,
            at: self.now,
            actions: &self.actions
        )
        guard let addressee = answered else { return self.core.counters.unknown.countAlone() }
        self.core.counters.answered.countAlone()
        self.workerLinks[worker]?.answered &+= 1
        let isBehindEvents = self.hasCallbacks(addressee.slot)
        // The slot may belong to another call as soon as the actions are performed.
        self.forget(addressee.slot)
        guard let client = addressee.client, let link = self.clientLinks[client] else { return }
        var header = incoming.header
        header.id = addressee.id
        header.flags.remove(.attached)
        guard unsafe incoming.payload.count <= link.maxPayloadBytes else {
            if let short = Self.shortened(incoming, toFit: link.maxPayloadBytes) {
                return self.answer(header, short, of: client, by: link, isBehindEvents: isBehindEvents)
            }
            let message =
                unsafe "the result takes \(PeopleText.size(incoming.payload.count)), the client takes "
                + "\(PeopleText.size(link.maxPayloadBytes)): send less at once, or raise maxPayloadBytes there"
            self.machine.forgetResult(addressee.id, of: client)
            return self.refuse(addressee.id, .tooLarge, message, to: client, execution: .ran)
        }
        if unsafe Header.byteCount + incoming.payload.count > self.leastKeptBytes {
            self.answerLargely(header, incoming, of: client, by: link, isBehindEvents: isBehindEvents)
        } else {
            unsafe self.answer(
                header,
                incoming.payload,
                of: client,
                by: link,
                isRemoval: false,
                isBehindEvents: isBehindEvents
            )
        }
    }

    /// An error too large for its recipient, shortened to what it needs; nil if it isn't an error, or is still too
    /// large.
    private static func shortened(_ incoming: Incoming, toFit limit: Int) -> [UInt8]? {
        guard incoming.header.kind == .error, let error = unsafe try? ErrorPayload(reading: incoming.payload) else {
            return nil
        }
        let short = error.shortened(toFit: limit)
        let bytes = packed { writer throws(CodecError) in try short.pack(into: &writer) }
        return bytes.count <= limit ? bytes : nil
    }

    /// Whether an error says that the worker didn't take the request at all, so that another worker may.
    private static func removal(saidBy payload: UnsafeRawBufferPointer) -> CancelledStage? {
        // An error may be as long as any answer: only its code is read, the rest is passed on unread.
        switch unsafe ErrorPayload.code(in: payload) ?? "" {
        case RemoteError.Code.busy.name, RemoteError.Code.draining.name: return .beforeStart
        case "lapsed": return .lapsed
        default: return nil
        }
    }

    private func takeCallback(_ incoming: Incoming, _ kind: MessageKind, _ worker: Int) {
        let header = incoming.header
        switch kind {
        case .bind:
            let isIdentity = unsafe incoming.payload.count == PeerID.byteCount
            let client = isIdentity ? unsafe PeerID(bytes: [UInt8](incoming.payload)) : nil
            guard let client,
                self.machine.bound(header.number, to: header.id, of: client, by: worker, actions: &self.actions)
            else {
                return self.send(Header(.ended, number: header.number), toWorker: worker)
            }
            if self.machine.isPaused(header.number, of: worker) {
                self.send(Header(.flow, number: header.number), toWorker: worker)
            }
        case .event:
            guard let delivery = self.machine.eventReceived(header.number, sequence: header.id, from: worker) else {
                self.core.counters.undeliverable.countAlone()
                // Before the WELCOME, its BIND may have been lost, and will be sent again after it.
                guard self.machine.workers[worker].isOpen else { return }
                // This tells the emitting handler that the subscription has ended.
                return self.send(Header(.ended, number: header.number), toWorker: worker)
            }
            _ = self.deliver(incoming, delivery)
        case .invoke:
            guard let delivery = self.machine.invocationReceived(header.number, id: header.id, from: worker) else {
                return self.failInvocation(header.id, worker: worker)
            }
            self.machine.asked(by: worker, at: self.now, actions: &self.actions)
            if !self.deliver(incoming, delivery) {
                _ = self.machine.invocationAnswered(delivery.id, by: delivery.client)
                let message = "the callback's arguments are larger than its client takes: send less"
                guard let link = self.workerLinks[worker] else { return }
                self.send(Header(.error, id: header.id), self.errorPayload(.tooLarge, message, false, 0), to: link)
            }
        default:
            let ended = self.machine.endedReceived(header.number, by: worker, actions: &self.actions)
            guard let ended else { return }
            let end = Header(.ended, number: ended.subscription)
            self.send(end, in: .subscription(ended.subscription), toClient: ended.client)
        }
    }

    /// Takes a worker's question whether what it sent has been read; if it names a stream, that stream's client is
    /// asked.
    private func takeQuestion(_ incoming: Incoming, _ worker: Int) {
        let header = incoming.header
        let question: BrokerMachine.PassedQuestion?
        switch QuestionSubject(rawValue: header.time) {
        case .events:
            question = self.machine.questionReceived(
                header.id,
                afterEventsOf: header.number,
                next: unsafe QuestionSubject.number(in: incoming.payload),
                from: worker
            )
        case .progress:
            question = self.machine.questionReceived(
                header.id,
                afterProgressOf: unsafe QuestionSubject.number(in: incoming.payload) ?? 0,
                from: worker
            )
        case .nothing, nil: question = nil
        }
        guard let question else { return self.send(Header(.pong, id: header.id), toWorker: worker) }
        self.ask(question)
    }

    /// Asks a client whether it has read everything before the question, and tells it how many events there were.
    func ask(_ question: BrokerMachine.PassedQuestion) {
        guard case .subscription(let number) = question.stream, let next = question.next else {
            return self.send(Header(.ping, id: question.id), in: question.stream, toClient: question.client)
        }
        guard question.client < self.clientLinks.count, let link = self.clientLinks[question.client] else { return }
        let header = Header(.ping, id: question.id, time: QuestionSubject.events.rawValue, number: number)
        let payload = QuestionSubject.payload(next)
        let isHeld = unsafe payload.withUnsafeBytes { unsafe link.line.holds(header, $0, in: question.stream) }
        if !isHeld { self.send(header, payload, to: link) }
    }

    /// Resumes a client's session over another connection: what was sent about its callbacks over the old one may be
    /// lost.
    ///
    /// This must be sent first, so that losses are counted before the answers that are sent again arrive.
    func restateCallbacks(to client: Int) {
        for statement in self.machine.statements(to: client) {
            self.ask(statement)
            guard statement.isEnded, case .subscription(let number) = statement.stream else { continue }
            self.send(Header(.ended, number: number), in: statement.stream, toClient: client)
        }
    }

    private func deliver(_ incoming: Incoming, _ delivery: BrokerMachine.Delivery) -> Bool {
        guard let link = self.clientLinks[delivery.client] else {
            self.core.counters.undeliverable.countAlone()
            return false
        }
        var header = incoming.header
        header.id = delivery.id
        header.number = delivery.subscription
        if self.forward(header, incoming, to: link) { return true }
        // The dropped event used up its number, and no later event may ever come to show that it is missing.
        let statement = self.machine.statement(of: delivery.subscription, to: delivery.client)
        if let statement { self.ask(statement) }
        return false
    }
}
