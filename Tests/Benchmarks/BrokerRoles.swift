// SPDX-License-Identifier: Apache-2.0

import Drover
import Foundation
import Logging

/// Workers that dial a broker, and a client that fills one.
enum BrokerRoles {
    /// The same functions as ``DroverRoles/worker(coalesces:)``.
    static let worker = Role.blocking { arguments in
        let worker = DroverRoles.echoingWorker(concurrency: 2)
        let running = try Self.serve(worker, at: arguments)
        Console.write("ready=1")
        withExtendedLifetime(running) { while true { sleep(3600) } }
    }

    /// Many workers in one process, each with its own connection.
    static let manyWorkers = Role.blocking { arguments in
        let count = try DroverRoles.number(arguments, 1)
        let running = try (0..<count)
            .map { _ in try Self.serve(DroverRoles.echoingWorker(concurrency: 1), at: arguments) }
        Console.write("ready=1")
        withExtendedLifetime(running) { while true { sleep(3600) } }
    }

    /// Takes calls and never answers, so that those behind them wait at the broker.
    static let holdingWorker = Role.blocking { arguments in
        var configuration = WorkerConfiguration()
        configuration.concurrency = 1
        let worker = Worker(configuration: configuration)
        worker.register(Self.hold) { _ in while true { sleep(3600) } }
        let running = try Self.serve(worker, at: arguments)
        Console.write("ready=1")
        withExtendedLifetime(running) { while true { sleep(3600) } }
    }

    /// Queues calls at the broker until it says that it has them all: what each takes of its memory beyond the payload, and
    /// how much longer the last ones took to queue than the first.
    static let queue = Role.blocking { arguments in
        guard let endpoint = arguments.first else { throw Failure("the role needs an endpoint") }
        let broker = pid_t(try DroverRoles.number(arguments, 1))
        let count = try DroverRoles.number(arguments, 2)
        var configuration = ClientConfiguration()
        configuration.maxOutstandingCalls = count + 16
        let client = try Client(endpoint, configuration: configuration)
        try client.connectBlocking()
        let hold = client.function(Self.hold)
        let payload = [UInt8](repeating: 1, count: Workload.payloadBytes)
        var results: [AsyncResult<Int>] = []
        results.reserveCapacity(count)
        func has(_ count: Int) throws -> Bool {
            let known = try client.function(Self.counts).blocking()
            return known.queued + known.sent >= count
        }
        _ = try has(0)
        let before = try DroverRoles.residentBytes(of: broker)
        let steps = 10
        var times: [Double] = []
        for step in 1...steps {
            let started = DroverRoles.now()
            while results.count < count / steps * step { results.append(try hold.async(payload)) }
            while try !has(results.count) { usleep(500) }
            times.append(Double(DroverRoles.now() - started))
        }
        let bytes = Double(try DroverRoles.residentBytes(of: broker) - before) / Double(results.count)
        // Medians of three: one pause of the machine says nothing about the queue.
        let growth = times.suffix(3).sorted()[1] / times.prefix(3).sorted()[1]
        Console.write("role=broker-queue bytes=\(bytes - Double(payload.count)) growth=\(growth)")
        // A million answers that nobody waits for are not worth a polite end.
        exit(EXIT_SUCCESS)
    }

    /// A batch of the most trivial function, as a Python program would have its pool of processes run it.
    static let map = Role.concurrent { arguments in
        guard let endpoint = arguments.first else { throw Failure("the role needs an endpoint") }
        let count = try DroverRoles.number(arguments, 1)
        let client = try Client(endpoint)
        try await client.connect()
        func run(_ count: Int) async throws {
            var total = 0
            for try await (_, next) in client.map(Self.following, over: 0..<count, MapOptions(window: 32768)) {
                total += next
            }
            guard total == count * (count + 1) / 2 else { throw Failure("the sum is \(total)") }
        }
        try await run(count / 10)
        let started = DroverRoles.now()
        try await run(count)
        let seconds = Double(DroverRoles.now() - started) / 1e9
        Console.write("role=map count=\(count) items_per_s=\(Double(count) / seconds)")
        await client.close()
    }

    static let following = Function<Int, Int>("following")
    private static let hold = Function<[UInt8], Int>("hold")
    private static let counts = Function<Counts>("drover.status", isIdempotent: true)

    /// What is of interest of a broker's status.
    private struct Counts: Codable, Sendable {
        var queued: Int
        var sent: Int
    }

    private static func serve(_ worker: Worker, at arguments: [String]) throws -> RunningWorker {
        guard let endpoint = arguments.first else { throw Failure("the role needs an endpoint") }
        let running = try worker.start(.connect(endpoint))
        let deadline = ContinuousClock.now + .seconds(30)
        while running.brokerCount == 0 {
            guard ContinuousClock.now < deadline else { throw Failure("the broker doesn't welcome a worker") }
            usleep(500)
        }
        return running
    }
}
