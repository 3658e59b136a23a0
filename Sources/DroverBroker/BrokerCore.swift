// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import DroverZMQ
internal import Synchronization

/// What a broker's loop and its owner share.
final class BrokerCore: Sendable {
    let configuration: BrokerConfiguration
    let randomness: LifeRandomness
    var identity: PeerID { self.randomness.identity }
    var epoch: UInt64 { self.randomness.epoch }
    let context: SharedContext
    let waker: Waker
    /// Who is let in by key; nil for a broker without keys.
    let access: ListenerAccess?
    /// The record of who did what.
    let audit: AuditLog
    let counters = BrokerCounters()
    let life: Lifecycle
    /// How many turns the loop has made.
    let turns = Atomic<UInt64>(0)
    let startedAt = Instant(nanoseconds: MonotonicClock.now())

    init(configuration: BrokerConfiguration) throws {
        self.configuration = configuration
        self.randomness = LifeRandomness()
        self.context = try SharedContext.acquire()
        let waker = try Waker()
        self.waker = waker
        self.life = Lifecycle(waker: waker)
        self.access = try configuration.keys.map { [context] keys in
            try ListenerAccess(keys, in: context, logger: configuration.logger) { waker.wake() }
        }
        self.audit = self.access?.policy.audit ?? AuditLog(logger: configuration.logger)
    }

    func now() -> Instant { Instant(nanoseconds: MonotonicClock.now()) }

    /// What the broker has done and currently holds.
    var status: BrokerStatus {
        var status = BrokerStatus()
        status.broker = self.configuration.name
        status.uptime = Double(self.now().nanoseconds(since: self.startedAt)) / 1e9
        status.isDraining = self.life.state != .running
        self.counters.fill(&status)
        return status
    }
}

/// The counters behind a broker's status; only the loop writes.
struct BrokerCounters: ~Copyable, Sendable {
    let clients = Atomic<Int>(0)
    let workers = Atomic<Int>(0)
    let slots = Atomic<Int>(0)
    let queued = Atomic<Int>(0)
    let keptBytes = Atomic<Int>(0)
    let refusedForBytes = Atomic<Int>(0)
    let unreadBytes = Atomic<Int>(0)
    /// How many clients are held up now, and how often that began for a client.
    let heldUp = Atomic<Int>(0)
    let holdUps = Atomic<Int>(0)
    let forgottenNews = Atomic<Int>(0)
    let forgottenAnswers = Atomic<Int>(0)
    let sent = Atomic<Int>(0)
    let received = Atomic<Int>(0)
    let answered = Atomic<Int>(0)
    let resent = Atomic<Int>(0)
    let lost = Atomic<Int>(0)
    let refused = Atomic<Int>(0)
    let overQuota = Atomic<Int>(0)
    let closedNewcomers = Atomic<Int>(0)
    let malformed = Atomic<Int>(0)
    let unknown = Atomic<Int>(0)
    let undeliverable = Atomic<Int>(0)
    let resets = Atomic<Int>(0)
    let starved = Atomic<Int>(0)
    let parts = PartCounters()

    func fill(_ status: inout BrokerStatus) {
        status.clients = self.clients.load(ordering: .relaxed)
        status.workers = self.workers.load(ordering: .relaxed)
        status.slots = self.slots.load(ordering: .relaxed)
        status.queued = self.queued.load(ordering: .relaxed)
        status.sent = self.sent.load(ordering: .relaxed)
        status.queuedBytes = self.keptBytes.load(ordering: .relaxed)
        status.refusedForBytes = self.refusedForBytes.load(ordering: .relaxed)
        status.unreadBytes = self.unreadBytes.load(ordering: .relaxed)
        status.heldUp = self.heldUp.load(ordering: .relaxed)
        status.holdUps = self.holdUps.load(ordering: .relaxed)
        status.forgottenNews = self.forgottenNews.load(ordering: .relaxed)
        status.forgottenAnswers = self.forgottenAnswers.load(ordering: .relaxed)
        status.received = self.received.load(ordering: .relaxed)
        status.answered = self.answered.load(ordering: .relaxed)
        status.resent = self.resent.load(ordering: .relaxed)
        status.lost = self.lost.load(ordering: .relaxed)
        status.refused = self.refused.load(ordering: .relaxed)
        status.closedNewcomers = self.closedNewcomers.load(ordering: .relaxed)
        status.overQuota = self.overQuota.load(ordering: .relaxed)
        status.malformed = self.malformed.load(ordering: .relaxed)
        status.unknown = self.unknown.load(ordering: .relaxed)
        status.undeliverable = self.undeliverable.load(ordering: .relaxed)
        status.partsRefused = self.parts.refused.load(ordering: .relaxed)
        status.oversized = self.parts.oversized.load(ordering: .relaxed)
        status.abandoned = self.parts.abandoned.load(ordering: .relaxed)
        status.resets = self.resets.load(ordering: .relaxed)
        status.starved = self.starved.load(ordering: .relaxed)
    }
}

extension Atomic<Int> {
    /// Counts one more in a counter that only one thread writes: an atomic addition would cost several times as much.
    func countAlone() { self.store(self.load(ordering: .relaxed) &+ 1, ordering: .relaxed) }
}
