// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Foundation
import Testing

/// What operators do stands in the broker's log, however much they look.
@Suite("Audit", .serialized, .timeLimit(.minutes(2)))
struct AuditTests {
    private let ring: Keyring

    init() throws { self.ring = try Keyring() }

    private var acts: [String] { self.ring.log.lines.filter { $0.contains("an operator acted") } }
    private var looks: [String] { self.ring.log.lines.filter { $0.contains("an operator looked") } }

    /// How many looks the log says that it left out.
    private var leftOut: Int {
        self.looks.reduce(0) { sum, line in
            let count = line.firstRange(of: "drover.left_out=").map { line[$0.upperBound...].prefix { $0.isNumber } }
            return sum + (count.flatMap { Int($0) } ?? 0)
        }
    }

    /// Waits until more looks than the log has room for have come.
    private func theyLookOn() async throws {
        let before = self.leftOut
        try await becomesTrue("more looks are left out") { self.leftOut > before }
    }

    @Test("what is refused to one principal takes no other's lines")
    func paces() {
        func actor(_ name: String) -> AuditLog.Actor { AuditLog.Actor(principal: name, key: "key", address: "there") }
        let log = AuditLog(logger: self.ring.log.logger)
        for _ in 0..<1000 { log.refused(actor("web"), "submit", because: "it may not") }
        log.refused(actor("night"), "submit", because: "it may not")
        for _ in 0..<1000 { log.refused(actor(""), "connect", because: "nobody knows its key") }
        let lines = self.ring.log.lines.filter { $0.contains("refused") }
        #expect((50...60).contains(lines.count { $0.contains("drover.principal=web") }))
        #expect(lines.contains { $0.contains("drover.principal=night") && !$0.contains("left_out") })
        // Strangers share one pace, however many keys they have.
        #expect((50...60).contains(lines.count { $0.contains("nobody knows its key") }))
    }

    @Test("beside four drover tops at 0.1 s each of 100 cancels and 10 stops is logged: who, what, target, outcome")
    func topsBesideActs() async throws {
        let (admin, web) = (try KeyPair(), try KeyPair())
        try self.ring.allow(admin, "root admin,cancel")
        try self.ring.allow(web, "web submit")
        let pool = try self.ring.pool(workers: 10)
        let owner = try pool.client {
            $0.keys = self.ring.connection(web)
            $0.name = "web"
        }
        let operatorsClient = try pool.client { $0.keys = self.ring.connection(admin) }
        let keyFile = self.ring.folder.appending(path: "root.key").path
        let brokersFile = self.ring.folder.appending(path: "broker.key").path
        try admin.write(to: keyFile)
        try self.ring.broker.write(to: brokersFile)
        let arguments = ["--broker", pool.endpoint, "--key", keyFile, "--server-key", brokersFile + ".pub"]
        let tops = try (0..<4).map { _ in try ChildProcess("drover", ["top", "--interval", "0.1"] + arguments) }
        defer { for top in tops { top.kill() } }

        // They use up the lines that there are for looks, and go on doing so.
        try await becomesTrue("looks are left out of the log") { self.leftOut > 0 }
        let calls = try (0..<100).map { _ in try owner.function(Job.hold).async("gate") }
        try await becomesTrue("some run") { !pool.gates.entered.isEmpty }
        var outcomes: [UInt64: String] = [:]
        for (number, call) in calls.enumerated() {
            if number % 10 == 0 { try await self.theyLookOn() }
            let id = call.correlationID.rawValue
            let cancelled = try #require(try await operatorsClient.function(.brokerCancel)(id, "web").first)
            outcomes[id] = cancelled.worker.map { "\($0) was asked to stop it" } ?? "it waited, and is over"
        }
        var identities: [String: String] = [:]
        for number in 0..<10 {
            let told = try await operatorsClient.function(.brokerOrder)("worker \(number)", .stop, 5)
            #expect(told.count == 1)
            identities["worker \(number)"] = told.first
        }
        let acts = self.acts
        try await self.theyLookOn()
        #expect(tops.allSatisfy { $0.isRunning })

        #expect(acts.count == 110)
        let who = ["drover.principal=root", "drover.key=\(admin.publicKey.text)", "drover.peer=127.0.0.1"]
        for (id, outcome) in outcomes {
            let what = ["drover.action=cancel", "drover.target=#\(id) of web, hold", "drover.outcome=\(outcome)"]
            let found = acts.count { act in (who + what).allSatisfy { act.contains($0) } }
            #expect(found == 1, "#\(id), \(outcome)")
        }
        for (name, identity) in identities {
            let what = [
                "drover.action=stop", "drover.target=\(name) \(identity)", "drover.outcome=told, within 5000 ms",
            ]
            let found = acts.count { act in (who + what).allSatisfy { act.contains($0) } }
            #expect(found == 1, "\(name)")
        }
        for call in calls { await #expect(throws: (any Error).self) { try await call.value } }
        try await becomesTrue("the workers have gone") { pool.broker.status.workers == 0 }
        await pool.close()
    }
}
