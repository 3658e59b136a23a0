// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire
import Testing

/// Sessions leave descriptors free.
@Suite struct PlacesTests {
    @Test(
        "sessions may take all descriptors but those that are open and an eighth, and those of tenants with few somewhat more"
    )
    func margins() {
        #expect(Places(descriptors: 1024, open: 24) == Places(count: 872, spare: 42))
        #expect(Places(descriptors: 64, open: 24) == Places(count: 24, spare: 5))
        #expect(Places(descriptors: 1 << 20, open: 0).count == (1 << 20) - (1 << 17))
        for descriptors in [0, 1, 16, 31, 64, 100, Int.max] {
            let places = Places(descriptors: descriptors, open: 30)
            #expect(places.count >= 4 && places.spare >= 0)
            #expect(descriptors < 64 || places.count + places.spare <= descriptors - 30 - 11)
        }
    }

    private func bench(_ count: Int, spare: Int) -> BrokerBench {
        var configuration = BrokerMachine.Configuration(seed: 7)
        configuration.places = Places(count: count, spare: spare)
        return BrokerBench(configuration)
    }

    private func offer(_ number: UInt64, of tenant: String?, to bench: inout BrokerBench) -> Int? {
        bench.machine.offerReceived(
            WorkerOffer(worker: PeerID(high: 3, low: number), epoch: number, functions: ["f"]),
            tenant: tenant.map { TenantClaim(name: $0) },
            route: 1 << 33 | number,
            at: bench.now,
            actions: &bench.actions
        )
    }

    @Test(
        "one more session than there are descriptors for is refused, be it a client's or a worker's, until another ends"
    )
    func withoutKeys() throws {
        var bench = self.bench(10, spare: 5)
        for number in 1...4 as ClosedRange<UInt64> { #expect(self.offer(number, of: nil, to: &bench) != nil) }
        let clients = try (1...6 as ClosedRange<UInt64>).map { try bench.client($0) }
        let eleventh = bench.machine.helloReceived(
            client: PeerID(high: 1, low: 7),
            epoch: 7,
            route: 7,
            at: bench.now,
            actions: &bench.actions
        )
        guard case .refuse(let refusal) = eleventh else {
            Issue.record("an eleventh session")
            return
        }
        #expect(refusal.isForDescriptors && refusal.quota == nil && refusal.limit == 10)
        let worker = self.offer(5, of: nil, to: &bench)
        #expect(worker == nil)
        #expect(bench.machine.refusalOfWorker?.isForDescriptors == true)
        // Who has a session goes on with it by another connection.
        let back = bench.machine.helloReceived(
            client: PeerID(high: 1, low: 1),
            epoch: 1,
            route: 100,
            at: bench.now,
            actions: &bench.actions
        )
        #expect(back == .welcome(session: clients[0], isResumed: true))
        bench.machine.clientLeft(clients[5], at: bench.now, actions: &bench.actions)
        let again = self.offer(5, of: nil, to: &bench)
        #expect(again != nil)
    }

    @Test("tenants that took all places keep nobody out who has few")
    func withKeys() {
        var bench = self.bench(128, spare: 6)
        var number: UInt64 = 0
        func sessions(of tenant: String, _ bench: inout BrokerBench) -> Int {
            var count = 0
            for _ in 0..<80 {
                number += 1
                if number % 2 == 0 {
                    if case .welcome = bench.introduce(number, of: tenant) { count += 1 }
                } else if self.offer(number, of: tenant, to: &bench) != nil {
                    count += 1
                }
            }
            return count
        }
        let counts = ["greedy", "as greedy", "modest", "as modest", "third", "fourth"].map { sessions(of: $0, &bench) }
        #expect(counts == [80, 48, 2, 2, 2, 0])
        #expect(bench.machine.clientCount + bench.machine.workerCount == 134)
    }
}
