// SPDX-License-Identifier: Apache-2.0

import Drover
import Logging
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
        _ = await over.value
        #expect(running.recyclingReason == .jobs(5))
        #expect(await over.value == .jobs(5))
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

    @Test("who runs a worker learns why it left, from what is returned and from the log")
    func told() async throws {
        let logged = Gathered<String>()
        var configuration = WorkerConfiguration()
        configuration.recycling = RecyclingPolicy(maxAge: .milliseconds(50))
        configuration.logger = .calling { level, line in if level == .notice { logged.add(line) } }
        let reason = try await Worker(configuration: configuration).run(.bind("tcp://127.0.0.1:*"), shutdownSignals: [])
        guard case .age = reason else {
            Issue.record("it says that it left because of \(reason as Any)")
            return
        }
        #expect(logged.values.last?.contains("the worker has left drover.reason=by itself: it has served for") == true)
        configuration.recycling = RecyclingPolicy()
        let running = try Worker(configuration: configuration).start(.bind("tcp://127.0.0.1:*"))
        let over = Task { await running.runUntilAsked(to: []) }
        await running.stop(grace: .zero)
        #expect(await over.value == nil)
        #expect(logged.values.last?.contains("the worker has left drover.reason=it was asked to") == true)
    }

    @Test("a policy that makes no sense is refused")
    func refused() {
        #expect(throws: UsageError.self) { try self.worker(RecyclingPolicy(maxJobs: 0)) }
        #expect(throws: UsageError.self) { try self.worker(RecyclingPolicy(maxAge: .zero)) }
    }
}
