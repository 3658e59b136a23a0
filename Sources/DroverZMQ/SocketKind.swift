// SPDX-License-Identifier: Apache-2.0

import CDroverZMQ

/// The kinds of socket we use.
package enum SocketKind: Hashable, Sendable {
    /// Sends to one peer and receives from it, in any order.
    case dealer
    /// Sends to the peer named by the first frame, and says which peer sent what it receives.
    case router
    /// Exchanges messages with exactly one peer, inside a process.
    case pair
    /// Receives a question and sends its answer by turns; only for the ZAP handler, whose protocol requires it.
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
