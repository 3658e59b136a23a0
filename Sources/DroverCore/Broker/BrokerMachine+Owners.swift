// SPDX-License-Identifier: Apache-2.0

package import DroverWire

extension BrokerMachine {
    /// The client that has a session under this identity.
    package func client(of identity: PeerID) -> Int? { self.clientOf[identity] }

    /// What the allow-list says of a session's tenant has changed.
    package mutating func changeQuotas(of peer: BrokerPeer, to quotas: Quotas, at now: Instant) {
        let tenant =
            switch peer {
            case .client(let client): self.clients[client].isLive ? self.clients[client].tenant : -1
            case .worker(let worker): self.workers[worker].isLive ? self.workers[worker].tenant : -1
            }
        if tenant >= 0 { self.tenants.change(tenant, to: quotas, at: now) }
    }

    /// The worker that is registered under this identity.
    package func worker(of identity: PeerID) -> Int? { self.workerOf[identity] }
}
