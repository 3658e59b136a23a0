// SPDX-License-Identifier: Apache-2.0

package import DroverWire

/// What a request demands of a worker besides the function.
package struct Demands: Hashable, Sendable {
    package var queue: String
    /// The worker must have all of them.
    package var labels: [String: String]
    /// What the request occupies while it runs.
    package var resources: [String: UInt64]

    package init(queue: String = "", labels: [String: String] = [:], resources: [String: UInt64] = [:]) {
        self.queue = queue
        self.labels = labels
        self.resources = resources
    }

    /// Roughly how many bytes the demands take.
    var byteCount: Int {
        let labels = self.labels.reduce(0) { $0 + 64 + $1.key.utf8.count + $1.value.utf8.count }
        let resources = self.resources.reduce(0) { $0 + 48 + $1.key.utf8.count }
        return self.queue.utf8.count + labels + resources
    }
}

/// What a worker says that it can do.
package struct WorkerOffer: Equatable, Sendable {
    package var worker: PeerID
    package var epoch: UInt64
    package var name: String
    package var concurrency: Int
    /// How many handlers are stuck; shown to people only.
    package var stuck: Int
    package var functions: [String]
    package var queues: Set<String>
    package var labels: [String: String]
    package var resources: [String: UInt64]
    /// Whether it sends something as soon as a closed connection is back.
    package var notices: Bool

    package init(
        worker: PeerID,
        epoch: UInt64,
        name: String = "",
        concurrency: Int = 1,
        stuck: Int = 0,
        functions: [String],
        queues: Set<String> = [""],
        labels: [String: String] = [:],
        resources: [String: UInt64] = [:],
        notices: Bool = false
    ) {
        self.worker = worker
        self.epoch = epoch
        self.name = name
        // Sums over all workers must not overflow, whatever a worker says.
        self.concurrency = min(max(1, concurrency), 1 << 16)
        self.stuck = stuck
        self.functions = functions
        self.queues = queues
        self.labels = labels
        self.resources = resources
        self.notices = notices
    }

    /// Whether it can satisfy demands when it has nothing else to do.
    package func satisfies(_ demands: Demands) -> Bool {
        self.queues.contains(demands.queue)
            && demands.labels.allSatisfy { self.labels[$0.key] == $0.value }
            && demands.resources.allSatisfy { self.resources[$0.key, default: 0] >= $0.value }
    }
}

/// A set of numbers, made for small ones.
struct NumberSet: Equatable, Sendable {
    private var words: [UInt64] = []

    var isEmpty: Bool { self.words.allSatisfy { $0 == 0 } }

    func contains(_ number: Int) -> Bool {
        number >> 6 < self.words.count && self.words[number >> 6] & (1 << UInt64(number & 63)) != 0
    }

    mutating func insert(_ number: Int) {
        while self.words.count <= number >> 6 { self.words.append(0) }
        self.words[number >> 6] |= 1 << UInt64(number & 63)
    }

    /// The first number from `start` on that is in both sets.
    func first(from start: Int, sharedWith other: borrowing Self) -> Int? {
        let count = min(self.words.count, other.words.count)
        var index = start >> 6
        guard index < count else { return nil }
        var word = self.words[index] & other.words[index] & (~0 << UInt64(start & 63))
        while word == 0 {
            index += 1
            guard index < count else { return nil }
            word = self.words[index] & other.words[index]
        }
        return index << 6 | word.trailingZeroBitCount
    }

    mutating func remove(_ number: Int) {
        if number >> 6 < self.words.count { self.words[number >> 6] &= ~(1 << UInt64(number & 63)) }
    }
}
