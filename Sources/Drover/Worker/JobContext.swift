// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverCore
public import DroverRuntime
public import DroverWire
internal import DroverZMQ
internal import Logging
internal import Synchronization

/// What a handler may know of the request it works on.
public final class JobContext: Sendable {
    /// The request's correlation id, as the worker's peer calls it.
    ///
    /// Called directly it is the client's own. Through a broker it is the broker's, another for each attempt: the client's handle and the
    /// broker's log name another number. The worker's log names both for calls that take long (`drover.brokers_id` is this one).
    public let correlationID: CorrelationID
    /// The client that asked, by the identity that it gave itself; through a broker, the broker.
    public let client: PeerID
    /// Whose key the call was made with, for handlers that allow some callers more than others; nil without keys.
    ///
    /// At a worker that listens with `listenerKeys` it is the owner of the key that the client's connection has proved. Through a
    /// broker it is the one that the broker vouches for: the owner of the key by which the client is connected to it. It is nil if
    /// the broker has no keys, or doesn't say. A handler that authorises refuses what has no caller.
    public let caller: Caller?
    /// The function's name.
    public let function: String
    let core: WorkerCore
    let slot: UInt32
    /// In nanoseconds of the worker's clock; the loop moves it while the handler reads it.
    private let deadlineWord: Atomic<UInt64>
    /// The number of the reason, 0 as long as there is none.
    private let cancelled = Atomic<UInt8>(0)
    /// The way to end the child process that works on it.
    let isolatedRun = Mutex<IsolatedRun?>(nil)
    private let lastSequence = Atomic<UInt32>(0)
    /// The handler has ended.
    private let hasEnded = Atomic<Bool>(false)
    /// What the handler waits for until it may tell something.
    private let waits = Mutex<[PendingReply]>([])
    /// How much of its progress the caller has not read, and what of the handler waits for that.
    private let progress = Mutex((window: EventWindow(), waiters: [PendingReply]()))

    init(
        request: WorkerRequest,
        slot: UInt32,
        client: PeerID,
        caller: Caller?,
        function: String,
        core: WorkerCore
    ) {
        self.correlationID = CorrelationID(request.id)
        self.client = client
        self.caller = caller
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
    /// Blocks the handler's thread while much of what was reported before hasn't reached the caller: about 8,000 reports,
    /// or 32 MiB.
    ///
    /// - Parameter progress: Any value, such as a fraction or a line of text.
    /// - Throws: An error of encoding; `CancellationError` if the request is cancelled or its time over while it waits.
    @available(*, noasync, message: "await the report instead")
    public func report(_ progress: some Encodable & Sendable) throws {
        try self.giveBlocking(try self.packed(progress), for: self)
    }

    /// Tells the caller how far the work has come, as the blocking form does; suspends while it waits.
    ///
    /// - Parameter progress: Any value, such as a fraction or a line of text.
    /// - Throws: As the blocking form, also if the task is cancelled while it waits.
    public func report(_ progress: some Encodable & Sendable) async throws {
        try await self.give(try self.packed(progress), for: self)
    }

    private func packed(_ progress: some Encodable & Sendable) throws -> RequestBytes {
        var writer = PackWriter(
            capacity: 96,
            headerBytes: RequestBytes.headerByteCount,
            limits: self.core.codecLimits
        )
        try packValue(progress, into: &writer)
        return RequestBytes(adopting: writer.finish())
    }

    // MARK: Waiting without a slot

    private enum Slot: UInt8 {
        case held, released, rejoining, ended
    }

    private let slotState = Atomic<UInt8>(Slot.held.rawValue)
    private let awaited = Mutex(AwaitedCalls())

    /// Gives the handler's slot back while it waits for something, above all for calls of its own worker or pool, and waits for a
    /// slot again before it returns.
    ///
    /// A handler that waits in its slot for calls that need a slot themselves stops the worker as soon as all its slots are taken
    /// so. Without the slot others run meanwhile; what the function's `limit` and ordering keys protect stays its own.
    /// At most ``WorkerConfiguration/maxReleasedSlots`` handlers wait so at once; a further one keeps its slot.
    ///
    /// - Parameter body: What waits. It is to do little else.
    /// - Returns: What the body returns.
    /// - Throws: What the body throws.
    public func withSlotReleased<Value: Sendable>(_ body: () async throws -> Value) async rethrows -> Value {
        guard self.releaseSlot(blocksThread: false) else { return try await body() }
        let outcome: Value
        do { outcome = try await body() } catch {
            await self.rejoin()
            throw error
        }
        await self.rejoin()
        return outcome
    }

    /// Gives the handler's slot back while it blocks its thread; see the awaiting form.
    ///
    /// - Parameter body: What waits.
    /// - Returns: What the body returns.
    /// - Throws: What the body throws.
    @available(*, noasync, message: "await withSlotReleased instead")
    public func withSlotReleasedBlocking<Value>(_ body: () throws -> Value) rethrows -> Value {
        guard self.releaseSlot(blocksThread: true) else { return try body() }
        defer { self.rejoinBlocking() }
        return try body()
    }

    private func rejoin() async {
        await withResumption { resumption in self.rejoin { resumption.resume() } }
    }

    /// Takes a slot again, as soon as there is one, and goes on.
    func rejoin(_ goOn: @escaping @Sendable () -> Void) {
        _ = self.moveSlot(.released, .rejoining)
        let proceed: @Sendable () -> Void = {
            self.rejoined()
            goOn()
        }
        if self.core.threads.rejoin(blocksThread: false, proceed) { proceed() }
    }

    @available(*, noasync)
    private func rejoinBlocking() {
        _ = self.moveSlot(.released, .rejoining)
        let parker = Parker()
        if !self.core.threads.rejoin(blocksThread: true, { parker.unpark() }) { _ = parker.park() }
        self.rejoined()
    }

    /// - Returns: Whether it has given the slot back now.
    func releaseSlot(blocksThread: Bool, isAsked: Bool = true) -> Bool {
        guard self.moveSlot(.held, .released) else { return false }
        let limit = self.core.configuration.maxReleasedSlots
        guard self.core.threads.leaveSlot(blocksThread: blocksThread, limit: limit, core: self.core) else {
            _ = self.moveSlot(.released, .held)
            guard isAsked else { return false }
            self.core.logger.warning(
                "a handler waits in its slot for a call that may wait for a slot: as many others as may have given theirs back",
                metadata: [
                    LogKeys.function: "\(self.function)", LogKeys.correlationID: "\(self.correlationID)",
                    LogKeys.reason: "maxReleasedSlots is \(limit)",
                ]
            )
            return false
        }
        self.core.post(.slotReleased(slot: self.slot, id: self.correlationID.rawValue, true))
        return true
    }

    private func rejoined() {
        // The handler has ended meanwhile: what waited here no longer belongs to it.
        guard self.moveSlot(.rejoining, .held) else { return self.core.threads.releaseSlot() }
        self.core.post(.slotReleased(slot: self.slot, id: self.correlationID.rawValue, false))
    }

    private func moveSlot(_ from: Slot, _ to: Slot) -> Bool {
        self.slotState
            .compareExchange(expected: from.rawValue, desired: to.rawValue, ordering: .acquiringAndReleasing).exchanged
    }

    /// Whether the handler holds its slot.
    var holdsSlot: Bool { self.slotState.load(ordering: .relaxed) == Slot.held.rawValue }

    // MARK: Waiting for calls

    /// The handler begins to wait for calls.
    ///
    /// - Returns: To be given back when it ends to.
    func beginWait(for calls: [AnyAsyncResult]) -> Int {
        let key = self.awaited.withLock { $0.begin(calls) }
        self.core.nestedWaits.add(1, ordering: .sequentiallyConsistent)
        if !self.core.mustLookAtWaits.load(ordering: .sequentiallyConsistent),
            !self.core.mustLookAtWaits.exchange(true, ordering: .relaxed)
        {
            self.core.waker.wake()
        }
        // A cancellation that came before the calls were noted is passed on here.
        if self.isCancelled { self.cancelNested(calls) }
        return key
    }

    /// What the handler calls ends with its request: nobody else waits for that.
    private func cancelNested(_ calls: [AnyAsyncResult]) {
        guard !self.isOver else { return }
        for call in calls where call.ends(with: self) { _ = call.cancel() }
    }

    func endWait(_ key: Int) {
        self.core.nestedWaits.subtract(1, ordering: .relaxed)
        _ = self.awaited.withLock { $0.end(key) }
    }

    /// The same for a wait that blocked the thread; waits for a slot if the loop has given this one's back.
    @available(*, noasync)
    func endWaitBlocking(_ key: Int) {
        self.core.nestedWaits.subtract(1, ordering: .relaxed)
        if self.awaited.withLock({ $0.end(key) }) { self.rejoinBlocking() }
    }

    /// Whether the handler waits, and for nothing but a slot, or calls that wait for slots.
    func waitsForSlots(at now: Instant) -> Bool {
        self.slotState.load(ordering: .relaxed) == Slot.rejoining.rawValue
            || self.awaited.withLock { $0.waitForSlots(at: now) }
    }

    /// Whether it waits for nothing that a slot would help: only for calls that are held, for limits or ordering keys.
    var waitsForHeld: Bool {
        self.slotState.load(ordering: .relaxed) != Slot.rejoining.rawValue && self.awaited.withLock { $0.areHeld }
    }

    /// Gives the slot of a synchronous handler back, whose thread is blocked in such a wait.
    func giveSlotBackWhileBlocked(at now: Instant) -> Bool {
        self.awaited.withLock { awaited in
            guard awaited.waitForSlots(at: now), self.releaseSlot(blocksThread: true, isAsked: false) else {
                return false
            }
            awaited.hasLostSlot = true
            return true
        }
    }

    /// The handler ends.
    ///
    /// - Returns: Whether it holds its slot.
    func endsHoldingSlot() -> Bool {
        self.slotState.exchange(Slot.ended.rawValue, ordering: .acquiringAndReleasing) == Slot.held.rawValue
    }

    func cancel(because reason: CancellationReason) {
        _ = self.cancelled.compareExchange(expected: 0, desired: reason.number, ordering: .sequentiallyConsistent)
        for wait in self.waits.withLock({ exchange(&$0, with: []) }) { wait.finish(.failure(CancellationError())) }
        self.cancelNested(self.awaited.withLock { $0.calls })
        let run = self.isolatedRun.withLock { $0 }
        if reason == .hardTimeLimit { run?.kill(within: .zero) } else { run?.kill() }
    }

    /// The handler has ended; callbacks that it leaves behind are used without regard to its cancellation.
    func ended() { self.hasEnded.store(true, ordering: .relaxed) }

    /// The handler begins to wait: that ends when the request is cancelled.
    func begin(_ wait: PendingReply) {
        self.waits.withLock { $0.append(wait) }
        guard self.cancelled.load(ordering: .sequentiallyConsistent) != 0, !self.isOver else { return }
        wait.finish(.failure(CancellationError()))
    }

    func end(_ wait: PendingReply) { self.waits.withLock { $0.removeAll { $0 === wait } } }
}

extension JobContext: Told {
    var isOver: Bool { self.hasEnded.load(ordering: .relaxed) }

    func question(_ nonce: UInt64, in session: Int, of loop: WorkerLoop) -> (header: Header, payload: [UInt8]) {
        let payload = QuestionSubject.payload(self.correlationID.rawValue)
        return (Header(.ping, id: nonce, time: QuestionSubject.progress.rawValue), payload)
    }

    /// Progress was sent; returns whether the peer is to be asked how far it is.
    func sent(_ units: Int) -> Bool { self.progress.withLock { $0.window.sent(units) } }

    func read() -> Bool {
        let (mustAsk, waiters) = self.progress.withLock { progress in
            let mustAsk = progress.window.answered()
            return (mustAsk, progress.window.isHalfEmpty ? exchange(&progress.waiters, with: []) : [])
        }
        for waiter in waiters { waiter.finish(.success([])) }
        return mustAsk
    }
}

extension JobContext: RoomGiver {
    func take(_ block: RequestBytes, orTell waiter: PendingReply?) -> Bool {
        self.progress.withLock { progress in
            guard progress.window.hasRoom else {
                if let waiter { progress.waiters.append(waiter) }
                return false
            }
            progress.window.take(EventWindow.units(ofPayload: block.payloadCount))
            // Under the lock, so that what several threads of a handler report goes out by its numbers.
            self.core.post(.progress(self, self.lastSequence.add(1, ordering: .relaxed).oldValue, block))
            return true
        }
    }

    func forget(_ waiter: PendingReply) { self.progress.withLock { $0.waiters.removeAll { $0 === waiter } } }

    func heldBack() { self.core.counters.eventsHeldBack.count() }
}
