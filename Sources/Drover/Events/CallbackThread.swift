// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import DroverZMQ
internal import Synchronization

/// The thread that runs a client's callbacks unless another executor is given.
///
/// It starts with the first callback.
final class CallbackThread: CallbackExecutor {
    private struct State: ~Copyable {
        var work = Deque<@Sendable () -> Void>()
        var thread: LoopThread?
        var isStopping = false
        /// The system was asked for the thread, and had none to give.
        var isShort = false
    }

    private let state = Mutex(State())
    private let parker = Parker()
    private let isShort = Atomic<Bool>(false)
    private let onShortage: @Sendable (ZMQError) -> Void

    /// - Parameter onShortage: Called, once until it is over, when the system has no thread to give: ``start()`` asks again.
    init(onShortage: @escaping @Sendable (ZMQError) -> Void) { self.onShortage = onShortage }

    /// Whether callbacks wait since there is no thread to run them.
    var lacksThread: Bool { self.isShort.load(ordering: .relaxed) }

    /// Asks again for the thread.
    func start() {
        let error = self.state.withLock { state in state.work.isEmpty ? nil : self.startIfNeeded(&state) }
        if let error { self.onShortage(error) }
    }

    /// - Returns: Why there is no thread, the first time.
    private func startIfNeeded(_ state: inout State) -> ZMQError? {
        guard state.thread == nil else { return nil }
        do throws(ZMQError) {
            state.thread = try LoopThread.start(named: "drover-callback", signals: .asInProgram) { self.loop() }
            state.isShort = false
            self.isShort.store(false, ordering: .relaxed)
            return nil
        } catch {
            defer { state.isShort = true }
            self.isShort.store(true, ordering: .relaxed)
            return state.isShort ? nil : error
        }
    }

    func run(_ work: @escaping @Sendable () -> Void) {
        let error = self.state.withLock { state in
            state.work.append(work)
            return self.startIfNeeded(&state)
        }
        if let error { self.onShortage(error) }
        self.parker.unpark()
    }

    /// Whether this is that thread.
    var isCurrent: Bool { self.state.withLock { $0.thread?.isCurrent ?? false } }

    /// Ends the thread after what was queued before.
    func stop() {
        self.state.withLock { $0.isStopping = true }
        self.parker.unpark()
    }

    private func loop() {
        while true {
            let (work, isOver) = self.state.withLock { state in
                let work = state.work.popFirst()
                let isOver = work == nil && state.isStopping
                // A callback registered on an ended call of a closed client still runs: the next one starts a thread again.
                if isOver { state.thread = nil }
                return (work, isOver)
            }
            if let work {
                work()
            } else if isOver {
                return
            } else {
                _ = self.parker.park()
            }
        }
    }
}
