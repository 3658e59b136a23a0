// SPDX-License-Identifier: Apache-2.0

/// How many connections each key may open: many at once, as when a fleet starts anew, and few for long.
///
/// libzmq can't close a connection, nor say how many a key has; it only asks before each whether it may be. Who opens many for long
/// is after something else, such as the routing ids that libzmq will give.
package struct ConnectionRates: Sendable {
    private struct Bucket {
        var left: Double
        var at: Instant
    }

    /// So many may be opened at once.
    private let burst: Double
    /// So many a second make up for it.
    private let perSecond: Double
    private var buckets: [String: Bucket] = [:]

    package init(burst: Int, perSecond: Int) {
        self.burst = Double(max(1, burst))
        self.perSecond = Double(max(1, perSecond))
    }

    /// How many keys are known of which not enough time has passed to forget them.
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

    /// Keys that are on the list no more are forgotten.
    package mutating func forget(except isKnown: (String) -> Bool) {
        self.buckets = self.buckets.filter { isKnown($0.key) }
    }
}
