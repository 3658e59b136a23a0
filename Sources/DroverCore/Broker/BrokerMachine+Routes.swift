// SPDX-License-Identifier: Apache-2.0

/// Function names and routes, as long as somebody uses them.
extension BrokerMachine {
    /// A client gave a function a number.
    ///
    /// - Returns: False if there are too many.
    package mutating func defined(_ number: UInt32, name: String, by client: Int) -> Bool {
        guard Int(number) < self.configuration.maxFunctions, let function = self.use(name) else { return false }
        while self.clients[client].functions.count <= Int(number) { self.clients[client].functions.append(-1) }
        let former = self.clients[client].functions[Int(number)]
        self.clients[client].functions[Int(number)] = function
        if former >= 0 { self.leave(former) }
        return true
    }

    func function(_ number: UInt32, of client: Int) -> Int? {
        guard Int(number) < self.clients[client].functions.count else { return nil }
        let function = self.clients[client].functions[Int(number)]
        return function < 0 ? nil : function
    }

    /// The number of a name, which is one use more of it; nil if there are too many.
    mutating func use(_ name: String) -> Int? {
        if let known = self.functionOf[name] {
            self.functions[known].useCount += 1
            return known
        }
        if self.functionOf.count >= self.configuration.maxFunctions { self.sweepRoutes() }
        guard self.functionOf.count < self.configuration.maxFunctions else { return nil }
        let index = self.freeFunctions.popLast() ?? self.functions.count
        if index == self.functions.count { self.functions.append(FunctionEntry(name: name)) }
        self.functions[index] = FunctionEntry(name: name, useCount: 1)
        self.functionOf[name] = index
        return index
    }

    /// One use less of a function's name.
    mutating func leave(_ function: Int) {
        self.functions[function].useCount -= 1
        guard self.functions[function].useCount == 0 else { return }
        self.functionOf[self.functions[function].name] = nil
        self.freeFunctions.append(function)
        // The number will stand for another name.
        for worker in self.workers.indices { self.workers[worker].defined.remove(function) }
    }

    /// The route of calls with these demands; nil if there are too many.
    mutating func route(of function: Int, demands: Demands?, at now: Instant) -> Int? {
        if demands == nil, self.functions[function].plainRoute >= 0 { return self.functions[function].plainRoute }
        let key = RouteKey(function: function, demands: demands ?? Demands())
        if let known = self.routeOf[key] { return known }
        if self.routeOf.count >= self.configuration.maxRoutes { self.sweepRoutes() }
        guard self.routeOf.count < self.configuration.maxRoutes else { return nil }
        let index = self.freeRoutes.popLast() ?? self.routes.count
        let route = CallRoute(function: function, hasResources: !key.demands.resources.isEmpty)
        if index == self.routes.count {
            self.routes.append(route)
            self.demandsOf.append(key.demands)
            self.workersOf.append(NumberSet())
            self.queues += repeatElement(FairQueue(), count: Int(FairQueue.highestPriority) + 1)
            self.waiting += repeatElement(0, count: Int(FairQueue.highestPriority) + 1)
        } else {
            self.routes[index] = route
            self.demandsOf[index] = key.demands
        }
        self.routeOf[key] = index
        self.functions[function].useCount += 1
        if key.demands == Demands() { self.functions[function].plainRoute = index }
        for worker in self.workers.indices where self.workers[worker].isLive { self.match(worker, index, at: now) }
        return index
    }

    /// Forgets the routes that no call uses.
    package mutating func sweepRoutes() {
        for index in self.routes.indices {
            let route = self.routes[index]
            guard route.isLive, route.callCount == 0 else { continue }
            let key = RouteKey(function: route.function, demands: self.demandsOf[index])
            self.routeOf[key] = nil
            self.routes[index].isLive = false
            self.workersOf[index] = NumberSet()
            self.freeRoutes.append(index)
            for worker in self.workers.indices { self.workers[worker].routes.remove(index) }
            if self.functions[key.function].plainRoute == index { self.functions[key.function].plainRoute = -1 }
            self.leave(key.function)
        }
    }

    /// Notes whether a worker may take the calls of a route.
    mutating func match(_ worker: Int, _ index: Int, at now: Instant) {
        guard self.routes[index].isLive else { return }
        // One that has yet to answer the introduction is no worker that a call could wait for.
        let matches =
            self.workers[worker].isLive && self.workers[worker].sessionNumber != 0
            && self.workers[worker].offers.contains(self.routes[index].function)
            && self.workers[worker].offer.satisfies(self.demandsOf[index])
        let matched = self.workers[worker].routes.contains(index)
        if matches, !matched {
            self.workers[worker].routes.insert(index)
            self.workersOf[index].insert(worker)
            self.routes[index].workerCount += 1
        } else if !matches, matched {
            self.workers[worker].routes.remove(index)
            self.workersOf[index].remove(worker)
            self.routes[index].workerCount -= 1
            if self.workers[worker].reservedRoute == index { self.endReservation(of: index) }
            if self.routes[index].workerCount == 0 { self.startPatience(of: index, at: now) }
        }
    }

    /// The last worker for a route is gone: its calls wait for another one only so long.
    private mutating func startPatience(of route: Int, at now: Instant) {
        guard self.routes[route].callCount > 0 else { return }
        for level in 0...Int(FairQueue.highestPriority) {
            for flow in self.queues[route << 3 | level].flows {
                var slot = self.flows[flow].calls.first
                while slot != CallSlab.none {
                    self.startTimer(of: slot, at: now)
                    slot = self.calls[slot].next
                }
            }
        }
        for key in self.keyOf.values.sorted() {
            var slot = self.keys[Int(key)].waiting.first
            while slot != CallSlab.none {
                if Int(self.calls[slot].route) == route { self.startTimer(of: slot, at: now) }
                slot = self.calls[slot].next
            }
        }
    }
}
