// SPDX-License-Identifier: Apache-2.0

package import DroverWire

extension BrokerMachine {
    /// The client that has a session under this identity.
    package func client(of identity: PeerID) -> Int? { self.clientOf[identity] }

    /// The allow-list says something else of a session's key.
    ///
    /// If it is another tenant's now, nothing changes: that counts from the key's next session on, and the other's quotas are no
    /// concern of the tenant that this session is in.
    package mutating func changeQuotas(of peer: BrokerPeer, to claim: TenantClaim, at now: Instant) {
        let tenant =
            switch peer {
            case .client(let client): self.clients[client].isLive ? self.clients[client].tenant : -1
            case .worker(let worker): self.workers[worker].isLive ? self.workers[worker].tenant : -1
            }
        guard tenant >= 0, self.tenants.name(of: tenant) == claim.name else { return }
        self.tenants.change(tenant, to: claim.quotas, at: now)
    }

    /// The worker that is registered under this identity.
    package func worker(of identity: PeerID) -> Int? { self.workerOf[identity] }
}
