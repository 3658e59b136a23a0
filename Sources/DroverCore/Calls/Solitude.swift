// SPDX-License-Identifier: Apache-2.0

/// Which suspect a worker is reserved for, without other calls, and until when; used by clients and brokers.
///
/// A suspect that another worker death would make poison runs alone, so that no other call can be to blame. That must
/// not take the worker away from other calls for as long as a call may run: the worker is emptied for a limited time,
/// belongs to the suspect for a limited time, and takes other calls again for as long before it is reserved once more.
struct Solitude: Sendable {
    /// How long a worker is reserved.
    ///
    /// Nearly all calls that kill a worker do so soon, by crashing on their input. And callers that wait ten seconds
    /// for an answer still get one behind a suspect.
    static var standardLimitNanoseconds: UInt64 { 5_000_000_000 }

    private enum State: Sendable {
        case none
        /// The worker gets no calls, unless it `isLoose`, until it has none left.
        case emptied(isLoose: Bool)
        /// The worker has this suspect, and gets no other calls.
        case alone(UInt64)
    }

    private let limit: UInt64
    private var state = State.none
    /// When the state began, and when it ends at the latest.
    private var since = Instant(nanoseconds: 0)
    private var until = Instant.distantFuture
    /// How long the worker was reserved recently, and until when.
    private var kept: UInt64 = 0
    private var keptUntil = Instant(nanoseconds: 0)
    private var restsUntil = Instant(nanoseconds: 0)

    init(limitNanoseconds: UInt64) { self.limit = max(1, limitNanoseconds) }

    /// The suspect that the worker runs alone, without getting any other call.
    var alone: UInt64? { if case .alone(let suspect) = self.state { suspect } else { nil } }

    /// Whether the worker is being emptied.
    var isReserved: Bool { if case .emptied = self.state { true } else { false } }

    /// Whether the worker gets no calls because it is being emptied: nothing there waits for calls that may have
    /// nowhere else to go.
    var isEmptied: Bool { if case .emptied(false) = self.state { true } else { false } }

    /// Whether the limit of the current state has passed.
    func isOver(at now: Instant) -> Bool { self.until <= now }

    /// Whether the worker was reserved for long enough, and takes other calls for a while.
    func isResting(at now: Instant) -> Bool { now < self.restsUntil }

    /// When something next changes by itself.
    func nextDeadline(after now: Instant) -> Instant {
        // A worker that could not be emptied in time gets its suspect when a slot is free.
        let until = self.isReserved && self.isOver(at: now) ? .distantFuture : self.until
        return min(until, self.isResting(at: now) ? self.restsUntil : .distantFuture)
    }

    /// Starts emptying the worker for a suspect that waits.
    mutating func reserve(isLoose: Bool, at now: Instant) {
        if !self.isReserved { self.begin(at: now) }
        self.state = .emptied(isLoose: isLoose)
    }

    /// Gives the worker a suspect; it gets no other calls.
    mutating func begin(with suspect: UInt64, at now: Instant) {
        self.end(at: now)
        self.begin(at: now)
        self.state = .alone(suspect)
    }

    /// Lets the worker take other calls.
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
        // It has been free for long enough.
        if now.nanoseconds(since: self.keptUntil) >= self.limit { self.kept = 0 }
        self.since = now
        self.until = now.advanced(byNanoseconds: self.limit)
    }
}

/// Chooses the worker that a suspect goes to.
struct SuspectPlace {
    enum Verdict: Equatable {
        /// No worker takes suspects now.
        case none
        /// This worker must be emptied first.
        case empty(Int)
        /// The suspect goes to this worker, which has no other calls, or could not be emptied in time.
        case send(Int)
    }

    private var best: (index: Int, rank: Int, outstanding: Int)?

    /// Considers a worker that takes calls; `hasSlot` says whether it has a slot left beside its calls.
    mutating func consider(
        _ index: Int,
        outstanding: Int,
        hasSlot: Bool,
        _ solitude: borrowing Solitude,
        at now: Instant
    ) {
        guard !solitude.isResting(at: now) else { return }
        // A worker that is being emptied stays so, even if another has fewer calls by now: otherwise the choice could
        // keep changing forever.
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
