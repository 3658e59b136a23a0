// SPDX-License-Identifier: Apache-2.0

/// Notices that a worker is stalled because each slot is held by a handler that waits for a call that waits for a slot.
///
/// As long as any handler waits for a call, the loop checks and reports what it found.
package struct StallWatch: Sendable {
    /// The worker's slots, as found by one check.
    package struct Slots: Sendable {
        /// How many there are.
        package var count: Int
        /// How many slots handlers hold.
        package var taken: Int
        /// How many of those handlers wait only for calls that wait for slots.
        package var waiting: Int
        /// How many of those handlers are stuck, and so make no progress either.
        package var stuck: Int

        package init(count: Int, taken: Int, waiting: Int, stuck: Int = 0) {
            self.count = count
            self.taken = taken
            self.waiting = waiting
            self.stuck = stuck
        }

        var isStalled: Bool { self.waiting > 0 && self.taken >= self.count && self.waiting + self.stuck >= self.taken }
    }

    /// The time between two checks: running calls are reported a few milliseconds after they arrive, so one that isn't
    /// reported waits.
    static let pauseNanoseconds: UInt64 = 20_000_000
    /// How long a stall must have lasted without a slot being given up before it is reported.
    static let patienceNanoseconds: UInt64 = 150_000_000
    static let warningNanoseconds: UInt64 = 60_000_000_000
    /// How soon after the last warning another one may follow, if there was progress in between.
    static let renewedNanoseconds: UInt64 = 5_000_000_000

    /// When to check next; never, as long as no handler waits.
    package private(set) var nextLook = Instant.distantFuture
    /// Whether a stall has lasted, and nothing can be done about it here.
    package private(set) var isStalled = false
    private var since: Instant?
    private var nextWarning = Instant(nanoseconds: 0)
    private var nextRenewal = Instant(nanoseconds: 0)
    /// Whether the stall has been logged since it began.
    private var hasWarned = false

    package init() {}

    /// A handler waits; returns whether it is time to check.
    package mutating func mustLook(at now: Instant) -> Bool {
        guard self.nextLook != .distantFuture else {
            self.nextLook = now.advanced(byNanoseconds: Self.pauseNanoseconds)
            return false
        }
        guard now >= self.nextLook else { return false }
        self.nextLook = now.advanced(byNanoseconds: Self.pauseNanoseconds)
        return true
    }

    /// No handler waits any more.
    package mutating func stop() { self.nextLook = .distantFuture }

    /// The loop has checked.
    ///
    /// - Returns: Whether the waiting handlers must give up their slots: two checks agree.
    package mutating func found(_ slots: Slots, at now: Instant) -> Bool {
        guard slots.isStalled else {
            self.since = nil
            self.isStalled = false
            self.hasWarned = false
            return false
        }
        guard let since = self.since else {
            self.since = now
            return false
        }
        return since < now
    }

    /// This many handlers have given up their slots.
    package mutating func gaveBack(_ count: Int, at now: Instant) {
        guard let since = self.since else { return }
        if count > 0 {
            self.since = nil
            self.isStalled = false
            self.hasWarned = false
        } else if now.nanoseconds(since: since) >= Self.patienceNanoseconds {
            self.isStalled = true
        }
    }

    /// Whether to log the stall now.
    package mutating func mayWarn(at now: Instant) -> Bool {
        guard self.isStalled, now >= (self.hasWarned ? self.nextWarning : self.nextRenewal) else { return false }
        self.hasWarned = true
        self.nextWarning = now.advanced(byNanoseconds: Self.warningNanoseconds)
        self.nextRenewal = now.advanced(byNanoseconds: Self.renewedNanoseconds)
        return true
    }
}
