// SPDX-License-Identifier: Apache-2.0

internal import DroverRuntime
internal import DroverZMQ
internal import Synchronization

/// The two threads of a worker's loop: one serves, the other stands by.
///
/// The server lends the loop while it runs a handler that is expected to be quick. If the handler is not, the one standing
/// by takes the loop over and serves on; the other comes back, hands its answer in like any handler thread, and stands by.
/// Both may run handlers, and so take the signals that the program takes; whatever they wait in goes on after one.
/// So a ping is late by some five milliseconds at worst, and quick handlers cost no thread switch.
///
/// `@unchecked Sendable`: `loop` is touched only by the thread that holds `core.loopToken`, or before the threads start; the
/// token's release and acquire order the two.
final class WorkerLoopThreads: @unchecked Sendable {
    private let core: WorkerCore
    private var loop: WorkerLoop?
    private let threads = Mutex<[LoopThread]>([])
    private let finished = ReadySignal<Void>()

    init(core: WorkerCore) { self.core = core }

    /// Starts both threads.
    ///
    /// Returns the bound address once the worker listens, or nothing if it doesn't.
    func start(at address: String?, dialling brokers: [Endpoint]) throws -> String {
        let ready = ReadySignal<Result<String, ZMQError>>()
        let core = self.core
        let first = try LoopThread.start(named: "drover-worker", signals: .asInProgram) {
            DispatchDescriptors.open()
            do throws(ZMQError) {
                let loop = try WorkerLoop(core: core, address: address, brokers: brokers)
                let bound = try loop.address
                self.loop = loop
                _ = ready.set(.success(bound))
            } catch {
                _ = ready.set(.failure(error))
                return
            }
            self.serve()
        }
        let bound = try ready.wait().get()
        self.threads.withLock { $0.append(first) }
        // Without a second thread every handler runs on the handler threads, which is slower and nothing worse.
        if let second = try? LoopThread.start(named: "drover-standby", signals: .asInProgram, { self.standBy() }) {
            self.threads.withLock { $0.append(second) }
        }
        return bound
    }

    /// Serves as the holder of the token, until the worker stops or the loop is taken over.
    private func serve() {
        while let exit = self.runLoop() {
            switch exit {
            case .stopped:
                // Nothing else holds the loop, so this closes the socket, before anybody learns that the worker has left.
                self.loop = nil
                self.core.finish()
                self.core.loopToken.retire()
                _ = self.finished.set(())
                return
            case .takenOver:
                guard self.waitForTurn() else { return }
            }
        }
    }

    /// Runs the loop as the holder of the token; nil if there is none.
    private func runLoop() -> WorkerLoop.Exit? {
        guard let loop = self.loop else { return nil }
        loop.moveToCurrentThread()
        return loop.run()
    }

    private func standBy() {
        if self.waitForTurn() { self.serve() }
    }

    /// Stands by until this thread has taken the loop over.
    ///
    /// Returns false once the worker has stopped.
    private func waitForTurn() -> Bool {
        self.core.standbyCount.add(1, ordering: .relaxed)
        defer { self.core.standbyCount.subtract(1, ordering: .relaxed) }
        return self.core.loopToken.standByUntilTakenOver()
    }

    /// Whether the code that asks runs on one of the two threads, as a quick handler.
    @available(*, noasync)
    var isCurrent: Bool { self.threads.withLock { threads in threads.contains { $0.isCurrent } } }

    /// Waits until the loop has been left.
    func join(within limit: Duration) -> Bool {
        self.finished.wait(until: MonotonicClock.deadline(after: limit)) != nil
    }

}
