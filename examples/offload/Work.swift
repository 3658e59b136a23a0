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
    var killedBroker: Int32?

    var ended: Int { self.digests.count + self.unreadable.count + self.failures.count }
}

/// Something that goes wrong on purpose.
struct Incident {
    /// Before which call.
    let index: Int
    /// The worker that it ends, if it does.
    var worker: Int32?
    /// The broker that it ends, if it does.
    var broker: Int32?
    /// Does it, and says what it did.
    let happen: () throws -> String

    /// Half way a worker is killed; in a pool another one is started, and later the broker dies and comes back.
    static func all(
        of workers: [WorkerProcesses.Entry],
        _ broker: WorkerProcesses.Entry?,
        _ processes: WorkerProcesses,
        files: Int
    ) -> [Incident] {
        guard let victim = workers.first else { return [] }
        var incidents = [
            Incident(index: files / 2, worker: victim.pid) {
                processes.killProcess(victim.pid)
                guard let broker else { return "killed worker \(victim.pid) (SIGKILL)" }
                let next = try processes.start(.dialling(broker.endpoint))
                return "killed worker \(victim.pid) (SIGKILL) and started worker \(next.pid)"
            }
        ]
        if let broker {
            incidents.append(
                Incident(index: files * 2 / 3, broker: broker.pid) {
                    processes.killProcess(broker.pid)
                    let next = try processes.start(.broker(broker.endpoint))
                    return "killed broker \(broker.pid) (SIGKILL) and started broker \(next.pid)"
                }
            )
        }
        return incidents
    }
}

/// Makes a call for each file, a bounded number at a time.
struct Work {
    private static let maxOutstanding = 64

    private let files: FileList
    private let checksum: AsyncFunction<String, Digest>
    private let notes: Notes
    private let tally = Tally()

    init(files: FileList, client: Client, notes: Notes) {
        self.files = files
        self.checksum = async(client.function(.checksum))
        self.notes = notes
    }

    /// Runs all calls to their end.
    ///
    /// - Parameter incidents: What happens on the way.
    /// - Returns: What became of them.
    /// - Throws: What an incident throws: a process that could not be started.
    func run(_ incidents: [Incident]) throws -> WorkOutcome {
        var progress = Progress(total: self.files.paths.count)
        for (index, path) in self.files.paths.enumerated() {
            self.takePlace(showing: &progress)
            for incident in incidents where incident.index == index {
                self.tally.state.withLock { outcome in
                    outcome.killedWorker = incident.worker ?? outcome.killedWorker
                    outcome.killedBroker = incident.broker ?? outcome.killedBroker
                }
                progress.note("\(try incident.happen()) after \(index) calls")
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
