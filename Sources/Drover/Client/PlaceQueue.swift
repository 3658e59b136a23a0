// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import DroverZMQ

/// What becomes of a wait for a place.
enum PlaceAnswer: Sendable {
    /// It was taken.
    case hasPlace
    /// The task that waited was cancelled.
    case isCancelled
    /// The poller was stopped, and nothing makes room any more.
    case isStopped
}

/// Who waits for a place for an outstanding call.
enum PlaceWaiter: Sendable {
    case task(Resumption<PlaceAnswer>)
    case thread(ReadySignal<PlaceAnswer>)

    func answer(_ answer: PlaceAnswer) {
        switch self {
        case .task(let continuation): continuation.resume(returning: answer)
        case .thread(let signal): signal.set(answer)
        }
    }
}

/// Those who wait for places, in the order they came.
///
/// Any number of tasks may wait and be cancelled at once, so whoever gives up is found by a key, and leaves a gap that is
/// passed over later.
struct PlaceQueue: Sendable {
    private var order = Deque<UInt64>()
    private var waiters: [UInt64: PlaceWaiter] = [:]

    var isEmpty: Bool { self.waiters.isEmpty }
    var count: Int { self.waiters.count }

    mutating func append(_ waiter: PlaceWaiter, as key: UInt64) {
        self.order.append(key)
        self.waiters[key] = waiter
    }

    /// Takes the one who came first.
    mutating func takeFirst() -> PlaceWaiter? {
        while let key = self.order.popFirst() {
            if let waiter = self.waiters.removeValue(forKey: key) { return waiter }
        }
        return nil
    }

    /// Takes one who waits no longer; nil if it was served.
    mutating func remove(_ key: UInt64) -> PlaceWaiter? {
        guard let waiter = self.waiters.removeValue(forKey: key) else { return nil }
        if self.order.count > 2 * self.waiters.count + 64 {
            let waiters = self.waiters
            self.order.removeAll { waiters[$0] == nil }
        }
        return waiter
    }
}
