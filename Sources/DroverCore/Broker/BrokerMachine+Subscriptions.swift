// SPDX-License-Identifier: Apache-2.0

package import DroverWire

/// What a worker's subscription number stands for.
struct BrokerBinding: Equatable, Sendable {
    var client: Int
    var subscription: UInt32
    /// The next number that the worker should use.
    var expected: UInt64 = 0
    /// Whether the worker has restated it since its last welcome.
    var isConfirmed = true
}

/// A client's callback that workers have bound.
struct BrokerSubscription: Equatable, Sendable {
    /// The next number for the client.
    var next: UInt64 = 0
    /// The workers that bound it, each with the number it uses.
    var bindings: [Int: UInt32] = [:]
    /// Whether the client last asked for a pause; nil if it said nothing.
    var isPaused: Bool?
    /// Whether a worker has ended it, and the client has yet to acknowledge that.
    var isEnded = false
}

/// Events and invocations, from workers to clients.
extension BrokerMachine {
    /// Where an event or an invocation is forwarded to.
    package struct Delivery: Equatable, Sendable {
        package var client: Int
        package var subscription: UInt32
        /// The number that the event has for the client, or the invocation's id.
        package var id: UInt64
    }

    /// Whether a worker has answered the introduction.
    ///
    /// Anything it says about callbacks before that belongs to an earlier session with the broker, whose numbers stood
    /// for other callbacks: it must be ignored.
    package func isInSession(_ worker: Int) -> Bool { self.workers[worker].sessionNumber != 0 }

    /// A worker gave a client's subscription a number, or states it again after a welcome.
    ///
    /// - Returns: False if the client isn't here, if the subscription has ended, if there are too many, or if the
    ///   number can't be a subscription's: the worker is then told that the subscription is over.
    package mutating func bound(
        _ number: UInt32,
        to name: UInt64,
        of client: PeerID,
        by worker: Int,
        actions: inout [BrokerAction]
    ) -> Bool {
        // A truncated number would be another callback's.
        guard let subscription = UInt32(exactly: name) else { return false }
        let index = self.clientOf[client]
        if let known = self.workers[worker].bindings[number] {
            guard known.client == index, known.subscription == subscription else { return false }
            self.workers[worker].bindings[number]?.isConfirmed = true
            return true
        }
        // The number was bound before and has ended, but the worker hasn't learned of it.
        guard UInt64(number) >= self.workers[worker].nextBinding else { return false }
        self.workers[worker].nextBinding = UInt64(number) + 1
        guard let index, self.workers[worker].bindings.count < self.configuration.maxBindings else { return false }
        guard
            self.clients[index].subscriptions.count < self.configuration.maxBindings
                || self.clients[index].subscriptions[subscription] != nil
        else { return false }
        if self.clients[index].subscriptions[subscription]?.isEnded == true {
            actions.append(.endClientSubscription(client: index, subscription: subscription))
            return false
        }
        // The client ended the subscription before the worker had read the request that carried it.
        if self.clients[index].callbacks.hasEnded(subscription) { return false }
        // Each worker has one number for it: a second one would outlive the subscription, and the client.
        if let former = self.clients[index].subscriptions[subscription]?.bindings[worker] {
            self.unbind(former, of: worker)
        }
        self.workers[worker].bindings[number] = BrokerBinding(client: index, subscription: subscription)
        self.clients[index].subscriptions[subscription, default: BrokerSubscription()].bindings[worker] = number
        if self.clients[index].callbacks.takePause(of: subscription) {
            self.clients[index].subscriptions[subscription]?.isPaused = true
        }
        return true
    }

    /// A worker sent an event; returns nil if its subscription is not bound.
    package mutating func eventReceived(_ number: UInt32, sequence: UInt64, from worker: Int) -> Delivery? {
        self.advance(number, to: sequence, of: worker)
    }

    /// A worker invokes a callback; returns nil if its subscription is not bound, or too many invocations are
    /// unanswered.
    package mutating func invocationReceived(_ number: UInt32, id: UInt64, from worker: Int) -> Delivery? {
        guard let binding = self.workers[worker].bindings[number],
            self.mayAdd(
                own: self.workers[worker].invocationCount,
                total: self.invocations.count,
                limit: self.configuration.maxInvocations
            ),
            var delivery = self.advance(number, to: binding.expected, of: worker)
        else { return nil }
        self.lastInvocation += 1
        let connection = self.clients[binding.client].connection
        let invocation = Invocation(client: binding.client, worker: worker, id: id, connection: connection)
        _ = self.invocations.insert(self.lastInvocation, invocation)
        self.workers[worker].invocationCount += 1
        delivery.id = self.lastInvocation
        return delivery
    }

    /// A client answered an invocation; returns nil if the client has no such invocation.
    package mutating func invocationAnswered(_ id: UInt64, by client: Int) -> (worker: Int, id: UInt64)? {
        guard let slot = self.invocations.slot(of: id), self.invocations[slot].client == client else { return nil }
        let invocation = self.invocations.remove(slot)
        self.workers[invocation.worker].invocationCount -= 1
        return (invocation.worker, invocation.id)
    }

    /// The worker's own ids of its unanswered invocations.
    package func invocations(of worker: Int) -> [UInt64] {
        self.invocationSlots { $0.worker == worker }.map { $0.1.id }
    }

    /// A client whose session was resumed says that it is working on an invocation.
    package mutating func isPending(_ id: UInt64, from client: Int) {
        guard let slot = self.invocations.slot(of: id), self.invocations[slot].client == client else { return }
        self.invocations[slot].connection = self.clients[client].connection
    }

    /// A client has listed all invocations that it is working on.
    ///
    /// Any others that were sent over an earlier connection were lost with it, or their answers were: they will never
    /// be answered.
    package mutating func endLostInvocations(of client: Int, actions: inout [BrokerAction]) {
        let connection = self.clients[client].connection
        let lost = self.invocationSlots { $0.client == client && $0.connection != connection }
        for (slot, invocation) in lost {
            self.invocations.remove(slot)
            self.workers[invocation.worker].invocationCount -= 1
            actions.append(.failInvocation(worker: invocation.worker, id: invocation.id, isLost: true))
        }
    }

    /// A client ended a subscription.
    package mutating func endedReceived(_ subscription: UInt32, from client: Int, actions: inout [BrokerAction]) {
        self.endBindings(subscription, of: client, actions: &actions)
        self.clients[client].subscriptions[subscription] = nil
        self.remember(of: client) { $0.ended(subscription) }
    }

    /// Remembers what a client said about a callback; once there are too many notices, the oldest is forgotten and
    /// counted.
    private mutating func remember(of client: Int, _ change: (inout CallbackMemory<UInt32>) -> Void) {
        let before = self.clients[client].callbacks.forgottenCount
        change(&self.clients[client].callbacks)
        self.forgottenNews += self.clients[client].callbacks.forgottenCount - before
    }

    private mutating func endBindings(_ subscription: UInt32, of client: Int, actions: inout [BrokerAction]) {
        let bindings = self.clients[client].subscriptions[subscription]?.bindings ?? [:]
        self.clients[client].subscriptions[subscription]?.bindings = [:]
        for (worker, number) in bindings.sorted(by: { $0.key < $1.key }) {
            self.workers[worker].bindings[number] = nil
            actions.append(.endSubscription(worker: worker, number: number))
        }
    }

    /// A worker ended a subscription; returns nil if it isn't bound.
    ///
    /// The news may not reach the client, which must not mistake another worker's numbers for the earlier ones: the
    /// subscription is remembered until the client has ended it as well.
    package mutating func endedReceived(_ number: UInt32, by worker: Int, actions: inout [BrokerAction]) -> Delivery? {
        guard let binding = self.workers[worker].bindings[number] else { return nil }
        self.unbind(number, of: worker)
        self.endBindings(binding.subscription, of: binding.client, actions: &actions)
        self.clients[binding.client].subscriptions[binding.subscription]?.isEnded = true
        return Delivery(client: binding.client, subscription: binding.subscription, id: 0)
    }

    /// A client asks to pause a subscription's events, or to resume them.
    package mutating func flowReceived(
        _ subscription: UInt32,
        isPaused: Bool,
        from client: Int,
        actions: inout [BrokerAction]
    ) {
        // The request holds for later workers too, even if all that had bound the subscription are gone, or none has
        // yet.
        guard self.clients[client].subscriptions[subscription] != nil else {
            return self.remember(of: client) { $0.flow(subscription, isPaused: isPaused) }
        }
        self.clients[client].subscriptions[subscription]?.isPaused = isPaused
        let bindings = self.clients[client].subscriptions[subscription]?.bindings ?? [:]
        for (worker, number) in bindings.sorted(by: { $0.key < $1.key }) {
            actions.append(.sendFlow(worker: worker, number: number, isPaused: isPaused))
        }
    }

    /// Whether the client has paused a subscription that was just bound: the worker must then be told.
    package func isPaused(_ number: UInt32, of worker: Int) -> Bool {
        guard let binding = self.workers[worker].bindings[number] else { return false }
        return self.clients[binding.client].subscriptions[binding.subscription]?.isPaused ?? false
    }

    /// Restates pauses, since earlier messages may have been lost with a connection.
    func restateFlow(of worker: Int, actions: inout [BrokerAction]) {
        for (number, binding) in self.workers[worker].bindings.sorted(by: { $0.key < $1.key }) {
            guard let isPaused = self.clients[binding.client].subscriptions[binding.subscription]?.isPaused else {
                continue
            }
            actions.append(.sendFlow(worker: worker, number: number, isPaused: isPaused))
        }
    }

    mutating func endSubscriptions(of client: Int, actions: inout [BrokerAction]) {
        for subscription in self.clients[client].subscriptions.keys.sorted() {
            self.endedReceived(subscription, from: client, actions: &actions)
        }
        for (slot, invocation) in self.invocationSlots(where: { $0.client == client }) {
            self.invocations.remove(slot)
            self.workers[invocation.worker].invocationCount -= 1
            actions.append(.failInvocation(worker: invocation.worker, id: invocation.id, isLost: false))
        }
    }

    /// Ends the subscriptions that a worker didn't restate between its welcome and its first sign of readiness.
    mutating func endUnconfirmed(of worker: Int, actions: inout [BrokerAction]) {
        let ended = self.workers[worker].bindings.filter { !$0.value.isConfirmed }
        for number in ended.keys.sorted() {
            guard let ended = self.endedReceived(number, by: worker, actions: &actions) else { continue }
            actions.append(.endClientSubscription(client: ended.client, subscription: ended.subscription))
        }
    }

    mutating func dropBindings(of worker: Int) {
        for number in self.workers[worker].bindings.keys.sorted() { self.unbind(number, of: worker) }
        for (slot, _) in self.invocationSlots(where: { $0.worker == worker }) { self.invocations.remove(slot) }
        self.workers[worker].invocationCount = 0
    }

    private mutating func unbind(_ number: UInt32, of worker: Int) {
        guard let binding = self.workers[worker].bindings.removeValue(forKey: number) else { return }
        self.clients[binding.client].subscriptions[binding.subscription]?.bindings[worker] = nil
    }

    /// Notes that all events a worker numbered below `next` have arrived or are lost: lost ones are missing for the
    /// client as well.
    mutating func passed(_ number: UInt32, upTo next: UInt64, of worker: Int) {
        guard let binding = self.workers[worker].bindings[number], next > binding.expected else { return }
        self.workers[worker].bindings[number]?.expected = next
        self.clients[binding.client].subscriptions[binding.subscription]?.next &+= next - binding.expected
    }

    private mutating func advance(_ number: UInt32, to sequence: UInt64, of worker: Int) -> Delivery? {
        guard let binding = self.workers[worker].bindings[number], sequence >= binding.expected else { return nil }
        self.passed(number, upTo: sequence, of: worker)
        let outgoing = self.clients[binding.client].subscriptions[binding.subscription]?.next ?? 0
        self.workers[worker].bindings[number]?.expected = sequence &+ 1
        self.clients[binding.client].subscriptions[binding.subscription]?.next = outgoing &+ 1
        return Delivery(client: binding.client, subscription: binding.subscription, id: outgoing)
    }

    private func invocationSlots(where matches: (Invocation) -> Bool) -> [(UInt32, Invocation)] {
        var found: [(UInt32, Invocation)] = []
        var next = self.invocations.firstSlot(from: 0)
        while let slot = next {
            if matches(self.invocations[slot]) { found.append((slot, self.invocations[slot])) }
            next = self.invocations.firstSlot(from: slot + 1)
        }
        return found
    }
}
