// SPDX-License-Identifier: Apache-2.0

/// When to try again what failed: after a pause that doubles.
package struct Backoff: Equatable, Sendable {
    private let firstNanoseconds: UInt64
    private let longestNanoseconds: UInt64
    /// How often it failed, one time after the other.
    package private(set) var failures = 0

    package init(firstNanoseconds: UInt64 = 100_000_000, longestNanoseconds: UInt64 = 5_000_000_000) {
        self.firstNanoseconds = firstNanoseconds
        self.longestNanoseconds = longestNanoseconds
    }

    /// It failed.
    ///
    /// - Returns: When to try again.
    package mutating func failed(at now: Instant) -> Instant {
        let pause = min(self.firstNanoseconds << UInt64(min(self.failures, 16)), self.longestNanoseconds)
        self.failures += 1
        return now.advanced(byNanoseconds: pause)
    }

    /// It succeeded: the next failure is a first one.
    package mutating func succeeded() { self.failures = 0 }
}
