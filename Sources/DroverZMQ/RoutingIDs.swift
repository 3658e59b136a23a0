// SPDX-License-Identifier: Apache-2.0

import Glibc
import Synchronization

/// The ids by which a ROUTER socket knows its connections.
///
/// They are made hard to predict. libzmq counts its ids upward from a `rand()` that it never seeds, so every process
/// starts with the same ones. A peer may claim an id for its own connection: a peer that knows the next id makes
/// `router.cpp` abort the process, and one that knows a broken peer's id is sent what was meant for that peer. The
/// kernel's random numbers can't be predicted; that the start has 32 bits, and that ids count up from there, can't be
/// changed from outside.
package enum RoutingIDs {
    /// An id for a connection that the socket dials itself: no peer can know it, so none can claim it.
    ///
    /// It stays in libzmq and isn't sent. Using an id that another connection already has ends the program.
    package static func secret() -> [UInt8] {
        // Ids that begin with zero are libzmq's own.
        [1] + (0..<16).map { _ in UInt8.random(in: .min ... .max) }
    }

    /// `rand()` has one state for the whole process.
    private static let turn = Mutex(())

    /// What the usual generator needs, according to initstate(3).
    private static var stateBytes: Int { 128 }

    /// Makes a socket while `rand()` starts from the kernel's randomness.
    ///
    /// The program's own sequence continues afterwards where it was: if it has seeded `rand()`, that stays in effect.
    static func withRandomStart(_ makeSocket: () -> UInt) -> UInt {
        self.turn.withLock { _ in
            let state = UnsafeMutablePointer<CChar>.allocate(capacity: Self.stateBytes)
            unsafe state.initialize(repeating: 0, count: Self.stateBytes)
            defer { unsafe state.deallocate() }
            let former = unsafe initstate(.random(in: .min ... .max), state, Self.stateBytes)
            let socket = makeSocket()
            // nil is returned only for a state that is too small, and then the previous one stays in use.
            if let former = unsafe former { _ = unsafe setstate(former) }
            return socket
        }
    }
}
