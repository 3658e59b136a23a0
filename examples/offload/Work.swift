// SPDX-License-Identifier: Apache-2.0
import Dispatch
import Drover
import Foundation
import Synchronization

/// What became of the calls.
struct WorkOutcome: Sendable {
    var digests: [String: Digest] = [:]
    /// Files that the worker could not read, with its reason.
    var unreadable: [String: String] = [:]
    /// Calls that ended in any other way.
    var failures: [String: String] = [:]
    var bytes = 0
    var seconds = 0.0
    var killedWorker: Int32?

    var ended: Int { self.digests.count + self.unreadable.count + self.failures.count }
}

/// Makes a call for each file, a bounded number at a time.
struct Work {
    private static let maxOutstanding = 64

    private let files: FileList
    private let checksum: AsyncFunction<String, Digest>
    private let workers: WorkerProcesses
    private let notes: Notes
    private let tally = Tally()

    init(files: FileList, client: Client, workers: WorkerProcesses, notes: Notes) {
        self.files = files
        self.checksum = async(client.function(.checksum))
        self.workers = workers
        self.notes = notes
    }

    /// Runs all calls to their end.
    ///
    /// - Parameter victim: The worker that is killed half way, if any.
    /// - Returns: What became of them.
    func run(killing victim: Int32?) -> WorkOutcome {
        var progress = Progress(total: self.files.paths.count)
        for (index, path) in self.files.paths.enumerated() {
            self.takePlace(showing: &progress)
            if let victim, index == self.files.paths.count / 2 {
                self.workers.killWorker(victim)
                self.tally.state.withLock { $0.killedWorker = victim }
                progress.note("killed worker \(victim) (SIGKILL) after \(index) calls")
            }
            self.call(path)
        }
        // All places taken means that no call is left.
        for _ in 0..<Self.maxOutstanding { self.takePlace(showing: &progress) }
        progress.clear()
        var outcome = self.tally.state.withLock { $0 }
        outcome.seconds = progress.elapsed
        // Whole again, as a semaphore must be when it goes.
        for _ in 0..<Self.maxOutstanding { self.tally.places.signal() }
        return outcome
    }

    private func call(_ path: String) {
        let tally = self.tally
        do {
            // Runs on the client's callback thread, whichever way the call ends.
            try self.checksum(path).addCallback { result in tally.record(path, result.outcome) }
        } catch {
            tally.record(path, failure: error)
        }
    }

    private func takePlace(showing progress: inout Progress) {
        repeat {
            for line in self.notes.take() { progress.note(line) }
            let (ended, bytes) = self.tally.state.withLock { ($0.ended, $0.bytes) }
            progress.show(done: ended, bytes: bytes)
        } while self.tally.places.wait(timeout: .now() + .milliseconds(100)) == .timedOut
    }

    /// What the callbacks write and the main thread reads.
    private final class Tally: Sendable {
        let state = Mutex(WorkOutcome())
        let places = DispatchSemaphore(value: Work.maxOutstanding)

        func record(_ path: String, _ outcome: Outcome<Digest>?) {
            self.state.withLock { state in
                switch outcome {
                case .value(let digest):
                    state.digests[path] = digest
                    state.bytes += digest.bytes
                case .failed(let error):
                    if let cause = error.decode(as: FileError.self) {
                        state.unreadable[path] = "\(cause)"
                    } else {
                        state.failures[path] = "\(error)"
                    }
                case .expired(let error): state.failures[path] = "\(error)"
                case .lost(let error): state.failures[path] = "\(error)"
                case .cancelled, nil: state.failures[path] = "cancelled"
                }
            }
            self.places.signal()
        }

        func record(_ path: String, failure: any Error) {
            self.state.withLock { $0.failures[path] = "\(failure)" }
            self.places.signal()
        }
    }
}
