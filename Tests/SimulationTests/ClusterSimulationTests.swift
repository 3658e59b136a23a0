// SPDX-License-Identifier: Apache-2.0

import Simulator
import Testing

@Suite struct ClusterSimulationTests {
    private static let shares = 2

    @Test(
        "S87 S88 S97 S98 S100 whatever the network does, every call ends once and nothing runs twice that may not",
        arguments: 0..<ClusterSimulationTests.shares
    )
    func histories(share: Int) { self.live(.direct, count: 600, share: share) }

    @Test(
        "through brokers, whatever the network does, every call ends once, nothing runs twice that may not, credit holds, no event goes astray, and the tables are empty at the end",
        arguments: 0..<ClusterSimulationTests.shares
    )
    func brokeredHistories(share: Int) { self.live(.brokered, count: 400, share: share) }

    @Test("on slow lines large values arrive, once, nobody is given up, and small calls pass them")
    func slowHistories() throws {
        let histories = try Histories(of: .slow, count: 60)
        guard histories.count > 20 else { return }
        let sum = histories.outcome
        #expect(sum.transfers > histories.count && sum.deliveries > 0, "\(sum)")
    }

    @Test(
        "histories that once failed hold",
        arguments: [
            (Histories.World.brokered, UInt64(19131)), (.brokered, 98338), (.brokered, 27951), (.brokered, 1093),
            (.brokered, 2548), (.direct, 4706),
            (.direct, 15285),
        ]
    )
    func kept(world: Histories.World, seed: UInt64) throws { _ = try Histories(of: world, seed: seed) }

    private func live(_ world: Histories.World, count: Int, share: Int) {
        do {
            let histories = try Histories(of: world, count: count, share: share, of: Self.shares)
            // A simulation in which nothing happens proves nothing; one history may be a quiet one.
            guard histories.count > 100 else { return }
            let sum = histories.outcome
            #expect(sum.answered > 0 && sum.resends > 0 && sum.losses > 0 && sum.resumptions > 0, "\(sum)")
            #expect(sum.transfers > 0)
            guard world == .brokered else { return }
            #expect(sum.crashes > 0 && sum.deliveries > 0 && sum.invocations > 0, "\(sum)")
        } catch {
            Issue.record("\(error), or by: make simulate SEED=\(error.seed)")
        }
    }
}
