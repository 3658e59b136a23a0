// SPDX-License-Identifier: Apache-2.0

/// Notices that nothing goes on at a worker, since each slot is held by a handler that waits for a call that waits for a slot.
///
/// The loop looks as long as any handler waits for a call, and says what it found.
package struct StallWatch: Sendable {
    /// The worker's slots, as one look finds them.
    package struct Slots: Sendable {
        /// How many there are.
        package var count: Int
        /// How many handlers hold.
        package var taken: Int
        /// How many of those handlers wait, and for nothing but calls that wait for slots.
        package var waiting: Int
        /// How many of them are stuck, and do nothing either.
        package var stuck: Int

        package init(count: Int, taken: Int, waiting: Int, stuck: Int = 0) {
            self.count = count
            self.taken = taken
            self.waiting = waiting
            self.stuck = stuck
        }

        var isStalled: Bool { self.waiting > 0 && self.taken >= self.count && self.waiting + self.stuck >= self.taken }
    }

    /// Calls that run are reported some milliseconds after they came: one that isn't waits.
    static let pauseNanoseconds: UInt64 = 20_000_000
    /// How long it must have lasted, if no slot was given back, before it is said.
    static let patienceNanoseconds: UInt64 = 150_000_000
    static let warningNanoseconds: UInt64 = 60_000_000_000
    /// How long after the last warning another one may follow, if things went on in between.
    static let renewedNanoseconds: UInt64 = 5_000_000_000

    /// When to look next; never, as long as no handler waits.
    package private(set) var nextLook = Instant.distantFuture
    /// It has lasted, and nothing can be done about it here.
    package private(set) var isStalled = false
    private var since: Instant?
    private var nextWarning = Instant(nanoseconds: 0)
    private var nextRenewal = Instant(nanoseconds: 0)
    /// Whether the log has said so since it began.
    private var hasWarned = false

    package init() {}

    /// A handler waits; returns whether it is time to look.
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

    /// The loop has looked.
    ///
    /// - Returns: Whether those that wait are to give their slots back: two looks agree.
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

    /// So many have given theirs back.
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

    /// Whether the log is to say so now.
    package mutating func mayWarn(at now: Instant) -> Bool {
        guard self.isStalled, now >= (self.hasWarned ? self.nextWarning : self.nextRenewal) else { return false }
        self.hasWarned = true
        self.nextWarning = now.advanced(byNanoseconds: Self.warningNanoseconds)
        self.nextRenewal = now.advanced(byNanoseconds: Self.renewedNanoseconds)
        return true
    }
}
