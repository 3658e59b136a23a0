// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import DroverWire
internal import Synchronization

/// The callbacks of a client that workers can reach.
final class SubscriptionTable: Sendable {
    /// Why a callback has ended.
    enum Cause: Sendable {
        /// The client's program cancelled it.
        case cancelled
        /// The calls that it was passed to have ended.
        case callsEnded
        /// More of its events waited than it may keep, and its policy is to end then.
        case overflowed
        /// A worker gave it up.
        case givenUp

        /// The cause, and what to do instead, in words.
        var words: String {
            switch self {
            case .cancelled: "it was cancelled; make a new one"
            case .callsEnded:
                "the calls that it was passed to have ended; make a new one for each call, or one with the lifetime "
                    + ".untilCancelled"
            case .overflowed:
                "more of its events waited than it may keep, and its policy is .unsubscribe; let it keep more, or take "
                    + "another policy"
            case .givenUp: "a handler that had it gave it up; make a new one"
            }
        }
    }

    private struct State: Sendable {
        var subscriptions: [SubscriptionID: Subscription] = [:]
        var lastNumber: UInt32 = 0
        /// The last ones that have ended: what still comes for them is counted, and can be asked for.
        var ended = Deque<(subscription: Subscription, cause: Cause)>()
    }

    private let state = Mutex(State())

    var count: Int { self.state.withLock { $0.subscriptions.count } }

    /// Adds a subscription under a number of its own.
    func add(_ make: (SubscriptionID) -> Subscription) -> Subscription {
        self.state.withLock { state in
            state.lastNumber += 1
            let subscription = make(SubscriptionID(state.lastNumber))
            state.subscriptions[subscription.id] = subscription
            return subscription
        }
    }

    /// How many of those that have ended are remembered.
    private static let endedLimit = 256

    /// One that is there, or one of the last that have ended.
    func findOrRemember(_ id: SubscriptionID) -> Subscription? {
        self.state.withLock { state in
            state.subscriptions[id] ?? state.ended.last { $0.subscription.id == id }?.subscription
        }
    }

    func find(_ id: SubscriptionID) -> Subscription? { self.state.withLock { $0.subscriptions[id] } }

    /// Why one of the last that have ended did.
    func cause(of id: SubscriptionID) -> Cause? {
        self.state.withLock { state in state.ended.last { $0.subscription.id == id }?.cause }
    }

    @discardableResult
    func remove(_ id: SubscriptionID, because cause: Cause) -> Subscription? {
        self.state.withLock { state in
            guard let ended = state.subscriptions.removeValue(forKey: id) else { return nil }
            if state.ended.count == Self.endedLimit { state.ended.removeFirst() }
            state.ended.append((ended, cause))
            return ended
        }
    }

    func removeAll() -> [Subscription] {
        self.state.withLock { state in
            defer {
                state.subscriptions = [:]
                state.ended = []
            }
            return Array(state.subscriptions.values)
        }
    }

    var all: [Subscription] { self.state.withLock { Array($0.subscriptions.values) } }

    func jobStarted(_ id: SubscriptionID) { self.find(id)?.jobStarted() }

    /// A call that the callback was passed to has ended.
    ///
    /// Returns whether the subscription went with it.
    func jobEnded(_ id: SubscriptionID) -> Bool {
        guard let subscription = self.find(id), subscription.jobEnded() else { return false }
        self.remove(id, because: .callsEnded)
        subscription.end()
        return true
    }
}
