// SPDX-License-Identifier: Apache-2.0

import Drover
import Testing

@Suite("Workers that make room for fresh ones", .timeLimit(.minutes(1)))
struct RecyclingTests {
    private func worker(_ policy: RecyclingPolicy) throws -> RunningWorker {
        var configuration = WorkerConfiguration()
        configuration.recycling = policy
        let worker = Worker(configuration: configuration)
        worker.register(Job.echo) { $0 }
        return try worker.start(.bind("tcp://127.0.0.1:*"))
    }

    @Test("after so many jobs a worker drains and leaves; all of them are answered")
    func jobs() async throws {
        let running = try self.worker(RecyclingPolicy(maxJobs: 5))
        let over = Task { await running.runUntilAsked(to: []) }
        let client = try Client(running.endpoint)
        let echo = client.function(Job.echo)
        for number in 0..<4 { #expect(try await echo(number) == number) }
        #expect(running.recyclingReason == nil)
        #expect(try await echo(4) == 4)
        await over.value
        #expect(running.recyclingReason == .jobs(5))
        await client.close(grace: .zero)
    }

    @Test("after so much time, or with so much memory, it leaves though nobody calls")
    func ageAndMemory() async throws {
        let old = try self.worker(RecyclingPolicy(maxAge: .milliseconds(50)))
        await old.runUntilAsked(to: [])
        guard case .age(let age) = old.recyclingReason else {
            Issue.record("it left because of \(old.recyclingReason as Any)")
            return
        }
        #expect(age >= .milliseconds(45))
        let large = try self.worker(RecyclingPolicy(maxResidentBytes: 1 << 20))
        await large.runUntilAsked(to: [])
        guard case .residentBytes(let count) = large.recyclingReason else {
            Issue.record("it left because of \(large.recyclingReason as Any)")
            return
        }
        #expect(count > 1 << 20)
    }

    @Test("a policy that makes no sense is refused")
    func refused() {
        #expect(throws: UsageError.self) { try self.worker(RecyclingPolicy(maxJobs: 0)) }
        #expect(throws: UsageError.self) { try self.worker(RecyclingPolicy(maxAge: .zero)) }
    }
}
