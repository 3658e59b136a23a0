// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import Logging
internal import Synchronization

// Handlers that call their own worker or pool hold slots that their calls may wait for.

extension WorkerLoop {
    /// Looks, now and then, at what the handlers wait for that wait for calls.
    ///
    /// Where each slot is held by one whose call waits for a slot nothing would go on: those give theirs back. Their callers
    /// are told of what they wait for, so that the callers of others, who wait for them, know it as well.
    @available(*, noasync)
    func lookAtWaits() {
        guard self.waits.mustLook(at: self.now) else { return }
        var holders: [WorkerJob] = []
        for case let job? in self.jobs where job.isRunning {
            let isWaiting = job.context.waitsForSlots(at: self.now)
            self.tell(job, isWaiting && !job.context.waitsForHeld)
            if isWaiting, job.context.holdsSlot, self.machine.request(in: job.slot)?.state == .dispatched {
                holders.append(job)
            }
        }
        if self.core.nestedWaits.load(ordering: .relaxed) == 0 { self.stopLooking() }
        let slots = StallWatch.Slots(
            count: self.core.threads.slotCount,
            taken: self.core.threads.running,
            waiting: holders.count,
            stuck: self.machine.stuckSlotCount
        )
        let wasStalled = self.waits.isStalled
        if self.waits.found(slots, at: self.now) {
            let count = holders.count { $0.giveSlotBack(at: self.now) }
            if count > 0 {
                self.core.logger.debug(
                    "handlers give their slots back, for each waits for a call that waits for a slot",
                    metadata: [LogKeys.count: "\(count)"]
                )
            }
            self.waits.gaveBack(count, at: self.now)
        }
        if self.waits.isStalled { self.tellStalled() }
        guard self.waits.isStalled != wasStalled else { return }
        for session in self.links.indices where self.links[session]?.broker != nil { self.sendBeat(to: session) }
    }

    private func stopLooking() {
        self.waits.stop()
        self.core.mustLookAtWaits.store(false, ordering: .sequentiallyConsistent)
        // One that began in between saw the flag, and didn't wake the loop.
        guard self.core.nestedWaits.load(ordering: .sequentiallyConsistent) > 0 else { return }
        self.core.mustLookAtWaits.store(true, ordering: .relaxed)
        _ = self.waits.mustLook(at: self.now)
    }

    /// Tells a caller that its request waits for a slot, or for a call that does, or no longer.
    private func tell(_ job: WorkerJob, _ isWaiting: Bool) {
        guard job.isToldToWait.exchange(isWaiting, ordering: .relaxed) != isWaiting,
            let request = self.machine.request(in: job.slot), request.session >= 0,
            request.id == job.context.correlationID.rawValue
        else { return }
        self.report(job.slot, session: Int(request.session), id: request.id)
    }

    /// Nothing goes on: callers whose requests wait are told, and so is the log.
    private func tellStalled() {
        for case let job? in self.jobs where !job.isRunning { self.tell(job, true) }
        guard self.waits.mayWarn(at: self.now) else { return }
        let most = self.core.configuration.maxReleasedSlots
        self.core.logger.warning(
            "nothing goes on: each slot is held by a handler that waits for a call that waits for a slot",
            metadata: [
                LogKeys.count: "\(self.core.threads.running)",
                LogKeys.reason: "\(PhaseReport.remedy); at most \(most) may have given theirs back",
            ]
        )
    }
}
