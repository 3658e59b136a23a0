// SPDX-License-Identifier: Apache-2.0

public import DroverRuntime

/// The state of a broker, as it reports it.
public struct BrokerStatus: Hashable, Codable, Sendable {
    /// The broker's name.
    public var broker = ""
    /// The seconds since it started.
    public var uptime = 0.0
    /// Clients with a session, those not counted that have only asked the broker itself, as `drover status` does.
    public var clients = 0
    /// Workers with a session.
    public var workers = 0
    /// Handlers of all workers.
    public var slots = 0
    /// Calls that wait for a worker.
    public var queued = 0
    /// Calls that workers have.
    public var sent = 0
    /// Bytes of the requests of those that wait or run; nil of a broker that doesn't tell it.
    public var queuedBytes: Int?
    /// Calls that were refused since those bytes were as many as may be; nil of a broker that doesn't tell it.
    public var refusedForBytes: Int?
    /// Bytes that clients were sent and may not have read; nil of a broker that doesn't tell it.
    public var unreadBytes: Int?
    /// Clients whose calls wait until they have read more of their answers; nil of a broker that doesn't tell it.
    public var heldUp: Int?
    /// How often that began for a client; nil of a broker that doesn't tell it.
    public var holdUps: Int?
    /// Calls that came.
    public var received = 0
    /// Calls that workers answered, with a value or an error.
    public var answered = 0
    /// Calls that were given to another worker since the first was lost.
    public var resent = 0
    /// Calls that ended since their worker was lost.
    public var lost = 0
    /// Calls that the broker refused.
    public var refused = 0
    /// Those of them that were over a key's quota; nil of a broker that doesn't tell it.
    public var overQuota: Int?
    /// Connections that were closed since nobody had introduced themselves by them and descriptors were needed; nil of a broker that
    /// doesn't tell it.
    public var closedNewcomers: Int?
    /// Messages that nobody could understand.
    public var malformed = 0
    /// Messages of no known call, subscription or kind.
    public var unknown = 0
    /// Messages whose addressee was gone.
    public var undeliverable = 0
    /// Parts of large messages that came and were not wanted; nil of a broker that doesn't tell it.
    public var partsRefused: Int?
    /// Large messages that were announced with more bytes than the broker takes; nil of a broker that doesn't tell it.
    public var oversized: Int?
    /// Large messages that were under way in parts when their connection ended, or that their addressee did not take; nil of a
    /// broker that doesn't tell it.
    public var abandoned: Int?
    /// News of callbacks, that they had ended or were to pause, which were forgotten since there was too much of them; nil of a
    /// broker that doesn't tell it.
    public var forgottenNews: Int?
    /// Large answers that were kept no longer though their clients may not have read them; nil of a broker that doesn't tell it.
    public var forgottenAnswers: Int?
    /// Peers that were asked to introduce themselves again.
    public var resets = 0
    /// Times that a worker said it was idle though suitable calls waited.
    public var starved = 0
    /// Whether it takes no new calls.
    public var isDraining = false

    /// Creates the status of an idle broker.
    public init() {}
}

/// A worker as its broker sees it.
public struct BrokerWorkerStatus: Hashable, Codable, Sendable {
    /// What it can be.
    public enum State: String, Codable, Sendable {
        /// Takes calls.
        case ready
        /// Wants no new calls for now.
        case quiet
        /// Takes no new calls any more.
        case draining
        /// Can't be reached at the moment.
        case away
    }

    /// The name it gave itself.
    public var name = ""
    /// Its identity: another one after each start.
    public var id = ""
    /// Whether it takes calls.
    public var state = State.away
    /// How many handlers run at once.
    public var concurrency = 0
    /// Handlers that run on although their calls are over; nil of a broker that doesn't tell it.
    public var stuck: Int?
    /// The seconds since it was heard last; nil of a broker that doesn't tell it.
    public var secondsSilent: Double?
    /// Calls that it has.
    public var calls = 0
    /// How many it may have.
    public var credit = 0
    /// Calls that it answered.
    public var answered = 0
    /// The functions it has.
    public var functions: [String] = []
    /// The queues it serves; "" is the unnamed one.
    public var queues: [String] = []
    /// What it is.
    public var labels: [String: String] = [:]
    /// What it has of each resource.
    public var resources: [String: UInt64] = [:]
    /// In the last row of an answer that had no room for all: how many rows are left out.
    public var leftOut: Int?

    /// Creates an empty status.
    public init() {}
}

/// Calls of one function that ask for the same of a worker.
public struct BrokerQueueStatus: Hashable, Codable, Sendable {
    /// The function that is called.
    public var function = ""
    /// The queue; "" is the unnamed one.
    public var queue = ""
    /// The labels that the worker must have.
    public var labels: [String: String] = [:]
    /// The resources that each call occupies.
    public var resources: [String: UInt64] = [:]
    /// Calls that wait.
    public var waiting = 0
    /// Workers that may run them.
    public var workers = 0
    /// The correlation id of the call that waits longest; nil if none waits, or of a broker that doesn't tell it.
    public var oldestCall: UInt64?
    /// The name of the client that made it.
    public var oldestClient: String?
    /// The seconds since it came.
    public var oldestSeconds: Double?
    /// In the last row of an answer that had no room for all: how many rows are left out.
    public var leftOut: Int?

    /// Creates an empty status.
    public init() {}
}

extension Function where Result == BrokerStatus {
    /// How the broker is, as it says itself, whatever its workers do.
    public static var brokerStatus: Function<BrokerStatus> { .init("drover.status", isIdempotent: true) }
}

extension Function where Result == [BrokerWorkerStatus] {
    /// The broker's workers, by name.
    public static var brokerWorkers: Function<[BrokerWorkerStatus]> { .init("drover.workers", isIdempotent: true) }
}

extension Function where Result == [BrokerQueueStatus] {
    /// What waits at the broker, by queue and function.
    public static var brokerQueues: Function<[BrokerQueueStatus]> { .init("drover.queues", isIdempotent: true) }
}
