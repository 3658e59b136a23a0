// SPDX-License-Identifier: Apache-2.0

internal import DroverWire

/// Everything a broker decides: which worker gets a call and when, what becomes of calls when a worker or a client is lost,
/// where answers go.
///
/// The loop feeds events in and carries out the actions. A call is known by the client's id, by the broker's own towards
/// the worker that has it, and by a slot between machine and loop; the loop keeps the request's bytes under the slot until
/// it is told that the slot is free: by an answer's addressee, ``BrokerAction/finish(slot:client:id:ending:)`` or
/// ``BrokerAction/release(slot:)``. Its parts are in the extensions beside this file.
package struct BrokerMachine: ~Copyable {
    package struct Configuration: Sendable {
        package var session = PeerSession.Limits.standard
        /// How many calls one client may have here.
        package var window = 1 << 21
        /// How many calls may wait in all, and in one route.
        package var maxQueued = 4 << 20
        package var maxQueuedPerRoute = 4 << 20
        /// How many bytes of requests may be kept, waiting or at workers; half of them of one client.
        package var maxQueuedBytes = 2 << 30
        /// How many bytes a client may leave unread before its calls wait.
        package var maxUnreadBytes = 64 << 20
        package var maxClients = 4096
        package var maxWorkers = 4096
        /// How many sessions there may be of both together.
        package var places = Places.unlimited
        /// How many function names one client may use, and how many the workers may offer in all: they have numbers on the wire.
        package var maxFunctions = WireLimits.standard.maxFunctions
        /// How many function names there may be in all.
        package var maxNames = 1 << 16
        /// How many combinations of function and demands there may be.
        package var maxRoutes = 1 << 14
        /// How many callbacks a worker may have bound, and how many of one client may be.
        package var maxBindings = 65536
        /// How many invocations may be unanswered.
        package var maxInvocations = 65536
        /// So many sessions, names, routes and unanswered invocations a tenant may have though others have filled the table; and it
        /// may have a quarter of a table that others use as well.
        package var ownShare = 16
        /// The highest credit of a worker, whatever its window.
        package var maxCredit = 512
        /// How long a worker's credit should keep it busy; four round trips, once they are measured.
        package var coverageNanoseconds: UInt64 = 1_000_000
        /// A worker that has more calls than handlers and answers none for so long gives the others back.
        package var stallNanoseconds: UInt64 = 50_000_000
        /// How long a call waits for a worker that may run it.
        package var patienceNanoseconds: UInt64 = 10_000_000_000
        /// A call that may have been running in so many deaths of workers ends as poison.
        package var maxAttempts: UInt8 = 3
        /// How long a worker is kept for a suspect.
        package var aloneNanoseconds = Solitude.standardLimitNanoseconds
        /// How many bytes of answers are kept per client for re-sent requests.
        package var maxCachedBytes = 256 << 10
        /// How many more are kept, for all clients together, that they are not known to have read.
        package var maxGrownBytes = 0
        /// What the demands of all routes may take; a quarter of it those of one tenant.
        package var maxRouteBytes = 64 << 20
        /// What one tenant may have of all that, unless the allow-list says otherwise.
        package var quotas = Quotas()
        /// Secret randomness, so that no client can choose ids that collide.
        package let seed: UInt64

        var tenants: TenantBook.Limits {
            var limits = TenantBook.Limits()
            limits.clients = self.maxClients
            limits.workers = self.maxWorkers
            limits.bytes = self.maxQueuedBytes
            limits.routes = self.maxRoutes
            limits.routeBytes = self.maxRouteBytes
            limits.names = self.maxNames
            limits.share = self.ownShare
            limits.each = self.quotas
            return limits
        }

        /// - Parameter seed: Drawn for each life anew; without a default, so that nobody forgets it.
        package init(seed: UInt64) { self.seed = seed }
    }

    /// A call that a worker has.
    struct Sent: BitwiseCopyable {
        let slot: UInt32
        /// The nanoseconds that it was expected to run, and in the uppermost bit whether it had to wait for a handler there.
        private let plan: UInt32
        let at: Instant

        var isBehind: Bool { self.plan & Self.behind != 0 }
        var plannedNanoseconds: UInt64 { UInt64(self.plan & ~Self.behind) }

        private static var behind: UInt32 { 1 << 31 }

        init(slot: UInt32, isBehind: Bool, plannedNanoseconds: UInt64, at now: Instant) {
            self.slot = slot
            self.plan = UInt32(min(plannedNanoseconds, UInt64(Self.behind - 1))) | (isBehind ? Self.behind : 0)
            self.at = now
        }
    }

    /// A name that clients or workers use.
    struct FunctionEntry {
        var name: String
        /// Clients' definitions, workers' offers and routes with it.
        var useCount = 0
        /// Workers' offers, and routes.
        var offerCount = 0
        var routeCount = 0
        /// Its number towards workers; -1 for what no worker has offered.
        var number = -1
        /// The route of calls without demands, or -1.
        var plainRoute = -1
    }

    /// Calls of one ordering key: one is under way, the others wait.
    struct KeyLine {
        var key: TenantKey
        var waiting = CallList()
    }

    /// What an invocation's answer goes on to.
    struct Invocation: Sendable {
        var client: Int
        var worker: Int
        /// The worker's id.
        var id: UInt64
        /// Which of the client's connections it was sent by.
        var connection: UInt32
    }

    /// An ordering key and whose it is: without keys they hold between all.
    struct TenantKey: Hashable {
        var tenant: Int
        var name: String
    }

    let configuration: Configuration
    /// Who uses how much.
    package internal(set) var tenants: TenantBook

    // Looked at in place only: a copy would share its tables and make the next change copy them.
    package internal(set) var clients: [BrokerClient] = []
    package internal(set) var workers: [BrokerWorker] = []
    var freeClients: [Int] = []
    var freeWorkers: [Int] = []
    var clientOf: [PeerID: Int] = [:]
    var workerOf: [PeerID: Int] = [:]
    var peerOf: [UInt64: BrokerPeer] = [:]
    var sessionNumber: UInt32 = 0
    var incarnation: UInt64 = 0

    var calls = CallSlab()
    var sent: IDTable<Sent>
    var lastID: UInt64 = 0
    var functions: [FunctionEntry] = []
    var freeFunctions: [Int] = []
    var functionOf: [String: Int] = [:]
    /// Numbers towards workers that stand for no function, below those that never have.
    var freeNumbers: [Int] = []
    var numberCount = 0
    var routes: [CallRoute] = []
    /// What each route's calls ask for.
    var demandsOf: [Demands] = []
    /// The workers that may take each route's calls.
    var workersOf: [NumberSet] = []
    /// Eight of each route, one per priority: bands, in which the flows are.
    var queues: [FairQueue] = []
    var bands: [Band] = []
    var freeBands: [Int] = []
    /// How many calls wait in each of them.
    var waiting: [Int] = []
    var freeRoutes: [Int] = []
    /// Routes without calls, and what the demands of those take that are larger than usual.
    var idleRoutes = 0
    var idleRouteBytes = 0
    var routeOf: [RouteKey: Int] = [:]
    /// Routes with calls that wait, per priority.
    var busy = [NumberSet](repeating: NumberSet(), count: Int(FairQueue.highestPriority) + 1)
    var busyCounts = [Int](repeating: 0, count: Int(FairQueue.highestPriority) + 1)
    /// One bit per priority with calls that wait.
    var busyLevels: UInt8 = 0
    var flows: [Flow] = []
    var freeFlows: [Int] = []
    var keys: [KeyLine] = []
    var freeKeys: [UInt32] = []
    var keyOf: [TenantKey: UInt32] = [:]
    var loads = LoadList()
    /// How many functions get no more calls at a worker, since calls wait there for their limits; over all workers.
    var closedCount = 0
    /// Eight of each worker, one per level: how its tenants take turns.
    var turns: [Turns] = []
    /// The highest pass that was served, of clients without keys.
    var virtualTime: UInt64 = 0
    var serves: UInt64 = 0

    var wheel = TimerWheel(now: Instant(nanoseconds: 0))
    /// Clients at even places, workers at odd ones.
    var peerWheel = TimerWheel(now: Instant(nanoseconds: 0))
    var stallWheel = TimerWheel(now: Instant(nanoseconds: 0))
    /// Workers that get nothing for a while, since they declined what they were sent.
    var pauseWheel = TimerWheel(now: Instant(nanoseconds: 0))
    /// Workers that are kept for suspects, or were for long.
    var solitudeWheel = TimerWheel(now: Instant(nanoseconds: 0))
    var due: [UInt32] = []
    /// Calls that wait for a worker that has nothing else.
    var apart = CallList()
    /// The names of the workers that died while they had a call, by its slot.
    var deathsOf: [UInt32: [String]] = [:]

    var invocations: IDTable<Invocation>
    var lastInvocation: UInt64 = 0
    /// Whether clients have read what workers sent them, by the ids that clients were given.
    var questions: [UInt64: Question] = [:]
    var questionAbout: [Question.Subject: UInt64] = [:]
    var lastQuestion: UInt64 = 0

    /// Why the last worker that was refused was.
    package internal(set) var refusalOfWorker: Refusal?
    /// Calls that wait for a worker or for their ordering key.
    package internal(set) var queuedCount = 0
    /// By how much the answers that are kept take more than usual.
    var grownBytes = 0
    /// Bytes of the requests that have not ended.
    package var keptBytes: Int { self.tenants.total.bytes }
    /// Clients whose calls wait until they have read more of their answers.
    package internal(set) var heldUp: [Int] = []
    /// News of callbacks that were forgotten since there was too much of them.
    package internal(set) var forgottenNews = 0
    /// Handlers that the workers have, together.
    package internal(set) var slotCount = 0
    /// Takes no new requests.
    package internal(set) var isDraining = false
    /// Times that a worker said it was idle though suitable calls wait.
    package internal(set) var starvedCount: UInt64 = 0

    package init(configuration: Configuration) {
        self.configuration = configuration
        self.tenants = TenantBook(limits: configuration.tenants)
        self.sent = IDTable(limit: Int(Int32.max), seed: 0)
        self.invocations = IDTable(limit: Int(Int32.max), seed: 0)
    }

    package var callCount: Int { self.calls.count }
    package var sentCount: Int { self.sent.count }
    package var clientCount: Int { self.clientOf.count }
    package var workerCount: Int { self.workerOf.count }
    package var timerCount: Int { self.wheel.count }
    package var keyCount: Int { self.keyOf.count }
    package var flowCount: Int { self.flows.count - self.freeFlows.count }
    package var invocationCount: Int { self.invocations.count }
    package var questionCount: Int { self.questions.count }

    package func call(in slot: UInt32) -> BrokerCall { self.calls[slot] }
    package func functionName(_ function: Int) -> String { self.functions[function].name }
    /// The broker's number of a function, as workers know it.
    package func number(of function: Int) -> UInt32 { UInt32(max(0, self.functions[function].number)) }
    /// The number of a call's function.
    package func functionNumber(in slot: UInt32) -> UInt32 {
        self.number(of: self.routes[Int(self.calls[slot].route)].function)
    }
    package var functionCount: Int { self.functionOf.count }
    package var routeCount: Int { self.routeOf.count }

    /// Whether a peer may put one more into a table that all share.
    ///
    /// None can fill it alone, and none is kept out by those who have: who has less than its share always may, which others
    /// can stretch the table by no more than.
    func mayAdd(own: Int, total: Int, limit: Int) -> Bool {
        own < self.configuration.ownShare || (total < limit && own < max(1, limit / 4))
    }

    /// Memory that the calls take here, flows and keys not counted.
    package var callBytes: Int {
        let indexes = self.clients.reduce(0) { $0 + $1.requests.byteCount }
        return self.calls.capacity * MemoryLayout<BrokerCall>.stride + self.wheel.capacity * 16 + indexes
    }

    /// Who a route belongs to.
    package func peer(route: UInt64) -> BrokerPeer? { self.peerOf[route] }

    /// No new requests from now on.
    package mutating func drain() { self.isDraining = true }

    /// Gives back memory that only a peak needed.
    package mutating func trim() {
        self.calls.trim()
        self.sent.trim()
        self.wheel.trim()
        self.invocations.trim()
        self.sweepRoutes()
        if self.freeBands.count == self.bands.count {
            self.bands = []
            self.freeBands = []
        }
        // A dictionary keeps the room it once needed.
        if self.functionOf.count < self.functionOf.capacity / 8 {
            self.functionOf = Dictionary(uniqueKeysWithValues: self.functionOf.map { ($0.key, $0.value) })
        }
        if self.functionOf.isEmpty {
            self.functions = []
            self.freeFunctions = []
        }
    }
}

/// Who stands behind a route.
package enum BrokerPeer: Equatable, Sendable {
    case client(Int)
    case worker(Int)
}

/// What tells routes apart.
struct RouteKey: Hashable, Sendable {
    var function: Int
    var demands: Demands
}
