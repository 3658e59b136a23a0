// SPDX-License-Identifier: Apache-2.0

public import DroverRuntime

/// The state of a broker, as it reports it.
public struct BrokerStatus: Hashable, Codable, Sendable {
    /// The broker's name.
    public var broker = ""
    /// The seconds since it started.
    public var uptime = 0.0
    /// Clients with a session, not counting those that have only queried the broker itself, as `drover status` does.
    public var clients = 0
    /// Workers with a session.
    public var workers = 0
    /// Slots of all workers.
    public var slots = 0
    /// Calls that wait for a worker.
    public var queued = 0
    /// Calls that are at workers.
    public var sent = 0
    /// Bytes of the requests of waiting and running calls; nil if the broker doesn't report it.
    public var queuedBytes: Int?
    /// Calls that were refused because those bytes had reached their limit; nil if the broker doesn't report it.
    public var refusedForBytes: Int?
    /// Bytes that were sent to clients and that they may not have read; nil if the broker doesn't report it.
    public var unreadBytes: Int?
    /// Clients whose calls wait until they have read more of their answers; nil if the broker doesn't report it.
    public var heldUp: Int?
    /// How often a client's calls began to wait like that; nil if the broker doesn't report it.
    public var holdUps: Int?
    /// Calls received.
    public var received = 0
    /// Calls that workers answered, with a value or an error.
    public var answered = 0
    /// Calls that were given to another worker because the first was lost.
    public var resent = 0
    /// Calls that ended because their worker was lost.
    public var lost = 0
    /// Calls that the broker refused.
    public var refused = 0
    /// Refused calls that were over a key's quota; nil if the broker doesn't report it.
    public var overQuota: Int?
    /// Connections that were closed because they had introduced no session and descriptors were needed; nil if the
    /// broker doesn't report it.
    public var closedNewcomers: Int?
    /// Messages that couldn't be understood.
    public var malformed = 0
    /// Messages of no known call, subscription or kind.
    public var unknown = 0
    /// Messages whose addressee was gone.
    public var undeliverable = 0
    /// Parts of large messages that arrived but weren't wanted; nil if the broker doesn't report it.
    public var partsRefused: Int?
    /// Large messages announced with more bytes than the broker takes; nil if the broker doesn't report it.
    public var oversized: Int?
    /// Large messages that were being sent in parts when their connection ended, or that their addressee did not take;
    /// nil if the broker doesn't report it.
    public var abandoned: Int?
    /// Notices that callbacks had ended or were to pause, forgotten because there were too many; nil if the broker
    /// doesn't report it.
    public var forgottenNews: Int?
    /// Large answers dropped although their clients may not have read them; nil if the broker doesn't report it.
    public var forgottenAnswers: Int?
    /// Peers that were asked to introduce themselves again.
    public var resets = 0
    /// How often a worker reported itself idle although suitable calls waited.
    public var starved = 0
    /// Whether the broker has stopped taking new calls.
    public var isDraining = false

    /// Creates the status of an idle broker.
    public init() {}
}

/// A worker as its broker sees it.
public struct BrokerWorkerStatus: Hashable, Codable, Sendable {
    /// The states a worker can be in.
    public enum State: String, Codable, Sendable {
        /// Takes calls.
        case ready
        /// Wants no new calls for now.
        case quiet
        /// Takes no more new calls.
        case draining
        /// Can't be reached at the moment.
        case away
    }

    /// The name the worker gave itself.
    public var name = ""
    /// The worker's identity, a new one after each start.
    public var id = ""
    /// Whether it takes calls.
    public var state = State.away
    /// How many handlers run at once.
    public var concurrency = 0
    /// Handlers still running although their calls are over; nil if the broker doesn't report it.
    public var stuck: Int?
    /// The seconds since the worker was last heard from; nil if the broker doesn't report it.
    public var secondsSilent: Double?
    /// Calls that the worker has.
    public var calls = 0
    /// How many calls it may have.
    public var credit = 0
    /// Calls that it answered.
    public var answered = 0
    /// The functions it has.
    public var functions: [String] = []
    /// The queues it serves; "" is the unnamed one.
    public var queues: [String] = []
    /// The worker's labels.
    public var labels: [String: String] = [:]
    /// How much the worker has of each resource.
    public var resources: [String: UInt64] = [:]
    /// How many rows are left out; set in the last row of an answer that had no room for all.
    public var leftOut: Int?

    /// Creates an empty status.
    public init() {}
}

/// Calls of one function that make the same demands on a worker.
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
    /// The correlation id of the call that has waited longest; nil if none waits, or if the broker doesn't report it.
    public var oldestCall: UInt64?
    /// The name of the client that made it.
    public var oldestClient: String?
    /// The seconds since that call arrived.
    public var oldestSeconds: Double?
    /// How many rows are left out; set in the last row of an answer that had no room for all.
    public var leftOut: Int?

    /// Creates an empty status.
    public init() {}
}

extension Function where Result == BrokerStatus {
    /// The broker's state, as it reports it itself, whatever its workers do.
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
