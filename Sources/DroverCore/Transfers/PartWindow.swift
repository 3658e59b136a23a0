// SPDX-License-Identifier: Apache-2.0

internal import DequeModule

/// How many bytes of parts may be under way on a link.
///
/// What is in sockets and kernel buffers can't be overtaken, so there must be little of it: a small call waits behind
/// it. But too little leaves a fast link idle. The other side acknowledges each part when it arrives; as long as that
/// is quick, the window grows, and when it takes long, the window is halved.
package struct PartWindow: Sendable {
    /// The bytes of a part, except the last one of a message, as long as the link isn't known to be fast.
    package static var partBytes: Int { 128 << 10 }
    private static var quickPartBytes: Int { 1 << 20 }
    /// A fast link carries this much in a twentieth of a second.
    private static var quickLimit: Int { mostBytes / 2 }
    /// A message of up to this many bytes is sent whole over any link.
    package static var wholeBytes: Int { 1 << 20 }
    private static var firstBytes: Int { 512 << 10 }
    private static var mostBytes: Int { 8 << 20 }
    /// A part opens the window if its acknowledgment takes less than this much longer than the quickest recent one.
    private static var quickNanoseconds: Int64 { 50_000_000 }
    /// A part halves the window if its acknowledgment takes more than this much longer.
    private static var slowNanoseconds: Int64 { 200_000_000 }

    private struct Part {
        let transfer: UInt64
        let end: Int
        let count: Int
        let sent: Instant
    }

    private var underWay: Deque<Part> = []
    private var quickest = WindowedMinimum(periodNanoseconds: 10_000_000_000)
    /// Delays of parts that were sent before this say nothing about the present window.
    private var changed = Instant(nanoseconds: 0)

    /// The bytes that may be under way.
    package private(set) var limit = Self.firstBytes
    /// The bytes that are under way.
    package private(set) var bytes = 0

    package init() {}

    /// Whether a part may be sent; one always may if nothing is under way.
    package var isOpen: Bool { self.bytes == 0 || self.bytes + self.partBytes <= self.limit }

    /// Whether the link is known to be fast: this much may be under way, and is acknowledged soon.
    private var isQuick: Bool { self.limit >= Self.quickLimit }

    /// The bytes of the next part, if it isn't the last of its message.
    package var partBytes: Int { self.isQuick ? Self.quickPartBytes : Self.partBytes }

    /// A message up to this size had better be sent whole: others wait for it no longer than for the parts that are
    /// under way.
    package var wholeBytes: Int { self.isQuick ? Self.quickLimit : Self.wholeBytes }

    /// A part was sent; `end` is where it ends in its message.
    package mutating func sent(_ transfer: UInt64, end: Int, count: Int, at now: Instant) {
        self.underWay.append(Part(transfer: transfer, end: end, count: count, sent: now))
        self.bytes += count
    }

    /// The other side has received a part.
    ///
    /// - Returns: False for a part that isn't under way.
    @discardableResult
    package mutating func acknowledged(_ transfer: UInt64, end: Int, at now: Instant) -> Bool {
        // Acknowledgments arrive in the order in which the parts were sent.
        guard let index = self.underWay.firstIndex(where: { $0.transfer == transfer && $0.end == end }) else {
            return false
        }
        let part = self.underWay[index]
        for _ in 0...index { self.bytes -= self.underWay.removeFirst().count }
        let delay = Int64(clamping: now.nanoseconds(since: part.sent))
        let excess = delay - self.quickest.add(delay, at: now)
        if excess > Self.slowNanoseconds {
            guard part.sent >= self.changed else { return true }
            self.changed = now
            self.limit = max(Self.partBytes, self.limit / 2)
        } else if excess < Self.quickNanoseconds, delay < Self.slowNanoseconds {
            self.limit = min(Self.mostBytes, self.limit + part.count)
        }
        return true
    }

    /// The connection is a new one: nothing is under way on it.
    package mutating func reset() {
        self.underWay.removeAll()
        self.bytes = 0
        self.limit = Self.firstBytes
        self.quickest = WindowedMinimum(periodNanoseconds: 10_000_000_000)
        self.changed = Instant(nanoseconds: 0)
    }
}
