// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Testing

/// Which way a call with a limit is held up.
enum HeldWay: CaseIterable { case direct, toBroker, toWorker }

/// Limits of calls that wait on their way.
@Suite("Transit", .serialized, .timeLimit(.minutes(2)))
struct TransitTests {
    /// In a frame of its own, and in parts.
    private static let sizes = [700_000, 3_000_000]

    @Test(
        "S28 S40 of calls whose large arguments wait in sockets none starts after its caller has given up",
        arguments: HeldWay.allCases,
        sizes
    )
    func held(_ way: HeldWay, _ size: Int) async throws {
        let pool = try Pool(workers: 0) { $0.silenceLimit = .seconds(60) }
        let target =
            try way == .direct
            ? pool.addWorker("direct", binding: "tcp://127.0.0.1:*") { $0.silenceLimit = .seconds(60) }.endpoint
            : pool.endpoint
        let link = try FlakyLink(to: target)
        if way != .direct {
            let dialled = way == .toWorker ? link.endpoint : pool.endpoint
            try pool.addWorker("dialling", brokers: [dialled]) { $0.silenceLimit = .seconds(60) }
        }
        let client = try pool.client([way == .toWorker ? pool.endpoint : link.endpoint]) {
            $0.silenceLimit = .seconds(60)
        }
        let weigh = client.function(Job.weigh)
        #expect(try await timed(weigh, .seconds(60))("first", [1]).value == 1)
        link.hold(true)
        let payload = [UInt8](repeating: 7, count: size)
        let calls = try (0..<24).map { try timed(weigh, .milliseconds(150))("\($0)", payload) }
        for call in calls { await #expect(throws: AsyncResultTimeout.self) { try await call.value } }
        link.hold(false)
        // Behind all of them, by the same way.
        #expect(try await weigh.async("last", payload).value == size)
        #expect(pool.gates.entered == ["first", "last"])
        await pool.close()
        link.close()
    }
}
