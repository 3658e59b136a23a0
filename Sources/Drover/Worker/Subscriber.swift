// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverWire
internal import DroverZMQ
internal import Synchronization

/// Gives decoded callbacks their way to the client.
protocol CallbackLinkProvider: AnyObject, Sendable {
    func link(to subscription: SubscriptionID, of client: PeerID) -> any CallbackLink
}

/// A client's callback as the worker knows it: shared by all references to it that handlers hold.
final class Subscriber: CallbackLink {
    let subscription: SubscriptionID
    let client: PeerID
    private unowned let core: WorkerCore
    private let isEnded = Atomic<Bool>(false)
    private let isPaused = Atomic<Bool>(false)
    /// The number of the next event; only the holder of the loop's baton touches it.
    private let sequence = Atomic<UInt64>(0)

    init(subscription: SubscriptionID, client: PeerID, core: WorkerCore) {
        self.subscription = subscription
        self.client = client
        self.core = core
    }

    func end() { self.isEnded.store(true, ordering: .relaxed) }

    func pause(_ isPaused: Bool) { self.isPaused.store(isPaused, ordering: .relaxed) }

    func nextSequence() -> UInt64 { self.sequence.add(1, ordering: .relaxed).oldValue }

    func emit(_ block: RequestBytes, to subscription: SubscriptionID, of client: PeerID) throws -> Bool {
        var block = block
        do { try self.checkOpen() } catch {
            block.free()
            throw error
        }
        if self.isPaused.load(ordering: .relaxed) {
            block.free()
            return false
        }
        self.core.post(.event(self, block))
        return true
    }

    func invoke(_ block: RequestBytes, of subscription: SubscriptionID, client: PeerID) throws -> PendingReply {
        var block = block
        do { try self.checkOpen() } catch {
            block.free()
            throw error
        }
        let (id, reply) = self.core.replies.add(for: client, subscription: subscription)
        self.core.post(.invoke(self, id: id, block))
        return reply
    }

    func end(_ subscription: SubscriptionID, of client: PeerID) {
        guard !self.isEnded.exchange(true, ordering: .relaxed) else { return }
        self.core.post(.ended(self))
    }

    private func checkOpen() throws {
        guard !self.isEnded.load(ordering: .relaxed) else { throw Self.gone(self.subscription) }
    }

    static func gone(_ subscription: SubscriptionID) -> RemoteError {
        RemoteError(
            .subscriberGone,
            message: "the callback's subscription \(subscription) is over, or its client gone: nobody listens any more"
        )
    }
}

/// The callbacks that a worker's handlers were given.
final class SubscriberTable: Sendable {
    private struct Key: Hashable {
        let client: PeerID
        let subscription: SubscriptionID
    }

    private let subscribers = Mutex<[Key: Subscriber]>([:])

    var count: Int { self.subscribers.withLock { $0.count } }

    func subscriber(_ subscription: SubscriptionID, of client: PeerID, core: WorkerCore) -> Subscriber {
        self.subscribers.withLock { subscribers in
            let key = Key(client: client, subscription: subscription)
            if let known = subscribers[key] { return known }
            let made = Subscriber(subscription: subscription, client: client, core: core)
            subscribers[key] = made
            return made
        }
    }

    func find(_ subscription: SubscriptionID, of client: PeerID) -> Subscriber? {
        self.subscribers.withLock { $0[Key(client: client, subscription: subscription)] }
    }

    func end(_ subscription: SubscriptionID, of client: PeerID) {
        self.subscribers.withLock { $0.removeValue(forKey: Key(client: client, subscription: subscription)) }?.end()
    }

    func endAll(of client: PeerID) {
        let gone = self.subscribers.withLock { subscribers in
            let gone = subscribers.filter { $0.key.client == client }
            for key in gone.keys { subscribers[key] = nil }
            return gone.values
        }
        for subscriber in gone { subscriber.end() }
    }
}
