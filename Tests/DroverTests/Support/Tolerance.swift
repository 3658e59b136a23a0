// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

extension Tag {
    /// A scenario of the behaviour contract, with its tolerances.
    @Tag static var acceptance: Self
}

/// By how much a loaded machine may exceed the contract's upper bounds; lower bounds stay as they are.
private let slowness: Double = {
    let text = ProcessInfo.processInfo.environment["DROVER_TEST_SLOWNESS"]
    return max(text.flatMap { Double($0) } ?? 1, isSanitized ? 4 : 1)
}()

/// An upper bound, as this machine may have it.
func scaled(_ limit: Duration) -> Duration { limit * slowness }

/// Sees that what is measured lies within bounds, in one of a few attempts: whatever else the machine does may delay one
/// attempt, a fault delays them all.
///
/// No attempt may be shorter than `least`.
func expectTime(
    _ what: String,
    atLeast least: Duration = .zero,
    atMost limit: Duration,
    attempts: Int = 3,
    sourceLocation: SourceLocation = #_sourceLocation,
    _ attempt: () throws -> Duration
) rethrows {
    var times: [Duration] = []
    for _ in 0..<attempts {
        let time = try attempt()
        times.append(time)
        #expect(time >= least, "\(what) took \(time)", sourceLocation: sourceLocation)
        if time <= scaled(limit) { return }
    }
    Issue.record("\(what) took \(times), which is longer than \(scaled(limit))", sourceLocation: sourceLocation)
}

/// As the blocking form, for attempts that suspend.
func expectTime(
    _ what: String,
    atLeast least: Duration = .zero,
    atMost limit: Duration,
    attempts: Int = 3,
    sourceLocation: SourceLocation = #_sourceLocation,
    _ attempt: () async throws -> Duration
) async rethrows {
    var times: [Duration] = []
    for _ in 0..<attempts {
        let time = try await attempt()
        times.append(time)
        #expect(time >= least, "\(what) took \(time)", sourceLocation: sourceLocation)
        if time <= scaled(limit) { return }
    }
    Issue.record("\(what) took \(times), which is longer than \(scaled(limit))", sourceLocation: sourceLocation)
}

/// Suspends until something has become true, looking every millisecond; records an issue if it hasn't within the limit.
@discardableResult
func becomesTrue(
    _ what: String,
    within limit: Duration = .seconds(10),
    sourceLocation: SourceLocation = #_sourceLocation,
    _ isTrue: () throws -> Bool
) async throws -> Bool {
    let deadline = ContinuousClock.now + limit
    while try !isTrue() {
        guard ContinuousClock.now < deadline else {
            Issue.record("within \(limit) it did not come true that \(what)", sourceLocation: sourceLocation)
            return false
        }
        try await Task.sleep(for: .milliseconds(1))
    }
    return true
}
