// SPDX-License-Identifier: Apache-2.0

internal import DroverWire

/// Which call goes to which worker.
extension BrokerMachine {
    /// A call may go: to a worker at once, or into its flow.
    mutating func place(_ slot: UInt32, at now: Instant, actions: inout [BrokerAction]) {
        let call = self.calls[slot]
        let route = Int(call.route)
        let waits = self.routes[route]?.topPriority ?? -1
        if waits < Int(call.priority), let worker = self.choose(route) {
            self.wheel.cancel(slot)
            return self.assign(slot, to: worker, at: now, actions: &actions)
        }
        self.enqueue(slot, atFront: false, at: now)
    }

    /// Gives a worker calls that wait, as long as it has room.
    mutating func fill(_ worker: Int, at now: Instant, actions: inout [BrokerAction]) {
        while !self.busyRoutes.isEmpty, self.workers[worker].isLive, self.workers[worker].hasRoom,
            let slot = self.pick(for: worker)
        {
            self.send(slot, to: worker, at: now, actions: &actions)
        }
        self.loads.update(worker, in: &self.workers)
    }

    /// Gives the calls that wait in a route to workers with room.
    mutating func spread(_ route: Int, at now: Instant, actions: inout [BrokerAction]) {
        while (self.routes[route]?.waitingCount ?? 0) > 0, let worker = self.choose(route),
            let slot = self.pick(for: worker)
        {
            self.send(slot, to: worker, at: now, actions: &actions)
        }
    }

    /// Sends a call that waited, unless its time is over and nobody has looked at the clock yet.
    private mutating func send(_ slot: UInt32, to worker: Int, at now: Instant, actions: inout [BrokerAction]) {
        guard self.calls[slot].deadline > now else {
            return self.finish(slot, ending: .cancelled(.lapsed), at: now, actions: &actions)
        }
        self.assign(slot, to: worker, at: now, actions: &actions)
    }

    /// Puts a call that no worker has where it waits.
    mutating func enqueue(_ slot: UInt32, atFront: Bool, at now: Instant) {
        let call = self.calls[slot]
        let flow = self.flow(client: Int(call.client), route: Int(call.route), priority: call.priority, makes: true)
        let route = Int(call.route)
        if atFront {
            self.calls.prepend(slot, to: &self.flows[flow].calls)
        } else {
            self.calls.append(slot, to: &self.flows[flow].calls)
        }
        self.calls[slot].state = .queued
        self.queuedCount += 1
        self.routes[route]?.waiting[Int(call.priority)] += 1
        self.routes[route]?.waitingCount += 1
        if let entry = self.routes[route], entry.place < 0 {
            self.routes[route]?.place = self.busyRoutes.count
            self.busyRoutes.append(route)
        }
        self.startTimer(of: slot, at: now)
    }

    /// Takes a call that waits out of where it waits.
    mutating func takeOut(_ slot: UInt32) {
        let call = self.calls[slot]
        self.queuedCount -= 1
        if call.state == .held { return self.calls.unlink(slot, from: &self.keys[Int(call.key)].waiting) }
        let (route, level) = (Int(call.route), Int(call.priority))
        let flow = self.flow(client: Int(call.client), route: route, priority: call.priority, makes: false)
        self.calls.unlink(slot, from: &self.flows[flow].calls)
        self.routes[route]?.waiting[level] -= 1
        self.routes[route]?.waitingCount -= 1
        if self.routes[route]?.waiting[level] == 0 {
            // What is left in the heap are flows without calls.
            for empty in self.routes[route]?.levels[level].removeAll() ?? [] { self.dropFlow(empty) }
        }
        guard let entry = self.routes[route], entry.waitingCount == 0 else { return }
        let last = self.busyRoutes.removeLast()
        if last != route {
            self.busyRoutes[entry.place] = last
            self.routes[last]?.place = entry.place
        }
        self.routes[route]?.place = -1
    }

    /// Starts the timer of a call that waits: for its deadline, or for the patience if no worker may run it.
    mutating func startTimer(of slot: UInt32, at now: Instant) {
        let call = self.calls[slot]
        var due = call.deadline
        if (self.routes[Int(call.route)]?.workerCount ?? 0) == 0 {
            due = min(due, now.advanced(byNanoseconds: self.configuration.patienceNanoseconds))
        }
        if due != .distantFuture { self.wheel.schedule(slot, at: due) }
    }

    /// The least loaded worker with room for a call of the route.
    private func choose(_ route: Int) -> Int? {
        guard let demands = self.routes[route]?.demands, (self.routes[route]?.workerCount ?? 0) > 0 else { return nil }
        var levels = self.loads.occupied
        while levels != 0 {
            var worker = self.loads.first(of: levels.trailingZeroBitCount)
            levels &= levels - 1
            while worker >= 0 {
                if self.workers[worker].routes.contains(route), self.hasLeft(worker, demands) { return worker }
                worker = self.workers[worker].next
            }
        }
        return nil
    }

    private func hasLeft(_ worker: Int, _ demands: Demands) -> Bool {
        demands.resources.isEmpty || self.workers[worker].hasLeft(demands.resources)
    }

    /// Takes the call that a worker should get next out of its flow: by priority, then by the clients' turns.
    private mutating func pick(for worker: Int) -> UInt32? {
        var best: (priority: Int, entry: FairQueue.Entry)?
        for route in self.busyRoutes {
            guard self.workers[worker].routes.contains(route), let demands = self.routes[route]?.demands,
                self.hasLeft(worker, demands), let priority = self.routes[route]?.topPriority,
                priority >= best?.priority ?? 0, let entry = self.settleTop(route, priority)
            else { continue }
            if let current = best, current.priority == priority, !(entry < current.entry) { continue }
            best = (priority, entry)
        }
        guard let flow = best?.entry.flow else { return nil }
        let (client, slot) = (self.flows[flow].client, self.flows[flow].calls.first)
        // A client that could not be served for long has no claim on all that it missed.
        let pass = max(self.clients[client].pass, self.virtualTime - min(self.virtualTime, 16))
        self.virtualTime = max(self.virtualTime, pass)
        self.clients[client].pass = pass + 1
        self.serves += 1
        self.flows[flow].served = self.serves
        self.takeOut(slot)
        return slot
    }

    /// Brings the flow that goes next to the top of a heap.
    private mutating func settleTop(_ route: Int, _ priority: Int) -> FairQueue.Entry? {
        while let top = self.routes[route]?.levels[priority].top {
            let flow = self.flows[top.flow]
            if flow.calls.count == 0 {
                self.routes[route]?.levels[priority].removeTop()
                self.dropFlow(top.flow)
                continue
            }
            let pass = self.clients[flow.client].pass
            if top.pass == pass, top.served == flow.served { return top }
            self.routes[route]?.levels[priority].replaceTop(pass: pass, served: flow.served)
        }
        return nil
    }

    private mutating func assign(_ slot: UInt32, to worker: Int, at now: Instant, actions: inout [BrokerAction]) {
        self.lastID += 1
        let id = self.lastID
        let route = Int(self.calls[slot].route)
        let isBehind = self.workers[worker].calls.count >= self.workers[worker].offer.concurrency
        if self.workers[worker].calls.count == 0 { self.workers[worker].progressAt = now }
        if isBehind, !self.stallWheel.isScheduled(UInt32(worker)) {
            self.stallWheel.schedule(
                UInt32(worker),
                at: now.advanced(byNanoseconds: self.configuration.stallNanoseconds)
            )
        }
        _ = self.sent.insert(id, Sent(slot: slot, isBehind: isBehind, at: now))
        self.wheel.cancel(slot)
        self.calls[slot].state = .sent
        self.calls[slot].worker = Int32(worker)
        self.calls[slot].workerID = id
        self.calls[slot].attempts += 1
        self.calls[slot].isRecalled = false
        self.calls.append(slot, to: &self.workers[worker].calls)
        if let entry = self.routes[route] {
            if !entry.demands.resources.isEmpty { self.workers[worker].occupy(entry.demands.resources) }
            if !self.workers[worker].defined.contains(entry.function) {
                self.workers[worker].defined.insert(entry.function)
                actions.append(.define(worker: worker, function: entry.function))
            }
        }
        self.loads.update(worker, in: &self.workers)
        actions.append(.transmit(slot: slot, worker: worker, id: id, isResent: false))
    }

    /// A worker no longer has a call.
    mutating func takeBack(_ slot: UInt32) {
        let call = self.calls[slot]
        let worker = Int(call.worker)
        if let entry = self.sent.slot(of: call.workerID) { self.sent.remove(entry) }
        self.calls.unlink(slot, from: &self.workers[worker].calls)
        if let demands = self.routes[Int(call.route)]?.demands, !demands.resources.isEmpty {
            self.workers[worker].vacate(demands.resources)
        }
        self.calls[slot].worker = -1
        self.calls[slot].workerID = 0
        self.loads.update(worker, in: &self.workers)
    }

    /// Sets a worker's credit by what was measured.
    mutating func adapt(_ worker: Int, actions: inout [BrokerAction]) {
        let slots = self.workers[worker].offer.concurrency
        let wanted = self.workers[worker].meter
            .credit(
                concurrency: slots,
                coverageNanoseconds: self.workers[worker].coverageNanoseconds
            )
        let bound = max(1, min(self.workers[worker].window, max(slots, self.configuration.maxCredit)))
        // Down at once, up step by step.
        let credit = min(wanted, bound, max(self.workers[worker].credit * 2, slots))
        guard credit != self.workers[worker].credit else { return }
        self.workers[worker].credit = credit
        self.loads.update(worker, in: &self.workers)
        let announced = self.workers[worker].announcedCredit
        if credit >= 2 * announced || credit <= slots || 2 * credit <= announced {
            self.announce(worker, actions: &actions)
        }
    }

    /// Tells a worker its credit, and how much waits for it.
    mutating func announce(_ worker: Int, actions: inout [BrokerAction]) {
        guard self.workers[worker].isOpen else { return }
        let waiting = self.waitingCount(for: worker)
        self.workers[worker].announcedWaiting = waiting > 0
        self.workers[worker].announcedCredit = self.workers[worker].credit
        actions.append(.sendCredit(worker: worker, credit: self.workers[worker].credit, waiting: waiting))
    }

    /// How many calls wait that a worker could take.
    func waitingCount(for worker: Int) -> Int {
        var waiting = 0
        for route in self.busyRoutes where self.workers[worker].routes.contains(route) {
            waiting += self.routes[route]?.waitingCount ?? 0
        }
        return waiting
    }

    // MARK: Flows

    private mutating func flow(client: Int, route: Int, priority: UInt8, makes: Bool) -> Int {
        let key = route << 3 | Int(priority)
        if self.clients[client].lastFlow.key == key { return self.clients[client].lastFlow.flow }
        let index: Int
        if let known = self.clients[client].flows[key] {
            index = known
        } else {
            precondition(makes, "a call waits in a flow that doesn't exist")
            let flow = Flow(client: client, route: route, priority: priority)
            if let free = self.freeFlows.popLast() {
                index = free
                self.flows[index] = flow
            } else {
                index = self.flows.count
                self.flows.append(flow)
            }
            self.clients[client].flows[key] = index
            self.clients[client].pass = max(self.clients[client].pass, self.virtualTime)
            let entry = FairQueue.Entry(pass: self.clients[client].pass, served: 0, flow: index)
            self.routes[route]?.levels[Int(priority)].insert(entry)
        }
        self.clients[client].lastFlow = (key, index)
        return index
    }

    private mutating func dropFlow(_ index: Int) {
        let flow = self.flows[index]
        self.freeFlows.append(index)
        guard flow.client >= 0 else { return }
        self.clients[flow.client].flows[flow.route << 3 | Int(flow.priority)] = nil
        self.clients[flow.client].lastFlow = (-1, -1)
    }
}
