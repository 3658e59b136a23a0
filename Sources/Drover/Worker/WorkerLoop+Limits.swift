// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import DroverZMQ
internal import Logging
internal import Synchronization

// Handlers that have run for too long, as the machine says.

extension WorkerLoop {
    /// A handler with limits has begun on a handler thread.
    func began(_ job: WorkerJob, at started: Instant) {
        guard self.jobs[Int(job.slot)] === job else { return }
        self.nextTick = min(self.nextTick, self.machine.began(job.slot, at: started))
    }

    /// The loop was taken from a handler that it was lent to: if that has limits they count from now on.
    func watchLentJob() {
        guard let slot = self.lentSlot else { return }
        self.lentSlot = nil
        self.nextTick = min(self.nextTick, self.machine.began(slot, at: self.core.now()))
    }

    /// A handler has run until its soft limit.
    ///
    /// Those that run beside the loop have no context that could tell them.
    func interrupt(_ slot: UInt32) {
        if Int(slot) < self.jobs.count { _ = self.jobs[Int(slot)]?.cancel(because: .softTimeLimit) }
    }

    /// A handler has run until its hard limit: its caller is answered now.
    func abandon(_ slot: UInt32, _ session: Int?, _ id: UInt64) {
        guard let request = self.machine.request(in: slot) else { return }
        let handler = self.handlers[Int(request.handler)]
        if Int(slot) < self.jobs.count, let job = self.jobs[Int(slot)] {
            _ = job.cancel(because: .hardTimeLimit)
        } else {
            // It isn't to run beside the loop again before it has proved to be quick.
            handler.tookTooLong()
        }
        self.stuckChanged()
        let isKilled = handler.isolated != nil
        self.core.logger.warning(
            isKilled
                ? "a handler's process is killed: it ran until its hard time limit"
                : "a handler is stuck: it runs on after its hard time limit; \(self.slotState)",
            metadata: self.origins.metadata(
                of: id,
                in: slot,
                receivedAt: request.receivedAt,
                [
                    LogKeys.function: "\(handler.name)", LogKeys.reason: "\(handler.timeLimits.hard ?? .zero)",
                ]
            )
        )
        guard let session else { return }
        self.core.counters.completed.count()
        self.core.counters.failed.count()
        let body = handler.overrun(.hardTimeLimit, worker: self.core.name)
        let ran = UInt32(roundedMicroseconds: handler.timeLimits.hard?.clampedNanoseconds ?? 0)
        let addressee = WorkerMachine.Addressee(session: session, id: id, isBehindEvents: request.hasCallbacks)
        self.answer(.error, body.packed(), to: addressee, ran: ran)
    }

    /// A handler that runs was asked to stop.
    func stopping(_ slot: UInt32) {
        self.nextTick = min(self.nextTick, self.machine.stopping(slot, at: self.now))
    }

    /// A handler was asked to stop, and hasn't within the grace: its call is answered, and its slot replaced.
    func giveUp(_ slot: UInt32, _ session: Int?, _ id: UInt64) {
        guard let request = self.machine.request(in: slot) else { return }
        let handler = self.handlers[Int(request.handler)]
        // One that runs beside the loop isn't to do so again before it has proved to be quick.
        if Int(slot) >= self.jobs.count || self.jobs[Int(slot)] == nil { handler.tookTooLong() }
        self.stuckChanged()
        let age = Duration(nanoseconds: self.now.nanoseconds(since: request.receivedAt))
        let grace = self.core.configuration.cancellationGrace
        self.core.logger.warning(
            "a handler is stuck: it was asked to stop \(grace) ago and runs on; \(self.slotState)",
            metadata: self.origins.metadata(
                of: id,
                in: slot,
                receivedAt: request.receivedAt,
                [
                    LogKeys.function: "\(handler.name)", LogKeys.reason: "its call came \(age) ago",
                ]
            )
        )
        guard let session else { return }
        self.core.counters.completed.count()
        self.core.counters.failed.count()
        let body = ErrorBody(
            code: .cancelled,
            message:
                "\(handler.name) was asked to stop \(grace) ago and runs on: let it look at its context's isCancelled, "
                + "or isolate it",
            worker: self.core.name
        )
        let addressee = WorkerMachine.Addressee(session: session, id: id, isBehindEvents: request.hasCallbacks)
        self.answer(.error, body.packed(), to: addressee, ran: 0)
    }

    /// What became of a stuck handler's slot, for the log.
    private var slotState: String {
        let (stuck, replaced) = (self.machine.stuckSlotCount, self.machine.replacementCount)
        return stuck == replaced
            ? "its slot is replaced (\(stuck) stuck)"
            : "it keeps its slot (\(stuck) stuck, \(replaced) replaced at most): start the worker again"
    }

    /// A handler has ended whose request was answered without it: nobody wants its answer.
    func dropLate(_ reply: WorkerReply) {
        self.core.counters.late.count()
        self.stuckChanged()
        // Brokers are told in this turn that there is a slot more.
        self.nextTick = min(self.nextTick, self.now)
        if case .value(var block) = reply { block.free() }
    }

    func stuckChanged() {
        self.core.counters.stuck.store(self.machine.abandonedCount, ordering: .relaxed)
        self.core.threads.setReplacements(self.machine.replacementCount, core: self.core)
    }

    /// Slots that handlers that are stuck hold, and that nothing replaces.
    private var lostSlots: Int { self.machine.stuckSlotCount - self.machine.replacementCount }

    /// How many handlers may run at once beside those that are stuck; as the protocol has no worker without any, one at least.
    ///
    /// Handlers that wait without slots count for one more each as long as their requests are unanswered: others run.
    var usableConcurrency: Int {
        max(1, self.core.configuration.concurrency - self.lostSlots) + self.machine.releasedCount
            - self.machine.abandonedReleasedCount
    }

    /// Whether no slot is left, so that whatever came would wait for a handler that is stuck.
    var isClogged: Bool { self.lostSlots >= self.core.configuration.concurrency }

    /// Tells brokers how many handlers may run at once, and how many are stuck, if that has changed.
    @available(*, noasync)
    func tellChanges() {
        guard !self.machine.isDraining else { return }
        let (usable, stuck) = (self.usableConcurrency, self.machine.abandonedCount)
        for index in self.dials.indices
        where self.dials[index].offeredConcurrency != usable || self.dials[index].offeredStuck != stuck
            || self.dials[index].offeredFunctions != self.handlers.count
        {
            // What goes up and down with each nested call goes down once in a beat only.
            let isLess =
                usable < self.dials[index].offeredConcurrency && stuck == self.dials[index].offeredStuck
                && self.dials[index].offeredFunctions == self.handlers.count
            let beat = self.core.configuration.heartbeatInterval.clampedNanoseconds
            let lowersAt = self.dials[index].offeredAt.advanced(byNanoseconds: beat)
            if isLess, self.now < lowersAt {
                self.nextTick = min(self.nextTick, lowersAt)
                continue
            }
            // One that hasn't introduced itself is sent an offer anyway.
            let session = self.machine.session(route: self.dials[index].route)
            if let session, self.links[session]?.broker != nil { self.offer(to: index) }
        }
    }
}
