// SPDX-License-Identifier: Apache-2.0

/// What a message is; the numbers are the wire's (`docs/protocol.md`, section 5).
package enum MessageKind: UInt8, CaseIterable, Sendable {
    // Session: 1...15.

    /// A client introduces itself.
    case hello = 1
    /// The worker accepts a client: its epoch, the window, the limits.
    case welcome = 2
    /// The receiver of this is not known to the sender and must introduce itself again.
    case reset = 3
    /// The sender takes no more work (`number` 0) or leaves (1).
    case goodbye = 4
    /// Sign of life; `id` is the sender's epoch.
    case beat = 5
    /// Asks for a pong; `id` is a nonce.
    case ping = 6
    /// Answers a ping, with load figures.
    case pong = 7
    /// The worker does not accept a client, and why.
    case refused = 8
    /// A piece of a large message; `id` is the transfer, `time` where it begins in the message.
    case part = 9
    /// A part has arrived; `id` is the transfer, `time` where the part ends in the message.
    case partTaken = 10
    /// The sender gave up a message in parts; `id` is the transfer.
    case partEnded = 11

    // Requests: 16...31.

    /// Gives a function a number for this session.
    case define = 16
    /// Asks to run a function.
    case request = 17
    /// The value that a request returned.
    case reply = 18
    /// The error that a request ended with.
    case error = 19
    /// The requester no longer wants a request.
    case cancel = 20
    /// A request was received and waits.
    case accepted = 21
    /// A request was started.
    case started = 22
    /// An update that a running request sends its requester.
    case progress = 23
    /// A request ended without an answer, because it was cancelled or lapsed.
    case cancelled = 24
    /// The requester changed the time limit of a request; `time` is the time left now.
    case deadline = 25

    // Events: 32...47.

    /// An event for a subscription; it is not answered.
    case event = 32
    /// A call of a subscription; it is answered.
    case invoke = 33
    /// A subscription is over.
    case ended = 34
    /// Asks the sender of a subscription's events to pause (`id` 0) or to go on (1).
    case flow = 35
    /// After a session was resumed: the invocations that a client is still working on.
    case pending = 36

    // Between workers and brokers: 48...63.

    /// What a worker that dials a broker can do; `id` is its epoch.
    case offer = 48
    /// A worker's present state, in place of a beat; see ``ReadyState``.
    case ready = 49
    /// A worker's credit (`number`), and how many waiting requests it could take (`time`).
    case credit = 50
    /// A worker's number for a client's subscription (`id`).
    case bind = 51
    /// An operator's order to a worker; see ``ControlOrder``. For a stop, `time` is the grace.
    case control = 52
    /// The caller that a broker's number, in the upper half of a request's `number`, stands for.
    case caller = 53
    /// The client's own id for a long-running request (`id`).
    case origin = 54
}

extension MessageKind {
    /// Inlinable: another module would call the derived one through its witness, for each message.
    @inlinable
    package static func == (lhs: Self, rhs: Self) -> Bool { lhs.rawValue == rhs.rawValue }
}

/// `number` of a ``MessageKind/control``.
package enum ControlOrder: UInt32, Sendable {
    case quiet = 1
    case resume = 2
    case stop = 3
}

/// `number` of a ``MessageKind/ready``.
package struct ReadyState: OptionSet, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Wants no new requests for now.
    package static let quiet = ReadyState(rawValue: 1)
    /// Has credit and free handlers, but gets nothing although the broker says that requests wait.
    package static let starved = ReadyState(rawValue: 2)
    /// Each of its slots is held by a handler that waits for a call that waits for a slot.
    package static let stalled = ReadyState(rawValue: 4)
}

/// `number` of an ACCEPTED or a STARTED: what the request waits for, beyond the usual.
package enum PhaseReport {
    /// A slot, each held by a handler that waits for a call that waits for a slot; in STARTED: its handler waits so.
    package static let stalled: UInt32 = 1
    /// In STARTED: the handler waits, and has given back its slot meanwhile.
    package static var released: UInt32 { 2 }
    /// In ACCEPTED: the request waits for its function's limit, not for a slot.
    package static var limited: UInt32 { 2 }
    /// In ACCEPTED: the request waits for its ordering key, not for a slot.
    package static var keyed: UInt32 { 4 }
    /// In a broker's ACCEPTED: no worker that may run the request has offered itself there.
    package static var unserved: UInt32 { 8 }

    /// What to do about it.
    package static let remedy =
        "let handlers give their slots back while they wait (JobContext.withSlotReleased), or give the workers more slots"
}

/// What a worker's PING follows, so that a broker can pass the question on to the client.
package enum QuestionSubject: UInt32, Sendable {
    /// Nothing that is passed on: the peer that reads the PING answers it.
    case nothing = 0
    /// EVENTs of the subscription in the header; the payload, if there is one, is the number of the next.
    case events = 1
    /// PROGRESS of the request whose id is the payload.
    case progress = 2

    /// A number as a PING's payload: 8 bytes.
    package static func payload(_ number: UInt64) -> [UInt8] {
        (0..<8).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }
    }

    /// The number that a PING's payload holds; nil if it holds none.
    package static func number(in payload: UnsafeRawBufferPointer) -> UInt64? {
        guard payload.count == 8 else { return nil }
        return UInt64(littleEndian: unsafe payload.loadUnaligned(as: UInt64.self))
    }
}

/// `number` of a ``MessageKind/goodbye``.
package enum GoodbyeReason: UInt32, Sendable {
    case draining = 0
    case leaving = 1
}

/// `number` of a ``MessageKind/cancel``.
package enum CancelReason: UInt32, Sendable {
    case requested = 0
    case expired = 1
    /// A broker wants the request back unless it has started.
    case recalled = 2
}

/// `number` of a ``MessageKind/cancelled``.
package enum CancelledStage: UInt32, Sendable {
    case beforeStart = 0
    case whileRunning = 1
    case unknown = 2
    case lapsed = 3

    /// Whether this stage says that the request was there and will not run.
    package var isRemoval: Bool { self == .beforeStart || self == .lapsed }
}
