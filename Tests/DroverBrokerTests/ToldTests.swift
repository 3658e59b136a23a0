// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Foundation
import Synchronization
import Testing

/// What users are told of calls that go through a broker, and of its peers.
@Suite(.serialized, .timeLimit(.minutes(2)))
struct ToldTests {
    @Test("a call that runs, or expires, behind a broker names its worker, not the broker")
    func worker() async throws {
        let pool = try Pool { $0.name = "pool-a" }
        let client = try pool.client()
        let call = try client.function(Job.hold).async("gate")
        try await becomesTrue("it runs") { call.phase == .running(worker: "worker 0") }
        #expect("\(call)".contains("running on worker 0"))
        call.setExpiry(.zero)
        let error = await #expect(throws: AsyncResultTimeout.self) { try await call.value }
        #expect(error.map { "\($0)" }?.contains("it was running on worker 0") == true, "\(String(describing: error))")
        pool.gates.open("gate")
        await pool.close()
    }

    @Test("a call that no worker may run says so, before the broker's patience is over and in its expiry")
    func unserved() async throws {
        let pool = try Pool(workers: 0) { $0.name = "pool-a" }
        let client = try pool.client()
        let call = try client.function(Job.hold).async("gate")
        try await becomesTrue("it is told") { "\(call)".contains("no worker there may run it") }
        let other = try timed(client.function(Job.add), .milliseconds(300))(1, 2)
        let error = await #expect(throws: AsyncResultTimeout.self) { try await other.value }
        #expect(
            error?.problem?.contains("no worker there may run it: start one") == true,
            "\(String(describing: error))"
        )
        // It is no longer so when one comes.
        try pool.addWorker("late")
        try await becomesTrue("it runs") { call.phase == .running(worker: "late") }
        #expect(!"\(call)".contains("no worker"))
        pool.gates.open("gate")
        #expect(try await call.value == "late")
        await pool.close()
    }

    @Test("connect says how many workers a broker has, and a client can ask it for those of a function")
    func workerCount() async throws {
        let pool = try Pool(workers: 0)
        let client = try pool.client()
        #expect(try await client.connect().workers == 0)
        #expect(try await client.workerCount(for: Job.add) == 0)
        try pool.addWorker("one")
        try pool.addWorker("two")
        try await becomesTrue("both are there") { pool.broker.status.workers == 2 }
        while try await client.workerCount(for: Job.add) != 2 {}
        #expect(try await client.workerCount(for: Function<Int>("nobody's")) == 0)
        #expect(try await client.connect().workers == 2)
        await pool.close()
        let worker = Worker()
        worker.register(Job.add) { $0 + $1 }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        let direct = try Client(running.endpoint)
        #expect(try await direct.connect().workers == nil)
        #expect(try await direct.workerCount(for: Job.add) == nil)
        await direct.close()
        await running.stop()
    }

    @Test("a worker that died is logged as a warning, one that left as information")
    func lostWorkers() async throws {
        let log = CapturedLog()
        let pool = try Pool(workers: 0) { $0.logger = log.logger }
        let left = try pool.addWorker("leaver")
        let victim = try WorkerProcess(dialling: pool.endpoint)
        try await becomesTrue("both are there") { pool.broker.status.workers == 2 }
        await left.stop()
        try await becomesTrue("one left") {
            log.lines.contains { $0.hasPrefix("info a worker left") && $0.contains("leaver") }
        }
        victim.kill()
        try await becomesTrue("one died") {
            log.lines.contains { $0.hasPrefix("warning a worker is lost") && $0.contains("drover.reason=") }
        }
        #expect(!log.lines.contains { $0.hasPrefix("warning a worker") && $0.contains("leaver") })
        await pool.close()
    }

    @Test("a lost broker is told as a broker, and nobody is asked to do what the client does")
    func lostBroker() async throws {
        let log = CapturedLog()
        let broker = try BrokerProcess(at: "tcp://127.0.0.1:*", "--name", "pool-a")
        let reasons = Mutex<[String]>([])
        var configuration = ClientConfiguration()
        configuration.heartbeatInterval = .milliseconds(300)
        configuration.silenceLimit = Pool.silenceLimit
        configuration.logger = log.logger
        configuration.onDisconnect = { event in reasons.withLock { $0.append("\(event.error)") } }
        let client = try Client(broker.endpoint, configuration: configuration)
        try await client.connect()
        let call = try client.function(Job.add).async(1, 2)
        try await becomesTrue("it was sent") { call.phase != .local }
        broker.kill()
        let error = await #expect(throws: ConnectionError.self) { try await call.value }
        #expect(error?.message.hasPrefix("the broker pool-a at tcp://") == true, "\(String(describing: error))")
        #expect(error?.execution == .mayHaveRun && error?.isRetryable == true)
        try await becomesTrue("it is told") { !reasons.withLock { $0 }.isEmpty }
        let reason = reasons.withLock { $0[0] }
        #expect(reason.hasPrefix("the broker pool-a at") && !reason.contains("make it again"), "\(reason)")
        #expect(log.lines.contains { $0.hasPrefix("warning a broker is lost") })
        await client.close()
    }
}
