// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// A program that was built beside the tests, in a process of its own, to be killed.
class ChildProcess: @unchecked Sendable {
    // Unchecked: Foundation's Process is asked for its pid and whether it runs, and is told to run once, at the start.
    private let process = Process()
    /// The first line that it printed; empty if none was asked for.
    let firstLine: String

    /// Starts the program, on another host if one is named; with `printsLine`, returns when it has printed a line.
    ///
    /// With `descriptors` it may have so many files open, and writes what it logs to a file if there is one.
    init(
        _ program: String,
        _ arguments: [String],
        on host: String? = nil,
        printsLine: Bool = false,
        descriptors: Int? = nil,
        log: String = "/dev/null"
    ) throws {
        let program = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
            .deletingLastPathComponent().appending(path: program)
        if let host {
            // Becomes the program: the pid is the program's.
            self.process.executableURL = URL(filePath: "/usr/sbin/ip")
            self.process.arguments = ["netns", "exec", host, program.path()] + arguments
        } else if let descriptors {
            self.process.executableURL = URL(filePath: "/bin/sh")
            let script = "ulimit -n \(descriptors) && exec \"$@\" 2>>'\(log)'"
            self.process.arguments = ["-c", script, "sh", program.path()] + arguments
        } else {
            self.process.executableURL = program
            self.process.arguments = arguments
        }
        let output = Pipe()
        self.process.standardOutput = printsLine ? output : FileHandle.nullDevice
        try self.process.run()
        self.firstLine =
            printsLine
            ? String(decoding: output.fileHandleForReading.availableData, as: UTF8.self)
                .trimmingCharacters(
                    in: .newlines
                ) : ""
    }

    deinit { self.kill() }

    var isRunning: Bool { self.process.isRunning }
    var pid: Int32 { self.process.processIdentifier }

    /// The bytes of memory that it has.
    var residentBytes: Int {
        let status = (try? String(contentsOfFile: "/proc/\(self.pid)/status", encoding: .utf8)) ?? ""
        let line = status.split(separator: "\n").first { $0.hasPrefix("VmRSS:") }
        return line.flatMap { $0.split(separator: " ").dropFirst().first }.flatMap { Int($0) }.map { $0 << 10 } ?? 0
    }

    /// The seconds that it has had a processor.
    var processorSeconds: Double {
        let stat = (try? String(contentsOfFile: "/proc/\(self.pid)/stat", encoding: .utf8)) ?? ""
        // The second field may have spaces in it.
        let fields = stat.split(separator: ")").last?.split(separator: " ") ?? []
        guard fields.count > 12, let user = Double(fields[11]), let system = Double(fields[12]) else { return 0 }
        return (user + system) / Double(sysconf(Int32(_SC_CLK_TCK)))
    }

    /// Ends it without a word; returns when it has gone.
    func kill() { self.end(SIGKILL) }

    /// Asks it to leave, and waits until it has.
    ///
    /// - Returns: The status it ended with.
    @discardableResult
    func terminate() -> Int32 {
        self.end(SIGTERM)
        return self.process.terminationStatus
    }

    private func end(_ signal: Int32) {
        if self.process.isRunning { Glibc.kill(self.process.processIdentifier, signal) }
        // No test waits for ever for one that doesn't leave.
        let end = ContinuousClock.now + .seconds(40)
        while self.process.isRunning, ContinuousClock.now < end { usleep(2000) }
        if self.process.isRunning {
            Issue.record("process \(self.pid) has not left after signal \(signal)")
            Glibc.kill(self.pid, SIGKILL)
        }
        // Also for one that has left by itself: Foundation keeps what nobody has waited for.
        self.process.waitUntilExit()
    }
}

/// A worker that has the functions `echo` and `sleep`.
final class WorkerProcess: ChildProcess, @unchecked Sendable {
    /// One that clients connect to, which may have so many files open, with its log in a file.
    init(descriptors: Int, log: String) throws {
        let arguments = ["serve", "tcp://127.0.0.1:*"]
        try super.init("fault-worker", arguments, printsLine: true, descriptors: descriptors, log: log)
    }

    /// The address that one prints which clients connect to.
    var endpoint: String { String(self.firstLine.split(separator: " ").last ?? "") }

    init(dialling brokers: String..., slots: Int? = nil) throws {
        try super.init("fault-worker", ["dial"] + brokers + (slots.map { ["slots=\($0)"] } ?? []))
    }

    /// One with the usual beats.
    init(on host: String, dialling brokers: String...) throws {
        try super.init("fault-worker", ["serve-far"] + brokers, on: host)
    }

    /// One with the usual beats that clients connect to, at port 5571 of all its host's addresses.
    init(listeningOn host: String) throws {
        try super.init("fault-worker", ["listen-far", "tcp://0.0.0.0:5571"], on: host)
    }
}

/// The broker of the tool.
final class BrokerProcess: ChildProcess, @unchecked Sendable {
    var endpoint: String { self.firstLine }

    init(at address: String = "tcp://127.0.0.1:*", _ arguments: String...) throws {
        let times = ["--heartbeat", "0.3", "--silence-limit", "1.5"]
        let arguments = ["broker", "--listen", address, "--log-level", "critical"] + times + arguments
        try super.init("drover", arguments, printsLine: true)
    }

    /// One that may have so many files open, with its log in a file.
    init(descriptors: Int, log: String, _ arguments: [String]) throws {
        let arguments = ["broker", "--listen", "tcp://127.0.0.1:*", "--log-level", "warning"] + arguments
        try super.init("drover", arguments, printsLine: true, descriptors: descriptors, log: log)
    }

    /// One with the usual beats, at port 5570 of all its host's addresses.
    init(on host: String) throws {
        let arguments = ["broker", "--listen", "tcp://0.0.0.0:5570", "--allow-unencrypted-network"]
        try super.init("drover", arguments + ["--log-level", "critical"], on: host, printsLine: true)
    }

    /// The successor of one that was killed, at its address.
    func restarted() throws -> BrokerProcess { try BrokerProcess(at: self.endpoint) }
}
