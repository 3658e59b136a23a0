// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverRuntime
internal import DroverZMQ
internal import Logging
internal import Synchronization

/// One call of an isolated handler: a thread of the worker waits while a child works.
final class IsolatedRun: Sendable {
    private struct State {
        var child: IsolatedChild?
        /// What the call comes to, since it was killed.
        var verdict: (any Error)?
        /// How long the child has to end; nil takes the pool's grace.
        var grace: Duration?
    }

    private let context: JobContext
    private let function: IsolatedFunction
    private let state = Mutex(State())

    init(context: JobContext, function: IsolatedFunction) {
        self.context = context
        self.function = function
    }

    /// Ends the call, its child and all processes that the child has started.
    ///
    /// They are asked by SIGTERM and killed after the grace; any thread may call this, which waits for nothing.
    ///
    /// - Parameters:
    ///   - error: What the call comes to; by default that it was cancelled.
    ///   - grace: How long they have before they are killed; nil takes the pool's grace.
    func kill(throwing error: any Error = CancellationError(), within grace: Duration? = nil) {
        self.state.withLock { state in
            guard state.verdict == nil else { return }
            state.verdict = error
            state.grace = grace
            state.child?.waker.wake()
        }
    }

    /// Runs the handler in a child, and writes its result.
    @available(*, noasync)
    func run(in pool: IsolationPool, _ arguments: UnsafeRawBufferPointer, _ writer: inout PackWriter) throws {
        guard pool.begin(self) else { throw CancellationError() }
        defer { pool.end(self) }
        self.context.isolatedRun.withLock { $0 = self }
        defer { self.context.isolatedRun.withLock { $0 = nil } }
        // It may have been cancelled before it could be killed.
        try self.context.checkCancellation()
        let child = try self.child(of: pool)
        do {
            try unsafe self.call(child, pool, arguments, &writer)
        } catch let failure as ByteLink.Failure {
            throw self.end(child, pool, after: failure, "ended the child process")
        } catch let error as CodecError {
            // The result was not read to its end, so the child can't be used again.
            child.process.end()
            throw ResultError(cause: error)
        } catch {
            self.release(child, to: pool)
            throw error
        }
        self.release(child, to: pool)
    }

    /// A child that serves.
    @available(*, noasync)
    private func child(of pool: IsolationPool) throws -> IsolatedChild {
        if let child = pool.takeIdle() {
            self.hold(child)
            return child
        }
        let core = self.context.core
        let child: IsolatedChild
        do throws(ZMQError) {
            child = try IsolatedChild(pool.invitation)
        } catch {
            let message = "\(self.function.name) was not run: \(error)"
            throw IsolationError(
                body: ErrorBody(code: .internal, message: message, isRetryable: true, worker: core.name)
            )
        }
        self.hold(child)
        do throws(ByteLink.Failure) { try child.waitUntilReady(worker: core.name) } catch {
            throw self.end(child, pool, after: error, "did not come to start its worker")
        }
        return child
    }

    /// From now on a kill wakes those that wait for this child.
    private func hold(_ child: IsolatedChild) {
        self.state.withLock { state in
            state.child = child
            if state.verdict != nil { child.waker.wake() }
        }
    }

    @available(*, noasync)
    private func release(_ child: IsolatedChild, to pool: IsolationPool) {
        self.state.withLock { $0.child = nil }
        // A kill that came too late must not hit the next call.
        child.waker.drain()
        pool.giveBack(child)
    }

    @available(*, noasync)
    private func call(
        _ child: IsolatedChild,
        _ pool: IsolationPool,
        _ arguments: UnsafeRawBufferPointer,
        _ writer: inout PackWriter
    ) throws {
        let number = pool.functions.firstIndex { $0 === self.function } ?? pool.functions.count
        let waker = child.waker
        try unsafe ChildFrame(.call, function: number).write(to: child.link, arguments, until: waker)
        let answer = try ChildFrame(from: child.link, until: waker)
        switch answer.kind {
        case .value:
            let start = try writer.appendZeros(answer.payloadCount)
            try unsafe writer.withMutableBytes(in: start..<start + answer.payloadCount) {
                buffer throws(ByteLink.Failure) in try unsafe child.link.read(into: buffer, until: waker)
            }
        case .error:
            // What runs in the child may have taken it over and write what it likes.
            let bytes = try answer.readPayload(from: child.link, until: waker, limit: pool.maxErrorBytes)
            let body = unsafe bytes.withUnsafeBytes { unsafe ErrorBody(reading: $0) }
            throw IsolationError(body: body ?? ErrorBody(code: .internal, message: "an unreadable error"))
        case .begin, .ready, .call: throw ByteLink.Failure.ended
        }
    }

    /// Ends a child that can't go on.
    ///
    /// - Returns: What the caller is told.
    @available(*, noasync)
    private func end(
        _ child: IsolatedChild,
        _ pool: IsolationPool,
        after failure: ByteLink.Failure,
        _ what: String
    ) -> any Error {
        let (verdict, grace) = self.state.withLock { state in
            state.child = nil
            return (state.verdict, state.grace)
        }
        if let verdict {
            child.process.end(grace: grace ?? pool.grace)
            return verdict
        }
        // The stream ends a moment before the process does, a long one on a machine that has much else to do.
        let cause = failure == .ended ? child.process.wait(within: .seconds(5)) : nil
        child.process.end()
        let core = self.context.core
        var message = "\(self.function.name) \(what): "
        switch (failure, cause) {
        case (.ended, let cause?): message += "it \(cause)"
        case (.ended, nil): message += "it closed its socket"
        case (.tooLong(let count), _):
            message += "it announced an error of \(count) bytes, and \(pool.maxErrorBytes) are the most that is taken"
        case (.timedOut, _): message += "it took longer than \(IsolatedChild.startLimit)"
        case (.system(let errno), _): message += "error \(errno) on its socket"
        case (.woken, _): message += "it was given up"
        }
        core.logger.warning(
            "a child process is gone",
            metadata: [LogKeys.function: "\(self.function.name)", LogKeys.reason: "\(message)"]
        )
        return IsolationError(
            body: ErrorBody(
                code: .crashed,
                message: message,
                isRetryable: self.function.isIdempotent,
                worker: core.name
            )
        )
    }
}
