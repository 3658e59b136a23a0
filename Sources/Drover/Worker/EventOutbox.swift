// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverWire

/// Events of one subscriber, one behind the other as they go over the wire; the loop fills in their numbers.
struct EventRun: Sendable {
    private var bytes: [UInt8] = []
    /// How many events it holds.
    private(set) var count = 0

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
    }

    /// Moves the first events, which take so many bytes, to a run of their own.
    mutating func takeFirst(_ count: Int, byteCount: Int) -> EventRun {
        var first = EventRun()
        first.bytes = Array(self.bytes[..<byteCount])
        first.count = count
        self.bytes.removeFirst(byteCount)
        self.count -= count
        return first
    }

    mutating func removeAll() {
        self.count = 0
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

/// The events of a subscriber that its worker's loop has not taken, and how many the client has not read.
///
/// The first one is announced to the loop, those behind it go with it, so that neither memory nor a post is needed for
/// each. Where something else of the subscriber's is posted in between, the run is closed, and the next event announced
/// again: what one thread says is heard in its order.
struct EventOutbox: Sendable {
    private var run = EventRun()
    /// Runs that are closed and not taken: how many events and bytes each has, in the front of `run`.
    private var closed: [(count: Int, byteCount: Int)] = []
    /// The loop knows of the run behind the closed ones.
    private var isAnnounced = false
    /// Events that the loop has taken, or that go by themselves, and that the client hasn't read as far as is known.
    private var unreadCount = 0

    /// How many events are between their handler and the client's poller.
    var count: Int { self.run.count + self.unreadCount }

    /// Adds an event.
    ///
    /// - Returns: Whether the loop must be told.
    mutating func append(_ block: borrowing RequestBytes) -> Bool {
        self.run.append(block)
        if self.isAnnounced { return false }
        self.isAnnounced = true
        return true
    }

    /// An event that is posted by itself.
    mutating func largePosted() {
        self.close()
        self.unreadCount += 1
    }

    /// The client has read so many, or they were dropped.
    mutating func read(_ count: Int) { self.unreadCount -= count }

    /// What comes now isn't to be sent with what is there.
    mutating func close() {
        guard self.isAnnounced else { return }
        self.isAnnounced = false
        let before = self.closed.reduce((0, 0)) { ($0.0 + $1.count, $0.1 + $1.byteCount) }
        self.closed.append((self.run.count - before.0, self.run.byteCount - before.1))
    }

    /// Takes what one announcement stands for; `spare` is an empty run, whose memory is used on.
    mutating func take(leaving spare: consuming EventRun) -> EventRun {
        let taken: EventRun
        if self.closed.isEmpty {
            self.isAnnounced = false
            taken = exchange(&self.run, with: spare)
        } else {
            let (count, byteCount) = self.closed.removeFirst()
            taken = self.run.takeFirst(count, byteCount: byteCount)
        }
        self.unreadCount += taken.count
        return taken
    }
}

/// The events that a peer was sent and that it has perhaps not read.
///
/// Between a worker and its client there is room for hundreds of thousands of events: in libzmq, in the kernel. A client
/// that asks for a pause would get them all the same. So after every few thousand events the worker asks for a PONG,
/// which the client gives when it has read what came before, and handlers get ahead of it by no more than a bound.
struct UnreadEvents {
    /// So many are sent before the peer is asked how far it is.
    static let period = Subscriber.unreadLimit / 4

    private var sent: [(subscriber: Subscriber, count: Int)] = []
    private var sentCount = 0
    /// What was sent before the PING that isn't answered.
    private var asked: [(subscriber: Subscriber, count: Int)] = []
    private var nonce: UInt64 = 0

    /// Events were sent.
    ///
    /// - Returns: The id of the PING that is to be sent behind them, if one is.
    mutating func sent(_ count: Int, of subscriber: Subscriber) -> UInt64? {
        self.sentCount += count
        if let last = self.sent.indices.last, self.sent[last].subscriber === subscriber {
            self.sent[last].count += count
        } else {
            self.sent.append((subscriber, count))
        }
        return self.askIfDue()
    }

    /// The peer has answered a PING.
    ///
    /// - Returns: The id of the next one, if one is due.
    mutating func answered(_ nonce: UInt64) -> UInt64? {
        guard nonce == self.nonce else { return nil }
        self.settleAsked()
        return self.askIfDue()
    }

    /// There will be no answer: the connection that the PING went by is gone, or the peer gives none.
    mutating func giveUp() {
        self.settleAsked()
        for (subscriber, count) in self.sent { subscriber.read(count) }
        self.sent.removeAll(keepingCapacity: true)
        self.sentCount = 0
    }

    private mutating func askIfDue() -> UInt64? {
        guard self.asked.isEmpty, self.sentCount >= Self.period else { return nil }
        swap(&self.asked, &self.sent)
        self.sentCount = 0
        self.nonce &+= 1
        return self.nonce
    }

    private mutating func settleAsked() {
        for (subscriber, count) in self.asked { subscriber.read(count) }
        self.asked.removeAll(keepingCapacity: true)
    }
}
