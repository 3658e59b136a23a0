// SPDX-License-Identifier: Apache-2.0

/// How long the handler of a function may run.
package struct RunLimits: Hashable, Sendable {
    /// After how long it is asked to stop.
    package var softNanoseconds: UInt64?
    /// After how long its caller is answered without it.
    package var hardNanoseconds: UInt64?

    package init(softNanoseconds: UInt64? = nil, hardNanoseconds: UInt64? = nil) {
        self.softNanoseconds = softNanoseconds
        self.hardNanoseconds = hardNanoseconds
    }
}

/// Finds handlers that have run for too long.
///
/// It tracks only handlers that have a limit and have begun; the others cost nothing.
struct RunClock: ~Copyable {
    /// A limit that has passed.
    enum Passed: Equatable, Sendable {
        case soft(slot: UInt32)
        case hard(slot: UInt32)
    }

    /// The limits by handler number.
    private var limits: [RunLimits]
    private var wheel = TimerWheel(now: Instant(nanoseconds: 0))
    /// When the hard limits of running handlers pass, by slot.
    private var hardAt: [Instant] = []
    private var due: [UInt32] = []

    /// How many limits may still pass.
    var count: Int { self.wheel.count }
    /// When ``advance(to:into:)`` next has something to do.
    var nextDeadline: Instant { self.wheel.nextDeadline ?? .distantFuture }

    init(limits: [RunLimits]) { self.limits = limits }

    /// Adds another handler.
    mutating func added(_ limits: RunLimits) { self.limits.append(limits) }

    /// A handler has begun.
    ///
    /// - Returns: When its first limit passes.
    mutating func began(_ slot: UInt32, handler: Int32, at now: Instant) -> Instant {
        guard Int(handler) < self.limits.count else { return .distantFuture }
        let limits = self.limits[Int(handler)]
        let softAt = limits.softNanoseconds.map { now.advanced(byNanoseconds: $0) } ?? .distantFuture
        let hardAt = limits.hardNanoseconds.map { now.advanced(byNanoseconds: $0) } ?? .distantFuture
        let next = min(softAt, hardAt)
        guard next != .distantFuture else { return next }
        while self.hardAt.count <= Int(slot) { self.hardAt.append(.distantFuture) }
        self.hardAt[Int(slot)] = hardAt
        self.wheel.schedule(slot, at: next)
        return next
    }

    /// A handler has ended, or its limits no longer matter.
    mutating func ended(_ slot: UInt32) { self.wheel.cancel(slot) }

    /// Advances the time and appends the limits that have passed; the soft one is left out if the hard one has passed
    /// too.
    mutating func advance(to now: Instant, into passed: inout [Passed]) {
        self.wheel.advance(to: now, into: &self.due)
        for slot in self.due {
            let hardAt = self.hardAt[Int(slot)]
            if hardAt <= now {
                passed.append(.hard(slot: slot))
            } else {
                passed.append(.soft(slot: slot))
                self.wheel.schedule(slot, at: hardAt)
            }
        }
        self.due.removeAll(keepingCapacity: true)
    }
}
