// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverZMQ
internal import Synchronization

/// Serves a client in the background: for programs that own their pollers' lives.
///
/// A client starts its own unless ``ClientConfiguration/startsPoller`` is false. There is one poller per client: starting a
/// second gives the running one (contract S72).
public struct BackgroundPoller: Sendable {
    private let control: PollerControl

    /// Starts serving a client, or joins the poller that does.
    ///
    /// - Parameter client: The client to serve.
    /// - Throws: `ConnectionError` if the client was closed; an error of the system if it has no thread to give.
    public init(serving client: Client) throws {
        self.control = client.poller
        try client.poller.start()
    }

    /// Whether the client is being served.
    public var isRunning: Bool { self.control.isRunning }

    /// Starts again after a stop; the calls made before are served then.
    ///
    /// - Throws: As ``init(serving:)``.
    public func start() throws { try self.control.start() }

    /// Stops serving: the poller leaves its loop.
    ///
    /// Calls stay pending; waiting for them, or for one of the places for calls, throws `UsageError` with `notRunning` until
    /// a poller is started again (contract S68).
    ///
    /// In a callback it only asks for the stop and does not wait. Stopping again does nothing.
    ///
    /// - Parameter grace: How long to wait for the poller to leave.
    /// - Returns: Whether it has left.
    @discardableResult
    public func stop(grace: Duration = .seconds(5)) -> Bool { self.control.stop(grace: grace) }
}

/// Starts, stops and ends the poller's thread of one client.
final class PollerControl: Sendable {
    private let core: ClientCore
    private let thread = Mutex<LoopThread?>(nil)
    /// Serialises starts and stops; never taken by the poller.
    private let left = Mutex<ReadySignal<Void>?>(nil)
    private let endWaiters = Mutex<[Resumption<Void>]>([])

    init(core: ClientCore) { self.core = core }

    var isRunning: Bool { self.core.isRunning }

    func start() throws {
        try self.thread.withLock { thread in
            switch self.core.currentState {
            case .running, .closing: return
            case .closed: throw self.core.closedError
            case .stopping:
                // The former poller is about to leave; it brings the calls.
                _ = thread?.join()
            case .stopped: _ = thread?.join()
            }
            guard let callTable = self.core.callTable.withLock({ $0.take() }) else { throw self.core.closedError }
            _ = self.core.move(from: .stopped, to: .running)
            let core = self.core
            let cell = CallTableHandover(callTable)
            do {
                thread = try LoopThread.start(named: "drover-client") { Self.serve(core, cell, self) }
            } catch {
                _ = self.core.move(from: .running, to: .stopped)
                self.core.callTable.withLock { $0 = cell.take() }
                throw error
            }
        }
    }

    /// The poller's thread.
    private static func serve(_ core: ClientCore, _ cell: CallTableHandover, _ control: PollerControl) {
        guard let callTable = cell.take() else { return }
        core.pollerThread.store(ThreadID.current.number, ordering: .relaxed)
        let loop = ClientLoop(core: core, callTable: callTable)
        let left = loop.run()
        core.pollerThread.store(0, ordering: .relaxed)
        let cellLeft = CallTableHandover(left)
        core.callTable.withLock { $0 = cellLeft.take() }
        if !core.move(from: .stopping, to: .stopped) { core.finishClosing() }
        control.wakeEndWaiters()
    }

    func stop(grace: Duration) -> Bool {
        guard self.core.move(from: .running, to: .stopping) else { return self.join(within: grace) }
        self.core.waker.wake()
        self.core.refusePlaces()
        return self.join(within: grace)
    }

    /// Waits for the poller's thread, unless this is a thread that it might be waiting for.
    @discardableResult
    func join(within limit: Duration) -> Bool {
        if self.core.isOwnThread { return false }
        guard let thread = self.thread.withLock({ $0 }) else { return true }
        return thread.join(within: limit)
    }

    func beginClose(grace: Duration) {
        self.core.closeDeadline.store(
            self.core.now().advanced(byNanoseconds: grace.clampedNanoseconds).nanoseconds,
            ordering: .relaxed
        )
        if self.core.move(from: .running, to: .closing) {
            self.core.waker.wake()
        } else if self.core.move(from: .stopped, to: .closing) || self.core.move(from: .stopping, to: .closing) {
            // Nobody serves the calls that are left: they are lost here.
            self.join(within: .seconds(1))
            self.core.loseAllWithoutPoller()
            self.core.finishClosing()
            self.wakeEndWaiters()
        }
    }

    /// Suspends until the client is closed.
    func ended() async {
        await withResumption { continuation in
            let isOver = self.endWaiters.withLock { waiters in
                if self.core.currentState == .closed { return true }
                waiters.append(continuation)
                return false
            }
            if isOver { continuation.resume() }
        }
    }

    private func wakeEndWaiters() {
        guard self.core.currentState == .closed else { return }
        let waiters = self.endWaiters.withLock { waiters in
            defer { waiters = [] }
            return waiters
        }
        for waiter in waiters { waiter.resume() }
    }

    /// The client was dropped: nobody can make calls any more, and no handle holds one that is pending.
    func abandon() { self.beginClose(grace: .zero) }
}

/// Hands a call table from one thread to the next.
final class CallTableHandover: Sendable {
    private let callTable: Mutex<CallTable?>

    init(_ callTable: consuming CallTable) { self.callTable = Mutex(consume callTable) }

    func take() -> CallTable? { self.callTable.withLock { $0.take() } }
}
