// SPDX-License-Identifier: Apache-2.0

import DroverWire
import Testing

@testable import Drover
@testable import DroverBroker

/// What is left to chance when a life begins.
@Suite("Randomness")
struct RandomnessTests {
    @Test("no two lives draw the same, and none draws nothing")
    func lives() {
        let lives = (0..<100).map { _ in LifeRandomness() }
        #expect(Set(lives.map(\.identity)).count == lives.count)
        #expect(Set(lives.map(\.epoch)).count == lives.count)
        #expect(Set(lives.map(\.seed)).count == lives.count)
        #expect(Set(lives.map(\.spread)).count > 1)
        #expect(!lives.map(\.seed).contains(0))
    }

    @Test("the tables of each worker and each broker have a seed of their own")
    func seeds() throws {
        let workers = try (0..<2).map { _ in try WorkerCore(configuration: WorkerConfiguration(), handlers: [:]) }
        let brokers = try (0..<2).map { _ in try BrokerCore(configuration: BrokerConfiguration()) }
        let seeds = workers.map(\.randomness.seed) + brokers.map(\.randomness.seed)
        #expect(Set(seeds).count == seeds.count)
        #expect(!seeds.contains(0))
    }
}
