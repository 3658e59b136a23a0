// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverCore
internal import DroverWire

/// Events of one subscriber, one behind the other as they go over the wire; the loop fills in their numbers.
struct EventRun: Sendable {
    private var bytes: [UInt8] = []
    /// How many events it holds.
    private(set) var count = 0
    /// What they count in an ``EventWindow``.
    private(set) var units = 0

    /// Memory beyond this isn't kept for the next events.
    private static let keptBytes = 32 << 10

    var byteCount: Int { self.bytes.count }

    mutating func append(_ block: borrowing RequestBytes) {
        let header = Header(.event, payloadLength: UInt32(block.payloadCount))
        unsafe withUnsafeTemporaryAllocation(byteCount: Header.byteCount, alignment: 8) { place in
            guard let base = place.baseAddress else { return }
            unsafe header.write(to: base)
            unsafe self.bytes.append(contentsOf: place)
        }
        if let base = unsafe block.base {
            let payload = unsafe UnsafeRawBufferPointer(start: base + Header.byteCount, count: block.payloadCount)
            unsafe self.bytes.append(contentsOf: payload)
        }
        self.count += 1
        self.units += EventWindow.units(ofPayload: block.payloadCount)
    }

    /// Moves the first events to a run of their own.
    mutating func takeFirst(_ part: EventOutbox.Part) -> EventRun {
        var first = EventRun()
        first.bytes = Array(self.bytes[..<part.byteCount])
        first.count = part.count
        first.units = part.units
        self.bytes.removeFirst(part.byteCount)
        self.count -= part.count
        self.units -= part.units
        return first
    }

    mutating func removeAll() {
        self.count = 0
        self.units = 0
        if self.bytes.capacity > Self.keptBytes { self.bytes = [] } else { self.bytes.removeAll(keepingCapacity: true) }
    }

    /// Numbers the events and gives their bytes to `body`, as many together as have at most `pieceBytes` bytes: whole
    /// messages, and at least one.
    ///
    /// One with a payload of more than `limit` bytes takes its number as well, and goes to `refuse` with its size.
    mutating func number(
        from first: UInt64,
        subscription: UInt32,
        limit: Int,
        pieceBytes: Int,
        refuse: (Int) -> Void,
        _ body: (UnsafeRawBufferPointer) -> Void
    ) {
        unsafe self.bytes.withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress else { return }
            var sequence = first
            var start = 0
            var end = 0
            func giveOut() {
                guard end > start else { return }
                unsafe body(UnsafeRawBufferPointer(start: base + start, count: end - start))
            }
            while end < bytes.count {
                let place = unsafe base + end
                let count = unsafe Header.numberEvent(at: place, sequence: sequence, subscription: subscription)
                let next = end + Header.byteCount + count
                sequence &+= 1
                if count > limit {
                    giveOut()
                    refuse(count)
                    start = next
                } else if next - start > pieceBytes, end > start {
                    giveOut()
                    start = end
                }
                end = next
            }
            giveOut()
        }
    }
}

/// The events of a subscriber that its worker's loop has not taken, how many the client has not read, and who waits for room.
///
/// The first one is announced to the loop, those behind it go with it, so that neither memory nor a post is needed for
/// each. Where something else of the subscriber's is posted in between, the run is closed, and the next event announced
/// again: what one thread says is heard in its order.
struct EventOutbox: Sendable {
    /// How much of a run belongs together.
    struct Part: Sendable {
        var count = 0
        var byteCount = 0
        var units = 0
    }

    private var run = EventRun()
    /// Runs that are closed and not taken, in the front of `run`.
    private var closed: [Part] = []
    /// The loop knows of the run behind the closed ones.
    private var isAnnounced = false
    /// What is between handlers and the client's poller.
    var window = EventWindow()
    /// The client has asked for a pause.
    private(set) var isPaused = false
    /// Handlers that wait for room.
    private(set) var waiters: [PendingReply] = []

    var hasRoom: Bool { !self.isPaused && self.window.hasRoom }

    /// Adds an event, for which there is room.
    ///
    /// - Returns: Whether the loop must be told.
    mutating func append(_ block: borrowing RequestBytes) -> Bool {
        self.window.take(EventWindow.units(ofPayload: block.payloadCount))
        self.run.append(block)
        if self.isAnnounced { return false }
        self.isAnnounced = true
        return true
    }

    /// An event that is posted by itself.
    mutating func largePosted(byteCount: Int) {
        self.close()
        self.window.take(EventWindow.units(ofPayload: byteCount))
    }

    /// What comes now isn't to be sent with what is there.
    mutating func close() {
        guard self.isAnnounced else { return }
        self.isAnnounced = false
        var part = Part(count: self.run.count, byteCount: self.run.byteCount, units: self.run.units)
        for before in self.closed {
            part.count -= before.count
            part.byteCount -= before.byteCount
            part.units -= before.units
        }
        self.closed.append(part)
    }

    /// Takes what one announcement stands for; `spare` is an empty run, whose memory is used on.
    mutating func take(leaving spare: consuming EventRun) -> EventRun {
        guard self.closed.isEmpty else { return self.run.takeFirst(self.closed.removeFirst()) }
        self.isAnnounced = false
        return exchange(&self.run, with: spare)
    }

    mutating func pause(_ isPaused: Bool) { self.isPaused = isPaused }

    mutating func add(_ waiter: PendingReply) { self.waiters.append(waiter) }

    mutating func remove(_ waiter: PendingReply) { self.waiters.removeAll { $0 === waiter } }

    /// Those who wait, if it is worth their while to look again.
    mutating func waitersToWake() -> [PendingReply] {
        guard !self.waiters.isEmpty, !self.isPaused, self.window.isHalfEmpty else { return [] }
        return self.takeWaiters()
    }

    mutating func takeWaiters() -> [PendingReply] { exchange(&self.waiters, with: []) }
}

/// What a worker tells a peer and asks it about: whether it has read it.
protocol Told: AnyObject, Sendable {
    /// Nobody waits for it to be read any more.
    var isOver: Bool { get }
    /// The PING that asks, behind what was sent.
    func question(_ nonce: UInt64, in session: Int, of loop: WorkerLoop) -> (header: Header, payload: [UInt8])
    /// The peer has read what it was asked about, or that was lost with a connection.
    ///
    /// - Returns: Whether it is to be asked again.
    func read() -> Bool
}

/// The questions that a peer has not answered, by the numbers of their PINGs.
struct OpenQuestions {
    private var open: [UInt64: any Told] = [:]
    private var lastNonce: UInt64 = 0

    var isEmpty: Bool { self.open.isEmpty }

    mutating func ask(about told: any Told) -> UInt64 {
        let nonce = self.nextNonce()
        self.open[nonce] = told
        return nonce
    }

    /// A number for a question about something else.
    mutating func nextNonce() -> UInt64 {
        self.lastNonce &+= 1
        return self.lastNonce
    }

    mutating func answered(_ nonce: UInt64) -> (any Told)? { self.open.removeValue(forKey: nonce) }

    /// All of them, in the order in which they were asked: an answer to them is not waited for any more.
    mutating func takeAll() -> [any Told] {
        defer { self.open = [:] }
        return self.open.sorted { $0.key < $1.key }.map { $0.value }
    }
}
