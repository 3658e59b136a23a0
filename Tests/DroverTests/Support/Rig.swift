// SPDX-License-Identifier: Apache-2.0

import Dispatch
import Drover
import DroverWire
import Foundation
import Synchronization

/// The functions of the contract's fixtures, and some for measuring.
enum Job {
    static let echo = Function<Int, Int>("echo")
    static let sureEcho = Function<Int, Int>("echo", isIdempotent: true)
    static let bytes = Function<[UInt8], [UInt8]>("bytes")
    static let sleep = Function<Double, String, String>("sleep")
    static let fail = Function<String, Nothing>("fail")
    /// Throws the timeout that the worker itself ran into.
    static let failTimeout = Function<Nothing>("failTimeout")
    static let log = Function<[String]>("log")
    /// The worker's clock.
    static let stamp = Function<UInt64>("stamp")
    static let tick = Function<Callback<Int, Nothing>, Int, Double, Int>("tick")
    static let sureTick = Function<Callback<Int, Nothing>, Int, Double, Int>("tick", isIdempotent: true)
    /// As `tick`, with the worker's clock as each event's second part.
    static let stampedTick = Function<Callback<Int, UInt64, Nothing>, Int, Double, Int>("stampedTick")
    static let ask = Function<Callback<Int, Int>, Int, Int>("ask")
    static let hold = Function<Callback<Int, Nothing>, Nothing>("hold")
    static let drop = Function<Nothing>("drop")
    static let echoCallback = Function<Callback<Int, Int>, Callback<Int, Int>>("echoCallback")
    static let report = Function<Int, Int>("report")
    /// Emits until the subscriber is gone; returns how many went before.
    static let emitUntilGone = Function<Callback<Int, Nothing>, Int>("emitUntilGone")
    /// Blocks until `Gate.open` of the same key; then appends to the log.
    static let gated = Function<String, String>("gated")
    /// Waits until so many whole seconds are left to it, from the first up to the second; -1 stands for no limit.
    static let untilLeft = Function<Int, Int, Int>("untilLeft")
}

/// Keeps handlers from going on until a test lets them.
final class Gate: Sendable {
    private let opened = Mutex<Set<String>>([])
    private let entered = Mutex<[String]>([])

    func open(_ key: String) { self.opened.withLock { _ = $0.insert(key) } }
    func isOpen(_ key: String) -> Bool { self.opened.withLock { $0.contains(key) } }
    func enter(_ key: String) { self.entered.withLock { $0.append(key) } }
    /// The keys of the handlers that have begun, in order.
    var begun: [String] { self.entered.withLock { $0 } }
}

/// A worker in this process with the fixtures.
final class Rig: Sendable {
    let worker: Worker
    let running: RunningWorker
    let gate = Gate()
    /// Tags of finished handlers.
    let log = Gathered<String>()
    /// Tags of handlers that saw their cancellation.
    let cancelled = Gathered<String>()

    var endpoint: String { self.running.endpoint }

    /// Starts a worker.
    init(
        concurrency: Int = 4,
        at address: String = "tcp://127.0.0.1:*",
        counts: Bool = false,
        _ configure: (inout WorkerConfiguration) -> Void = { _ in }
    ) throws {
        var configuration = WorkerConfiguration()
        configuration.name = "worker"
        configuration.concurrency = concurrency
        configuration.heartbeatInterval = .milliseconds(200)
        configuration.silenceLimit = .milliseconds(1500)
        configuration.logger = .quiet
        configure(&configuration)
        let worker = Worker(configuration: configuration)
        self.worker = worker
        let (log, gate, cancelled) = (self.log, self.gate, self.cancelled)
        Self.registerPlain(on: worker, log: log)
        Self.registerEvents(on: worker)
        worker.register(Job.gated) { (context: JobContext, key: String) in
            gate.enter(key)
            while !gate.isOpen(key) {
                if context.isCancelled {
                    cancelled.add(key)
                    throw CancellationError()
                }
                usleep(1000)
            }
            log.add(key)
            return key
        }
        worker.register(Job.untilLeft) { (context: JobContext, least: Int, most: Int) in
            while true {
                try context.checkCancellation()
                let left = context.remainingTime.map { Int($0.components.seconds) } ?? -1
                if (least...most).contains(left) { return left }
                usleep(1000)
            }
        }
        let counted = Counts()
        self.counted = counted
        worker.register(Job.echo) { (number: Int) in
            if counts { counted.add(number) }
            return number
        }
        self.running = try worker.start(.bind(address))
    }

    final class Counts: Sendable {
        let counts = Mutex<[Int: Int]>([:])
        func add(_ number: Int) { self.counts.withLock { $0[number, default: 0] += 1 } }
    }
    private let counted: Counts

    /// How often `echo` ran for a number.
    func runs(of number: Int) -> Int { self.counted.counts.withLock { $0[number] ?? 0 } }

    private static func registerPlain(on worker: Worker, log: Gathered<String>) {
        worker.register(Job.bytes) { (bytes: [UInt8]) in bytes }
        worker.register(Job.sleep) { (seconds: Double, tag: String) in
            usleep(UInt32(seconds * 1_000_000))
            log.add(tag)
            return tag
        }
        worker.register(Job.fail) { (message: String) -> Nothing in throw FixtureError(message: message) }
        worker.register(Job.failTimeout) { () -> Nothing in
            throw AsyncResultTimeout(
                function: "inner",
                correlationID: CorrelationID(1),
                limit: .seconds(1),
                elapsed: .seconds(1),
                phase: .sent
            )
        }
        worker.register(Job.log) { log.values }
        worker.register(Job.stamp) { Clock.now() }
        worker.register(Job.report) { (context: JobContext, count: Int) in
            for number in 0..<count { try context.report(number) }
            return count
        }
    }

    private static func registerEvents(on worker: Worker) {
        worker.register(Job.tick) { (callback: Callback<Int, Nothing>, count: Int, gap: Double) in
            for number in 0..<count {
                try callback.emit(number)
                if gap > 0 { usleep(UInt32(gap * 1_000_000)) }
            }
            return count
        }
        worker.register(Job.stampedTick) { (callback: Callback<Int, UInt64, Nothing>, count: Int, gap: Double) in
            for number in 0..<count {
                try callback.emit(number, Clock.now())
                usleep(UInt32(gap * 1_000_000))
            }
            return count
        }
        worker.register(Job.ask) { (callback: Callback<Int, Int>, number: Int) in try callback.blocking(number) }
        worker.register(Job.echoCallback) { (callback: Callback<Int, Int>) in callback }
        let holder = Holder()
        worker.register(Job.hold) { (callback: Callback<Int, Nothing>) -> Nothing in
            holder.held.withLock { $0.append(callback) }
            try callback.emit(0)
            return Nothing()
        }
        worker.register(Job.drop) { () -> Nothing in
            for callback in holder.held.withLock({ $0 }) { callback.cancel() }
            holder.held.withLock { $0 = [] }
            return Nothing()
        }
        worker.register(Job.emitUntilGone) { (callback: Callback<Int, Nothing>) in
            for number in 0..<10_000 {
                do { try callback.emit(number) } catch let error as RemoteError where error.code == .subscriberGone {
                    return number
                }
                usleep(5000)
            }
            return -1
        }
    }

    private final class Holder: Sendable {
        let held = Mutex<[Callback<Int, Nothing>]>([])
    }

    /// A client of this worker.
    func client(_ configure: (inout ClientConfiguration) -> Void = { _ in }) throws -> Client {
        try Client.forTest(self.endpoint, configure)
    }

    /// Stops the worker without grace.
    func stop() { self.running.stopBlocking(grace: .zero) }
}

extension Client {
    /// A client with short heartbeats.
    static func forTest(
        _ endpoints: String...,
        configure: (inout ClientConfiguration) -> Void = { _ in }
    ) throws -> Client {
        try Self.forTest(endpoints, configure: configure)
    }

    /// A client of several workers, with short heartbeats.
    static func forTest(
        _ endpoints: [String],
        configure: (inout ClientConfiguration) -> Void = { _ in }
    ) throws -> Client {
        var configuration = ClientConfiguration()
        configuration.heartbeatInterval = .milliseconds(200)
        configuration.silenceLimit = .milliseconds(1500)
        configuration.logger = .quiet
        configure(&configuration)
        return try Client(endpoints, configuration: configuration)
    }

    /// A client with short heartbeats.
    static func forTest(_ endpoint: String, _ configure: (inout ClientConfiguration) -> Void) throws -> Client {
        try Self.forTest(endpoint, configure: configure)
    }
}

/// What the fixtures throw.
struct FixtureError: Error, Codable, Equatable, CustomStringConvertible {
    let message: String
    var description: String { self.message }
}

/// The clock that both sides of one machine share.
enum Clock {
    static func now() -> UInt64 { DispatchTime.now().uptimeNanoseconds }
}

/// Runs `body` with a worker and a client of it, and ends both.
func withRig(
    concurrency: Int = 4,
    configure: (inout ClientConfiguration) -> Void = { _ in },
    _ body: (Rig, Client) throws -> Void
) throws {
    let rig = try Rig(concurrency: concurrency)
    defer { rig.stop() }
    let client = try rig.client(configure)
    defer { client.closeBlocking() }
    try body(rig, client)
}

/// Runs `body` with a scripted worker and a client of it, and ends both.
func withRawWorker(
    configure: (inout ClientConfiguration) -> Void = { _ in },
    script: @escaping @Sendable (RawMessage) -> [RawMessage] = { _ in [] },
    _ body: (RawWorker, Client) throws -> Void
) throws {
    let raw = try RawWorker(script: script)
    defer { raw.stop() }
    let client = try Client.forTest(raw.endpoint, configure)
    defer { client.closeBlocking() }
    try body(raw, client)
}
