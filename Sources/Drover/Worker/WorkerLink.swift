// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import DroverCore
internal import DroverRuntime
internal import DroverWire

/// The callbacks that handlers gave up last: the peer may not have heard of it, nor have got all their events.
///
/// A client says when it has: then it has read what was in front of that. A broker says so when it is told again.
struct GivenUp: Sequence {
    private var callbacks = Deque<(number: UInt32, subscriber: Subscriber)>()
    /// So many are kept, more than a client remembers of those that have ended.
    private static var limit: Int { 512 }

    mutating func append(_ callback: (number: UInt32, subscriber: Subscriber)) {
        if self.callbacks.count == Self.limit { self.callbacks.removeFirst() }
        self.callbacks.append(callback)
    }

    mutating func confirmed(_ number: UInt32) {
        if !self.callbacks.isEmpty { self.callbacks.removeAll { $0.number == number } }
    }

    func makeIterator() -> Deque<(number: UInt32, subscriber: Subscriber)>.Iterator { self.callbacks.makeIterator() }
}

/// What is about to be sent to one client.
///
/// Belongs, like the loop's socket, to the holder of the loop's token.
final class WorkerLink {
    /// What gathers, and what waits for room.
    @safe @exclusivity(unchecked) var out: Outbox
    /// The largest payload that the client takes, and that this worker sends: a larger one would cost the connection.
    @safe @exclusivity(unchecked) var maxPayloadBytes: Int
    /// What goes out and comes in in parts.
    let line: PartLine
    /// What it was asked about, events and progress that it was sent.
    @safe @exclusivity(unchecked) var questions = OpenQuestions()
    /// The last callbacks that handlers gave up, and the numbers that the peer knew them by.
    @safe @exclusivity(unchecked) var givenUp = GivenUp()
    /// What a client has not read of its answers; not counted for a broker, which reads always.
    @safe @exclusivity(unchecked) var unread = UnreadAnswers()
    /// The PING that asks for that; 0 if none is open.
    @safe @exclusivity(unchecked) var answersQuestion: UInt64 = 0
    /// Large answers that it may not have read.
    let kept: AnswerKeep
    /// Whether its requests wait until it has read more.
    let holdUp: HoldUp
    /// Whether it has read all, and has nothing more under way, once the worker drains.
    @safe @exclusivity(unchecked) var clearance = Clearance()
    /// The connection by which a client introduced itself last; nil if it has no descriptor.
    @safe @exclusivity(unchecked) var introducedBy: Newcomers.Connection?
    /// Whose it is, if the worker listens with keys; nil for a broker that was dialled.
    @safe @exclusivity(unchecked) var access: LinkAccess? {
        didSet { self.caller = self.access?.caller }
    }
    /// The same for handlers.
    @safe @exclusivity(unchecked) private(set) var caller: Caller?
    /// What is kept for a session with a broker; nil for one with a client.
    @safe @exclusivity(unchecked) let broker: BrokerSide?

    init(
        routingID: [UInt8],
        maxPayloadBytes: Int,
        broker: BrokerSide?,
        line: PartLine,
        kept: AnswerKeep,
        maxUnreadBytes: Int
    ) {
        self.out = Outbox(routingID: routingID)
        self.maxPayloadBytes = maxPayloadBytes
        self.broker = broker
        self.line = line
        self.kept = kept
        self.holdUp = HoldUp(mostFinished: maxUnreadBytes)
    }
}
