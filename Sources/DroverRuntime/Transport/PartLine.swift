// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
package import DroverCore
package import DroverWire
package import DroverZMQ
package import Synchronization

/// The payload of a message that goes out in parts: memory that stays as it is while the owner lives.
@safe
package struct PartSource {
    private let base: UnsafeMutableRawPointer
    private let owner: any AnyObject & Sendable

    package init(_ base: UnsafeMutableRawPointer, owner: any AnyObject & Sendable) {
        unsafe self.base = base
        self.owner = owner
    }

    /// A piece of a frame that was received; nil if there are no bytes.
    package init?(_ range: Range<Int>, of box: MessageBox) {
        let base = unsafe box.withUnsafeBytes { bytes in
            // libzmq only reads what it sends.
            unsafe UnsafeMutableRawPointer(mutating: bytes.baseAddress.map { unsafe $0 + range.lowerBound })
        }
        guard let base = unsafe base else { return nil }
        unsafe self.init(base, owner: box)
    }

    /// A message of a piece, without a copy.
    package func message(_ range: Range<Int>) -> Message {
        unsafe Message(adopting: self.base + range.lowerBound, count: range.count, owner: self.owner)
    }
}

/// What of messages in parts was not taken, or did not go its whole way; what was cancelled isn't counted.
package final class PartCounters: Sendable {
    /// Parts that came and were not wanted: of no message that is under way, or not fitting to it.
    package let refused = Atomic<Int>(0)
    /// Messages that were announced with a payload over the limit.
    package let oversized = Atomic<Int>(0)
    /// Messages that were under way in parts, or waited behind such, when their connection ended, or were not taken there.
    package let abandoned = Atomic<Int>(0)

    package init() {}
}

/// How much memory messages that come in parts may take, over all peers of a loop.
///
/// Others wait at their senders.
package final class PartBudget {
    private let limit: Int
    /// What is taken: whole messages, of which perhaps little has come.
    @safe @exclusivity(unchecked) fileprivate var bytes = 0
    /// How many messages wait for room.
    @safe @exclusivity(unchecked) package fileprivate(set) var waiting = 0
    private let counters: PartCounters
    /// Something was counted that has not been told.
    @safe @exclusivity(unchecked) package private(set) var hasNews = false
    @safe @exclusivity(unchecked) private var nextReport = Instant(nanoseconds: 0)

    package init(limit: Int, counters: PartCounters) {
        self.limit = limit
        self.counters = counters
    }

    /// For a loop that takes payloads of so many bytes.
    package convenience init(maxPayloadBytes: Int, counters: PartCounters) {
        self.init(limit: 4 * (maxPayloadBytes + Header.byteCount), counters: counters)
    }

    fileprivate func count(refused: Int = 0, oversized: Int = 0, abandoned: Int = 0) {
        guard refused + oversized + abandoned > 0 else { return }
        self.counters.refused.add(refused, ordering: .relaxed)
        self.counters.oversized.add(oversized, ordering: .relaxed)
        self.counters.abandoned.add(abandoned, ordering: .relaxed)
        self.hasNews = true
    }

    /// What was counted so far, for a line in the log; nil if nothing is new, or if there was a line in the last second.
    package func report(at now: Instant) -> String? {
        guard self.hasNews, now >= self.nextReport else { return nil }
        self.hasNews = false
        self.nextReport = now.advanced(byNanoseconds: 1_000_000_000)
        return
            "\(self.counters.abandoned.load(ordering: .relaxed)) messages abandoned, "
            + "\(self.counters.oversized.load(ordering: .relaxed)) over the limit, "
            + "\(self.counters.refused.load(ordering: .relaxed)) parts refused, so far"
    }

    /// What the line in the log says before that.
    package static var reportMessage: String { "messages in parts didn't go their whole way" }

    fileprivate func hasRoom(for count: Int) -> Bool { self.bytes == 0 || count <= self.limit - self.bytes }
}

/// The memory of a message that comes in parts.
package final class IncomingMessage {
    private var message: Message
    private let count: Int
    private let budget: PartBudget

    package init(count: Int, budget: PartBudget) {
        self.message = Message(size: count)
        self.count = count
        self.budget = budget
        budget.bytes += count
    }

    deinit { self.budget.bytes -= self.count }

    package func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
        unsafe self.message.withUnsafeMutableBytes { memory in
            unsafe UnsafeMutableRawBufferPointer(rebasing: memory[offset...]).copyMemory(from: bytes)
        }
    }

    package func take() -> MessageBox { MessageBox(self.message.take()) }
}

/// What waits to go out in parts, or behind such, over all of a loop's links to clients.
package final class UnsentTally {
    @safe @exclusivity(unchecked) package fileprivate(set) var bytes = 0

    package init() {}
}

/// What goes out and comes in by one link in parts.
///
/// Belongs, like the link, to the loop's thread.
package final class PartLine {
    /// Larger payloads may go in parts.
    package static let threshold = PartWindow.wholeBytes
    /// After so many bytes that went whole, since the line was quick, a message goes in parts again, to see whether it still is.
    private static let trialBytes = 256 << 20

    @safe @exclusivity(unchecked) private var outgoing: PartQueue<PartSource>
    @safe @exclusivity(unchecked) private var incoming = PartAssembly<IncomingMessage>()
    // Asked for each message, where the queue's type, which is generic and another module's, would cost more than the message.
    /// Whether something has not gone out.
    @safe @exclusivity(unchecked) package private(set) var isSending = false
    /// Something may have to wait for what goes in parts before it.
    @safe @exclusivity(unchecked) package private(set) var keepsOrder = false
    /// Whether the peer takes parts.
    @safe @exclusivity(unchecked) private var isTaken = false
    /// Bytes that went whole since a message went in parts.
    @safe @exclusivity(unchecked) private var wholeBytes = 0
    /// Messages that were announced, and wait for room.
    @safe @exclusivity(unchecked) private var announced: [Announcement] = []
    private let budget: PartBudget
    /// The session that the peer's last welcome named.
    @safe @exclusivity(unchecked) private var theirSession: (epoch: UInt64, number: UInt32)?
    /// Whether answers begin anew once the peer has welcomed this side again: to invocations, which nobody makes again.
    private let keepsAnswers: Bool
    /// Those that had not gone out when the connection ended.
    @safe @exclusivity(unchecked) private var keptAnswers: [(message: Header, source: PartSource)] = []

    private struct Announcement {
        let transfer: UInt64
        let message: Header
        /// When a request's time is over.
        var deadline: Instant
    }

    /// What of that has not gone out, with all that waits behind it, in bytes.
    @safe @exclusivity(unchecked) package private(set) var unsentBytes = 0
    private let tally: UnsentTally?

    /// - Parameters:
    ///   - budget: What messages that come may take.
    ///   - tally: Where it is summed up what has not gone out.
    ///   - session: The number of the session, if there may have been others by the same connection: no transfer is to be taken for one
    ///     of theirs, of which parts or answers may be on their way.
    ///   - keepsAnswers: Whether answers outlive their connection, as a client's to invocations do.
    package init(budget: PartBudget, tally: UnsentTally? = nil, session: UInt64 = 0, keepsAnswers: Bool = false) {
        self.budget = budget
        self.keepsAnswers = keepsAnswers
        self.outgoing = PartQueue(after: session << 32)
        self.tally = tally
    }

    deinit {
        self.tally?.bytes -= self.unsentBytes
        self.budget.waiting -= self.announced.count
        self.budget.count(
            abandoned: self.outgoing.count + self.incoming.count + self.announced.count + self.keptAnswers.count
        )
    }

    /// Changes what goes out.
    private func change<Result>(_ body: (inout PartQueue<PartSource>) -> Result) -> Result {
        defer {
            self.isSending = !self.outgoing.isEmpty
            self.keepsOrder = self.outgoing.keepsOrder
            let unsent = self.outgoing.unsentBytes
            self.tally?.bytes += unsent - self.unsentBytes
            self.unsentBytes = unsent
        }
        return body(&self.outgoing)
    }

    /// A session begins, or goes on by another connection.
    ///
    /// - Parameter takesParts: What the peer said; nil leaves that as it was.
    package func reset(takesParts: Bool? = nil) {
        self.forgetOutgoing(isSameConnection: false, takesParts: takesParts)
        self.introduced(takesParts: takesParts)
    }

    /// The peer answered an introduction by this connection: what it has not got is sent again.
    ///
    /// With the first welcome of a session, what the peer was sending belongs to a former one, and goes no further; nor do
    /// answers to what it asked in that.
    package func welcomed(takesParts: Bool?, epoch: UInt64, session: UInt32) {
        self.forgetOutgoing(isSameConnection: true, takesParts: takesParts)
        // Each life of a peer counts its sessions anew.
        if let theirs = self.theirSession, theirs == (epoch, session) {
            for answer in exchange(&self.keptAnswers, with: []) {
                self.add(answer.message, deadline: nil, answer.source)
            }
        } else {
            self.forgetAnswers()
            self.forgetIncoming()
        }
        self.theirSession = (epoch, session)
    }

    /// The session is over in which the peer asked what is answered: in another one an id may stand for another invocation.
    package func forgetAnswers() {
        self.budget.count(abandoned: self.keptAnswers.count)
        self.keptAnswers.removeAll()
        guard self.isSending, self.keepsAnswers else { return }
        let before = self.outgoing.count
        self.change { $0.cancelAnswers() }
        self.budget.count(abandoned: before - self.outgoing.count)
    }

    /// The answers that go out in parts, or will once the peer has welcomed this side again, by their ids.
    package var unsentAnswers: [UInt64] {
        self.keptAnswers.map { $0.message.id } + self.outgoing.unsentAnswers.map { $0.message.id }
    }

    private func forgetOutgoing(isSameConnection: Bool, takesParts: Bool?) {
        let kept = self.keepsAnswers ? self.outgoing.unsentAnswers : []
        self.keptAnswers += kept
        self.budget.count(abandoned: self.outgoing.count - kept.count)
        self.change { $0.reset(isSameConnection: isSameConnection) }
        if let takesParts { self.isTaken = takesParts }
    }

    /// The peer introduced itself again by this connection: it sends again what has not come.
    package func introduced(takesParts: Bool?) {
        self.forgetIncoming()
        if let takesParts { self.isTaken = takesParts }
    }

    private func forgetIncoming() {
        self.budget.count(abandoned: self.incoming.count + self.announced.count)
        self.incoming.reset()
        self.budget.waiting -= self.announced.count
        self.announced.removeAll()
    }

    // MARK: Sending

    /// Whether a message goes in parts.
    ///
    /// What calls and callbacks carry does; what follows it in its ``PartStream`` has to be given to ``holds(_:in:)`` then.
    /// To be asked once for each message, since what goes whole is counted.
    package func takes(_ kind: MessageKind?, payloadCount: Int) -> Bool {
        guard payloadCount > Self.threshold, self.isTaken, let kind, Self.isSplit(kind) else { return false }
        if payloadCount > self.outgoing.window.wholeBytes || self.wholeBytes > Self.trialBytes { return true }
        self.wholeBytes += payloadCount
        return false
    }

    /// The kinds of messages that may go in parts.
    private static func isSplit(_ kind: MessageKind) -> Bool {
        switch kind {
        case .request, .reply, .error, .event, .invoke, .progress: true
        default: false
        }
    }

    /// Adds a message to those that go out in parts; a request's time is what is left of it when it goes.
    ///
    /// An answer `isBehindEvents` if they may be for its caller. A request names its key's stream, if it has one.
    package func add(
        _ header: Header,
        deadline: Instant?,
        _ source: PartSource,
        in stream: PartStream? = nil,
        isBehindEvents: Bool = false
    ) {
        var header = header
        header.flags.remove(.attached)
        self.wholeBytes = 0
        self.change { $0.add(header, deadline: deadline, source, in: stream, isBehindEvents: isBehindEvents) }
    }

    /// Whether a request of a key goes in parts: those that follow it have to as well, whatever their size.
    package func isUnderWay(_ stream: PartStream) -> Bool { self.outgoing.isUnderWay(stream) }

    /// Whether whole messages, header and payload, have to wait for others of their stream: then they are kept.
    package func holds(_ messages: UnsafeRawBufferPointer, in stream: PartStream) -> Bool {
        guard self.keepsOrder else { return false }
        let messages = unsafe [UInt8](messages)
        return self.change { $0.hold(messages, in: stream) }
    }

    /// Whether a message without a payload has to wait for others of a stream: then it is kept.
    package func holds(_ header: Header, in stream: PartStream) -> Bool {
        unsafe self.holds(header, UnsafeRawBufferPointer(start: nil, count: 0), in: stream)
    }

    /// Whether a message has to wait for others of its stream, or of `stream`: then it is kept.
    ///
    /// An answer waits for what was told of its request, and `isBehindEvents` if these may be for its caller.
    package func holds(
        _ header: Header,
        _ payload: UnsafeRawBufferPointer,
        in stream: PartStream? = nil,
        isBehindEvents: Bool = false
    ) -> Bool {
        guard self.keepsOrder else { return false }
        var header = header
        header.payloadLength = UInt32(payload.count)
        let message = unsafe [UInt8](unsafeUninitializedCapacity: Header.byteCount + payload.count) { bytes, count in
            guard let base = bytes.baseAddress else { return }
            let place = UnsafeMutableRawPointer(base)
            unsafe header.write(to: place)
            if let source = payload.baseAddress {
                unsafe (place + Header.byteCount).copyMemory(from: source, byteCount: payload.count)
            }
            count = Header.byteCount + payload.count
        }
        if let stream = stream ?? PartStream(of: header) { return self.change { $0.hold(message, in: stream) } }
        guard header.kind == .reply || header.kind == .error else { return false }
        return self.change { $0.hold(message, of: header.id, isBehindEvents: isBehindEvents) }
    }

    /// The next part to send, as messages behind what has gathered and perhaps a frame behind them.
    ///
    /// - Parameters:
    ///   - batch: What has gathered.
    ///   - now: The time.
    ///   - stamp: The stamp that a request's time counts from, if one is due.
    /// - Returns: The frame, if there is one; nil if nothing may be sent now.
    package func next(
        into batch: inout OutgoingBatch,
        at now: Instant,
        stamp: () -> Header? = { nil }
    ) -> NextPart? {
        switch self.change({ $0.next(at: now) }) {
        case nil: return nil
        case .messages(let messages):
            unsafe messages.withUnsafeBytes { unsafe batch.append(message: $0) }
            return NextPart(attached: nil)
        case .ended(let transfer):
            batch.append(Header(.partEnded, id: transfer))
            return NextPart(attached: nil)
        case .header(let message, let transfer):
            if message.kind == .request, message.time != Header.noTimeLimit, let stamp = stamp() { batch.append(stamp) }
            let header = Header(.part, payloadLength: UInt32(Header.byteCount), id: transfer)
            unsafe withUnsafeTemporaryAllocation(byteCount: Header.byteCount, alignment: 8) { bytes in
                guard let base = bytes.baseAddress else { return }
                unsafe message.write(to: base)
                unsafe batch.append(header, payload: UnsafeRawBufferPointer(bytes))
            }
            return NextPart(attached: nil)
        case .payload(let source, let range, let transfer, let end):
            batch.append(
                Header(
                    .part,
                    flags: .attached,
                    payloadLength: UInt32(range.count),
                    id: transfer,
                    time: UInt32(end - range.count)
                )
            )
            return NextPart(attached: source.message(range))
        }
    }

    package struct NextPart: ~Copyable {
        package var attached: Message?
    }

    /// The peer has a part.
    ///
    /// - Returns: The request whose answer the peer has wholly now, or doesn't want.
    @discardableResult
    package func acknowledged(_ header: Header, at now: Instant) -> UInt64? {
        let isWanted = header.number == 0
        let settled = self.change { $0.settledAnswer(header.id, end: Int(header.time), isWanted: isWanted) }
        let isKnown = self.change {
            $0.acknowledged(header.id, end: Int(header.time), isWanted: isWanted, at: now)
        }
        if isKnown, !isWanted { self.budget.count(abandoned: 1) }
        return settled
    }

    /// This side wants a request of its own no more: neither that nor its answer need go on.
    package func cancelOwn(_ id: UInt64) {
        self.cancelOutgoing({ $0 == .request }, id: id)
        self.forget({ $0 == .reply || $0 == .error || $0 == .progress }, id: id)
    }

    /// The peer has dropped a request and its answer, of which parts may have come after this side had given it up.
    package func cancelledByPeer(_ id: UInt64) {
        if self.incoming.count > 0 || !self.announced.isEmpty {
            self.forget({ $0 == .reply || $0 == .error || $0 == .progress }, id: id)
        }
    }

    /// The peer wants a request no more: neither that nor its answer need go on.
    package func cancelTheirs(_ id: UInt64) {
        self.cancelOutgoing({ $0 == .reply || $0 == .error || $0 == .progress }, id: id)
        self.forget({ $0 == .request }, id: id)
    }

    /// An answer is about to be sent anew: what of it is under way goes no further.
    package func cancelAnswer(_ id: UInt64) { self.cancelOutgoing({ $0 == .reply || $0 == .error }, id: id) }

    /// Whether messages come in parts, or are about to.
    package var isReceiving: Bool { self.incoming.count > 0 || !self.announced.isEmpty }

    /// The peer gave a message up that it had begun to send.
    package func ended(_ header: Header) {
        self.incoming.end(header.id)
        let count = self.announced.count
        self.announced.removeAll { $0.transfer == header.id }
        self.budget.waiting -= count - self.announced.count
    }

    private func cancelOutgoing(_ kinds: (MessageKind) -> Bool, id: UInt64) {
        if self.isSending { self.change { _ = $0.cancel(kinds, id: id) } }
    }

    private func forget(_ kinds: (MessageKind) -> Bool, id: UInt64) {
        self.incoming.cancel(kinds, id: id)
        let count = self.announced.count
        self.announced.removeAll { $0.message.id == id && $0.message.kind.map(kinds) == true }
        self.budget.waiting -= count - self.announced.count
    }

    /// The deadline of a request that goes out was moved.
    package func move(_ id: UInt64, to deadline: Instant) { self.outgoing.move(id, to: deadline) }

    /// The deadline of a request that comes in was moved.
    ///
    /// - Returns: Whether it is on its way.
    @discardableResult
    package func moved(_ id: UInt64, to deadline: Instant) -> Bool {
        if let index = self.announced.firstIndex(where: { $0.message.id == id && $0.message.kind == .request }) {
            self.announced[index].deadline = deadline
            return true
        }
        return self.incoming.move(id, to: deadline)
    }

    // MARK: Receiving

    package enum Arrival {
        /// More is to come, or nobody wants it.
        case nothing
        /// A message is whole: header and payload, as in a frame of its own.
        case whole(MessageBox)
        /// A message is too large: its header, and why.
        case refused(Header, WireError)
        case malformed(WireError)
    }

    /// Takes a part.
    ///
    /// - Parameters:
    ///   - header: The part's.
    ///   - payload: Its piece of the message.
    ///   - maxPayloadBytes: The largest payload that this side takes.
    ///   - origin: What the times of the peer's requests count from; nil from somebody who sends none.
    ///   - now: When it came.
    /// - Returns: What came of it, and what to answer; nil if there is no room yet for what follows it.
    package func take(
        _ header: Header,
        _ payload: UnsafeRawBufferPointer,
        maxPayloadBytes: Int,
        countedFrom origin: Instant? = nil,
        at now: Instant
    ) -> (arrival: Arrival, answer: Header?) {
        let end = UInt32(truncatingIfNeeded: Int(header.time) + payload.count)
        let taken = Header(.partTaken, id: header.id, time: end)
        let origin = origin ?? now
        let unwanted = Header(.partTaken, id: header.id, time: end, number: 1)
        do throws(WireError) {
            if header.time == 0 {
                let message = try unsafe self.announcement(payload)
                let count = Int(message.payloadLength)
                guard count <= maxPayloadBytes else {
                    let error = WireError(
                        .tooLarge,
                        "a payload of \(PeopleText.size(count)) is over the limit of \(PeopleText.size(maxPayloadBytes))"
                    )
                    self.budget.count(oversized: 1)
                    return (.refused(message, error), unwanted)
                }
                // A sender has so few under way at once that too many are of one that doesn't say what it gives up.
                if self.announced.count >= PartQueue<Int>.mostAtOnce {
                    self.announced.removeFirst()
                    self.budget.waiting -= 1
                    self.budget.count(abandoned: 1)
                }
                // Whatever the parts wait in from now on: the time runs.
                let deadline = Instant(deadlineAfter: message.time, at: origin)
                self.announced.append(Announcement(transfer: header.id, message: message, deadline: deadline))
                self.budget.waiting += 1
                return (.nothing, self.grant())
            }
            guard
                let place = try self.incoming.place(
                    header.id,
                    offset: Int(header.time),
                    count: payload.count,
                    countedFrom: origin,
                    at: now
                )
            else {
                self.budget.count(refused: 1)
                return (.nothing, unwanted)
            }
            unsafe place.buffer.write(payload, at: place.offset)
            guard let whole = place.whole else { return (.nothing, taken) }
            unsafe withUnsafeTemporaryAllocation(byteCount: Header.byteCount, alignment: 8) { bytes in
                guard let base = bytes.baseAddress else { return }
                unsafe whole.write(to: base)
                unsafe place.buffer.write(UnsafeRawBufferPointer(bytes), at: 0)
            }
            return (.whole(place.buffer.take()), taken)
        } catch {
            self.budget.count(refused: 1)
            return (.malformed(error), unwanted)
        }
    }

    /// The message that a first part begins.
    private func announcement(_ payload: UnsafeRawBufferPointer) throws(WireError) -> Header {
        guard payload.count == Header.byteCount else {
            throw WireError(.badFraming, "the first part of a message is its header, not \(payload.count) bytes")
        }
        let message = try unsafe Header(reading: payload)
        guard let kind = message.kind, Self.isSplit(kind), !message.flags.contains(.attached) else {
            throw WireError(.badFraming, "a message of kind \(message.rawKind) does not come in parts")
        }
        guard message.payloadLength > 0 else {
            throw WireError(.badFraming, "a message without a payload does not come in parts")
        }
        return message
    }

    /// Lets the message that was announced first come, if there is room for it.
    ///
    /// - Returns: What to tell its sender.
    package func grant() -> Header? {
        while let first = self.announced.first {
            let count = Header.byteCount + Int(first.message.payloadLength)
            guard self.budget.hasRoom(for: count) else { return nil }
            self.announced.removeFirst()
            self.budget.waiting -= 1
            let buffer = IncomingMessage(count: count, budget: self.budget)
            let dropped = self.incoming.begin(first.transfer, first.message, deadline: first.deadline, in: buffer)
            if dropped > 0 { self.budget.count(abandoned: dropped) }
            return Header(.partTaken, id: first.transfer, time: UInt32(Header.byteCount))
        }
        return nil
    }
}
