// SPDX-License-Identifier: Apache-2.0
import Foundation
import Synchronization

/// The worker processes that this program started.
///
/// Every way out of the program leads through `endAll`.
final class WorkerProcesses: Sendable {
    struct Entry: Sendable {
        let endpoint: String
        let pid: Int32
        let process: Process
        let input: FileHandle
    }

    private struct State: Sendable {
        var entries: [Entry] = []
        var isOver = false
    }

    private let state = Mutex(State())

    var all: [Entry] { self.state.withLock { $0.entries } }

    /// Starts this very executable in the role of a worker, and waits for its address.
    func start() throws {
        let process = Process()
        let input = Pipe()
        let output = Pipe()
        process.executableURL = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
        process.arguments = ["worker", "tcp://127.0.0.1:*"]
        process.standardInput = input
        process.standardOutput = output
        let pid = try self.state.withLock { state in
            guard !state.isOver else { throw Failure("interrupted") }
            try process.run()
            let pid = process.processIdentifier
            state.entries.append(Entry(endpoint: "", pid: pid, process: process, input: input.fileHandleForWriting))
            return pid
        }
        let line = String(decoding: output.fileHandleForReading.availableData, as: UTF8.self)
        guard line.hasPrefix("tcp://"), line.hasSuffix("\n") else { throw Failure("worker \(pid) did not start") }
        self.state.withLock { state in
            for index in state.entries.indices where state.entries[index].pid == pid {
                let known = state.entries[index]
                state.entries[index] = Entry(
                    endpoint: String(line.dropLast()),
                    pid: pid,
                    process: known.process,
                    input: known.input
                )
            }
        }
    }

    /// Kills one, as a crash or the kernel would.
    func killWorker(_ pid: Int32) {
        for entry in self.all where entry.pid == pid && entry.process.isRunning { kill(pid, SIGKILL) }
    }

    /// Ends all: politely first, if there is time, then by force.
    func endAll(politely: Bool) {
        let entries = self.state.withLock { state in
            state.isOver = true
            defer { state.entries = [] }
            return state.entries
        }
        if politely {
            for entry in entries { try? entry.input.close() }
            let deadline = ContinuousClock.now + .seconds(2)
            while entries.contains(where: { $0.process.isRunning }), ContinuousClock.now < deadline {
                Thread.sleep(forTimeInterval: 0.01)
            }
        }
        for entry in entries where entry.process.isRunning { kill(entry.pid, SIGKILL) }
    }
}
