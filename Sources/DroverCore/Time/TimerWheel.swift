// SPDX-License-Identifier: Apache-2.0

/// A hierarchical timing wheel: at most one timer per key, where keys are small integers such as slab slots.
///
/// Time is divided into ticks of a millisecond. A timer fires in the first ``advance(to:into:)`` whose tick has reached
/// its deadline: never before the deadline, and less than one tick after it if the wheel is advanced in time.
///
/// Eight levels of 64 buckets cover every deadline that an ``Instant`` can hold, so that there is no overflow list. A
/// timer's level is the highest base-64 digit in which its tick differs from the wheel's current tick, so every timer
/// of a level is earlier than every timer of the next one, and within a level the buckets are in order. Scheduling and
/// cancelling touch one bucket; a timer moves down at most seven times before it fires. Buckets are doubly linked lists
/// threaded through one array by key: nothing is allocated once the highest key has been seen.
package struct TimerWheel: ~Copyable {
    /// The granularity, in nanoseconds.
    package static let tickNanoseconds: UInt64 = 1_000_000

    /// One timer.
    ///
    /// The bucket isn't stored: it follows from `tick` and the wheel's current tick.
    struct Timer {
        /// The tick to fire at; at most the current tick if the timer is due, ``idle`` if it isn't scheduled.
        var tick: UInt64
        var next: UInt32
        var previous: UInt32
    }

    struct Bucket {
        var first: UInt32
        var last: UInt32

        static var empty: Bucket { Bucket(first: TimerWheel.none, last: TimerWheel.none) }
    }

    private static var idle: UInt64 { .max }
    private static var none: UInt32 { .max }
    private static var unscheduled: Timer { Timer(tick: Self.idle, next: Self.none, previous: Self.none) }
    private static var dueBucket: Int { 512 }
    /// A bucket of a higher level is searched for its earliest timer only if it is this short.
    private static var searchLimit: Int { 16 }

    private var timers = OwnedBuffer<Timer>()
    /// The first and last timer of each bucket: eight levels of 64, then the bucket of those already due.
    private var buckets: OwnedBuffer<Bucket>
    /// One bit per bucket of a level.
    private var occupied: InlineArray<8, UInt64> = .init(repeating: 0)
    /// One bit per level that has an occupied bucket.
    private var occupiedLevels: UInt8 = 0
    private var now: Instant
    private var currentTick: UInt64

    /// The number of timers that are scheduled.
    package private(set) var count = 0

    /// Creates an empty wheel.
    ///
    /// - Parameter now: The clock's reading; the wheel never goes back beyond it.
    package init(now: Instant) {
        self.buckets = OwnedBuffer(repeating: .empty, count: Self.dueBucket + 1)
        self.now = now
        self.currentTick = now.nanoseconds / Self.tickNanoseconds
    }

    /// Tells whether `key` has a timer.
    package func isScheduled(_ key: UInt32) -> Bool {
        Int(key) < self.timers.count && self.timers[Int(key)].tick != Self.idle
    }

    /// Sets the timer of `key`, replacing the one it may have.
    ///
    /// A deadline that has passed makes the timer due: it fires in the next ``advance(to:into:)``, after those that
    /// were already due. The distant future never comes, so scheduling for it cancels the timer.
    package mutating func schedule(_ key: UInt32, at deadline: Instant) {
        if deadline == .distantFuture { return self.cancel(key) }
        if Int(key) >= self.timers.count {
            self.grow(toHold: key)
        } else if self.timers[Int(key)].tick != Self.idle {
            self.unlink(key)
            self.count &-= 1
        }
        let tick: UInt64
        if deadline <= self.now {
            tick = self.currentTick
        } else {
            tick = (deadline.nanoseconds &- 1) / Self.tickNanoseconds &+ 1
        }
        self.link(key, tick: tick)
        self.count &+= 1
    }

    /// Sets the timer of `key`, unless it has one that fires no later.
    package mutating func schedule(_ key: UInt32, noLaterThan deadline: Instant) {
        if self.isScheduled(key), self.timers[Int(key)].tick <= deadline.nanoseconds / Self.tickNanoseconds { return }
        self.schedule(key, at: deadline)
    }

    /// Removes the timer of `key`; nothing happens if it has none.
    package mutating func cancel(_ key: UInt32) {
        guard self.isScheduled(key) else { return }
        self.unlink(key)
        self.timers[Int(key)].tick = Self.idle
        self.count &-= 1
    }

    /// When to call ``advance(to:into:)`` next, or nil if no timer is scheduled.
    ///
    /// It is the instant at which the earliest timer fires, or, if many timers share a far bucket, an earlier one at
    /// which that bucket must be divided. A caller that sleeps until then (rounding up, never down) makes no timer late
    /// by a full tick, and wakes at most seven times for each timer without firing anything. It lies after the last
    /// advance unless a timer is already due, and advancing to it always makes progress: a loop around it can't spin.
    package var nextDeadline: Instant? {
        if self.count == 0 { return nil }
        if self.buckets[Self.dueBucket].first != Self.none { return self.now }
        let (bucket, start) = self.firstBucket()
        return Self.instant(ofTick: bucket < 64 ? start : self.earliestTick(in: bucket) ?? start)
    }

    /// Advances the time and removes the timers whose deadline has come.
    ///
    /// A reading earlier than the last one counts as the last one.
    ///
    /// - Parameters:
    ///   - now: The clock's reading.
    ///   - due: Receives the keys, appended in the order of their deadlines' ticks, and of scheduling within a tick.
    /// - Complexity: O(number of keys appended), plus at most seven moves in the life of each timer.
    package mutating func advance(to now: Instant, into due: inout [UInt32]) {
        if now > self.now { self.now = now }
        if self.count == 0 {
            self.currentTick = self.now.nanoseconds / Self.tickNanoseconds
            return
        }
        self.fire(bucket: Self.dueBucket, into: &due)
        let target = self.now.nanoseconds / Self.tickNanoseconds
        while self.occupiedLevels != 0 {
            let (bucket, start) = self.firstBucket()
            if start > target { break }
            self.currentTick = start
            self.clearOccupied(bucket)
            if bucket < 64 {
                self.fire(bucket: bucket, into: &due)
            } else {
                self.divide(bucket: bucket, into: &due)
            }
        }
        // The remaining timers lie beyond `target` in their own levels, so their buckets stay the right ones.
        self.currentTick = target
    }

    /// The number of keys whose links are allocated.
    package var capacity: Int { self.timers.count }

    /// Releases memory that the present timers don't need: all of the links if there are none.
    ///
    /// - Complexity: O(highest key seen).
    package mutating func trim() {
        var needed = self.timers.count
        while needed > 0, self.timers[needed - 1].tick == Self.idle { needed -= 1 }
        if needed <= self.timers.count / 2 { self.timers.resize(to: needed, filling: Self.unscheduled) }
    }
}

extension TimerWheel {
    private mutating func grow(toHold key: UInt32) {
        precondition(key != Self.none, "the highest key is reserved")
        let wanted = max(Int(key) + 1, self.timers.count * 2, 64)
        self.timers.resize(to: wanted, filling: Self.unscheduled)
    }

    private func bucket(ofTick tick: UInt64) -> Int {
        if tick <= self.currentTick { return Self.dueBucket }
        let level = (63 &- (tick ^ self.currentTick).leadingZeroBitCount) / 6
        return level &* 64 &+ Int(truncatingIfNeeded: (tick &>> UInt64(level &* 6)) & 63)
    }

    private mutating func link(_ key: UInt32, tick: UInt64) {
        let bucket = self.bucket(ofTick: tick)
        let last = self.buckets[bucket].last
        self.timers[Int(key)] = Timer(tick: tick, next: Self.none, previous: last)
        self.buckets[bucket].last = key
        if last != Self.none {
            self.timers[Int(last)].next = key
        } else {
            self.buckets[bucket].first = key
            if bucket != Self.dueBucket {
                self.occupied[bucket &>> 6] |= 1 &<< UInt64(bucket & 63)
                self.occupiedLevels |= 1 &<< UInt8(truncatingIfNeeded: bucket &>> 6)
            }
        }
    }

    private mutating func unlink(_ key: UInt32) {
        let timer = self.timers[Int(key)]
        if timer.next != Self.none, timer.previous != Self.none {
            self.timers[Int(timer.next)].previous = timer.previous
            self.timers[Int(timer.previous)].next = timer.next
            return
        }
        let bucket = self.bucket(ofTick: timer.tick)
        if timer.next != Self.none {
            self.timers[Int(timer.next)].previous = Self.none
            self.buckets[bucket].first = timer.next
        } else if timer.previous != Self.none {
            self.timers[Int(timer.previous)].next = Self.none
            self.buckets[bucket].last = timer.previous
        } else {
            self.buckets[bucket] = .empty
            if bucket != Self.dueBucket { self.clearOccupied(bucket) }
        }
    }

    private mutating func clearOccupied(_ bucket: Int) {
        let level = bucket &>> 6
        self.occupied[level] &= ~(1 &<< UInt64(bucket & 63))
        if self.occupied[level] == 0 {
            self.occupiedLevels &= ~(1 &<< UInt8(truncatingIfNeeded: level))
        }
    }

    /// The earliest non-empty bucket, and the first tick of its range; some level must be occupied.
    private func firstBucket() -> (bucket: Int, start: UInt64) {
        let level = self.occupiedLevels.trailingZeroBitCount
        let digit = self.occupied[level].trailingZeroBitCount
        let shift = UInt64(level &* 6)
        let higherDigits = (self.currentTick &>> (shift &+ 6)) &<< (shift &+ 6)
        return (level &* 64 &+ digit, higherDigits | UInt64(digit) &<< shift)
    }

    private func earliestTick(in bucket: Int) -> UInt64? {
        var earliest = UInt64.max
        var key = self.buckets[bucket].first
        for _ in 0..<Self.searchLimit {
            if key == Self.none { return earliest }
            earliest = min(earliest, self.timers[Int(key)].tick)
            key = self.timers[Int(key)].next
        }
        return key == Self.none ? earliest : nil
    }

    private mutating func fire(bucket: Int, into due: inout [UInt32]) {
        var key = self.buckets[bucket].first
        if key == Self.none { return }
        self.buckets[bucket] = .empty
        let countBefore = due.count
        while key != Self.none {
            due.append(key)
            self.timers[Int(key)].tick = Self.idle
            key = self.timers[Int(key)].next
        }
        self.count &-= due.count &- countBefore
    }

    /// Moves the timers of a bucket whose range has begun to lower levels; those of its first tick are due.
    private mutating func divide(bucket: Int, into due: inout [UInt32]) {
        var key = self.buckets[bucket].first
        self.buckets[bucket] = .empty
        while key != Self.none {
            let timer = self.timers[Int(key)]
            if timer.tick == self.currentTick {
                due.append(key)
                self.timers[Int(key)].tick = Self.idle
                self.count &-= 1
            } else {
                self.link(key, tick: timer.tick)
            }
            key = timer.next
        }
    }

    private static func instant(ofTick tick: UInt64) -> Instant {
        let (nanoseconds, overflow) = tick.multipliedReportingOverflow(by: Self.tickNanoseconds)
        return overflow ? .distantFuture : Instant(nanoseconds: nanoseconds)
    }
}
