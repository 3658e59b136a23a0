// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverRuntime
internal import DroverWire

/// What a worker keeps of a session with a broker, beyond what it keeps of any client.
///
/// Belongs, like the loop, to the holder of the worker's token.
final class BrokerSide {
    /// Gives the callbacks among a request's arguments their way through the broker.
    let callbacks: BrokeredCallbacks
    /// How many requests the broker lets the worker have, as far as it said.
    @safe @exclusivity(unchecked) var credit = 0
    /// How many requests wait there that this worker could take.
    @safe @exclusivity(unchecked) var waiting: UInt32 = 0
    /// At the last beat the worker had credit and free handlers, and something waited.
    @safe @exclusivity(unchecked) var wasHungry = false
    /// Whether it may name the callers of requests: it has proved its key.
    let vouches: Bool
    /// Whom it vouches for, by its numbers.
    @safe @exclusivity(unchecked) var callers: [UInt32: Caller] = [:]
    private var numbers: [ObjectIdentifier: UInt32] = [:]
    private var subscribers: [UInt32: Subscriber] = [:]
    private var nextNumber: UInt32 = 0

    init(identity: PeerID, core: WorkerCore) {
        self.callbacks = BrokeredCallbacks(broker: identity, core: core)
        self.vouches = core.configuration.keys != nil
    }

    /// The number that a subscriber is bound to; nil if it isn't.
    func number(of subscriber: Subscriber) -> UInt32? { self.numbers[ObjectIdentifier(subscriber)] }

    /// Binds a subscriber, which must not be bound.
    func bind(_ subscriber: Subscriber) -> UInt32 {
        let number = self.nextNumber
        self.nextNumber &+= 1
        self.numbers[ObjectIdentifier(subscriber)] = number
        self.subscribers[number] = subscriber
        return number
    }

    /// All that are bound, by their numbers.
    var bindings: [(number: UInt32, subscriber: Subscriber)] {
        self.subscribers.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    }

    func subscriber(_ number: UInt32) -> Subscriber? { self.subscribers[number] }

    /// A subscription is over; its number stands for nothing any more.
    @discardableResult
    func unbind(_ number: UInt32) -> Subscriber? {
        guard let subscriber = self.subscribers.removeValue(forKey: number) else { return nil }
        self.numbers[ObjectIdentifier(subscriber)] = nil
        return subscriber
    }
}

/// Gives callbacks that came through a broker their way back.
final class BrokeredCallbacks: CallbackLinkProvider {
    private let broker: PeerID
    private let core: WorkerCore

    var worker: WorkerCore { self.core }

    init(broker: PeerID, core: WorkerCore) {
        self.broker = broker
        self.core = core
    }

    func link(to subscription: SubscriptionID, of client: PeerID) -> any CallbackLink {
        JobCallback(self.subscriber(subscription, of: client), for: nil)
    }

    func subscriber(_ subscription: SubscriptionID, of client: PeerID) -> Subscriber {
        self.core.subscribers.subscriber(subscription, of: client, via: self.broker, core: self.core)
    }
}

/// A broker that the worker dials.
struct BrokerDial {
    let endpoint: Endpoint
    /// The address that it was dialled at; nil as long as its name is being looked up.
    var dialled: String?
    /// The worker's own name for the connection, and the route that its messages come by.
    let routingID: [UInt8]
    let route: UInt64
    var offerSchedule: OfferSchedule
    /// How many handlers at once the last offer said.
    var offeredConcurrency = 0
    /// How many functions it named.
    var offeredFunctions = 0
    /// How many stuck ones it said.
    var offeredStuck = 0
    var offeredAt = Instant(nanoseconds: 0)
    /// A connection stands.
    var isUp = false
    /// There is a session, and the log said so.
    var isServed = false
    /// The log said that nobody answers there.
    var isMissed = false
    /// It was made since the broker introduced itself last.
    var isReconnected = false
    /// Its name is being looked up.
    var isLookingUp = false
    /// Attempts to connect that failed since it was dialled, or its name was looked up.
    var retries = 0
    /// When its name couldn't be looked up.
    var lookUps = Backoff()
    /// When to dial it again since it refused the worker's key.
    var redialsAt = Instant.distantFuture
    /// How often in a row it did.
    var refusals = 0
    /// Handshakes in a row that ended without a reason.
    var failedHandshakes = 0
    /// What the last refusal said, so that it is logged once.
    var lastRefusal = ""

    var address: String { self.endpoint.address }
}
