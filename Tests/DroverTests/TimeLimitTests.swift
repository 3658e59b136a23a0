// SPDX-License-Identifier: Apache-2.0

import DroverWire
import DroverZMQ
import Foundation
import Logging
import Synchronization
import Testing

@testable import Drover

extension ServingTests {
    /// How long handlers may run.
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct TimeLimitTests {}
}

extension ServingTests.TimeLimitTests {
    private static let polling = Function<Nothing>("polling")
    private static let sleeping = Function<Nothing>("sleeping")
    private static let late = Function<String>("late")
    private static let stuck = Function<String, Nothing>("stuck")
    private static let gated = Function<String, String>("gatedQuick")

    /// Runs `body` with a worker and a client of it, and ends both.
    private func withWorker(
        _ configure: (inout WorkerConfiguration) -> Void = { _ in },
        register: (Worker) -> Void,
        _ body: (RunningWorker, Client) throws -> Void
    ) throws {
        var configuration = WorkerConfiguration()
        configuration.concurrency = 2
        configuration.logger = .quiet
        configure(&configuration)
        let worker = Worker(configuration: configuration)
        worker.register(Job.echo) { $0 }
        register(worker)
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        defer { running.stopBlocking(grace: .zero) }
        let client = try Client.forTest(running.endpoint)
        defer { client.closeBlocking() }
        try body(running, client)
    }

    /// A handler that nothing but its gate can end.
    private func block(on gate: Gate, _ key: String) {
        gate.enter(key)
        while !gate.isOpen(key) { usleep(1000) }
    }

    @Test("a synchronous handler sees its soft limit in its context, and its caller learns which limit it was")
    func synchronous() throws {
        let reasons = Gathered<CancellationReason?>()
        try self.withWorker(register: { worker in
            worker.register(Self.polling, timeLimits: TimeLimits(soft: .milliseconds(30))) { context in
                reasons.add(context.cancellationReason)
                while !context.isCancelled { usleep(500) }
                reasons.add(context.cancellationReason)
                try context.checkCancellation()
                return Nothing()
            }
        }) { running, client in
            let polling = client.function(Self.polling)
            var error: RemoteError?
            let time = elapsed { error = #expect(throws: RemoteError.self) { try polling.blocking() } }
            #expect(time >= .milliseconds(30))
            #expect(error?.code == .timeLimitExceeded)
            #expect(error?.isRetryable == false)
            #expect(error?.worker == WorkerConfiguration().name)
            for part in ["polling", "soft", "0.03 seconds", "its registration"] {
                #expect(error?.message.contains(part) == true, "\(error?.message ?? "")")
            }
            #expect(reasons.values == [nil, .softTimeLimit])
            #expect(running.status.stuck == 0)
        }
    }

    @Test("an asynchronous handler's task is cancelled at its soft limit")
    func asynchronous() throws {
        try self.withWorker(register: { worker in
            worker.register(Self.sleeping, timeLimits: TimeLimits(soft: .milliseconds(20), hard: .seconds(50))) {
                () async throws -> Nothing in
                try await Task.sleep(for: .seconds(55))
                return Nothing()
            }
        }) { running, client in
            let error = #expect(throws: RemoteError.self) { try client.function(Self.sleeping).blocking() }
            #expect(error?.code == .timeLimitExceeded)
            #expect(error?.message.contains("soft") == true)
            #expect(running.core.counters.late.current == 0)
        }
    }

    @Test("a value that comes after the soft limit counts, and so does another error")
    func value() throws {
        let fail = Function<Nothing>("failing")
        try self.withWorker(register: { worker in
            worker.register(Self.late, timeLimits: TimeLimits(soft: .milliseconds(20), hard: .seconds(50))) { context in
                while !context.isCancelled { usleep(500) }
                return "nevertheless"
            }
            worker.register(fail, timeLimits: TimeLimits(soft: .milliseconds(20))) { (context: JobContext) -> Nothing in
                while !context.isCancelled { usleep(500) }
                throw FixtureError(message: "cleaned up")
            }
        }) { _, client in
            let value = try client.function(Self.late).blocking()
            #expect(value == "nevertheless")
            let error = #expect(throws: RemoteError.self) { try client.function(fail).blocking() }
            #expect(error?.code == .failed)
            #expect(error?.message == "cleaned up")
        }
    }

    @Test("a cancellation by the caller is told as such, though there are limits")
    func otherReasons() throws {
        let reasons = Gathered<CancellationReason?>()
        let begun = Gathered<Int>()
        try self.withWorker(register: { worker in
            worker.register(Self.polling, timeLimits: TimeLimits(soft: .seconds(50))) { context in
                begun.add(0)
                while !context.isCancelled { usleep(500) }
                reasons.add(context.cancellationReason)
                throw CancellationError()
            }
        }) { _, client in
            let result = try client.function(Self.polling).async()
            eventually("it runs") { begun.count == 1 }
            result.cancel()
            eventually("it was told") { reasons.values == [.requested] }
            let timed = try Drover.timed(client.function(Self.polling), .milliseconds(50))()
            #expect(throws: AsyncResultTimeout.self) { try timed.get() }
            if begun.count == 2 { eventually("it was told") { reasons.values == [.requested, .deadline] } }
        }
    }

    @Test(
        "a stuck handler's caller is answered at the hard limit; it keeps its slot, is counted, and its result is dropped"
    )
    func stuck() throws {
        let gate = Gate()
        let logged = Gathered<String>()
        try self.withWorker(
            { configuration in
                configuration.logger = .calling { level, line in if level == .warning { logged.add(line) } }
                configuration.maxReplacedSlots = 0
            },
            register: { worker in
                worker.register(Self.stuck, timeLimits: TimeLimits(hard: .milliseconds(50))) { _, key in
                    self.block(on: gate, key)
                    return Nothing()
                }
            }
        ) { running, client in
            let stuck = client.function(Self.stuck)
            var error: RemoteError?
            let time = elapsed { error = #expect(throws: RemoteError.self) { try stuck.blocking("one") } }
            #expect(time >= .milliseconds(50))
            #expect(error?.code == .timeLimitExceeded)
            #expect(error?.message.contains("stuck ran until its hard time limit of 0.05 seconds") == true)
            #expect(running.status.stuck == 1)
            #expect(running.status.running == 1)
            #expect(logged.values.filter { $0.contains("drover.function=stuck") }.count == 1, "\(logged.values)")
            // The other slot goes on.
            let echo = client.function(Job.echo)
            for number in 0..<50 { #expect(try echo.blocking(number) == number) }
            // When all are taken, calls wait.
            #expect(throws: RemoteError.self) { try stuck.blocking("two") }
            #expect(running.status.stuck == 2)
            let waiting = try echo.async(7)
            eventually("the loop has looked") { running.status.received == 53 }
            #expect(!waiting.isTerminal)
            gate.open("one")
            #expect(try waiting.get() == 7)
            gate.open("two")
            eventually("none is stuck") { running.status.stuck == 0 && running.status.running == 0 }
            #expect(running.core.counters.late.current == 2)
            #expect(logged.count == 2, "\(logged.values)")
            let status = running.status
            // Each request was answered once.
            #expect(status.completed == status.received)
            #expect(status.failed == 2)
        }
    }

    @Test("a stuck asynchronous handler's caller is answered at the hard limit")
    func stuckTask() throws {
        let gate = Gate()
        try self.withWorker(register: { worker in
            worker.register(Self.stuck, timeLimits: TimeLimits(soft: .milliseconds(20), hard: .milliseconds(60))) {
                (key: String) async throws -> Nothing in
                gate.enter(key)
                // Not cancelled by anything.
                while !gate.isOpen(key) { await Task.yield() }
                return Nothing()
            }
        }) { running, client in
            let error = #expect(throws: RemoteError.self) { try client.function(Self.stuck).blocking("key") }
            #expect(error?.message.contains("hard") == true)
            #expect(running.status.stuck == 1)
            gate.open("key")
            eventually("it has ended") { running.status.stuck == 0 }
        }
    }

    @Test("the hard limit holds for a handler that ran beside the loop when it got stuck")
    func besideTheLoop() throws {
        let gate = Gate()
        try self.withWorker(
            { $0.concurrency = 64 },
            register: { worker in
                worker.register(Self.gated, timeLimits: TimeLimits(hard: .milliseconds(300))) { key in
                    if !key.isEmpty { self.block(on: gate, key) }
                    return key
                }
            }
        ) { running, client in
            let gated = client.function(Self.gated)
            // Only one that has proved quick runs there, and only if the machine has time.
            var count = 0
            while running.core.counters.takeovers.current == 0, count < 20 {
                for _ in 0..<200 { _ = try gated.blocking("") }
                count += 1
                let error = #expect(throws: RemoteError.self) { try gated.blocking("\(count)") }
                #expect(error?.code == .timeLimitExceeded)
                #expect(running.status.stuck == 1)
                gate.open("\(count)")
                eventually("it has ended") { running.status.stuck == 0 }
            }
            #expect(running.core.counters.takeovers.current > 0)
            #expect(try gated.blocking("") == "")
        }
    }

    @Test("the worker's limits hold for functions that have none of their own")
    func usualLimits() throws {
        let gate = Gate()
        let free = Function<String, String>("free")
        try self.withWorker(
            { $0.timeLimits = TimeLimits(hard: .milliseconds(40)) },
            register: { worker in
                worker.register(Self.stuck) { _, key in
                    self.block(on: gate, key)
                    return Nothing()
                }
                worker.register(free, timeLimits: .unlimited) { _, key in
                    self.block(on: gate, key)
                    return key
                }
            }
        ) { running, client in
            let unlimited = try client.function(free).async("free")
            eventually("it runs") { gate.begun == ["free"] }
            for key in ["a", "b"] {
                let error = #expect(throws: RemoteError.self) { try client.function(Self.stuck).blocking(key) }
                #expect(error?.message.contains("the worker's configuration") == true)
                gate.open(key)
                eventually("it has ended") { running.status.stuck == 0 }
            }
            // It has run for longer than two times the limit of the others.
            #expect(!unlimited.isTerminal)
            gate.open("free")
            #expect(try unlimited.get() == "free")
        }
    }

    @Test("what a call waits for a slot doesn't count")
    func queued() throws {
        let gate = Gate()
        let quick = Function<String>("quick")
        try self.withWorker(
            { $0.concurrency = 1 },
            register: { worker in
                worker.register(Job.gated) { key in
                    self.block(on: gate, key)
                    return key
                }
                worker.register(quick, timeLimits: TimeLimits(soft: .milliseconds(500), hard: .milliseconds(500))) {
                    _ in
                    "in time"
                }
            }
        ) { _, client in
            let first = try client.function(Job.gated).async("first")
            eventually("it runs") { gate.begun == ["first"] }
            let second = try client.function(quick).async()
            // More than the limit: if that counted from the call, it would be over.
            let deadline = MonotonicClock.deadline(after: .milliseconds(600))
            eventually("the limit is over") { MonotonicClock.now() > deadline }
            #expect(!second.isTerminal)
            gate.open("first")
            #expect(try first.get() == "first")
            #expect(try second.get() == "in time")
        }
    }

    @Test("S97 the limit's error is kept: a request that is sent again gets it again and runs no second time")
    func resent() throws {
        let gate = Gate()
        try self.withWorker(register: { worker in
            worker.register(Self.stuck, timeLimits: TimeLimits(hard: .milliseconds(30))) { _, key in
                self.block(on: gate, key)
                return Nothing()
            }
        }) { running, _ in
            let raw = try RawClient(running.endpoint)
            defer { raw.stop() }
            raw.introduce(functions: "stuck")
            raw.request(1, Packed.arguments("key"))
            #expect(raw.messages { $0.kind == .error }.count == 1)
            raw.request(1, flags: .resent, Packed.arguments("key"))
            let answers = raw.messages(2) { $0.kind == .error }
            #expect(answers.map(\.id) == [1, 1])
            #expect(try answers.map { try $0.error().code } == ["timeLimitExceeded", "timeLimitExceeded"])
            gate.open("key")
            eventually("it has ended") { running.status.stuck == 0 }
            #expect(gate.begun == ["key"])
            #expect(raw.messages.filter { $0.kind == .reply }.isEmpty)
        }
    }

    @Test("limits that make no sense are refused when the worker starts, with cause and remedy")
    func refused() {
        func start(_ limits: TimeLimits, isUsual: Bool) throws -> RunningWorker {
            var configuration = WorkerConfiguration()
            if isUsual { configuration.timeLimits = limits }
            let worker = Worker(configuration: configuration)
            worker.register(Job.echo, timeLimits: isUsual ? nil : limits) { $0 }
            return try worker.start(.bind("tcp://127.0.0.1:*"))
        }
        for isUsual in [true, false] {
            let wrong: [(TimeLimits, String)] = [
                (TimeLimits(soft: .zero), "the soft limit is 0.0 seconds"),
                (TimeLimits(hard: .seconds(-1)), "the hard limit is -1.0 seconds"),
                (TimeLimits(soft: .seconds(2), hard: .seconds(1)), "longer than the hard one (1.0 seconds)"),
            ]
            for (limits, message) in wrong {
                let error = #expect(throws: UsageError.self) { try start(limits, isUsual: isUsual) }
                #expect(error?.code == .badConfiguration)
                #expect(error?.message.contains(message) == true, "\(error?.message ?? "")")
                #expect(error?.message.contains("timeLimits") == true)
                #expect(error?.message.contains("echo") == !isUsual)
            }
        }
    }
}
