// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverCore
internal import DroverWire
internal import DroverZMQ
internal import Synchronization

/// Gives decoded callbacks their way to the client.
protocol CallbackLinkProvider: AnyObject, Sendable {
    /// The worker that decodes them.
    var worker: WorkerCore { get }

    func link(to subscription: SubscriptionID, of client: PeerID) -> any CallbackLink
}

/// A client's callback as the worker knows it: shared by all references to it that handlers hold.
final class Subscriber: CallbackLink {
    let subscription: SubscriptionID
    let client: PeerID
    /// The broker that the client is behind, if it is behind one.
    let via: PeerID?
    // Weak, since a handler may keep a callback for longer than its worker lives. A strong reference would be a cycle, by
    // way of the worker's table of subscribers, and by way of its mailbox, whose posts name subscribers.
    private weak let core: WorkerCore?
    let codecLimits: CodecLimits
    private let isEnded = Atomic<Bool>(false)
    private let isPaused = Atomic<Bool>(false)
    private let outbox = Mutex(EventOutbox())
    /// Of no subscriber more than this are on their way: a handler may emit faster than any connection, or client, takes.
    ///
    /// Less than a client's usual queue takes beyond its limit: to one that asks for a pause in time nothing is lost.
    static let unreadLimit = 8192
    /// The number of the next event; only the holder of the loop's baton touches it.
    private let sequence = Atomic<UInt64>(0)

    /// Who is sent what is for the client.
    var peer: PeerID { self.via ?? self.client }

    init(subscription: SubscriptionID, client: PeerID, via: PeerID?, core: WorkerCore) {
        self.subscription = subscription
        self.client = client
        self.via = via
        self.core = core
        self.codecLimits = core.codecLimits
    }

    func end() { self.isEnded.store(true, ordering: .sequentiallyConsistent) }

    func pause(_ isPaused: Bool) { self.isPaused.store(isPaused, ordering: .relaxed) }

    // MARK: On the loop

    /// Takes the events that one post announced; `spare` is an empty run, whose memory is used on.
    func takeEvents(leaving spare: EventRun) -> EventRun { self.outbox.withLock { $0.take(leaving: spare) } }

    /// The client has read so many events, or they were dropped.
    func read(_ count: Int) { self.outbox.withLock { $0.read(count) } }

    /// The number of the next event, or of the first of several.
    func nextSequence(count: Int = 1) -> UInt64 { self.sequence.add(UInt64(count), ordering: .relaxed).oldValue }

    // MARK: On any thread

    func emit(_ block: RequestBytes, to subscription: SubscriptionID, of client: PeerID) throws -> Bool {
        if block.payloadCount >= OutgoingBatch.flushBytes { return try self.emitLarge(block) }
        var block = block
        defer { block.free() }
        guard !self.isEnded.load(ordering: .relaxed) else { throw Self.gone(self.subscription) }
        guard !self.isPaused.load(ordering: .relaxed) else { return self.heldBack() }
        let mustAnnounce = self.outbox.withLock { outbox -> Bool? in
            outbox.count < Self.unreadLimit ? outbox.append(block) : nil
        }
        guard let mustAnnounce else { return self.heldBack() }
        if mustAnnounce { try self.openCore().post(.events(self)) }
        return true
    }

    /// Emits what libzmq is to send from where it is.
    private func emitLarge(_ block: RequestBytes) throws -> Bool {
        var block = block
        let core: WorkerCore
        do { core = try self.openCore() } catch {
            block.free()
            throw error
        }
        let isTaken = self.outbox.withLock { outbox in
            guard !self.isPaused.load(ordering: .relaxed), outbox.count < Self.unreadLimit else { return false }
            outbox.largePosted()
            return true
        }
        guard isTaken else {
            block.free()
            return self.heldBack()
        }
        core.post(.event(self, block))
        return true
    }

    private func heldBack() -> Bool {
        self.core?.counters.eventsHeldBack.count()
        return false
    }

    func invoke(_ block: RequestBytes, of subscription: SubscriptionID, client: PeerID) throws -> PendingReply {
        var block = block
        let core: WorkerCore
        do { core = try self.openCore() } catch {
            block.free()
            throw error
        }
        let (id, reply) = core.replies.add(for: self)
        self.outbox.withLock { $0.close() }
        core.post(.invoke(self, id: id, block))
        // The loop may have been left in between: then nobody reads the post, and whoever waits is told here.
        if self.isEnded.load(ordering: .sequentiallyConsistent) {
            core.replies.take(id, from: self.peer)?.finish(.failure(Self.gone(subscription)))
        }
        return reply
    }

    func end(_ subscription: SubscriptionID, of client: PeerID) {
        guard !self.isEnded.exchange(true, ordering: .relaxed) else { return }
        self.outbox.withLock { $0.close() }
        self.core?.post(.ended(self))
    }

    /// The worker, unless there is no way to the client any more.
    private func openCore() throws -> WorkerCore {
        guard !self.isEnded.load(ordering: .relaxed), let core = self.core else { throw Self.gone(self.subscription) }
        return core
    }

    static func gone(_ subscription: SubscriptionID) -> RemoteError {
        RemoteError(
            .subscriberGone,
            message:
                "callback \(subscription) has ended: it was cancelled, or the calls that its client passed it to have ended "
                + "(one with the lifetime .untilCancelled outlives them), or its client is gone, or this worker has stopped"
        )
    }
}

/// The callbacks that a worker's handlers were given.
final class SubscriberTable: Sendable {
    private struct Key: Hashable {
        let client: PeerID
        let subscription: SubscriptionID
        let via: PeerID?

        var peer: PeerID { self.via ?? self.client }
    }

    /// A callback among those of a peer, who may be a broker.
    private struct CallbackID: Hashable {
        let client: PeerID
        let subscription: SubscriptionID
    }

    private struct State: Sendable {
        var subscribers: [Key: Subscriber] = [:]
        /// What peers said of callbacks that are not, or no longer, among the subscribers.
        var memories: [PeerID: CallbackMemory<CallbackID>] = [:]
        /// The worker has stopped: whoever comes now has ended already.
        var isClosed = false

        mutating func remember(
            _ key: Key,
            _ change: (inout CallbackMemory<CallbackID>, CallbackID) -> Void
        ) {
            guard !self.isClosed else { return }
            let id = CallbackID(client: key.client, subscription: key.subscription)
            change(&self.memories[key.peer, default: CallbackMemory()], id)
        }
    }

    private let state = Mutex(State())

    var count: Int { self.state.withLock { $0.subscribers.count } }

    func subscriber(
        _ subscription: SubscriptionID,
        of client: PeerID,
        via: PeerID?,
        core: WorkerCore
    ) -> Subscriber {
        self.state.withLock { state in
            let key = Key(client: client, subscription: subscription, via: via)
            if let known = state.subscribers[key] { return known }
            let made = Subscriber(subscription: subscription, client: client, via: via, core: core)
            let id = CallbackID(client: client, subscription: subscription)
            if state.isClosed || state.memories[key.peer]?.hasEnded(id) == true {
                made.end()
            } else {
                state.subscribers[key] = made
                if state.memories[key.peer]?.takePause(of: id) == true { made.pause(true) }
            }
            return made
        }
    }

    func end(_ subscription: SubscriptionID, of client: PeerID) {
        self.end(Key(client: client, subscription: subscription, via: nil))
    }

    func end(_ subscriber: Subscriber) {
        self.end(Key(client: subscriber.client, subscription: subscriber.subscription, via: subscriber.via))
        subscriber.end()
    }

    private func end(_ key: Key) {
        self.state.withLock { $0.subscribers.removeValue(forKey: key) }?.end()
    }

    /// A callback of a peer with a session is over for good: references to it that are read later are of no use.
    func rememberEnd(of subscription: SubscriptionID, of client: PeerID, via broker: PeerID?) {
        let key = Key(client: client, subscription: subscription, via: broker)
        self.state.withLock { state in state.remember(key) { $0.ended($1) } }
    }

    /// A client that is here without a broker asks for a pause of a callback's events, or to go on.
    func pause(_ isPaused: Bool, _ subscription: SubscriptionID, of client: PeerID) {
        let key = Key(client: client, subscription: subscription, via: nil)
        let known = self.state.withLock { state in
            let known = state.subscribers[key]
            // The request that brings it may not have been read yet.
            if known == nil { state.remember(key) { $0.flow($1, isPaused: isPaused) } }
            return known
        }
        known?.pause(isPaused)
    }

    /// A client is gone, or a broker, and all clients behind it.
    func endAll(of peer: PeerID) {
        let gone = self.state.withLock { state in
            let gone = state.subscribers.filter { ($0.key.via ?? $0.key.client) == peer }
            for key in gone.keys { state.subscribers[key] = nil }
            state.memories[peer] = nil
            return gone.values
        }
        for subscriber in gone { subscriber.end() }
    }

    /// The worker stops: all end, those to come too.
    func close() {
        let gone = self.state.withLock { state in
            state.isClosed = true
            state.memories = [:]
            defer { state.subscribers = [:] }
            return Array(state.subscribers.values)
        }
        for subscriber in gone { subscriber.end() }
    }
}
