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
    }

    private let state = Mutex(State())
    private let parker = Parker()

    func run(_ work: @escaping @Sendable () -> Void) {
        self.state.withLock { state in
            state.work.append(work)
            if state.thread == nil {
                // Without a thread the work stays queued, and the next callback tries again.
                state.thread = try? LoopThread.start(named: "drover-callback") { self.loop() }
            }
        }
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
