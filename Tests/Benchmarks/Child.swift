// SPDX-License-Identifier: Apache-2.0

import Foundation

/// A program and its arguments.
struct Command: Sendable {
    var program: String
    var arguments: [String]

    init(_ program: String, _ arguments: [String]) {
        self.program = program
        self.arguments = arguments
    }
}

/// A process that was started here and prints lines of `key=value` words; it never outlives this value.
final class Child {
    let command: Command
    let pid: pid_t
    /// Never written to; that it ends tells the child that we are gone.
    private let input: CInt
    private let output: CInt
    private var buffer: [UInt8] = []
    private var hasEnded = false

    init(_ command: Command) throws {
        self.command = command
        let (childInput, input) = try Self.makePipe()
        let (output, childOutput) = try Self.makePipe()
        defer {
            close(childInput)
            close(childOutput)
        }
        self.input = input
        self.output = output

        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, childInput, STDIN_FILENO)
        posix_spawn_file_actions_adddup2(&actions, childOutput, STDOUT_FILENO)
        let words = ([command.program] + command.arguments).map { strdup($0) }
        defer { words.forEach { free($0) } }
        var pid: pid_t = 0
        let error = posix_spawnp(&pid, command.program, &actions, nil, words + [nil], environ)
        self.pid = pid
        if error != 0 {
            self.hasEnded = true
            throw Failure("can't start '\(command.program)': \(String(cString: strerror(error)))")
        }
    }

    deinit {
        if !self.hasEnded { self.reap(after: SIGKILL) }
        close(self.input)
        close(self.output)
    }

    /// The words of the next line.
    func words(within seconds: Double = 300) throws -> [String: String] {
        Self.words(in: try self.line(within: seconds))
    }

    /// The `key=value` words of a line.
    static func words(in line: String) -> [String: String] {
        var words: [String: String] = [:]
        for word in line.split(separator: " ") {
            let parts = word.split(separator: "=", maxSplits: 1)
            if parts.count == 2 { words[String(parts[0])] = String(parts[1]) }
        }
        return words
    }

    /// What the process has used of the processors until now.
    func cpuSeconds() throws -> Double {
        var clock = clockid_t()
        var time = timespec()
        guard clock_getcpuclockid(self.pid, &clock) == 0, clock_gettime(clock, &time) == 0 else {
            throw self.failure("its processor time can't be read")
        }
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    /// Waits for the process to end by itself, and says what it has used of the processors.
    @discardableResult
    func finish(within seconds: Double = 30) throws -> Double {
        guard let ending = self.ending(within: seconds) else { throw self.failure("it doesn't end") }
        guard ending.status == 0 else { throw self.failure("it ended with status \(ending.status)") }
        return ending.cpuSeconds
    }

    /// Asks the process to end, insists if it doesn't, and says what it has used of the processors.
    func end() -> Double {
        if self.hasEnded { return 0 }
        return self.reap(after: SIGTERM)
    }

    @discardableResult
    private func reap(after signal: CInt) -> Double {
        kill(self.pid, signal)
        if let ending = self.ending(within: 3) { return ending.cpuSeconds }
        kill(self.pid, SIGKILL)
        return self.ending(within: 3)?.cpuSeconds ?? 0
    }

    private func ending(within seconds: Double) -> (status: CInt, cpuSeconds: Double)? {
        let deadline = ContinuousClock.now + .seconds(seconds)
        repeat {
            var status: CInt = 0
            var usage = rusage()
            if wait4(self.pid, &status, WNOHANG, &usage) == self.pid {
                self.hasEnded = true
                return (status, usage.ru_utime.seconds + usage.ru_stime.seconds)
            }
            usleep(1000)
        } while ContinuousClock.now < deadline
        return nil
    }

    /// The next line.
    func line(within seconds: Double) throws -> String {
        let deadline = ContinuousClock.now + .seconds(seconds)
        while true {
            if let end = self.buffer.firstIndex(of: UInt8(ascii: "\n")) {
                let line = String(decoding: self.buffer[..<end], as: UTF8.self)
                self.buffer.removeSubrange(...end)
                return line
            }
            let left = max((deadline - ContinuousClock.now) / .milliseconds(1), 0)
            var descriptor = pollfd(fd: self.output, events: Int16(POLLIN), revents: 0)
            let ready = poll(&descriptor, 1, CInt(left))
            if ready == 0 { throw self.failure("it prints nothing") }
            if ready < 0 { continue }
            var chunk = [UInt8](repeating: 0, count: 4096)
            let count = read(self.output, &chunk, chunk.count)
            if count == 0 { throw self.failure("it ended before it printed a figure") }
            if count > 0 { self.buffer += chunk[..<count] }
        }
    }

    private func failure(_ what: String) -> Failure {
        let name = URL(filePath: self.command.program).lastPathComponent
        return Failure("\(what): \(name) \(self.command.arguments.joined(separator: " "))")
    }

    private static func makePipe() throws -> (reading: CInt, writing: CInt) {
        var ends: [CInt] = [0, 0]
        guard pipe(&ends) == 0 else { throw Failure("can't make a pipe: \(String(cString: strerror(errno)))") }
        // A child that inherited the ends of another's pipes would keep them open. Only one thread starts children.
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        return (ends[0], ends[1])
    }
}

extension timeval {
    fileprivate var seconds: Double {
        Double(self.tv_sec) + Double(self.tv_usec) / 1e6
    }
}

/// Where the programs are.
enum Executable {
    /// This executable.
    static let path = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath().path

    /// Another product of the package, built beside this one.
    static func sibling(_ name: String) -> String {
        URL(filePath: self.path).deletingLastPathComponent().appending(path: name).path
    }
}

/// Where the package is: the working directory, or the nearest one above it that has a manifest.
enum Repository {
    static let root: URL = {
        let start = URL(filePath: FileManager.default.currentDirectoryPath)
        var directory = start
        while directory.path != "/" {
            if FileManager.default.fileExists(atPath: directory.appending(path: "Package.swift").path) {
                return directory
            }
            directory.deleteLastPathComponent()
        }
        return start
    }()
}
