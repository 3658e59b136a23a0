// SPDX-License-Identifier: Apache-2.0

import Drover
import Foundation
import Synchronization

/// The worker and the clients that are measured.
enum DroverRoles {
    private static let echo = Function<[UInt8], [UInt8]>("echo")
    private static let stamp = Function<[UInt8], UInt64>("stamp")
    private static let stream = Function<Callback<[UInt8], Nothing>, Int, Int, Int>("stream")

    static func now() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    // MARK: Worker

    static func worker(coalesces: Bool) -> Role {
        .blocking { _ in
            let worker = Self.echoingWorker(concurrency: 2, coalesces: coalesces)
            worker.register(Self.stamp) { _ in Self.now() }
            worker.register(Self.stream) { callback, count, size in
                let payload = [UInt8](repeating: 7, count: size)
                for _ in 0..<count { try callback.emit(payload) }
                return count
            }
            let running = try worker.start(.bind("tcp://127.0.0.1:*"))
            Console.write("endpoint=\(running.endpoint)")
            while true { sleep(3600) }
        }
    }

    static func echoingWorker(concurrency: Int, coalesces: Bool = true) -> Worker {
        var configuration = WorkerConfiguration()
        configuration.concurrency = concurrency
        configuration.coalescesMessages = coalesces
        let worker = Worker(configuration: configuration)
        worker.register(Self.echo) { bytes in bytes }
        worker.register(BrokerRoles.following) { number in number + 1 }
        worker.register(OrderCalls.repeated) { order in order }
        return worker
    }

    // MARK: Clients

    static func client(_ arguments: [String], coalesces: Bool = true) throws -> Client {
        guard let endpoint = arguments.first else { throw Failure("the role needs an endpoint") }
        var configuration = ClientConfiguration()
        configuration.coalescesMessages = coalesces
        configuration.eventQueueLimit = 100_000
        configuration.eventOverflow = .pushBack
        let client = try Client(endpoint, configuration: configuration)
        try client.connectBlocking()
        return client
    }

    static func number(_ arguments: [String], _ index: Int) throws -> Int {
        guard index < arguments.count, let number = Int(arguments[index]) else {
            throw Failure("argument \(index) is missing")
        }
        return number
    }

    static let blockingCall = Role.blocking { arguments in
        let client = try Self.client(arguments)
        let count = try Self.number(arguments, 1)
        let payload = [UInt8](repeating: 1, count: try Self.number(arguments, 2))
        let echo = client.function(Self.echo)
        for _ in 0..<count / 10 { _ = try echo.blocking(payload) }
        var latencies = Latencies(capacity: count)
        for _ in 0..<count {
            let started = Self.now()
            _ = try echo.blocking(payload)
            latencies.record(nanoseconds: Self.now() - started)
        }
        Console.write(latencies.line(role: "blocking-call"))
        client.closeBlocking()
    }

    static let awaitCall = Role.concurrent { arguments in
        let client = try Self.connected(arguments)
        let count = try Self.number(arguments, 1)
        let payload = [UInt8](repeating: 1, count: try Self.number(arguments, 2))
        let echo = client.function(Self.echo)
        for _ in 0..<count / 10 { _ = try await echo(payload) }
        var latencies = Latencies(capacity: count)
        for _ in 0..<count {
            let started = Self.now()
            _ = try await echo(payload)
            latencies.record(nanoseconds: Self.now() - started)
        }
        Console.write(latencies.line(role: "await-call"))
        await client.close()
    }

    private static func connected(_ arguments: [String]) throws -> Client {
        try self.client(arguments)
    }

    /// Keeps a window of calls outstanding and takes their results in the order of the calls.
    static func pipelined(coalesces: Bool) -> Role {
        .blocking { arguments in
            let client = try Self.client(arguments, coalesces: coalesces)
            let count = try Self.number(arguments, 1)
            let payload = [UInt8](repeating: 1, count: try Self.number(arguments, 2))
            let window = try Self.number(arguments, 3)
            let echo = client.function(Self.echo)
            func run(_ count: Int) throws {
                var results: [AsyncResult<[UInt8]>] = []
                results.reserveCapacity(window)
                for index in 0..<count {
                    if index < window {
                        results.append(try echo.async(payload))
                    } else {
                        _ = try results[index % window].get()
                        results[index % window] = try echo.async(payload)
                    }
                }
                for result in results { _ = try result.get() }
            }
            try run(max(window, count / 10))
            let started = Self.now()
            try run(count)
            let seconds = Double(Self.now() - started) / 1e9
            let all = max(window, count / 10) + count
            Console.write("role=pipelined calls=\(count) all=\(all) calls_per_s=\(Double(count) / seconds)")
            client.closeBlocking()
        }
    }

    static let tasksAwaiting = Role.concurrent { arguments in
        let client = try Self.connected(arguments)
        let count = try Self.number(arguments, 1)
        let payload = [UInt8](repeating: 1, count: try Self.number(arguments, 2))
        let tasks = try Self.number(arguments, 3)
        let echo = client.function(Self.echo)
        @Sendable func run(_ count: Int) async throws {
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<tasks {
                    group.addTask { for _ in 0..<count / tasks { _ = try await echo(payload) } }
                }
                try await group.waitForAll()
            }
        }
        try await run(count / 10)
        let started = Self.now()
        try await run(count)
        let seconds = Double(Self.now() - started) / 1e9
        Console.write("role=tasks-awaiting calls=\(count) calls_per_s=\(Double(count / tasks * tasks) / seconds)")
        await client.close()
    }

    static let events = Role.blocking { arguments in
        let client = try Self.client(arguments)
        let count = try Self.number(arguments, 1)
        let size = try Self.number(arguments, 2)
        func run(_ count: Int) throws -> Double {
            let counter = EventCounter(count)
            let callback = client.callback { (_: [UInt8]) in counter.count() }
            let result = try client.function(Self.stream).async(callback, count, size)
            _ = try result.get()
            counter.wait()
            let statistics = client.statistics(of: callback)
            guard statistics?.delivered == count, statistics?.dropped == 0, statistics?.missing == 0 else {
                throw Failure("of \(count) events not all were delivered: \(String(describing: statistics))")
            }
            return counter.rate
        }
        _ = try run(count / 10)
        Console.write("role=events events=\(count) events_per_s=\(try run(count))")
        client.closeBlocking()
    }

    static let bulk = Role.blocking { arguments in
        let client = try Self.client(arguments)
        let count = try Self.number(arguments, 1)
        let payload = [UInt8](repeating: 1, count: try Self.number(arguments, 2))
        let window = try Self.number(arguments, 3)
        let echo = client.function(Self.echo)
        func run(_ count: Int) throws {
            var results: [AsyncResult<[UInt8]>] = []
            for index in 0..<count {
                if index < window {
                    results.append(try echo.async(payload))
                } else {
                    guard try results[index % window].get().count == payload.count else { throw Failure("short echo") }
                    results[index % window] = try echo.async(payload)
                }
            }
            for result in results { _ = try result.get() }
        }
        try run(max(window, count / 10))
        let started = Self.now()
        try run(count)
        let seconds = Double(Self.now() - started) / 1e9
        let mebibytes = Double(count) * Double(payload.count) / 1_048_576
        Console.write("role=bulk calls=\(count) mib_per_s=\(mebibytes / seconds)")
        client.closeBlocking()
    }

    static let callbackLatency = Role.blocking { arguments in
        let client = try Self.client(arguments)
        let count = try Self.number(arguments, 1)
        let payload = [UInt8](repeating: 1, count: try Self.number(arguments, 2))
        let pause = try Self.number(arguments, 3)
        let stamp = client.function(Self.stamp)
        let latencies = Mutex(Latencies(capacity: count))
        for index in 0..<count + count / 10 {
            let done = DispatchSemaphore(value: 0)
            try stamp.async(payload)
                .addCallback { result in
                    let now = Self.now()
                    if case .value(let sent) = result.outcome, index >= count / 10 {
                        latencies.withLock { $0.record(nanoseconds: now - sent) }
                    }
                    done.signal()
                }
            done.wait()
            usleep(UInt32(pause))
        }
        Console.write(latencies.withLock { $0.line(role: "callback-latency") })
        client.closeBlocking()
    }

    static let idle = Role.blocking { arguments in
        let client = try Self.client(arguments)
        _ = try client.function(Self.echo).blocking([1])
        Console.write("ready=1")
        while true { sleep(3600) }
    }

    // MARK: Figures of one process

    /// What an outstanding call takes in memory beyond its payload.
    static func bytesPerCall() throws -> Double {
        let count = 200_000
        let size = 64
        var configuration = ClientConfiguration()
        configuration.maxOutstandingCalls = count * 2
        // Nobody listens there: the calls stay queued.
        let client = try Client("tcp://127.0.0.1:9", configuration: configuration)
        let echo = client.function(Self.echo)
        let payload = [UInt8](repeating: 1, count: size)
        var results: [AsyncResult<[UInt8]>] = []
        results.reserveCapacity(count * 2)
        for _ in 0..<count { results.append(try echo.async(payload)) }
        while client.statistics.tableEntriesNow < count { usleep(1000) }
        let before = try Self.residentBytes(of: getpid())
        for _ in 0..<count { results.append(try echo.async(payload)) }
        while client.statistics.tableEntriesNow < 2 * count { usleep(1000) }
        let after = try Self.residentBytes(of: getpid())
        client.closeBlocking()
        return Double(after - before) / Double(count) - Double(size)
    }

    /// What a process has of the machine's memory.
    static func residentBytes(of process: pid_t) throws -> Int {
        let path = "/proc/\(process)/statm"
        let fields = try String(contentsOfFile: path, encoding: .utf8).split(separator: " ")
        guard fields.count > 1, let pages = Int(fields[1]) else { throw Failure("\(path) is unreadable") }
        return pages * Int(getpagesize())
    }
}

/// Waits for a number of events and times them.
private final class EventCounter: Sendable {
    private let expected: Int
    private let counted = Atomic<Int>(0)
    private let first = Atomic<UInt64>(0)
    private let last = Atomic<UInt64>(0)
    private let done = DispatchSemaphore(value: 0)

    init(_ expected: Int) { self.expected = expected }

    func count() {
        let count = self.counted.add(1, ordering: .relaxed).newValue
        if count == 1 { self.first.store(DroverRoles.now(), ordering: .relaxed) }
        if count == self.expected {
            self.last.store(DroverRoles.now(), ordering: .relaxed)
            self.done.signal()
        }
    }

    func wait() { self.done.wait() }

    var rate: Double {
        let nanoseconds = self.last.load(ordering: .relaxed) - self.first.load(ordering: .relaxed)
        return Double(self.expected) / (Double(nanoseconds) / 1e9)
    }
}
