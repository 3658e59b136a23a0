// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import DroverZMQ

// Who may call a worker that listens with keys. Brokers that it dials have proved theirs by the connection itself.

extension WorkerLoop {
    /// Whether the frame at hand came by a connection of the session's own key; see the broker's loop.
    func isFrame(from session: Int, route: UInt64) -> Bool {
        route >= Self.dialledRoutes || self.links[session]?.access?.sent(self.port.message) ?? false
    }

    /// Whether the frame at hand, which came by a route of a dialled broker, came by the connection that was dialled.
    ///
    /// Nobody can guess such a route's id. But the key that ZAP found on a connection says besides that it was accepted.
    func isFromDialled() -> Bool { self.core.access == nil || self.port.message.property("User-Id") == nil }

    /// Why somebody may not introduce itself as it does; nil if it may.
    ///
    /// Orders, credit and bindings are a broker's. One is known by the connection that this worker dialled, never by what it
    /// says, nor by an identity, which isn't secret.
    func impostor(_ hello: Hello, route: UInt64) -> String? {
        guard route < Self.dialledRoutes else { return nil }
        if hello.isBroker {
            return "a worker takes for brokers only those that it dials: name the broker where the worker is started"
        }
        guard let session = self.machine.session(of: hello.client), session < self.links.count,
            self.links[session]?.broker != nil
        else { return nil }
        return "the session of this identity belongs to a broker"
    }

    /// A connection was closed: what has its route from now on may be somebody else's.
    func connectionClosed(_ descriptor: CInt) {
        self.connections.closed(descriptor)
        guard self.core.access != nil else { return }
        for link in self.links { link?.out.connection.closed(descriptor) }
    }

    /// Whose the connection is by which a client introduces itself; nil if it was refused.
    @available(*, noasync)
    func admitted(_ identity: PeerID, by control: ListenerAccess) -> LinkAccess? {
        guard let access = control.peer(of: self.port.message) else {
            return self.refuse(
                control.stranger(of: self.port.message),
                "the key was revoked: it isn't on the allow-list any more; have a key allowed with `drover keys allow`",
                control
            )
        }
        let owner = self.machine.session(of: identity).flatMap { $0 < self.links.count ? self.links[$0] : nil }
        if let owner, owner.access?.key != access.key {
            return self.refuse(access.actor, "the session of this identity belongs to another key", control)
        }
        if let problem = access.grant.problemSubmitting { return self.refuse(access.actor, problem, control) }
        if owner == nil, let problem = self.problem(openingFor: access) {
            return self.refuse(access.actor, problem, control, code: .busy)
        }
        return access
    }

    /// Why a tenant may not have one more client here; nil if it may.
    ///
    /// One key must not take all places of a worker that is called directly.
    func problem(openingFor access: LinkAccess) -> String? {
        let (most, claim) = (self.places, access.grant.claim)
        let quota = claim.quotas.clients ?? (most < 64 ? most : most / 2)
        let own = self.links.count { $0?.access?.grant.claim.name == claim.name }
        guard own >= quota else { return nil }
        return
            "\(claim.name) has \(own) clients here, as many as its quota clients allows: close some of them, or raise "
            + "clients= in its key's line of the allow-list"
    }

    /// Why a call may not be made in a session; nil if it may.
    ///
    /// A worker that is called directly runs all that it serves, whatever the queue. But what a key may not ask for through a broker
    /// it may not ask for here either.
    func problem(submitting number: UInt32, to queue: String, _ session: Int) -> String? {
        guard let access = self.links[session]?.access, !access.grant.mayCallAnything else { return nil }
        let handler = self.machine.handler(number, in: session)
        let name =
            handler >= 0 ? self.handlers[Int(handler)].name : self.machine.sessions[session].unknownNames[number]
        return self.noted(access.grant.problem(submitting: name, to: queue), access)
    }

    /// Writes down that a call may not be made.
    private func noted(_ problem: String?, _ access: LinkAccess) -> String? {
        if let problem { self.core.access?.policy.audit.refused(access.actor, "submit", because: problem) }
        return problem
    }

    /// The functions that are named to a client that asks for one which isn't there: not those that it may not call.
    func functionsToName(_ session: Int) -> some Sequence<String> {
        let grant = self.links[session]?.access?.grant
        return self.handlers.lazy.map { $0.name }.filter { grant?.includes(function: $0) ?? true }
    }

    /// What a request ends with that its client may not make any more; nil if it may.
    func forbidden(_ handler: Int32, _ queue: String, _ session: Int) -> ErrorBody? {
        guard let access = self.links[session]?.access else { return nil }
        let name = self.handlers[Int(handler)].name
        guard let problem = self.noted(access.grant.problem(submitting: name, to: queue), access) else { return nil }
        return ErrorBody(code: .forbidden, message: problem, worker: self.core.name)
    }

    /// Ends a request that its client may not make any more, unless its handler has begun.
    func withdraw(_ slot: UInt32, _ queue: String) {
        guard let request = self.machine.request(in: slot), request.session >= 0,
            Int(slot) < self.jobs.count, let job = self.jobs[Int(slot)],
            let body = self.forbidden(request.handler, queue, Int(request.session)),
            job.cancelBeforeStart(because: .requested)
        else { return }
        self.core.threads.withdraw(job)
        self.finished(job, .error(body))
    }

    /// Whose ordering keys a request's are: a broker says it, of a client its key tells.
    func scope(saidBy metadata: RequestMetadata, _ session: Int) -> String {
        guard let link = self.links[session] else { return "" }
        return link.broker != nil ? metadata.scope : link.access?.grant.claim.name ?? ""
    }

    @available(*, noasync)
    private func refuse(
        _ actor: AuditLog.Actor,
        _ reason: String,
        _ control: ListenerAccess,
        code: RemoteError.Code = .forbidden
    ) -> LinkAccess? {
        self.core.counters.refused.count()
        control.policy.audit.refused(actor, "open a session", because: reason)
        let isRetryable = code == .busy
        self.refuse(
            ErrorBody(code: code, message: reason, isRetryable: isRetryable, worker: self.core.name),
            to: self.port.route.bytes
        )
        return nil
    }

    /// When another allow-list is in force, all sessions are held against it; who may not call any more is cut off.
    @available(*, noasync)
    func lookAfterAccess() {
        guard let control = self.core.access else { return }
        let generation = control.policy.generation
        guard generation != self.accessGeneration else { return }
        self.accessGeneration = generation
        self.now = self.core.now()
        for session in self.links.indices {
            guard let link = self.links[session], let access = link.access else { continue }
            let grant = control.policy.grant(of: access.key)
            if let grant { link.access?.grant = grant }
            let problem =
                grant == nil
                ? "the key of \(access.grant.principal) was revoked: it isn't on the allow-list any more"
                : grant?.problemSubmitting
            guard let problem else {
                if let grant, grant != access.grant { self.restrict(session, to: grant) }
                continue
            }
            control.policy.audit.refused(access.actor, "go on with a session", because: problem)
            self.refuse(ErrorBody(code: .forbidden, message: problem, worker: self.core.name), to: link.out.routingID)
            self.machine.goodbyeReceived(from: session, at: self.now, actions: &self.actions)
            self.performActions()
        }
    }

    /// A key has other rights than before: what waits and may not be called any more ends.
    @available(*, noasync)
    private func restrict(_ session: Int, to grant: AccessGrant) {
        let names = self.handlers.map { $0.name }
        self.machine.restrict(session, actions: &self.actions) { handler, queue in
            grant.problem(submitting: names[Int(handler)], to: queue) == nil
        }
        self.performActions()
    }
}
