// SPDX-License-Identifier: Apache-2.0

import DroverZMQ
import Foundation
import Synchronization
import Testing

/// A worker in a process of its own, to be killed, stopped and restarted.
final class WorkerProcess: Sendable {
    private let process: Mutex<Process>
    private let lines = Gathered<String>()
    private let reader: LoopThread
    let endpoint: String
    let pid: pid_t

    /// Starts a worker and waits until it listens.
    convenience init(at address: String = "tcp://127.0.0.1:*", slots: Int? = nil) throws {
        let slots = slots.map { ["slots=\($0)"] } ?? []
        try self.init(arguments: ["serve", address] + slots, isWorker: true)
    }

    /// Starts the helper in another role.
    init(arguments: [String], environment: [String: String] = [:], isWorker: Bool = false) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/proc/self/exe")
            .resolvingSymlinksInPath()
            .deletingLastPathComponent()
            .appendingPathComponent("fault-worker")
        process.arguments = arguments
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { _, new in new }
        let output = Pipe()
        process.standardOutput = output
        let lines = self.lines
        let listens = ReadySignal<String>()
        let reading = output.fileHandleForReading
        try process.run()
        // The parent's end for writing must go, or the output never ends.
        try output.fileHandleForWriting.close()
        self.reader = try LoopThread.start(named: "output") {
            var rest: [UInt8] = []
            while true {
                let data = reading.availableData
                rest += data
                while let end = rest.firstIndex(of: 10) {
                    let line = String(decoding: rest[..<end], as: UTF8.self)
                    rest.removeSubrange(...end)
                    lines.add(line)
                    if line.hasPrefix("listens ") { _ = listens.set(String(line.dropFirst(8))) }
                }
                if data.isEmpty { break }
            }
            _ = listens.set("")
        }
        self.pid = process.processIdentifier
        self.process = Mutex(process)
        self.endpoint = isWorker ? listens.wait() : ""
        if isWorker { try #require(!self.endpoint.isEmpty, "the worker's process did not start") }
    }

    /// What the process printed.
    var printed: [String] { self.lines.values }

    var isRunning: Bool { self.process.withLock { $0.isRunning } }

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
