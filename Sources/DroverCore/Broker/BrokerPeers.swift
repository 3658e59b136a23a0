// SPDX-License-Identifier: Apache-2.0

package import DroverWire

/// What a broker knows about one client.
package struct BrokerClient {
    /// Tells the sessions of this broker apart.
    package let number: UInt32
    package let client: PeerID
    package let epoch: UInt64
    package let name: String
    /// The tenant whose session it is, by its place in the book.
    package let tenant: Int
    /// Where its messages come from now.
    package internal(set) var route: UInt64
    /// Counts the connections that it has had so far, from 1.
    package internal(set) var connection: UInt32 = 1
    var session: PeerSession
    /// The clock that its deadlines count from.
    var transit = TransitClock()
    /// The broker's function behind each of the client's numbers, or -1.
    var functions: [Int] = []
    /// How many functions it uses.
    var functionCount = 0
    /// Function names that there was no room for, by the client's number.
    var refusedNames: [UInt32: String] = [:]
    /// Calls that have not ended, by the client's id.
    let requests: RequestIndex
    var results: ResultCache
    /// Its flows by route and priority.
    var flows: [Int: Int] = [:]
    var lastFlow: (key: Int, flow: Int) = (-1, -1)
    /// Rises with each of its calls that is sent from a queue; compared among its tenant's clients.
    var pass: UInt64 = 0
    /// Its subscriptions that workers have bound.
    var subscriptions: [UInt32: BrokerSubscription] = [:]
    /// What it said about subscriptions that aren't bound.
    var callbacks = CallbackMemory<UInt32>()
    /// Whether its calls wait until it has read more of its answers.
    package internal(set) var isHeldUp = false
    /// The bytes of its requests that are kept here.
    package internal(set) var keptBytes = 0
    package internal(set) var isLive = true

    /// Whether it has named a function of workers.
    package var hasFunctions: Bool { self.functionCount > 0 || !self.refusedNames.isEmpty }

    static var undefinedFunction: Int { -1 }
    static var refusedFunction: Int { -2 }
}

/// What a broker knows about one worker.
package struct BrokerWorker {
    package internal(set) var offer: WorkerOffer
    /// Where its messages come from now.
    package internal(set) var route: UInt64
    /// Differs for each life of a worker here: the loop adds it to the broker's epoch.
    package let incarnation: UInt64
    /// The tenant whose session it is, by its place in the book; -1 without keys.
    package let tenant: Int
    var session: PeerSession
    /// The worker's number for the session, 0 before the first.
    package internal(set) var sessionNumber: UInt32 = 0
    /// Whether messages reach it.
    package internal(set) var isOpen = false
    /// Whether the connection of its route is gone: what was under way over it may still arrive.
    var isCutOff = false
    package internal(set) var isQuiet = false
    package internal(set) var isDraining = false
    /// Whether it declined a request and hasn't said since that it is ready.
    package internal(set) var isRefusing = false
    /// Whether each of its slots is held by a handler that waits for a call that waits for a slot.
    package internal(set) var isStalled = false
    /// Whether it gets no calls for a while because it declined them repeatedly.
    package internal(set) var isPaused = false
    var declines = 0
    /// The suspect that it is reserved for, by its slot.
    var solitude: Solitude
    package internal(set) var window = 1
    package internal(set) var credit = 1
    var announcedCredit = 0
    /// Whether it was told that suitable requests wait.
    var announcedWaiting = false
    var meter = CreditMeter()
    var coverageNanoseconds: UInt64
    /// How long its current calls are expected to run, in total.
    var plannedNanoseconds: UInt64 = 0
    /// The calls that it has, in the order they were sent.
    var calls = CallList()
    /// The calls among them that it holds although a slot may be free, and the functions that get no more calls because
    /// of that.
    var held = HeldCalls()
    /// When it last answered, or got a call after having none.
    var progressAt = Instant(nanoseconds: 0)
    var used: [String: UInt64] = [:]
    /// The functions that it offers, by the broker's number.
    var offered: [Int] = []
    var offers = NumberSet()
    /// Routes whose calls it may take.
    var routes = NumberSet()
    /// Functions that have been defined in the session.
    var defined = NumberSet()
    /// What its subscription numbers stand for.
    var bindings: [UInt32: BrokerBinding] = [:]
    /// The lowest subscription number that hasn't been bound yet in the session.
    var nextBinding: UInt64 = 0
    /// How many of its invocations are unanswered.
    var invocationCount = 0
    /// Its level in the ``LoadList``.
    var level = -1
    /// Where the search for its next call continues when there are many routes.
    var cursor = 0
    /// The best routes of the last search, which are compared again.
    var favourites = (-1, -1)
    /// The route that it keeps resources free for, or -1, and the priority of the call that needs them.
    var reservedRoute = -1
    var reservedPriority = -1
    package internal(set) var isLive = true

    init(
        offer: WorkerOffer,
        route: UInt64,
        incarnation: UInt64,
        tenant: Int,
        limits: PeerSession.Limits,
        coverage: UInt64,
        alone: UInt64
    ) {
        self.offer = offer
        self.route = route
        self.incarnation = incarnation
        self.tenant = tenant
        self.session = PeerSession(limits: limits)
        self.solitude = Solitude(limitNanoseconds: alone)
        self.coverageNanoseconds = coverage
        self.credit = offer.concurrency
    }

    /// How long nothing has been heard from it.
    package func silentNanoseconds(at now: Instant) -> UInt64 { self.session.silentNanoseconds(at: now) }

    /// How many requests it has not answered.
    package var outstanding: Int { self.calls.count }

    /// How many of its calls occupy a slot there, or wait for one.
    package var occupying: Int { self.calls.count - self.held.count }

    /// Whether it takes calls, if not now then once others have ended.
    package var takesCalls: Bool {
        self.isLive && self.isOpen && !self.isQuiet && !self.isDraining && !self.isRefusing && !self.isPaused
            && self.solitude.alone == nil
    }

    var hasRoom: Bool { self.takesCalls && !self.solitude.isEmptied && self.hasSlot }

    /// Whether it has a slot left beside its calls, or they are so short that one will be free soon.
    ///
    /// The credit reflects the calls that ran: a client whose calls were short could otherwise put hundreds of long
    /// ones ahead of everyone else's.
    var hasSlot: Bool {
        let slots = self.offer.concurrency
        guard self.occupying < self.credit, self.calls.count < self.window else { return false }
        return self.occupying < slots || self.plannedNanoseconds < UInt64(slots) &* self.coverageNanoseconds
    }

    /// How long a call is expected to run if nothing is known about its function.
    var plannedOfUnknown: UInt64 { self.meter.runNanoseconds ?? self.coverageNanoseconds }

    /// The suspect that it runs alone, without getting any other call.
    package var alone: UInt32? { self.solitude.alone.map { UInt32($0) } }
    /// Whether it gets no calls until it has none left, to be free for a suspect.
    package var isReserved: Bool { self.solitude.isReserved }

    /// Whether it was reserved for suspects for a long time, and takes other calls for a while.
    package func isResting(at now: Instant) -> Bool { self.solitude.isResting(at: now) }

    /// The load of a worker without a free handler, where calls only wait behind others.
    static var busyLoad: Int { 16 }

    /// Its load, from 0 to 23; once all handlers are busy, in eighths of the credit.
    var load: Int {
        let (busy, slots) = (self.occupying, self.offer.concurrency)
        if busy < slots { return busy * Self.busyLoad / slots }
        // This runs for each request and answer, and a 64-bit division takes as long as the rest.
        let waiting = UInt32(clamping: busy - slots)
        let room = UInt32(clamping: max(1, self.credit - slots))
        return Self.busyLoad + (waiting >= room ? 7 : Int(waiting &* 8 / room))
    }

    func hasLeft(_ resources: [String: UInt64]) -> Bool {
        resources.allSatisfy { name, amount in
            let has = self.offer.resources[name, default: 0]
            return has >= amount && self.used[name, default: 0] <= has - amount
        }
    }

    mutating func occupy(_ resources: [String: UInt64]) {
        for (name, amount) in resources { self.used[name, default: 0] += amount }
    }

    mutating func vacate(_ resources: [String: UInt64]) {
        for (name, amount) in resources { self.used[name, default: 0] -= amount }
    }
}

/// Workers with room, by load.
struct LoadList: Sendable {
    private var occupied: UInt64 = 0
    private var levels = [NumberSet](repeating: NumberSet(), count: 64)
    private var counts = [Int](repeating: 0, count: 64)
    /// Where the search begins among workers of equal load.
    ///
    /// Workers with free handlers take turns; one without keeps its turn until its load has risen, so that calls which
    /// only wait go to it in runs and share frames.
    private var next = 0

    /// Moves a worker to the level of its current load.
    mutating func update(_ index: Int, in workers: inout [BrokerWorker]) {
        let level = workers[index].isLive && workers[index].hasRoom ? workers[index].load : -1
        let former = workers[index].level
        guard level != former else { return }
        workers[index].level = level
        if former >= 0 {
            self.levels[former].remove(index)
            self.counts[former] -= 1
            if self.counts[former] == 0 { self.occupied &= ~(1 << UInt64(former)) }
        }
        guard level >= 0 else { return }
        self.levels[level].insert(index)
        self.counts[level] += 1
        self.occupied |= 1 << UInt64(level)
    }

    /// The least loaded suitable worker of a set.
    mutating func choose(from set: borrowing NumberSet, where isSuitable: (Int) -> Bool) -> Int? {
        var levels = self.occupied
        while levels != 0 {
            let level = levels.trailingZeroBitCount
            levels &= levels - 1
            var worker = self.levels[level].first(from: self.next, sharedWith: set)
            var isSecondTurn = worker == nil
            if isSecondTurn { worker = self.levels[level].first(from: 0, sharedWith: set) }
            while let candidate = worker, !isSecondTurn || candidate < self.next || self.next == 0 {
                if isSuitable(candidate) {
                    self.next = level < BrokerWorker.busyLoad ? candidate + 1 : candidate
                    return candidate
                }
                worker = self.levels[level].first(from: candidate + 1, sharedWith: set)
                guard worker == nil, !isSecondTurn, self.next > 0 else { continue }
                isSecondTurn = true
                worker = self.levels[level].first(from: 0, sharedWith: set)
            }
        }
        return nil
    }
}
