// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import DroverZMQ
internal import Logging

// Who may do what. A broker without keys does none of this.
//
// ZAP let the connection in, and its key is a property of every message that arrives over it. Sessions belong to keys:
// which key it is and what it may do is looked up when a session is introduced, and again when the allow-list has
// changed. Routes can change hands, because a peer may choose its own; so each frame's key is compared with the
// session's.

extension BrokerLoop {
    /// Whether the current frame arrived over a connection with the session's own key.
    func isFrame(from peer: BrokerPeer) -> Bool {
        let link: PeerLink? =
            switch peer {
            case .client(let client): self.clientLinks[client]
            case .worker(let worker): self.workerLinks[worker]
            }
        return link?.access?.sent(self.port.message) ?? false
    }

    /// Notes who owns a session, and the connection over which it was introduced.
    func introduced(_ link: PeerLink, _ access: LinkAccess?) {
        let descriptor = self.port.message.sourceDescriptor
        link.introducedBy = self.gate.introduced(by: descriptor, before: link.introducedBy)
        link.access = access
        guard access != nil else { return }
        link.out.connection.introduced(
            by: descriptor,
            isOpen: self.port.monitor == nil || self.connections.contains(descriptor)
        )
    }

    /// Notes that a connection was closed: from now on, its route may belong to another peer.
    func connectionClosed(_ descriptor: CInt) {
        guard self.core.access != nil else { return }
        self.connections.closed(descriptor)
        for link in self.clientLinks { link?.out.connection.closed(descriptor) }
        for link in self.workerLinks { link?.out.connection.closed(descriptor) }
    }

    /// Who owns the connection over which a client introduces itself; nil if it was refused.
    @available(*, noasync)
    func admitted(client identity: PeerID, by control: ListenerAccess) -> LinkAccess? {
        guard let access = self.known(by: control, "open a session") else { return nil }
        let owner = self.machine.client(of: identity).flatMap { self.clientLinks[$0]?.access }
        if let owner, owner.key != access.key {
            self.refuse(access.actor, "open a session", "the session of this identity belongs to another key", control)
            return nil
        }
        return access
    }

    /// Who owns the connection over which a worker offers itself; nil if it was refused.
    @available(*, noasync)
    func admitted(_ offer: Offer, by control: ListenerAccess) -> LinkAccess? {
        guard let access = self.known(by: control, "work") else { return nil }
        let owner = self.machine.worker(of: offer.worker).flatMap { self.workerLinks[$0]?.access }
        if let owner, owner.key != access.key {
            self.refuse(access.actor, "work", "the worker of this identity belongs to another key", control)
            return nil
        }
        if let problem = access.grant.problem(offering: offer.functions, in: offer.queues) {
            self.refuse(access.actor, "work", problem, control)
            return nil
        }
        return access
    }

    @available(*, noasync)
    private func known(by control: ListenerAccess, _ action: String) -> LinkAccess? {
        if let access = control.peer(of: self.port.message) { return access }
        let reason =
            "the key was revoked: it isn't on the allow-list any more; have a key allowed with `drover keys allow`"
        self.refuse(control.stranger(of: self.port.message), action, reason, control)
        return nil
    }

    @available(*, noasync)
    private func refuse(_ actor: AuditLog.Actor, _ action: String, _ reason: String, _ control: ListenerAccess) {
        self.core.counters.refused.countAlone()
        control.policy.audit.refused(actor, action, because: reason)
        self.refuse(.forbidden, reason)
    }

    /// Refuses a call that its client may not make.
    ///
    /// - Returns: Whether it was refused.
    func refusedForRights(_ header: Header, _ link: PeerLink, queue: String, _ client: Int) -> Bool {
        let function = self.machine.functionName(header.number, of: client)
        guard let access = link.access, let problem = access.grant.problem(submitting: function, to: queue) else {
            return false
        }
        self.core.audit.refused(access.actor, "submit", because: problem)
        self.refuse(header.id, .forbidden, problem, to: client)
        return true
    }

    /// Tells a worker who is behind a client's requests, unless it knows.
    ///
    /// - Returns: The bits that such a request's number has above the function's: none if the worker doesn't want to
    ///   know, or the caller can't be named.
    func caller(ofClient client: Int, for link: PeerLink) -> UInt32 {
        guard link.takesCallers, client < WireLimits.maxCallers, client < self.clientLinks.count,
            let owner = self.clientLinks[client], let access = owner.access
        else { return 0 }
        let number = UInt32(client + 1)
        let mark = UInt64(self.machine.clients[client].number) << 32 | UInt64(owner.accessChanges)
        if link.toldCallers.mustTell(Int(number), mark: mark) {
            let caller = CallerPayload(principal: access.grant.principal, key: access.key)
            let payload = packed { writer throws(CodecError) in try caller.pack(into: &writer) }
            self.send(Header(.caller, number: number), payload, to: link)
        }
        return number << WireLimits.callerShift
    }

    /// Whether a client may be told what concerns everyone; if not, this refuses the request.
    func mayAsk(
        _ question: Question,
        _ right: AccessRights,
        _ access: LinkAccess,
        _ id: UInt64,
        _ client: Int
    ) -> Bool {
        guard access.grant.rights.contains(right) else {
            let problem =
                "\(access.grant.principal) may not ask for \(question.rawValue): its key's line in the allow-list lacks the "
                + "right \(right)"
            self.core.audit.refused(access.actor, question.rawValue, because: problem)
            self.refuse(id, .forbidden, problem, to: client)
            return false
        }
        if !question.isAct { self.core.audit.asked(access.actor, question.rawValue) }
        return true
    }

    /// Who sent the current frame: identified by its key or, without one, by its connection and the name it gave
    /// itself.
    func actor(_ client: Int, _ link: PeerLink) -> AuditLog.Actor {
        link.access?.actor
            ?? AuditLog.Actor(
                principal: "",
                key: "",
                address: [self.port.message.property("Peer-Address") ?? "", self.machine.clients[client].name]
                    .filter { !$0.isEmpty }.joined(separator: " ")
            )
    }

    /// Checks all sessions against the allow-list when a new one is in force, and cuts off those no longer allowed.
    @available(*, noasync)
    func lookAfterAccess() {
        guard let control = self.core.access else { return }
        let generation = control.policy.generation
        guard generation != self.accessGeneration else { return }
        self.accessGeneration = generation
        self.now = self.core.now()
        for client in self.clientLinks.indices {
            guard let link = self.clientLinks[client], let access = link.access else { continue }
            if let grant = control.policy.grant(of: access.key) {
                guard grant != access.grant else { continue }
                link.access?.grant = grant
                self.machine.changeQuotas(of: .client(client), to: grant.claim, at: self.now)
                self.machine.restrict(client, at: self.now, actions: &self.actions) { function, queue in
                    grant.problem(submitting: function, to: queue) == nil
                }
                self.performActions()
                continue
            }
            control.policy.audit.refused(access.actor, "go on with a session", because: "the key was revoked")
            let message = "the key of \(access.grant.principal) was revoked: it isn't on the allow-list any more"
            self.send(Header(.refused), self.errorPayload(.forbidden, message, false, 0), to: link)
            self.flush()
            self.machine.clientLeft(client, at: self.now, actions: &self.actions)
            self.performActions()
        }
        for worker in self.workerLinks.indices {
            guard let link = self.workerLinks[worker], let access = link.access else { continue }
            let grant = control.policy.grant(of: access.key)
            if let grant {
                link.access?.grant = grant
                self.machine.changeQuotas(of: .worker(worker), to: grant.claim, at: self.now)
            }
            let offer = self.machine.workers[worker].offer
            let problem =
                grant == nil
                ? "the key was revoked" : grant?.problem(offering: offer.functions, in: offer.queues)
            guard let problem else { continue }
            control.policy.audit.refused(access.actor, "go on working", because: problem)
            // The worker offers itself again, and is then told why it is refused.
            self.send(Header(.goodbye, number: GoodbyeReason.leaving.rawValue), to: link)
            self.flush()
            self.machine.goodbyeReceived(from: worker, reason: .leaving, at: self.now, actions: &self.actions)
            self.performActions()
        }
    }
}
