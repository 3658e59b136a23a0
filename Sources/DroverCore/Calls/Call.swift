// SPDX-License-Identifier: Apache-2.0

/// How far a call has come, as far as its client knows (contract S99).
package enum CallPhase: UInt8, Comparable, Sendable {
    /// It is queued on this side: no endpoint can take it yet.
    case local = 0
    /// It was handed to a connection.
    case sent = 1
    /// The worker has it, and it waits there.
    case accepted = 2
    /// The worker runs it.
    case running = 3

    package static func < (lhs: Self, rhs: Self) -> Bool { lhs.rawValue < rhs.rawValue }
}

/// What the client's machine knows about one call that has not ended.
package struct Call: Sendable {
    /// The correlation id.
    package let id: UInt64
    /// The client's number for the function.
    package let function: UInt32
    /// The only endpoint it may go to, or ``noEndpoint`` for any.
    package let target: Int32
    /// The endpoint it was sent to, or none while it waits here.
    package var endpoint: Int32
    /// How far it has come.
    package var phase: CallPhase
    /// Whether it waits for a slot held by a handler that itself waits for a call, or its handler waits for such a
    /// call.
    package var isStalled = false
    /// How often it was sent to a worker that may have run it.
    var sends: UInt8 = 0
    /// During how many worker deaths it may have been running.
    package var attempts: UInt8
    /// How often it was taken back from a worker that didn't die.
    var moves: UInt8 = 0
    /// How often it was declined.
    var declines: UInt8 = 0
    /// Whether it had to wait for a slot at its worker.
    var isBehind = false
    /// Whether its handler waits without a slot.
    var isReleased = false
    /// What it waits for at its worker, if that is not a slot.
    var hold = HoldReason.none
    /// Whether its worker was asked to give it back.
    var isRecalled = false
    /// Whether it stands for several calls: after a worker's death they must be told apart.
    package let isBundle: Bool
    var sentAt = Instant(nanoseconds: 0)
    /// Whether it was sent again in a resumed session: its worker may have received it twice.
    package var isRepeated = false
    /// Whether a worker took it out before it ran, and it is to run after all.
    package var isRenewed = false
    /// Whether it may run more than once.
    package let isIdempotent: Bool
    /// Whether it is a ping rather than work: it takes no place in the worker's window.
    package let isPing: Bool
    /// Whether it ends as soon as no endpoint can be reached, instead of waiting for one.
    package let isImpatient: Bool
    /// A hash of the ordering key, 0 without one: calls of one key go to one worker.
    package let affinity: UInt64
    /// When its client stops waiting.
    package var deadline: Instant

    /// Stands for no endpoint, or for any.
    @inlinable package static var noEndpoint: Int32 { -1 }

    @inlinable
    package init(
        id: UInt64,
        function: UInt32 = 0,
        isIdempotent: Bool = false,
        affinity: UInt64 = 0,
        isPing: Bool = false,
        isImpatient: Bool = false,
        target: Int32 = -1,
        attempts: UInt8 = 0,
        isBundle: Bool = false,
        deadline: Instant = .distantFuture
    ) {
        self.id = id
        self.function = function
        self.isIdempotent = isIdempotent
        self.affinity = affinity
        self.isPing = isPing
        self.isImpatient = isImpatient
        self.target = target
        self.endpoint = Self.noEndpoint
        self.phase = .local
        self.attempts = attempts
        self.isBundle = isBundle
        self.deadline = deadline
    }
}

/// Why calls end as lost.
package enum LossReason: Equatable, Sendable {
    /// Nothing was heard for the silence limit.
    case silent
    /// The worker closed the connection and did not come back within a second.
    case disconnected
    /// The worker came back as a new process.
    case restarted
    /// The worker reconnected and no longer knew this client.
    case forgotten
    /// The worker said goodbye.
    case left
    /// The worker refused this client's key.
    case authentication
    /// The peer speaks another protocol.
    case `protocol`
    /// The worker refused the handshake.
    case refused
    /// The worker refused the handshake for lack of room, which is temporary.
    case full
    /// Nothing listens there, or the name can't be resolved.
    case unreachable
}

extension LossReason {
    /// What happened, in words.
    package var words: String {
        switch self {
        case .silent: "it was silent for too long"
        case .disconnected: "its connection was closed, and it was not back within a second"
        case .restarted: "it was restarted"
        case .forgotten: "it had forgotten the session"
        case .left: "it left"
        case .authentication: "its key is not accepted"
        case .protocol: "it doesn't speak this protocol"
        case .refused: "it refused the session"
        case .full: "it has no room for this client at the moment"
        case .unreachable: "it can't be reached"
        }
    }

    /// Whether the worker may have been killed by what it ran.
    var mayBeDeath: Bool {
        switch self {
        case .silent, .disconnected, .restarted: true
        case .forgotten, .left, .authentication, .protocol, .refused, .full, .unreachable: false
        }
    }

    /// Converts the reason why the peer's session ended by itself.
    init(_ reason: PeerSession.EndReason) {
        self =
            switch reason {
            case .silent: .silent
            case .disconnected: .disconnected
            }
    }
}

/// How a call ends without an answer.
package enum CallEnding: Equatable, Sendable {
    case expired
    case lost(LossReason)
    /// It may have been running during this many worker deaths, and was alone in the last, unless it is a bundle.
    case poison(attempts: Int, endpoints: [Int])
    /// Workers declined it, the last one at this endpoint.
    case declined(Int)
}

/// What a reply to an id means.
package enum ReplyVerdict: Equatable, Sendable {
    /// It ends the call in this slot, which is free from now on.
    case deliver(slot: UInt32)
    /// It arrived after the deadline, but before the tick that would have ended the call: the deadline wins.
    case expire(slot: UInt32, function: UInt32, nanoseconds: UInt64)
    /// The call had ended without its answer, this many nanoseconds ago.
    case late(function: UInt32, nanoseconds: UInt64)
    /// The call had been answered already.
    case duplicate
    /// No such call is remembered.
    case unknown
}
