// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import DroverZMQ

/// Who waits for a place for an outstanding call.
enum PlaceWaiter: Sendable {
    case task(Resumption<Bool>)
    case thread(ReadySignal<Bool>)

    /// Tells whether there is a place.
    func answer(_ hasPlace: Bool) {
        switch self {
        case .task(let continuation): continuation.resume(returning: hasPlace)
        case .thread(let signal): signal.set(hasPlace)
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
