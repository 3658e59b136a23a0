// SPDX-License-Identifier: Apache-2.0

import Drover
import Foundation
import Synchronization

/// The Swift side of the exchange with Python: `worker` serves `client.py`, `client ENDPOINT` calls `worker.py`.
@main
enum PythonPeer {
    static let echo = Function<String, String>("echo")
    static let echoNumber = Function<Int, Int>("echo")
    static let echoBytes = Function<[UInt8], [UInt8]>("echo")
    static let sleep = Function<Double, String, String>("sleep")
    static let sleepNumber = Function<Double, Int, Int>("sleep")
    static let fail = Function<String, Nothing>("fail")
    static let tick = Function<Callback<Int, Nothing>, Int, Double, Int>("tick")
    static let ask = Function<Callback<Int, Int>, Int, Int>("ask")
    static let nonsense = Function<Nothing>("nonsense")

    static func main() async {
        let arguments = CommandLine.arguments.dropFirst()
        do {
            switch (arguments.first, arguments.dropFirst().first) {
            case ("worker", nil): try await Self.work()
            case ("client", let endpoint?): try await PeerClient(endpoint).run()
            default: throw Failure("usage: PythonPeer worker | client ENDPOINT")
            }
        } catch {
            FileHandle.standardError.write(Data("\(error)\n".utf8))
            exit(1)
        }
    }

    static func write(_ line: String) { FileHandle.standardOutput.write(Data((line + "\n").utf8)) }

    /// Serves until standard input ends.
    static func work() async throws {
        var configuration = WorkerConfiguration()
        configuration.name = "swift-worker"
        let worker = Worker(configuration: configuration)
        worker.register(Self.echo) { value in value }
        worker.register(Self.sleep) { seconds, value in
            try await Task.sleep(for: .seconds(seconds))
            return value
        }
        worker.register(Self.fail) { text throws -> Nothing in throw Failure(text) }
        worker.register(Self.tick) { callback, count, gap in
            for number in 0..<count {
                try await callback.emit(number)
                try await Task.sleep(for: .seconds(gap))
            }
            return count
        }
        worker.register(Self.ask) { callback, number in try await callback(number) }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        Self.write(running.endpoint)
        await withCheckedContinuation { continuation in
            // Reading blocks, which a thread of the cooperative pool must not.
            Thread.detachNewThread {
                _ = FileHandle.standardInput.readDataToEndOfFile()
                continuation.resume()
            }
        }
        await running.stop(grace: .seconds(1))
    }
}

/// Calls a worker's functions in all the ways there are, and checks what comes.
struct PeerClient {
    let client: Client

    init(_ endpoint: String) throws {
        var configuration = ClientConfiguration()
        configuration.name = "swift-client"
        self.client = try Client(endpoint, configuration: configuration)
    }

    func run() async throws {
        let worker = try await self.client.connect(timeout: .seconds(10), patiently: true)
        try self.check("worker", worker.worker, "python-worker")
        try await self.calls()
        try await self.callbacks()
        try await self.failures()
        let statistics = self.client.statistics
        try self.check("malformed messages", statistics.malformedMessages, 0)
        try self.check("unknown messages", statistics.unknownMessages, 0)
        await self.client.close()
        PythonPeer.write("swift client: ok")
    }

    private func calls() async throws {
        try self.check("call", try await self.client.call(PythonPeer.echo, "hello", timeout: .seconds(10)), "hello")
        let bytes = [UInt8](repeating: 7, count: 200_000)
        try self.check("bytes", try await self.client.call(PythonPeer.echoBytes, bytes) == bytes, true)

        let sleep = self.client.function(PythonPeer.sleep)
        let result = try sleep.async(0.2, "done")
        try self.check("ready at once", result.isReady, false)
        let seen = Mutex<[String]>([])
        result.addCallback { result in
            if case .value(let value) = result.outcome { seen.withLock { $0.append(value) } }
        }
        try self.check("value", try await result.value, "done")
        await self.client.drainCallbacks()
        try self.check("callback ran", seen.withLock { $0 }, ["done"])

        // Without the new limit the worker would stop the handler at the first one.
        let longer = try timed(sleep, .milliseconds(300))(0.7, "longer")
        try self.check("limit removed", longer.setExpiry(nil), true)
        try self.check("went on", try await longer.value, "longer")

        let keyed = self.client.function(PythonPeer.sleepNumber, options: CallOptions(orderingKey: "account 7"))
        let inOrder = try (0..<5).map { try keyed.async(0.02, $0) }
        var values: [Int] = []
        for result in inOrder { values.append(try await result.value) }
        try self.check("in order", values, [0, 1, 2, 3, 4])

        let echo = self.client.function(PythonPeer.echoNumber)
        var sum = 0
        for result in try (0..<2000).map({ try echo.async($0) }) { sum += try await result.value }
        try self.check("sum of 2000 calls", sum, 1_999_000)
    }

    private func callbacks() async throws {
        let numbers = Mutex<[Int]>([])
        let ticked = self.client.callback { (number: Int) in numbers.withLock { $0.append(number) } }
        try self.check("tick", try await self.client.call(PythonPeer.tick, ticked, 5, 0.01), 5)
        await self.client.drainCallbacks()
        try self.check("events", numbers.withLock { $0 }, [0, 1, 2, 3, 4])

        let doubled = self.client.callback { (number: Int) -> Int in number * 2 }
        try self.check("ask", try await self.client.call(PythonPeer.ask, doubled, 21), 42)

        let refusing = self.client.callback { (number: Int) -> Int in throw Failure("no answer to \(number)") }
        let error = try await self.remoteError { try await self.client.call(PythonPeer.ask, refusing, 5) }
        try self.check("the callback's error", "\(error)".contains("no answer to 5"), true)
        try self.check("its way", error.trace.split(separator: "\n").count, 2)
    }

    private func failures() async throws {
        let failed = try await self.remoteError { try await self.client.call(PythonPeer.fail, "boom") }
        try self.check("error", failed.code, .failed)
        try self.check("its type", failed.type, "ValueError")
        try self.check("its message", failed.message, "boom")
        let unknown = try await self.remoteError { try await self.client.call(PythonPeer.nonsense) }
        try self.check("unknown function", unknown.code, .unknownFunction)

        do {
            _ = try await self.client.call(PythonPeer.sleep, 5, "late", timeout: .milliseconds(200))
            throw Failure("the call did not expire")
        } catch let error as AsyncResultTimeout {
            try self.check("expired", error.phase, .running(worker: "python-worker"))
        }
        let result = try self.client.function(PythonPeer.sleep).async(5, "unwanted")
        try self.check("cancel", result.cancel(), true)
        do {
            _ = try await result.value
            throw Failure("the call was not cancelled")
        } catch is CancellationError {
            PythonPeer.write("cancelled: true")
        }
        // The worker heard of both: nothing runs there that nobody wants.
        let deadline = ContinuousClock.now + .seconds(5)
        while try await self.client.ping().worker.running > 0, ContinuousClock.now < deadline {
            try await Task.sleep(for: .milliseconds(20))
        }
        try self.check("still running there", try await self.client.ping().worker.running, 0)
    }

    private func remoteError<Value>(_ body: () async throws -> Value) async throws -> RemoteError {
        do { _ = try await body() } catch let error as RemoteError { return error }
        throw Failure("a remote error was expected")
    }

    private func check<Value: Equatable>(_ what: String, _ found: Value, _ expected: Value) throws {
        PythonPeer.write("\(what): \(found)")
        guard found == expected else { throw Failure("\(what) is \(found), expected \(expected)") }
    }
}

/// Says what went wrong.
struct Failure: Error, Codable, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}
