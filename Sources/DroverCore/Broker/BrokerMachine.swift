// SPDX-License-Identifier: Apache-2.0

internal import DroverWire

/// Everything a broker decides: which worker gets a call and when, what happens to calls when a worker or a client is
/// lost, and where answers go.
///
/// The loop feeds events in and carries out the actions. The client identifies a call by its own id, the worker that
/// has the call by an id that the broker assigned, and machine and loop by a slot. The loop keeps the request's bytes
/// under the slot until the slot is freed: by an answer's addressee, ``BrokerAction/finish(slot:client:id:ending:)`` or
/// ``BrokerAction/release(slot:)``. The rest of the machine is in the extensions beside this file.
package struct BrokerMachine: ~Copyable {
    package struct Configuration: Sendable {
        package var session = PeerSession.Limits.standard
        /// How many calls one client may have here.
        package var window = 1 << 21
        /// How many calls may wait in all, and in one route.
        package var maxQueued = 4 << 20
        package var maxQueuedPerRoute = 4 << 20
        /// How many bytes of requests, waiting or at workers, may be kept; one client may have half of them.
        package var maxQueuedBytes = 2 << 30
        /// How many bytes a client may leave unread before its calls wait.
        package var maxUnreadBytes = 64 << 20
        package var maxClients = 4096
        package var maxWorkers = 4096
        /// How many sessions clients and workers may have together.
        package var places = Places.unlimited
        /// How many function names one client may use, and how many the workers may offer in all: each has a number on
        /// the wire.
        package var maxFunctions = WireLimits.standard.maxFunctions
        /// How many function names there may be in all.
        package var maxNames = 1 << 16
        /// How many combinations of function and demands there may be.
        package var maxRoutes = 1 << 14
        /// How many callbacks one worker may have bound, and how many of one client's may be bound.
        package var maxBindings = 65536
        /// How many invocations may be unanswered.
        package var maxInvocations = 65536
        /// How many sessions, names, routes and unanswered invocations a tenant may always have, even when others have
        /// filled the table; of a table that others use as well, it may have a quarter.
        package var ownShare = 16
        /// The highest credit of a worker, whatever its window.
        package var maxCredit = 512
        /// How long a worker's credit should keep it busy; four round trips, once they are measured.
        package var coverageNanoseconds: UInt64 = 1_000_000
        /// A worker that has more calls than handlers and answers none for this long gives the surplus back.
        package var stallNanoseconds: UInt64 = 50_000_000
        /// How long a call waits for a worker that may run it.
        package var patienceNanoseconds: UInt64 = 10_000_000_000
        /// A call that may have been running during this many worker deaths ends as poison.
        package var maxAttempts: UInt8 = 3
        /// How long a worker is reserved for a suspect.
        package var aloneNanoseconds = Solitude.standardLimitNanoseconds
        /// How many bytes of answers are kept per client for re-sent requests.
        package var maxCachedBytes = 256 << 10
        /// How many more bytes of answers, over all clients, are kept while the clients aren't known to have read them.
        package var maxGrownBytes = 0
        /// How many bytes the demands of all routes may take; those of one tenant may take a quarter of that.
        package var maxRouteBytes = 64 << 20
        /// How much of all that one tenant may have, unless the allow-list says otherwise.
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

        /// - Parameter seed: Drawn anew for each life; it has no default, so that it can't be forgotten.
        package init(seed: UInt64) { self.seed = seed }
    }

    /// A call that a worker has.
    struct Sent: BitwiseCopyable {
        let slot: UInt32
        /// How many nanoseconds the call was expected to run; the top bit says whether it had to wait for a handler
        /// there.
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
        /// How many client definitions, worker offers and routes use the name.
        var useCount = 0
        /// How many of them are worker offers, and how many are routes.
        var offerCount = 0
        var routeCount = 0
        /// The number that workers know it by; -1 if no worker has offered it.
        var number = -1
        /// The route of calls without demands, or -1.
        var plainRoute = -1
    }

    /// The calls of one ordering key: one is under way, the others wait.
    struct KeyLine {
        var key: TenantKey
        var waiting = CallList()
    }

    /// Where to forward an invocation's answer.
    struct Invocation: Sendable {
        var client: Int
        var worker: Int
        /// The worker's id.
        var id: UInt64
        /// Which of the client's connections it was sent over.
        var connection: UInt32
    }

    /// An ordering key and the tenant it belongs to: without access keys, ordering keys hold across all clients.
    struct TenantKey: Hashable {
        var tenant: Int
        var name: String
    }

    let configuration: Configuration
    /// How much each tenant uses.
    package internal(set) var tenants: TenantBook

    // Access these in place only: a copy would share their tables and make the next change copy them.
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
    /// Worker-side numbers that were used before and stand for no function now; numbers from `numberCount` up were
    /// never used.
    var freeNumbers: [Int] = []
    var numberCount = 0
    var routes: [CallRoute] = []
    /// The demands of each route's calls.
    var demandsOf: [Demands] = []
    /// The workers that may take each route's calls.
    var workersOf: [NumberSet] = []
    /// Eight queues per route, one per priority; they hold bands, which hold the flows.
    var queues: [FairQueue] = []
    var bands: [Band] = []
    var freeBands: [Int] = []
    /// How many calls wait in each queue.
    var waiting: [Int] = []
    var freeRoutes: [Int] = []
    /// How many routes have no calls, and how many bytes the larger-than-usual demands among them take.
    var idleRoutes = 0
    var idleRouteBytes = 0
    var routeOf: [RouteKey: Int] = [:]
    /// Routes with waiting calls, per priority.
    var busy = [NumberSet](repeating: NumberSet(), count: Int(FairQueue.highestPriority) + 1)
    var busyCounts = [Int](repeating: 0, count: Int(FairQueue.highestPriority) + 1)
    /// One bit for each priority that has waiting calls.
    var busyLevels: UInt8 = 0
    var flows: [Flow] = []
    var freeFlows: [Int] = []
    var keys: [KeyLine] = []
    var freeKeys: [UInt32] = []
    var keyOf: [TenantKey: UInt32] = [:]
    var loads = LoadList()
    /// How many functions, over all workers, get no more calls at a worker because calls wait there for the function's
    /// limit.
    var closedCount = 0
    /// Eight per worker, one per level: how its tenants take turns.
    var turns: [Turns] = []
    /// The highest pass served so far among clients without keys.
    var virtualTime: UInt64 = 0
    var serves: UInt64 = 0

    var wheel = TimerWheel(now: Instant(nanoseconds: 0))
    /// Clients have even indices, workers odd ones.
    var peerWheel = TimerWheel(now: Instant(nanoseconds: 0))
    var stallWheel = TimerWheel(now: Instant(nanoseconds: 0))
    /// Workers that get no calls for a while because they declined what they were sent.
    var pauseWheel = TimerWheel(now: Instant(nanoseconds: 0))
    /// Workers that are reserved for suspects, or were for a long time.
    var solitudeWheel = TimerWheel(now: Instant(nanoseconds: 0))
    var due: [UInt32] = []
    /// Calls that wait for a worker without other calls.
    var apart = CallList()
    /// The names of the workers that died while they had a call, by the call's slot.
    var deathsOf: [UInt32: [String]] = [:]

    var invocations: IDTable<Invocation>
    var lastInvocation: UInt64 = 0
    /// Open questions whether clients have read what workers sent them, by the ids that the clients were given.
    var questions: [UInt64: Question] = [:]
    var questionAbout: [Question.Subject: UInt64] = [:]
    var lastQuestion: UInt64 = 0

    /// Why the most recently refused worker was refused.
    package internal(set) var refusalOfWorker: Refusal?
    /// How many calls wait for a worker or for their ordering key.
    package internal(set) var queuedCount = 0
    /// How many bytes above the usual limit the kept answers take.
    var grownBytes = 0
    /// How many bytes the requests that have not ended take.
    package var keptBytes: Int { self.tenants.total.bytes }
    /// Clients whose calls wait until they have read more of their answers.
    package internal(set) var heldUp: [Int] = []
    /// How many notices about callbacks were forgotten because there were too many.
    package internal(set) var forgottenNews = 0
    /// How many handlers all workers have together.
    package internal(set) var slotCount = 0
    /// Whether the broker takes no new requests.
    package internal(set) var isDraining = false
    /// How many times a worker said it was idle although suitable calls were waiting.
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
    /// The broker's number for a function, as workers know it.
    package func number(of function: Int) -> UInt32 { UInt32(max(0, self.functions[function].number)) }
    /// The broker's number for a call's function.
    package func functionNumber(in slot: UInt32) -> UInt32 {
        self.number(of: self.routes[Int(self.calls[slot].route)].function)
    }
    package var functionCount: Int { self.functionOf.count }
    package var routeCount: Int { self.routeOf.count }

    /// Whether a peer may add one more entry to a table that all share.
    ///
    /// No peer can fill the table alone, and none is kept out by those who have filled it: a peer with less than its
    /// share may always add one, and the table grows past its limit by no more than those shares.
    func mayAdd(own: Int, total: Int, limit: Int) -> Bool {
        own < self.configuration.ownShare || (total < limit && own < max(1, limit / 4))
    }

    /// How many bytes of memory the calls take here, not counting flows and keys.
    package var callBytes: Int {
        let indexes = self.clients.reduce(0) { $0 + $1.requests.byteCount }
        return self.calls.capacity * MemoryLayout<BrokerCall>.stride + self.wheel.capacity * 16 + indexes
    }

    /// The peer that a route belongs to.
    package func peer(route: UInt64) -> BrokerPeer? { self.peerOf[route] }

    /// Takes no new requests from now on.
    package mutating func drain() { self.isDraining = true }

    /// Releases memory that only a peak needed.
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

/// The peer behind a route.
package enum BrokerPeer: Equatable, Sendable {
    case client(Int)
    case worker(Int)
}

/// What tells routes apart.
struct RouteKey: Hashable, Sendable {
    var function: Int
    var demands: Demands
}
