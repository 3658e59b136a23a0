// SPDX-License-Identifier: Apache-2.0

package import DroverWire

/// What a worker's loop must do.
package enum WorkerAction: Equatable, Sendable {
    /// A held request may run now.
    case run(slot: UInt32, handler: Int32)
    /// Cancel a request that was given to the handler threads.
    case stop(slot: UInt32)
    /// A request's handler has reached its soft limit: ask it to stop.
    case interrupt(slot: UInt32)
    /// A request's handler has reached its hard limit: ask it to stop, and tell the client, if it isn't gone.
    ///
    /// The slot stays taken until the handler ends.
    case abandon(slot: UInt32, session: Int?, id: UInt64)
    /// A request's handler keeps running although it was asked to stop and its grace period is over: tell the client,
    /// if it isn't gone.
    ///
    /// The request is kept until the handler ends.
    case giveUp(slot: UInt32, session: Int?, id: UInt64)
    /// A held request lapsed and is gone: tell its client.
    case lapsed(slot: UInt32, session: Int, id: UInt64)
    /// A held request is gone because its client may no longer make it: tell the client.
    case forbidden(slot: UInt32, session: Int, id: UInt64, handler: Int32, queue: String)
    /// The client of a request may no longer make it: end the request, unless its handler has begun.
    case withdraw(slot: UInt32, queue: String)
    /// A held request is gone with its client.
    case dropped(slot: UInt32)
    /// Tell a client that its request waits or runs.
    case report(slot: UInt32, session: Int, id: UInt64)
    /// Send a heartbeat.
    case sendBeat(session: Int)
    /// A client is gone: its subscriptions are too.
    case sessionLost(session: Int, client: PeerID)
}
