// SPDX-License-Identifier: Apache-2.0

/// How much of a broker one tenant may use: a key, or the keys of a group that the allow-list names.
///
/// If the list doesn't give a quota, it is nil, and the broker's own setting applies.
package struct Quotas: Hashable, Sendable {
    /// How many sessions its clients may have.
    package var clients: Int?
    /// How many sessions its workers may have.
    package var workers: Int?
    /// How many unfinished calls it may have.
    package var calls: Int?
    /// How many bytes the requests of its unfinished calls may take.
    package var bytes: Int?
    /// How many combinations of function, queue, labels and resources it may use.
    package var routes: Int?
    /// How many calls it may make per second in the long run; twice as many at once.
    package var rate: Int?
    /// The highest priority that counts against other tenants; higher ones count among its own calls only.
    package var priority: Int?

    package init() {}

    /// The quotas by the names they have in an allow-list, in the order they are written, with the smallest value that
    /// makes sense.
    package static var columns: [(name: String, least: Int, path: WritableKeyPath<Quotas, Int?>)] {
        [
            ("clients", 0, \.clients), ("workers", 0, \.workers), ("calls", 0, \.calls), ("bytes", 0, \.bytes),
            ("routes", 0, \.routes), ("rate", 1, \.rate), ("priority", 0, \.priority),
        ]
    }

    /// These quotas, with those of `other` where these are nil.
    package func filled(from other: Quotas) -> Quotas {
        var filled = self
        for column in Self.columns where filled[keyPath: column.path] == nil {
            filled[keyPath: column.path] = other[keyPath: column.path]
        }
        return filled
    }
}

/// Allows so much of something per second in the long run, and twice as much at once.
package struct Allowance: Hashable, Sendable {
    private var perSecond: UInt64
    /// What is left, in billionths, so that no fraction is lost.
    private var left: UInt64
    private var at: Instant

    package init(perSecond: Int, at now: Instant) {
        self.perSecond = Self.bounded(perSecond)
        self.left = 2 * self.perSecond * 1_000_000_000
        self.at = now
    }

    /// Takes one more.
    ///
    /// - Returns: Whether that is allowed.
    package mutating func take(at now: Instant) -> Bool {
        self.settle(at: now)
        guard self.left >= 1_000_000_000 else { return false }
        self.left -= 1_000_000_000
        return true
    }

    /// Another rate applies from now on; what is left doesn't grow by the change.
    package mutating func change(perSecond: Int, at now: Instant) {
        self.settle(at: now)
        self.perSecond = Self.bounded(perSecond)
        self.left = min(self.left, 2 * self.perSecond * 1_000_000_000)
    }

    private static func bounded(_ perSecond: Int) -> UInt64 { UInt64(clamping: min(max(1, perSecond), 1 << 30)) }

    private mutating func settle(at now: Instant) {
        let full = 2 * self.perSecond * 1_000_000_000
        let passed = min(now.nanoseconds(since: self.at), 2_000_000_000)
        self.left = min(full, self.left + passed * self.perSecond)
        self.at = max(self.at, now)
    }

    /// The milliseconds until one is available again.
    package var wait: UInt32 {
        guard self.left < 1_000_000_000 else { return 0 }
        return UInt32(clamping: max(1, (1_000_000_000 - self.left) / self.perSecond / 1_000_000))
    }
}
