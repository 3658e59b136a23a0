// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverCore
internal import DroverRuntime
internal import DroverZMQ
internal import Logging

// What comes from workers.

extension ClientLoop {
    @available(*, noasync)
    func receive(from link: ClientLink) -> Bool {
        var count = 0
        while count < Self.receiveBatch {
            do throws(ZMQError) {
                guard try link.receive(into: &self.message) else { break }
                if count == 0 {
                    self.now = self.core.now()
                    self.callTable.machine.heard(from: link.index, at: self.now)
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
    func takeFrame(from link: ClientLink) throws(ZMQError) {
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
    func takeMessages(
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
                    if let box {
                        if Self.isEvent(part.header) {
                            let arrived = ArrivedEvents(first: part, of: box, followedIn: &reader)
                            self.deliver(arrived, to: SubscriptionID(part.header.number), from: link)
                            continue
                        }
                    } else if Self.keepsFrame(part.header) {
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

    /// Whether the message is for a callback, which reads it after this turn.
    private static func keepsFrame(_ header: Header) -> Bool {
        header.rawKind == MessageKind.event.rawValue || header.rawKind == MessageKind.invoke.rawValue
    }

    private static func isEvent(_ header: Header) -> Bool {
        header.rawKind == MessageKind.event.rawValue && header.contentType == ContentType.messagePack.rawValue
    }

    /// A broker says which worker has a call.
    private func noteWorker(of header: Header, _ payload: UnsafeRawBufferPointer) {
        guard unsafe !payload.isEmpty, let slot = self.callTable.machine.slot(of: header.id),
            let result = self.callTable.handle(in: slot)
        else { return }
        var reader = unsafe PackReader(over: payload, limits: .received)
        // What can't be read is for people only.
        guard let name = try? reader.readPeerName() else { return }
        result.isAt(name)
    }

    private func phaseReported(_ phase: CallPhase, _ header: Header, from link: ClientLink) {
        self.callTable.machine.phaseReported(
            header.id,
            phase: phase,
            isStalled: header.number & PhaseReport.stalled != 0,
            hold: HoldReason(header),
            from: link.index,
            actions: &self.actions
        )
    }

    @available(*, noasync)
    func take(
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
            unsafe self.noteWorker(of: header, payload)
            self.phaseReported(.accepted, header, from: link)
        case .started:
            unsafe self.noteWorker(of: header, payload)
            self.phaseReported(.running, header, from: link)
            let isReleased = header.number & PhaseReport.released != 0
            self.callTable.machine.slotReleased(header.id, isReleased, from: link.index)
        case .cancelled:
            link.line.cancelledByPeer(header.id)
            self.takeRemoval(header.id, CancelledStage(rawValue: header.number) ?? .unknown, from: link)
        case .ended:
            self.core.subscriptions.remove(SubscriptionID(header.number), because: .givenUp)?.end()
            self.lastSubscription = nil
            // A broker keeps its place until then.
            self.reply(to: link, Header(.ended, number: header.number))
        case .part: unsafe self.takePart(header, payload, from: link)
        case .partTaken: link.line.acknowledged(header, at: self.now)
        case .partEnded: link.line.ended(header)
        case .beat:
            self.callTable.machine.beatReceived(
                from: link.index,
                epoch: header.id,
                at: self.now,
                actions: &self.actions
            )
        case .ping:
            unsafe self.noteEmitted(header, payload, from: link)
            self.attempt(link) { link throws(ZMQError) in try link.send(Header(.pong, id: header.id)) }
        default:
            unsafe self.takeSession(header, kind: kind, payload: payload, from: link)
        }
    }

    /// Takes a part of a large message, and the message if it is whole now.
    @available(*, noasync)
    private func takePart(_ header: Header, _ payload: UnsafeRawBufferPointer, from link: ClientLink) {
        let limit = self.core.configuration.maxPayloadBytes
        let (arrival, answer) = unsafe link.line.take(header, payload, maxPayloadBytes: limit, at: self.now)
        if let answer { self.reply(to: link, answer) }
        switch arrival {
        case .nothing: break
        case .whole(let box):
            unsafe box.withUnsafeBytes { bytes in
                _ = unsafe self.takeMessages(bytes, of: box, startingAt: 0, attachedCount: nil, from: link)
            }
        case .refused(let message, let error): self.malformed(error, from: link, header: message)
        case .malformed(let error): self.malformed(error, from: link, header: nil)
        }
    }

    @available(*, noasync)
    func takeSession(
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
            self.callTable.machine.resetReceived(from: link.index, at: self.now, actions: &self.actions)
        case .goodbye:
            let reason = GoodbyeReason(rawValue: header.number) ?? .leaving
            if reason == .draining, self.core.configuration.asksWhoDrains { break }
            self.callTable.machine.goodbyeReceived(
                from: link.index,
                reason: reason,
                at: self.now,
                actions: &self.actions
            )
        case .refused:
            let body = unsafe ErrorBody(reading: payload)
            link.lastProblem = body.map { "it refused the handshake: \($0.message)" }
            let reason: LossReason =
                body?.isForbidden == true ? .authentication : body?.isBusy == true ? .full : .refused
            self.callTable.machine.refused(by: link.index, reason: reason, at: self.now, actions: &self.actions)
        default:
            // What only workers are sent.
            self.core.counters.unknownMessages.count()
        }
    }

    @available(*, noasync)
    func takeAnswer(
        _ header: Header,
        kind: MessageKind,
        payload: UnsafeRawBufferPointer,
        from link: ClientLink
    ) {
        if kind == .error, let body = unsafe ErrorBody(reading: payload) {
            if body.isLapse { return self.takeRemoval(header.id, .lapsed, from: link) }
            if body.isDraining,
                self.callTable.machine.drained(header.id, by: link.index, at: self.now, actions: &self.actions)
            {
                return
            }
        }
        let verdict = self.callTable.machine.replied(
            header.id,
            ranMicroseconds: kind == .pong || header.time == Header.noTimeLimit ? 0 : header.time,
            from: link.index,
            at: self.now
        )
        switch verdict {
        case .deliver(let slot):
            guard let result = self.callTable.take(slot) else { return }
            result.freeRequest()
            let waiting: Waiting?
            if kind == .error {
                waiting = unsafe self.settleError(result, payload: payload)
            } else {
                waiting = unsafe result.settle(value: payload, ran: header.time)
            }
            self.note(result, waiting)
        case .expire(let slot, let function, let nanoseconds):
            guard let result = self.callTable.take(slot) else { return }
            result.freeRequest()
            self.end(result, .expired, result.timeout(at: self.now))
            self.reportLate(header.id, function: function, nanoseconds: nanoseconds)
        case .late(let function, let nanoseconds):
            self.reportLate(header.id, function: function, nanoseconds: nanoseconds)
        case .duplicate: self.core.counters.duplicateReplies.count()
        case .unknown: self.core.counters.unknownReplies.count()
        }
    }

    /// A request ended without an answer.
    func takeRemoval(_ id: UInt64, _ stage: CancelledStage, from link: ClientLink) {
        self.callTable.machine.cancellationConfirmed(
            id,
            stage: stage,
            from: link.index,
            at: self.now,
            actions: &self.actions
        )
    }

    /// A reply came that nobody waits for any more.
    func reportLate(_ id: UInt64, function: UInt32, nanoseconds: UInt64) {
        self.core.counters.lateReplies.count()
        guard let hook = self.core.configuration.onLateReply else { return }
        let reply = LateReply(
            correlationID: CorrelationID(id),
            function: self.core.function(function)?.name ?? "",
            lateness: Duration(nanoseconds: nanoseconds)
        )
        self.core.callbacks.enqueue { hook(reply) }
    }

    func settleError(_ result: AnyAsyncResult, payload: UnsafeRawBufferPointer) -> Waiting? {
        guard let body = unsafe ErrorBody(reading: payload) else {
            let message = "the worker's error for \(result.functionName) \(result.correlationID) can't be understood"
            return result.settle(.lost, failure: .connection(ConnectionError(.protocol, message: message)))
        }
        if body.isLoss {
            return result.settle(.lost, failure: .connection(ConnectionError(.lost, message: body.message)))
        }
        return result.settle(.failed, failure: .remote(body.error(of: result)))
    }

    func takeProgress(_ header: Header, payload: UnsafeRawBufferPointer) {
        self.core.counters.events.count()
        guard let slot = self.callTable.machine.slot(of: header.id), let result = self.callTable.handle(in: slot) else {
            self.core.counters.strayEvents.count()
            return
        }
        result.channel().yield(ResultEvent(sequence: Int(header.time), bytes: unsafe [UInt8](payload)))
    }

    @available(*, noasync)
    func deliver(_ header: Header, payload: Range<Int>, of box: MessageBox, from link: ClientLink) {
        var invocation: Subscription.Invocation?
        if header.rawKind == MessageKind.invoke.rawValue {
            let deadline =
                header.time == Header.noTimeLimit
                ? Instant.distantFuture : self.now.advanced(byNanoseconds: UInt64(header.time) * 1_000_000)
            link.invocations.received(header.id)
            invocation = Subscription.Invocation(
                endpoint: link.index,
                session: link.invocations.session,
                id: header.id,
                deadline: deadline
            )
            self.callTable.machine.asked(by: link.index)
        }
        let sequence = invocation == nil ? header.id : nil
        let arrived = ArrivedEvents(payload, of: box, sequence: sequence, invocation: invocation)
        self.deliver(arrived, to: SubscriptionID(header.number), from: link)
    }

    @available(*, noasync)
    func deliver(_ arrived: ArrivedEvents, to id: SubscriptionID, from link: ClientLink) {
        self.core.counters.events.count(arrived.count)
        if self.lastSubscription?.id != id { self.lastSubscription = self.core.subscriptions.findOrRemember(id) }
        let (consequence, refused) =
            self.lastSubscription?.receive(arrived, from: link.index) ?? (.refuse, arrived.count)
        if refused > 0 { self.core.counters.strayEvents.count(refused) }
        switch consequence {
        case .none: break
        case .pause: self.reply(to: link, Header(.flow, id: 0, number: id.rawValue))
        case .unsubscribe:
            self.core.subscriptions.remove(id, because: .overflowed)?.end()
            self.lastSubscription = nil
            self.core.logger.warning(
                "a callback was ended, for more of its events waited than it may keep and its policy is .unsubscribe",
                metadata: [LogKeys.subscription: "\(id)"]
            )
            self.reply(to: link, Header(.ended, number: id.rawValue))
        case .refuse:
            self.reply(to: link, Header(.ended, number: id.rawValue))
            if let invocation = arrived.invocation {
                let body = ErrorBody(code: .subscriberGone, message: "the callback's subscription \(id) is over")
                self.attempt(link) { link throws(ZMQError) in
                    let header = Header(.error, id: invocation.id)
                    try link.answer(invocation, header, consuming: body.packed(), isOpen: true)
                }
            }
        }
    }

    /// A PING about events may tell the number of the next one: what of those below it has not come was lost.
    private func noteEmitted(_ header: Header, _ payload: UnsafeRawBufferPointer, from link: ClientLink) {
        guard QuestionSubject(rawValue: header.time) == .events, let next = unsafe QuestionSubject.number(in: payload)
        else { return }
        self.core.subscriptions.findOrRemember(SubscriptionID(header.number))?.passed(upTo: next, from: link.index)
    }

    @available(*, noasync)
    func reply(to link: ClientLink, _ header: Header) {
        self.attempt(link) { link throws(ZMQError) in try link.send(header) }
    }

    /// Bytes that can't be understood: counted and logged; if they name a call, that one is lost (contract S73).
    @available(*, noasync)
    func malformed(_ error: WireError, from link: ClientLink, header: Header?) {
        self.core.counters.malformedMessages.count()
        self.core.logger.debug(
            "a malformed message was dropped",
            metadata: [LogKeys.endpoint: "\(link.endpoint)", LogKeys.error: "\(error)"]
        )
        link.lastProblem = "\(error)"
        guard let header, let kind = header.kind, kind == .reply || kind == .error,
            let slot = self.callTable.machine.spoiled(header.id, from: link.index, at: self.now),
            let result = self.callTable.take(slot)
        else { return }
        let failure = ConnectionError(
            .protocol,
            message: "the reply to \(result.functionName) \(result.correlationID) can't be understood: \(error)"
        )
        self.end(result, .lost, .connection(failure))
    }
}
