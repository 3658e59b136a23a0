// SPDX-License-Identifier: Apache-2.0

package import DequeModule
package import DroverWire

/// What a client knows about one worker (or broker) it talks to.
package struct ClientEndpoint: Sendable {
    package var session: PeerSession
    /// The worker's epoch, once it has announced one.
    package var epoch: UInt64?
    /// The worker's number for the session, which tells a resumed session from a new one with the same worker.
    package var sessionNumber: UInt32 = 0
    /// How often the worker was given up.
    ///
    /// The side that gave up a session begins another one, whatever the other side thinks.
    package var losses: UInt64 = 0
    /// How many requests the worker takes at once.
    package var window = 0
    /// How many requests sent to the worker have not ended there.
    package var outstanding = 0
    /// The requests among them that have ended here: the worker has been asked to drop them, and has not said what
    /// happened to them.
    package var withdrawn: [UInt64: CancelReason] = [:]
    /// Whether a session is open.
    package var isOpen = false
    /// Whether the worker announced that it takes no more requests.
    package var isDraining = false
    /// Whether the worker refused us, and nothing has changed since.
    package var isRefused = false
    /// Whether it refused us for lack of room: it may let us in once others have left.
    package internal(set) var mayLetIn = false
    /// Why no connection can be made, as long as that is so and the reason is known.
    package var outOfReach: LossReason?
    /// How many requests run there at once; 0 for a broker.
    package var slots = 0
    /// How many requests it gets at once: enough to keep it busy, and no more, so that the others wait where any worker
    /// can take them, and where its death can't harm them.
    package private(set) var credit = 1
    var meter = CreditMeter()
    /// What the meter said last, and for which run time.
    private var metered = (wanted: 1, run: UInt64(0))
    /// When it last answered, or got a call after having none.
    var progressAt = Instant(nanoseconds: 0)
    /// When to check whether calls only wait there.
    var stallAt = Instant.distantFuture
    /// Until when it gets no calls because it declined some; `distantFuture` if it didn't.
    var pausedUntil = Instant.distantFuture
    private var declines = 0
    /// How many of the calls there wait without a slot.
    package internal(set) var released = 0
    /// The calls there without ordering keys that wait for their functions' limits.
    var held = HeldCalls()
    /// The suspect that it is reserved for.
    var solitude: Solitude
    /// The outstanding calls that have ordering keys.
    var keyed = KeyedCalls()
    /// How many outstanding calls have no ordering key.
    package var unkeyedCount: Int { self.outstanding - self.keyed.count }
    /// Calls that their ordering key binds to this endpoint, and that wait for room.
    package var bound = Deque<UInt64>()

    package init(limits: PeerSession.Limits, aloneNanoseconds: UInt64) {
        self.session = PeerSession(limits: limits)
        self.solitude = Solitude(limitNanoseconds: aloneNanoseconds)
    }

    /// The session that this side wants to resume when it introduces itself; 0 for none.
    package var claimedSession: UInt32 { self.epoch == nil ? 0 : self.sessionNumber }

    /// Whether there is a worker that takes calls, if not now then once others have ended.
    package var takesCalls: Bool {
        self.isOpen && !self.isDraining && self.pausedUntil == .distantFuture
            && self.solitude.alone == nil
    }

    /// How many calls without ordering keys the worker holds for their functions' limits.
    package var heldCount: Int { self.held.count }

    /// Whether it gets no calls of a function because it holds some for the limit.
    package func isClosed(_ function: UInt32) -> Bool { self.held.isClosed(Int(function)) }

    /// How many calls occupy a slot there, or wait for one.
    package var occupying: Int { self.outstanding - self.released - self.keyed.idleCount - self.held.count }

    /// Whether another request may be sent.
    package var hasRoom: Bool {
        // Calls that wait without a slot may be waiting for the very call that is to be sent.
        self.takesMore && self.outstanding < self.window && self.occupying < self.credit
    }

    /// Whether another request of an ordering key may be sent.
    ///
    /// All calls of a key go to one worker and run one by one: no other could take them, and those behind the first
    /// need no slot. They leave part of the window to other calls, which the running ones may wait for.
    var takesKeyed: Bool { self.takesMore && self.outstanding < self.window - self.window / 4 }

    private var takesMore: Bool { self.takesCalls && (!self.solitude.isReserved || self.released > 0) }

    /// Whether a call made now may be sent: no earlier one waits for the same room.
    package var isFree: Bool { self.hasRoom && (self.bound.isEmpty || !self.takesKeyed) }

    /// How many more calls may be sent ahead of need: if there is no other worker, waiting there is no worse than
    /// waiting here, and a worker that knows about them can report their progress.
    var leftAhead: Int {
        guard self.slots > 0, self.takesCalls, !self.solitude.isReserved, self.bound.isEmpty else { return 0 }
        return max(0, min(self.credit + Self.mostAhead, self.window) - self.outstanding)
    }
    private static var mostAhead: Int { 128 }

    /// Whether a suspect may be sent; also true if the worker doesn't become empty within the limit.
    package func mayTakeSuspect(at now: Instant) -> Bool {
        guard self.takesCalls, !self.solitude.isResting(at: now) else { return false }
        return self.outstanding == 0 || (self.solitude.isOver(at: now) && self.hasSlot)
    }

    /// Whether it has a slot left beside its calls.
    var hasSlot: Bool { self.outstanding < self.window && self.occupying < self.credit }

    /// Whether a call had better go to this endpoint than to another.
    func isLessLoaded(than other: Self) -> Bool {
        let (isBusy, isOtherBusy) = (self.isBusy, other.isBusy)
        guard isBusy == isOtherBusy else { return isOtherBusy }
        return self.occupying * other.weight < other.occupying * self.weight
    }

    /// Whether a call would only wait there.
    private var isBusy: Bool { self.slots > 0 && self.occupying >= self.slots }
    private var weight: Int { self.slots > 0 ? self.slots : min(self.window, 1 << 20) }

    /// Counts one call fewer among those that wait without a slot.
    mutating func leaveReleased() { if self.released > 0 { self.released -= 1 } }

    /// Starts afresh with a worker that nothing is known about.
    mutating func begin() {
        self.meter = CreditMeter()
        self.metered = (1, 0)
        self.credit = 1
        self.declines = 0
        self.pausedUntil = .distantFuture
    }

    /// A call was answered.
    mutating func measure(_ call: Call, _ ranMicroseconds: UInt32, at now: Instant) {
        self.declines = 0
        guard self.slots > 0 else { return }
        if ranMicroseconds > 0 {
            self.meter.answered(ranNanoseconds: UInt64(ranMicroseconds) * 1000)
        } else {
            self.meter.answered(sentAt: call.sentAt, wasBehind: call.isBehind, concurrency: self.slots, at: now)
        }
    }

    /// Adjusts the credit to the measurements: down at once, up step by step.
    mutating func adapt(coverageNanoseconds: UInt64) {
        guard self.slots > 0 else {
            self.credit = self.window
            return
        }
        let (run, known) = (self.meter.runNanoseconds ?? 0, self.metered.run)
        // This runs for every answer, so it divides only if the run time has changed much.
        if known == 0 || run > known + known / 8 || run < known - known / 8 {
            let wanted = self.meter.credit(concurrency: self.slots, coverageNanoseconds: coverageNanoseconds)
            self.metered = (wanted, run)
        }
        self.credit = max(1, min(self.metered.wanted, self.window, max(self.credit * 2, self.slots)))
    }

    /// It declined a call: if it keeps doing so, it gets no calls for a while, each time for twice as long.
    mutating func declined(at now: Instant) {
        guard self.pausedUntil == .distantFuture else { return }
        self.declines += 1
        // A single decline may have been caused by a moved deadline.
        guard self.declines > 1 else { return }
        self.pausedUntil = now.advanced(byNanoseconds: pauseNanoseconds(afterDeclines: self.declines - 1))
    }
}

/// The calls with ordering keys that a worker has; it runs one of each key at a time.
struct KeyedCalls: Sendable {
    private struct Line: Sendable {
        var count = 0
        /// How many of them the worker says it holds.
        var held = 0
    }

    private var affinities: [UInt64: UInt64] = [:]
    private var lines: [UInt64: Line] = [:]
    private var held: Set<UInt64> = []
    /// How many keys have all their calls held by the worker: another client's call of the key runs, or as many of the
    /// function as may.
    private var idleLines = 0

    var count: Int { self.affinities.count }
    /// The keys of its calls.
    var keys: some Collection<UInt64> { self.lines.keys }

    func hasCalls(of affinity: UInt64) -> Bool { self.lines[affinity] != nil }

    /// How many of the calls need no slot: all but one of each key, and that one too if it is held.
    var idleCount: Int { self.affinities.count - self.lines.count + self.idleLines }

    mutating func add(_ id: UInt64, affinity: UInt64) {
        guard self.affinities.updateValue(affinity, forKey: id) == nil else { return }
        self.change(affinity) { $0.count += 1 }
    }

    mutating func remove(_ id: UInt64) {
        guard !self.affinities.isEmpty, let affinity = self.affinities.removeValue(forKey: id) else { return }
        let wasHeld = self.held.remove(id) != nil
        self.change(affinity) { line in
            line.count -= 1
            if wasHeld { line.held -= 1 }
        }
    }

    /// The worker said that it holds a call, or no longer does.
    mutating func hold(_ id: UInt64, _ isHeld: Bool) {
        guard let affinity = self.affinities[id], self.held.contains(id) != isHeld else { return }
        if isHeld { self.held.insert(id) } else { self.held.remove(id) }
        self.change(affinity) { $0.held += isHeld ? 1 : -1 }
    }

    private mutating func change(_ affinity: UInt64, _ body: (inout Line) -> Void) {
        let before = self.lines[affinity] ?? Line()
        var line = before
        body(&line)
        self.lines[affinity] = line.count > 0 ? line : nil
        self.idleLines += Self.isIdle(line) - Self.isIdle(before)
    }

    private static func isIdle(_ line: Line) -> Int { line.count > 0 && line.held >= line.count ? 1 : 0 }
}

/// How long a worker that has declined `count` calls in a row gets no calls.
func pauseNanoseconds(afterDeclines count: Int) -> UInt64 {
    min(1_000_000_000, 5_000_000 << UInt64(min(count - 1, 10)))
}
