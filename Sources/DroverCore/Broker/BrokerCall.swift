// SPDX-License-Identifier: Apache-2.0

internal import DroverWire

/// What a broker knows about one call that has not ended: 72 bytes.
package struct BrokerCall: BitwiseCopyable, Sendable {
    /// Where a call is.
    package enum State: UInt8, BitwiseCopyable, Sendable {
        /// Waits behind another call of its ordering key.
        case held
        /// Waits in a flow.
        case queued
        /// Waits for a worker without other calls: it may have been running when workers died.
        case apart
        /// At a worker.
        case sent
        /// Ended; the slot is free.
        case ended
    }

    /// The client's correlation id.
    package let id: UInt64
    package internal(set) var deadline: Instant
    /// The id that the worker which has it knows it by; 0 while none has.
    package internal(set) var workerID: UInt64 = 0
    /// The client, or -1 once it is gone.
    package internal(set) var client: Int32
    let route: UInt32
    /// The worker that has it, or -1.
    package internal(set) var worker: Int32 = -1
    /// Its ordering key, or ``CallSlab/none``.
    let key: UInt32
    var next = CallSlab.none
    var previous = CallSlab.none
    /// How many bytes its request takes, including its header.
    let byteCount: UInt32
    /// The tenant it belongs to, even after its client is gone.
    let tenant: UInt32
    /// When it arrived, in milliseconds; only the lower half is kept.
    private let cameAt: UInt32
    package let priority: UInt8
    /// The priority that counts against other tenants.
    let level: UInt8
    /// How often it was sent to a worker that may have run it.
    package internal(set) var sends: UInt8 = 0
    /// During how many worker deaths it may have been running.
    package internal(set) var attempts: UInt8
    /// How often it was taken back from a worker that didn't die.
    var moves: UInt8 = 0
    /// How often it was declined.
    var declines: UInt8 = 0
    package internal(set) var state = State.held
    /// What it waits for at its worker, if that is not a slot.
    var hold = HoldReason.none
    private var flags: Flags = []

    var isIdempotent: Bool { self.flags.contains(.idempotent) }
    /// Whether it stands for several calls: after a worker's death its client must tell them apart.
    var isBundle: Bool { self.flags.contains(.bundle) }
    /// Whether its client no longer wants it, while a worker has yet to say what happened to it.
    var isCancelled: Bool {
        get { self.flags.contains(.cancelled) }
        set { self.flags[.cancelled] = newValue }
    }
    /// Whether the worker was asked to give it back.
    var isRecalled: Bool {
        get { self.flags.contains(.recalled) }
        set { self.flags[.recalled] = newValue }
    }
    /// Whether an operator cancelled it: its client, which may still want it, is told so.
    var isRevoked: Bool {
        get { self.flags.contains(.revoked) }
        set { self.flags[.revoked] = newValue }
    }
    /// Whether its client was told that it waits for a slot held by a handler that itself waits for a call, or that its
    /// handler waits for such a call.
    package internal(set) var isStalled: Bool {
        get { self.flags.contains(.stalled) }
        set { self.flags[.stalled] = newValue }
    }
    /// Whether its client was told that no worker may run it.
    package internal(set) var isUnserved: Bool {
        get { self.flags.contains(.unserved) }
        set { self.flags[.unserved] = newValue }
    }
    /// Whether its worker has said that it runs.
    package internal(set) var isStarted: Bool {
        get { self.flags.contains(.started) }
        set { self.flags[.started] = newValue }
    }

    /// Eight flags in one byte: there may be a million calls.
    private struct Flags: OptionSet, BitwiseCopyable {
        let rawValue: UInt8

        static var idempotent: Self { Self(rawValue: 1) }
        static var bundle: Self { Self(rawValue: 2) }
        static var cancelled: Self { Self(rawValue: 4) }
        static var recalled: Self { Self(rawValue: 8) }
        static var revoked: Self { Self(rawValue: 16) }
        static var stalled: Self { Self(rawValue: 32) }
        static var unserved: Self { Self(rawValue: 64) }
        static var started: Self { Self(rawValue: 128) }

        subscript(flag: Flags) -> Bool {
            get { self.contains(flag) }
            set { if newValue { self.insert(flag) } else { self.remove(flag) } }
        }
    }

    var isWaiting: Bool { self.state == .held || self.state == .queued || self.state == .apart }

    /// How long it has been here; wraps around after more than 49 days.
    func milliseconds(at now: Instant) -> Int { Int(Self.milliseconds(now) &- self.cameAt) }

    private static func milliseconds(_ instant: Instant) -> UInt32 {
        UInt32(truncatingIfNeeded: instant.nanoseconds / 1_000_000)
    }

    init(
        _ request: BrokerRequest,
        client: Int,
        tenant: Int,
        highestLevel: UInt8,
        route: Int,
        key: UInt32,
        deadline: Instant,
        at now: Instant
    ) {
        self.id = request.id
        self.deadline = deadline
        self.client = Int32(client)
        self.route = UInt32(route)
        self.key = key
        self.tenant = UInt32(tenant)
        self.priority = min(request.priority, FairQueue.highestPriority)
        self.level = min(self.priority, highestLevel)
        if request.isIdempotent { self.flags.insert(.idempotent) }
        self.attempts = request.attempts
        if request.isBundle { self.flags.insert(.bundle) }
        self.byteCount = UInt32(clamping: request.byteCount)
        self.cameAt = Self.milliseconds(now)
    }
}

/// A request as its client sent it, metadata included.
package struct BrokerRequest: Equatable, Sendable {
    package var id: UInt64
    /// The client's number for the function.
    package var number: UInt32
    /// How many bytes it takes, including its header.
    package var byteCount = 0
    /// The milliseconds left.
    package var time = Header.noTimeLimit
    package var isIdempotent = false
    /// Whether it stands for several calls.
    package var isBundle = false
    /// During how many worker deaths it may have been running before.
    package var attempts: UInt8 = 0
    package var isResent = false
    package var isRenewed = false
    package var priority = FairQueue.standardPriority
    /// What it demands of a worker besides the function; nil if nothing.
    package var demands: Demands?
    /// The ordering key.
    package var key: String?

    package init(id: UInt64, number: UInt32) {
        self.id = id
        self.number = number
    }
}

/// Calls in slots whose numbers stay the same.
struct CallSlab: ~Copyable {
    static var none: UInt32 { .max }

    private var calls = OwnedBuffer<BrokerCall>()
    private var firstFree = CallSlab.none
    private var used = 0
    private(set) var count = 0

    var capacity: Int { self.calls.count }

    subscript(slot: UInt32) -> BrokerCall {
        get { self.calls[Int(slot)] }
        _modify { yield &self.calls[Int(slot)] }
    }

    mutating func insert(_ call: BrokerCall) -> UInt32 {
        self.count &+= 1
        if self.firstFree != Self.none {
            let slot = self.firstFree
            self.firstFree = self.calls[Int(slot)].next
            self.calls[Int(slot)] = call
            return slot
        }
        if self.used == self.calls.count { self.calls.resize(to: max(64, self.used + self.used / 2), filling: call) }
        self.calls[self.used] = call
        self.used &+= 1
        return UInt32(self.used - 1)
    }

    mutating func remove(_ slot: UInt32) {
        self.calls[Int(slot)].next = self.firstFree
        self.calls[Int(slot)].state = .ended
        self.firstFree = slot
        self.count &-= 1
    }

    /// The calls that wait for a worker and satisfy a condition.
    func queued(where isWanted: (BrokerCall) -> Bool) -> [UInt32] {
        (0..<self.used).filter { self.calls[$0].state == .queued && isWanted(self.calls[$0]) }.map { UInt32($0) }
    }

    /// Releases memory, but only if the slab is empty.
    mutating func trim() {
        guard self.count == 0 else { return }
        self.calls = OwnedBuffer()
        self.firstFree = Self.none
        self.used = 0
    }

    mutating func append(_ slot: UInt32, to list: inout CallList) {
        self.calls[Int(slot)].previous = list.last
        self.calls[Int(slot)].next = Self.none
        if list.last == Self.none { list.first = slot } else { self.calls[Int(list.last)].next = slot }
        list.last = slot
        list.count += 1
    }

    mutating func prepend(_ slot: UInt32, to list: inout CallList) {
        self.calls[Int(slot)].next = list.first
        self.calls[Int(slot)].previous = Self.none
        if list.first == Self.none { list.last = slot } else { self.calls[Int(list.first)].previous = slot }
        list.first = slot
        list.count += 1
    }

    mutating func unlink(_ slot: UInt32, from list: inout CallList) {
        let (previous, next) = (self.calls[Int(slot)].previous, self.calls[Int(slot)].next)
        if previous == Self.none { list.first = next } else { self.calls[Int(previous)].next = next }
        if next == Self.none { list.last = previous } else { self.calls[Int(next)].previous = previous }
        list.count -= 1
    }

    /// The slots of a list, which may change afterwards.
    func slots(of list: CallList) -> [UInt32] {
        var slots: [UInt32] = []
        slots.reserveCapacity(list.count)
        var slot = list.first
        while slot != Self.none {
            slots.append(slot)
            slot = self.calls[Int(slot)].next
        }
        return slots
    }
}

/// A linked list of calls; the links are in the calls, so a call is in one list at a time.
struct CallList: BitwiseCopyable, Sendable {
    var first = CallSlab.none
    var last = CallSlab.none
    var count = 0
}
