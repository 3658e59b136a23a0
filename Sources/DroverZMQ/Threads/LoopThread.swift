// SPDX-License-Identifier: Apache-2.0

import CDroverZMQ
import Glibc
import Synchronization

/// A thread of our own, for loops that own sockets or block, and for handlers and callbacks.
package final class LoopThread: Sendable {
    /// Which signals may be delivered to a thread; whatever it starts, programs above all, inherits this.
    package enum Signals: Sendable {
        /// None but those that a thread raises itself through a fault: for our own loops.
        case blocked
        /// Those that the program's main thread takes: for threads that run users' code.
        case asInProgram
    }

    private let thread: pthread_t
    private let finished: ReadySignal<Void>
    private let isClaimed = Atomic(false)
    private let joined = ReadySignal<Void>()

    private init(thread: pthread_t, finished: ReadySignal<Void>) {
        self.thread = thread
        self.finished = finished
    }

    deinit {
        // Without a join, the system would keep the thread's stack.
        if !self.isClaimed.load(ordering: .acquiring) { pthread_detach(self.thread) }
    }

    /// Starts a thread that runs `body` and ends.
    ///
    /// To know when the body is ready, let it set a ``ReadySignal``.
    ///
    /// - Parameters:
    ///   - name: What debuggers and `top` show, up to 15 bytes.
    ///   - signals: Which signals the thread takes.
    ///   - body: What the thread does.
    /// - Returns: The running thread.
    /// - Throws: ``ZMQError`` if the system can't start a thread.
    package static func start(
        named name: String,
        signals: Signals = .blocked,
        _ body: @escaping @Sendable () -> Void
    ) throws(ZMQError) -> LoopThread {
        let finished = ReadySignal<Void>()
        var mask: sigset_t?
        if signals == .asInProgram { mask = ProgramSignals.mainMask() ?? ProgramSignals.currentMask() }
        let work = Work(name: name, mask: mask, body: body, finished: finished)
        let argument = unsafe Unmanaged.passRetained(work).toOpaque()
        // A thread inherits the mask, so it is set here first: set later, a signal could slip in.
        let former = Self.blockSignals()
        var thread = pthread_t()
        let code = unsafe pthread_create(&thread, nil, { unsafe runWork($0) }, argument)
        Self.restoreSignals(former)
        guard code == 0 else {
            unsafe Unmanaged<Work>.fromOpaque(argument).release()
            throw ZMQError(errno: code, .startThread, name)
        }
        return LoopThread(thread: thread, finished: finished)
    }

    /// Whether the caller is running on this thread.
    @available(*, noasync)
    package var isCurrent: Bool {
        // The system gives a joined thread's id to later threads.
        pthread_equal(self.thread, pthread_self()) != 0 && self.joined.current == nil
    }

    /// Waits until the thread has ended; several threads may call this, and call it again later.
    ///
    /// - Parameter limit: How long to wait at most; nil waits forever.
    /// - Returns: Whether it has ended. Always false on the thread itself, which can't wait for its own end.
    @available(*, noasync)
    @discardableResult
    package func join(within limit: Duration? = nil) -> Bool {
        guard !self.isCurrent else { return false }
        let deadline = limit.map { MonotonicClock.deadline(after: $0) } ?? MonotonicClock.never
        guard self.finished.wait(until: deadline) != nil else { return false }
        // One of the waiting threads joins, and the others wait for it. The body is done, so both are short.
        if !self.isClaimed.exchange(true, ordering: .acquiringAndReleasing) {
            // Fails only for a thread that has already been joined.
            _ = pthread_join(self.thread, nil)
            self.joined.set(())
        }
        self.joined.wait()
        return true
    }

    private static func blockSignals() -> sigset_t {
        var (blocked, old) = (sigset_t(), sigset_t())
        unsafe sigfillset(&blocked)
        // A fault whose signal is blocked kills the process without a report.
        for fault in [SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP] {
            unsafe sigdelset(&blocked, fault)
        }
        unsafe pthread_sigmask(SIG_SETMASK, &blocked, &old)
        return old
    }

    fileprivate static func restoreSignals(_ mask: sigset_t) {
        var mask = mask
        unsafe pthread_sigmask(SIG_SETMASK, &mask, nil)
    }
}

/// What a new thread needs to know.
private final class Work: Sendable {
    let name: String
    /// The signals that the thread blocks from now on; nil leaves the mask it was started with.
    let mask: sigset_t?
    let body: @Sendable () -> Void
    let finished: ReadySignal<Void>

    init(name: String, mask: sigset_t?, body: @escaping @Sendable () -> Void, finished: ReadySignal<Void>) {
        self.name = name
        self.mask = mask
        self.body = body
        self.finished = finished
    }
}

/// The first function of a new thread.
private func runWork(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    guard let argument = unsafe argument else { return nil }
    let finished: ReadySignal<Void>
    do {
        let work = unsafe Unmanaged<Work>.fromOpaque(argument).takeRetainedValue()
        finished = work.finished
        unsafe drover_name_thread(work.name)
        if let mask = work.mask { LoopThread.restoreSignals(mask) }
        work.body()
        // Leaving the scope releases the body and all it holds before anyone learns that the thread is done.
    }
    finished.set(())
    return nil
}
