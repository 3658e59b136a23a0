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
    mutating func route(of function: Int, demands: Demands?) -> Int? {
        if demands == nil, self.functions[function].plainRoute >= 0 { return self.functions[function].plainRoute }
        let key = RouteKey(function: function, demands: demands ?? Demands())
        if let known = self.routeOf[key] { return known }
        if self.routeOf.count >= self.configuration.maxRoutes { self.sweepRoutes() }
        guard self.routeOf.count < self.configuration.maxRoutes else { return nil }
        let index = self.freeRoutes.popLast() ?? self.routes.count
        if index == self.routes.count { self.routes.append(nil) }
        self.routes[index] = CallRoute(function: function, demands: key.demands)
        self.routeOf[key] = index
        self.functions[function].useCount += 1
        if key.demands == Demands() { self.functions[function].plainRoute = index }
        for worker in self.workers.indices where self.workers[worker].isLive { self.match(worker, index) }
        return index
    }

    /// Forgets the routes that no call uses.
    package mutating func sweepRoutes() {
        for (key, index) in self.routeOf where self.routes[index]?.callCount == 0 {
            self.routeOf[key] = nil
            self.routes[index] = nil
            self.freeRoutes.append(index)
            for worker in self.workers.indices { self.workers[worker].routes.remove(index) }
            if self.functions[key.function].plainRoute == index { self.functions[key.function].plainRoute = -1 }
            self.leave(key.function)
        }
    }

    /// What a worker offers has changed: finds the routes whose calls it may take.
    ///
    /// Calls of routes that have lost their last worker wait for another from now on, for as long as calls do that come
    /// when there is none.
    mutating func matchAll(_ worker: Int, at now: Instant) {
        var left: Set<Int> = []
        for route in self.routes.indices {
            let before = self.routes[route]?.workerCount ?? 0
            self.match(worker, route)
            let hasCalls = (self.routes[route]?.callCount ?? 0) > 0
            if before > 0, hasCalls, self.routes[route]?.workerCount == 0 { left.insert(route) }
        }
        guard !left.isEmpty else { return }
        for flow in self.flows where left.contains(flow.route) {
            for slot in self.calls.slots(of: flow.calls) { self.startTimer(of: slot, at: now) }
        }
        for key in self.keyOf.values {
            for slot in self.calls.slots(of: self.keys[Int(key)].waiting)
            where left.contains(Int(self.calls[slot].route)) {
                self.startTimer(of: slot, at: now)
            }
        }
    }

    /// Notes whether a worker may take the calls of a route.
    mutating func match(_ worker: Int, _ index: Int) {
        guard let route = self.routes[index] else { return }
        let matches =
            self.workers[worker].isLive && self.workers[worker].offered.contains(route.function)
            && self.workers[worker].offer.satisfies(route.demands)
        let matched = self.workers[worker].routes.contains(index)
        if matches, !matched {
            self.workers[worker].routes.insert(index)
            self.routes[index]?.workerCount += 1
        } else if !matches, matched {
            self.workers[worker].routes.remove(index)
            self.routes[index]?.workerCount -= 1
        }
    }
}
