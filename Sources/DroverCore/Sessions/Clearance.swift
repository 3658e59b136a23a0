// SPDX-License-Identifier: Apache-2.0

/// Finds out whether nothing is under way any more between a draining side and one of its peers (contract S88, S91).
///
/// The peer has been told that nothing more is accepted. A PING follows that message and the last answer. Its PONG says
/// that the peer has read all of it, and follows everything that the peer sent before it knew. If no request was among
/// that, both sides are done, and this side may leave without losing a call. If one was, the peer is asked again,
/// behind the answer to it.
package struct Clearance: Equatable, Sendable {
    private enum State: Equatable {
        case unasked
        case asked(UInt64)
        case clear
    }

    private var state = State.unasked

    package init() {}

    /// Whether the peer must be asked as soon as all its requests are answered.
    package var mustAsk: Bool { self.state == .unasked }
    package var isClear: Bool { self.state == .clear }

    /// The peer was asked, with a PING of this number.
    package mutating func asked(_ nonce: UInt64) { self.state = .asked(nonce) }

    /// A PONG arrived.
    ///
    /// - Returns: Whether it is the awaited answer.
    package mutating func answered(_ nonce: UInt64) -> Bool {
        guard self.state == .asked(nonce) else { return false }
        self.state = .clear
        return true
    }

    /// A request arrived, or the peer introduced itself: something must be sent to it, or may have been lost.
    package mutating func heard() { self.state = .unasked }
}
