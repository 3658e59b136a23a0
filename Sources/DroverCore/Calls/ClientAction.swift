// SPDX-License-Identifier: Apache-2.0

package import DroverWire

/// What a client's loop must do.
package enum ClientAction: Equatable, Sendable {
    /// Send the request in `slot`.
    case transmit(slot: UInt32, endpoint: Int, isResent: Bool, isRenewed: Bool = false)
    /// Introduce this client.
    case sendHello(endpoint: Int)
    /// Show a sign of life.
    case sendBeat(endpoint: Int)
    /// Tell the worker that a request is no longer wanted.
    case sendCancel(endpoint: Int, id: UInt64, reason: CancelReason)
    /// The worker dropped a call whose time isn't over: it must not go by earlier stamps.
    case restamp(endpoint: Int)
    /// Tell the worker that a request that it has got is wanted for longer, or less long, than was said with it.
    case sendDeadline(endpoint: Int, id: UInt64, deadline: Instant)
    /// End the handle of a call whose slot is free from now on.
    case finish(slot: UInt32, id: UInt64, ending: CallEnding)
    /// Show how far a call has come.
    case show(slot: UInt32, phase: CallPhase, isStalled: Bool = false, hold: HoldReason = .none, endpoint: Int)
    /// A call that waits here again may have run where it was.
    case mayHaveRun(slot: UInt32)
    /// A session stands; functions must be defined and subscriptions are valid in it.
    case opened(endpoint: Int, isResumed: Bool)
    /// A session is over.
    case lost(endpoint: Int, reason: LossReason)
    /// Close the endpoint's socket and make a new one.
    case rebuild(endpoint: Int)
}
