// SPDX-License-Identifier: Apache-2.0

/// Decides which of the tenants with calls in a route goes next, and which client within a tenant: a heap of bands, and
/// in each band a heap of flows.
///
/// Every client has a number, its pass, that rises with each of its calls that is sent from a queue. The client with
/// the lowest pass goes next; among a tenant's flows, those of a higher priority go first. Named tenants have such
/// numbers at each worker (``Turns``): their bands all have pass 0 here, and are in no order. A pass may rise while its
/// owner waits in other routes' heaps: when an out-of-date entry reaches the top, it is put back with its current pass.
/// That can't be too late, since passes only rise.
package struct FairQueue: Sendable {
    /// The highest priority.
    package static var highestPriority: UInt8 { 7 }
    /// The priority of requests that don't specify one.
    package static var standardPriority: UInt8 { 4 }

    struct Entry: Sendable {
        var pass: UInt64
        /// When it was last served; breaks ties between equal passes.
        var served: UInt64
        /// The flow, or the band.
        var index: Int
        /// Lower for a higher priority; 0 for bands.
        var rank: UInt8 = 0

        static func < (lhs: Self, rhs: Self) -> Bool {
            if lhs.rank != rhs.rank { return lhs.rank < rhs.rank }
            return lhs.pass != rhs.pass ? lhs.pass < rhs.pass : lhs.served < rhs.served
        }
    }

    /// The tenant and flow whose turn it would be in a route.
    struct Turn: Sendable {
        var tenant: Int
        /// The tenant's place in the route's heap, and the flow's within the tenant.
        var band: Entry
        var flow: Entry

        /// Tenants take turns; within a tenant the priority decides, then the clients take turns.
        static func < (lhs: Self, rhs: Self) -> Bool {
            lhs.tenant == rhs.tenant ? lhs.flow < rhs.flow : lhs.band < rhs.band
        }
    }

    private var heap: [Entry] = []

    var top: Entry? { self.heap.first }
    var count: Int { self.heap.count }
    var indices: [Int] { self.heap.map(\.index) }

    mutating func insert(_ entry: Entry) {
        self.heap.append(entry)
        var child = self.heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard self.heap[child] < self.heap[parent] else { break }
            self.heap.swapAt(child, parent)
            child = parent
        }
    }

    /// Moves the top to where it belongs now.
    mutating func replaceTop(pass: UInt64, served: UInt64) {
        self.heap[0].pass = pass
        self.heap[0].served = served
        self.sink()
    }

    mutating func removeTop() {
        self.heap.swapAt(0, self.heap.count - 1)
        self.heap.removeLast()
        if !self.heap.isEmpty { self.sink() }
    }

    /// The index at a place; the order means nothing when all entries have the same pass.
    subscript(place: Int) -> Int { self.heap[place].index }

    /// Removes the entry at a place; only valid when all entries have the same pass.
    mutating func remove(at place: Int) {
        self.heap.swapAt(place, self.heap.count - 1)
        self.heap.removeLast()
    }

    /// Removes an arbitrary entry.
    mutating func popAny() -> Int? { self.heap.popLast()?.index }

    private mutating func sink() {
        var parent = 0
        while true {
            var least = parent
            let left = 2 * parent + 1
            if left < self.heap.count, self.heap[left] < self.heap[least] { least = left }
            if left + 1 < self.heap.count, self.heap[left + 1] < self.heap[least] { least = left + 1 }
            guard least != parent else { return }
            self.heap.swapAt(least, parent)
            parent = least
        }
    }
}

/// The calls of one client in one route and priority, in the order they arrived.
struct Flow: BitwiseCopyable, Sendable {
    /// The client, or -1 once it is gone.
    var client: Int
    let route: Int
    let priority: UInt8
    /// The priority that counts against other tenants; if the tenant may not have one this high, the real one counts
    /// only among its own calls.
    let level: UInt8
    /// The tenant's place in the route's heap of that level, while it is in its heap.
    var band = -1
    var calls = CallList()
    var served: UInt64 = 0
    /// How many calls had been sent when it was last served, or began to wait.
    var waitsSince: UInt64 = 0
    /// Whether its calls wait until its client has read more answers, not for workers.
    var isAside = false
    /// Whether it is in its heap; a flow that was put aside leaves it on reaching the top.
    var isInHeap = true
}

/// One tenant's flows of a level in a route.
struct Band: Sendable {
    var tenant: Int
    /// Route and level.
    var key: Int
    var served: UInt64 = 0
    var flows = FairQueue()
}

/// All calls that the same workers may take: those of one function with the same demands.
///
/// Its demands, heaps and workers are in arrays of their own, so that reading a route costs nothing.
struct CallRoute: BitwiseCopyable, Sendable {
    let function: Int
    /// Whether its calls occupy resources.
    let hasResources: Bool
    /// The tenant whose call made it.
    var owner = 0
    /// How many bytes its demands take.
    var byteCount = 0
    /// One bit for each priority that has waiting calls.
    var waitingLevels: UInt8 = 0
    var waitingCount = 0
    /// How many of its calls have not ended.
    var callCount = 0
    /// How many workers may take its calls.
    var workerCount = 0
    /// The worker that keeps resources free for it, or -1.
    var reservedWorker = -1
    /// The average time until the next call is answered.
    var intervalNanoseconds: UInt64 = 0
    /// How long its calls run.
    var run = RunMean()
    var lastAnswer = Instant(nanoseconds: 0)
    /// Whether the route exists; the place of a forgotten one is reused.
    var isLive = true

    init(function: Int, hasResources: Bool) {
        self.function = function
        self.hasResources = hasResources
    }

    /// The highest priority with a waiting call, or -1.
    var topPriority: Int { 7 - self.waitingLevels.leadingZeroBitCount }
}
