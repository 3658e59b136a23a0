// SPDX-License-Identifier: Apache-2.0

internal import DequeModule

/// The latest answers of one session, so that a request that is sent again is answered again and never runs twice
/// (contract S97).
///
/// This is a ring of bytes: the oldest answers make room for new ones. As long as the oldest aren't known to have been
/// read, the ring grows instead, if it may. It remembers which requests' answers were forgotten, in ``ForgottenIDs``:
/// if one of those is re-sent, it may have run.
package struct ResultCache: Sendable {
    private struct Entry: Sendable {
        var id: UInt64
        var offset: Int
        var count: Int
        var isRemoval: Bool
    }

    /// What a re-sent request finds.
    package enum Finding: Equatable, Sendable {
        /// The answer is kept.
        case held
        /// The request was taken out before it ran; the answer that said so is kept.
        case removed
        /// The answer, if there was one, is no longer kept.
        case forgotten
        /// The request was never answered here.
        case never
    }

    private var bytes: [UInt8] = []
    private var entries = Deque<Entry>()
    private var end = 0
    private let maxBytes: Int
    private var forgotten = ForgottenIDs()
    /// How many answers were stored before the first one still kept.
    private var firstNumber = 0
    /// The number of each id's latest answer, while re-sent requests arrive: answers are stored for every request, but
    /// looked up only after a connection was lost.
    private var numbers: [UInt64: Int]?
    /// How many answers were stored since one was last looked up.
    private var unusedCount = 0
    /// Answers with lower numbers have been read.
    private var readNumber = 0
    /// Answers with lower numbers will have been read when the open question is answered.
    private var askedNumber: Int?
    /// How many times its usual size it may grow to.
    private static let mostGrowth = 16

    /// How many answers are kept.
    package var count: Int { self.entries.count }

    /// The size of the largest answer that is stored here: one that would push out most others isn't worth its place,
    /// nor is one that is costly to copy; see ``KeptAnswers``.
    package static func largestAnswer(maxBytes: Int) -> Int { min(maxBytes / 16, 64 << 10) }

    /// How many bytes it is larger than usual.
    package var grownBytes: Int { max(0, self.bytes.count - self.maxBytes) }

    /// Creates a cache of at most `maxBytes`, unless it may grow; one of 0 bytes stores nothing.
    package init(maxBytes: Int) {
        // So that the size it may grow to doesn't overflow.
        self.maxBytes = min(maxBytes, Int.max / (2 * Self.mostGrowth))
    }

    /// Keeps the answer to `id`.
    ///
    /// - Parameters:
    ///   - id: The request.
    ///   - message: The answer as it goes over the wire.
    ///   - isRemoval: Whether the answer says that the request was taken out before it ran.
    ///   - mayGrow: By how many bytes the cache may grow rather than forget an answer that isn't known to have been
    ///     read.
    package mutating func remember(
        _ id: UInt64,
        message: UnsafeRawBufferPointer,
        isRemoval: Bool = false,
        mayGrow: Int = 0
    ) {
        let count = message.count
        guard count <= Self.largestAnswer(maxBytes: self.maxBytes) else {
            self.pass(over: id)
            return
        }
        // A message has at least 24 bytes, so at most this many have to make room, at both ends of the ring. A client
        // that keeps reading has read them.
        if mayGrow > 0, self.readNumber - self.firstNumber <= count / 8 + 4, self.forgetsUnread(for: count) {
            self.grow(atMost: mayGrow)
        }
        self.makeRoom(for: count)
        unsafe self.bytes.withUnsafeMutableBytes { ring in
            unsafe UnsafeMutableRawBufferPointer(rebasing: ring[self.end..<self.end + count]).copyMemory(from: message)
        }
        self.entries.append(Entry(id: id, offset: self.end, count: count, isRemoval: isRemoval))
        self.end += count
        guard self.numbers != nil else { return }
        self.unusedCount += 1
        if self.unusedCount > self.entries.count {
            self.numbers = nil
        } else {
            self.numbers?[id] = self.firstNumber + self.entries.count - 1
        }
    }

    /// An answer was sent that isn't stored here.
    package mutating func pass(over id: UInt64) {
        self.forgotten.insert(id)
    }

    /// Looks up the answer to `id`.
    package mutating func find(_ id: UInt64) -> Finding {
        if let number = self.number(of: id) {
            return self.entries[number - self.firstNumber].isRemoval ? .removed : .held
        }
        return self.forgotten.contains(id) ? .forgotten : .never
    }

    private mutating func number(of id: UInt64) -> Int? {
        self.unusedCount = 0
        if let numbers = self.numbers { return numbers[id] }
        var numbers: [UInt64: Int] = [:]
        numbers.reserveCapacity(self.entries.count)
        for (place, entry) in self.entries.enumerated() { numbers[entry.id] = self.firstNumber + place }
        self.numbers = numbers
        return numbers[id]
    }

    /// Passes the answer to `id`, which ``find(_:)`` has just found, to `body`.
    package func withMessage(_ id: UInt64, _ body: (UnsafeRawBufferPointer) -> Void) {
        guard let number = self.numbers?[id] else { return }
        let entry = self.entries[number - self.firstNumber]
        unsafe self.bytes.withUnsafeBytes { ring in
            unsafe body(UnsafeRawBufferPointer(rebasing: ring[entry.offset..<entry.offset + entry.count]))
        }
    }

    // MARK: What has been read

    /// A question went to the client, behind all kept answers, about what it has read.
    package mutating func asked() { self.askedNumber = self.firstNumber + self.entries.count }

    /// The question, and what was sent before it, may have been lost.
    package mutating func questionLost() { self.askedNumber = nil }

    /// The client has answered the question.
    package mutating func read() {
        guard let asked = self.askedNumber else { return }
        self.askedNumber = nil
        self.readNumber = asked
        if self.bytes.count > self.maxBytes { self.shorten() }
    }

    /// Whether an answer that isn't known to have been read would have to make room.
    private func forgetsUnread(for count: Int) -> Bool {
        guard self.bytes.count >= self.maxBytes else { return false }
        let wraps = self.end + count > self.bytes.count
        for (place, entry) in self.entries.enumerated() {
            let isInTheWay =
                wraps
                ? entry.offset >= self.end || entry.offset < count
                : entry.offset >= self.end && entry.offset < self.end + count
            guard isInTheWay else { return false }
            if self.firstNumber + place >= self.readNumber { return true }
        }
        return false
    }

    private mutating func grow(atMost bytes: Int) {
        let count = min(self.bytes.count * 2, self.maxBytes * Self.mostGrowth)
        if count > self.bytes.count, count - self.bytes.count <= bytes { self.move(to: count) }
    }

    /// Shrinks to the usual size, if answers that aren't known to have been read take little of it.
    private mutating func shorten() {
        var count = 0
        var unread = 0
        var kept = 0
        for entry in self.entries.reversed() {
            guard count + entry.count <= self.maxBytes else { break }
            count += entry.count
            kept += 1
            if self.firstNumber + self.entries.count - kept >= self.readNumber { unread = count }
        }
        let isAllUnreadKept = self.firstNumber + self.entries.count - kept <= self.readNumber
        guard isAllUnreadKept, unread <= self.maxBytes / 2 else { return }
        while self.entries.count > kept, let first = self.entries.first { self.forget(first) }
        self.move(to: self.maxBytes)
    }

    /// Moves the kept answers, in order, to other memory.
    private mutating func move(to count: Int) {
        var moved = [UInt8](repeating: 0, count: count)
        self.end = 0
        unsafe moved.withUnsafeMutableBytes { new in
            unsafe self.bytes.withUnsafeBytes { old in
                for place in self.entries.indices {
                    let entry = self.entries[place]
                    let source = unsafe UnsafeRawBufferPointer(rebasing: old[entry.offset..<entry.offset + entry.count])
                    unsafe UnsafeMutableRawBufferPointer(rebasing: new[self.end..<self.end + entry.count])
                        .copyMemory(from: source)
                    self.entries[place].offset = self.end
                    self.end += entry.count
                }
            }
        }
        self.bytes = moved
    }

    private mutating func makeRoom(for count: Int) {
        if self.end + count > self.bytes.count, self.bytes.count < self.maxBytes {
            let size = min(self.maxBytes, max(4096, self.bytes.count * 2, self.bytes.count + count))
            var larger = [UInt8](repeating: 0, count: size)
            unsafe larger.withUnsafeMutableBytes { new in
                unsafe self.bytes.withUnsafeBytes { unsafe new.copyMemory(from: $0) }
            }
            self.bytes = larger
        }
        if self.end + count > self.bytes.count {
            // Whatever lies between here and the ring's end is dropped when the ring wraps.
            while let first = self.entries.first, first.offset >= self.end { self.forget(first) }
            self.end = 0
        }
        while let first = self.entries.first, first.offset >= self.end, first.offset < self.end + count {
            self.forget(first)
        }
    }

    private mutating func forget(_ entry: Entry) {
        self.forgotten.insert(entry.id)
        self.entries.removeFirst()
        if self.numbers?[entry.id] == self.firstNumber { self.numbers?[entry.id] = nil }
        self.firstNumber += 1
    }
}
