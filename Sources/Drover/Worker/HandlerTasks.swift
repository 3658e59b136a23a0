// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// Runs the tasks of one asynchronous handler, its children's too, and knows whether any of them has something to do.
///
/// So its slot can be given back while all of them wait: what comes then waits for a slot before it runs. Tasks without
/// structure, and actors with executors of their own, run elsewhere; they never counted.
final class HandlerTasks: TaskExecutor {
    private enum Slot {
        case held
        /// Given back while nothing of the handler was to be run.
        case released
        /// Something is to be run, and waits for a slot.
        case rejoining
    }

    private struct State: ~Copyable {
        var slot = Slot.held
        /// Jobs that run or wait for a thread.
        var busy = 0
        /// Jobs that wait for a slot.
        var waiting: [UnownedJob] = []
    }

    private let state = Mutex(State())
    private let context: JobContext

    init(_ context: JobContext) { self.context = context }

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        let (mayRun, mustRejoin) = self.state.withLock { state in
            if state.slot == .held {
                state.busy += 1
                return (true, false)
            }
            state.waiting.append(job)
            let isFirst = state.slot == .released
            state.slot = .rejoining
            return (false, isFirst)
        }
        if mayRun { TaskThreads.shared.enqueue(job, of: self) }
        if mustRejoin { self.context.rejoin { self.goOn() } }
    }

    /// There is a slot again.
    private func goOn() {
        let jobs = self.state.withLock { state in
            state.slot = .held
            state.busy += state.waiting.count
            defer { state.waiting = [] }
            return state.waiting
        }
        for job in jobs { TaskThreads.shared.enqueue(job, of: self) }
    }

    /// Runs a job on this thread.
    func run(_ job: UnownedJob) {
        unsafe job.runSynchronously(on: self.asUnownedTaskExecutor())
        self.state.withLock { $0.busy -= 1 }
    }

    /// Gives the slot back, if nothing of the handler is to be run.
    ///
    /// - Returns: Whether it has.
    func giveSlotBack() -> Bool {
        self.state.withLock { state in
            guard state.slot == .held, state.busy == 0,
                self.context.releaseSlot(blocksThread: false, isAsked: false)
            else { return false }
            state.slot = .released
            return true
        }
    }
}
