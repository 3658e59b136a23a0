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
    func takeRequest(
        _ header: Header,
        _ payload: UnsafeRawBufferPointer,
        _ range: Range<Int>,
        of frame: MessageBox?,
        _ session: Int
    ) {
        self.core.counters.received.count()
        let (header, caller) = self.split(header, session)
        let isChunk = header.contentType == ContentType.chunk.rawValue
        guard isChunk || header.contentType == ContentType.messagePack.rawValue else {
            let message = "content type \(header.contentType) is not known to this worker; send MessagePack"
            return self.refuse(
                header.id,
                ErrorBody(code: .unsupported, message: message, worker: self.core.name),
                to: session
            )
        }
        var range = range
        var key: String?
        var scope = ""
        var queue = ""
        if header.flags.contains(.metadata) {
            do throws(WireError) {
                let (metadata, byteCount) = try unsafe RequestMetadata.read(from: payload)
                key = metadata.orderingKey
                if key != nil { scope = self.scope(saidBy: metadata, session) }
                queue = metadata.queue
                range = range.lowerBound + byteCount..<range.upperBound
            } catch {
                self.malformed(error)
                let body = ErrorBody(code: .badArguments, message: "\(error)", worker: self.core.name)
                return self.refuse(header.id, body, to: session)
            }
        }
        if self.core.access == nil {
            // Nobody can take it from a client.
            queue = ""
        } else if let problem = self.problem(submitting: header.number, to: queue, session) {
            return self.refuse(
                header.id,
                ErrorBody(code: .forbidden, message: problem, worker: self.core.name),
                to: session
            )
        }
        if header.flags.contains(.resent), self.answerAgain(header.id, session) { return }
        var verdict = self.machine.requestReceived(
            header,
            key: key,
            scope: scope,
            queue: queue,
            from: session,
            at: self.now
        )
        if case .unknownFunction = verdict, self.core.handlerCount > self.handlers.count {
            // It was registered after this turn began, maybe before the request was sent.
            self.learnHandlers()
            verdict = self.machine.requestReceived(
                header,
                key: key,
                scope: scope,
                queue: queue,
                from: session,
                at: self.now
            )
        }
        switch verdict {
        case .run(let slot, let number):
            guard let handler = self.handler(number, isChunk: isChunk, slot) else { break }
            let content = unsafe UnsafeRawBufferPointer(rebasing: payload[(payload.count - range.count)...])
            unsafe self.schedule(slot, handler: handler, content, range, of: frame, session, from: caller)
        case .hold(let slot, _):
            let content = unsafe UnsafeRawBufferPointer(rebasing: payload[(payload.count - range.count)...])
            let (box, place) = unsafe Self.kept(content, range, of: frame)
            let held = HeldRequest(box: box, payload: place, isChunk: isChunk, caller: self.caller(caller, session))
            self.held[slot] = held
        case .known(let slot):
            self.deadlineMoved(slot)
            // It is on its way; say again how far, since that report may have been lost.
            self.report(slot, session: session, id: header.id)
        case .answerAgain:
            self.core.counters.answeredAgain.count()
            unsafe self.machine.withResult(header.id, of: session) { message in
                unsafe self.links[session]?.out.batch.append(message: message)
            }
            if let link = self.links[session] { self.appended(to: link, session) }
        case .lapsed:
            self.core.counters.dropped.count()
            // Kept like every answer: a copy that was sent again may be on its way, with more time, and must not run.
            self.confirm(.lapsed, of: header.id, to: session)
        case .duplicateID:
            self.core.counters.malformedMessages.count()
        case let verdict:
            self.refuse(header, verdict, session)
        }
        if self.nextTick == .distantFuture { self.nextTick = self.now }
    }

    /// What runs a request that may start; a request of many calls is answered here if its function doesn't take any.
    func handler(_ number: Int32, isChunk: Bool, _ slot: UInt32) -> Handler? {
        let handler = self.handlers[Int(number)]
        guard isChunk else { return handler }
        if let chunk = handler.chunk { return chunk }
        let message =
            "\(handler.name) has time limits or a process of its own and takes one call at a time; send single requests"
        self.finished(slot, .error(ErrorBody(code: .unsupported, message: message, worker: self.core.name)))
        return nil
    }

    func refuse(_ header: Header, _ verdict: WorkerMachine.RequestVerdict, _ session: Int) {
        self.core.counters.refused.count()
        let name = self.core.name
        let body: ErrorBody
        switch verdict {
        case .unknownFunction(let function):
            let message = "no function \"\(function)\" is registered on \(name); register it, or call one of: "
            let known = self.functionsToName(session).prefix(20).joined(separator: ", ")
            body = ErrorBody(code: .unknownFunction, message: message + known, worker: name)
        case .undefinedFunction:
            let limit = WireLimits.standard.maxFunctions
            let message =
                header.number < limit
                ? "function number \(header.number) was not defined in this session"
                : "the client uses more than \(limit) function names, the limit of a session: use fewer, or several clients"
            body = ErrorBody(code: .unknownFunction, message: message, worker: name)
        case .busy(let window):
            let message = "the client has \(window) requests on \(name), its limit; wait for some"
            body = ErrorBody(code: .busy, message: message, isRetryable: true, worker: name)
        case .draining:
            let message = "\(name) shuts down and takes no more requests; call another worker"
            body = ErrorBody(code: .draining, message: message, isRetryable: true, worker: name)
        case .indeterminate:
            let message = "the request was sent again, may have run, and its answer is held no more"
            body = ErrorBody(code: .indeterminate, message: message, worker: name)
        case .run, .hold, .known, .answerAgain, .duplicateID, .lapsed:
            return
        }
        self.refuse(header.id, body, to: session)
    }

    func refuse(_ id: UInt64, _ body: ErrorBody, to session: Int) {
        self.core.counters.failed.count()
        // Not even that is read: what it asks for is refused by silence, or its refusals would fill this process.
        if self.links[session]?.holdUp.isOn == true {
            self.core.counters.undeliverable.count()
            self.machine.goodbyeReceived(from: session, at: self.now, actions: &self.actions)
            return self.core.logger.warning(
                "a client that doesn't read its answers was given up",
                metadata: [
                    LogKeys.client: "\(self.machine.sessions[session].client)", LogKeys.error: "\(body.message)",
                ]
            )
        }
        // Kept like every answer: a copy of the request that was sent again may be on its way, and must not run.
        self.answer(Header(.error, id: id), body.packed(), to: session)
    }

    /// Lets a request run: here, if its handler is quick, or on the handler threads.
    func schedule(
        _ slot: UInt32,
        handler: Handler,
        _ content: UnsafeRawBufferPointer,
        _ range: Range<Int>,
        of frame: MessageBox?,
        _ session: Int,
        from caller: UInt32
    ) {
        if case .sync = handler.body, self.hasStandby, range.count <= Self.quickPayloadBytes,
            self.core.threads.queued == 0, handler.mayRunBesideLoop, self.links[session]?.holdUp.isOn != true
        {
            let expected = handler.expectedRun
            let isLone = self.quick.isEmpty && self.toRun.isEmpty
            let mayOvertake = self.toRun.isEmpty || self.core.configuration.concurrency > 1
            if (expected <= Self.quickNanoseconds && mayOvertake) || (isLone && expected <= Self.loneNanoseconds) {
                let start = self.arena.count
                unsafe self.arena.append(contentsOf: content)
                let callbacks = self.links[session]?.broker?.callbacks
                let payload = start..<self.arena.count
                self.quick.append(QuickJob(slot: slot, handler: handler, payload: payload, callbacks: callbacks))
                return
            }
        }
        let (box, place) = unsafe Self.kept(content, range, of: frame)
        self.enqueue(slot, handler: handler, box, place, from: self.caller(caller, session))
    }

    /// Parts the number of a broker's request into that of the function and that of the caller, which is 0 if the broker vouches for
    /// none.
    private func split(_ header: Header, _ session: Int) -> (header: Header, caller: UInt32) {
        guard self.links[session]?.broker?.vouches == true else { return (header, 0) }
        var header = header
        let caller = header.number >> WireLimits.callerShift
        header.number &= 1 << WireLimits.callerShift - 1
        return (header, caller)
    }

    /// The caller of a request: the owner of the session's key, or the one that its broker vouches for.
    private func caller(_ number: UInt32, _ session: Int) -> Caller? {
        guard let link = self.links[session] else { return nil }
        return number == 0 ? link.caller : link.broker?.callers[number]
    }

    /// The arguments in memory that outlives the frame's turn.
    static func kept(
        _ content: UnsafeRawBufferPointer,
        _ range: Range<Int>,
        of frame: MessageBox?
    ) -> (MessageBox, Range<Int>) {
        if let frame { return (frame, range) }
        return unsafe (MessageBox(Message(copying: content)), 0..<content.count)
    }

    func enqueue(
        _ slot: UInt32,
        handler: Handler,
        _ box: MessageBox,
        _ range: Range<Int>,
        from caller: Caller?
    ) {
        guard let request = self.machine.request(in: slot) else { return }
        guard request.session >= 0 else {
            // The client went while the request waited for its turn; its slot and its key must be free again.
            return self.finished(slot, .dropped(.cancelled))
        }
        let context = JobContext(
            request: request,
            slot: slot,
            client: self.machine.sessions[Int(request.session)].client,
            caller: caller,
            function: handler.name,
            core: self.core
        )
        let job = WorkerJob(
            slot: slot,
            handler: handler,
            context: context,
            frame: box,
            payload: range,
            callbacks: self.links[Int(request.session)]?.broker?.callbacks,
            holdUp: self.links[Int(request.session)]?.holdUp
        )
        while self.jobs.count <= Int(slot) { self.jobs.append(nil) }
        self.jobs[Int(slot)] = job
        self.toRun.append(job)
    }

    func cancel(_ header: Header, _ session: Int) {
        self.links[session]?.line.cancelTheirs(header.id)
        self.dropKept(header.id, session)
        switch self.machine.cancelReceived(header.id, from: session, actions: &self.actions) {
        case .unknown:
            self.send(Header(.cancelled, id: header.id, number: CancelledStage.unknown.rawValue), to: session)
        case .removed(let slot):
            self.held[slot] = nil
            self.core.counters.dropped.count()
            self.confirm(.beforeStart, of: header.id, to: session)
        case .stop(let slot):
            self.stop(slot, because: CancellationReason(header.number))
        }
    }

    /// A client moved the deadline of a request.
    func moveDeadline(_ header: Header, _ session: Int) {
        let slot = self.machine.deadlineReceived(header.id, time: header.time, from: session, at: self.now)
        if let slot {
            self.deadlineMoved(slot)
        } else {
            // It may be on its way in parts, which this has overtaken.
            let deadline = self.machine.deadline(header.time, in: session, at: self.now)
            self.links[session]?.line.moved(header.id, to: deadline)
        }
    }

    /// The machine knows another deadline of a request; the handler's view and the loop's clock follow.
    private func deadlineMoved(_ slot: UInt32) {
        guard let deadline = self.machine.request(in: slot)?.deadline else { return }
        if Int(slot) < self.jobs.count { self.jobs[Int(slot)]?.context.move(deadline: deadline) }
        self.nextTick = min(self.nextTick, deadline)
    }

    /// A request's time is over, or its client gone.
    ///
    /// The time may have been extended by a message that is still on its way, so it stops no handler that runs: the client
    /// says so when its own deadline passes.
    func stopOrLapse(_ slot: UInt32) {
        guard let request = self.machine.request(in: slot), request.session >= 0, request.deadline <= self.now else {
            return self.stop(slot, because: .clientGone)
        }
        guard Int(slot) < self.jobs.count, let job = self.jobs[Int(slot)],
            job.cancelBeforeStart(because: .deadline)
        else { return }
        self.core.threads.withdraw(job)
        self.finished(job, .dropped(.lapsed))
    }

    /// Takes a job out before it starts, or asks it to stop.
    func stop(_ slot: UInt32, because reason: CancellationReason) {
        guard Int(slot) < self.jobs.count, let job = self.jobs[Int(slot)] else { return self.stopping(slot) }
        let isLapsed = job.hasLapsed(at: self.now)
        guard job.cancel(because: reason) else { return self.stopping(slot) }
        self.core.threads.withdraw(job)
        self.finished(job, .dropped(isLapsed ? .lapsed : .cancelled))
    }
}
