// SPDX-License-Identifier: Apache-2.0

/// Decides whether a peer is alive, from what arrives and when (contract S87).
///
/// Any message counts as a heartbeat. A peer that is silent for the silence limit is lost, once. So is one that closed
/// the connection and isn't back within a second: the kernel closes a dead process's connections, whereas a flapping
/// link comes back. If this side itself stood still (stopped, suspended, starved), neither says anything about the
/// peer: it gets one more beat to be heard, and its second to come back continues from there.
package struct PeerSession: Equatable, Sendable {
    package struct Limits: Equatable, Sendable {
        /// A heartbeat is sent if nothing else was sent for this long.
        package var beatNanoseconds: UInt64
        /// A peer that was silent for this long is lost.
        package var silenceNanoseconds: UInt64
        /// A peer that closed the connection has this long to come back.
        package var returnNanoseconds: UInt64 = 1_000_000_000
        /// Heartbeats are sent at multiples of this, if that is earlier than they are due.
        ///
        /// The heartbeats of many sessions are then sent together, and their owner wakes once for all of them. With 0,
        /// each is sent at its own time.
        package var gridNanoseconds: UInt64 = 0

        package init(beatNanoseconds: UInt64, silenceNanoseconds: UInt64) {
            precondition(beatNanoseconds < silenceNanoseconds, "a peer must have time for a beat before it is lost")
            self.beatNanoseconds = beatNanoseconds
            self.silenceNanoseconds = silenceNanoseconds
        }

        /// How long after the last sign of life the end of a connection counts as the peer's doing.
        ///
        /// A peer that is alive is heard every beat. If a connection ends after nothing has been heard for longer, this
        /// side's kernel gave it up because nothing was acknowledged any more: then silence decides.
        var closingNanoseconds: UInt64 { self.beatNanoseconds + self.returnNanoseconds / 2 * 3 }

        /// When a beat interval of this length has passed, at the latest.
        func beat(of length: UInt64, after last: Instant) -> Instant {
            let due = last.advanced(byNanoseconds: length)
            guard self.gridNanoseconds > 0, self.gridNanoseconds <= length / 4, due != .distantFuture else {
                return due
            }
            return max(last, Instant(nanoseconds: due.nanoseconds / self.gridNanoseconds * self.gridNanoseconds))
        }

        package static let standard = Limits(beatNanoseconds: 2_000_000_000, silenceNanoseconds: 6_000_000_000)
    }

    /// What the owner must do now.
    package enum Action: Equatable, Sendable {
        case none
        case sendHello
        case sendHeartbeat
        case endSession(EndReason)
    }

    package enum EndReason: Equatable, Sendable {
        case silent
        /// The peer closed the connection and did not come back in time.
        case disconnected
    }

    private enum State: Equatable, Sendable {
        /// There is no connection, and there was none.
        case idle
        /// Waits for an answer to an introduction. `lastHeard` is set if there was a session before, which may be
        /// resumed.
        case introducing(nextHello: Instant, interval: UInt64, lastHeard: Instant?)
        /// The connection of a session broke; it may come back before the silence limit and, if the peer closed it,
        /// before its time to return, counted from `closedAt`, is over.
        case interrupted(lastHeard: Instant, closedAt: Instant?)
        case established(lastHeard: Instant, lastSent: Instant)
        case ended
    }

    private static var firstHelloNanoseconds: UInt64 { 100_000_000 }

    private var state = State.idle
    private let limits: Limits
    /// How often this side sends a heartbeat: more often than its limits say if the peer is less patient.
    private var beatNanoseconds: UInt64
    /// The clock reading at which this side last acted, used to notice that it stood still.
    private var lastTick: Instant?

    package init(limits: Limits) {
        self.limits = limits
        self.beatNanoseconds = limits.beatNanoseconds
    }

    /// The peer said after how much silence it gives up this side; 0 if it didn't say.
    ///
    /// Three heartbeats are sent in that time. No peer can demand more than twenty a second.
    package mutating func givenUp(afterNanoseconds silence: UInt64) {
        let wanted = silence == 0 ? UInt64.max : max(silence / 3, Self.leastBeatNanoseconds)
        self.beatNanoseconds = min(self.limits.beatNanoseconds, wanted)
    }

    private static var leastBeatNanoseconds: UInt64 { 50_000_000 }

    package var isEstablished: Bool {
        if case .established = self.state { true } else { false }
    }

    /// How long the peer has not been heard; 0 if it never was.
    package func silentNanoseconds(at now: Instant) -> UInt64 {
        switch self.state {
        case .introducing(_, _, let lastHeard): lastHeard.map { now.nanoseconds(since: $0) } ?? 0
        case .interrupted(let lastHeard, _), .established(let lastHeard, _): now.nanoseconds(since: lastHeard)
        case .idle, .ended: 0
        }
    }

    /// Whether an answer to this side's introduction counts: one that was under way when the connection broke does not.
    package var awaitsAnswer: Bool {
        switch self.state {
        case .introducing, .established: true
        case .idle, .interrupted, .ended: false
        }
    }

    /// The connection is established: this side introduces itself.
    package mutating func connected(at now: Instant) -> Action {
        switch self.state {
        case .idle: return self.introduce(at: now, lastHeard: nil)
        case .introducing(_, _, let lastHeard): return self.introduce(at: now, lastHeard: lastHeard)
        case .interrupted(let lastHeard, _), .established(let lastHeard, _):
            return self.introduce(at: now, lastHeard: lastHeard)
        case .ended: return .none
        }
    }

    /// The connection broke.
    ///
    /// If the peer closed it, it has a second to come back; silence decides in any case.
    package mutating func disconnected(at now: Instant) -> Action {
        self.forgiveStall(at: now)
        switch self.state {
        case .idle, .ended: break
        case .introducing(_, _, let lastHeard):
            if let lastHeard { self.interrupt(lastHeard: lastHeard, at: now) } else { self.state = .idle }
        case .interrupted: break
        case .established(let lastHeard, _): self.interrupt(lastHeard: lastHeard, at: now)
        }
        return .none
    }

    /// The peer doesn't know this session: this side introduces itself again.
    package mutating func resetReceived(at now: Instant) -> Action {
        switch self.state {
        case .established(let lastHeard, _): return self.introduce(at: now, lastHeard: lastHeard)
        case .idle, .introducing, .interrupted, .ended: return .none
        }
    }

    /// The peer accepted the introduction, or introduced itself.
    package mutating func established(at now: Instant) {
        self.state = .established(lastHeard: now, lastSent: now)
        // A stall before the first tick must be noticed as well.
        if self.lastTick == nil { self.lastTick = now }
    }

    /// The peer sent something.
    package mutating func heard(at now: Instant) {
        switch self.state {
        case .established(_, let lastSent): self.state = .established(lastHeard: now, lastSent: lastSent)
        case .idle, .introducing, .interrupted, .ended: break
        }
    }

    /// The peer sent a heartbeat and nothing else.
    ///
    /// If this side's next heartbeat is due soon, it is sent now, so that each side wakes once for both.
    package mutating func beatReceived(at now: Instant) -> Action {
        guard case .established(let lastHeard, let lastSent) = self.state,
            now.nanoseconds(since: lastSent) >= self.beatNanoseconds / 4 * 3
        else { return .none }
        self.state = .established(lastHeard: lastHeard, lastSent: now)
        return .sendHeartbeat
    }

    /// Something was sent to the peer.
    package mutating func sent(at now: Instant) {
        if case .established(let lastHeard, _) = self.state {
            self.state = .established(lastHeard: lastHeard, lastSent: now)
        }
    }

    /// Time has passed.
    package mutating func ticked(at now: Instant) -> Action {
        self.forgiveStall(at: now)
        switch self.state {
        case .idle, .ended:
            return .none
        case .introducing(let nextHello, let interval, let lastHeard):
            if let lastHeard, self.isSilent(since: lastHeard, at: now) { return self.end(.silent) }
            guard now >= nextHello else { return .none }
            let next = min(interval * 2, self.limits.silenceNanoseconds)
            self.state = .introducing(
                nextHello: now.advanced(byNanoseconds: next),
                interval: next,
                lastHeard: lastHeard
            )
            return .sendHello
        case .interrupted(let lastHeard, let closedAt):
            if self.isSilent(since: lastHeard, at: now) { return self.end(.silent) }
            guard let closedAt, now >= closedAt.advanced(byNanoseconds: self.limits.returnNanoseconds) else {
                return .none
            }
            return self.end(.disconnected)
        case .established(let lastHeard, let lastSent):
            if self.isSilent(since: lastHeard, at: now) { return self.end(.silent) }
            guard now >= self.beat(after: lastSent) else { return .none }
            self.state = .established(lastHeard: lastHeard, lastSent: now)
            return .sendHeartbeat
        }
    }

    /// When ``ticked(at:)`` next has something to do.
    package var nextDeadline: Instant {
        switch self.state {
        case .idle, .ended: .distantFuture
        case .introducing(let nextHello, _, let lastHeard):
            min(
                nextHello,
                lastHeard?.advanced(byNanoseconds: self.limits.silenceNanoseconds) ?? .distantFuture,
                lastHeard.flatMap { _ in self.lastTick?.advanced(byNanoseconds: self.limits.beatNanoseconds) }
                    ?? .distantFuture
            )
        case .interrupted(let lastHeard, let closedAt):
            // It also ticks now and then in between: a longer pause would be taken for a stall of this side.
            min(
                lastHeard.advanced(byNanoseconds: self.limits.silenceNanoseconds),
                closedAt?.advanced(byNanoseconds: self.limits.returnNanoseconds) ?? .distantFuture,
                (self.lastTick ?? lastHeard)
                    .advanced(
                        byNanoseconds: closedAt == nil
                            ? self.limits.beatNanoseconds
                            : min(self.limits.beatNanoseconds, self.limits.returnNanoseconds / 4)
                    )
            )
        case .established(let lastHeard, let lastSent):
            min(
                lastHeard.advanced(byNanoseconds: self.limits.silenceNanoseconds),
                self.beat(after: lastSent),
                self.lastTick.map { self.limits.beat(of: self.limits.beatNanoseconds, after: $0) } ?? .distantFuture
            )
        }
    }

    private func beat(after last: Instant) -> Instant { self.limits.beat(of: self.beatNanoseconds, after: last) }

    private mutating func introduce(at now: Instant, lastHeard: Instant?) -> Action {
        let interval = Self.firstHelloNanoseconds
        self.state = .introducing(
            nextHello: now.advanced(byNanoseconds: interval),
            interval: interval,
            lastHeard: lastHeard
        )
        return .sendHello
    }

    private func isSilent(since lastHeard: Instant, at now: Instant) -> Bool {
        now >= lastHeard.advanced(byNanoseconds: self.limits.silenceNanoseconds)
    }

    private mutating func interrupt(lastHeard: Instant, at now: Instant) {
        let isClosedByPeer = now.nanoseconds(since: lastHeard) <= self.limits.closingNanoseconds
        self.state = .interrupted(lastHeard: lastHeard, closedAt: isClosedByPeer ? now : nil)
    }

    private mutating func end(_ reason: EndReason) -> Action {
        self.state = .ended
        return .endSession(reason)
    }

    /// Forgives a peer's silence after this side stood still: it acts every beat, so a much longer gap since the last
    /// time is its own.
    ///
    /// What the peer sent meanwhile has yet to be read, so its silence is set to one beat before the limit.
    ///
    /// The pause needn't be as long as the silence limit: a peer that had been quiet for a beat before the pause is
    /// past the limit after a pause that is a beat shorter.
    private mutating func forgiveStall(at now: Instant) {
        defer { self.lastTick = now }
        self.forgiveStallSinceClosing(at: now)
        let grace = self.limits.silenceNanoseconds - self.limits.beatNanoseconds
        let stall = max(grace, 2 * self.limits.beatNanoseconds)
        guard let lastTick, now.nanoseconds(since: lastTick) >= stall else { return }
        let pardon = Instant(nanoseconds: now.nanoseconds - min(now.nanoseconds, grace))
        switch self.state {
        case .idle, .ended: break
        case .introducing(let nextHello, let interval, let lastHeard):
            self.state = .introducing(
                nextHello: nextHello,
                interval: interval,
                lastHeard: lastHeard.map { max($0, pardon) }
            )
        case .interrupted(let lastHeard, let closedAt):
            self.state = .interrupted(lastHeard: max(lastHeard, pardon), closedAt: closedAt)
        case .established(let lastHeard, let lastSent):
            self.state = .established(lastHeard: max(lastHeard, pardon), lastSent: lastSent)
        }
    }

    /// Extends the second that a peer has to come back, during which this side acts four times, by the time that this
    /// side stood still.
    private mutating func forgiveStallSinceClosing(at now: Instant) {
        guard case .interrupted(let lastHeard, let closedAt?) = self.state, let lastTick else { return }
        let pause = now.nanoseconds(since: max(lastTick, closedAt))
        guard pause > self.limits.returnNanoseconds / 2 else { return }
        self.state = .interrupted(lastHeard: lastHeard, closedAt: closedAt.advanced(byNanoseconds: pause))
    }
}
