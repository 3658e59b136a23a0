// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Logging
import Testing

/// Peers that give each other up after different times.
@Suite("Patience", .serialized, .timeLimit(.minutes(1)))
struct PatienceTests {
    @Test("S87 a worker whose beat is longer than its broker's patience, or its client's, isn't lost while it is idle")
    func idle() async throws {
        let pool = try Pool(workers: 0)
        let worker = try pool.addWorker("slow", brokers: [pool.endpoint], binding: "tcp://127.0.0.1:*") {
            configuration in
            configuration.heartbeatInterval = .seconds(3600)
            configuration.silenceLimit = .seconds(7200)
        }
        try await becomesTrue("it is there") { pool.broker.status.workers == 1 }
        let clients = [try pool.client(), try pool.client([worker.endpoint])]
        let calls = try clients.enumerated().map { try $1.function(Job.hold).async("call \($0)") }
        try await becomesTrue("they run") { pool.gates.entered.count == 2 }
        // Twice the time after which silence ends a session, and with it calls that may not run twice.
        try await Task.sleep(for: Pool.silenceLimit * 2)
        for (number, call) in calls.enumerated() {
            pool.gates.open("call \(number)")
            #expect(try await call.value == "slow")
        }
        #expect(clients.allSatisfy { $0.statistics.losses == 0 && $0.statistics.disconnections == 0 })
        await pool.close()
    }

    @Test("a call that ran where its worker died isn't said not to have run when no other worker comes")
    func ranBefore() async throws {
        let pool = try Pool(workers: 0) { $0.noWorkerPatience = .milliseconds(500) }
        let worker = try WorkerProcess(dialling: pool.endpoint)
        try await becomesTrue("it is there") { pool.broker.status.workers == 1 }
        let client = try pool.client()
        let sleep = Function<Double, String, String>("sleep", isIdempotent: true)
        let call = try client.function(sleep).async(30, "x")
        try await becomesTrue("it runs") { "\(call.phase)".hasPrefix("running") }
        worker.kill()
        let error = await #expect(throws: RemoteError.self) { try await call.value }
        #expect(error?.code == .unknownFunction)
        #expect(error?.execution == .mayHaveRun)
        // One that no worker had is still known not to have run.
        let other = await #expect(throws: RemoteError.self) { try await client.function(sleep)(30, "y") }
        #expect(other?.execution == .didNotRun)
        await pool.close()
    }
}
