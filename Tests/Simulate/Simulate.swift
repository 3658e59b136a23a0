// SPDX-License-Identifier: Apache-2.0

import Foundation
import Simulator

/// Lives through many histories, on all cores; `make simulate` builds it optimised.
@main
struct Simulate {
    static func main() async {
        let shares = max(1, ProcessInfo.processInfo.activeProcessorCount)
        var hasFailed = false
        for world in Histories.World.allCases {
            var outcome = Cluster.Outcome()
            var count = 0
            await withTaskGroup(of: Result<Histories, FailedSeed>.self) { group in
                for share in 0..<shares {
                    group.addTask {
                        Result { () throws(FailedSeed) in
                            try Histories(of: world, count: 1000, share: share, of: shares)
                        }
                    }
                }
                for await result in group {
                    switch result {
                    case .success(let histories):
                        outcome += histories.outcome
                        count = histories.count
                    case .failure(let failed):
                        hasFailed = true
                        print("\(world.rawValue): seed \(failed.seed): \(failed.cause)")
                        print("  replay: make simulate SEED=\(failed.seed)")
                    }
                }
            }
            print("\(world.rawValue): \(count) histories, \(outcome)")
        }
        if hasFailed { exit(1) }
    }
}
