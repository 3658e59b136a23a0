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
    func send(_ header: Header, to session: Int) {
        guard let link = self.links[session] else { return }
        link.out.batch.append(header)
        self.appended(to: link, session)
    }

    /// Sends an encoded message.
    ///
    /// An answer `isBehindEvents` if they may be for its caller. One that `isKept` goes in parts if it may have to wait for what does.
    ///
    /// - Returns: Whether it goes in parts, or waits for what does: the line counts it until it has gone out.
    @discardableResult
    func send(
        _ block: RequestBytes,
        as header: Header,
        to session: Int,
        isBehindEvents: Bool = false,
        isKept: Bool = false
    ) -> Bool {
        var block = block
        defer { block.free() }
        guard let link = self.links[session], let base = unsafe block.base else { return false }
        var header = header
        header.payloadLength = UInt32(block.payloadCount)
        let takesParts = link.line.takes(header.kind, payloadCount: block.payloadCount)
        if takesParts || isKept && link.line.keepsOrder, let shared = block.share() {
            let source = unsafe PartSource(shared.base + Header.byteCount, owner: shared)
            if !link.line.isSending { self.sendingParts.append(session) }
            link.line.add(header, deadline: nil, source, isBehindEvents: isBehindEvents)
            return true
        }
        if link.line.keepsOrder {
            let payload = unsafe UnsafeRawBufferPointer(start: base + Header.byteCount, count: block.payloadCount)
            if unsafe link.line.holds(header, payload, isBehindEvents: isBehindEvents) { return true }
        }
        unsafe header.write(to: base)
        if block.payloadCount >= OutgoingBatch.flushBytes, let shared = block.share() {
            self.flush(link, session)
            let frame = unsafe Message(adopting: shared.base, count: block.count, owner: shared)
            self.put(frame, on: link, session)
            return false
        }
        unsafe link.out.batch.append(message: UnsafeRawBufferPointer(start: base, count: block.count))
        self.appended(to: link, session)
        return false
    }

    func appended(to link: WorkerLink, _ session: Int) {
        if !self.core.configuration.coalescesMessages || link.out.batch.count >= OutgoingBatch.flushBytes {
            self.flush(link, session)
        } else if !link.out.isDirty {
            link.out.isDirty = true
            self.dirty.append(session)
        }
    }

    /// Sends what has gathered for all clients.
    func flush() {
        if self.core.access != nil { self.observeDials() }
        if !self.blocked.isEmpty { self.unpark() }
        if !self.heldUp.isEmpty { self.letGoOn() }
        if !self.sendingParts.isEmpty || self.partBudget.waiting > 0 {
            self.flushDirty()
            self.sendParts()
        }
        self.flushDirty()
        if self.partBudget.hasNews, let report = self.partBudget.report(at: self.now) {
            self.core.logger.warning("\(PartBudget.reportMessage)", metadata: [LogKeys.reason: "\(report)"])
        }
    }

    private func flushDirty() {
        guard !self.dirty.isEmpty else { return }
        for session in self.dirty {
            guard session < self.links.count, let link = self.links[session] else { continue }
            link.out.isDirty = false
            self.flush(link, session)
        }
        self.dirty.removeAll(keepingCapacity: true)
    }

    /// Sends parts of large messages, as many as may be under way, and lets others come for which there is room now.
    private func sendParts() {
        if self.partBudget.waiting > 0 {
            for session in self.links.indices {
                while let grant = self.links[session]?.line.grant() { self.send(grant, to: session) }
            }
        }
        guard !self.sendingParts.isEmpty else { return }
        self.sendingParts.removeAll { session in
            guard session < self.links.count, let link = self.links[session], link.line.isSending else { return true }
            while !link.out.isBlocked, var part = link.line.next(into: &link.out.batch, at: self.now) {
                if let attached = part.attached.take() {
                    self.put(link.out.batch.take(&self.port.frames), attached: attached, on: link, session)
                } else if link.out.batch.count >= OutgoingBatch.flushBytes {
                    self.flush(link, session)
                }
            }
            if !link.out.batch.isEmpty, !link.out.isDirty {
                link.out.isDirty = true
                self.dirty.append(session)
            }
            return !link.line.isSending
        }
    }

    func flush(_ link: WorkerLink, _ session: Int) {
        guard !link.out.batch.isEmpty else { return }
        self.put(link.out.batch.take(&self.port.frames), on: link, session)
    }

    func put(_ frame: consuming Message, on link: WorkerLink, _ session: Int) {
        self.put(frame, attached: nil, on: link, session)
    }

    func put(_ frame: consuming Message, attached: consuming Message?, on link: WorkerLink, _ session: Int) {
        self.machine.sent(to: session, at: self.now)
        self.note(self.port.put(frame, attached: attached, to: &link.out), session)
    }

    private func note(_ sending: RouterPort.Sending, _ session: Int) {
        switch sending {
        case .sent, .waiting: break
        case .blocked: self.blocked.insert(session)
        case .gone: self.core.counters.undeliverable.count()
        }
    }

    func unpark() {
        for session in self.blocked {
            guard session < self.links.count, let link = self.links[session] else {
                self.blocked.remove(session)
                continue
            }
            let (isFree, lost) = self.port.unpark(&link.out)
            self.core.counters.undeliverable.count(lost)
            if isFree { self.blocked.remove(session) }
        }
    }

    // MARK: Actions

    func performActions() {
        guard !self.actions.isEmpty else { return }
        var index = 0
        // Carrying out an action may add others.
        while index < self.actions.count {
            self.perform(self.actions[index])
            index += 1
        }
        self.actions.removeAll(keepingCapacity: true)
    }

    func perform(_ action: WorkerAction) {
        switch action {
        case .run(let slot, let handler):
            guard let held = self.held.removeValue(forKey: slot),
                let handler = self.handler(handler, isChunk: held.isChunk, slot)
            else { return }
            self.enqueue(slot, handler: handler, held.box, held.payload, from: held.caller)
            if held.isTold { self.reportAgain(slot) }
        case .stop(let slot): self.stopOrLapse(slot)
        case .interrupt(let slot): self.interrupt(slot)
        case .abandon(let slot, let session, let id): self.abandon(slot, session, id)
        case .giveUp(let slot, let session, let id): self.giveUp(slot, session, id)
        case .lapsed(let slot, let session, let id):
            self.held[slot] = nil
            self.core.counters.dropped.count()
            self.confirm(.lapsed, of: id, to: session)
        case .forbidden(let slot, let session, let id, let handler, let queue):
            self.held[slot] = nil
            if let body = self.forbidden(handler, queue, session) { self.refuse(id, body, to: session) }
        case .withdraw(let slot, let queue): self.withdraw(slot, queue)
        case .dropped(let slot):
            self.held[slot] = nil
            self.core.counters.dropped.count()
        case .report(let slot, let session, let id):
            // Its start is told of by itself once it was told that it waits.
            if let job = self.job(in: slot), job.mustReportStart, job.isRunning { break }
            self.report(slot, session: session, id: id)
        case .sendBeat(let session):
            self.sendBeat(to: session)
            self.askForKept(session, isBeat: true)
        case .sessionLost(let session, let client):
            if let link = self.links[session] {
                self.release(link)
                self.forgetUnread(of: link)
            }
            self.gate.isNobodys(self.links[session]?.introducedBy)
            self.links[session] = nil
            self.blocked.remove(session)
            // What was on its way to it is free soon.
            self.idle.worked(at: self.now)
            self.core.subscribers.endAll(of: client)
            self.core.replies.endAll(of: client)
            self.core.counters.clients.store(self.machine.sessionCount, ordering: .relaxed)
            self.core.logger.debug("a client is gone", metadata: [LogKeys.client: "\(client)"])
            self.brokersChanged()
        }
    }

    func report(_ slot: UInt32, session: Int, id: UInt64) {
        let job = self.job(in: slot)
        let isRunning = job?.reportStart() ?? false
        let isStalled = job?.isToldToWait.load(ordering: .relaxed) ?? false
        let request = self.machine.request(in: slot)
        let isReleased = request?.isReleased ?? false
        var number = (isStalled ? PhaseReport.stalled : 0) | (isReleased ? PhaseReport.released : 0)
        if !isRunning, let hold = request?.hold, hold != .none {
            number = hold.report
            self.held[slot]?.isTold = true
        }
        self.send(Header(isRunning ? .started : .accepted, id: id, number: number), to: session)
    }

    /// A request of which its client was told that it is held is to run: the client counts it again.
    private func reportAgain(_ slot: UInt32) {
        guard let job = self.job(in: slot) else { return }
        _ = job.reportStart()
        self.nextTick = min(
            self.nextTick,
            self.machine.reportAgain(slot, id: job.context.correlationID.rawValue, at: self.now)
        )
    }

    private func job(in slot: UInt32) -> WorkerJob? { Int(slot) < self.jobs.count ? self.jobs[Int(slot)] : nil }

    /// Clients count slots too: one whose handler waits without its own may send another request.
    func tellReleased(_ slot: UInt32, id: UInt64) {
        guard let request = self.machine.request(in: slot), request.id == id, request.session >= 0 else { return }
        self.report(slot, session: Int(request.session), id: id)
    }

    // MARK: Sleeping and leaving

    /// Some seconds after the last request the memory that requests needed is given back.
    private func giveBackIfIdle() {
        let received = self.core.counters.received.current
        if self.machine.requestCount > 0 || received != self.lastReceived || !self.blocked.isEmpty {
            self.lastReceived = received
            if self.machine.requestCount > Self.manyRequests { HeapReserve.usedMuch() }
            self.idle.worked(at: self.now)
        } else if self.idle.isDue(at: self.now) {
            self.machine.trim()
            self.arena = []
            self.jobs = []
            HeapReserve.giveBack()
        }
    }

    private static let manyRequests = 4096

    @available(*, noasync)
    func sleep() {
        guard self.port.isQuiet else { return }
        self.now = self.core.now()
        self.core.counters.requests.store(self.machine.requestCount, ordering: .relaxed)
        self.core.counters.timers.store(self.machine.timerCount, ordering: .relaxed)
        self.machine.settle()
        self.nextTick = min(self.machine.nextDeadline(after: self.now), self.nextOffer, self.waits.nextLook)
        self.nextTick = min(self.nextTick, self.gate.nextLook)
        if self.core.threads.lacksThreads {
            self.nextTick = min(self.nextTick, self.now.advanced(byNanoseconds: ClientCore.threadPauseNanoseconds))
        }
        if let recycling { self.nextTick = min(self.nextTick, recycling.nextLook) }
        self.giveBackIfIdle()
        self.nextTick = min(self.nextTick, self.idle.nextDeadline)
        if self.core.life.state == .draining { self.nextTick = min(self.nextTick, self.core.life.drainDeadline) }
        guard self.core.mailbox.prepareToSleep() else {
            self.core.mailbox.didWake(isSignalled: false)
            return
        }
        // Frames that libzmq would not take are tried again soon: a ROUTER can't say which peer has room.
        let limit = self.blocked.isEmpty ? Instant.distantFuture : self.now.advanced(byNanoseconds: 1_000_000)
        let wakeUp = self.port.wait(
            waker: self.core.waker.fileDescriptor,
            milliseconds: min(self.nextTick, limit).pollMilliseconds(at: self.now)
        )
        self.core.mailbox.didWake(isSignalled: wakeUp.isSignalled)
        if wakeUp.monitorHasNews { self.mayHaveDialEvents = true }
        self.now = self.core.now()
    }

    /// Begins to drain when the worker has served long enough.
    private func recycleIfDue() {
        let ended = self.core.counters.completed.current + self.core.counters.failed.current
        let due =
            self.recycling?.isDue(afterJobs: ended)
            ?? self.recycling?.look(at: self.now, residentBytes: ResidentMemory.byteCount)
        guard let reason = due.map({ RecyclingReason($0) }) else { return }
        self.core.recyclingReason.withLock { $0 = reason }
        self.core.logger.notice("the worker makes room for a fresh one", metadata: [LogKeys.reason: "\(reason)"])
        self.core.life.drain(within: self.core.configuration.drainGrace)
    }

    /// Whether the worker has been asked to stop and may.
    @available(*, noasync)
    var mayLeave: Bool {
        switch self.core.life.state {
        case .running:
            if self.recycling != nil { self.recycleIfDue() }
            return false
        case .draining:
            if !self.isDrainAnnounced {
                self.isDrainAnnounced = true
                self.machine.drain()
                self.tellAll(Header(.goodbye, number: GoodbyeReason.draining.rawValue))
            }
            return self.core.now() >= self.core.life.drainDeadline
                || self.machine.requestCount == 0 && self.sendingParts.isEmpty && self.isCleared()
        case .stopping, .stopped: return true
        }
    }

    /// Whether no peer has anything under way any more; asks those that haven't said so.
    ///
    /// One whose connection is broken counts until its session is over: it may come back for its answers.
    @available(*, noasync)
    private func isCleared() -> Bool {
        var isCleared = true
        for session in self.machine.sessions.indices where self.machine.sessions[session].isLive {
            guard let link = self.links[session] else { continue }
            if link.line.isSending || link.line.isReceiving || link.kept.hasParts {
                isCleared = false
                continue
            }
            if link.clearance.mustAsk {
                let nonce = link.questions.nextNonce()
                link.clearance.asked(nonce)
                self.send(Header(.ping, id: nonce), to: session)
            }
            isCleared = isCleared && link.clearance.isClear
        }
        if !isCleared { self.flush() }
        return isCleared
    }

    func tellAll(_ header: Header) {
        for session in self.machine.sessions.indices where self.machine.sessions[session].isLive {
            self.send(header, to: session)
        }
        self.flush()
    }

    /// Says goodbye, cancels what still runs, closes the socket.
    @available(*, noasync)
    func leave() {
        for case let job? in self.jobs { _ = job.cancel(because: .workerLeaves) }
        self.tellAll(Header(.goodbye, number: GoodbyeReason.leaving.rawValue))
        // Subscribers first: who asks a client from now on either sees that it has ended or is among the replies.
        self.core.subscribers.close()
        self.core.replies.close()
        self.waitForClients()
        // What was said last must leave the machine; a linger that can't be set only shortens the goodbye.
        try? self.port.socket.set(.linger, .seconds(1))
    }

    /// Waits until every client has taken what was said last: for a quarter of a second at most, a second if the grace
    /// lasts so long.
    ///
    /// The process may end as soon as the loop is left, and with it what libzmq's I/O thread has not sent by then: answers
    /// of requests that were drained, above all. A client that has read the goodbye, and so all before it, closes its
    /// connection; nothing can be sent to it any more.
    @available(*, noasync)
    private func waitForClients() {
        let now = self.core.now()
        let deadline = max(
            now.advanced(byNanoseconds: Self.farewellNanoseconds),
            min(now.advanced(byNanoseconds: Self.longFarewellNanoseconds), self.core.life.drainDeadline)
        )
        var staying = self.machine.sessions.indices.filter { self.machine.sessions[$0].isLive }
        while true {
            staying.removeAll { session in
                guard let link = self.links[session] else { return true }
                var beat = OutgoingBatch(capacity: Header.byteCount)
                beat.append(Header(.beat, id: self.core.epoch))
                guard self.port.tryToSend(beat.take(&self.port.frames), to: link.out) == .gone else { return false }
                self.core.counters.undeliverable.count()
                return true
            }
            let now = self.core.now()
            guard !staying.isEmpty, now < deadline else { return }
            // A connection that ends shows on the descriptor; the time is for what has shown there before.
            let limit = min(deadline, now.advanced(byNanoseconds: Self.farewellLookNanoseconds))
            let wakeUp = self.port.wait(waker: nil, milliseconds: limit.pollMilliseconds(at: now))
            guard !wakeUp.hasFailed else { return }
            // To a broker that was dialled something can always be sent; it answers a goodbye with its own.
            let routes = self.receiveFarewells()
            staying.removeAll { routes.contains(self.machine.sessions[$0].route) }
        }
    }

    /// The routes of brokers that have said goodbye; nothing else that comes matters any more.
    @available(*, noasync)
    private func receiveFarewells() -> Set<UInt64> {
        var routes: Set<UInt64> = []
        _ = self.port.receive(atMost: Self.receiveBatch) { arrival, _ in
            guard case .frame = arrival else { return }
            let route = self.routeKey()
            guard route >= Self.dialledRoutes else { return }
            let isFarewell = unsafe self.port.message.withUnsafeBytes { bytes in
                var reader = unsafe FrameReader(bytes)
                while let part = try? reader.next() { if part.header.kind == .goodbye { return true } }
                return false
            }
            if isFarewell { routes.insert(route) }
        }
        return routes
    }

    private static let farewellLookNanoseconds: UInt64 = 20_000_000

    private static let farewellNanoseconds: UInt64 = 250_000_000
    private static let longFarewellNanoseconds: UInt64 = 1_000_000_000
}
