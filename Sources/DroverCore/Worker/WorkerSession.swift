// SPDX-License-Identifier: Apache-2.0

package import DroverWire

/// What a worker knows of one client.
package struct WorkerSession {
    /// Tells the sessions of this worker apart, also those with one client.
    package let number: UInt32
    package let client: PeerID
    /// The client's epoch.
    package let epoch: UInt64
    /// The client's name, for people.
    package let name: String
    /// Where its messages come from now; changes with each reconnection.
    package var route: UInt64
    /// Counts the connections that it had so far, from 1.
    package internal(set) var connection: UInt32 = 1
    package var session: PeerSession
    /// What its deadlines count from.
    var transit = TransitClock()
    /// The handler behind each function number, or ``unknownFunction``.
    package var functions: [Int32] = []
    /// Names of functions that no handler is registered for, for the error message.
    package var unknownNames: [UInt32: String] = [:]
    /// Requests that have not ended, by correlation id.
    package let requests: RequestIndex
    package var results: ResultCache

    /// Whether a client stands behind it; the place of one that has gone is used again.
    package private(set) var isLive = true

    package init(
        number: UInt32,
        client: PeerID,
        epoch: UInt64,
        name: String,
        route: UInt64,
        session: PeerSession,
        maxCachedBytes: Int,
        seed: UInt64
    ) {
        self.requests = RequestIndex(seed: seed)
        self.number = number
        self.client = client
        self.epoch = epoch
        self.name = name
        self.route = route
        self.session = session
        self.results = ResultCache(maxBytes: maxCachedBytes)
    }

    /// A function that the client may have named is served now.
    mutating func registered(_ name: String, as handler: Int32) {
        for number in self.unknownNames.filter({ $0.value == name }).keys {
            self.unknownNames[number] = nil
            self.functions[Int(number)] = handler
        }
    }

    /// The client is gone; gives its memory back.
    package mutating func end() {
        self.isLive = false
        self.functions = []
        self.unknownNames = [:]
        self.requests.clear()
        self.results = ResultCache(maxBytes: 0)
    }

    package static var unknownFunction: Int32 { -1 }
    package static var undefinedFunction: Int32 { -2 }
}

/// The requests of one session by correlation id, which its client chooses.
///
/// A reference, since sessions stand in an array and the index can't be copied.
package final class RequestIndex {
    // Only the machine it belongs to uses it, one access after the other.
    @safe @exclusivity(unchecked) private var index: IDIndex
    private let seed: UInt64

    init(seed: UInt64) {
        self.seed = seed
        self.index = IDIndex(seed: seed)
    }

    package var count: Int { self.index.count }

    /// The memory it takes.
    package var byteCount: Int { self.index.capacity * MemoryLayout<IDIndex.Entry>.stride }

    /// The slots of all requests, in no order.
    var slots: [UInt32] { self.index.slots }

    func find(_ id: UInt64) -> UInt32? { self.index.find(id) }

    func insert(_ id: UInt64, slot: UInt32) { _ = self.index.insert(id, slot: slot) }

    func remove(_ id: UInt64) { self.index.remove(id) }

    func clear() { self.index = IDIndex(seed: self.seed) }
}

/// One request that has not ended.
package struct WorkerRequest: Sendable {
    /// Index of the session, or -1 once the session is gone.
    package var session: Int32
    package let id: UInt64
    package let handler: Int32
    package var deadline: Instant
    package var state: State
    /// When it came, for the phase report.
    package let receivedAt: Instant
    /// Whether it has an ordering key.
    package let isKeyed: Bool
    /// Whether its arguments hold callbacks.
    package let hasCallbacks: Bool
    /// Whether its handler was asked to stop.
    package var isStopping = false
    /// Whether its handler has given its slot back.
    package var isReleased = false
    /// What it waits for while it is held: its ordering key, until that is its own.
    package var hold = HoldReason.none

    package enum State: UInt8, Sendable {
        /// Waits for its ordering key or its function's limit.
        case held
        /// Given to the handler threads.
        case dispatched
        /// Answered when its hard limit passed, or the grace after it was asked to stop; the handler hasn't ended.
        case abandoned
    }
}
