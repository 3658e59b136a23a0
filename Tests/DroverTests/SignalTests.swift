// SPDX-License-Identifier: Apache-2.0

import DroverZMQ
import Foundation
import Testing

@testable import Drover

extension ServingTests {
    /// Whatever runs code of users takes the signals that the program takes.
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct SignalTests {}
}

/// How a program ended that was sent SIGTERM.
private struct Ending: Codable, Sendable, Equatable {
    /// The signals that the thread blocked which started it, as the kernel shows them.
    var blocked: String
    var signal: Int32
}

private func blockedSignals(_ path: String) -> String {
    let status = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
    let line = status.split(separator: "\n").first { $0.hasPrefix("SigBlk:") }
    return line?.split(separator: "\t").last.map(String.init) ?? ""
}

/// Starts a program that would take a minute, and asks it to end.
private func startAndTerminate() throws -> Ending {
    let blocked = blockedSignals("/proc/thread-self/status")
    var pid = pid_t()
    let arguments: [UnsafeMutablePointer<CChar>?] = [strdup("sleep"), strdup("60"), nil]
    defer { for argument in arguments { free(argument) } }
    let code = posix_spawn(&pid, "/bin/sleep", nil, nil, arguments, environ)
    guard code == 0 else { throw FixtureError(message: "posix_spawn: \(code)") }
    kill(pid, SIGTERM)
    let deadline = MonotonicClock.deadline(after: .seconds(5))
    var status: Int32 = 0
    while waitpid(pid, &status, WNOHANG) == 0 {
        if MonotonicClock.now() > deadline { kill(pid, SIGKILL) }
        usleep(500)
    }
    return Ending(blocked: blocked, signal: status & 0x7F)
}

extension ServingTests.SignalTests {
    private static let plain = Function<Ending>("plain")
    private static let withContext = Function<Ending>("withContext")
    private static let asynchronous = Function<Ending>("asynchronous")
    private static let calledBack = Function<Callback<Ending>, Ending>("calledBack")
    private static let mask = Function<Int, String>("mask")
    private static let thread = Function<Int, UInt>("thread")

    private func withWorker(_ body: (Client) throws -> Void) throws {
        var configuration = WorkerConfiguration()
        configuration.logger = .quiet
        let worker = Worker(configuration: configuration)
        worker.register(Self.plain) { try startAndTerminate() }
        worker.register(Self.withContext) { _ in try startAndTerminate() }
        worker.register(Self.asynchronous) { () async throws -> Ending in
            // Wherever the task goes on.
            for _ in 0..<20 { await Task.yield() }
            try await Task.sleep(for: .milliseconds(2))
            return try startAndTerminate()
        }
        worker.register(Self.calledBack) { callback in try callback.blocking() }
        worker.register(Self.mask) { _ in blockedSignals("/proc/thread-self/status") }
        worker.register(Self.thread) { _ in pthread_self() }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        defer { running.stopBlocking(grace: .zero) }
        let client = try Client.forTest(running.endpoint)
        defer { client.closeBlocking() }
        try body(client)
    }

    private var expected: Ending { Ending(blocked: blockedSignals("/proc/self/status"), signal: SIGTERM) }

    @Test("a program that a handler starts is ended by SIGTERM, whatever kind of handler it is")
    func handlers() throws {
        try self.withWorker { client in
            for function in [Self.plain, Self.withContext, Self.asynchronous] {
                let ending = try client.function(function).async().get()
                #expect(ending == self.expected, "\(function.name)")
            }
        }
    }

    @Test("a program that a callback starts is ended by SIGTERM, whatever kind of callback it is")
    func callbacks() throws {
        try self.withWorker { client in
            let callback = client.callback { () throws -> Ending in try startAndTerminate() }
            let ending = try client.function(Self.calledBack).async(callback).get()
            #expect(ending == self.expected)
            let endings = Gathered<Ending>()
            let handle = try client.function(Self.mask).async(0)
            handle.addCallback { _ in if let ending = try? startAndTerminate() { endings.add(ending) } }
            eventually("the program has ended") { endings.count == 1 }
            #expect(endings.values == [self.expected])
        }
    }

    @Test("a handler that runs on the worker's own thread takes the program's signals as well")
    func quickHandlers() throws {
        try self.withWorker { client in
            let function = client.function(Self.mask)
            var masks: Set<String> = []
            for number in 0..<300 { masks.insert(try function.async(number).get()) }
            #expect(masks == [self.expected.blocked])
        }
    }

    @Test("a worker serves on while its process gets signals that have handlers")
    func interrupted() throws {
        var action = sigaction()
        action.__sigaction_handler.sa_handler = { _ in }
        var former = sigaction()
        // Without SA_RESTART: whatever waits is interrupted.
        sigaction(SIGURG, &action, &former)
        defer { sigaction(SIGURG, &former, nil) }
        try self.withWorker { client in
            let function = client.function(Self.thread)
            var threads: Set<UInt> = []
            for number in 0..<2000 {
                for thread in threads { pthread_kill(thread, SIGURG) }
                threads.insert(try function.async(number).get())
            }
            // The handler threads and the worker's own.
            #expect(threads.count > 1)
        }
    }

    @Test("a worker that had no descriptor to hear signals by when it began hears them when it has one")
    func shortage() throws {
        let process = try WorkerProcess(arguments: ["serve-short", "tcp://127.0.0.1:*"], isWorker: true)
        let end = MonotonicClock.deadline(after: .seconds(20))
        while !process.printed.contains("left"), MonotonicClock.now() < end { usleep(10_000) }
        #expect(process.printed.contains("left"))
        process.end()
    }
}
