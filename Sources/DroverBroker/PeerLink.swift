// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import DroverCore
internal import DroverRuntime
internal import DroverZMQ

/// What is about to be sent to one client or worker.
///
/// Belongs to the loop's thread.
final class PeerLink {
    /// A frame that libzmq would not take yet, with the one that belongs to it.
    final class Parked {
        var message: Message
        var attached: Message?

        init(_ message: consuming Message, attached: consuming Message?) {
            self.message = message
            self.attached = attached
        }
    }

    /// libzmq's name of the connection.
    @safe @exclusivity(unchecked) var routingID: [UInt8]
    /// The largest payload that the peer takes.
    @safe @exclusivity(unchecked) var maxPayloadBytes: Int
    @safe @exclusivity(unchecked) var batch = OutgoingBatch()
    @safe @exclusivity(unchecked) var parked = Deque<Parked>()
    /// What goes out and comes in in parts.
    let line: PartLine
    /// What a worker was told of the broker's clock, in this session.
    @safe @exclusivity(unchecked) var departures = DepartureClock()
    /// Whose it is, if the broker has keys.
    @safe @exclusivity(unchecked) var access: LinkAccess? {
        didSet {
            self.isLimited = self.access?.grant.mayCallAnything == false
            self.accessChanges &+= 1
        }
    }
    /// How often that has changed, or was said again.
    @safe @exclusivity(unchecked) private(set) var accessChanges: UInt32 = 0
    /// Not every call may be made by it.
    @safe @exclusivity(unchecked) private(set) var isLimited = false
    /// Whether a client has read all, and has nothing more under way, once the broker drains.
    @safe @exclusivity(unchecked) var clearance = Clearance()
    /// Has something to flush in this turn.
    @safe @exclusivity(unchecked) var isDirty = false

    /// The connection of a worker, or of anybody if the broker has keys: which one is meant when a connection is closed.
    @safe @exclusivity(unchecked) var connection = ConnectionMark()

    /// Whether the worker wants to know the callers of requests, and which it was told of.
    @safe @exclusivity(unchecked) var takesCallers = false
    @safe @exclusivity(unchecked) var toldCallers = ToldCallers()

    /// The connection by which the session was introduced last; nil if it has no descriptor.
    @safe @exclusivity(unchecked) var introducedBy: Newcomers.Connection?

    /// Calls that the worker answered.
    @safe @exclusivity(unchecked) var answered = 0

    /// Answers to a worker's invocations that came while it was away, to be sent when its session goes on.
    @safe @exclusivity(unchecked) var heldAnswers: [HeldAnswer] = []

    /// What a client has not read.
    @safe @exclusivity(unchecked) var unread = UnreadAnswers()
    /// The PING that asks for that; 0 if none is open.
    @safe @exclusivity(unchecked) var unreadQuestion: UInt64 = 0
    /// Large answers that a client may not have read; nil of a worker's.
    let kept: AnswerKeep?
    /// How often the broker itself answered a client while its calls had to wait for it to read.
    @safe @exclusivity(unchecked) var answersWhileHeldUp = 0

    /// The client that it leads to, or -1 for a worker's.
    let client: Int
    /// The worker that it leads to, or -1 for a client's.
    let worker: Int
    /// Which life of a worker it belongs to; 0 for a client's.
    let incarnation: UInt64

    /// A link to a client.
    init(routingID: [UInt8], maxPayloadBytes: Int, line: PartLine, kept: AnswerKeep, client: Int) {
        self.line = line
        self.kept = kept
        self.routingID = routingID
        self.maxPayloadBytes = maxPayloadBytes
        self.client = client
        self.worker = -1
        self.incarnation = 0
    }

    /// A link to a worker.
    init(routingID: [UInt8], maxPayloadBytes: Int, line: PartLine, worker: Int, incarnation: UInt64) {
        self.line = line
        self.kept = nil
        self.client = -1
        self.routingID = routingID
        self.maxPayloadBytes = maxPayloadBytes
        self.worker = worker
        self.incarnation = incarnation
    }

    /// What was on its way by an old connection is gone, or will be asked for again.
    ///
    /// Not for a peer that introduces itself again by the same one: all is still to go out, and nobody asks for events again.
    func moved(to routingID: [UInt8]) {
        self.routingID = routingID
        self.forgetOutgoing()
    }

    /// The peer is gone: nothing that waits for it may reach the next peer on its route.
    func forgetOutgoing() {
        self.parked.removeAll()
        self.batch.removeAll()
        self.departures.forget()
        self.line.reset()
    }
}
