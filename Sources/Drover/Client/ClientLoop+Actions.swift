// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverRuntime
internal import DroverZMQ
internal import Logging

// What the machine decided, and how calls end here.

extension ClientLoop {
    @available(*, noasync)
    func performActions() {
        guard !self.actions.isEmpty else { return }
        var index = 0
        // Carrying out an action may add others.
        while index < self.actions.count {
            self.perform(self.actions[index])
            index += 1
        }
        self.actions.removeAll(keepingCapacity: true)
    }

    @available(*, noasync)
    func perform(_ action: ClientAction) {
        switch action {
        case .transmit(let slot, let endpoint, let isResent, let isRenewed):
            guard let result = self.callTable.handle(in: slot) else { return }
            if isResent { self.core.counters.resends.count() }
            let link = self.links[endpoint]
            if result.request.payloadCount > link.maxPayloadBytes {
                self.refuse(result, in: slot, link)
            } else {
                let flags: Header.Flags = isRenewed ? [.resent, .renewed] : isResent ? .resent : []
                self.transmit(result, by: link, as: flags)
            }
        case .sendHello(let endpoint):
            var hello = Hello(
                client: self.core.identity,
                name: self.core.name,
                beatMilliseconds: Int(self.core.configuration.heartbeatInterval.clampedNanoseconds / 1_000_000),
                maxPayloadBytes: self.core.configuration.maxPayloadBytes
            )
            hello.takesParts = true
            hello.silenceMilliseconds = Int(self.core.configuration.silenceLimit.clampedNanoseconds / 1_000_000)
            self.attempt(self.links[endpoint]) { link throws(ZMQError) in
                let claimed = self.callTable.machine.endpoints[endpoint].claimedSession
                link.epoch = self.epoch(for: endpoint)
                // This may be long after the turn began; whatever comes later is measured by it.
                let stamp = link.departures.hello(at: self.core.now())
                let header = Header(.hello, id: link.epoch, time: stamp, number: claimed)
                try link.send(header, consuming: hello.packed())
            }
        case .sendBeat(let endpoint):
            let link = self.links[endpoint]
            self.reply(to: link, link.departures.beat(epoch: self.epoch(for: endpoint), at: self.now))
        case .restamp(let endpoint): self.links[endpoint].departures.wasMistaken()
        case .sendCancel(let endpoint, let id, let reason):
            // One that is asked for back is wanted: what has begun to go in parts, either way, goes on.
            if reason != .recalled { self.links[endpoint].line.cancelOwn(id) }
            self.reply(to: self.links[endpoint], Header(.cancel, id: id, number: reason.rawValue))
        case .sendDeadline(let endpoint, let id, let deadline):
            let link = self.links[endpoint]
            link.line.move(id, to: deadline)
            let left = link.time(until: deadline, at: self.now)
            self.reply(to: link, Header(.deadline, id: id, time: left))
        case .finish(let slot, _, let ending):
            guard let result = self.callTable.take(slot) else { return }
            result.freeRequest()
            switch ending {
            case .expired: self.end(result, .expired, result.timeout(at: self.now))
            case .lost(let reason):
                let place = self.lastPlace(of: result)
                let error = self.error(reason, of: place.link, worker: place.worker)
                self.end(result, .lost, .connection(error.of(callIn: result.lastPhase)))
            case .poison(let attempts, let endpoints):
                let error = self.poison(result, attempts: attempts, endpoints: endpoints)
                self.end(result, .failed, .remote(error))
            case .declined(let endpoint):
                self.end(result, .failed, .remote(self.declined(result, by: endpoint)))
            }
        case .show(let slot, let phase, let isStalled, let hold, let endpoint):
            self.callTable.handle(in: slot)?.show(phase, isStalled: isStalled, hold: hold, endpoint: endpoint)
        case .mayHaveRun(let slot): self.callTable.handle(in: slot)?.mayRunAgain()
        case .opened(let endpoint, let isResumed):
            self.sessionOpened(self.links[endpoint], isResumed: isResumed)
        case .lost(let endpoint, let reason):
            self.sessionLost(self.links[endpoint], reason: reason)
        case .rebuild(let endpoint):
            self.links[endpoint].close(linger: .zero)
            // A peer that refused is not asked again at once.
            if self.callTable.machine.endpoints[endpoint].isRefused {
                self.links[endpoint].postpone(from: self.now)
            } else {
                self.open(self.links[endpoint])
            }
        }
    }

    /// Ends a handle from here; who waits is told at the end of the turn.
    func end(_ result: AnyAsyncResult, _ status: AnyAsyncResult.Status, _ failure: FailureBox) {
        self.note(result, result.settle(status, failure: failure))
    }

    /// A handle was ended here, unless `waiting` is nil: counts it, and keeps who waits for the end of the turn.
    func note(_ result: AnyAsyncResult, _ waiting: Waiting?) {
        guard let waiting else { return }
        self.hasServed = true
        self.endCounts.count(result.currentStatus)
        self.core.jobsEnded(with: result)
        if !waiting.isEmpty { self.ended.append(EndedCall(result: result, waiting: waiting)) }
    }

    @available(*, noasync)
    func attempt(_ link: ClientLink, _ send: (ClientLink) throws(ZMQError) -> Void) {
        do throws(ZMQError) { try send(link) } catch { self.socketFailed(link, error) }
    }

    @available(*, noasync)
    func flush() {
        for link in self.links {
            self.attempt(link) { link throws(ZMQError) in
                if link.isBlocked { try link.unpark() }
                try link.flush()
                if link.line.isSending { try link.sendParts(at: self.now) }
            }
            if link.partBudget.hasNews, let report = link.partBudget.report(at: self.now) {
                self.core.logger.warning(
                    "\(PartBudget.reportMessage)",
                    metadata: [LogKeys.endpoint: "\(link.endpoint)", LogKeys.reason: "\(report)"]
                )
            }
            if link.hasSent {
                link.hasSent = false
                self.callTable.machine.sent(to: link.index, at: self.now)
            }
        }
    }

    func wakeWaiters() {
        if self.endCounts.total > 0 {
            self.core.add(self.endCounts)
            self.endCounts = EndCounts()
        }
        guard !self.ended.isEmpty else { return }
        for call in self.ended { call.waiting.wake(for: call.result) }
        self.ended.removeAll(keepingCapacity: true)
    }
}

/// A handle that ended, and who is to be told.
struct EndedCall {
    let result: AnyAsyncResult
    let waiting: Waiting
}
