// SPDX-License-Identifier: Apache-2.0

/// Clients that don't read their answers.
///
/// What a client doesn't read stays here. So if a client has left too much unread, its calls wait: no worker gets any,
/// those that workers haven't started are recalled, and only those that are running can still add to it.
extension BrokerMachine {
    /// What happened to a client's calls.
    package enum Reading: Equatable, Sendable {
        case unchanged
        /// They wait from now on.
        case isHeldUp
        /// They no longer wait.
        case goesOn
    }

    package var unreadLimit: UnreadLimit { UnreadLimit(perClient: self.configuration.maxUnreadBytes) }

    /// A client has left this many bytes unread, of the total over all clients: its calls wait from now on, or go on.
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
                self.putInHeap(flow)
            }
            self.count(self.flows[flow].calls.count, in: flow)
        }
        self.placeApart(at: now, actions: &actions)
        for route in Set(flows.map { self.flows[$0].route }).sorted() {
            self.spread(route, at: now, actions: &actions)
        }
    }
}
