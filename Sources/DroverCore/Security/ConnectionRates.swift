// SPDX-License-Identifier: Apache-2.0

/// Limits how many connections each key may open: many at once, as when a fleet restarts, but few in the long run.
///
/// libzmq can't close a connection, nor say how many a key has; it only asks before each whether to allow it. A peer
/// that keeps opening many is after something else, such as the routing ids that libzmq will give out.
package struct ConnectionRates: Sendable {
    private struct Bucket {
        var left: Double
        var at: Instant
    }

    /// How many may be opened at once.
    private let burst: Double
    /// How many are added back per second.
    private let perSecond: Double
    private var buckets: [String: Bucket] = [:]

    package init(burst: Int, perSecond: Int) {
        self.burst = Double(max(1, burst))
        self.perSecond = Double(max(1, perSecond))
    }

    /// How many keys have a bucket.
    package var count: Int { self.buckets.count }

    /// A key that is allowed opens a connection.
    ///
    /// - Returns: Whether it may.
    package mutating func admits(_ key: String, at now: Instant) -> Bool {
        var bucket = self.buckets[key] ?? Bucket(left: self.burst, at: now)
        let seconds = Double(now.nanoseconds(since: bucket.at)) / 1e9
        bucket.left = min(self.burst, bucket.left + seconds * self.perSecond)
        bucket.at = now
        let isAdmitted = bucket.left >= 1
        if isAdmitted { bucket.left -= 1 }
        self.buckets[key] = bucket
        return isAdmitted
    }

    /// Forgets keys that are no longer on the list.
    package mutating func forget(except isKnown: (String) -> Bool) {
        self.buckets = self.buckets.filter { isKnown($0.key) }
    }
}
