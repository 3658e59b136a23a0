// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverCore
public import DroverWire
internal import DroverZMQ
internal import Synchronization

/// What a handler may know of the request it works on.
public final class JobContext: Sendable {
    /// The request's correlation id, within its client.
    public let correlationID: CorrelationID
    /// The client that asked.
    public let client: PeerID
    /// The function's name.
    public let function: String
    let core: WorkerCore
    private let slot: UInt32
    /// In nanoseconds of the worker's clock; the loop moves it while the handler reads it.
    private let deadlineWord: Atomic<UInt64>
    /// The number of the reason, 0 as long as there is none.
    private let cancelled = Atomic<UInt8>(0)
    /// The way to end the child process that works on it.
    let isolatedRun = Mutex<IsolatedRun?>(nil)
    private let lastSequence = Atomic<UInt32>(0)

    init(request: WorkerRequest, slot: UInt32, client: PeerID, function: String, core: WorkerCore) {
        self.correlationID = CorrelationID(request.id)
        self.client = client
        self.function = function
        self.core = core
        self.slot = slot
        self.deadlineWord = Atomic(request.deadline.nanoseconds)
    }

    /// When the caller stops waiting, as far as the worker knows.
    var deadline: Instant { Instant(nanoseconds: self.deadlineWord.load(ordering: .relaxed)) }

    func move(deadline: Instant) { self.deadlineWord.store(deadline.nanoseconds, ordering: .relaxed) }

    /// The time left until the caller stops waiting, or nil without a limit; zero once it has passed.
    ///
    /// It follows the caller's `setExpiry` while the handler runs.
    public var remainingTime: Duration? {
        let deadline = self.deadline
        guard deadline != .distantFuture else { return nil }
        return Duration(nanoseconds: deadline.nanoseconds(since: self.core.now()))
    }

    /// Whether the handler should stop: the caller cancelled, its deadline passed, it is gone, the worker shuts down and the
    /// grace is over, or the handler has run until one of its ``TimeLimits``.
    public var isCancelled: Bool { self.cancelled.load(ordering: .relaxed) != 0 }

    /// Why the handler should stop, the first reason if there are several; nil as long as it may go on.
    public var cancellationReason: CancellationReason? {
        CancellationReason(number: self.cancelled.load(ordering: .relaxed))
    }

    /// Throws if the request was cancelled; to be called now and then by handlers that take long.
    ///
    /// - Throws: `CancellationError`.
    public func checkCancellation() throws {
        if self.isCancelled { throw CancellationError() }
    }

    /// Tells the caller how far the work has come; it reads it from its handle's ``AnyAsyncResult/events``.
    ///
    /// - Parameter progress: Any value, such as a fraction or a line of text.
    /// - Throws: An error of encoding.
    public func report(_ progress: some Encodable & Sendable) throws {
        var writer = PackWriter(
            capacity: 96,
            headerBytes: RequestBytes.headerByteCount,
            limits: self.core.codecLimits
        )
        try packValue(progress, into: &writer)
        let sequence = self.lastSequence.add(1, ordering: .relaxed).oldValue
        self.core.post(
            .progress(
                slot: self.slot,
                id: self.correlationID.rawValue,
                sequence,
                RequestBytes(adopting: writer.finish())
            )
        )
    }

    func cancel(because reason: CancellationReason) {
        _ = self.cancelled.compareExchange(expected: 0, desired: reason.number, ordering: .relaxed)
        let run = self.isolatedRun.withLock { $0 }
        if reason == .hardTimeLimit { run?.kill(within: .zero) } else { run?.kill() }
    }
}
