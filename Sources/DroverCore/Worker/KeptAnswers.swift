// SPDX-License-Identifier: Apache-2.0

internal import DequeModule

/// The large answers that one client isn't known to have read, so that a request that is sent again is answered again and never
/// run twice (contract S97).
///
/// What is too large for the ``ResultCache`` is kept here, by reference, until the client has read it: it has acknowledged the last
/// of its parts, or has answered a question (PING) that was sent behind it. So a connection that breaks costs no answer, and memory is
/// given back as soon as answers are read. Of too much the oldest are forgotten.
package struct KeptAnswers<Content> {
    private enum Way: Equatable {
        /// It has not been sent since the client introduced itself last, and goes when its request is sent again.
        case unsent
        /// It goes in parts.
        case parts
        /// It went whole; the number counts such.
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
        /// Send it.
        case kept(Content)
        /// It was sent by this connection, behind the client's last introduction: it will come.
        case isOnItsWay
    }

    /// So many are kept at most, however small.
    package static var mostAnswers: Int { 4096 }
    /// After so much that went whole a client is asked at once; about less with the next beat.
    package static var askedBytes: Int { 1 << 20 }
    /// So many beats after it introduced itself again a client that sends nothing in parts has sent again what it wants.
    package static var patienceBeats: Int { 3 }

    /// The oldest first.
    private var entries: Deque<Entry> = []
    /// What they take.
    package private(set) var bytes = 0
    private var lastWhole: UInt64 = 0
    /// Bytes that went whole, and were not asked about.
    private var unasked = 0
    /// Up to which answer the open question asks.
    private var asked: UInt64?
    /// Whether the open question was asked with a beat.
    private var isAskedByBeat = false
    /// How many are not sent, since the client introduced itself again.
    private var unsentCount = 0
    /// How many questions by beats it has answered since then, in a row, while it sent nothing in parts.
    private var beats = 0

    package init() {}

    package var count: Int { self.entries.count }
    /// Whether one goes in parts of which the client doesn't have the last.
    package var hasParts: Bool { self.entries.contains { $0.way == .parts } }

    /// Keeps an answer that is being sent.
    ///
    /// - Parameters:
    ///   - id: Its request.
    ///   - content: What it takes to send it again.
    ///   - count: Its bytes.
    ///   - inParts: Whether it goes in parts, or whole.
    ///   - most: How many bytes may be kept, with this one.
    /// - Returns: The requests whose answers are forgotten for it, or with it.
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

    /// The client has all of an answer that went in parts, or doesn't want the rest.
    ///
    /// - Returns: Whether it was kept.
    package mutating func settled(_ id: UInt64) -> Bool {
        guard let index = self.index(of: id), self.entries[index].way == .parts else { return false }
        self.remove(at: index)
        return true
    }

    /// The client may have to be asked, behind what was sent, how far it is.
    ///
    /// - Parameter isBeat: A beat is due: it is asked about however little.
    /// - Returns: Whether it is to be asked now.
    package mutating func asks(isBeat: Bool = false) -> Bool {
        guard self.asked == nil else { return false }
        guard isBeat ? self.unasked > 0 || self.unsentCount > 0 : self.unasked >= Self.askedBytes else { return false }
        self.asked = self.lastWhole
        self.isAskedByBeat = isBeat
        self.unasked = 0
        return true
    }

    /// The client has read all that was sent before the question.
    ///
    /// - Parameter isReceiving: Whether something comes from it in parts, which may be a request that is sent again.
    /// - Returns: The requests whose answers are kept no longer.
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
            // It had read that before, and only its word for it was lost.
            case .unsent: if isOver { self.unsentCount -= 1 } else { return false }
            }
            self.bytes -= entry.count
            read.append(entry.id)
            return true
        }
        return read
    }

    /// The client wants the answer to a request no more.
    ///
    /// - Returns: Whether it was kept.
    package mutating func drop(_ id: UInt64) -> Bool {
        guard let index = self.index(of: id) else { return false }
        self.remove(at: index)
        return true
    }

    /// The client introduced itself again: by a new connection, or by one of which something may have been lost.
    ///
    /// What it has not read it asks for by sending the request again.
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
    /// How many bytes of answers are kept for one client, with one more of `count`.
    ///
    /// What it may leave unread, and one answer that is larger if there is nothing else; less if all clients together have as many
    /// kept for them as they may leave unread.
    package func mostKept(_ count: Int, inAll total: Int, clients: Int) -> Int {
        total + count <= self.inAll ? max(self.perClient, count) : self.share(clients: clients)
    }
}
