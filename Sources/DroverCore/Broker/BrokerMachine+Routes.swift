// SPDX-License-Identifier: Apache-2.0

/// Function names and routes, kept as long as they are in use.
extension BrokerMachine {
    /// For how many of a client's numbers a refused name is kept, to be accepted once there is room.
    private static var refusedNames: Int { 64 }

    /// A client gave a function a number.
    ///
    /// - Returns: False if there are too many: requests with this number then end with an error that says so.
    package mutating func defined(_ number: UInt32, name: String, by client: Int) -> Bool {
        guard Int(number) < self.configuration.maxFunctions else { return false }
        while self.clients[client].functions.count <= Int(number) {
            self.clients[client].functions.append(BrokerClient.undefinedFunction)
        }
        let former = self.clients[client].functions[Int(number)]
        let tenant = self.clients[client].tenant
        if former >= 0 {
            self.clients[client].functionCount -= 1
            self.tenants.add(-1, \.names, of: tenant)
            self.leave(former)
        }
        self.clients[client].refusedNames[number] = nil
        guard let function = self.use(name, own: self.tenants[used: tenant].names) else {
            self.clients[client].functions[Int(number)] = BrokerClient.refusedFunction
            if self.clients[client].refusedNames.count < Self.refusedNames {
                self.clients[client].refusedNames[number] = name
            }
            return false
        }
        self.clients[client].functions[Int(number)] = function
        self.clients[client].functionCount += 1
        self.tenants.add(1, \.names, of: tenant)
        return true
    }

    /// A client gave a number to something that can't be a function's name.
    package mutating func refusedName(_ number: UInt32, of client: Int) {
        guard Int(number) < self.configuration.maxFunctions else { return }
        while self.clients[client].functions.count <= Int(number) {
            self.clients[client].functions.append(BrokerClient.undefinedFunction)
        }
        if self.clients[client].functions[Int(number)] < 0 {
            self.clients[client].functions[Int(number)] = BrokerClient.refusedFunction
        }
    }

    /// The name that a client gave a number; nil if it gave none, or one that can't be a function's name.
    package func functionName(_ number: UInt32, of client: Int) -> String? {
        guard Int(number) < self.clients[client].functions.count else { return nil }
        let function = self.clients[client].functions[Int(number)]
        return function >= 0 ? self.functions[function].name : self.clients[client].refusedNames[number]
    }

    /// What a client's number for a function stands for.
    enum FunctionFinding { case known(Int), undefined, tooMany }

    mutating func function(_ number: UInt32, of client: Int) -> FunctionFinding {
        guard Int(number) < self.configuration.maxFunctions else { return .tooMany }
        guard Int(number) < self.clients[client].functions.count else { return .undefined }
        let function = self.clients[client].functions[Int(number)]
        if function >= 0 { return .known(function) }
        guard function == BrokerClient.refusedFunction else { return .undefined }
        // There may be room by now.
        guard let name = self.clients[client].refusedNames[number], self.defined(number, name: name, by: client) else {
            return .tooMany
        }
        return .known(self.clients[client].functions[Int(number)])
    }

    /// Adds one use of a name and returns its index; nil if there are too many names.
    ///
    /// The tenant already uses `own` names; those that workers offer are bounded by their numbers.
    mutating func use(_ name: String, own: Int) -> Int? {
        if let known = self.functionOf[name] {
            self.functions[known].useCount += 1
            return known
        }
        if self.functionOf.count >= self.configuration.maxNames, self.idleRoutes > 0 { self.sweepRoutes() }
        guard self.mayAdd(own: own, total: self.functionOf.count, limit: self.configuration.maxNames) else {
            return nil
        }
        let index = self.freeFunctions.popLast() ?? self.functions.count
        if index == self.functions.count { self.functions.append(FunctionEntry(name: name)) }
        self.functions[index] = FunctionEntry(name: name, useCount: 1)
        self.functionOf[name] = index
        return index
    }

    /// Drops one use of a function's name.
    mutating func leave(_ function: Int) {
        self.functions[function].useCount -= 1
        guard self.functions[function].useCount == 0 else { return }
        self.functionOf[self.functions[function].name] = nil
        self.freeNumber(of: function)
        self.functions[function] = FunctionEntry(name: "")
        self.freeFunctions.append(function)
    }

    // MARK: Function numbers for workers

    /// Whether there are numbers for the functions of an offer that no worker has offered yet.
    package mutating func hasNumbers(for offer: WorkerOffer) -> Bool {
        let new = Set(offer.functions)
            .count { name in
                self.functionOf[name].map { self.functions[$0].number < 0 } ?? true
            }
        if new > self.freeNumberCount { self.sweepNumbers() }
        return new <= self.freeNumberCount
    }

    private var freeNumberCount: Int {
        self.configuration.maxFunctions - self.numberCount + self.freeNumbers.count
    }

    /// Notes that one more worker offers a name; nil if there is no number for it.
    mutating func offer(_ name: String) -> Int? {
        guard let function = self.use(name, own: 0) else { return nil }
        if self.functions[function].number < 0 {
            if let free = self.freeNumbers.popLast() {
                self.functions[function].number = free
            } else if self.numberCount < self.configuration.maxFunctions {
                self.functions[function].number = self.numberCount
                self.numberCount += 1
            } else {
                self.leave(function)
                return nil
            }
        }
        self.functions[function].offerCount += 1
        return function
    }

    /// Notes that one worker fewer offers a function.
    mutating func withdraw(_ function: Int) {
        self.functions[function].offerCount -= 1
        self.leave(function)
    }

    /// Frees the numbers of functions that no worker offers and of which no call can be at a worker.
    private mutating func sweepNumbers() {
        self.sweepRoutes()
        for function in self.functions.indices
        where self.functions[function].offerCount == 0 && self.functions[function].routeCount == 0 {
            self.freeNumber(of: function)
        }
    }

    private mutating func freeNumber(of function: Int) {
        guard self.functions[function].number >= 0 else { return }
        self.freeNumbers.append(self.functions[function].number)
        self.functions[function].number = -1
        // The number will stand for another name later.
        for worker in self.workers.indices { self.workers[worker].defined.remove(function) }
    }

    // MARK: Routes

    /// The route of calls with these demands; nil if there are too many.
    mutating func route(of function: Int, demands: Demands?, for tenant: Int, at now: Instant) -> Int? {
        if demands == nil, self.functions[function].plainRoute >= 0 { return self.functions[function].plainRoute }
        let key = RouteKey(function: function, demands: demands ?? Demands())
        if let known = self.routeOf[key] { return known }
        let byteCount = key.demands.byteCount
        if !self.tenants.mayAddRoute(byteCount, for: tenant) {
            guard self.idleRoutes > 0 else { return nil }
            self.sweepRoutes()
            guard self.tenants.mayAddRoute(byteCount, for: tenant) else { return nil }
        }
        let index = self.freeRoutes.popLast() ?? self.routes.count
        var route = CallRoute(function: function, hasResources: !key.demands.resources.isEmpty)
        route.owner = tenant
        route.byteCount = byteCount
        self.tenants.add(1, \.routes, of: tenant)
        self.tenants.add(byteCount, \.routeBytes, of: tenant)
        self.idleRoutes += 1
        if byteCount > TenantBook.usualRouteBytes { self.idleRouteBytes += byteCount }
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
        self.functions[function].routeCount += 1
        if key.demands == Demands() { self.functions[function].plainRoute = index }
        for worker in self.workers.indices where self.workers[worker].isLive { self.match(worker, index) }
        return index
    }

    /// A call has entered a route.
    mutating func entered(_ route: Int) {
        self.routes[route].callCount += 1
        guard self.routes[route].callCount == 1 else { return }
        self.idleRoutes -= 1
        let byteCount = self.routes[route].byteCount
        if byteCount > TenantBook.usualRouteBytes { self.idleRouteBytes -= byteCount }
    }

    /// A call of a route has ended.
    mutating func left(_ route: Int) {
        self.routes[route].callCount -= 1
        guard self.routes[route].callCount == 0 else { return }
        self.idleRoutes += 1
        let byteCount = self.routes[route].byteCount
        if byteCount > TenantBook.usualRouteBytes { self.idleRouteBytes += byteCount }
    }

    /// Forgets routes without calls if their large demands take too much memory.
    mutating func sweepLargeRoutes() {
        if self.idleRouteBytes > Self.maxIdleRouteBytes { self.sweepRoutes() }
    }

    private static var maxIdleRouteBytes: Int { 1 << 20 }

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
            self.functions[key.function].routeCount -= 1
            self.demandsOf[index] = Demands()
            self.idleRoutes -= 1
            if route.byteCount > TenantBook.usualRouteBytes { self.idleRouteBytes -= route.byteCount }
            self.tenants.add(-route.byteCount, \.routeBytes, of: route.owner)
            self.tenants.add(-1, \.routes, of: route.owner)
            for worker in self.workers.indices { self.workers[worker].routes.remove(index) }
            if self.functions[key.function].plainRoute == index { self.functions[key.function].plainRoute = -1 }
            self.leave(key.function)
        }
    }

    /// Works out which routes' calls a worker may take.
    mutating func matchAll(_ worker: Int, at now: Instant) {
        var orphaned = NumberSet()
        for route in self.routes.indices where self.match(worker, route) { orphaned.insert(route) }
        if !orphaned.isEmpty { self.startPatience(of: orphaned, at: now) }
    }

    /// Works out whether a worker may take the calls of a route.
    ///
    /// - Returns: Whether no worker may any more while the route has calls.
    @discardableResult
    mutating func match(_ worker: Int, _ index: Int) -> Bool {
        guard self.routes[index].isLive else { return false }
        // A worker that has yet to answer the introduction isn't one that a call could wait for.
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
            return self.routes[index].workerCount == 0 && self.routes[index].callCount > 0
        }
        return false
    }

    /// The last worker for these routes is gone: their calls wait for another one only as long as the patience lasts.
    ///
    /// The routes are handled in one go, because there may be very many ordering keys.
    private mutating func startPatience(of routes: NumberSet, at now: Instant) {
        for route in self.routes.indices where routes.contains(route) {
            for level in 0...Int(FairQueue.highestPriority) {
                let bands = self.queues[route << 3 | level].indices
                for flow in bands.flatMap({ self.bands[$0].flows.indices }) {
                    var slot = self.flows[flow].calls.first
                    while slot != CallSlab.none {
                        self.startTimer(of: slot, at: now)
                        slot = self.calls[slot].next
                    }
                }
            }
        }
        for flow in self.flows.indices where self.flows[flow].isAside && routes.contains(self.flows[flow].route) {
            for slot in self.calls.slots(of: self.flows[flow].calls) { self.startTimer(of: slot, at: now) }
        }
        for slot in self.calls.slots(of: self.apart) where routes.contains(Int(self.calls[slot].route)) {
            self.startTimer(of: slot, at: now)
        }
        for key in self.keyOf.values.sorted() {
            var slot = self.keys[Int(key)].waiting.first
            while slot != CallSlab.none {
                if routes.contains(Int(self.calls[slot].route)) { self.startTimer(of: slot, at: now) }
                slot = self.calls[slot].next
            }
        }
    }
}
