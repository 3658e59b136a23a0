// SPDX-License-Identifier: Apache-2.0

import DroverZMQ
import Foundation
import Synchronization
import Testing

/// A worker in a process of its own, to be killed, stopped and restarted.
final class WorkerProcess: Sendable {
    private let process: Mutex<Process>
    private let lines = Gathered<String>()
    private let output: Pipe
    let endpoint: String
    let pid: pid_t

    /// Starts a worker and waits until it listens.
    convenience init(at address: String = "tcp://127.0.0.1:*") throws {
        try self.init(arguments: ["serve", address], isWorker: true)
    }

    /// Starts the helper in another role.
    init(arguments: [String], isWorker: Bool = false) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/proc/self/exe")
            .resolvingSymlinksInPath()
            .deletingLastPathComponent()
            .appendingPathComponent("fault-worker")
        process.arguments = arguments
        let output = Pipe()
        process.standardOutput = output
        let lines = self.lines
        let listens = ReadySignal<String>()
        let rest = Mutex("")
        output.fileHandleForReading.readabilityHandler = { handle in
            let text = String(decoding: handle.availableData, as: UTF8.self)
            if text.isEmpty {
                handle.readabilityHandler = nil
                _ = listens.set("")
            }
            let complete = rest.withLock { rest in
                rest += text
                var complete = rest.split(separator: "\n", omittingEmptySubsequences: false).map { String($0) }
                rest = complete.popLast() ?? ""
                return complete
            }
            for line in complete {
                lines.add(line)
                if line.hasPrefix("listens ") { _ = listens.set(String(line.dropFirst(8))) }
            }
        }
        try process.run()
        self.output = output
        self.pid = process.processIdentifier
        self.process = Mutex(process)
        self.endpoint = isWorker ? listens.wait() : ""
        if isWorker { try #require(!self.endpoint.isEmpty, "the worker's process did not start") }
    }

    /// What the process printed.
    var printed: [String] { self.lines.values }

    func signal(_ number: CInt) { kill(self.pid, number) }

    /// Kills the process, if it still runs, and waits for its end.
    func end() {
        self.signal(SIGKILL)
        self.signal(SIGCONT)
        _ = self.waitForExit()
    }

    /// Waits for the process's end.
    @discardableResult
    func waitForExit() -> (status: CInt, wasSignalled: Bool) {
        self.process.withLock { process in
            process.waitUntilExit()
            return (process.terminationStatus, process.terminationReason == .uncaughtSignal)
        }
    }
}
