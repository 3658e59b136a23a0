// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverWire
internal import DroverZMQ

// Who may call a worker that listens with keys. Brokers that it dials have proved theirs by the connection itself.

extension WorkerLoop {
    /// Whether the frame at hand came by a connection of the session's own key; see the broker's loop.
    func isFrame(from session: Int, route: UInt64) -> Bool {
        route >= Self.dialledRoutes || self.links[session]?.access?.sent(self.message) ?? false
    }

    /// Whether the frame at hand, which came by a route of a dialled broker, came by the connection that was dialled.
    ///
    /// Nobody can guess such a route's id. But the key that ZAP found on a connection says besides that it was accepted.
    func isFromDialled() -> Bool { self.core.access == nil || self.message.property("User-Id") == nil }

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
        for link in self.links { link?.connection.closed(descriptor) }
    }

    /// Whose the connection is by which a client introduces itself; nil if it was refused.
    @available(*, noasync)
    func admitted(_ identity: PeerID, by control: ListenerAccess) -> LinkAccess? {
        guard let access = control.peer(of: self.message) else {
            return self.refuse(
                control.stranger(of: self.message),
                "the key was revoked: it isn't on the allow-list any more; have a key allowed with `drover keys allow`",
                control
            )
        }
        let owner = self.machine.session(of: identity).flatMap { $0 < self.links.count ? self.links[$0] : nil }
        if let owner, owner.access?.key != access.key {
            return self.refuse(access.actor, "the session of this identity belongs to another key", control)
        }
        if let problem = access.problem(submittingTo: nil) { return self.refuse(access.actor, problem, control) }
        return access
    }

    /// Why a call for a queue may not be made in a session; nil if it may.
    ///
    /// A worker that is called directly runs all that it serves. But what a key may not ask for through a broker it may not ask for
    /// here either.
    func problem(submittingTo queue: String, _ session: Int) -> String? {
        guard let access = self.links[session]?.access, !access.mayCallAnything, let control = self.core.access,
            let problem = access.problem(submittingTo: queue)
        else { return nil }
        control.policy.audit.refused(access.actor, "submit", because: problem)
        return problem
    }

    @available(*, noasync)
    private func refuse(_ actor: AuditLog.Actor, _ reason: String, _ control: ListenerAccess) -> LinkAccess? {
        self.core.counters.refused.count()
        control.policy.audit.refused(actor, "open a session", because: reason)
        self.refuse(ErrorBody(code: .forbidden, message: reason, worker: self.core.name), to: self.route.bytes)
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
                : link.access?.problem(submittingTo: nil)
            guard let problem else { continue }
            control.policy.audit.refused(access.actor, "go on with a session", because: problem)
            self.refuse(ErrorBody(code: .forbidden, message: problem, worker: self.core.name), to: link.routingID)
            self.machine.goodbyeReceived(from: session, at: self.now, actions: &self.actions)
            self.performActions()
        }
    }
}
