// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverCore
internal import DroverRuntime
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
final class Subscriber: RoomGiver, Told {
    let subscription: SubscriptionID
    let client: PeerID
    /// The broker that the client is behind, if it is behind one.
    let via: PeerID?
    // Weak, since a handler may keep a callback for longer than its worker lives. A strong reference would be a cycle, by
    // way of the worker's table of subscribers, and by way of its mailbox, whose posts name subscribers.
    private weak let core: WorkerCore?
    let codecLimits: CodecLimits
    private let isEnded = Atomic<Bool>(false)
    private let outbox = Mutex(EventOutbox())
    /// The number of the next event; only the holder of the loop's token touches it.
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

    func end() {
        self.isEnded.store(true, ordering: .sequentiallyConsistent)
        self.wake(self.outbox.withLock { $0.takeWaiters() })
    }

    func pause(_ isPaused: Bool) {
        self.wake(
            self.outbox.withLock { outbox in
                outbox.pause(isPaused)
                return outbox.waitersToWake()
            }
        )
    }

    /// Those who wait look again whether there is room.
    private func wake(_ waiters: [PendingReply]) { for waiter in waiters { waiter.finish(.success([])) } }

    // MARK: On the loop

    /// Takes the events that one post announced; `spare` is an empty run, whose memory is used on.
    func takeEvents(leaving spare: EventRun) -> EventRun { self.outbox.withLock { $0.take(leaving: spare) } }

    /// Events were sent; returns whether the peer is to be asked how far it is.
    func sent(_ units: Int) -> Bool { self.outbox.withLock { $0.window.sent(units) } }

    func read() -> Bool {
        let (mustAsk, waiters) = self.outbox.withLock { outbox in
            let mustAsk = outbox.window.answered()
            return (mustAsk, outbox.waitersToWake())
        }
        self.wake(waiters)
        return mustAsk
    }

    /// The number of the next event, or of the first of several.
    func nextSequence(count: Int = 1) -> UInt64 { self.sequence.add(UInt64(count), ordering: .relaxed).oldValue }

    /// How many numbers were given out.
    var emittedCount: UInt64 { self.sequence.load(ordering: .relaxed) }

    // MARK: On any thread

    /// Takes an event, if there is room for it; `waiter` is told when it is worth while to try again.
    ///
    /// - Returns: Whether the event was taken: if not, the block is still the caller's.
    func take(_ block: RequestBytes, orTell waiter: PendingReply?) throws -> Bool {
        let isLarge = block.payloadCount >= OutgoingBatch.flushBytes
        let core = isLarge ? try self.openCore() : nil
        // All is posted under the lock. Another handler that adds its events to a run may end, and its answer must come after them;
        // and what it adds may not be announced before a large one that closed the run, or that would be overtaken.
        let isTaken = try self.outbox.withLock { outbox in
            guard !self.isEnded.load(ordering: .sequentiallyConsistent) else { throw Self.gone(self.subscription) }
            guard outbox.hasRoom else {
                if let waiter { outbox.add(waiter) }
                return false
            }
            if let core {
                outbox.largePosted(byteCount: block.payloadCount)
                // libzmq is to send it from where it is.
                core.post(.event(self, block))
            } else if outbox.append(block) {
                try self.openCore().post(.events(self))
            }
            return true
        }
        guard isTaken else { return false }
        if !isLarge {
            var block = block
            block.free()
        }
        return true
    }

    /// A waiter needs not be told any more.
    func forget(_ waiter: PendingReply) { self.outbox.withLock { $0.remove(waiter) } }

    /// Somebody found no room.
    func heldBack() { self.core?.counters.eventsHeldBack.count() }

    func invoke(_ block: RequestBytes) throws -> PendingReply {
        var block = block
        let core: WorkerCore
        do { core = try self.openCore() } catch {
            block.free()
            throw error
        }
        let (id, reply) = core.replies.add(for: self)
        self.outbox.withLock { outbox in
            outbox.close()
            core.post(.invoke(self, id: id, block))
        }
        // The loop may have been left in between: then nobody reads the post, and waiters are told here.
        if self.isEnded.load(ordering: .sequentiallyConsistent) {
            core.replies.take(id, from: self.peer)?.finish(.failure(Self.gone(self.subscription)))
        }
        return reply
    }

    /// A handler gives the subscription up.
    func giveUp() {
        guard !self.isEnded.exchange(true, ordering: .sequentiallyConsistent) else { return }
        let waiters = self.outbox.withLock { outbox in
            outbox.close()
            return outbox.takeWaiters()
        }
        self.wake(waiters)
        self.core?.post(.ended(self))
    }

    /// The worker, unless there is no way to the client any more.
    private func openCore() throws -> WorkerCore {
        guard !self.isEnded.load(ordering: .relaxed), let core = self.core else { throw Self.gone(self.subscription) }
        return core
    }

    var isOver: Bool { self.isEnded.load(ordering: .relaxed) }

    func question(_ nonce: UInt64, in session: Int, of loop: WorkerLoop) -> (header: Header, payload: [UInt8]) {
        self.statement(nonce, as: loop.number(of: self, in: session))
    }

    /// The PING that tells the peer, by the number that it knows the subscription by, which event would be the next.
    func statement(_ nonce: UInt64, as number: UInt32) -> (header: Header, payload: [UInt8]) {
        let payload = QuestionSubject.payload(self.emittedCount)
        return (Header(.ping, id: nonce, time: QuestionSubject.events.rawValue, number: number), payload)
    }

    static func lost(_ subscription: SubscriptionID) -> ConnectionError {
        ConnectionError(
            .lost,
            message:
                "the call of callback \(subscription), or its answer, was lost with a connection; whether it ran is unknown: "
                + "make it again if it may run twice"
        )
    }

    static func gone(_ subscription: SubscriptionID) -> RemoteError {
        RemoteError(
            .subscriberGone,
            message:
                "callback \(subscription) has ended: it was cancelled, or the calls that its client passed it to have ended "
                + "(one with the lifetime .untilCancelled outlives them), or more events waited than it may keep and its policy "
                + "is .unsubscribe, or its client is gone, or this worker has stopped"
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
        /// How much of that was forgotten since there was too much.
        var forgottenCount = 0
        /// The worker has stopped: later subscribers have ended already.
        var isClosed = false

        mutating func remember(
            _ key: Key,
            _ change: (inout CallbackMemory<CallbackID>, CallbackID) -> Void
        ) {
            guard !self.isClosed else { return }
            let id = CallbackID(client: key.client, subscription: key.subscription)
            let before = self.memories[key.peer]?.forgottenCount ?? 0
            change(&self.memories[key.peer, default: CallbackMemory()], id)
            self.forgottenCount += (self.memories[key.peer]?.forgottenCount ?? 0) - before
        }
    }

    private let state = Mutex(State())

    var count: Int { self.state.withLock { $0.subscribers.count } }
    var forgottenCount: Int { self.state.withLock { $0.forgottenCount } }

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

    /// A peer's connection was made anew: a pause, or the end of what was paused, may have gone with the former one.
    ///
    /// The peer says again what is to pause; what it no longer has it ends when the next event comes.
    func goOn(of peer: PeerID) {
        let theirs = self.state.withLock { state in
            state.subscribers.filter { ($0.key.via ?? $0.key.client) == peer }.map { $0.value }
        }
        for subscriber in theirs { subscriber.pause(false) }
    }

    /// The callbacks of a client that is here without a broker.
    func own(of client: PeerID) -> [Subscriber] {
        self.state.withLock { state in
            state.subscribers.filter { $0.key.client == client && $0.key.via == nil }.map { $0.value }
        }
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
