// SPDX-License-Identifier: Apache-2.0

/// For which suspect a worker is kept from other calls, and until when; for clients and brokers.
///
/// A suspect for which another death would be the last runs alone, so that no other call is to blame. That must not take a
/// worker from the others for as long as a call may run: it is emptied for a limited time, is the suspect's for a limited time, and
/// takes others again for as long before it is kept once more.
struct Solitude: Sendable {
    /// How long a worker is kept.
    ///
    /// Nearly all that kill a worker do so soon: they crash on what they were given. And callers who wait ten seconds for an answer
    /// still get one behind a suspect.
    static var standardLimitNanoseconds: UInt64 { 5_000_000_000 }

    private enum State: Sendable {
        case none
        /// It gets nothing, unless it `isLoose`, until it has nothing left.
        case emptied(isLoose: Bool)
        /// It has this suspect, and gets nothing else.
        case alone(UInt64)
    }

    private let limit: UInt64
    private var state = State.none
    /// When the state began, and when it is over at the latest.
    private var since = Instant(nanoseconds: 0)
    private var until = Instant.distantFuture
    /// How long it was kept of late, and until when.
    private var kept: UInt64 = 0
    private var keptUntil = Instant(nanoseconds: 0)
    private var restsUntil = Instant(nanoseconds: 0)

    init(limitNanoseconds: UInt64) { self.limit = max(1, limitNanoseconds) }

    /// The suspect that it has, and gets nothing else beside.
    var alone: UInt64? { if case .alone(let suspect) = self.state { suspect } else { nil } }

    /// It is to become empty.
    var isReserved: Bool { if case .emptied = self.state { true } else { false } }

    /// It gets nothing since it is to become empty: nothing there waits for calls that may have nowhere else to go.
    var isEmptied: Bool { if case .emptied(false) = self.state { true } else { false } }

    /// It is kept no longer.
    func isOver(at now: Instant) -> Bool { self.until <= now }

    /// It was kept for long, and takes others for a while.
    func isResting(at now: Instant) -> Bool { now < self.restsUntil }

    /// When something changes by itself next.
    func nextDeadline(after now: Instant) -> Instant {
        // One that could not become empty in time gets its suspect when a slot is free.
        let until = self.isReserved && self.isOver(at: now) ? .distantFuture : self.until
        return min(until, self.isResting(at: now) ? self.restsUntil : .distantFuture)
    }

    /// It gets no more, for a suspect that waits.
    mutating func reserve(isLoose: Bool, at now: Instant) {
        if !self.isReserved { self.begin(at: now) }
        self.state = .emptied(isLoose: isLoose)
    }

    /// It has a suspect, and gets nothing else.
    mutating func begin(with suspect: UInt64, at now: Instant) {
        self.end(at: now)
        self.begin(at: now)
        self.state = .alone(suspect)
    }

    /// It takes others.
    mutating func end(at now: Instant) {
        if case .none = self.state { return }
        self.state = .none
        self.until = .distantFuture
        self.keptUntil = now
        self.kept += now.nanoseconds(since: self.since)
        guard self.kept >= self.limit else { return }
        self.kept = 0
        self.restsUntil = now.advanced(byNanoseconds: self.limit)
    }

    private mutating func begin(at now: Instant) {
        // It has been free for long.
        if now.nanoseconds(since: self.keptUntil) >= self.limit { self.kept = 0 }
        self.since = now
        self.until = now.advanced(byNanoseconds: self.limit)
    }
}

/// Which worker a suspect goes to.
struct SuspectPlace {
    enum Verdict: Equatable {
        /// None takes suspects now.
        case none
        /// This one is to be emptied first.
        case empty(Int)
        /// To this one, which has nothing else, or doesn't become empty in time.
        case send(Int)
    }

    private var best: (index: Int, rank: Int, outstanding: Int)?

    /// Looks at a worker that takes calls, and whether it `hasSlot` for one beside those that it has.
    mutating func consider(
        _ index: Int,
        outstanding: Int,
        hasSlot: Bool,
        _ solitude: borrowing Solitude,
        at now: Instant
    ) {
        guard !solitude.isResting(at: now) else { return }
        // One that is being emptied goes on to be, though another may have less by now: that could change for ever.
        let isReserved = solitude.isReserved
        let rank = outstanding == 0 ? 0 : isReserved ? (solitude.isOver(at: now) && hasSlot ? 1 : 2) : 3
        if let best, (best.rank, best.outstanding) <= (rank, outstanding) { return }
        self.best = (index, rank, outstanding)
    }

    var verdict: Verdict {
        guard let best else { return .none }
        return best.rank <= 1 ? .send(best.index) : .empty(best.index)
    }
}
