// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import DroverZMQ
import Foundation
import Logging
import Synchronization
import Testing

/// The functions that the workers of these tests have.
enum Job {
    static let echo = Function<[UInt8], [UInt8]>("echo")
    static let add = Function<Int, Int, Int>("add")
    static let whoAmI = Function<String>("whoAmI")
    static let fail = Function<String, Int>("fail")
    /// Waits until the test opens the gate of this name.
    static let hold = Function<String, String>("hold")
    /// The same with a hard limit of 50 ms, and no ear for cancellations.
    static let stick = Function<String, String>("stick")
    /// The same without a limit.
    static let hang = Function<String, String>("hang")
    /// Notes its name, and says how large its other argument is.
    static let weigh = Function<String, [UInt8], Int>("weigh")
    static let count = Function<Int, Int>("count")
    static let tick = Function<Callback<Int, Nothing>, Int, Int>("tick")
    /// Waits until the gate is open, emits bytes, so many each time, perhaps gives the callback up, and enters the gate again.
    static let swell = Function<Callback<[UInt8], Nothing>, String, [Int], Bool, Int>("swell")
    static let double = Function<Callback<Int, Int>, Int, Int>("double")
    /// Whom the handler is told that the call is from.
    static let caller = Function<Int, String>("caller")
    /// Gives the amount back if the caller may have it.
    static let refund = Function<Int, Int>("refund")
    static let append = Function<Int, Int>("append")
}

extension Job {
    static func words(for caller: Caller?) -> String {
        caller.map { "\($0) \($0.publicKey) \($0.broker ?? "-")" } ?? "nobody"
    }
}

struct Refusal: Error, Codable { var text: String }

/// Lets handlers wait for the test.
final class Gates: Sendable {
    private let state = Mutex<(open: Set<String>, entered: [String])>(([], []))

    func enter(_ name: String) { self.state.withLock { $0.entered.append(name) } }
    func open(_ name: String) { self.state.withLock { _ = $0.open.insert(name) } }
    func isOpen(_ name: String) -> Bool { self.state.withLock { $0.open.contains(name) } }
    var entered: [String] { self.state.withLock { $0.entered } }
}

/// A broker with workers that dial it, all in this process.
final class Pool: Sendable {
    let broker: RunningBroker
    let gates = Gates()
    let order = Mutex<[Int]>([])
    private let workers = Mutex<[RunningWorker]>([])
    private let clients = Mutex<[Client]>([])

    var endpoint: String { self.broker.endpoint }

    /// Under sanitizers a process may stand for longer than a second.
    static let silenceLimit: Duration =
        ProcessInfo.processInfo.environment["DROVER_SANITIZED"] == nil ? .milliseconds(1500) : .seconds(6)

    init(
        address: String = "tcp://127.0.0.1:*",
        workers count: Int = 1,
        concurrency: Int = 2,
        _ change: (inout BrokerConfiguration) -> Void = { _ in }
    ) throws {
        var configuration = BrokerConfiguration()
        configuration.heartbeatInterval = .milliseconds(300)
        configuration.silenceLimit = Pool.silenceLimit
        configuration.logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        change(&configuration)
        self.broker = try Broker(configuration: configuration).start(address)
        for number in 0..<count { try self.addWorker("worker \(number)", concurrency: concurrency) }
    }

    @discardableResult
    func addWorker(
        _ name: String,
        concurrency: Int = 2,
        brokers: [String] = [],
        binding address: String? = nil,
        _ change: (inout WorkerConfiguration) -> Void = { _ in }
    ) throws -> RunningWorker {
        var configuration = WorkerConfiguration()
        configuration.name = name
        configuration.concurrency = concurrency
        configuration.heartbeatInterval = .milliseconds(300)
        configuration.silenceLimit = Pool.silenceLimit
        configuration.logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        change(&configuration)
        let worker = Worker(configuration: configuration)
        worker.register(Job.echo) { $0 }
        worker.register(Job.add) { $0 + $1 }
        worker.register(Job.whoAmI) { name }
        worker.register(Job.fail) { text in throw Refusal(text: text) }
        worker.register(Job.hold) { context, gate in
            self.gates.enter(gate)
            while !self.gates.isOpen(gate) {
                try context.checkCancellation()
                usleep(1000)
            }
            return name
        }
        worker.register(Job.stick, timeLimits: TimeLimits(hard: .milliseconds(50))) { _, gate in
            self.gates.enter(gate)
            while !self.gates.isOpen(gate) { usleep(1000) }
            return name
        }
        worker.register(Job.hang) { gate in
            self.gates.enter(gate)
            while !self.gates.isOpen(gate) { usleep(1000) }
            return gate
        }
        worker.register(Job.weigh) { name, bytes in
            self.gates.enter(name)
            return bytes.count
        }
        worker.register(Job.count) { context, limit in
            for number in 0..<limit { try context.report(number) }
            return limit
        }
        worker.register(Job.tick) { callback, count in
            for number in 0..<count { try callback.emit(number) }
            return count
        }
        worker.register(Job.swell) { callback, gate, sizes, givesUp in
            self.gates.enter(gate)
            while !self.gates.isOpen(gate) { usleep(1000) }
            for size in sizes { try callback.emit([UInt8](repeating: 1, count: size)) }
            if givesUp { callback.cancel() }
            self.gates.enter(gate)
            return sizes.count
        }
        worker.register(Job.double) { (callback: Callback<Int, Int>, number: Int) async throws -> Int in
            try await callback(number)
        }
        worker.register(Job.caller) { context, _ in Job.words(for: context.caller) }
        worker.register(Job.append) { number in
            self.order.withLock { $0.append(number) }
            return number
        }
        let dialled = address != nil || !brokers.isEmpty ? brokers : [self.endpoint]
        let running = try worker.start(.bind(address, connecting: dialled))
        self.workers.withLock { $0.append(running) }
        return running
    }

    func client(
        _ endpoints: [String] = [],
        _ change: (inout ClientConfiguration) -> Void = { _ in }
    ) throws -> Client {
        var configuration = ClientConfiguration()
        configuration.heartbeatInterval = .milliseconds(300)
        configuration.silenceLimit = Pool.silenceLimit
        configuration.logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        change(&configuration)
        let client = try Client(endpoints.isEmpty ? [self.endpoint] : endpoints, configuration: configuration)
        self.clients.withLock { $0.append(client) }
        return client
    }

    func close() async {
        // The workers' handlers hold the pool: it must not hold the workers.
        func taken<Peer: Sendable>(_ peers: borrowing Mutex<[Peer]>) -> [Peer] {
            peers.withLock { all in
                defer { all = [] }
                return all
            }
        }
        for client in taken(self.clients) { await client.close(grace: .zero) }
        for worker in taken(self.workers) { await worker.stop(grace: .zero) }
        await self.broker.stop(grace: .zero)
    }
}

/// Suspends until something has become true; records an issue if it hasn't within the limit.
func becomesTrue(
    _ what: String,
    within limit: Duration = .seconds(20),
    sourceLocation: SourceLocation = #_sourceLocation,
    _ isTrue: () throws -> Bool
) async throws {
    let deadline = ContinuousClock.now + limit
    while try !isTrue() {
        guard ContinuousClock.now < deadline else {
            Issue.record("within \(limit) it did not come true that \(what)", sourceLocation: sourceLocation)
            return
        }
        try await Task.sleep(for: .milliseconds(1))
    }
}
