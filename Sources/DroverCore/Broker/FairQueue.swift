// SPDX-License-Identifier: Apache-2.0

/// Which of the tenants that have calls in a route goes next, and within a tenant which of its clients: heaps of bands, and of
/// flows in each band.
///
/// Every client has a number, its pass, that rises with each call that is sent for it out of a queue. The one with the lowest goes
/// next; of a tenant's flows those of a higher priority go first. Tenants with names have such numbers at each worker (``Turns``):
/// their bands all have pass 0 here, and stand in no order. A pass may rise while its owner waits in other
/// routes' heaps: an entry whose place is out of date is put back with the pass that it has now when it comes to the top, which
/// can't be too late, since passes only rise.
package struct FairQueue: Sendable {
    /// The highest priority.
    package static var highestPriority: UInt8 { 7 }
    /// The priority of requests that say none.
    package static var standardPriority: UInt8 { 4 }

    struct Entry: Sendable {
        var pass: UInt64
        /// When it was served last, among those of the same pass.
        var served: UInt64
        /// The flow, or the band.
        var index: Int
        /// The lower, the higher its priority; 0 for bands.
        var rank: UInt8 = 0

        static func < (lhs: Self, rhs: Self) -> Bool {
            if lhs.rank != rhs.rank { return lhs.rank < rhs.rank }
            return lhs.pass != rhs.pass ? lhs.pass < rhs.pass : lhs.served < rhs.served
        }
    }

    /// Whose turn it would be in a route.
    struct Turn: Sendable {
        var tenant: Int
        /// The tenant's place in the route's heap, and the flow's within the tenant.
        var band: Entry
        var flow: Entry

        /// Tenants take turns; within one the priority counts, then the clients take turns.
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

    /// Puts the top where it belongs now.
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

    /// What stands at a place; in no order that means anything where all have the same pass.
    subscript(place: Int) -> Int { self.heap[place].index }

    /// Takes out the one at a place, where all have the same pass.
    mutating func remove(at place: Int) {
        self.heap.swapAt(place, self.heap.count - 1)
        self.heap.removeLast()
    }

    /// Takes out any entry.
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

/// The calls of one client in one route and priority, in the order they came.
struct Flow: BitwiseCopyable, Sendable {
    /// The client, or -1 once it is gone.
    var client: Int
    let route: Int
    let priority: UInt8
    /// Among whose calls the priority counts: its tenant's alone if it is higher than that may have.
    let level: UInt8
    /// The tenant's place in the route's heap of that level, while it is in its heap.
    var band = -1
    var calls = CallList()
    var served: UInt64 = 0
    /// How many calls had been sent when it was served last, or began to wait.
    var waitsSince: UInt64 = 0
    /// Its client doesn't read its answers: its calls wait for that, not for workers.
    var isAside = false
    /// One that was put aside leaves its heap when it comes to the top.
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

/// All calls that the same workers may take: of one function, with the same demands.
///
/// What it has besides, its demands, heaps and workers, stands in arrays of their own: to look at it must cost nothing.
struct CallRoute: BitwiseCopyable, Sendable {
    let function: Int
    /// Whether its calls occupy resources.
    let hasResources: Bool
    /// The tenant whose call made it.
    var owner = 0
    /// What its demands take.
    var byteCount = 0
    /// One bit per priority with calls that wait.
    var waitingLevels: UInt8 = 0
    var waitingCount = 0
    /// Calls that have not ended.
    var callCount = 0
    /// Workers that may take its calls.
    var workerCount = 0
    /// The worker that keeps resources free for it, or -1.
    var reservedWorker = -1
    /// How long it takes, on average, until the next call is answered.
    var intervalNanoseconds: UInt64 = 0
    /// How long its calls run.
    var run = RunMean()
    var lastAnswer = Instant(nanoseconds: 0)
    /// Whether there is such a route; the place of one that was forgotten is used again.
    var isLive = true

    init(function: Int, hasResources: Bool) {
        self.function = function
        self.hasResources = hasResources
    }

    /// The highest priority with a call that waits, or -1.
    var topPriority: Int { 7 - self.waitingLevels.leadingZeroBitCount }
}
