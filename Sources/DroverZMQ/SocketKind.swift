// SPDX-License-Identifier: Apache-2.0

import CDroverZMQ

/// The kinds of socket we use.
package enum SocketKind: Hashable, Sendable {
    /// Sends to one peer and receives from it, without turns.
    case dealer
    /// Sends to a peer named by the first frame, and says who sent what it receives.
    case router
    /// Sends to and receives from exactly one peer, inside a process.
    case pair
    /// Answers in turn; only for the handler of ZAP, whose protocol demands it.
    case rep

    var raw: CInt {
        switch self {
        case .dealer: ZMQ_DEALER
        case .router: ZMQ_ROUTER
        case .pair: ZMQ_PAIR
        case .rep: ZMQ_REP
        }
    }
}
