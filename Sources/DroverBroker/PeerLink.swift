// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverRuntime

/// The outgoing side of one client or worker: what is about to be sent to it.
///
/// Belongs to the loop's thread.
final class PeerLink {
    /// What is gathered for the peer.
    ///
    /// Its connection is marked for a worker, and for any peer if the broker has keys: that tells whose connection was
    /// closed.
    @safe @exclusivity(unchecked) var out: Outbox
    /// The largest payload that the peer takes.
    @safe @exclusivity(unchecked) var maxPayloadBytes: Int
    /// What is sent and received in parts.
    let line: PartLine
    /// What a worker has been told about the broker's clock in this session.
    @safe @exclusivity(unchecked) var departures = DepartureClock()
    /// Whose session it is, if the broker has keys.
    @safe @exclusivity(unchecked) var access: LinkAccess? {
        didSet {
            self.isLimited = self.access?.grant.mayCallAnything == false
            self.accessChanges &+= 1
        }
    }
    /// How often `access` was set, to the same value or another.
    @safe @exclusivity(unchecked) private(set) var accessChanges: UInt32 = 0
    /// Whether some calls are forbidden to the session.
    @safe @exclusivity(unchecked) private(set) var isLimited = false
    /// While the broker drains: whether a client has read everything and has nothing more under way.
    @safe @exclusivity(unchecked) var clearance = Clearance()

    /// Whether the worker wants to know the callers of requests, and which ones it has been told.
    @safe @exclusivity(unchecked) var takesCallers = false
    @safe @exclusivity(unchecked) var toldCallers = ToldCallers()

    /// The connection over which the session was last introduced; nil if it has no descriptor.
    @safe @exclusivity(unchecked) var introducedBy: Newcomers.Connection?

    /// Calls that the worker answered.
    @safe @exclusivity(unchecked) var answered = 0

    /// Answers to a worker's invocations that arrived while it was away, to be sent when its session resumes.
    @safe @exclusivity(unchecked) var heldAnswers: [HeldAnswer] = []

    /// What a client has not read.
    @safe @exclusivity(unchecked) var unread = UnreadAnswers()
    /// The open PING that asks what the client has read; 0 if none is open.
    @safe @exclusivity(unchecked) var unreadQuestion: UInt64 = 0
    /// Large answers that a client may not have read; nil for a worker.
    let kept: AnswerKeep?
    /// How often the broker itself answered a client while its calls had to wait for it to read.
    @safe @exclusivity(unchecked) var answersWhileHeldUp = 0

    /// The client at the other end, or -1 for a worker's link.
    let client: Int
    /// The worker at the other end, or -1 for a client's link.
    let worker: Int
    /// The life of the worker that the link belongs to; 0 for a client's link.
    let incarnation: UInt64

    /// Creates a link to a client.
    init(routingID: [UInt8], maxPayloadBytes: Int, line: PartLine, kept: AnswerKeep, client: Int) {
        self.line = line
        self.kept = kept
        self.out = Outbox(routingID: routingID)
        self.maxPayloadBytes = maxPayloadBytes
        self.client = client
        self.worker = -1
        self.incarnation = 0
    }

    /// Creates a link to a worker.
    init(routingID: [UInt8], maxPayloadBytes: Int, line: PartLine, worker: Int, incarnation: UInt64) {
        self.line = line
        self.kept = nil
        self.client = -1
        self.out = Outbox(routingID: routingID)
        self.maxPayloadBytes = maxPayloadBytes
        self.worker = worker
        self.incarnation = incarnation
    }

    /// Forgets what was on its way over the old connection: it is gone, or will be asked for again.
    ///
    /// Not for a peer that introduces itself again over the same connection: there, everything is still to be sent, and
    /// events aren't asked for again.
    func moved(to routingID: [UInt8]) {
        self.out.routingID = routingID
        self.forgetOutgoing()
    }

    /// Drops everything that waits for a peer that is gone: none of it may reach the next peer on its route.
    func forgetOutgoing() {
        self.out.forget()
        self.departures.forget()
        self.line.reset()
    }
}
