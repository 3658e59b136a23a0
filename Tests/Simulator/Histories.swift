// SPDX-License-Identifier: Apache-2.0

/// Many histories, one per seed.
package struct Histories: Sendable {
    /// What stands between clients and workers.
    package enum World: String, CaseIterable, Sendable {
        /// Nothing: clients connect to the workers.
        case direct
        /// Brokers, which clients connect to and workers dial.
        case brokered
        /// Slow lines, and nothing that breaks.
        case slow
    }

    package var outcome = Cluster.Outcome()
    /// How many histories were lived through, by whoever shares them.
    package var count = 0

    /// Lives through every `shares`th of the histories; see ``withSeeds(_:_:)`` for the environment.
    ///
    /// - Parameters:
    ///   - world: What stands between.
    ///   - count: The number of seeds if the environment doesn't say.
    ///   - share: Which of the shares.
    ///   - shares: How many there are.
    /// - Throws: The first that fails, with its seed.
    package init(of world: World, count: Int, share: Int = 0, of shares: Int = 1) throws(FailedSeed) {
        var outcome = Cluster.Outcome()
        var number = 0
        try withSeeds(count) { random in
            defer { number += 1 }
            guard number % shares == share else { return }
            outcome += try Self.live(world, &random)
        }
        self.outcome = outcome
        self.count = number
    }

    /// Lives through one history.
    ///
    /// - Parameters:
    ///   - world: What stands between.
    ///   - seed: Its seed.
    /// - Throws: What doesn't hold.
    package init(of world: World, seed: UInt64) throws(FailedSeed) {
        var random = SeededRandom(seed: seed)
        do throws(Violation) {
            self.outcome = try Self.live(world, &random)
            self.count = 1
        } catch { throw FailedSeed(seed: seed, cause: error) }
    }

    private static func live(_ world: World, _ random: inout SeededRandom) throws(Violation) -> Cluster.Outcome {
        let isBrokered = world == .brokered || world == .slow && random.oneIn(2)
        return try Cluster(random: random, isBrokered: isBrokered, isCalm: world == .slow).run()
    }
}
