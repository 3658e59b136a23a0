// SPDX-License-Identifier: Apache-2.0

/// Explains why a call is where it is.
extension BrokerMachine {
    /// What keeps a worker from getting a call.
    package enum Obstacle: Equatable, Sendable {
        case lacksFunction
        case servesOtherQueues(Set<String>)
        case lacksLabel(name: String, value: String, has: String?)
        case lacksResource(name: String, has: UInt64)
        case away
        case draining
        case quiet
        /// It declined a call, and has not said since that it is ready.
        case refusing
        /// It declined calls repeatedly, and gets none for a while.
        case paused
        /// It has a call that may have killed workers, and gets no other meanwhile.
        case keptForOne
        /// It gets no calls until it has none left, to be free for such a call.
        case emptied
        /// It has as many calls as the broker lets it have.
        case full(calls: Int, credit: Int)
        /// It is full, and each of its slots is held by a handler that waits for a call that waits for a slot.
        case stalled(calls: Int)
        /// It has calls of the function that wait for the function's limit.
        case atLimit(calls: Int)
        /// Other calls occupy what the call needs.
        case resourceInUse(name: String, used: UInt64, of: UInt64)
    }

    /// A call, and what keeps each worker from getting it.
    package struct Explanation: Equatable, Sendable {
        package var client: String
        package var function: String
        package var demands: Demands
        package var key: String?
        package var priority: UInt8
        package var state: BrokerCall.State
        package var deadline: Instant
        package var attempts: Int
        /// During how many worker deaths it may have been running.
        package var deaths: Int
        /// Whether it was reported as waiting for a slot held by a handler that itself waits for a call, or its handler
        /// as waiting for such a call.
        package var isStalled: Bool
        /// Whether its worker has said that it runs.
        package var isStarted: Bool
        /// What it waits for at its worker, if that is not a slot.
        package var hold: HoldReason
        /// Whether its client has left so much unread that its calls wait until it has read more.
        package var isHeldUp: Bool
        /// The worker that has it.
        package var worker: String?
        /// How many calls of its client, function, demands and priority, or of its ordering key, go first.
        package var ahead = 0
        /// Each worker, and what keeps it from getting the call; nil if nothing does.
        package var workers: [(name: String, obstacle: Obstacle?)] = []

        package static func == (lhs: Self, rhs: Self) -> Bool {
            lhs.client == rhs.client && lhs.function == rhs.function && lhs.state == rhs.state
                && lhs.worker == rhs.worker && lhs.ahead == rhs.ahead
                && lhs.workers.map(\.obstacle) == rhs.workers.map(\.obstacle)
        }
    }

    /// Explains the calls that clients know by this id, up to a maximum: ids are unique only within a client.
    package func explanations(of id: UInt64, most: Int = .max) -> [Explanation] {
        var explanations: [Explanation] = []
        for client in self.clients.indices where self.clients[client].isLive && explanations.count < most {
            guard let slot = self.clients[client].requests.find(id) else { continue }
            explanations.append(self.explanation(of: slot, client: client))
        }
        return explanations
    }

    /// Explains one call of a client.
    package func explanation(of id: UInt64, client: Int) -> Explanation? {
        self.clients[client].requests.find(id).map { self.explanation(of: $0, client: client) }
    }

    private func explanation(of slot: UInt32, client: Int) -> Explanation {
        let call = self.calls[slot]
        let (route, demands) = (self.routes[Int(call.route)], self.demandsOf[Int(call.route)])
        var explanation = Explanation(
            client: self.clients[client].name,
            function: self.functions[route.function].name,
            demands: demands,
            key: call.key == CallSlab.none ? nil : self.keys[Int(call.key)].key.name,
            priority: call.priority,
            state: call.state,
            deadline: call.deadline,
            attempts: Int(call.sends),
            deaths: Int(call.attempts),
            isStalled: call.isStalled,
            isStarted: call.isStarted,
            hold: call.hold,
            isHeldUp: self.clients[client].isHeldUp,
            worker: call.worker < 0 ? nil : self.workers[Int(call.worker)].offer.name
        )
        guard call.state != .sent else { return explanation }
        var previous = call.previous
        while previous != CallSlab.none {
            explanation.ahead += 1
            previous = self.calls[previous].previous
        }
        // One call of the key is under way, and in no list.
        if call.state == .held { explanation.ahead += 1 }
        for index in self.workers.indices where self.workers[index].isLive {
            let obstacle = self.obstacle(between: index, function: route.function, demands)
            explanation.workers.append((self.workers[index].offer.name, obstacle))
        }
        return explanation
    }

    private func obstacle(between index: Int, function: Int, _ demands: Demands) -> Obstacle? {
        let worker = self.workers[index]
        if !worker.offers.contains(function) { return .lacksFunction }
        if !worker.offer.queues.contains(demands.queue) { return .servesOtherQueues(worker.offer.queues) }
        for (name, value) in demands.labels.sorted(by: { $0.key < $1.key }) where worker.offer.labels[name] != value {
            return .lacksLabel(name: name, value: value, has: worker.offer.labels[name])
        }
        let resources = demands.resources.sorted { $0.key < $1.key }
        for (name, amount) in resources where worker.offer.resources[name, default: 0] < amount {
            return .lacksResource(name: name, has: worker.offer.resources[name, default: 0])
        }
        if !worker.isOpen { return .away }
        if worker.isDraining { return .draining }
        if worker.isQuiet { return .quiet }
        if worker.isRefusing { return .refusing }
        if worker.isPaused { return .paused }
        if worker.alone != nil { return .keptForOne }
        if worker.solitude.isEmptied { return .emptied }
        if worker.held.isClosed(function) { return .atLimit(calls: worker.held.count) }
        if worker.occupying >= worker.credit, worker.isStalled { return .stalled(calls: worker.outstanding) }
        if worker.occupying >= worker.credit { return .full(calls: worker.occupying, credit: worker.credit) }
        for (name, amount) in resources {
            let (has, used) = (worker.offer.resources[name, default: 0], worker.used[name, default: 0])
            if used > has - amount { return .resourceInUse(name: name, used: used, of: has) }
        }
        return nil
    }
}
