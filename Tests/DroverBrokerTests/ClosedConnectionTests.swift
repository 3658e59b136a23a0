// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Foundation
import Synchronization
import Testing

/// Connections that the other side closes, with the usual beats: 2 s, lost after 6 s of silence.
///
/// `DROVER_KILLS` and `DROVER_FLAPS` say how often.
@Suite("Closed connections", .serialized, .timeLimit(.minutes(10)))
struct ClosedConnectionTests {
    private static let echo = Function<Int, Int>("echo")
    private static let sleep = Function<Double, String, String>("sleep")
    private static let limit = Duration.seconds(1.5)

    private static func setting(_ name: String, _ usual: Int) -> Int {
        ProcessInfo.processInfo.environment[name].flatMap { Int($0) } ?? usual
    }

    private var kills: Int { Self.setting("DROVER_KILLS", 2) }
    private var flaps: Int { Self.setting("DROVER_FLAPS", 12) }

    /// Calls of both kinds, most of which are under way at any moment.
    private func burst(_ client: Client) throws -> (plain: [AsyncResult<String>], sure: [AsyncResult<String>]) {
        var options = CallOptions()
        options.isIdempotent = true
        let sleep = client.function(Self.sleep)
        let sure = sleep.with(options)
        var calls: (plain: [AsyncResult<String>], sure: [AsyncResult<String>]) = ([], [])
        for number in 0..<40 {
            calls.plain.append(try sleep.async(0.05, "\(number)"))
            calls.sure.append(try sure.async(0.05, "\(number)"))
        }
        return calls
    }

    /// Kills the worker, and sees that all calls end in time; idempotent ones with their value.
    private func kill(
        _ victim: ChildProcess,
        under calls: (plain: [AsyncResult<String>], sure: [AsyncResult<String>])
    ) async throws -> Duration {
        try await becomesTrue("the workers are at it") { calls.plain.prefix(8).contains { $0.outcome != nil } }
        victim.kill()
        let struck = ContinuousClock.now
        try await becomesTrue("all calls have ended") {
            calls.plain.allSatisfy { $0.outcome != nil } && calls.sure.allSatisfy { $0.outcome != nil }
        }
        let time = ContinuousClock.now - struck
        for result in calls.plain {
            switch result.outcome {
            case .value: break
            case .lost(let error): #expect(error.code == .lost)
            case let other: Issue.record("\(String(describing: other))")
            }
        }
        for (number, result) in calls.sure.enumerated() { #expect(try await result.value == "\(number)") }
        // What waited for the loss may have been idempotent, all of it.
        let hasLost = calls.plain.contains { if case .lost = $0.outcome { true } else { false } }
        #expect(hasLost || time > .milliseconds(500), "nothing was under way")
        return time
    }

    private func judge(_ times: [Duration], _ what: String) {
        let sorted = times.sorted()
        print("\(what): \(times.count) kills, median \(sorted[sorted.count / 2]), longest \(sorted[sorted.count - 1])")
        #expect(sorted[sorted.count / 2] < Self.limit)
    }

    @Test("S85 S87 calls of a killed worker end within 1.5 s, idempotent ones on another")
    func killed() async throws {
        let lasting = try DirectWorkerProcess()
        var times: [Duration] = []
        for _ in 0..<self.kills {
            let victim = try DirectWorkerProcess()
            let client = try Client([lasting.endpoint, victim.endpoint])
            for endpoint in 0...1 { _ = try await client.ping(endpoint: endpoint, timeout: .seconds(10)) }
            times.append(try await self.kill(victim, under: try self.burst(client)))
            await client.close(grace: .zero)
        }
        self.judge(times, "direct")
        lasting.kill()
    }

    @Test("S85 S87 through a broker calls of a killed worker end within 1.5 s, idempotent ones on another")
    func killedBehindBroker() async throws {
        let pool = try Pool(workers: 0) {
            $0.heartbeatInterval = .seconds(2)
            $0.silenceLimit = .seconds(6)
        }
        let lasting = try WorkerProcess(dialling: pool.endpoint)
        let client = try pool.client()
        var times: [Duration] = []
        for _ in 0..<self.kills {
            let victim = try WorkerProcess(dialling: pool.endpoint)
            try await becomesTrue("both are there") { pool.broker.status.workers == 2 }
            times.append(try await self.kill(victim, under: try self.burst(client)))
            try await becomesTrue("it is struck off", within: Self.limit) { pool.broker.status.workers == 1 }
        }
        self.judge(times, "by a broker")
        lasting.kill()
        await pool.close()
    }

    @Test("S87 an idle worker that was killed is struck off within 1.5 s")
    func killedIdle() async throws {
        let pool = try Pool(workers: 0) {
            $0.heartbeatInterval = .seconds(20)
            $0.silenceLimit = .seconds(60)
        }
        let victim = try WorkerProcess(dialling: pool.endpoint)
        try await becomesTrue("it is there") { pool.broker.status.workers == 1 }
        victim.kill()
        try await becomesTrue("it is struck off", within: Self.limit) { pool.broker.status.workers == 0 }
        await pool.close()
    }

    @Test("S88 a link that flaps loses no call, and nothing runs twice that may not", arguments: [false, true])
    func flapping(isBrokered: Bool) async throws {
        let pool = try Pool(workers: 0) {
            $0.heartbeatInterval = .seconds(2)
            $0.silenceLimit = .seconds(6)
        }
        var links: [FlakyLink] = []
        if isBrokered {
            links = [try FlakyLink(to: pool.endpoint), try FlakyLink(to: pool.endpoint)]
            try pool.addWorker("w", brokers: [links[1].endpoint]) {
                $0.heartbeatInterval = .seconds(2)
                $0.silenceLimit = .seconds(6)
            }
        } else {
            let worker = try pool.addWorker("w", binding: "tcp://127.0.0.1:*") {
                $0.heartbeatInterval = .seconds(2)
                $0.silenceLimit = .seconds(6)
            }
            links = [try FlakyLink(to: worker.endpoint)]
        }
        let client = try pool.client([links[0].endpoint]) {
            $0.heartbeatInterval = .seconds(2)
            $0.silenceLimit = .seconds(6)
            $0.maxOutstandingCalls = 1 << 20
        }
        let append = client.function(Job.append)
        #expect(try await append(0) == 0)
        var handles: [AsyncResult<Int>] = []
        for _ in 0..<self.flaps {
            let down = Int.random(in: 1...500)
            links[Int.random(in: 0..<links.count)].cut(for: .milliseconds(down))
            let end = ContinuousClock.now + .milliseconds(down + Int.random(in: 400...800))
            while ContinuousClock.now < end {
                for _ in 0..<5 { handles.append(try append.async(handles.count + 1)) }
                try await Task.sleep(for: .milliseconds(5))
            }
        }
        for (number, handle) in handles.enumerated() { #expect(try await handle.value == number + 1) }
        let ran = pool.order.withLock { $0.sorted() }
        #expect(ran == Array(0...handles.count))
        #expect(client.statistics.disconnections == 0)
        print("\(self.flaps) flaps, \(handles.count) calls\(isBrokered ? " by a broker" : "")")
        await pool.close()
        for link in links { link.close() }
    }
}

/// A worker that is bound, to be killed.
private final class DirectWorkerProcess: ChildProcess, @unchecked Sendable {
    var endpoint: String { String(self.firstLine.dropFirst("listens ".count)) }

    init() throws { try super.init("fault-worker", ["serve", "tcp://127.0.0.1:*"], printsLine: true) }

    @Test("a worker's log says which broker it serves, when that is lost, and when nobody is there")
    func workerLog() async throws {
        let log = CapturedLog()
        let pool = try Pool(workers: 0)
        let worker = try pool.addWorker("w") { $0.logger = log.logger }
        try await becomesTrue("it serves") { log.has("the worker serves a broker", pool.endpoint) }
        await pool.broker.stop(grace: .zero)
        try await becomesTrue("it is lost") { log.has("a broker is lost", pool.endpoint) }
        try await becomesTrue("nobody is there") { log.has("a broker can't be reached", pool.endpoint) }
        let again = try Pool(address: pool.endpoint, workers: 0)
        try await becomesTrue("it is back") { log.lines.count { $0.contains("the worker serves a broker") } == 2 }
        #expect(log.lines.count { $0.contains("a broker can't be reached") } == 1)
        await worker.stop(grace: .zero)
        await again.close()
        await pool.close()
    }
}
