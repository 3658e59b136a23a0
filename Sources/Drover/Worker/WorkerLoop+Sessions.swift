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
    /// Where the last frame came from, as a number; of a broker that was dialled, the number of its dial.
    func routeKey() -> UInt64 {
        if let number = self.port.numberedRoute { return number }
        let id = self.port.route.bytes
        return self.dials.first { $0.routingID == id }?.route ?? self.port.hashedRoute
    }

    @available(*, noasync)
    func welcome(_ header: Header, _ payload: UnsafeRawBufferPointer, route: UInt64) -> Int? {
        let routingID = self.port.route.bytes
        let hello: Hello
        do throws(WireError) { hello = try unsafe Hello(reading: payload) } catch {
            self.malformed(error)
            self.refuse(ErrorBody(code: .unsupported, message: "\(error)", worker: self.core.name), to: routingID)
            return nil
        }
        if let problem = self.impostor(hello, route: route) {
            self.core.counters.refused.count()
            self.core.logger.warning(
                "somebody who called this worker is no broker of it",
                metadata: [LogKeys.client: "\(PeerText.legible(hello.name))", LogKeys.error: "\(problem)"]
            )
            self.refuse(ErrorBody(code: .forbidden, message: problem, worker: self.core.name), to: routingID)
            return nil
        }
        // The connection to a broker keeps its route when libzmq makes it anew.
        if route >= Self.dialledRoutes { self.observeDials() }
        let dial = self.dials.firstIndex { $0.route == route }
        let isReconnected = dial.map { exchange(&self.dials[$0].isReconnected, with: false) } ?? false
        var access: LinkAccess?
        if route < Self.dialledRoutes { self.observeDials() }
        if let control = self.core.access, route < Self.dialledRoutes {
            access = self.admitted(hello.client, by: control)
            if access == nil { return nil }
        }
        let introduction = self.machine.helloReceived(
            client: hello.client,
            epoch: header.id,
            claimed: header.number,
            name: hello.name,
            route: route,
            isReconnected: isReconnected,
            at: self.now,
            actions: &self.actions
        )
        switch introduction {
        case .forgotten:
            let payload = self.welcomePayload(isResumed: false, to: header.id)
            self.send(payload, as: Header(.welcome, id: self.core.epoch), to: routingID)
            // A broker gives the worker up when it reads this: the worker offers itself anew.
            if route >= Self.dialledRoutes { self.resetReceived(by: route) }
            return nil
        case .refuse(let limit):
            self.core.counters.refused.count()
            let message =
                limit < self.core.configuration.maxClients
                ? "the worker has \(limit) clients, as many as its descriptors allow; raise ulimit -n there or close clients"
                : "the worker has \(limit) clients, its limit; raise maxClients there or close clients"
            self.refuse(
                ErrorBody(code: .busy, message: message, isRetryable: true, worker: self.core.name),
                to: routingID
            )
            return nil
        case .welcome(let session, let isResumed):
            self.stamped(header, session)
            self.machine.givenUp(by: session, afterNanoseconds: hello.silenceNanoseconds)
            self.performActions()
            while self.links.count <= session { self.links.append(nil) }
            // By the same connection nothing was lost; a broker wants to hear of bindings in any case.
            let isRestated = isResumed && (hello.isBroker || self.links[session]?.out.routingID != routingID)
            // Clients that don't say take what this worker allows.
            let own = self.core.configuration.maxPayloadBytes
            let limit = hello.maxPayloadBytes > 0 ? min(hello.maxPayloadBytes, own) : own
            if isResumed, let link = self.links[session] {
                // What was on its way by the old connection is gone or will be asked for again. By the same one, which may be
                // introduced twice, all is still to go out: nobody asks for events again.
                if link.out.routingID != routingID {
                    link.out.forget()
                }
                // What has not left goes by the new connection, but parts that have left are answered by nobody.
                if link.out.routingID != routingID || isReconnected { link.line.reset() }
                link.line.introduced(takesParts: hello.takesParts)
                link.kept.introduced()
                link.out.routingID = routingID
                link.maxPayloadBytes = limit
                self.core.subscribers.goOn(of: hello.client)
            } else {
                let broker = hello.isBroker ? BrokerSide(identity: hello.client, core: self.core) : nil
                let line = PartLine(
                    budget: self.partBudget,
                    tally: hello.isBroker ? nil : self.unsent,
                    session: UInt64(self.machine.sessions[session].number)
                )
                line.reset(takesParts: hello.takesParts)
                self.links[session] = WorkerLink(
                    routingID: routingID,
                    maxPayloadBytes: limit,
                    broker: broker,
                    line: line,
                    kept: AnswerKeep(tally: self.kept),
                    maxUnreadBytes: self.unreadLimit.perClient
                )
            }
            if route < Self.dialledRoutes, let link = self.links[session] {
                let descriptor = self.port.message.sourceDescriptor
                link.introducedBy = self.gate.introduced(by: descriptor, before: link.introducedBy)
            }
            self.links[session]?.access = access
            if access != nil {
                let descriptor = self.port.message.sourceDescriptor
                let isOpen = self.port.monitor == nil || self.connections.contains(descriptor)
                self.links[session]?.out.connection.introduced(by: descriptor, isOpen: isOpen)
            }
            let number = self.machine.sessions[session].number
            let connection = self.machine.sessions[session].connection
            let takesCallers = self.links[session]?.broker?.vouches == true
            let payload = self.welcomePayload(isResumed: isResumed, to: header.id, takesCallers: takesCallers)
            let welcome = Header(.welcome, id: self.core.epoch, time: connection, number: number)
            self.send(payload, as: welcome, to: session)
            self.core.counters.clients.store(self.machine.sessionCount, ordering: .relaxed)
            self.links[session]?.clearance.heard()
            if self.isDrainAnnounced {
                self.send(Header(.goodbye, number: GoodbyeReason.draining.rawValue), to: session)
            }
            if isRestated { self.restateCallbacks(to: session) }
            if hello.isBroker {
                self.brokersChanged()
                if isResumed || self.isQuietToBrokers { self.sendBeat(to: session) }
            }
            // What was asked about has been read or was lost.
            if isResumed { for told in self.links[session]?.questions.takeAll() ?? [] { self.read(told, session) } }
            if let link = self.links[session] { self.forgetUnread(of: link) }
            self.machine.resultsRead(of: session, isLost: true)
            return session
        }
    }

    /// A client says what its clock shows, perhaps.
    func stamped(_ header: Header, _ session: Int) {
        // The frame may have come long after the turn began: read as if it had come then, it would make others seem late.
        if header.time != 0 { self.now = self.core.now() }
        self.machine.stamped(header, from: session, at: self.now)
    }

    func welcomePayload(isResumed: Bool, to epoch: UInt64, takesCallers: Bool = false) -> RequestBytes {
        let configuration = self.core.configuration
        var welcome = Welcome(
            worker: self.core.identity,
            name: configuration.name,
            window: configuration.window,
            beatMilliseconds: Int(configuration.heartbeatInterval.clampedNanoseconds / 1_000_000),
            silenceMilliseconds: Int(configuration.silenceLimit.clampedNanoseconds / 1_000_000),
            maxPayloadBytes: configuration.maxPayloadBytes,
            concurrency: configuration.concurrency,
            isResumed: isResumed
        )
        welcome.takesParts = true
        welcome.answeredEpoch = epoch
        welcome.takesCallers = takesCallers
        var writer = PackWriter(capacity: 192, headerBytes: RequestBytes.headerByteCount)
        // A welcome has no part that could be too large.
        try? welcome.pack(into: &writer)
        return RequestBytes(adopting: writer.finish())
    }

    /// Asks a stranger to introduce itself.
    @available(*, noasync)
    func reset(_ route: UInt64) {
        self.core.counters.resets.count()
        var batch = OutgoingBatch(capacity: Header.byteCount)
        batch.append(Header(.reset))
        self.sendFrame(batch.take(&self.port.frames), to: self.port.route.bytes)
    }

    @available(*, noasync)
    func refuse(_ body: ErrorBody, to routingID: [UInt8]) {
        self.send(body.packed(), as: Header(.refused), to: routingID)
    }

    /// Sends an encoded message by a route that has no session.
    ///
    /// - Returns: False if there is no such route.
    @available(*, noasync)
    @discardableResult
    func send(_ block: RequestBytes, as header: Header, to routingID: [UInt8]) -> Bool {
        var block = block
        defer { block.free() }
        guard let base = unsafe block.base else { return true }
        var header = header
        header.payloadLength = UInt32(block.payloadCount)
        unsafe header.write(to: base)
        let bytes = unsafe UnsafeRawBufferPointer(start: base, count: block.count)
        return self.sendFrame(unsafe Message(copying: bytes), to: routingID)
    }

    /// Sends a frame by a route that needs no session.
    ///
    /// One that can't be delivered is dropped: it asked for nothing.
    ///
    /// - Returns: False if there is no such route.
    @available(*, noasync)
    @discardableResult
    func sendFrame(_ frame: consuming Message, to routingID: [UInt8]) -> Bool {
        switch self.port.sendDirectly(frame, to: routingID) {
        case .sent: return true
        case .full:
            self.core.counters.undeliverable.count()
            return true
        case .gone:
            self.core.counters.undeliverable.count()
            return false
        }
    }

    func define(_ header: Header, _ payload: UnsafeRawBufferPointer, _ session: Int) {
        let limit = WireLimits.standard.maxNameBytes
        let isName = (1...limit).contains(payload.count)
        if !isName { self.malformed(WireError(.tooLarge, "a function's name has 1 to \(limit) bytes")) }
        // Of a name that can't be one the beginning is kept, for the error that its calls end with.
        let name = unsafe String(decoding: payload.prefix(limit), as: UTF8.self)
        let handler = isName ? self.handlerNumber(name) : nil
        let isDefined = self.machine.defined(header.number, name: name, handler: handler, in: session)
        if !isDefined {
            self.malformed(WireError(.tooLarge, "a session may define \(WireLimits.standard.maxFunctions)"))
        }
    }

    func pong(_ nonce: UInt64, _ session: Int) {
        var status = self.core.status
        status.queued += self.machine.heldCount + self.quick.count
        var writer = PackWriter(capacity: 192, headerBytes: RequestBytes.headerByteCount)
        // A status has no part that could be too large.
        try? packValue(status, into: &writer)
        self.send(RequestBytes(adopting: writer.finish()), as: Header(.pong, id: nonce), to: session)
    }
}
