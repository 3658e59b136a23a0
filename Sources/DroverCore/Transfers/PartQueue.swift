// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
package import DroverWire

/// The messages that go out in parts by one link, and whose turn it is.
///
/// A few go at once, taking turns, so that a shorter one isn't held up by a longer one; the others wait in order. The receiver
/// keeps what has come of each, so they may not be many.
package struct PartQueue<Source>: ~Copyable {
    /// So many messages are under way at once.
    package static var mostAtOnce: Int { 4 }

    private struct Transfer {
        let id: UInt64
        var message: Header
        var deadline: Instant
        let source: Source
        /// The bytes of the message that were sent: its header first, as a part of its own.
        var sent = 0
        /// The other side has room for it.
        var isGranted = false
        var count: Int { Header.byteCount + Int(self.message.payloadLength) }
    }

    /// What to send next.
    package enum Part {
        /// The message's header, which begins the transfer.
        case header(Header, transfer: UInt64)
        /// A piece of its payload. `end` is counted from the message's first byte.
        case payload(Source, Range<Int>, transfer: UInt64, end: Int)
    }

    /// Those that take turns, the next one first.
    private var active: Deque<Transfer> = []
    private var waiting: Deque<Transfer> = []
    private var lastID: UInt64 = 0
    package private(set) var window = PartWindow()

    package init() {}

    package var isEmpty: Bool { self.active.isEmpty && self.waiting.isEmpty }
    /// How many messages have not gone out wholly.
    package var count: Int { self.active.count + self.waiting.count }

    /// Adds a message.
    ///
    /// - Parameters:
    ///   - message: Its header, with the payload's length.
    ///   - deadline: What its time is counted to when it goes out; nil to leave the time as it is.
    ///   - source: Its payload.
    package mutating func add(_ message: Header, deadline: Instant?, _ source: Source) {
        self.lastID += 1
        let transfer = Transfer(id: self.lastID, message: message, deadline: deadline ?? .distantFuture, source: source)
        self.waiting.append(transfer)
    }

    /// What to send now; nil if nothing may be, until a part is acknowledged.
    package mutating func next(at now: Instant) -> Part? {
        if self.active.count < Self.mostAtOnce, var first = self.waiting.popFirst() {
            if first.deadline != .distantFuture { first.message.time = first.deadline.headerTime(at: now) }
            first.sent = Header.byteCount
            self.active.append(first)
            return .header(first.message, transfer: first.id)
        }
        guard self.window.isOpen, let index = self.active.firstIndex(where: { $0.isGranted }) else { return nil }
        var transfer = self.active.remove(at: index)
        let start = transfer.sent
        transfer.sent = min(transfer.count, start + PartWindow.partBytes)
        let range = start - Header.byteCount..<transfer.sent - Header.byteCount
        self.window.sent(transfer.id, end: transfer.sent, count: range.count, at: now)
        if transfer.sent < transfer.count { self.active.append(transfer) }
        return .payload(transfer.source, range, transfer: transfer.id, end: transfer.sent)
    }

    /// The other side has a part; with the first one it says that there is room for the others.
    ///
    /// - Parameters:
    ///   - transfer: The message's.
    ///   - end: Where the part ends in the message.
    ///   - isWanted: Whether the rest is.
    ///   - now: When that came.
    package mutating func acknowledged(_ transfer: UInt64, end: Int, isWanted: Bool = true, at now: Instant) {
        // The first part may wait for room there, which says nothing of the way.
        if end > Header.byteCount { self.window.acknowledged(transfer, end: end, at: now) }
        guard let index = self.active.firstIndex(where: { $0.id == transfer }) else { return }
        if isWanted { self.active[index].isGranted = true } else { self.active.remove(at: index) }
    }

    /// Nobody wants a message any more.
    ///
    /// - Returns: Whether it was on its way.
    @discardableResult
    package mutating func cancel(_ kinds: (MessageKind) -> Bool, id: UInt64) -> Bool {
        let before = self.count
        func isMeant(_ transfer: Transfer) -> Bool {
            transfer.message.id == id && transfer.message.kind.map(kinds) == true
        }
        self.active.removeAll(where: isMeant)
        self.waiting.removeAll(where: isMeant)
        return self.count < before
    }

    /// The deadline of a request was moved: one that has not begun goes out with what is left of it then.
    package mutating func move(_ id: UInt64, to deadline: Instant) {
        guard let index = self.waiting.firstIndex(where: { $0.message.id == id && $0.message.kind == .request })
        else { return }
        self.waiting[index].deadline = deadline
        if deadline == .distantFuture { self.waiting[index].message.time = Header.noTimeLimit }
    }

    /// The connection is another, or the session: who wants a message still asks for it again.
    package mutating func reset() {
        self.active.removeAll()
        self.waiting.removeAll()
        self.window.reset()
    }
}
