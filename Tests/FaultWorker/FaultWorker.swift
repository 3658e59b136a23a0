// SPDX-License-Identifier: Apache-2.0

import Drover
import Foundation
import Logging

/// A worker, or a client short of descriptors, in a process of its own.
///
/// `fault-worker serve ADDRESS` prints `listens ADDRESS` and serves until SIGTERM; `fault-worker serve-short ADDRESS` has no
/// descriptor left for a second, and asks itself to leave half a second later. `fault-worker dial BROKER...` serves brokers, and `fault-worker serve-far BROKER...` brokers on other hosts, with the usual beats, as `fault-worker listen-far ADDRESS`
/// does clients. `fault-worker descriptors ENDPOINT LIMIT` makes clients until the limit of open files stops it, and prints what
/// it was told. `fault-worker shortage ENDPOINT` has no descriptor to give for a while; `fault-worker clients ENDPOINT COUNT` makes
/// many clients, and calls by all of them before and after their worker's restart. `fault-worker clock` lets calls expire while the wall clock is stepped, by a library that a test loads
/// before the C library.
@main
struct FaultWorker {
    static func main() async throws {
        let arguments = CommandLine.arguments.filter { !$0.hasPrefix("slots=") }
        switch arguments.dropFirst().first {
        case "serve": try await self.serve(.bind(arguments[2]))
        case "dial": try await self.serve(.bind(nil, connecting: Array(arguments.dropFirst(2))))
        case "serve-short": try await self.serveShort(arguments[2])
        case "serve-far": try await self.serve(.bind(nil, connecting: Array(arguments.dropFirst(2))), isFar: true)
        case "listen-far": try await self.serve(.bind(arguments[2]), isFar: true)
        case "descriptors": try await self.exhaust(arguments[2], limit: UInt(arguments[3]) ?? 64)
        case "shortage": try await self.outliveShortage(arguments[2])
        case "clients": try await self.crowd(arguments[2], count: Int(arguments[3]) ?? 400)
        case "clock": try await self.stepClock()
        default: exit(64)
        }
    }

    private static func serve(_ endpoint: WorkerEndpoint, isFar: Bool = false) async throws {
        var configuration = WorkerConfiguration()
        configuration.name = "fault-worker-\(getpid())"
        // As `slots=4` among the arguments.
        let slots = CommandLine.arguments.first { $0.hasPrefix("slots=") }
        if let count = slots.flatMap({ Int($0.dropFirst(6)) }) { configuration.concurrency = count }
        configuration.allowsUnencryptedNetwork = isFar
        if !isFar {
            configuration.heartbeatInterval = .milliseconds(200)
            configuration.silenceLimit = .milliseconds(1500)
        }
        configuration.drainGrace = .seconds(5)
        configuration.logger = Logger(label: "fault-worker") { _ in ListenHandler() }
        let worker = Worker(configuration: configuration)
        worker.register(Function<Int, Int>("echo")) { (number: Int) in number }
        worker.register(Function<Double, String, String>("sleep")) { (seconds: Double, tag: String) in
            usleep(UInt32(seconds * 1_000_000))
            return tag
        }
        worker.register(Function<[UInt8], [UInt8]>("bytes")) { (bytes: [UInt8]) in bytes }
        worker.register(Function<Int32>("pid")) { getpid() }
        worker.register(Function<Nothing>("crash")) { () -> Nothing in
            kill(getpid(), SIGKILL)
            return Nothing()
        }
        worker.register(Function<Int, Int>("deadly")) { (number: Int) in
            if number == 1234 { kill(getpid(), SIGKILL) }
            return number
        }
        worker.register(Function<Callback<Int, Nothing>, Int, Double, Int>("tick")) {
            (callback: Callback<Int, Nothing>, count: Int, gap: Double) in
            for number in 0..<count {
                try callback.emit(number)
                usleep(UInt32(gap * 1_000_000))
            }
            return count
        }
        worker.register(Function<Callback<[UInt8], Nothing>, [Int], Int>("pour")) { callback, sizes in
            for size in sizes { try callback.emit([UInt8](repeating: 7, count: size)) }
            return sizes.count
        }
        // Works for a while and then calls the pool that it serves.
        let peer = CommandLine.arguments.count > 2 ? CommandLine.arguments[2] : ""
        worker.register(Function<Double, Int, Int>("nest")) { (seconds: Double, number: Int) async throws -> Int in
            try await Task.sleep(for: .seconds(seconds))
            var configuration = ClientConfiguration()
            configuration.heartbeatInterval = .milliseconds(200)
            let client = try Client([peer], configuration: configuration)
            let value = try await client.call(Function<Int, Int>("echo"), number)
            await client.close(grace: .zero)
            return value
        }
        worker.register(Function<Callback<Int, Int>, Double, Int, Int>("askLater")) {
            (callback: Callback<Int, Int>, seconds: Double, number: Int) async throws -> Int in
            try await Task.sleep(for: .seconds(seconds))
            return try await callback(number)
        }
        LaterBuild.register(on: worker)
        registerIsolated(on: worker)
        try await worker.run(endpoint)
        say("left")
    }

    /// A worker that has no descriptor left when it begins to listen for signals.
    private static func serveShort(_ address: String) async throws {
        let running = try Worker().start(.bind(address))
        // What the system's libraries open for themselves they open now.
        try await Task.sleep(for: .milliseconds(1))
        var taken: [CInt] = []
        while case let descriptor = dup(0), descriptor >= 0 { taken.append(descriptor) }
        let descriptors = taken
        Task {
            try await Task.sleep(for: .seconds(1))
            for descriptor in descriptors { close(descriptor) }
            try await Task.sleep(for: .milliseconds(500))
            kill(getpid(), SIGTERM)
        }
        say("listens \(running.endpoint)")
        await running.runUntilAsked()
        say("left")
    }

    private static func exhaust(_ endpoint: String, limit: UInt) async throws {
        let first = try Client(endpoint)
        let echo = first.function(Function<Int, Int>("echo"))
        _ = try await echo(1)
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        var usual = rlimit()
        getrlimit(resource, &usual)
        var limits = rlimit(rlim_cur: rlim_t(limit), rlim_max: usual.rlim_max)
        setrlimit(resource, &limits)
        var clients: [Client] = []
        do {
            for _ in 0..<limit { clients.append(try Client(endpoint)) }
            // The sockets are the pollers' to make: it shows on a connect.
            for client in clients { try await client.connect(timeout: .seconds(2)) }
            say("no error")
        } catch {
            say("error \(type(of: error)) \(error)")
        }
        // The first client is none the worse.
        say("echo \(try await echo(2))")
        // A search for leaks at the exit needs descriptors of its own, and would look for them for ever.
        setrlimit(resource, &usual)
        exit(0)
    }

    /// A client that finds no descriptor at first, and some a second later.
    private static func outliveShortage(_ endpoint: String) async throws {
        var configuration = ClientConfiguration()
        configuration.startsPoller = false
        let client = try Client(endpoint, configuration: configuration)
        // What the system's libraries open for themselves they open now.
        try await Task.sleep(for: .milliseconds(1))
        say("begins")
        var taken: [CInt] = []
        while case let descriptor = dup(0), descriptor >= 0 { taken.append(descriptor) }
        let poller = try BackgroundPoller(serving: client)
        let echo = client.function(Function<Int, Int>("echo"))
        let waiting = try echo.async(1)
        do { _ = try await timed(echo, .milliseconds(700))(2).value } catch { say("error \(error)") }
        say("waits \(waiting)")
        for descriptor in taken { close(descriptor) }
        say("echo \(try await waiting.value)")
        poller.stop()
        exit(0)
    }

    /// Many clients in one process, which all come back when their worker does.
    private static func crowd(_ endpoint: String, count: Int) async throws {
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        var limits = rlimit()
        getrlimit(resource, &limits)
        limits.rlim_cur = min(limits.rlim_max, 20_000)
        setrlimit(resource, &limits)
        let echo = Function<Int, Int>("echo", isIdempotent: true)
        let clients = try (0..<count).map { _ in try Client(endpoint) }
        func callAll() async throws -> Int {
            let handles = try clients.enumerated().map { number, client in try client.function(echo).async(number) }
            var right = 0
            for (number, handle) in handles.enumerated() where try await handle.value == number { right += 1 }
            return right
        }
        say("answered \(try await callAll())")
        while clients.contains(where: { $0.statistics.sessions < 2 }) { try await Task.sleep(for: .milliseconds(20)) }
        say("answered again \(try await callAll())")
        exit(0)
    }

    private static func stepClock() async throws {
        guard let symbol = dlsym(nil, "drover_step_clock") else { exit(65) }
        let step = unsafeBitCast(symbol, to: (@convention(c) (Int) -> Void).self)
        let worker = Worker(concurrency: 4)
        let sleeping = Function<Int, String>("sleeping")
        worker.register(sleeping) { (milliseconds: Int) async throws -> String in
            try await Task.sleep(for: .milliseconds(milliseconds))
            return "done"
        }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        let client = try Client(running.endpoint)
        let function = client.function(sleeping)
        let long = try timed(function, .seconds(100))(20_000)
        let before = self.wallClock()
        let value = try function.async(800)
        let first = try timed(function, .milliseconds(300))(20_000)
        let started = ContinuousClock.now
        step(1000)
        say("wall clock stepped by \((self.wallClock() - before) / 100 * 100) s")
        say("of 0.3 s: \(await self.verdict(on: first, since: started))")
        let second = try timed(function, .milliseconds(300))(20_000)
        let startedAgain = ContinuousClock.now
        step(-2000)
        say("of 0.3 s, stepped back: \(await self.verdict(on: second, since: startedAgain))")
        say("value: \(try await value.value)")
        say("of 100 s: \(long.outcome == nil ? "pending" : "\(long)")")
        await client.close()
        await running.stop(grace: .zero)
        say("over")
        exit(0)
    }

    /// The wall clock's seconds, lied about or not.
    private static func wallClock() -> Int {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        return now.tv_sec
    }

    private static func verdict(on result: AsyncResult<String>, since started: ContinuousClock.Instant) async -> String
    {
        do { return "value \(try await result.value)" } catch is AsyncResultTimeout {
            let time = ContinuousClock.now - started
            // A step that mattered would be off by far more.
            return time >= .milliseconds(290) && time < .seconds(5) ? "right" : "after \(time)"
        } catch { return "\(error)" }
    }
}

/// Prints a line at once.
private func say(_ line: String) {
    FileHandle.standardOutput.write(Data((line.replacing("\n", with: " ") + "\n").utf8))
}

/// Prints where the worker listens, since with port `*` nobody else knows.
private struct ListenHandler: LogHandler {
    var logLevel = Logger.Level.debug
    var metadata: Logger.Metadata = [:]

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { self.metadata[key] }
        set { self.metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        if event.level >= .warning {
            let line = "\(event.level) \(event.message) \(event.metadata ?? [:])\n"
            FileHandle.standardError.write(Data(line.utf8))
        }
        guard "\(event.message)" == "a worker listens" else { return }
        for value in (event.metadata ?? [:]).values { say("listens \(value)") }
    }
}
