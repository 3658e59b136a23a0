// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import DroverWire
internal import Synchronization

/// The callbacks of a client that workers can reach.
final class SubscriptionTable: Sendable {
    private struct State: Sendable {
        var subscriptions: [SubscriptionID: Subscription] = [:]
        var lastNumber: UInt32 = 0
        /// The last ones that have ended: what still comes for them is counted, and can be asked for.
        var ended = Deque<Subscription>()
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
        self.state.withLock { state in state.subscriptions[id] ?? state.ended.last { $0.id == id } }
    }

    func find(_ id: SubscriptionID) -> Subscription? { self.state.withLock { $0.subscriptions[id] } }

    @discardableResult
    func remove(_ id: SubscriptionID) -> Subscription? {
        self.state.withLock { state in
            guard let ended = state.subscriptions.removeValue(forKey: id) else { return nil }
            if state.ended.count == Self.endedLimit { state.ended.removeFirst() }
            state.ended.append(ended)
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
        self.remove(id)
        subscription.end()
        return true
    }
}
