// SPDX-License-Identifier: Apache-2.0

import DroverZMQ
import Foundation
import Logging
import Testing

@testable import Drover

extension ServingTests {
    /// Handlers that ignore their cancellation.
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct HungHandlerTests {}
}

extension ServingTests.HungHandlerTests {
    private static let hang = Function<String, String>("hang")
    private static let hangAsync = Function<String, String>("hangAsync")

    private func withWorker(
        _ configure: (inout WorkerConfiguration) -> Void = { _ in },
        _ body: (RunningWorker, Client, Gate, Gathered<String>) throws -> Void
    ) throws {
        let logged = Gathered<String>()
        let gate = Gate()
        var configuration = WorkerConfiguration()
        configuration.concurrency = 1
        configuration.cancellationGrace = .milliseconds(50)
        configuration.logger = .calling { level, line in if level == .warning { logged.add(line) } }
        configure(&configuration)
        let worker = Worker(configuration: configuration)
        worker.register(Job.echo) { $0 }
        worker.register(Self.hang) { _, key in
            gate.enter(key)
            while !gate.isOpen(key) { usleep(1000) }
            return key
        }
        worker.register(Self.hangAsync) { (key: String) async throws -> String in
            gate.enter(key)
            // Not cancelled by anything.
            while !gate.isOpen(key) { await Task.yield() }
            return key
        }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        defer { running.stopBlocking(grace: .zero) }
        let client = try Client.forTest(running.endpoint)
        defer { client.closeBlocking() }
        try body(running, client, gate, logged)
    }

    @Test("a handler that ignores its cancellation is counted as stuck, told once, and its slot replaced until it ends")
    func replaced() throws {
        for function in [Self.hang, Self.hangAsync] {
            try self.withWorker { running, client, gate, logged in
                let hung = try client.function(function).async("hung")
                eventually("it runs") { gate.begun == ["hung"] }
                let echo = try client.function(Job.echo).async(7)
                hung.cancel()
                // It waited for the only slot.
                #expect(try echo.get() == 7)
                #expect(running.status.stuck == 1)
                #expect(logged.count == 1)
                #expect(logged.values.first?.contains("a handler is stuck") == true, "\(logged.values)")
                #expect(logged.values.first?.contains("drover.function=\(function.name)") == true, "\(logged.values)")
                #expect(logged.values.first?.contains("ago") == true, "\(logged.values)")
                for number in 0..<20 { #expect(try client.function(Job.echo).blocking(number) == number) }
                gate.open("hung")
                eventually("it has ended") { running.status.stuck == 0 && running.status.running == 0 }
                // There is one slot again, not two.
                let both = try ["a", "b"].map { try client.function(Self.hang).async($0) }
                eventually("one runs") { gate.begun.count == 2 }
                block(for: .milliseconds(20))
                #expect(gate.begun == ["hung", "a"])
                for key in ["a", "b"] { gate.open(key) }
                for (handle, key) in zip(both, ["a", "b"]) { #expect(try handle.get() == key) }
                #expect(logged.count == 1)
            }
        }
    }

    @Test("no more slots are replaced than the configuration says; then calls wait until a stuck handler ends")
    func bounded() throws {
        try self.withWorker({ $0.maxReplacedSlots = 1 }) { running, client, gate, logged in
            for key in ["one", "two"] {
                let hung = try client.function(Self.hang).async(key)
                eventually("it runs") { gate.begun.last == key }
                hung.cancel()
            }
            eventually("both are stuck") { running.status.stuck == 2 }
            let echo = try client.function(Job.echo).async(7)
            eventually("it came") { running.status.received == 3 }
            #expect(!echo.isTerminal)
            #expect(logged.values.last?.contains("keeps its slot") == true, "\(logged.values)")
            gate.open("one")
            #expect(try echo.get() == 7)
            gate.open("two")
            eventually("none is stuck") { running.status.stuck == 0 }
        }
    }

    @Test("a handler that stops within the grace is not stuck")
    func stopsInTime() throws {
        try self.withWorker({ $0.cancellationGrace = .seconds(20) }) { running, client, gate, logged in
            let slow = try client.function(Self.hang).async("slow")
            eventually("it runs") { gate.begun == ["slow"] }
            slow.cancel()
            gate.open("slow")
            #expect(try client.function(Job.echo).blocking(7) == 7)
            #expect(running.status.stuck == 0)
            #expect(logged.count == 0)
        }
    }
}
