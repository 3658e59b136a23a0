// SPDX-License-Identifier: Apache-2.0

package import DroverWire

extension BrokerMachine {
    /// The client that has a session under this identity.
    package func client(of identity: PeerID) -> Int? { self.clientOf[identity] }

    /// The allow-list has changed for a session's key.
    ///
    /// If the key belongs to another tenant now, nothing changes: that takes effect with the key's next session, and
    /// the other tenant's quotas don't concern the tenant of this session.
    package mutating func changeQuotas(of peer: BrokerPeer, to claim: TenantClaim, at now: Instant) {
        let tenant =
            switch peer {
            case .client(let client): self.clients[client].isLive ? self.clients[client].tenant : -1
            case .worker(let worker): self.workers[worker].isLive ? self.workers[worker].tenant : -1
            }
        guard tenant >= 0, self.tenants.name(of: tenant) == claim.name else { return }
        self.tenants.change(tenant, to: claim.quotas, at: now)
    }

    /// Why a tenant may not have one more session, of a client or a worker; nil if it may.
    ///
    /// Without keys the tenant is -1.
    func refusal(ofSessionFor tenant: Int) -> Refusal? {
        let (count, places) = (self.clientOf.count + self.workerOf.count, self.configuration.places)
        guard count >= places.count else { return nil }
        if tenant >= 0, self.tenants[tenant].isNamed, count < places.count + places.spare {
            let own = self.tenants[used: tenant].clients + self.tenants[used: tenant].workers
            if own < self.tenants.share(of: places.count) { return nil }
        }
        var refusal = Refusal(nil, own: 0, limit: places.count)
        refusal.isForDescriptors = true
        return refusal
    }

    /// The worker that is registered under this identity.
    package func worker(of identity: PeerID) -> Int? { self.workerOf[identity] }
}
