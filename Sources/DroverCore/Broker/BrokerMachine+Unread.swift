// SPDX-License-Identifier: Apache-2.0

/// Clients that don't read their answers, and what requests take.
///
/// What a client doesn't read stays here. So the calls of one that has left too much unread wait: no worker gets any, those
/// that workers have not started come back, and what runs is all that may still add to it.
extension BrokerMachine {
    /// What became of a client's calls.
    package enum Reading: Equatable, Sendable {
        case unchanged
        /// They wait from now on.
        case isHeldUp
        /// They wait no more.
        case goesOn
    }

    package var unreadLimit: UnreadLimit { UnreadLimit(perClient: self.configuration.maxUnreadBytes) }

    /// So much a client has not read, of what all have not read: its calls wait from now on, or go on.
    package mutating func hasUnread(
        _ bytes: Int,
        of client: Int,
        inAll total: Int,
        at now: Instant,
        actions: inout [BrokerAction]
    ) -> Reading {
        let isHeldUp = self.clients[client].isHeldUp
        guard self.clients[client].isLive else { return .unchanged }
        let mustWait = self.unreadLimit.mustWait(
            unread: bytes,
            total: total,
            clients: self.clientOf.count,
            isHeldUp: isHeldUp
        )
        guard mustWait != isHeldUp else { return .unchanged }
        self.clients[client].isHeldUp = mustWait
        if mustWait {
            self.heldUp.append(client)
            self.putAside(client, actions: &actions)
            return .isHeldUp
        }
        self.heldUp.removeAll { $0 == client }
        self.takeBackFromAside(client, at: now, actions: &actions)
        return .goesOn
    }

    private mutating func putAside(_ client: Int, actions: inout [BrokerAction]) {
        for flow in self.clients[client].flows.values.sorted() {
            self.flows[flow].isAside = true
            if self.flows[flow].calls.count > 0 { self.discount(self.flows[flow].calls.count, in: flow) }
        }
        for worker in self.workers.indices where self.workers[worker].isLive && self.workers[worker].isOpen {
            for slot in self.calls.slots(of: self.workers[worker].calls)
            where self.calls[slot].client == Int32(client) && !self.calls[slot].isRecalled
                && !self.calls[slot].isCancelled
            {
                self.calls[slot].isRecalled = true
                actions.append(.recall(worker: worker, id: self.calls[slot].workerID))
            }
        }
    }

    private mutating func takeBackFromAside(_ client: Int, at now: Instant, actions: inout [BrokerAction]) {
        let flows = self.clients[client].flows.values.sorted()
        for flow in flows {
            self.flows[flow].isAside = false
            guard self.flows[flow].calls.count > 0 else { continue }
            self.flows[flow].waitsSince = self.serves
            if !self.flows[flow].isInHeap {
                self.flows[flow].isInHeap = true
                let queue = self.flows[flow].route << 3 | Int(self.flows[flow].priority)
                let entry = FairQueue.Entry(
                    pass: self.clients[client].pass,
                    served: self.flows[flow].served,
                    flow: flow
                )
                self.queues[queue].insert(entry)
            }
            self.count(self.flows[flow].calls.count, in: flow)
        }
        self.placeApart(at: now, actions: &actions)
        for route in Set(flows.map { self.flows[$0].route }).sorted() {
            self.spread(route, at: now, actions: &actions)
        }
    }

    // MARK: What requests take

    /// Whether a request fits into what may be kept: half of it at most is one client's, and what others have filled keeps nobody
    /// out who has little there, which can stretch it by a quarter.
    func hasRoom(for count: Int, of client: Int) -> Bool {
        let limit = self.configuration.maxQueuedBytes
        let own = self.clients[client].keptBytes + count
        if own <= limit / (4 * max(16, self.clientOf.count)) { return true }
        return own <= limit / 2 && self.keptBytes + count <= limit
    }

    mutating func keeps(_ count: Int, of client: Int) {
        self.keptBytes += count
        self.clients[client].keptBytes += count
    }

    /// A call has ended, and its request is kept no longer.
    mutating func frees(_ call: BrokerCall) {
        self.keptBytes -= Int(call.byteCount)
        if call.client >= 0 { self.clients[Int(call.client)].keptBytes -= Int(call.byteCount) }
    }
}
