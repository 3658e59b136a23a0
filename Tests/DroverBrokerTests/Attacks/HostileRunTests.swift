// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Foundation
import Synchronization
import Testing

@testable import Attackers

/// All attacks at once, by somebody whose key may `submit` to one queue, beside an honest client.
///
/// `DROVER_HOSTILE_SECONDS` says for how long; 15 unless it does, a minute in CI.
@Suite(
    "Attack: everything at once",
    .serialized,
    .timeLimit(.minutes(90)),
    .disabled(if: ProcessInfo.processInfo.environment["DROVER_SANITIZED"] != nil, "it is about speed and memory")
)
struct HostileRunTests {
    private static let seconds: Int = {
        let environment = ProcessInfo.processInfo.environment
        let usual = environment["CI"] == nil ? 15 : 60
        return environment["DROVER_HOSTILE_SECONDS"].flatMap { Int($0) } ?? usual
    }()

    private let ring: Keyring
    private let broker: BrokerProcess
    private let log: String
    private let honest: KeyPair
    private let hostile: PlainPeer.Keys

    init() throws {
        self.ring = try Keyring()
        self.log = self.ring.folder.appending(path: "log").path()
        let key = self.ring.folder.appending(path: "broker.key").path()
        try self.ring.broker.write(to: key)
        self.honest = try KeyPair()
        self.hostile = PlainPeer.Keys(server: self.ring.broker.publicKey.text)
        try self.ring.allow(self.honest, "web submit")
        try self.ring.allow(self.hostile.own, "hostile submit queues=q1")
        self.broker = try BrokerProcess(
            descriptors: 1024,
            log: self.log,
            [
                "--key", key, "--allow-list", self.ring.allowList, "--max-queued-bytes", "\(256 << 20)", "--max-unread",
                "\(16 << 20)", "--max-frame", "\(2 << 20)",
            ]
        )
    }

    private func worker(_ number: Int) throws -> RunningWorker {
        var configuration = WorkerConfiguration()
        configuration.name = "worker \(number)"
        configuration.keys = self.ring.connection(self.ring.worker)
        configuration.queues = ["", "q1"]
        configuration.concurrency = 2
        configuration.logger = self.ring.log.logger
        let worker = Worker(configuration: configuration)
        worker.register(Job.add) { $0 + $1 }
        worker.register(Job.echo) { $0 }
        worker.register(Function<Int, Int>("nap")) { milliseconds in
            usleep(UInt32(min(2, milliseconds)) * 1000)
            return milliseconds
        }
        return try worker.start(.bind(nil, connecting: [self.broker.endpoint]))
    }

    @Test("an honest client at 1,000 calls a second loses nothing, and the broker's memory and log stay bounded")
    func run() async throws {
        let workers = [try self.worker(1), try self.worker(2)]
        var configuration = ClientConfiguration()
        configuration.keys = self.ring.connection(self.honest)
        configuration.logger = self.ring.log.logger
        let client = try Client(self.broker.endpoint, configuration: configuration)
        try await becomesTrue("the workers are there") { workers.allSatisfy { $0.brokerCount == 1 } }
        #expect(try await client.function(Job.add)(1, 2) == 3)
        let quiet = try await Steady.calls(client, for: 3)
        // What the attackers' hunger for processors does by itself, on a machine that they share.
        let idlers = try ChildProcess("Attackers", ["busy"])
        let busy = try await Steady.calls(client, for: 3)
        idlers.kill()
        let before = self.broker.residentBytes
        let summary = self.ring.folder.appending(path: "summary").path()
        let attackers = try ChildProcess(
            "Attackers",
            [self.broker.endpoint, self.hostile.server, self.hostile.own, self.hostile.secret, summary]
        )
        let loud = try await Steady.calls(client, for: Self.seconds) { self.sample() }
        #expect(attackers.isRunning && attackers.terminate() == 0)
        let size = (try? FileManager.default.attributesOfItem(atPath: self.log)[.size] as? Int) ?? 0
        print(
            """
            hostile run of \(Self.seconds) s: honest p50, p99 and longest in ms \(loud.times), without attack \(quiet.times), beside as \
            busy a program \(busy.times); \
            \(loud.right) of \(loud.made) answered, \(loud.errors.prefix(3)); broker \(before >> 20) MiB before, \
            \(Self.peak.load(ordering: .relaxed) >> 20) MiB at most, \(self.broker.residentBytes >> 20) MiB after; log \(size) bytes; \
            \((try? String(contentsOfFile: summary, encoding: .utf8)) ?? "no summary")
            """
        )
        #expect(self.broker.isRunning)
        #expect(loud.errors.isEmpty && loud.right == loud.made)
        #expect(loud.made >= Self.seconds * 500)
        #expect(Self.peak.load(ordering: .relaxed) < 1 << 30)
        #expect(size < 200_000 + Self.seconds * 20_000)
        // Machines differ, and this one runs the attackers too, and a client and workers that are not optimised.
        #expect(loud.p99 < 10_000)
        // The broker is none the worse.
        #expect(try await client.function(Job.add)(3, 4) == 7)
        await client.close(grace: .seconds(1))
        for worker in workers { await worker.stop(grace: .zero) }
        self.broker.kill()
    }

    private static let peak = Atomic<Int>(0)

    private func sample() {
        let bytes = self.broker.residentBytes
        if bytes > Self.peak.load(ordering: .relaxed) { Self.peak.store(bytes, ordering: .relaxed) }
    }
}

/// A client that makes a thousand calls a second, whatever becomes of the earlier ones.
private struct Steady {
    var made = 0
    var right = 0
    var errors: [String] = []
    /// In milliseconds.
    var latencies: [Double] = []

    var p99: Double { self.latencies.isEmpty ? .infinity : self.latencies[self.latencies.count * 99 / 100] }
    var times: [Double] {
        guard let last = self.latencies.last else { return [] }
        return [self.latencies[self.latencies.count / 2], self.p99, last].map { ($0 * 100).rounded() / 100 }
    }

    static func calls(_ client: Client, for seconds: Int, sample: () -> Void = {}) async throws -> Steady {
        let add = client.function(Job.add)
        let outcome = Mutex(Steady())
        let start = ContinuousClock.now
        var made = 0
        var sampled = 0
        while made < seconds * 1000 {
            let due = Int((ContinuousClock.now - start) / .milliseconds(1))
            if due >= seconds * 1000, made > 0, due > seconds * 1000 + 1000 { break }
            while made < min(due, seconds * 1000) {
                let number = made
                let began = ContinuousClock.now
                made += 1
                try add.async(number, 1)
                    .addCallback { result in
                        let milliseconds = (ContinuousClock.now - began) / .microseconds(1) / 1000
                        outcome.withLock { outcome in
                            switch result.outcome {
                            case .value(number + 1): outcome.right += 1
                            case let other: outcome.errors.append("\(String(describing: other))")
                            }
                            outcome.latencies.append(milliseconds)
                        }
                    }
            }
            if made / 250 > sampled {
                sampled = made / 250
                sample()
            }
            try await Task.sleep(for: .milliseconds(2))
        }
        let count = made
        try await becomesTrue("all honest calls have ended", within: .seconds(120)) {
            outcome.withLock { $0.latencies.count } == count
        }
        return outcome.withLock { outcome in
            outcome.made = count
            outcome.latencies.sort()
            return outcome
        }
    }
}
