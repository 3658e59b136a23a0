// SPDX-License-Identifier: Apache-2.0

/// Says when to retry something that failed: after a pause that doubles.
package struct Backoff: Equatable, Sendable {
    private let firstNanoseconds: UInt64
    private let longestNanoseconds: UInt64
    /// How often it has failed in a row.
    package private(set) var failures = 0

    package init(firstNanoseconds: UInt64 = 100_000_000, longestNanoseconds: UInt64 = 5_000_000_000) {
        self.firstNanoseconds = firstNanoseconds
        self.longestNanoseconds = longestNanoseconds
    }

    /// The attempt failed.
    ///
    /// - Returns: When to try again.
    package mutating func failed(at now: Instant) -> Instant {
        let pause = min(self.firstNanoseconds << UInt64(min(self.failures, 16)), self.longestNanoseconds)
        self.failures += 1
        return now.advanced(byNanoseconds: pause)
    }

    /// The attempt succeeded: the next failure counts as the first again.
    package mutating func succeeded() { self.failures = 0 }
}
