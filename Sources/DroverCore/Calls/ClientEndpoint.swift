// SPDX-License-Identifier: Apache-2.0

package import DequeModule
package import DroverWire

/// What a client knows of one worker (or broker) it talks to.
package struct ClientEndpoint: Sendable {
    package var session: PeerSession
    /// The worker's epoch, once it has said one.
    package var epoch: UInt64?
    /// The worker's number of the session, which tells a session that goes on from a new one with the same worker.
    package var sessionNumber: UInt32 = 0
    /// How often the worker was given up.
    ///
    /// Who gave a session up begins another one, whatever the other side thinks.
    package var losses: UInt64 = 0
    /// How many requests the worker takes at once.
    package var window = 0
    /// Requests given to the worker that have not ended there.
    package var outstanding = 0
    /// Those of them that have ended here: the worker has been asked to drop them, and has not said what became of them.
    package var withdrawn: [UInt64: CancelReason] = [:]
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

    /// The session that this side wants to go on with when it introduces itself; 0 for none.
    package var claimedSession: UInt32 { self.epoch == nil ? 0 : self.sessionNumber }

    /// Whether another request may be sent.
    package var hasRoom: Bool { self.isOpen && !self.isDraining && self.outstanding < self.window }

    /// Whether a call that comes now may be sent: none that came before waits for the same room.
    package var isFree: Bool { self.hasRoom && self.bound.isEmpty }
}
