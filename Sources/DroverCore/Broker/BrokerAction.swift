// SPDX-License-Identifier: Apache-2.0

package import DroverWire

/// What a broker's loop must do.
package enum BrokerAction: Equatable, Sendable {
    /// Send the request in `slot` under `id`.
    case transmit(slot: UInt32, worker: Int, id: UInt64, isResent: Bool)
    /// Give a function its number at a worker, before the next request.
    case define(worker: Int, function: Int)
    /// Introduce the broker to a worker, naming the session to resume.
    case sendHello(worker: Int, session: UInt32)
    /// Send a client a heartbeat.
    case sendClientBeat(client: Int)
    /// Send a worker a heartbeat.
    case sendWorkerBeat(worker: Int)
    /// Tell a worker its credit, and how many waiting calls it could take.
    case sendCredit(worker: Int, credit: Int, waiting: Int)
    /// Tell a worker that a request is no longer wanted.
    case sendCancel(worker: Int, id: UInt64, reason: CancelReason)
    /// Ask a worker to give a request back unless it has started.
    case recall(worker: Int, id: UInt64)
    /// Give a worker a new stamp: it dropped a call whose deadline hasn't passed, so it must not go by earlier ones.
    case restamp(worker: Int)
    /// Tell a worker that a request's deadline was moved.
    case sendDeadline(worker: Int, id: UInt64, deadline: Instant)
    /// Tell a client that its call waits for slots held by handlers that wait for calls themselves.
    case tellStalled(client: Int, id: UInt64)
    /// Tell a client whether any worker may run its call yet.
    case tellServed(client: Int, id: UInt64, isServed: Bool)
    /// Tell a client how its call ended; the slot is free.
    ///
    /// If the call may have run, the message must be kept like an answer, in case the request is sent again.
    case finish(slot: UInt32, client: Int, id: UInt64, ending: BrokerEnding)
    /// The request is no longer wanted; the slot is free.
    case release(slot: UInt32)
    /// A client is gone.
    case clientLost(client: Int, PeerID)
    /// A worker is gone.
    case workerLost(worker: Int, PeerID, reason: LossReason)
    /// Tell a worker that a subscription it bound is over.
    case endSubscription(worker: Int, number: UInt32)
    /// Tell a client that a worker has ended its subscription.
    case endClientSubscription(client: Int, subscription: UInt32)
    /// Tell a worker to pause the events of a subscription, or to resume them.
    case sendFlow(worker: Int, number: UInt32, isPaused: Bool)
    /// Answer a worker's question whether a client has read what it was sent.
    case answerQuestion(worker: Int, id: UInt64)
    /// Fail a worker's invocation: its subscriber is gone, or it was lost with a connection.
    case failInvocation(worker: Int, id: UInt64, isLost: Bool)
}

/// How a call ends without a worker's answer.
package enum BrokerEnding: Equatable, Sendable {
    case cancelled(CancelledStage)
    /// An operator cancelled it, whether it ran or not.
    case revoked
    /// Its worker, of this name, was lost.
    case lost(LossReason, worker: String)
    /// Its client may no longer call the function, or not in this queue.
    case forbidden(function: String, queue: String)
    /// It may have been running during this many worker deaths, and was alone in the last, unless it is a bundle.
    case poison(attempts: Int, workers: [String])
    /// Workers would not take it.
    case declined
    /// No worker that may run it appeared.
    case noWorker
    /// It ended as the inner ending says, but a worker that was lost, or from which it was taken back, may have started
    /// it.
    indirect case afterRun(BrokerEnding)
}

/// What the broker does with a request.
package enum BrokerVerdict: Equatable, Sendable {
    /// It is in this slot; an action has sent it, or will.
    case taken(slot: UInt32)
    /// It is here already and will be answered.
    case known(slot: UInt32)
    /// It has been answered; answer again from the client's results.
    case answerAgain
    /// It may have run, and its answer is no longer kept.
    case indeterminate
    case undefinedFunction
    /// There is no room for the function's name; the tenant has `own` names.
    case tooManyFunctions(own: Int)
    /// There is no room for another combination of function and demands; the tenant has `own` of them.
    case tooManyRoutes(own: Int)
    /// Its tenant has used up a quota.
    case overQuota(Refusal)
    /// Too many calls wait.
    case busy(retryAfterMilliseconds: UInt32)
    /// The kept requests take as many bytes as they may; the tenant's take `own`.
    case tooManyBytes(own: Int, retryAfterMilliseconds: UInt32)
    case draining
    case lapsed
    /// Its id is in use.
    case duplicateID
}

/// Where a message about a call is forwarded to.
package struct BrokerAddressee: Equatable, Sendable {
    package var slot: UInt32
    /// The client, or nil if it is gone.
    package var client: Int?
    /// The client's correlation id.
    package var id: UInt64
}
