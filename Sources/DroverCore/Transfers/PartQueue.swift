// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
package import DroverWire

/// A stream of messages that must arrive in the order in which they were sent.
package enum PartStream: Hashable, Sendable {
    /// The events and invocations of a subscription, by its number on the link, and its end.
    case subscription(UInt32)
    /// The progress of a request.
    case request(UInt64)
    /// The requests of an ordering key, by its hash.
    case key(UInt64)

    /// The stream that a message belongs to and must not overtake others in; nil for answers, and for requests, whose
    /// headers don't give their keys.
    package init?(of message: Header) {
        switch message.kind {
        case .event, .invoke: self = .subscription(message.number)
        case .progress: self = .request(message.id)
        default: return nil
        }
    }

    /// The stream that a worker's PING asks about; nil if it follows nothing in particular.
    package init?(askedAboutBy question: Header, _ payload: UnsafeRawBufferPointer) {
        switch QuestionSubject(rawValue: question.time) {
        case .events: self = .subscription(question.number)
        case .progress:
            guard let id = unsafe QuestionSubject.number(in: payload) else { return nil }
            self = .request(id)
        case .nothing, nil: return nil
        }
    }

    var isOfEvents: Bool { if case .subscription = self { true } else { false } }
}

/// The messages that are sent in parts over one link, and whose turn it is.
///
/// A few are sent at once, taking turns, so that a longer one doesn't hold up a shorter one; the others wait in order.
/// The receiver keeps what has arrived of each, so there must not be many at once.
///
/// The messages of a ``PartStream`` keep their order: while one of them is sent in parts, those that follow it in the
/// stream wait here.
package struct PartQueue<Source>: ~Copyable {
    /// How many messages may be under way at once.
    package static var mostAtOnce: Int { 4 }

    private struct Transfer {
        let id: UInt64
        var message: Header
        var deadline: Instant?
        let source: Source
        /// How many bytes of the message were sent; its header goes first, as a part of its own.
        var sent = 0
        /// Whether the other side has room for it.
        var isGranted = false
        /// The stream whose later messages wait for it.
        var stream: PartStream?
        var count: Int { Header.byteCount + Int(self.message.payloadLength) }
        var unsent: Int { self.count - self.sent }
        var isAnswer: Bool { self.message.kind == .reply || self.message.kind == .error }
    }

    /// What to send next.
    package enum Part {
        /// The message's header, which begins the transfer.
        case header(Header, transfer: UInt64)
        /// A piece of its payload. `end` is counted from the message's first byte.
        case payload(Source, Range<Int>, transfer: UInt64, end: Int)
        /// Whole messages that had to wait for others, one after the other.
        case messages([UInt8])
        /// Ends a transfer that was begun and won't be finished.
        case ended(transfer: UInt64)
    }

    /// What waits in a stream for the message before it, which is sent in parts.
    private enum Follower {
        case transfer(Transfer)
        case messages([UInt8])
        /// An answer, which waits in other streams as well.
        case answer(UInt64)
    }

    /// An answer that must not overtake messages sent before it.
    private struct Answer {
        var content: Content
        /// How many streams it waits in.
        var waits: Int

        enum Content {
            case message([UInt8])
            case transfer(Transfer)
        }
    }

    /// The transfers that take turns, the next one first.
    private var active: Deque<Transfer> = []
    private var waiting: Deque<Transfer> = []
    private var lastID: UInt64
    /// The streams with a message that is being sent in parts, and what follows it in each.
    private var streams: [PartStream: Deque<Follower>] = [:]
    /// The streams whose message has been sent or is no longer wanted: their followers are next.
    private var finished: Deque<PartStream> = []
    private var answers: [UInt64: Answer] = [:]
    private var lastAnswer: UInt64 = 0
    /// Answers whose last part has been sent but not acknowledged.
    private var sentAnswers: Deque<(transfer: UInt64, message: Header)> = []
    /// More can't be under way to a peer that acknowledges what it has.
    private static var mostSentAnswers: Int { 1024 }
    /// Transfers that were begun and given up, which the other side has not been told yet.
    private var abandoned: Deque<UInt64> = []
    package private(set) var window = PartWindow()

    /// - Parameter last: The number of the last transfer over the same connection.
    package init(after last: UInt64 = 0) { self.lastID = last }

    package var isEmpty: Bool {
        self.active.isEmpty && self.waiting.isEmpty && self.streams.isEmpty && self.abandoned.isEmpty
    }
    /// Whether a message may have to wait for others of its stream.
    package var keepsOrder: Bool { !self.streams.isEmpty }
    /// How many messages have not been sent completely; small ones that wait together count as one.
    package var count: Int {
        var count = self.active.count + self.waiting.count + self.answers.count
        for followers in self.streams.values {
            count += followers.count { if case .answer = $0 { false } else { true } }
        }
        return count
    }

    /// How many bytes have not been sent: of messages that are sent in parts, and of everything that waits behind them.
    package private(set) var unsentBytes = 0

    /// Adds a message.
    ///
    /// - Parameters:
    ///   - message: Its header, with the payload's length.
    ///   - deadline: The deadline from which its time is computed when it is sent; nil to leave the time as it is.
    ///   - source: Its payload.
    ///   - stream: The stream it belongs to, if its header doesn't say.
    ///   - isBehindEvents: For an answer, whether all events before it must be sent first.
    package mutating func add(
        _ message: Header,
        deadline: Instant?,
        _ source: Source,
        in stream: PartStream? = nil,
        isBehindEvents: Bool = false
    ) {
        self.lastID += 1
        var transfer = Transfer(id: self.lastID, message: message, deadline: deadline, source: source)
        self.unsentBytes += transfer.count
        guard let stream = stream ?? PartStream(of: message) else {
            guard message.kind == .reply || message.kind == .error else { return self.waiting.append(transfer) }
            let content = Answer.Content.transfer(transfer)
            if !self.hold(content, of: message.id, isBehindEvents: isBehindEvents) { self.waiting.append(transfer) }
            return
        }
        transfer.stream = stream
        if self.streams[stream]?.append(.transfer(transfer)) == nil {
            self.streams[stream] = []
            self.waiting.append(transfer)
        }
    }

    /// Whether messages that follow in a stream have to wait.
    package func isUnderWay(_ stream: PartStream) -> Bool { self.streams[stream] != nil }

    /// Keeps messages of a stream until those before them have been sent.
    ///
    /// - Returns: False if there is nothing before them: they may be sent at once.
    package mutating func hold(_ messages: [UInt8], in stream: PartStream) -> Bool {
        guard let last = self.streams[stream]?.popLast() else {
            guard self.streams[stream]?.append(.messages(messages)) != nil else { return false }
            self.unsentBytes += messages.count
            return true
        }
        self.unsentBytes += messages.count
        if case .messages(var bytes) = last, bytes.count < PartWindow.partBytes / 4 {
            bytes.append(contentsOf: messages)
            self.streams[stream]?.append(.messages(bytes))
        } else {
            self.streams[stream]?.append(last)
            self.streams[stream]?.append(.messages(messages))
        }
        return true
    }

    /// Keeps an answer until its request's progress has been sent, and all events if they may be for its caller.
    ///
    /// - Returns: False if there is nothing before it: it may be sent at once.
    package mutating func hold(_ answer: [UInt8], of request: UInt64, isBehindEvents: Bool) -> Bool {
        guard self.hold(.message(answer), of: request, isBehindEvents: isBehindEvents) else { return false }
        self.unsentBytes += answer.count
        return true
    }

    private mutating func hold(_ content: Answer.Content, of request: UInt64, isBehindEvents: Bool) -> Bool {
        let before = self.streams.keys.filter { $0 == .request(request) || isBehindEvents && $0.isOfEvents }
        guard !before.isEmpty else { return false }
        self.lastAnswer += 1
        self.answers[self.lastAnswer] = Answer(content: content, waits: before.count)
        for stream in before { self.streams[stream]?.append(.answer(self.lastAnswer)) }
        return true
    }

    /// The next messages that had to wait and no longer need to.
    private mutating func nextFollower() -> [UInt8]? {
        while let stream = self.finished.first {
            switch self.streams[stream]?.popFirst() {
            case nil:
                self.streams[stream] = nil
                self.finished.removeFirst()
            case .messages(let bytes):
                self.unsentBytes -= bytes.count
                return bytes
            case .transfer(let transfer):
                self.finished.removeFirst()
                self.waiting.append(transfer)
            case .answer(let number):
                // An answer that is no longer wanted has been removed.
                self.answers[number]?.waits -= 1
                guard self.answers[number]?.waits == 0, let answer = self.answers.removeValue(forKey: number) else {
                    continue
                }
                switch answer.content {
                case .message(let bytes):
                    self.unsentBytes -= bytes.count
                    return bytes
                case .transfer(let transfer): self.waiting.append(transfer)
                }
            }
        }
        return nil
    }

    private mutating func ended(_ transfer: Transfer) {
        if let stream = transfer.stream { self.finished.append(stream) }
    }

    /// What to send now; nil if nothing may be sent until a part is acknowledged.
    package mutating func next(at now: Instant) -> Part? {
        // This comes before others begin: the other side must never have more messages to assemble than may be under
        // way.
        if let transfer = self.abandoned.popFirst() { return .ended(transfer: transfer) }
        if let messages = self.nextFollower() { return .messages(messages) }
        if self.active.count < Self.mostAtOnce, var first = self.waiting.popFirst() {
            if let deadline = first.deadline { first.message.time = deadline.headerTime(at: now) }
            first.sent = Header.byteCount
            self.unsentBytes -= Header.byteCount
            self.active.append(first)
            return .header(first.message, transfer: first.id)
        }
        guard self.window.isOpen, let index = self.active.firstIndex(where: { $0.isGranted }) else { return nil }
        var transfer = self.active.remove(at: index)
        let start = transfer.sent
        transfer.sent = min(transfer.count, start + self.window.partBytes)
        let range = start - Header.byteCount..<transfer.sent - Header.byteCount
        self.unsentBytes -= range.count
        self.window.sent(transfer.id, end: transfer.sent, count: range.count, at: now)
        if transfer.sent < transfer.count {
            self.active.append(transfer)
        } else {
            if transfer.isAnswer {
                if self.sentAnswers.count >= Self.mostSentAnswers { self.sentAnswers.removeFirst() }
                self.sentAnswers.append((transfer.id, transfer.message))
            }
            self.ended(transfer)
        }
        return .payload(transfer.source, range, transfer: transfer.id, end: transfer.sent)
    }

    /// The other side has received a part; with the first one it says that it has room for the others.
    ///
    /// - Parameters:
    ///   - transfer: The number of the message's transfer.
    ///   - end: Where the part ends in the message.
    ///   - isWanted: Whether the rest is wanted.
    ///   - now: When the acknowledgment arrived.
    /// - Returns: Whether the message is under way.
    @discardableResult
    package mutating func acknowledged(_ transfer: UInt64, end: Int, isWanted: Bool = true, at now: Instant) -> Bool {
        // The first part may wait for room there, which says nothing about the link.
        if end > Header.byteCount { self.window.acknowledged(transfer, end: end, at: now) }
        guard let index = self.active.firstIndex(where: { $0.id == transfer }) else { return false }
        if isWanted {
            self.active[index].isGranted = true
        } else {
            let unwanted = self.active.remove(at: index)
            self.unsentBytes -= unwanted.unsent
            self.ended(unwanted)
        }
        return true
    }

    /// The other side has received a part, perhaps of an answer; call this before ``acknowledged(_:end:isWanted:at:)``.
    ///
    /// - Returns: The request whose answer the other side now has completely, or doesn't want.
    package mutating func settledAnswer(_ transfer: UInt64, end: Int, isWanted: Bool = true) -> UInt64? {
        if let index = self.sentAnswers.firstIndex(where: { $0.transfer == transfer }) {
            let count = Header.byteCount + Int(self.sentAnswers[index].message.payloadLength)
            guard !isWanted || end == count else { return nil }
            return self.sentAnswers.remove(at: index).message.id
        }
        guard !isWanted, let unwanted = self.active.first(where: { $0.id == transfer }), unwanted.isAnswer else {
            return nil
        }
        return unwanted.message.id
    }

    /// Drops a message that is no longer wanted.
    ///
    /// - Returns: Whether it was under way.
    @discardableResult
    package mutating func cancel(_ kinds: (MessageKind) -> Bool, id: UInt64) -> Bool {
        self.cancel { $0.id == id && $0.kind.map(kinds) == true }
    }

    /// Drops all answers: none is wanted any more.
    package mutating func cancelAnswers() { _ = self.cancel { $0.kind == .reply || $0.kind == .error } }

    private mutating func cancel(_ isMeant: (Header) -> Bool) -> Bool {
        let before = self.count
        for transfer in self.active where isMeant(transfer.message) {
            self.unsentBytes -= transfer.unsent
            self.ended(transfer)
            self.abandoned.append(transfer.id)
        }
        for transfer in self.waiting where isMeant(transfer.message) {
            self.unsentBytes -= transfer.unsent
            self.ended(transfer)
        }
        self.active.removeAll { isMeant($0.message) }
        self.sentAnswers.removeAll { isMeant($0.message) }
        self.waiting.removeAll { isMeant($0.message) }
        for stream in self.streams.keys {
            var dropped = 0
            self.streams[stream]?
                .removeAll {
                    guard case .transfer(let transfer) = $0, isMeant(transfer.message) else { return false }
                    dropped += transfer.unsent
                    return true
                }
            self.unsentBytes -= dropped
        }
        for (number, answer) in self.answers {
            guard case .transfer(let transfer) = answer.content, isMeant(transfer.message) else { continue }
            self.answers[number] = nil
            self.unsentBytes -= transfer.unsent
        }
        return self.count < before
    }

    /// The deadline of a request was moved: one that has not begun is sent with the time left then.
    package mutating func move(_ id: UInt64, to deadline: Instant) {
        func isMeant(_ transfer: Transfer) -> Bool { transfer.message.id == id && transfer.message.kind == .request }
        if let index = self.waiting.firstIndex(where: isMeant) { self.waiting[index].deadline = deadline }
        for (stream, followers) in self.streams {
            for (index, follower) in followers.enumerated() {
                guard case .transfer(var transfer) = follower, isMeant(transfer) else { continue }
                transfer.deadline = deadline
                self.streams[stream]?[index] = .transfer(transfer)
            }
        }
    }

    /// The answers that have not been sent completely, in order; this changes nothing.
    package var unsentAnswers: [(message: Header, source: Source)] {
        var answers: [Transfer] = []
        for transfer in self.active where transfer.message.kind == .reply || transfer.message.kind == .error {
            answers.append(transfer)
        }
        for transfer in self.waiting where transfer.message.kind == .reply || transfer.message.kind == .error {
            answers.append(transfer)
        }
        if answers.count > 1 { answers.sort { $0.id < $1.id } }
        return answers.map { ($0.message, $0.source) }
    }

    /// The connection or the session is a new one: a peer that still wants a message asks for it again.
    ///
    /// Over the same connection, the other side is told which transfers were begun.
    package mutating func reset(isSameConnection: Bool = false) {
        if isSameConnection { for transfer in self.active { self.abandoned.append(transfer.id) } }
        if !isSameConnection { self.abandoned.removeAll() }
        self.active.removeAll()
        self.sentAnswers.removeAll()
        self.waiting.removeAll()
        self.streams.removeAll()
        self.finished.removeAll()
        self.answers.removeAll()
        self.unsentBytes = 0
        self.window.reset()
    }
}
