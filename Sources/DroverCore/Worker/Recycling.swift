// SPDX-License-Identifier: Apache-2.0

/// Decides when a worker has served long enough and a fresh process should take its place.
package struct Recycling: Sendable {
    package struct Limits: Hashable, Sendable {
        /// How many handlers have ended.
        package var jobs: Int?
        package var ageNanoseconds: UInt64?
        package var residentBytes: Int?

        package init(jobs: Int? = nil, ageNanoseconds: UInt64? = nil, residentBytes: Int? = nil) {
            self.jobs = jobs
            self.ageNanoseconds = ageNanoseconds
            self.residentBytes = residentBytes
        }
    }

    package enum Reason: Equatable, Sendable {
        case jobs(Int)
        case age(nanoseconds: UInt64)
        case residentBytes(Int)
    }

    /// How often age and memory are checked.
    package static var lookNanoseconds: UInt64 { 1_000_000_000 }

    private let limits: Limits
    private let startedAt: Instant
    private let retiresAt: Instant
    package private(set) var nextLook: Instant

    /// Begins to count.
    ///
    /// - Parameters:
    ///   - limits: The limits; those that are nil don't apply.
    ///   - now: When the worker started.
    ///   - spread: 0 to 1: the fraction of a tenth of the age that is taken off, so that workers that were started
    ///     together don't leave together.
    package init(limits: Limits, at now: Instant, spread: Double) {
        self.limits = limits
        self.startedAt = now
        let part = 1 - 0.1 * min(max(0, spread), 1)
        self.retiresAt =
            limits.ageNanoseconds.map { age in
                // For the largest numbers, no `Double` converts back.
                now.advanced(byNanoseconds: age > UInt64(Int64.max) ? .max : UInt64(Double(age) * part))
            } ?? .distantFuture
        self.nextLook = .distantFuture
        self.setNextLook(after: now)
    }

    /// Whether enough handlers have ended; cheap enough to be called often.
    package func isDue(afterJobs count: Int) -> Reason? {
        guard let limit = self.limits.jobs, count >= limit else { return nil }
        return .jobs(count)
    }

    /// Checks age and memory, if it is time to.
    ///
    /// - Parameters:
    ///   - now: The time.
    ///   - residentBytes: Returns the resident memory; called only if there is a limit.
    /// - Returns: The limit that was exceeded; nil if none was.
    package mutating func look(at now: Instant, residentBytes: () -> Int) -> Reason? {
        guard now >= self.nextLook else { return nil }
        self.setNextLook(after: now)
        if now >= self.retiresAt { return .age(nanoseconds: now.nanoseconds(since: self.startedAt)) }
        guard let limit = self.limits.residentBytes else { return nil }
        let count = residentBytes()
        return count >= limit ? .residentBytes(count) : nil
    }

    private mutating func setNextLook(after now: Instant) {
        let interval = now.advanced(byNanoseconds: Self.lookNanoseconds)
        self.nextLook = self.limits.residentBytes == nil ? self.retiresAt : min(interval, self.retiresAt)
    }
}
