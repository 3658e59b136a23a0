// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import DroverZMQ
internal import Logging
internal import Synchronization

// Brokers that the worker dials: to them it is a worker like any other, once they have introduced themselves.

extension WorkerLoop {
    /// Begins to dial a broker, unless its address is nil: then its name is being looked up.
    ///
    /// Its messages come by a route that is chosen here, by an id that nobody who dials this worker can guess: what comes by it
    /// is taken for a broker's.
    @available(*, noasync)
    static func dial(
        _ endpoint: Endpoint,
        at address: String?,
        number: Int,
        socket: borrowing Socket,
        silence: UInt64,
        at now: Instant
    ) throws(ZMQError) -> BrokerDial {
        let routingID = RoutingIDs.secret()
        var offerSchedule = OfferSchedule(longestNanoseconds: silence, at: now)
        if let address {
            try socket.set(.connectRoutingID, routingID)
            try socket.connectTo(address)
        } else {
            offerSchedule.settled()
        }
        return BrokerDial(
            endpoint: endpoint,
            dialled: address,
            routingID: routingID,
            route: Self.dialledRoutes + UInt64(number),
            offerSchedule: offerSchedule
        )
    }

    /// The routes of brokers that are dialled begin here.
    static let dialledRoutes: UInt64 = 1 << 48

    /// Tells brokers that don't know it yet what the worker can do.
    @available(*, noasync)
    func offerWhereDue() {
        for index in self.dials.indices {
            if !self.isWanted(index) { self.dials[index].offerSchedule.settled() }
            guard self.dials[index].offerSchedule.isDue(at: self.now) else { continue }
            // What is sent from now on, an answer above all, the broker takes for the session's: what was lost must be told before.
            let session = self.machine.session(route: self.dials[index].route)
            if let session, session < self.links.count, let link = self.links[session] { self.flush(link, session) }
            self.offer(to: index)
            if let session { self.restateCallbacks(to: session) }
        }
    }

    /// Whether the worker wants to be connected to a broker: once it drains, only to one that it has a session with, which may wait for
    /// answers.
    func isWanted(_ index: Int) -> Bool {
        guard self.machine.isDraining else { return true }
        return self.machine.session(route: self.dials[index].route).map { self.machine.sessions[$0].isLive } ?? false
    }

    @available(*, noasync)
    func offer(to index: Int) {
        // It is offered when there is a connection.
        guard self.dials[index].dialled != nil else { return self.dials[index].offerSchedule.settled() }
        self.dials[index].offeredConcurrency = self.usableConcurrency
        self.dials[index].offeredFunctions = self.handlers.count
        self.dials[index].offeredStuck = self.machine.abandonedCount
        self.dials[index].offeredAt = self.now
        let header = Header(.offer, id: self.core.epoch)
        // A connection that is only interrupted takes messages; this one libzmq has given up.
        if !self.send(self.offerPayload(), as: header, to: self.dials[index].routingID) { self.postpone(index) }
    }

    private func offerPayload() -> RequestBytes {
        let configuration = self.core.configuration
        var offer = Offer(worker: self.core.identity)
        offer.name = configuration.name
        offer.concurrency = self.usableConcurrency
        offer.stuck = self.machine.abandonedCount
        offer.functions = self.handlers.map { $0.name }
        offer.queues = configuration.queues.sorted()
        offer.labels = configuration.labels
        offer.resources = configuration.resources
        offer.notices = true
        var writer = PackWriter(capacity: 512, headerBytes: RequestBytes.headerByteCount)
        // Names that are over the codec's limits were refused when they were registered.
        try? offer.pack(into: &writer)
        return RequestBytes(adopting: writer.finish())
    }

    /// When an offer, or another try to connect, is due next.
    var nextOffer: Instant {
        self.dials.reduce(.distantFuture) { min($0, $1.offerSchedule.nextDeadline, $1.redialsAt) }
    }

    /// Says in the log which brokers the worker serves, and when that changes.
    private func noteServed(_ index: Int, _ isServed: Bool) {
        guard self.dials[index].isServed != isServed else { return }
        self.dials[index].isServed = isServed
        self.dials[index].isMissed = false
        let metadata: Logger.Metadata = [LogKeys.endpoint: "\(self.dials[index].address)"]
        if isServed {
            self.core.logger.info("the worker serves a broker", metadata: metadata)
        } else if !self.machine.isDraining {
            self.core.logger.warning("a broker is lost; the worker goes on trying", metadata: metadata)
        }
    }

    /// Says in the log, once, that nobody answers where a broker should be.
    func noteMissed(_ index: Int) {
        guard !self.dials[index].isMissed, !self.dials[index].isServed else { return }
        self.dials[index].isMissed = true
        self.core.logger.warning(
            "a broker can't be reached; the worker goes on trying",
            metadata: [
                LogKeys.endpoint: "\(self.dials[index].address)",
                LogKeys.error: "nobody listens there; is one running there?",
            ]
        )
    }

    /// A broker has introduced itself, or has gone.
    func brokersChanged() {
        var count = 0
        for index in self.dials.indices {
            if let session = self.machine.session(route: self.dials[index].route), self.links[session]?.broker != nil {
                self.dials[index].offerSchedule.settled()
                count += 1
                self.noteServed(index, true)
            } else {
                self.dials[index].offerSchedule.restart(at: self.now)
                self.noteServed(index, false)
            }
        }
        self.core.counters.brokers.store(count, ordering: .relaxed)
        self.nextTick = min(self.nextTick, self.nextOffer)
    }

    /// A connection to a broker stands, perhaps anew: then the broker knows nobody there until something is said.
    ///
    /// - Parameter index: Which one; nil if that can't be told.
    func connected(to index: Int?) {
        if let index {
            self.dials[index].offerSchedule.restart(at: self.now)
        } else {
            // One that knows this worker takes it for a sign of life, another asks it to offer itself.
            for dial in self.dials {
                if let session = self.machine.session(route: dial.route) { self.sendBeat(to: session) }
            }
        }
        self.nextTick = min(self.nextTick, self.nextOffer)
    }

    /// A broker that was dialled says something without a session.
    ///
    /// - Returns: Whether that was all.
    @available(*, noasync)
    func takeWithoutSession(_ header: Header, _ payload: UnsafeRawBufferPointer, route: UInt64) -> Bool {
        guard route >= Self.dialledRoutes,
            let index = self.dials.firstIndex(where: { $0.route == route })
        else { return false }
        switch header.kind {
        case .hello: return false
        case .refused:
            let message = unsafe ErrorBody(reading: payload)?.message ?? "no reason that can be understood"
            self.refused(by: index, message)
        case .reset, .goodbye: self.dials[index].offerSchedule.restart(at: self.now)
        default:
            // A message of a session that is over here, which the broker must learn: it introduces itself again.
            self.dials[index].offerSchedule.restart(at: self.now)
            self.reset(route)
        }
        self.nextTick = min(self.nextTick, self.nextOffer)
        return true
    }

    /// A broker doesn't know this worker any more.
    func resetReceived(by route: UInt64) {
        guard let index = self.dials.firstIndex(where: { $0.route == route }) else {
            self.core.counters.unknownMessages.count()
            return
        }
        self.dials[index].offerSchedule.restart(at: self.now)
        self.nextTick = min(self.nextTick, self.nextOffer)
    }

    /// A sign of life; for a broker it says how the worker is.
    func sendBeat(to session: Int) {
        // A beat is sent when nothing else was for so long: a question that isn't answered by then may have been lost.
        for told in self.links[session]?.questions.takeAll() ?? [] { self.ask(told, session) }
        guard let broker = self.links[session]?.broker else {
            return self.send(Header(.beat, id: self.core.epoch), to: session)
        }
        let slots = self.core.configuration.concurrency + self.machine.replacementCount + self.machine.releasedCount
        let free = max(0, slots - self.machine.requestCount)
        var state = ReadyState()
        if self.isQuietToBrokers { state.insert(.quiet) }
        if self.waits.isStalled { state.insert(.stalled) }
        let isHungry =
            free > 0 && broker.waiting > 0 && self.machine.sessions[session].requests.count < max(1, broker.credit)
        if isHungry, broker.wasHungry, !state.contains(.quiet) { state.insert(.starved) }
        broker.wasHungry = isHungry
        let header = Header(.ready, id: self.core.epoch, time: UInt32(clamping: free), number: state.rawValue)
        self.send(header, to: session)
    }

    /// Whether brokers are to give the worker nothing: it was made quiet, or all its slots are taken by stuck handlers.
    var isQuietToBrokers: Bool { self.core.isQuiet.load(ordering: .relaxed) || self.isClogged }

    /// Tells brokers at once that the worker has become quiet, or no longer is.
    func tellQuiet() {
        let isQuiet = self.isQuietToBrokers
        guard isQuiet != self.isQuietTold else { return }
        self.isQuietTold = isQuiet
        for session in self.links.indices where self.links[session]?.broker != nil { self.sendBeat(to: session) }
    }

    func creditReceived(_ header: Header, _ session: Int) {
        guard let broker = self.links[session]?.broker else {
            self.core.counters.unknownMessages.count()
            return
        }
        broker.credit = Int(header.number)
        broker.waiting = header.time
        broker.wasHungry = false
    }

    /// A broker names the caller of the requests that carry a number of its own.
    func vouched(_ header: Header, _ payload: UnsafeRawBufferPointer, _ session: Int) {
        guard let broker = self.links[session]?.broker, broker.vouches,
            (1...WireLimits.maxCallers).contains(Int(header.number))
        else { return self.core.counters.unknownMessages.count() }
        let address = self.dials.first { $0.route == self.machine.sessions[session].route }?.address
        // Until it can be read the number stands for nobody.
        broker.callers[header.number] = nil
        do throws(WireError) {
            let said = try unsafe CallerPayload(reading: payload)
            broker.callers[header.number] = Caller(principal: said.principal, key: said.key, broker: address ?? "")
        } catch {
            self.malformed(error)
        }
    }

    /// A broker says what its client calls a request that takes long.
    func originReceived(_ header: Header, _ payload: UnsafeRawBufferPointer, _ session: Int) {
        guard self.links[session]?.broker != nil else { return self.core.counters.unknownMessages.count() }
        // It may have ended meanwhile.
        guard let slot = self.machine.slot(of: header.id, in: session), let request = self.machine.request(in: slot)
        else { return }
        do throws(WireError) {
            let origin = try unsafe OriginPayload(reading: payload)
            self.origins.note(origin, of: header.id, in: slot, receivedAt: request.receivedAt)
        } catch {
            self.malformed(error)
        }
    }

    /// An operator wants something of this worker, and asked its broker to say so.
    func ordered(_ header: Header, _ session: Int) {
        guard self.links[session]?.broker != nil, let order = ControlOrder(rawValue: header.number) else {
            self.core.counters.unknownMessages.count()
            return
        }
        let broker = "\(self.machine.sessions[session].client)"
        self.core.logger.notice(
            "a broker passes an order on",
            metadata: [LogKeys.client: "\(broker)", LogKeys.reason: "\(order)"]
        )
        switch order {
        case .quiet: self.core.isQuiet.store(true, ordering: .relaxed)
        case .resume: self.core.isQuiet.store(false, ordering: .relaxed)
        case .stop:
            let grace = Duration.milliseconds(header.time)
            self.core.life.drain(within: header.time == Header.noTimeLimit ? self.core.configuration.drainGrace : grace)
        }
        self.tellQuiet()
    }

    /// A broker wants a request back unless it has started: if it has, it is answered as usual.
    func recall(_ header: Header, _ session: Int) {
        switch self.machine.cancelReceived(header.id, from: session, actions: &self.actions) {
        case .unknown: break
        case .removed(let slot):
            self.held[slot] = nil
            self.confirm(.beforeStart, of: header.id, to: session)
        case .stop(let slot):
            guard Int(slot) < self.jobs.count, let job = self.jobs[Int(slot)],
                job.cancelBeforeStart(because: .requested)
            else { return }
            self.core.threads.withdraw(job)
            self.finished(job, .dropped(.cancelled))
        }
    }

    /// The number by which a session knows a subscriber; a broker is told it first.
    func number(of subscriber: Subscriber, in session: Int) -> UInt32 {
        guard let broker = self.links[session]?.broker else { return subscriber.subscription.rawValue }
        if let number = broker.number(of: subscriber) { return number }
        let number = broker.bind(subscriber)
        self.sendBinding(of: subscriber, as: number, to: session)
        return number
    }

    /// Tells a broker what a number of this worker stands for.
    func sendBinding(of subscriber: Subscriber, as number: UInt32, to session: Int) {
        var writer = PackWriter(capacity: 32, headerBytes: RequestBytes.headerByteCount)
        // Sixteen bytes are under every limit.
        unsafe subscriber.client.bytes.withUnsafeBytes { try? unsafe writer.append($0) }
        let header = Header(.bind, id: UInt64(subscriber.subscription.rawValue), number: number)
        self.send(RequestBytes(adopting: writer.finish()), as: header, to: session)
    }

    /// A client's subscription is over, by its own number or the one that it is bound to.
    func subscriptionEnded(_ number: UInt32, in session: Int) {
        let peer = self.machine.sessions[session].client
        self.links[session]?.givenUp.confirmed(number)
        if let broker = self.links[session]?.broker {
            guard let subscriber = broker.unbind(number) else { return }
            self.core.subscribers.rememberEnd(of: subscriber.subscription, of: subscriber.client, via: peer)
            self.core.subscribers.end(subscriber)
            self.core.replies.endAll(of: peer, client: subscriber.client, subscription: subscriber.subscription)
        } else {
            // The request that brings it may not have been read yet.
            self.core.subscribers.rememberEnd(of: SubscriptionID(number), of: peer, via: nil)
            self.core.subscribers.end(SubscriptionID(number), of: peer)
            self.core.replies.endAll(of: peer, client: peer, subscription: SubscriptionID(number))
        }
    }

    /// A client asks for a pause of its events, or to go on.
    func flow(_ header: Header, in session: Int) {
        let isPaused = header.id == 0
        if let broker = self.links[session]?.broker {
            // A broker speaks only of what was bound there.
            broker.subscriber(header.number)?.pause(isPaused)
        } else {
            let client = self.machine.sessions[session].client
            self.core.subscribers.pause(isPaused, SubscriptionID(header.number), of: client)
        }
    }
}
