// SPDX-License-Identifier: Apache-2.0

import Foundation

/// A property that didn't hold.
package struct Violation: Error, CustomStringConvertible {
    package var description: String

    package init(_ description: String) {
        self.description = description
    }
}

/// A history that failed, and how to see it again.
package struct FailedSeed: Error, CustomStringConvertible {
    package var seed: UInt64
    package var cause: any Error

    package var description: String {
        "seed \(self.seed): \(self.cause) (replay with DROVER_SIM_SEED=\(self.seed))"
    }
}

/// Throws a ``Violation`` unless the condition holds.
///
/// Cheaper than `#expect`, which matters when it is asked millions of times.
package func check(_ condition: Bool, _ message: @autoclosure () -> String) throws(Violation) {
    if !condition { throw Violation(message()) }
}

/// Whether ThreadSanitizer or AddressSanitizer slows everything down.
package var isSanitized: Bool { ProcessInfo.processInfo.environment["DROVER_SANITIZED"] != nil }

/// Runs a body once for each seed and names the seed in the error if it throws.
///
/// `DROVER_SIM_SEED=n` runs that seed alone, `DROVER_SIM_SEEDS=n` sets how many there are, `DROVER_SIM_FIRST_SEED=n` where
/// they begin (by default at 1, so that every run of the tests sees the same histories).
///
/// - Parameters:
///   - count: The number of seeds if the environment doesn't say.
///   - body: Is given the seed's generator.
/// - Throws: What the body threw, with its seed.
package func withSeeds(_ count: Int = 1000, _ body: (inout SeededRandom) throws -> Void) throws(FailedSeed) {
    let environment = ProcessInfo.processInfo.environment
    func number(_ name: String) -> UInt64? { environment[name].flatMap { UInt64($0) } }
    let seeds: Range<UInt64>
    if let seed = number("DROVER_SIM_SEED") {
        seeds = seed..<seed + 1
    } else {
        let first = number("DROVER_SIM_FIRST_SEED") ?? 1
        seeds = first..<first + (number("DROVER_SIM_SEEDS") ?? UInt64(count))
    }
    for seed in seeds {
        var random = SeededRandom(seed: seed)
        do {
            try body(&random)
        } catch {
            throw FailedSeed(seed: seed, cause: error)
        }
    }
}
