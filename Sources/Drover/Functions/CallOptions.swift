// SPDX-License-Identifier: Apache-2.0

internal import DroverRuntime
internal import DroverWire

/// How a call is made, beyond its function and arguments.
public struct CallOptions: Hashable, Sendable {
    /// Whether the call may run more than once without harm; nil takes the function's own declaration.
    public var isIdempotent: Bool?
    /// Calls with one key start in the order of their submission, one at a time, on one worker (contract S9).
    public var orderingKey: String?
    /// The time until the call expires, counted from the call; nil takes the client's default.
    public var expiry: Duration?
    /// Whether cancelling the task that awaits the call cancels the call too (contract S24).
    public var cancelsWithWaiter: Bool
    /// Through a broker: only workers that serve this queue get the call.
    public var queue: String
    /// Through a broker: 0 to 7; of the calls that wait a higher one goes first.
    public var priority: UInt8
    /// Through a broker: the worker must have all of these labels, such as `["zone": "eu"]`.
    public var labels: [String: String]
    /// Through a broker: what the call occupies of a worker's resources while it runs, such as `["gpu": 1]`.
    public var resources: [String: UInt64]

    /// Creates options.
    ///
    /// - Parameters:
    ///   - isIdempotent: Whether the call may run more than once; nil takes the function's declaration.
    ///   - orderingKey: Calls of one key run one at a time, in order.
    ///   - expiry: The time until the call expires.
    ///   - cancelsWithWaiter: Whether cancelling the awaiting task cancels the call.
    ///   - queue: The queue that the worker must serve.
    ///   - priority: 0 to 7; higher goes first.
    ///   - labels: Labels that the worker must have.
    ///   - resources: What the call occupies of a worker's resources.
    public init(
        isIdempotent: Bool? = nil,
        orderingKey: String? = nil,
        expiry: Duration? = nil,
        cancelsWithWaiter: Bool = false,
        queue: String = "",
        priority: UInt8 = 4,
        labels: [String: String] = [:],
        resources: [String: UInt64] = [:]
    ) {
        self.isIdempotent = isIdempotent
        self.orderingKey = orderingKey
        self.expiry = expiry
        self.cancelsWithWaiter = cancelsWithWaiter
        self.queue = queue
        self.priority = priority
        self.labels = labels
        self.resources = resources
    }

    /// Whether a worker or a broker must be told more than function and arguments.
    var hasMetadata: Bool {
        self.orderingKey != nil || !self.queue.isEmpty || self.priority != RequestMetadata.standardPriority
            || !self.labels.isEmpty || !self.resources.isEmpty
    }

    /// What a worker or a broker is told beyond function and arguments; nil for nothing.
    var metadata: RequestMetadata? {
        guard self.hasMetadata else { return nil }
        var metadata = RequestMetadata()
        metadata.orderingKey = self.orderingKey
        metadata.queue = self.queue
        metadata.priority = self.priority
        metadata.labels = self.labels
        metadata.resources = self.resources
        return metadata
    }

    /// Refuses what no worker and no broker would take.
    func check() throws {
        guard self.hasMetadata else { return }
        if let problem = self.problem { throw UsageError(.badConfiguration, "a call's \(problem)") }
    }

    private var problem: String? {
        if self.priority > RequestMetadata.highestPriority {
            return "priority is \(self.priority); it must be 0 to \(RequestMetadata.highestPriority), higher goes first"
        }
        let (key, longest) = (self.orderingKey?.utf8.count ?? 0, WireLimits.maxKeyBytes)
        if key > longest { return "orderingKey has \(key) bytes; \(longest) is the limit" }
        return termProblem("queue", CollectionOfOne(self.queue)) ?? termProblem("labels", self.labels.keys)
            ?? termProblem("labels", self.labels.values) ?? termProblem("resources", self.resources.keys)
    }

    /// A number that is the same for calls of one ordering key, 0 without one.
    var affinity: UInt64 {
        guard let orderingKey else { return 0 }
        // FNV-1a; which worker gets a key need not survive a new version, but must not change within a process.
        let hash = orderingKey.utf8.reduce(0xCBF2_9CE4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
        return max(1, hash)
    }
}
