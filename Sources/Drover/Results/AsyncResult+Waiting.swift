// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverRuntime
internal import DroverZMQ
internal import Synchronization

extension AnyAsyncResult {
    /// Blocks this thread until the call has ended.
    ///
    /// Returns for a value and for a remote error; repeated calls do the same at once (contract S14). Not for tasks: they
    /// `await` the ``AsyncResult/value``.
    ///
    /// - Throws: `AsyncResultTimeout`, `CancellationError` or `ConnectionError` if the call ended so; `UsageError` if
    ///   this thread would have to end the wait itself, or the poller is stopped.
    @available(*, noasync, message: "await the result's value instead")
    public final func wait() throws {
        _ = try self.waitHere(until: .distantFuture)
    }

    /// Blocks this thread until the call has ended or `timeout` has passed; the handle stays as it is if it has.
    ///
    /// - Parameter timeout: How long to wait; zero or less looks once.
    /// - Returns: False if the wait was given up.
    /// - Throws: As ``wait()``.
    @available(*, noasync, message: "await the result's value instead")
    public final func wait(timeout: Duration) throws -> Bool {
        try self.waitHere(until: self.client.now().advanced(byNanoseconds: timeout.clampedNanoseconds))
    }

    @available(*, noasync)
    private func waitHere(until giveUp: Instant) throws -> Bool {
        if !self.isTerminal {
            let job = CurrentJob.ofThread
            let wait = job?.beginWait(for: [self])
            let block = CallbackQueue.current?.block(for: self, waiter: .thread(.current))
            defer {
                block?.end()
                if let job, let wait { job.endWaitBlocking(wait) }
            }
            guard try self.park(until: giveUp, block) else { return false }
        }
        try self.throwUnlessAnswered()
        return true
    }

    /// - Returns: False if the wait was given up.
    @available(*, noasync)
    private func park(until giveUp: Instant, _ block: BlockedCallback?) throws -> Bool {
        while !self.isTerminal {
            try self.client.checkWaiting()
            if let block, block.isDeadlock { throw UsageError.asksBack(self) }
            let parker = Parker.current
            guard self.add(.thread(parker)) else { break }
            // The poller may have been stopped between the check and the registration: then nobody ends this wait. So may
            // a question have come that waits for this thread.
            if self.client.isStopped || block?.isDeadlock ?? false, self.withdraw(.thread(parker)) != nil { continue }
            if !parker.park(until: giveUp.nanoseconds), self.withdraw(.thread(parker)) != nil { return false }
        }
        return true
    }

    /// Throws for the ends that are neither value nor remote error.
    private func throwUnlessAnswered() throws {
        switch self.currentStatus {
        case .pending, .value, .failed: break
        case .cancelled: throw CancellationError()
        case .expired, .lost:
            switch self.storedFailure {
            case .remote(let error): throw error
            case .timeout(let error): throw error
            case .connection(let error): throw error
            case nil: break
            }
        }
    }

    /// Suspends until the call has ended.
    @usableFromInline
    final func ended() async throws {
        if self.isTerminal { return }
        try self.client.checkRunning()
        let job = CurrentJob.ofTask
        let wait = job?.beginWait(for: [self])
        let key = self.client.nextWaiterKey()
        let block = CallbackQueue.ofTask?.block(for: self, waiter: .task(key))
        defer {
            block?.end()
            if let job, let wait { job.endWait(wait) }
        }
        if let block, block.isDeadlock { throw UsageError.asksBack(self) }
        let answer = await withTaskCancellationHandler {
            await withResumption { continuation in
                self.add(task: key, continuation)
                // The question may have come before there was a continuation to resume.
                if let block, block.isDeadlock, case .task(_, let own)? = self.withdraw(.task(key)) {
                    own.resume(returning: .ended)
                }
            }
        } onCancel: {
            self.cancelTask(key)
        }
        switch answer {
        case .cancelled:
            self.forgetTask(key)
            throw CancellationError()
        case .ended:
            // A task that is dismissed because the poller stopped finds the call still pending.
            if !self.isTerminal {
                throw block?.isDeadlock ?? false ? UsageError.asksBack(self) : UsageError.notRunning
            }
        }
    }
}

extension AsyncResult {
    /// Blocks this thread until the call has ended, then returns its value.
    ///
    /// - Returns: The value; the same for every reader (contract S15).
    /// - Throws: The outcome's error: `RemoteError`, `AsyncResultTimeout`, `ConnectionError` or `CancellationError`;
    ///   `UsageError` if this thread can't wait.
    @available(*, noasync, message: "await the result's value instead")
    @inlinable
    public func get() throws -> Value {
        if let value = self.readyValue { return value }
        return try self.waitAndGet()
    }

    @usableFromInline
    @available(*, noasync)
    func waitAndGet() throws -> Value {
        if let outcome { return try outcome.get() }
        do { try self.wait() } catch let error as UsageError { throw error } catch {}
        if let value = self.readyValue { return value }
        return try self.finalOutcome.get()
    }

    /// The value, once the call has ended.
    ///
    /// Suspends without holding a thread.
    ///
    /// Cancelling the waiting task ends this wait only, with `CancellationError`; the call goes on (contract S24), unless
    /// it was made with ``CallOptions/cancelsWithWaiter``.
    ///
    /// - Throws: The outcome's error, as ``get()``.
    @inlinable
    public var value: Value {
        get async throws {
            if let value = self.readyValue { return value }
            if !self.isTerminal { try await self.ended() }
            if let value = self.readyValue { return value }
            return try self.failed()
        }
    }

    @usableFromInline
    func failed() throws -> Value { try self.finalOutcome.get() }

    private var finalOutcome: Outcome<Value> {
        get throws {
            guard let outcome else { throw UsageError.notRunning }
            return outcome
        }
    }
}
