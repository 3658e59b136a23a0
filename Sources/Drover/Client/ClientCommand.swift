// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverWire
internal import DroverZMQ

/// Something a thread asks of the poller, other than to send a call.
final class ClientCommand: MailboxNode {
    enum Kind: Sendable {
        /// The handle ended on the caller's side.
        case abandon(AnyAsyncResult, CancelReason)
        case deadlineMoved(AnyAsyncResult)
        /// A subscription is over: notify the workers.
        case unsubscribe(SubscriptionID)
        /// A subscription's queue has room again: tell the workers, unless they were asked for another pause since.
        case resume(SubscriptionID)
        /// The answer of a callback that a worker called.
        case answer(Subscription.Invocation, RequestBytes, isError: Bool)
        /// Cancels the calls with ids up to this one: later ones may have been submitted before the command is read.
        case cancelAll(upTo: UInt64)
        /// An endpoint's name was looked up.
        case lookedUp(endpoint: Int, lookUp: Int, NameResolver.Answer)
    }

    let kind: Kind
    let mailboxLink = MailboxLink()

    init(_ kind: Kind) { self.kind = kind }
}
