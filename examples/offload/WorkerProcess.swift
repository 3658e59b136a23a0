// SPDX-License-Identifier: Apache-2.0
import Foundation
import Synchronization

/// The processes that this program started: workers, and a broker in a pool.
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

    /// What a process does.
    enum Role {
        case worker
        /// A worker that dials a broker.
        case dialling(String)
        case broker(String)

        var arguments: [String] {
            switch self {
            case .worker: ["worker", "tcp://127.0.0.1:*"]
            case .dialling(let broker): ["dial", broker]
            case .broker(let address): ["broker", address]
            }
        }
    }

    /// Starts this very executable in a role, and waits for its address.
    @discardableResult
    func start(_ role: Role) throws -> Entry {
        let process = Process()
        let input = Pipe()
        let output = Pipe()
        process.executableURL = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
        process.arguments = role.arguments
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
        guard line.hasPrefix("tcp://"), line.hasSuffix("\n") else { throw Failure("process \(pid) did not start") }
        let entry = Entry(
            endpoint: String(line.dropLast()),
            pid: pid,
            process: process,
            input: input.fileHandleForWriting
        )
        self.state.withLock { state in
            for index in state.entries.indices where state.entries[index].pid == pid { state.entries[index] = entry }
        }
        return entry
    }

    /// Kills one, as a crash or the kernel would, and waits until it is gone.
    func killProcess(_ pid: Int32) {
        for entry in self.all where entry.pid == pid && entry.process.isRunning {
            kill(pid, SIGKILL)
            entry.process.waitUntilExit()
        }
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
