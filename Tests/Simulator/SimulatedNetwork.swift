// SPDX-License-Identifier: Apache-2.0

package import DroverCore
package import DroverWire

/// A message on its way.
package enum Packet: Sendable {
    case hello(client: PeerID, epoch: UInt64, claimed: UInt32, stamp: UInt32)
    /// `slots` is 0 for a broker's.
    case welcome(epoch: UInt64, session: UInt32, window: Int, slots: Int = 0, isResumed: Bool, answers: UInt64)
    case reset
    case goodbye(GoodbyeReason)
    /// Of who sends requests with what its clock shows.
    case beat(epoch: UInt64, stamp: UInt32 = 0, isNewClock: Bool = false)
    case ping(UInt64)
    case pong(UInt64)
    case define(UInt32)
    /// By a broker, whose numbers are its own.
    case defineAs(UInt32, name: String)
    case offer(WorkerOffer)
    case ready(epoch: UInt64, isQuiet: Bool, isStarved: Bool)
    case recall(UInt64)
    /// `token` names the call in the whole simulation: the argument.
    case request(Header, key: String?, token: UInt64)
    case answer(id: UInt64, token: UInt64, isError: Bool)
    case cancel(UInt64)
    case deadline(UInt64, time: UInt32)
    case cancelled(UInt64, CancelledStage)
    case phase(UInt64, CallPhase, HoldReason)
    /// From here on between a worker and a broker by the worker's number, between a broker and a client by the client's.
    case bind(UInt32, to: UInt32, of: PeerID)
    case event(UInt32, sequence: UInt64, EventSource)
    case invoke(UInt32, id: UInt64, EventSource)
    /// A PING behind events, with the number of the next one.
    case emitted(UInt32, next: UInt64)
    case invocationAnswer(id: UInt64, token: UInt64)
    case invocationFailed(id: UInt64)
    case ended(UInt32)
    case flow(UInt32, isPaused: Bool)
    /// A piece of a large packet.
    indirect case part(PacketPart)
    case partTaken(UInt64, end: Int, isWanted: Bool)
    case partEnded(UInt64)

    /// A BEAT of who sends requests.
    init(_ beat: Header) {
        self = .beat(epoch: beat.id, stamp: beat.time, isNewClock: beat.number == Header.newClock)
    }
}

/// Where an event or invocation comes from, to see that none is taken for another.
package struct EventSource: Sendable {
    /// One worker's way to one callback, by one session.
    var token: UInt64
    /// Counts what was sent by it.
    var serial: UInt64
    /// Who it is meant for.
    var client: PeerID
    var subscription: UInt32
    /// The call whose handler sent it.
    var call: UInt64 = 0
}

/// One connection between a DEALER and a ROUTER, or between the ROUTERs of a worker that dials and of a broker: ordered in
/// each direction, gone for good once it breaks.
final class Connection {
    /// The routing id that the ROUTER gave it.
    let route: UInt64
    /// The client, or -1 between a worker and a broker.
    let client: Int
    /// The worker; that of a client is a broker, if there are brokers.
    let worker: Int
    let workerLife: Int
    /// The broker that a worker dialled.
    let broker: Int?
    /// Carries packets.
    var isUp = true
    /// Packets to the worker that were on their way when the client closed it still arrive.
    var drains = false
    /// When the last packet arrives in each direction.
    var lastToWorker: UInt64 = 0
    var lastToClient: UInt64 = 0
    /// What goes in parts from and to the client, or the broker that a worker dialled, and from and to the worker.
    let near = SimulatedLine()
    let far = SimulatedLine()
    /// Until when the line is busy in each direction.
    var busyToWorker: UInt64 = 0
    var busyToClient: UInt64 = 0
    /// What the quickest stamp since the HELLO took, and when it came.
    private var quickest: (trip: UInt64, at: UInt64)?
    /// By how much the receiver may take deadlines that count from the last stamp for later than they are.
    private(set) var slack = UInt64.max

    init(route: UInt64, client: Int, worker: Int, workerLife: Int, broker: Int? = nil) {
        self.route = route
        self.client = client
        self.worker = worker
        self.workerLife = workerLife
        self.broker = broker
    }

    /// A HELLO or a BEAT was read; here all clocks are one.
    func stamped(_ header: Header, at now: UInt64) {
        if header.kind == .hello { (self.quickest, self.slack) = (nil, .max) }
        guard header.time != 0 else { return }
        let trip = UInt64(UInt32(truncatingIfNeeded: now / 1000) &- header.time) * 1000
        let drifted = self.quickest.map { $0.trip + (now - $0.at) >> 10 + 3000 } ?? .max
        if trip <= drifted || header.number == Header.newClock { self.quickest = (trip, now) }
        // Times are rounded up to a millisecond.
        self.slack = (header.number == Header.newClock ? trip : min(trip, drifted)) + 1_010_000
    }
}

/// How bad things are between one client and one worker.
struct Path {
    /// Until when nothing arrives in a direction; what is sent meanwhile arrives afterwards.
    var blockedToWorker: UInt64 = 0
    var blockedToClient: UInt64 = 0
    /// The longest that a packet takes.
    var latency: UInt64 = 5_000_000
    /// Nanoseconds that the line needs for a byte; 0 if it takes any amount at once.
    var nanosecondsPerByte: UInt64 = 0
}
