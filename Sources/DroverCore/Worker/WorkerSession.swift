// SPDX-License-Identifier: Apache-2.0

package import DroverWire

/// What a worker knows about one client.
package struct WorkerSession {
    /// Tells the sessions of this worker apart, including those with the same client.
    package let number: UInt32
    package let client: PeerID
    /// The client's epoch.
    package let epoch: UInt64
    /// The client's name, shown to people.
    package let name: String
    /// Where its messages come from now; changes with each reconnection.
    package var route: UInt64
    /// Counts the connections that it has had so far, from 1.
    package internal(set) var connection: UInt32 = 1
    package var session: PeerSession
    /// The clock that its deadlines count from.
    var transit = TransitClock()
    /// The handler behind each function number, or ``unknownFunction``.
    package var functions: [Int32] = []
    /// Names of functions without a registered handler, for error messages.
    package var unknownNames: [UInt32: String] = [:]
    /// Requests that have not ended, by correlation id.
    package let requests: RequestIndex
    package var results: ResultCache

    /// Whether the session has a client; the place of one whose client is gone is reused.
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

    /// A function that the client may have named is now served.
    mutating func registered(_ name: String, as handler: Int32) {
        for number in self.unknownNames.filter({ $0.value == name }).keys {
            self.unknownNames[number] = nil
            self.functions[Int(number)] = handler
        }
    }

    /// The client is gone: releases its memory.
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

/// The requests of one session, by the correlation ids that its client chooses.
///
/// It is a class because sessions are in an array and the index can't be copied.
package final class RequestIndex {
    // Only the machine it belongs to uses it, with one access after the other.
    @safe @exclusivity(unchecked) private var index: IDIndex
    private let seed: UInt64

    init(seed: UInt64) {
        self.seed = seed
        self.index = IDIndex(seed: seed)
    }

    package var count: Int { self.index.count }

    /// How many bytes of memory it takes.
    package var byteCount: Int { self.index.capacity * MemoryLayout<IDIndex.Entry>.stride }

    /// The slots of all requests, in no particular order.
    var slots: [UInt32] { self.index.slots }

    func find(_ id: UInt64) -> UInt32? { self.index.find(id) }

    func insert(_ id: UInt64, slot: UInt32) { _ = self.index.insert(id, slot: slot) }

    func remove(_ id: UInt64) { self.index.remove(id) }

    func clear() { self.index = IDIndex(seed: self.seed) }
}

/// One request that has not ended.
package struct WorkerRequest: Sendable {
    /// The index of the session, or -1 once the session is gone.
    package var session: Int32
    package let id: UInt64
    package let handler: Int32
    package var deadline: Instant
    package var state: State
    /// When it arrived, for the phase report.
    package let receivedAt: Instant
    /// Whether it has an ordering key.
    package let isKeyed: Bool
    /// Whether its arguments contain callbacks.
    package let hasCallbacks: Bool
    /// Whether its handler was asked to stop.
    package var isStopping = false
    /// Whether its handler has given up its slot.
    package var isReleased = false
    /// What it waits for while it is held: its ordering key, until it has the key.
    package var hold = HoldReason.none

    package enum State: UInt8, Sendable {
        /// It waits for its ordering key or its function's limit.
        case held
        /// It was given to the handler threads.
        case dispatched
        /// It was answered when its hard limit passed, or when the grace period passed after it was asked to stop; the
        /// handler hasn't ended.
        case abandoned
    }
}
