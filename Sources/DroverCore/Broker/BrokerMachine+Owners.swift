// SPDX-License-Identifier: Apache-2.0

package import DroverWire

extension BrokerMachine {
    /// The client that has a session under this identity.
    package func client(of identity: PeerID) -> Int? { self.clientOf[identity] }

    /// The worker that is registered under this identity.
    package func worker(of identity: PeerID) -> Int? { self.workerOf[identity] }
}
