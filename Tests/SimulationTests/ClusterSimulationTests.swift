// SPDX-License-Identifier: Apache-2.0

import Simulator
import Testing

@Suite struct ClusterSimulationTests {
    private static let shares = 2

    @Test(
        "S87 S88 S97 S98 S100 whatever the network does, every call ends once and nothing runs twice that may not",
        arguments: 0..<ClusterSimulationTests.shares
    )
    func histories(share: Int) { self.live(share: share, isBrokered: false) }

    @Test(
        "through a broker, whatever the network does, every call ends once, nothing runs twice that may not, credit holds, and the tables are empty at the end",
        arguments: 0..<ClusterSimulationTests.shares
    )
    func brokeredHistories(share: Int) { self.live(share: share, isBrokered: true) }

    private func live(share: Int, isBrokered: Bool) {
        var sum = Cluster.Outcome()
        var count = 0
        do {
            try withSeeds { random in
                defer { count += 1 }
                guard count % Self.shares == share else { return }
                sum += try Cluster(random: random, isBrokered: isBrokered).run()
            }
        } catch {
            Issue.record("\(error), or by: make simulate SEED=\(error.seed)")
        }
        // A simulation in which nothing happens proves nothing; one history may be a quiet one.
        guard count > 100 else { return }
        #expect(sum.answered > 0 && sum.resends > 0 && sum.losses > 0 && sum.resumptions > 0, "\(sum)")
    }
}
