// SPDX-License-Identifier: Apache-2.0

package import DroverWire

/// What a client's loop must do.
package enum ClientAction: Equatable, Sendable {
    /// Send the request in `slot`.
    case transmit(slot: UInt32, endpoint: Int, isResent: Bool, isRenewed: Bool = false)
    /// Introduce this client.
    case sendHello(endpoint: Int)
    /// Send a heartbeat.
    case sendBeat(endpoint: Int)
    /// Tell the worker that a request is no longer wanted.
    case sendCancel(endpoint: Int, id: UInt64, reason: CancelReason)
    /// Give the worker a new stamp: it dropped a call whose deadline hasn't passed, so it must not go by earlier ones.
    case restamp(endpoint: Int)
    /// Tell the worker that the deadline of a request it has was moved.
    case sendDeadline(endpoint: Int, id: UInt64, deadline: Instant)
    /// End the handle of a call whose slot is free from now on.
    case finish(slot: UInt32, id: UInt64, ending: CallEnding)
    /// Report how far a call has come.
    case show(slot: UInt32, phase: CallPhase, isStalled: Bool = false, hold: HoldReason = .none, endpoint: Int)
    /// Note that a call that waits here again may have run where it was.
    case mayHaveRun(slot: UInt32)
    /// A session is open; functions must be defined in it, and subscriptions are valid.
    case opened(endpoint: Int, isResumed: Bool)
    /// A session is over.
    case lost(endpoint: Int, reason: LossReason)
    /// Close the endpoint's socket and make a new one.
    case rebuild(endpoint: Int)
}
