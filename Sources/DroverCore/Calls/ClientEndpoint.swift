// SPDX-License-Identifier: Apache-2.0

package import DequeModule

/// What a client knows of one worker (or broker) it talks to.
package struct ClientEndpoint: Sendable {
    package var session: PeerSession
    /// The worker's epoch, once it has said one.
    package var epoch: UInt64?
    /// How many requests the worker takes at once.
    package var window = 0
    /// Requests given to the worker that have not ended there.
    package var outstanding = 0
    /// A session stands.
    package var isOpen = false
    /// The worker announced that it takes no more requests.
    package var isDraining = false
    /// The worker refused us, and nothing has changed since.
    package var isRefused = false
    /// Calls tied to this endpoint by their ordering key that wait for room.
    package var bound = Deque<UInt64>()

    package init(limits: PeerSession.Limits) {
        self.session = PeerSession(limits: limits)
    }

    /// Whether another request may be sent.
    package var hasRoom: Bool { self.isOpen && !self.isDraining && self.outstanding < self.window }
}
