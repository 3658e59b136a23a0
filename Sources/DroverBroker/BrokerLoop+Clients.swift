// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import DroverZMQ
internal import Logging
internal import Synchronization

// What clients send.

extension BrokerLoop {
    @available(*, noasync)
    func welcome(_ incoming: Incoming, route: UInt64) -> BrokerPeer? {
        let hello: Hello
        do throws(WireError) { hello = try unsafe Hello(reading: incoming.payload) } catch {
            self.malformed(error)
            self.refuse(.unsupported, "\(error)")
            return self.machine.peer(route: route)
        }
        self.observeClosings()
        var access: LinkAccess?
        if let control = self.core.access {
            access = self.admitted(client: hello.client, by: control)
            if access == nil { return nil }
        }
        let introduction = self.machine.helloReceived(
            client: hello.client,
            epoch: incoming.header.id,
            claimed: incoming.header.number,
            name: hello.name,
            tenant: access?.grant.claim,
            route: route,
            at: self.now,
            actions: &self.actions
        )
        if case .welcome(let client, _) = introduction {
            self.stamped(incoming.header, client)
            self.machine.givenUp(by: .client(client), afterNanoseconds: hello.silenceNanoseconds)
        }
        self.performActions()
        switch introduction {
        case .forgotten:
            let payload = self.welcomePayload(isResumed: false, to: incoming.header.id)
            self.sendDirectly(Header(.welcome, id: self.core.epoch), payload)
            return nil
        case .refuse(let refusal):
            self.core.counters.refused.countAlone()
            guard refusal.quota != nil else {
                let limit = refusal.limit
                self.refuse(
                    .busy,
                    refusal.isForDescriptors
                        ? self.lackOfDescriptors(limit)
                        : "the broker has \(limit) clients, its limit; raise maxClients there or close clients"
                )
                return nil
            }
            self.refuse(.busy, self.overQuota(refusal, access, action: "open a session"))
            return nil
        case .welcome(let client, let isResumed):
            let own = self.core.configuration.maxPayloadBytes
            let limit = hello.maxPayloadBytes > 0 ? min(hello.maxPayloadBytes, own) : own
            while self.clientLinks.count <= client { self.clientLinks.append(nil) }
            var isMoved = false
            if isResumed, let link = self.clientLinks[client] {
                let isSameRoute = link.out.routingID == self.port.route.bytes
                isMoved = !isSameRoute
                if isSameRoute { link.departures.forget() } else { link.moved(to: self.port.route.bytes) }
                self.resumed(link, isSameRoute: isSameRoute)
                link.kept?.introduced()
                link.maxPayloadBytes = limit
            } else {
                self.clientLinks[client] = PeerLink(
                    routingID: self.port.route.bytes,
                    maxPayloadBytes: limit,
                    line: PartLine(
                        budget: self.partBudget,
                        tally: self.unsent,
                        session: UInt64(self.machine.clients[client].number)
                    ),
                    kept: AnswerKeep(tally: self.kept),
                    client: client
                )
            }
            self.clientLinks[client]?.line.introduced(takesParts: hello.takesParts)
            if let link = self.clientLinks[client] { self.introduced(link, access) }
            let number = self.machine.clients[client].number
            if let link = self.clientLinks[client] {
                let connection = self.machine.clients[client].connection
                let header = Header(.welcome, id: self.core.epoch, time: connection, number: number)
                self.send(header, self.welcomePayload(isResumed: isResumed, to: incoming.header.id), to: link)
                link.clearance.heard()
                if self.machine.isDraining {
                    self.send(Header(.goodbye, number: GoodbyeReason.draining.rawValue), to: link)
                }
            }
            if isMoved { self.restateCallbacks(to: client) }
            return .client(client)
        }
    }

    /// Takes the reading of a client's clock, if the message has one.
    private func stamped(_ header: Header, _ client: Int) {
        // The frame may have arrived long after the turn began. Dated back to that, it would make others seem late.
        if header.time != 0 { self.now = self.core.now() }
        self.machine.stamped(header, from: client, at: self.now)
    }

    private func welcomePayload(isResumed: Bool, to epoch: UInt64) -> [UInt8] {
        let configuration = self.core.configuration
        var welcome = Welcome(
            worker: self.core.identity,
            name: configuration.name,
            window: configuration.window,
            beatMilliseconds: Int(configuration.heartbeatInterval.clampedNanoseconds / 1_000_000),
            silenceMilliseconds: Int(configuration.silenceLimit.clampedNanoseconds / 1_000_000),
            maxPayloadBytes: configuration.maxPayloadBytes,
            concurrency: 1,
            isResumed: isResumed
        )
        welcome.isBroker = true
        welcome.takesParts = true
        welcome.answeredEpoch = epoch
        return packed { writer throws(CodecError) in try welcome.pack(into: &writer) }
    }

    @available(*, noasync)
    func take(_ incoming: Incoming, _ kind: MessageKind, fromClient client: Int) {
        let header = incoming.header
        switch kind {
        case .request:
            if self.machine.isDraining { self.clientLinks[client]?.clearance.heard() }
            self.takeRequest(incoming, client)
        case .define:
            // Check the length before building anything from it.
            guard unsafe incoming.payload.count <= WireLimits.standard.maxNameBytes else {
                self.machine.refusedName(header.number, of: client)
                let limit = WireLimits.standard.maxNameBytes
                return self.malformed(WireError(.tooLarge, "a function's name is longer than \(limit) bytes"))
            }
            let name = unsafe String(decoding: incoming.payload, as: UTF8.self)
            if self.defined(name, as: header.number, by: client) { return }
            // Calls of the function will be answered with the reason why they can't be made.
            if !self.machine.defined(header.number, name: name, by: client) { self.core.counters.refused.countAlone() }
        case .cancel:
            let reason = CancelReason(rawValue: header.number) ?? .requested
            if reason != .recalled {
                self.clientLinks[client]?.line.cancelTheirs(header.id)
                self.dropKept(header.id, client)
            }
            let isHere = self.machine.cancelReceived(
                header.id,
                reason: reason,
                from: client,
                at: self.now,
                actions: &self.actions
            )
            if !isHere, self.mayAnswerItself(client) {
                let stage = CancelledStage.unknown.rawValue
                self.send(Header(.cancelled, id: header.id, number: stage), toClient: client)
            }
        case .deadline:
            // The message may have overtaken the request it concerns, which is still arriving in parts.
            let origin = self.machine.origin(of: client, at: self.now)
            self.clientLinks[client]?.line.moved(header.id, to: Instant(deadlineAfter: header.time, at: origin))
            self.machine.deadlineReceived(
                header.id,
                time: header.time,
                from: client,
                at: self.now,
                actions: &self.actions
            )
        case .beat:
            guard header.id == self.machine.clients[client].epoch else { return self.reset() }
            self.stamped(header, client)
        case .ping: if self.mayAnswerItself(client) { self.pong(header.id, client) }
        case .pong:
            if self.hasRead(client, header.id) || self.keptRead(client, header.id)
                || self.clientLinks[client]?.clearance.answered(header.id) == true
            {
                break
            }
            guard let (worker, id) = self.machine.questionAnswered(header.id, by: client) else { break }
            self.send(Header(.pong, id: id), toWorker: worker)
        case .goodbye: self.machine.clientLeft(client, at: self.now, actions: &self.actions)
        case .reply, .error:
            guard let (worker, id) = self.machine.invocationAnswered(header.id, by: client) else {
                return self.core.counters.unknown.countAlone()
            }
            self.answerInvocation(id, of: worker, incoming)
        case .pending: self.takePending(incoming, client)
        case .ended: self.machine.endedReceived(header.number, from: client, actions: &self.actions)
        case .flow:
            self.machine.flowReceived(header.number, isPaused: header.id == 0, from: client, actions: &self.actions)
        default: self.core.counters.unknown.countAlone()
        }
    }

    @available(*, noasync)
    private func takeRequest(_ incoming: Incoming, _ client: Int) {
        let header = incoming.header
        if self.answered(incoming, of: client) { return }
        self.core.counters.received.countAlone()
        var request = BrokerRequest(id: header.id, number: header.number)
        request.time = header.time
        request.byteCount = unsafe Header.byteCount + incoming.payload.count
        request.isIdempotent = header.flags.contains(.idempotent)
        request.isResent = header.flags.contains(.resent)
        request.isRenewed = header.flags.contains(.renewed)
        request.isBundle = header.contentType == ContentType.chunk.rawValue
        var scoped: [UInt8]?
        if header.flags.contains(.metadata) {
            do throws(WireError) {
                let (metadata, count) = try unsafe RequestMetadata.read(from: incoming.payload)
                if metadata.orderingKey != nil, self.core.access != nil {
                    scoped = unsafe self.scoped(metadata, incoming.payload[count...], client)
                }
                request.key = metadata.orderingKey
                request.priority = metadata.priority
                // It is one item of a chunk whose worker died.
                if metadata.deaths > 0 {
                    request.attempts = UInt8(clamping: metadata.deaths)
                    request.isBundle = false
                }
                if !metadata.queue.isEmpty || !metadata.labels.isEmpty || !metadata.resources.isEmpty {
                    request.demands = Demands(
                        queue: metadata.queue,
                        labels: metadata.labels,
                        resources: metadata.resources
                    )
                }
            } catch {
                self.malformed(error)
                return self.refuse(header.id, .badArguments, "\(error)", to: client)
            }
        }
        if self.core.access != nil, let link = self.clientLinks[client], link.isLimited,
            self.refusedForRights(header, link, queue: request.demands?.queue ?? "", client)
        {
            return
        }
        if request.isResent, self.answerAgain(header.id, client) { return }
        let verdict = self.machine.requestReceived(request, from: client, at: self.now, actions: &self.actions)
        switch verdict {
        case .taken(let slot):
            if let scoped { self.store(scoped, of: header, in: slot) } else { self.store(incoming, in: slot) }
        case .known(let slot): if self.mayAnswerItself(client) { self.tellPhase(of: slot, to: client) }
        case .answerAgain:
            guard self.mayAnswerItself(client), let link = self.clientLinks[client] else { return }
            unsafe self.machine.withResult(header.id, of: client) { unsafe link.out.batch.append(message: $0) }
            self.appended(to: link)
        case .indeterminate:
            let message = "the request was sent again, may have run, and its answer is held no more"
            self.refuse(header.id, .indeterminate, message, to: client)
        case .undefinedFunction:
            let message = "function number \(header.number) was not defined in this session"
            self.refuse(header.id, .unknownFunction, message, to: client)
        case .tooManyFunctions(let own):
            let message =
                "\(self.core.configuration.name) has no room for the function's name: \(self.tenantName(of: client)) uses "
                + "\(own) names here, at most \(WireLimits.standard.maxFunctions) a client of up to "
                + "\(WireLimits.standard.maxNameBytes) bytes each, and all together as many as the broker keeps; use fewer "
                + "names, or close clients"
            let isRetryable = own < WireLimits.standard.maxFunctions
            self.refuse(header.id, .busy, message, to: client, isRetryable: isRetryable, retryAfter: 1000)
        case .tooManyRoutes(let own):
            let message =
                "\(self.tenantName(of: client)) has calls of \(own) combinations of function, queue, labels and resources at "
                + "\(self.core.configuration.name), as many, or of as many bytes, as it keeps for one (the quota routes): "
                + "wait for some of them"
            self.core.counters.overQuota.countAlone()
            self.refuse(header.id, .busy, message, to: client, isRetryable: true, retryAfter: 1000)
        case .overQuota(let refusal):
            let message = self.overQuota(refusal, self.clientLinks[client]?.access, action: "submit")
            let pause = refusal.retryAfterMilliseconds
            self.refuse(header.id, .busy, message, to: client, isRetryable: true, retryAfter: pause)
        case .busy(let milliseconds):
            let message =
                "\(self.core.configuration.name) has as many calls waiting as it takes; try again in \(milliseconds) ms"
            self.refuse(header.id, .busy, message, to: client, isRetryable: true, retryAfter: milliseconds)
        case .tooManyBytes(let own, let milliseconds):
            self.refuseForBytes(header.id, own: own, of: client, retryAfter: milliseconds)
        case .draining:
            let message = "\(self.core.configuration.name) shuts down and takes no more calls; call another broker"
            self.refuse(header.id, .draining, message, to: client, isRetryable: true)
        case .lapsed:
            guard let link = self.clientLinks[client] else { return }
            self.answer(
                Header(.cancelled, id: header.id, number: CancelledStage.lapsed.rawValue),
                [],
                of: client,
                by: link
            )
        case .duplicateID: self.malformed(WireError(.badPayload, "a request with an id that is in use"))
        }
    }

    private func store(_ incoming: Incoming, in slot: UInt32) {
        while self.requests.count <= Int(slot) { self.requests.append(nil) }
        if let box = incoming.box {
            self.requests[Int(slot)] = .large(LargePayload(incoming.header, in: box, at: incoming.range))
        } else {
            self.requests[Int(slot)] = unsafe StoredRequest(incoming.header, payload: incoming.payload)
        }
    }

    /// A request with an ordering key, rewritten to say whose key it is: what its client says about that is ignored.
    private func scoped(_ metadata: RequestMetadata, _ rest: Slice<UnsafeRawBufferPointer>, _ client: Int) -> [UInt8] {
        var metadata = metadata
        metadata.scope = self.machine.tenants.name(of: self.machine.clients[client].tenant)
        return packed { writer throws(CodecError) in try metadata.pack(into: &writer) } + (unsafe Array(rest))
    }

    private func store(_ payload: [UInt8], of header: Header, in slot: UInt32) {
        while self.requests.count <= Int(slot) { self.requests.append(nil) }
        var header = header
        header.payloadLength = UInt32(payload.count)
        if payload.count >= OutgoingBatch.flushBytes {
            let box = MessageBox(Message(copying: payload))
            self.requests[Int(slot)] = .large(LargePayload(header, in: box, at: 0..<payload.count))
        } else {
            self.requests[Int(slot)] = unsafe payload.withUnsafeBytes { unsafe StoredRequest(header, payload: $0) }
        }
    }

    private func pong(_ nonce: UInt64, _ client: Int) {
        self.publishCounts()
        let counts = self.core.status
        var status = WorkerStatus()
        status.worker = counts.broker
        status.running = counts.sent
        status.queued = counts.queued
        status.concurrency = counts.slots
        status.workers = counts.workers
        status.clients = counts.clients
        status.received = counts.received
        status.completed = counts.answered
        status.heldUp = counts.heldUp ?? 0
        status.partsRefused = counts.partsRefused ?? 0
        status.oversizedMessages = counts.oversized ?? 0
        status.abandonedMessages = counts.abandoned ?? 0
        status.forgottenNews = counts.forgottenNews ?? 0
        status.forgottenAnswers = counts.forgottenAnswers ?? 0
        status.isDraining = counts.isDraining
        guard let link = self.clientLinks[client] else { return }
        let payload = packed { writer throws(CodecError) in try status.pack(into: &writer) }
        self.send(Header(.pong, id: nonce), payload, to: link)
    }

    // MARK: Refusals

    /// Describes a quota that a tenant has used up, and records the refusal.
    func overQuota(_ refusal: Refusal, _ access: LinkAccess?, action: String) -> String {
        let quota = refusal.quota?.rawValue ?? ""
        let tenant = access?.grant.claim.name ?? "this client"
        let (has, remedy) =
            switch refusal.quota {
            case .clients: ("has \(refusal.own) clients", "close some of them")
            case .workers: ("has \(refusal.own) workers", "stop some of them")
            case .rate: ("makes more than \(refusal.limit) calls a second", "make them more slowly")
            case .calls: ("has \(refusal.own) calls that have not ended", "wait for some of them")
            case .bytes, .routes, nil: ("has \(refusal.own)", "wait for some of them")
            }
        let message =
            "\(tenant) \(has) at \(self.core.configuration.name), as many as its quota \(quota) allows: \(remedy), or raise "
            + "\(quota)= in its key's line of the allow-list"
        self.core.counters.overQuota.countAlone()
        if let access { self.core.audit.refused(access.actor, action, because: message) }
        return message
    }

    /// Says that there are as many sessions as the descriptors allow; now and then the log says so too.
    func lackOfDescriptors(_ limit: Int) -> String {
        if self.now >= self.nextPlacesWarning {
            self.nextPlacesWarning = self.now.advanced(byNanoseconds: 10_000_000_000)
            self.core.configuration.logger.warning(
                "there are as many sessions as the descriptors allow, and others are refused: raise the limit (ulimit -n)",
                metadata: [LogKeys.count: "\(limit)", LogKeys.descriptors: "\(Descriptors.limit)"]
            )
        }
        return
            "the broker has \(limit) sessions, as many as its descriptors allow; raise ulimit -n there or close clients"
    }

    /// The name, for people, of the tenant that a client's calls count towards.
    func tenantName(of client: Int) -> String {
        let name = self.machine.tenants.name(of: self.machine.clients[client].tenant)
        return name.isEmpty ? "this client" : name
    }

    /// Answers a request with an error.
    func refuse(
        _ id: UInt64,
        _ code: RemoteError.Code,
        _ message: String,
        to client: Int,
        isRetryable: Bool = false,
        retryAfter: UInt32 = 0,
        execution: Execution? = nil
    ) {
        self.core.counters.refused.countAlone()
        guard self.mayAnswerItself(client), let link = self.clientLinks[client] else { return }
        self.answer(
            Header(.error, id: id),
            self.errorPayload(code, message, isRetryable, retryAfter, execution),
            of: client,
            by: link
        )
    }

    /// Refuses the sender of the current frame.
    @available(*, noasync)
    func refuse(_ code: RemoteError.Code, _ message: String) {
        self.sendDirectly(Header(.refused), self.errorPayload(code, message, code == .busy, 0))
    }

    /// Tells a client how far a request that it sent again has come.
    private func tellPhase(of slot: UInt32, to client: Int) {
        let call = self.machine.call(in: slot)
        guard let link = self.clientLinks[client] else { return }
        let number = call.isStalled ? PhaseReport.stalled : call.isUnserved ? PhaseReport.unserved : 0
        let kind = call.state == .sent && call.isStarted ? MessageKind.started : .accepted
        guard call.state == .sent else { return self.send(Header(kind, id: call.id, number: number), toClient: client) }
        let name = self.machine.workers[Int(call.worker)].offer.name
        let payload = packed { writer throws(CodecError) in try writer.pack(name) }
        self.send(Header(kind, id: call.id, number: number), payload, to: link)
    }

    func errorPayload(
        _ code: RemoteError.Code,
        _ message: String,
        _ isRetryable: Bool,
        _ retryAfter: UInt32,
        _ execution: Execution? = nil
    ) -> [UInt8] {
        var error = ErrorPayload()
        error.code = code.name
        error.ran = execution?.wireNumber
        error.message = message
        error.isRetryable = isRetryable
        error.worker = self.core.configuration.name
        error.retryAfterMilliseconds = retryAfter
        return packed { writer throws(CodecError) in try error.pack(into: &writer) }
    }

    /// Asks the sender of the current frame to introduce itself.
    @available(*, noasync)
    func reset() {
        self.core.counters.resets.countAlone()
        self.sendDirectly(Header(.reset), [])
    }
}

/// The packed bytes, or none if they exceed a limit: what a broker itself says is small.
func packed(_ body: (inout PackWriter) throws(CodecError) -> Void) -> [UInt8] {
    var writer = PackWriter(capacity: 256)
    do throws(CodecError) { try body(&writer) } catch { return [] }
    return unsafe writer.withBytes { unsafe [UInt8]($0) }
}
