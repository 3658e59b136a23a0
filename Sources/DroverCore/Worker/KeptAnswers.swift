// SPDX-License-Identifier: Apache-2.0

internal import DequeModule

/// The large answers that one client isn't known to have read, so that a request that is sent again is answered again
/// and never runs twice (contract S97).
///
/// An answer that is too large for the ``ResultCache`` is kept here, by reference, until the client has read it: until
/// the client has acknowledged its last part, or has answered a question (PING) that was sent behind it. So no answer
/// is lost when a connection breaks, and memory is released as soon as answers are read. If there are too many, the
/// oldest are forgotten.
package struct KeptAnswers<Content> {
    private enum Way: Equatable {
        /// It has not been sent since the client last introduced itself, and is sent when its request is sent again.
        case unsent
        /// It is sent in parts.
        case parts
        /// It was sent whole; the number counts such answers.
        case whole(UInt64)
    }

    private struct Entry {
        let id: UInt64
        let content: Content
        let count: Int
        var way: Way
    }

    /// What a request that is sent again finds.
    package enum Finding {
        /// It isn't kept here.
        case nothing
        /// It is kept: send it.
        case kept(Content)
        /// It was sent over this connection, after the client's last introduction: it will arrive.
        case isOnItsWay
    }

    /// How many answers are kept at most, however small they are.
    package static var mostAnswers: Int { 4096 }
    /// After this many bytes sent whole, the client is asked at once; about fewer, with the next beat.
    package static var askedBytes: Int { 1 << 20 }
    /// After this many beats since it introduced itself again, a client that sends nothing in parts has re-sent
    /// everything it wants.
    package static var patienceBeats: Int { 3 }

    /// The answers, oldest first.
    private var entries: Deque<Entry> = []
    /// How many bytes they take.
    package private(set) var bytes = 0
    private var lastWhole: UInt64 = 0
    /// How many bytes were sent whole and have not been asked about.
    private var unasked = 0
    /// The number of the last answer that the open question covers.
    private var asked: UInt64?
    /// Whether the open question was asked with a beat.
    private var isAskedByBeat = false
    /// How many answers have not been sent since the client introduced itself again.
    private var unsentCount = 0
    /// How many questions asked with beats it has answered since then, in a row, while it sent nothing in parts.
    private var beats = 0

    package init() {}

    package var count: Int { self.entries.count }
    /// Whether an answer is being sent in parts and the client doesn't have its last part.
    package var hasParts: Bool { self.entries.contains { $0.way == .parts } }

    /// Keeps an answer that is being sent.
    ///
    /// - Parameters:
    ///   - id: The request it answers.
    ///   - content: Whatever is needed to send it again.
    ///   - count: How many bytes it has.
    ///   - inParts: Whether it is sent in parts, or whole.
    ///   - most: How many bytes may be kept, including this answer.
    /// - Returns: The requests whose answers are forgotten to make room for it; its own too, if it doesn't fit.
    package mutating func keep(_ id: UInt64, _ content: Content, count: Int, inParts: Bool, most: Int) -> [UInt64] {
        var forgotten: [UInt64] = []
        while let first = self.entries.first,
            self.bytes + count > most || self.entries.count >= Self.mostAnswers
        {
            self.remove(at: 0)
            forgotten.append(first.id)
        }
        guard count <= most else {
            forgotten.append(id)
            return forgotten
        }
        self.entries.append(Entry(id: id, content: content, count: count, way: .unsent))
        self.bytes += count
        self.unsentCount += 1
        self.sent(at: self.entries.count - 1, inParts: inParts)
        return forgotten
    }

    /// A request was sent again.
    package func find(_ id: UInt64) -> Finding {
        guard let index = self.index(of: id) else { return .nothing }
        return self.entries[index].way == .unsent ? .kept(self.entries[index].content) : .isOnItsWay
    }

    /// An answer was sent again.
    package mutating func sentAgain(_ id: UInt64, inParts: Bool) {
        if let index = self.index(of: id) { self.sent(at: index, inParts: inParts) }
    }

    private mutating func sent(at index: Int, inParts: Bool) {
        if self.entries[index].way == .unsent { self.unsentCount -= 1 }
        guard !inParts else { return self.entries[index].way = .parts }
        self.lastWhole += 1
        self.unasked += self.entries[index].count
        self.entries[index].way = .whole(self.lastWhole)
    }

    // MARK: What has been read

    /// The client has all of an answer that was sent in parts, or doesn't want the rest.
    ///
    /// - Returns: Whether it was kept.
    package mutating func settled(_ id: UInt64) -> Bool {
        guard let index = self.index(of: id), self.entries[index].way == .parts else { return false }
        self.remove(at: index)
        return true
    }

    /// Decides whether to ask the client, behind what was sent, how far it has read.
    ///
    /// - Parameter isBeat: Whether a beat is due: then the client is asked about any amount.
    /// - Returns: Whether to ask it now.
    package mutating func asks(isBeat: Bool = false) -> Bool {
        guard self.asked == nil else { return false }
        guard isBeat ? self.unasked > 0 || self.unsentCount > 0 : self.unasked >= Self.askedBytes else { return false }
        self.asked = self.lastWhole
        self.isAskedByBeat = isBeat
        self.unasked = 0
        return true
    }

    /// The client has read everything that was sent before the question.
    ///
    /// - Parameter isReceiving: Whether it is sending something in parts, which may be a re-sent request.
    /// - Returns: The requests whose answers are no longer kept.
    package mutating func answered(isReceiving: Bool) -> [UInt64] {
        guard let asked = self.asked else { return [] }
        self.asked = nil
        if self.isAskedByBeat { self.beats = isReceiving ? 0 : self.beats + 1 }
        let isOver = self.beats >= Self.patienceBeats
        var read: [UInt64] = []
        self.entries.removeAll { entry in
            switch entry.way {
            case .parts: return false
            case .whole(let number): if number > asked { return false }
            // The client had read the answer before, and only its confirmation was lost.
            case .unsent: if isOver { self.unsentCount -= 1 } else { return false }
            }
            self.bytes -= entry.count
            read.append(entry.id)
            return true
        }
        return read
    }

    /// The client no longer wants the answer to a request.
    ///
    /// - Returns: Whether it was kept.
    package mutating func drop(_ id: UInt64) -> Bool {
        guard let index = self.index(of: id) else { return false }
        self.remove(at: index)
        return true
    }

    /// The client introduced itself again: over a new connection, or over one that may have lost something.
    ///
    /// It asks for answers that it has not read by sending the requests again.
    package mutating func introduced() {
        for index in self.entries.indices { self.entries[index].way = .unsent }
        self.unsentCount = self.entries.count
        self.asked = nil
        self.unasked = 0
        self.beats = 0
    }

    private func index(of id: UInt64) -> Int? { self.entries.firstIndex { $0.id == id } }

    private mutating func remove(at index: Int) {
        let entry = self.entries.remove(at: index)
        self.bytes -= entry.count
        if entry.way == .unsent { self.unsentCount -= 1 }
    }
}

extension UnreadLimit {
    /// How many bytes of answers may be kept for one client, including one more of `count` bytes.
    ///
    /// As many as it may leave unread, or one larger answer if there is nothing else; fewer if the answers kept for all
    /// clients together amount to what they may leave unread.
    package func mostKept(_ count: Int, inAll total: Int, clients: Int) -> Int {
        total + count <= self.inAll ? max(self.perClient, count) : self.share(clients: clients)
    }
}
