// SPDX-License-Identifier: Apache-2.0

/// Which of the clients that have calls in a route goes next: one heap of flows per priority.
///
/// Every client has a number, its pass, that rises with each call that is sent for it out of a queue. The client with the
/// lowest goes next. A client's pass may rise while its flows wait in other routes' heaps: a flow whose place is out of
/// date is put back with the pass that it has now when it comes to the top, which can't be too late, since passes only
/// rise.
package struct FairQueue: Sendable {
    /// The highest priority.
    package static var highestPriority: UInt8 { 7 }
    /// The priority of requests that say none.
    package static var standardPriority: UInt8 { 4 }

    struct Entry: Sendable {
        var pass: UInt64
        /// When the flow was served last, among those of the same pass.
        var served: UInt64
        var flow: Int

        static func < (lhs: Self, rhs: Self) -> Bool {
            lhs.pass != rhs.pass ? lhs.pass < rhs.pass : lhs.served < rhs.served
        }
    }

    private var heap: [Entry] = []

    var top: Entry? { self.heap.first }
    var count: Int { self.heap.count }
    var flows: [Int] { self.heap.map(\.flow) }

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

    /// Empties it; returns the flows.
    mutating func removeAll() -> [Int] {
        let flows = self.heap.map(\.flow)
        self.heap.removeAll(keepingCapacity: true)
        return flows
    }

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
struct Flow: Sendable {
    /// The client, or -1 once it is gone.
    var client: Int
    let route: Int
    let priority: UInt8
    var calls = CallList()
    var served: UInt64 = 0
}

/// All calls that the same workers may take: of one function, with the same demands.
struct CallRoute: Sendable {
    let function: Int
    let demands: Demands
    /// One heap per priority.
    var levels = [FairQueue](repeating: FairQueue(), count: Int(FairQueue.highestPriority) + 1)
    /// Calls that wait, per priority.
    var waiting = [Int](repeating: 0, count: Int(FairQueue.highestPriority) + 1)
    var waitingCount = 0
    /// Its place among the routes with calls that wait, or -1.
    var place = -1
    /// Calls that have not ended.
    var callCount = 0
    /// Workers that may take its calls.
    var workerCount = 0
    /// How long it takes, on average, until the next call is answered.
    var intervalNanoseconds: UInt64 = 0
    var lastAnswer = Instant(nanoseconds: 0)

    init(function: Int, demands: Demands) {
        self.function = function
        self.demands = demands
    }

    /// The highest priority with a call that waits.
    var topPriority: Int? { self.waiting.lastIndex { $0 > 0 } }
}
