// SPDX-License-Identifier: Apache-2.0

package import DroverWire

/// What a broker's loop must do.
package enum BrokerAction: Equatable, Sendable {
    /// Send the request in `slot` under `id`.
    case transmit(slot: UInt32, worker: Int, id: UInt64, isResent: Bool)
    /// Give a function its number at a worker, before the next request.
    case define(worker: Int, function: Int)
    /// Introduce the broker to a worker, naming the session to go on with.
    case sendHello(worker: Int, session: UInt32)
    /// Show a client a sign of life.
    case sendClientBeat(client: Int)
    /// Show a worker a sign of life.
    case sendWorkerBeat(worker: Int)
    /// Tell a worker its credit and how much waits that it could take.
    case sendCredit(worker: Int, credit: Int, waiting: Int)
    /// Tell a worker that a request is no longer wanted.
    case sendCancel(worker: Int, id: UInt64, reason: CancelReason)
    /// Ask a worker to give a request back unless it has started.
    case recall(worker: Int, id: UInt64)
    /// The worker dropped a call whose time isn't over: it must not go by earlier stamps.
    case restamp(worker: Int)
    /// Tell a worker that the limit of a request was moved.
    case sendDeadline(worker: Int, id: UInt64, deadline: Instant)
    /// Tell a client that its call waits for slots that handlers hold which wait for calls themselves.
    case tellStalled(client: Int, id: UInt64)
    /// Tell a client whether there is any worker that may run its call, or none yet.
    case tellServed(client: Int, id: UInt64, isServed: Bool)
    /// Tell a client what its call came to; the slot is free.
    ///
    /// If it may have run, the message must be remembered as an answer is, for a request that is sent again.
    case finish(slot: UInt32, client: Int, id: UInt64, ending: BrokerEnding)
    /// Nobody wants the request any more; the slot is free.
    case release(slot: UInt32)
    /// A client is gone.
    case clientLost(client: Int, PeerID)
    /// A worker is gone.
    case workerLost(worker: Int, PeerID, reason: LossReason)
    /// Tell a worker that a subscription that it bound is over.
    case endSubscription(worker: Int, number: UInt32)
    /// Tell a client that a worker has ended its subscription.
    case endClientSubscription(client: Int, subscription: UInt32)
    /// Tell a worker to pause the events of a subscription, or to go on.
    case sendFlow(worker: Int, number: UInt32, isPaused: Bool)
    /// Answer a worker's question whether a client has read what it was sent.
    case answerQuestion(worker: Int, id: UInt64)
    /// Answer a worker's invocation: its subscriber is gone, or it was lost with a connection.
    case failInvocation(worker: Int, id: UInt64, isLost: Bool)
}

/// How a call ends without a worker's answer.
package enum BrokerEnding: Equatable, Sendable {
    case cancelled(CancelledStage)
    /// An operator cancelled it, whether it ran or not.
    case revoked
    /// Its worker, of this name, was lost.
    case lost(LossReason, worker: String)
    /// Its client may not call the function any more, or not in the queue.
    case forbidden(function: String, queue: String)
    /// It may have been running in so many deaths of workers, and was alone in the last, unless it is a bundle.
    case poison(attempts: Int, workers: [String])
    /// Workers would not take it.
    case declined
    /// No worker came that may run it.
    case noWorker
    /// As the other says, and a worker that is lost, or was left, may have started it.
    indirect case afterRun(BrokerEnding)
}

/// What becomes of a request.
package enum BrokerVerdict: Equatable, Sendable {
    /// It is in this slot; an action sent it, or will.
    case taken(slot: UInt32)
    /// It is here already and will be answered.
    case known(slot: UInt32)
    /// It was answered; answer again from the client's results.
    case answerAgain
    /// It may have run, and its answer is held no more.
    case indeterminate
    case undefinedFunction
    /// There is no room for the function's name, of which the tenant has so many.
    case tooManyFunctions(own: Int)
    /// There is no room for another combination of function and demands, of which the tenant has so many.
    case tooManyRoutes(own: Int)
    /// Its tenant has used up a quota.
    case overQuota(Refusal)
    /// Too much waits.
    case busy(retryAfterMilliseconds: UInt32)
    /// The requests that are kept take as many bytes as they may, of which the tenant has so many.
    case tooManyBytes(own: Int, retryAfterMilliseconds: UInt32)
    case draining
    case lapsed
    /// An id that is in use.
    case duplicateID
}

/// Where a message about a call goes on to.
package struct BrokerAddressee: Equatable, Sendable {
    package var slot: UInt32
    /// The client, or nil if it is gone.
    package var client: Int?
    /// The client's correlation id.
    package var id: UInt64
}
