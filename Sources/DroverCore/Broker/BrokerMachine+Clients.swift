// SPDX-License-Identifier: Apache-2.0

package import DroverWire

extension BrokerMachine {
    /// How the broker responds to a client's introduction.
    package enum ClientIntroduction: Equatable, Sendable {
        case welcome(session: Int, isResumed: Bool)
        /// The client wants to resume a session that the broker doesn't know.
        case forgotten
        case refuse(Refusal)
    }

    /// A client introduced itself; `claimed` is the session that it wants to resume.
    package mutating func helloReceived(
        client: PeerID,
        epoch: UInt64,
        claimed: UInt32 = 0,
        name: String = "",
        tenant claim: TenantClaim? = nil,
        route: UInt64,
        at now: Instant,
        actions: inout [BrokerAction]
    ) -> ClientIntroduction {
        if let index = self.clientOf[client], self.clients[index].epoch == epoch {
            guard claimed == 0 || claimed == self.clients[index].number else { return .forgotten }
            let former = self.clients[index].route
            if former != route {
                self.loseWhoever(at: route, at: now, actions: &actions)
                self.peerOf[former] = nil
                self.peerOf[route] = .client(index)
                self.clients[index].route = route
                self.clients[index].connection &+= 1
            }
            self.clients[index].session.established(at: now)
            self.watchClient(index)
            self.answerQuestions(to: index, actions: &actions)
            return .welcome(session: index, isResumed: true)
        }
        guard claimed == 0 else { return .forgotten }
        if let index = self.clientOf[client] { self.loseClient(index, at: now, actions: &actions) }
        self.loseWhoever(at: route, at: now, actions: &actions)
        self.sweepTenants(at: now)
        let tenant = self.tenants.place(of: claim, virtualTime: self.virtualTime, at: now)
        if let refusal = self.tenants.refusal(ofClientFor: tenant) ?? self.refusal(ofSessionFor: tenant) {
            self.tenants.refused(tenant)
            self.tenants.letGo(tenant)
            return .refuse(refusal)
        }
        self.tenants.add(1, \.clients, of: tenant)
        self.sessionNumber &+= 1
        var session = PeerSession(limits: self.configuration.session)
        session.established(at: now)
        let record = BrokerClient(
            number: self.sessionNumber,
            client: client,
            epoch: epoch,
            name: name,
            tenant: tenant,
            route: route,
            session: session,
            requests: RequestIndex(seed: self.configuration.seed),
            results: ResultCache(maxBytes: self.configuration.maxCachedBytes),
            pass: self.tenants[tenant].virtualTime
        )
        let index = self.freeClients.popLast() ?? self.clients.count
        if index == self.clients.count { self.clients.append(record) } else { self.clients[index] = record }
        self.clientOf[client] = index
        self.peerOf[route] = .client(index)
        self.watchClient(index)
        return .welcome(session: index, isResumed: false)
    }

    /// A peer said after how much silence it gives up the broker; 0 if it didn't say.
    package mutating func givenUp(by peer: BrokerPeer, afterNanoseconds silence: UInt64) {
        switch peer {
        case .client(let index):
            self.clients[index].session.givenUp(afterNanoseconds: silence)
            self.watchClient(index)
        case .worker(let index):
            guard self.workers[index].isLive else { return }
            self.workers[index].session.givenUp(afterNanoseconds: silence)
            self.watchWorker(index)
        }
    }

    /// A client said, in a HELLO or a BEAT, what its clock shows; `now` is when the message was read, not earlier.
    package mutating func stamped(_ header: Header, from client: Int, at now: Instant) {
        self.clients[client].transit.received(header, at: now)
    }

    /// The instant that the times of a client's requests count from.
    package func origin(of client: Int, at now: Instant) -> Instant { self.clients[client].transit.origin(at: now) }

    /// A client left, or its route turned out to be dead.
    package mutating func clientLeft(_ client: Int, at now: Instant, actions: inout [BrokerAction]) {
        self.loseClient(client, at: now, actions: &actions)
    }

    /// A peer sent something; called once per received frame.
    package mutating func heard(from peer: BrokerPeer, at now: Instant) {
        switch peer {
        case .client(let index): self.clients[index].session.heard(at: now)
        case .worker(let index): self.workers[index].session.heard(at: now)
        }
    }

    /// Something was sent to a peer; called once per sent frame.
    package mutating func sent(to peer: BrokerPeer, at now: Instant) {
        switch peer {
        case .client(let index): self.clients[index].session.sent(at: now)
        case .worker(let index): self.workers[index].session.sent(at: now)
        }
    }

    mutating func watchClient(_ index: Int) {
        self.peerWheel.schedule(UInt32(2 * index), at: self.clients[index].session.nextDeadline)
    }

    /// Drops the peer that used a connection before, now that another peer uses it.
    mutating func loseWhoever(at route: UInt64, at now: Instant, actions: inout [BrokerAction]) {
        switch self.peerOf[route] {
        case .client(let other): self.loseClient(other, at: now, actions: &actions)
        case .worker(let other): self.loseWorker(other, reason: .left, at: now, actions: &actions)
        case nil: break
        }
    }

    mutating func loseClient(_ index: Int, at now: Instant, actions: inout [BrokerAction]) {
        guard self.clients[index].isLive else { return }
        self.clients[index].isLive = false
        self.clientOf[self.clients[index].client] = nil
        self.peerOf[self.clients[index].route] = nil
        self.peerWheel.cancel(UInt32(2 * index))
        self.heldUp.removeAll { $0 == index }
        let waiting = self.waitingCalls(of: index)
        for worker in self.workers.indices where self.workers[worker].isLive {
            for slot in self.calls.slots(of: self.workers[worker].calls) where self.calls[slot].client == Int32(index) {
                if !self.calls[slot].isCancelled { self.cancelAtWorker(slot, reason: .requested, actions: &actions) }
                self.clients[index].requests.remove(self.calls[slot].id)
                self.calls[slot].isCancelled = true
                self.calls[slot].client = -1
            }
        }
        for slot in waiting {
            self.takeOut(slot)
            actions.append(.release(slot: slot))
            self.retire(slot, at: now, actions: &actions)
        }
        for flow in self.clients[index].flows.values { self.flows[flow].client = -1 }
        self.clients[index].flows = [:]
        self.clients[index].lastFlow = (-1, -1)
        for function in self.clients[index].functions where function >= 0 { self.leave(function) }
        self.clients[index].functions = []
        self.tenants.add(-self.clients[index].functionCount, \.names, of: self.clients[index].tenant)
        self.clients[index].functionCount = 0
        self.clients[index].refusedNames = [:]
        self.endSubscriptions(of: index, actions: &actions)
        self.answerQuestions(to: index, actions: &actions)
        self.clients[index].requests.clear()
        self.grownBytes -= self.clients[index].results.grownBytes
        self.clients[index].results = ResultCache(maxBytes: 0)
        self.freeClients.append(index)
        self.tenants.add(-1, \.clients, of: self.clients[index].tenant)
        actions.append(.clientLost(client: index, self.clients[index].client))
        self.placeApart(at: now, actions: &actions)
    }

    /// A client's calls that no worker has.
    ///
    /// Those behind an ordering key come first: the key must not pass to a call that is removed as well.
    func waitingCalls(of client: Int) -> [UInt32] {
        // Don't go through the keys: other clients may have very many.
        var waiting = self.clients[client].requests.slots.filter { self.calls[$0].state == .held }.sorted()
        waiting += self.calls.slots(of: self.apart).filter { self.calls[$0].client == Int32(client) }
        for flow in self.clients[client].flows.values.sorted() {
            waiting += self.calls.slots(of: self.flows[flow].calls)
        }
        return waiting
    }
}
