// SPDX-License-Identifier: Apache-2.0

/// Decides when a worker tells a broker what it can do: until the broker has introduced itself, with pauses that
/// double.
package struct OfferSchedule: Equatable, Sendable {
    private enum State: Equatable, Sendable {
        case due(Instant, interval: UInt64)
        /// The broker has introduced itself.
        case settled
    }

    private static var firstNanoseconds: UInt64 { 100_000_000 }

    private let longestNanoseconds: UInt64
    private var state: State

    /// Creates a schedule whose first offer is due at once; no pause is longer than `longestNanoseconds`, the silence limit.
    package init(longestNanoseconds: UInt64, at now: Instant) {
        self.longestNanoseconds = longestNanoseconds
        self.state = .due(now, interval: Self.firstNanoseconds)
    }

    /// When there is next something to do.
    package var nextDeadline: Instant {
        switch self.state {
        case .due(let instant, _): instant
        case .settled: .distantFuture
        }
    }

    /// Whether to send the offer now.
    package mutating func isDue(at now: Instant) -> Bool {
        guard case .due(let instant, let interval) = self.state, instant <= now else { return false }
        self.state = .due(
            now.advanced(byNanoseconds: interval),
            interval: min(interval * 2, self.longestNanoseconds)
        )
        return true
    }

    /// The broker has introduced itself.
    package mutating func settled() { self.state = .settled }

    /// The broker doesn't know the worker, or is gone: offer again.
    ///
    /// A schedule that is already running keeps its pace: a broker may ask many times.
    package mutating func restart(at now: Instant) {
        if case .settled = self.state { self.state = .due(now, interval: Self.firstNanoseconds) }
    }
}
