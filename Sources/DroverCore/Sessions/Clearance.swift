// SPDX-License-Identifier: Apache-2.0

/// Whether nothing is under way any more between a side that drains and one of its peers (contract S88, S91).
///
/// The peer was told that nothing more is taken. A PING goes behind that, and behind the last answer: its PONG says that the
/// peer has read all of it, and comes behind all that the peer had sent before it knew. If no request was among that, both are
/// through, and the side may leave without a call being lost. If one was, it is asked again, behind the answer to that.
package struct Clearance: Equatable, Sendable {
    private enum State: Equatable {
        case unasked
        case asked(UInt64)
        case clear
    }

    private var state = State.unasked

    package init() {}

    /// Whether the peer is to be asked, as soon as all its requests are answered.
    package var mustAsk: Bool { self.state == .unasked }
    package var isClear: Bool { self.state == .clear }

    /// It was asked, by a PING with this number.
    package mutating func asked(_ nonce: UInt64) { self.state = .asked(nonce) }

    /// A PONG came.
    ///
    /// - Returns: Whether it is the answer.
    package mutating func answered(_ nonce: UInt64) -> Bool {
        guard self.state == .asked(nonce) else { return false }
        self.state = .clear
        return true
    }

    /// A request came, or the peer introduced itself: something is to be said to it, or may have been lost.
    package mutating func heard() { self.state = .unasked }
}
