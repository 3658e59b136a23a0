// SPDX-License-Identifier: Apache-2.0

internal import DroverWire

/// Decides which call goes to which worker.
extension BrokerMachine {
    /// Sends a call that may go to a worker at once, or puts it into its flow.
    mutating func place(_ slot: UInt32, at now: Instant, actions: inout [BrokerAction]) {
        let call = self.calls[slot]
        guard !self.mustBeAlone(call) else {
            self.enqueue(slot, atFront: false, at: now)
            return self.placeApart(at: now, actions: &actions)
        }
        let route = Int(call.route)
        if self.routes[route].topPriority < Int(call.level), !self.clients[Int(call.client)].isHeldUp,
            let worker = self.choose(route, call.level)
        {
            self.serves += 1
            self.takeTurn(Int(call.tenant), at: worker, level: Int(call.level))
            self.wheel.cancel(slot)
            return self.assign(slot, to: worker, at: now, actions: &actions)
        }
        self.enqueue(slot, atFront: false, at: now)
    }

    /// Gives a worker waiting calls, as long as it has room.
    mutating func fill(_ worker: Int, at now: Instant, actions: inout [BrokerAction]) {
        if self.apart.count > 0 { self.placeApart(at: now, actions: &actions) }
        self.serve(worker, at: now, actions: &actions)
    }

    /// Gives a worker waiting calls, once those that must run alone have been placed.
    mutating func serve(_ worker: Int, at now: Instant, actions: inout [BrokerAction]) {
        while self.busyLevels != 0, self.workers[worker].isLive, self.workers[worker].hasRoom,
            let slot = self.pick(for: worker)
        {
            self.send(slot, to: worker, at: now, actions: &actions)
        }
        self.loads.update(worker, in: &self.workers)
    }

    /// Gives a route's waiting calls to workers with room.
    mutating func spread(_ route: Int, at now: Instant, actions: inout [BrokerAction]) {
        while self.routes[route].waitingCount > 0,
            let worker = self.choose(route, UInt8(self.routes[route].topPriority)),
            let slot = self.pick(for: worker)
        {
            self.send(slot, to: worker, at: now, actions: &actions)
        }
    }

    /// Sends a call that waited, unless its deadline passed before its timer fired.
    mutating func send(_ slot: UInt32, to worker: Int, at now: Instant, actions: inout [BrokerAction]) {
        guard self.calls[slot].deadline > now else {
            return self.finish(slot, ending: .cancelled(.lapsed), at: now, actions: &actions)
        }
        self.assign(slot, to: worker, at: now, actions: &actions)
    }

    /// Queues a call that no worker has.
    mutating func enqueue(_ slot: UInt32, atFront: Bool, at now: Instant) {
        let call = self.calls[slot]
        if self.mustBeAlone(call) {
            self.calls.append(slot, to: &self.apart)
            self.calls[slot].state = .apart
            self.queuedCount += 1
            return self.startTimer(of: slot, at: now)
        }
        let flow = self.flow(client: Int(call.client), route: Int(call.route), priority: call.priority, makes: true)
        if atFront {
            self.calls.prepend(slot, to: &self.flows[flow].calls)
        } else {
            self.calls.append(slot, to: &self.flows[flow].calls)
        }
        self.calls[slot].state = .queued
        self.calls[slot].isStalled = false
        self.queuedCount += 1
        if !self.flows[flow].isAside { self.count(1, in: flow) }
        if self.flows[flow].calls.count == 1 { self.flows[flow].waitsSince = self.serves }
        self.startTimer(of: slot, at: now)
    }

    /// Counts more calls of a flow as waiting for workers.
    mutating func count(_ count: Int, in flow: Int) {
        let (route, level) = (self.flows[flow].route, Int(self.flows[flow].level))
        let former = self.waiting[route << 3 | level]
        self.routes[route].waitingCount += count
        self.waiting[route << 3 | level] = former + count
        guard former == 0 else { return }
        self.routes[route].waitingLevels |= 1 << UInt8(level)
        self.busy[level].insert(route)
        self.busyCounts[level] += 1
        self.busyLevels |= 1 << UInt8(level)
    }

    /// Removes a waiting call from its queue.
    mutating func takeOut(_ slot: UInt32) {
        let call = self.calls[slot]
        if call.state == .apart {
            self.queuedCount -= 1
            return self.calls.unlink(slot, from: &self.apart)
        }
        if call.state == .held {
            self.queuedCount -= 1
            return self.calls.unlink(slot, from: &self.keys[Int(call.key)].waiting)
        }
        let flow = self.flow(client: Int(call.client), route: Int(call.route), priority: call.priority, makes: false)
        self.takeOut(slot, of: flow)
    }

    private mutating func takeOut(_ slot: UInt32, of flow: Int) {
        self.queuedCount -= 1
        self.calls.unlink(slot, from: &self.flows[flow].calls)
        guard self.flows[flow].isAside else { return self.discount(1, in: flow) }
        if self.flows[flow].calls.count == 0, !self.flows[flow].isInHeap { self.dropFlow(flow) }
    }

    /// Counts fewer calls of a flow as waiting for workers.
    mutating func discount(_ count: Int, in flow: Int) {
        let (route, level) = (self.flows[flow].route, Int(self.flows[flow].level))
        self.waiting[route << 3 | level] -= count
        self.routes[route].waitingCount -= count
        guard self.waiting[route << 3 | level] == 0 else { return }
        // Only flows that are empty or put aside are left in the heap.
        while let band = self.queues[route << 3 | level].popAny() {
            while let other = self.bands[band].flows.popAny() { self.leftHeap(other) }
            self.dropBand(band)
        }
        self.routes[route].waitingLevels &= ~(1 << UInt8(level))
        self.busy[level].remove(route)
        self.busyCounts[level] -= 1
        if self.busyCounts[level] == 0 { self.busyLevels &= ~(1 << UInt8(level)) }
        if self.routes[route].waitingCount == 0 { self.endReservation(of: route) }
    }

    /// Starts a waiting call's timer: for its deadline, or, if no worker may run it, for the end of the patience.
    mutating func startTimer(of slot: UInt32, at now: Instant) {
        let call = self.calls[slot]
        var due = call.deadline
        if self.routes[Int(call.route)].workerCount == 0 {
            due = min(due, now.advanced(byNanoseconds: self.configuration.patienceNanoseconds))
        }
        if due != .distantFuture { self.wheel.schedule(slot, at: due) }
    }

    /// The least loaded worker with room for a call of the route.
    mutating func choose(_ route: Int, _ priority: UInt8) -> Int? {
        guard self.routes[route].workerCount > 0 else { return nil }
        guard self.routes[route].hasResources || self.closedCount > 0 else {
            return self.loads.choose(from: self.workersOf[route]) { _ in true }
        }
        // The list is taken out meanwhile, because the search changes it and reads the workers.
        var loads = self.loads
        let worker = loads.choose(from: self.workersOf[route]) {
            !self.isClosed($0, for: route) && self.hasLeft($0, for: route, Int(priority))
        }
        self.loads = loads
        return worker
    }

    /// Whether a worker has enough resources left for a call of the route.
    private func hasLeft(_ worker: Int, for route: Int, _ priority: Int) -> Bool {
        guard self.routes[route].hasResources else { return true }
        let resources = self.demandsOf[route].resources
        guard self.workers[worker].hasLeft(resources) else { return false }
        let reserved = self.workers[worker].reservedRoute
        guard reserved >= 0, reserved != route, priority <= self.workers[worker].reservedPriority else { return true }
        return !self.demandsOf[reserved].resources.contains { $0.value > 0 && resources[$0.key, default: 0] > 0 }
    }

    /// Takes the next call for a worker out of its flow: by priority, then by the clients' turns.
    private mutating func pick(for worker: Int) -> UInt32? {
        var levels = self.busyLevels
        while levels != 0 {
            let priority = 7 - levels.leadingZeroBitCount
            levels &= ~(1 << UInt8(priority))
            if let flow = self.search(priority, for: worker) { return self.serve(flow, by: worker) }
        }
        return nil
    }

    /// How many routes with suitable calls are compared.
    private static var comparedRoutes: Int { 16 }

    /// The flow of a priority whose turn it is.
    ///
    /// Among very many routes only some are compared, and others the next time. The best of the previous search are
    /// compared again, so that a client whose turn it is, once found, keeps its turns.
    private mutating func search(_ priority: Int, for worker: Int) -> Int? {
        var best: FairQueue.Turn?
        var favourites = (-1, -1)
        var compared = 0
        let former = self.workers[worker].favourites
        func isFormer(_ route: Int) -> Bool { route == former.0 || route == former.1 }
        func isCandidate(_ route: Int, _ machine: borrowing Self) -> Bool {
            route >= 0 && machine.busy[priority].contains(route) && machine.workers[worker].routes.contains(route)
        }
        if isCandidate(former.0, self) {
            self.compare(former.0, priority, for: worker, &best, &favourites, &compared)
        }
        if former.1 != former.0, isCandidate(former.1, self) {
            self.compare(former.1, priority, for: worker, &best, &favourites, &compared)
        }
        let reserved = self.workers[worker].reservedRoute
        if !isFormer(reserved), isCandidate(reserved, self) {
            self.compare(reserved, priority, for: worker, &best, &favourites, &compared)
        }
        let start = self.workers[worker].cursor
        var (cursor, hasWrapped) = (start, start == 0)
        while compared < Self.comparedRoutes {
            let next = self.busy[priority].first(from: cursor, sharedWith: self.workers[worker].routes)
            guard let route = next, !hasWrapped || start == 0 || route < start else {
                if hasWrapped { break }
                (cursor, hasWrapped) = (0, true)
                continue
            }
            if !isFormer(route), route != reserved {
                self.compare(route, priority, for: worker, &best, &favourites, &compared)
            }
            cursor = route + 1
        }
        self.workers[worker].cursor = compared < Self.comparedRoutes ? 0 : cursor
        self.workers[worker].favourites = favourites
        return best?.flow.index
    }

    private mutating func compare(
        _ route: Int,
        _ priority: Int,
        for worker: Int,
        _ best: inout FairQueue.Turn?,
        _ favourites: inout (Int, Int),
        _ compared: inout Int
    ) {
        guard !self.isClosed(worker, for: route), let turn = self.settleTop(route, priority, for: worker)
        else { return }
        guard self.hasLeft(worker, for: route, priority) else {
            return self.reserve(worker, for: route, priority, since: self.flows[turn.flow.index].waitsSince)
        }
        compared += 1
        if let current = best, !(turn < current) {
            if favourites.1 < 0 { favourites.1 = route }
        } else {
            favourites = (route, favourites.0)
            best = turn
        }
    }

    /// Takes the first call out of a flow whose turn it is.
    private mutating func serve(_ flow: Int, by worker: Int) -> UInt32 {
        let (client, slot) = (self.flows[flow].client, self.flows[flow].calls.first)
        let (tenant, band) = (self.clients[client].tenant, self.flows[flow].band)
        if self.tenants[tenant].isNamed {
            let isLowest = self.queues[self.bands[band].key].count <= Self.comparedTenants
            self.turns[worker << 3 | Int(self.flows[flow].level)].serve(tenant, isLowest: isLowest)
        } else {
            // A tenant or client that could not be served for long has no claim to all the turns it missed.
            let pass = max(self.tenants[tenant].pass, self.virtualTime - min(self.virtualTime, 16))
            self.virtualTime = max(self.virtualTime, pass)
            self.tenants[tenant].pass = pass + 1
        }
        let inner = self.tenants[tenant].virtualTime
        let clientPass = max(self.clients[client].pass, inner - min(inner, 16))
        self.tenants[tenant].virtualTime = max(inner, clientPass)
        self.clients[client].pass = clientPass + 1
        self.serves += 1
        self.bands[band].served = self.serves
        self.flows[flow].served = self.serves
        self.flows[flow].waitsSince = self.serves
        self.endReservation(of: self.flows[flow].route)
        self.takeOut(slot, of: flow)
        return slot
    }

    /// Finds the band that goes next at a worker, and brings the flow that goes next to the top of the band's heap.
    private mutating func settleTop(_ route: Int, _ priority: Int, for worker: Int) -> FairQueue.Turn? {
        let queue = route << 3 | priority
        if let first = self.queues[queue].top, self.tenants[self.bands[first.index].tenant].isNamed {
            return self.leastServed(queue, by: worker << 3 | priority)
        }
        while let top = self.queues[queue].top {
            let (tenant, served) = (self.bands[top.index].tenant, self.bands[top.index].served)
            let pass = self.tenants[tenant].pass
            guard top.pass == pass, top.served == served else {
                self.queues[queue].replaceTop(pass: pass, served: served)
                continue
            }
            if let flow = self.settleTop(ofBand: top.index) {
                return FairQueue.Turn(tenant: tenant, band: top, flow: flow)
            }
            self.queues[queue].removeTop()
            self.dropBand(top.index)
        }
        return nil
    }

    /// How many tenants of a route are compared at once; if there are more, others are compared the next time.
    private static var comparedTenants: Int { 128 }

    /// Finds whose turn it is by what the worker has done for each tenant: that differs between workers, so no heap can
    /// order it.
    private mutating func leastServed(_ queue: Int, by turns: Int) -> FairQueue.Turn? {
        while true {
            let count = self.queues[queue].count
            guard count > 0 else { return nil }
            var place = count > Self.comparedTenants ? Int(self.serves % UInt64(count)) : 0
            var (least, best) = (place, FairQueue.Entry(pass: .max, served: .max, index: -1))
            for _ in 0..<min(count, Self.comparedTenants) {
                let band = self.queues[queue][place]
                let entry = FairQueue.Entry(
                    pass: self.turns[turns].pass(of: self.bands[band].tenant),
                    served: self.bands[band].served,
                    index: band
                )
                if entry < best { (least, best) = (place, entry) }
                place = place + 1 == count ? 0 : place + 1
            }
            if let flow = self.settleTop(ofBand: best.index) {
                return FairQueue.Turn(tenant: self.bands[best.index].tenant, band: best, flow: flow)
            }
            self.queues[queue].remove(at: least)
            self.dropBand(best.index)
        }
    }

    private mutating func settleTop(ofBand band: Int) -> FairQueue.Entry? {
        while let top = self.bands[band].flows.top {
            let flow = self.flows[top.index]
            if flow.calls.count == 0 || flow.isAside {
                self.bands[band].flows.removeTop()
                self.leftHeap(top.index)
                continue
            }
            let pass = self.clients[flow.client].pass
            if top.pass == pass, top.served == flow.served { return top }
            self.bands[band].flows.replaceTop(pass: pass, served: flow.served)
        }
        return nil
    }

    // MARK: Reservations

    /// How many other calls may be sent before a resource is reserved for a call that needs much of it.
    private static var reservationPatience: UInt64 { 64 }

    /// Reserves the resources that a call has waited for too long: otherwise calls that need less would always find
    /// some, and this call would never find enough.
    private mutating func reserve(_ worker: Int, for route: Int, _ priority: Int, since: UInt64) {
        guard self.serves - since > Self.reservationPatience, self.workers[worker].reservedRoute < 0,
            self.routes[route].reservedWorker < 0
        else { return }
        self.workers[worker].reservedRoute = route
        self.workers[worker].reservedPriority = priority
        self.routes[route].reservedWorker = worker
    }

    mutating func endReservation(of route: Int) {
        let worker = self.routes[route].reservedWorker
        guard worker >= 0 else { return }
        self.routes[route].reservedWorker = -1
        self.workers[worker].reservedRoute = -1
    }

    private mutating func assign(_ slot: UInt32, to worker: Int, at now: Instant, actions: inout [BrokerAction]) {
        self.lastID += 1
        let id = self.lastID
        let route = Int(self.calls[slot].route)
        let isBehind = self.workers[worker].occupying >= self.workers[worker].offer.concurrency
        if self.workers[worker].calls.count == 0 { self.workers[worker].progressAt = now }
        if isBehind, !self.stallWheel.isScheduled(UInt32(worker)) {
            self.stallWheel.schedule(
                UInt32(worker),
                at: now.advanced(byNanoseconds: self.configuration.stallNanoseconds)
            )
        }
        let planned = self.routes[route].run.nanoseconds ?? self.workers[worker].plannedOfUnknown
        let record = Sent(slot: slot, isBehind: isBehind, plannedNanoseconds: planned, at: now)
        self.workers[worker].plannedNanoseconds += record.plannedNanoseconds
        _ = self.sent.insert(id, record)
        self.wheel.cancel(slot)
        self.calls[slot].state = .sent
        self.calls[slot].isStalled = false
        self.calls[slot].isStarted = false
        self.calls[slot].worker = Int32(worker)
        self.calls[slot].workerID = id
        if self.calls[slot].sends < .max { self.calls[slot].sends += 1 }
        self.calls[slot].isRecalled = false
        if self.calls[slot].isUnserved {
            self.calls[slot].isUnserved = false
            actions.append(.tellServed(client: Int(self.calls[slot].client), id: self.calls[slot].id, isServed: true))
        }
        self.calls.append(slot, to: &self.workers[worker].calls)
        if self.routes[route].hasResources { self.workers[worker].occupy(self.demandsOf[route].resources) }
        let function = self.routes[route].function
        if !self.workers[worker].defined.contains(function) {
            self.workers[worker].defined.insert(function)
            actions.append(.define(worker: worker, function: function))
        }
        self.loads.update(worker, in: &self.workers)
        actions.append(.transmit(slot: slot, worker: worker, id: id, isResent: false))
    }

    /// Takes a call back from its worker.
    ///
    /// - Parameters:
    ///   - slot: The call.
    ///   - now: The time.
    ///   - backAt: When the worker returned it, if it was asked to.
    mutating func takeBack(_ slot: UInt32, at now: Instant, backAt: Instant? = nil) {
        let call = self.calls[slot]
        let worker = Int(call.worker)
        if let entry = self.sent.slot(of: call.workerID) {
            self.workers[worker].plannedNanoseconds -= self.sent[entry].plannedNanoseconds
            self.sent.remove(entry)
        }
        if call.hold != .none { self.endHold(slot, backAt: backAt) }
        self.calls.unlink(slot, from: &self.workers[worker].calls)
        let route = Int(call.route)
        if self.routes[route].hasResources { self.workers[worker].vacate(self.demandsOf[route].resources) }
        self.calls[slot].worker = -1
        self.calls[slot].workerID = 0
        if self.workers[worker].alone == slot { self.endSolitude(of: worker, at: now) }
        self.loads.update(worker, in: &self.workers)
    }

    /// Adjusts a worker's credit to the measurements.
    mutating func adapt(_ worker: Int, actions: inout [BrokerAction]) {
        let slots = self.workers[worker].offer.concurrency
        let wanted = self.workers[worker].meter
            .credit(
                concurrency: slots,
                coverageNanoseconds: self.workers[worker].coverageNanoseconds
            )
        let bound = max(1, min(self.workers[worker].window, max(slots, self.configuration.maxCredit)))
        // Credit falls at once, and rises step by step.
        let credit = min(wanted, bound, max(self.workers[worker].credit * 2, slots))
        guard credit != self.workers[worker].credit else { return }
        self.workers[worker].credit = credit
        self.loads.update(worker, in: &self.workers)
        let announced = self.workers[worker].announcedCredit
        if credit >= 2 * announced || credit <= slots || 2 * credit <= announced {
            self.announce(worker, actions: &actions)
        }
    }

    /// Tells a worker its credit, and how many calls wait for it.
    mutating func announce(_ worker: Int, actions: inout [BrokerAction]) {
        guard self.workers[worker].isOpen else { return }
        let waiting = self.waitingCount(for: worker)
        self.workers[worker].announcedWaiting = waiting > 0
        self.workers[worker].announcedCredit = self.workers[worker].credit
        actions.append(.sendCredit(worker: worker, credit: self.workers[worker].credit, waiting: waiting))
    }

    /// How many waiting calls a worker could take.
    func waitingCount(for worker: Int) -> Int {
        var waiting = 0
        for level in self.busy.indices where self.busyCounts[level] > 0 {
            var next = self.busy[level].first(from: 0, sharedWith: self.workers[worker].routes)
            while let route = next {
                if !self.isClosed(worker, for: route) { waiting += self.waiting[route << 3 | level] }
                next = self.busy[level].first(from: route + 1, sharedWith: self.workers[worker].routes)
            }
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
            let tenant = self.clients[client].tenant
            let level = min(priority, self.tenants[tenant].quotas.level)
            var flow = Flow(client: client, route: route, priority: priority, level: level)
            flow.isAside = self.clients[client].isHeldUp
            flow.isInHeap = !flow.isAside
            if let free = self.freeFlows.popLast() {
                index = free
                self.flows[index] = flow
            } else {
                index = self.flows.count
                self.flows.append(flow)
            }
            self.clients[client].flows[key] = index
            self.clients[client].pass = max(self.clients[client].pass, self.tenants[tenant].virtualTime)
            if flow.isInHeap { self.putInHeap(index) }
        }
        self.clients[client].lastFlow = (key, index)
        return index
    }

    /// Adds a flow to those of its tenant that take turns.
    mutating func putInHeap(_ index: Int) {
        let flow = self.flows[index]
        let tenant = self.clients[flow.client].tenant
        let key = flow.route << 3 | Int(flow.level)
        let band = self.tenants[tenant].bands[key] ?? self.makeBand(tenant, key)
        self.flows[index].band = band
        let entry = FairQueue.Entry(
            pass: self.clients[flow.client].pass,
            served: flow.served,
            index: index,
            rank: FairQueue.highestPriority - flow.priority
        )
        self.bands[band].flows.insert(entry)
    }

    private mutating func makeBand(_ tenant: Int, _ key: Int) -> Int {
        let band = self.freeBands.popLast() ?? self.bands.count
        if band == self.bands.count {
            self.bands.append(Band(tenant: tenant, key: key))
        } else {
            // Its heap is empty but keeps its memory: bands come and go whenever calls have to wait for a moment.
            self.bands[band].tenant = tenant
            self.bands[band].key = key
            self.bands[band].served = 0
        }
        self.tenants.band(band, at: key, of: tenant)
        if !self.tenants[tenant].isNamed {
            self.tenants[tenant].pass = max(self.tenants[tenant].pass, self.virtualTime)
        }
        self.queues[key].insert(FairQueue.Entry(pass: self.tenants[tenant].pass, served: 0, index: band))
        return band
    }

    /// Frees a band without flows that was taken out of its heap.
    private mutating func dropBand(_ band: Int) {
        self.tenants.band(nil, at: self.bands[band].key, of: self.bands[band].tenant)
        self.freeBands.append(band)
    }

    /// Notes that a flow in which no call waits for a worker was taken out of its heap.
    private mutating func leftHeap(_ index: Int) {
        guard self.flows[index].isAside, self.flows[index].calls.count > 0 else { return self.dropFlow(index) }
        self.flows[index].isInHeap = false
    }

    private mutating func dropFlow(_ index: Int) {
        let flow = self.flows[index]
        self.freeFlows.append(index)
        guard flow.client >= 0 else { return }
        self.clients[flow.client].flows[flow.route << 3 | Int(flow.priority)] = nil
        self.clients[flow.client].lastFlow = (-1, -1)
    }
}
