// SPDX-License-Identifier: Apache-2.0

/// Views for operators.
extension BrokerMachine {
    /// Calls of one function with the same demands.
    package struct RouteView: Equatable, Sendable {
        package var function: String
        package var demands: Demands
        package var waiting: Int
        /// How many workers may run them.
        package var workers: Int
        /// The call that has waited longest.
        package var oldest: OldCall?
    }

    /// A call, and how long it has been here.
    package struct OldCall: Equatable, Sendable {
        package let client: Int
        package let id: UInt64
        package let milliseconds: Int
    }

    /// How many workers offer a function now, and how many handlers they have.
    package func serving(_ name: String) -> (workers: Int, slots: Int) {
        guard let function = self.functionOf[name] else { return (0, 0) }
        return self.workers.reduce(into: (workers: 0, slots: 0)) { sum, worker in
            guard worker.isLive, worker.isOpen, worker.offers.contains(function) else { return }
            sum.workers += 1
            sum.slots += worker.offer.concurrency
        }
    }

    /// All routes that have calls or workers, sorted by function and queue.
    package func routeViews(at now: Instant) -> [RouteView] {
        var oldest: [Int: UInt32] = [:]
        for slot in self.waitingSlots(ofEach: 1) {
            let route = Int(self.calls[slot].route)
            guard let other = oldest[route] else {
                oldest[route] = slot
                continue
            }
            if self.calls[slot].milliseconds(at: now) > self.calls[other].milliseconds(at: now) { oldest[route] = slot }
        }
        return self.routes.indices
            .filter { index in
                let route = self.routes[index]
                return route.isLive && (route.waitingCount > 0 || route.callCount > 0 || route.workerCount > 0)
            }
            .map { index in
                RouteView(
                    function: self.functions[self.routes[index].function].name,
                    demands: self.demandsOf[index],
                    waiting: self.routes[index].waitingCount,
                    workers: self.routes[index].workerCount,
                    oldest: oldest[index].map { self.oldCall($0, at: now) }
                )
            }
            // Routes without workers come last, so that what is cut from an answer isn't what people look for.
            .sorted { lhs, rhs in
                let (left, right) = (lhs.workers == 0 ? 1 : 0, rhs.workers == 0 ? 1 : 0)
                return (left, lhs.function, lhs.demands.queue) < (right, rhs.function, rhs.demands.queue)
            }
    }

    /// The calls that have waited longest, then the oldest of those that workers have; at most `count` of each.
    package func oldestCalls(_ count: Int, at now: Instant) -> [OldCall] {
        let waiting = self.waitingSlots(ofEach: count)
        var sent: [UInt32] = []
        var next = self.sent.firstSlot(from: 0)
        while let entry = next {
            sent.append(self.sent[entry].slot)
            next = self.sent.firstSlot(from: entry + 1)
        }
        return [waiting, sent]
            .flatMap { slots in
                slots.filter { self.calls[$0].client >= 0 }.map { self.oldCall($0, at: now) }
                    .sorted { ($0.milliseconds, $1.client, $1.id) > ($1.milliseconds, $0.client, $0.id) }
                    .prefix(count)
            }
    }

    private func oldCall(_ slot: UInt32, at now: Instant) -> OldCall {
        let call = self.calls[slot]
        return OldCall(client: Int(call.client), id: call.id, milliseconds: call.milliseconds(at: now))
    }

    /// The first calls of each line of waiting calls: they arrived before the others, unless a worker gave them back.
    private func waitingSlots(ofEach count: Int) -> [UInt32] {
        var slots: [UInt32] = []
        func take(_ list: CallList) {
            var (slot, left) = (list.first, count)
            while slot != CallSlab.none, left > 0 {
                slots.append(slot)
                left -= 1
                slot = self.calls[slot].next
            }
        }
        for flow in self.flows where flow.client >= 0 { take(flow.calls) }
        for key in self.keyOf.values { take(self.keys[Int(key)].waiting) }
        slots += self.calls.slots(of: self.apart)
        return slots
    }
}
