// SPDX-License-Identifier: Apache-2.0

internal import DroverWire

/// Cancellation of calls by someone other than their clients.
extension BrokerMachine {
    /// A call that matches what an operator named.
    package struct KnownCall: Equatable, Sendable {
        package let slot: UInt32
        /// The client that made it.
        package let client: Int
        package let function: String
        package let queue: String
        /// The worker that has it; nil while none has.
        package let worker: String?
    }

    /// The calls that clients know by an id: those of all clients, or of the one with a given name or identity.
    package func calls(known id: UInt64, to client: String?) -> [KnownCall] {
        self.clients.indices.compactMap { index -> KnownCall? in
            let owner = self.clients[index]
            guard owner.isLive, client == nil || owner.name == client || "\(owner.client)" == client,
                let slot = owner.requests.find(id)
            else { return nil }
            let call = self.calls[slot]
            return KnownCall(
                slot: slot,
                client: index,
                function: self.functions[self.routes[Int(call.route)].function].name,
                queue: self.demandsOf[Int(call.route)].queue,
                worker: call.worker < 0 ? nil : self.workers[Int(call.worker)].offer.name
            )
        }
    }

    /// From now on a client may call only some functions in some queues: its waiting calls of any others end.
    ///
    /// Calls that have gone to a worker continue: they were sent when that was allowed.
    package mutating func restrict(
        _ client: Int,
        at now: Instant,
        actions: inout [BrokerAction],
        to isAllowed: (_ function: String, _ queue: String) -> Bool
    ) {
        for slot in self.waitingCalls(of: client) {
            let route = Int(self.calls[slot].route)
            let (function, queue) = (self.functions[self.routes[route].function].name, self.demandsOf[route].queue)
            // The end of another call of its ordering key may just have released it.
            guard !isAllowed(function, queue), self.calls[slot].isWaiting else { continue }
            let wasApart = self.calls[slot].state == .apart
            self.takeOut(slot)
            self.finish(slot, ending: .forbidden(function: function, queue: queue), at: now, actions: &actions)
            if wasApart { self.placeApart(at: now, actions: &actions) }
        }
    }

    /// An operator cancels a call: a waiting call ends at once; one that a worker has ends when the worker has said
    /// what happened to it.
    package mutating func revoke(_ known: KnownCall, at now: Instant, actions: inout [BrokerAction]) {
        let slot = known.slot
        self.calls[slot].isRevoked = true
        let id = self.calls[slot].id
        _ = self.cancelReceived(id, reason: .requested, from: known.client, at: now, actions: &actions)
    }
}
