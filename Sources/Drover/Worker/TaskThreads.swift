// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import DroverRuntime
internal import DroverZMQ
internal import Glibc
internal import Synchronization

/// The threads that the tasks of asynchronous handlers and callbacks run on, as many as there are processors, for the whole process.
///
/// Swift's own pool, as it is on Linux, blocks all signals; a program that a handler starts would inherit that, and never
/// notice a SIGTERM. These take the signals that the program takes. They stay as long as the process, since a task
/// may go on after its worker has stopped.
final class TaskThreads: TaskExecutor {
    private struct State: ~Copyable {
        var queue = Deque<(job: UnownedJob, tasks: HandlerTasks?)>()
        var idle: [Parker] = []
        var threadCount = 0
    }

    static let shared = TaskThreads()

    private let state = Mutex(State())
    private let limit = max(2, sysconf(CInt(_SC_NPROCESSORS_ONLN)))

    func enqueue(_ job: consuming ExecutorJob) { self.enqueue(UnownedJob(job), of: nil) }

    /// Runs a job as soon as there is a thread for it.
    ///
    /// - Parameters:
    ///   - job: The job.
    ///   - tasks: Those of the handler that it belongs to, if it belongs to one.
    func enqueue(_ job: UnownedJob, of tasks: HandlerTasks?) {
        let (parker, isStranded) = self.state.withLock { state -> (Parker?, Bool) in
            if let parker = state.idle.popLast() {
                state.queue.append((job, tasks))
                return (parker, false)
            }
            if state.threadCount < self.limit { self.startThread(&state) }
            if state.threadCount > 0 { state.queue.append((job, tasks)) }
            return (nil, state.threadCount == 0)
        }
        parker?.unpark()
        // The system has not even one thread to give: better here than never.
        if isStranded { self.run(job, of: tasks) }
    }

    /// Sees to it that there is one thread at least, before a worker says that it is ready.
    ///
    /// - Throws: ``ZMQError`` if the system has no thread to give.
    func prepare() throws {
        try self.state.withLock { state in
            guard state.threadCount == 0 else { return }
            _ = try LoopThread.start(named: "drover-task", signals: .asInProgram) { self.serve() }
            state.threadCount = 1
        }
    }

    private func startThread(_ state: inout State) {
        // Without another thread the task waits for those there are; the next one tries again.
        guard (try? LoopThread.start(named: "drover-task", signals: .asInProgram) { self.serve() }) != nil else {
            return
        }
        state.threadCount += 1
    }

    private func run(_ job: UnownedJob, of tasks: HandlerTasks?) {
        if let tasks { tasks.run(job) } else { unsafe job.runSynchronously(on: self.asUnownedTaskExecutor()) }
    }

    private func serve() {
        let parker = Parker()
        while true {
            let next = self.state.withLock { state -> (job: UnownedJob, tasks: HandlerTasks?)? in
                if let next = state.queue.popFirst() { return next }
                state.idle.append(parker)
                return nil
            }
            if let next { self.run(next.job, of: next.tasks) } else { _ = parker.park() }
        }
    }
}
