// SPDX-License-Identifier: Apache-2.0

package import DroverWire

/// The messages that arrive in parts over one link.
package struct PartAssembly<Buffer>: ~Copyable {
    private struct Transfer {
        let id: UInt64
        var message: Header
        /// When a request's time is up.
        var deadline: Instant
        let buffer: Buffer
        var received: Int
        /// When it was begun or last continued, counted in parts received.
        var touched: UInt64
        var count: Int { Header.byteCount + Int(self.message.payloadLength) }
    }

    /// Where a part's bytes go.
    package struct Place {
        package let buffer: Buffer
        package let offset: Int
        /// The message's header, if these bytes complete it; a request's time is what is left now.
        package let whole: Header?
    }

    /// There are few at once, so this is an array.
    private var transfers: [Transfer] = []
    private var partCount: UInt64 = 0

    package init() {}

    package var isEmpty: Bool { self.transfers.isEmpty }
    package var count: Int { self.transfers.count }

    /// A message begins.
    ///
    /// - Parameters:
    ///   - id: Its transfer's number.
    ///   - message: Its header.
    ///   - deadline: When a request's time is up, whenever its first part arrived.
    ///   - buffer: Where its bytes go.
    /// - Returns: How many others are dropped. A sender begins an unfinished message anew, with whatever transfer. It
    ///   announces which transfers it gives up, and has few under way at once. If a sender that doesn't has too many,
    ///   the one that has not continued for the longest time is dropped, because those that are under way take turns.
    @discardableResult
    package mutating func begin(_ id: UInt64, _ message: Header, deadline: Instant, in buffer: Buffer) -> Int {
        let before = self.transfers.count
        self.transfers.removeAll {
            $0.id == id
                || ($0.message.id == message.id && $0.message.rawKind == message.rawKind
                    && $0.message.number == message.number)
        }
        if self.transfers.count >= PartQueue<Buffer>.mostAtOnce,
            let idle = self.transfers.indices.min(by: { self.transfers[$0].touched < self.transfers[$1].touched })
        {
            self.transfers.remove(at: idle)
        }
        let dropped = before - self.transfers.count
        self.partCount += 1
        self.transfers.append(
            Transfer(
                id: id,
                message: message,
                deadline: deadline,
                buffer: buffer,
                received: Header.byteCount,
                touched: self.partCount
            )
        )
        return dropped
    }

    /// The sender gave up a message.
    ///
    /// - Returns: Whether it was under way.
    @discardableResult
    package mutating func end(_ id: UInt64) -> Bool {
        guard let index = self.transfers.firstIndex(where: { $0.id == id }) else { return false }
        self.transfers.remove(at: index)
        return true
    }

    /// A part arrived.
    ///
    /// - Parameters:
    ///   - id: The transfer's number.
    ///   - offset: Where the part begins in the message.
    ///   - count: How many bytes it has.
    ///   - origin: The instant that requests' times count from.
    ///   - now: When it arrived.
    /// - Returns: Where its bytes go; nil if it belongs to no message: its message was refused, cancelled, or never
    ///   begun.
    /// - Throws: ``WireError`` for a part that doesn't continue where the last one ended. Its message is dropped.
    package mutating func place(
        _ id: UInt64,
        offset: Int,
        count: Int,
        countedFrom origin: Instant,
        at now: Instant
    ) throws(WireError) -> Place? {
        guard let index = self.transfers.firstIndex(where: { $0.id == id }) else { return nil }
        let transfer = self.transfers[index]
        guard offset == transfer.received, count > 0, count <= transfer.count - offset else {
            self.transfers.remove(at: index)
            throw WireError(
                .badFraming,
                "a part of \(count) bytes at \(offset) of \(transfer.count), of which \(transfer.received) have come"
            )
        }
        self.transfers[index].received += count
        self.partCount += 1
        self.transfers[index].touched = self.partCount
        guard offset + count == transfer.count else {
            return Place(buffer: transfer.buffer, offset: offset, whole: nil)
        }
        self.transfers.remove(at: index)
        var message = transfer.message
        if message.kind == .request {
            // The request is read like any other, so its time counts from the last stamp, which may be a newer one by
            // now.
            message.time = transfer.deadline > now ? transfer.deadline.headerTime(at: origin) : 0
        }
        return Place(buffer: transfer.buffer, offset: offset, whole: message)
    }

    /// Drops a message that is no longer wanted.
    ///
    /// - Returns: Whether it was under way.
    @discardableResult
    package mutating func cancel(_ kinds: (MessageKind) -> Bool, id: UInt64) -> Bool {
        let before = self.transfers.count
        self.transfers.removeAll { $0.message.id == id && $0.message.kind.map(kinds) == true }
        return self.transfers.count < before
    }

    /// The deadline of a request that is under way was moved.
    ///
    /// - Returns: Whether it is under way.
    package mutating func move(_ id: UInt64, to deadline: Instant) -> Bool {
        guard let index = self.transfers.firstIndex(where: { $0.message.id == id && $0.message.kind == .request })
        else { return false }
        self.transfers[index].deadline = deadline
        return true
    }

    package mutating func reset() {
        self.transfers.removeAll()
    }
}
