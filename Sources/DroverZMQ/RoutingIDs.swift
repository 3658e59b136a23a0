// SPDX-License-Identifier: Apache-2.0

import Glibc
import Synchronization

/// The ids by which a ROUTER socket knows its connections.
///
/// Those that libzmq gives are made hard to foresee. It counts them upwards from a `rand()` that it never seeds, so the first ones of every process are the same. A
/// peer may claim an id of its own for its connection: whoever knows the next one makes `router.cpp` abort the process,
/// and whoever knows a broken peer's is sent what was meant for it. The kernel's randomness can't be foreseen; that the
/// start has 32 bits, and that ids count up from there, can't be changed from outside.
package enum RoutingIDs {
    /// An id for a connection that the socket dials itself: nobody else can know it, so nobody can claim it.
    ///
    /// libzmq keeps it for itself; it isn't sent. It ends the program if another connection has it already.
    package static func secret() -> [UInt8] {
        // Those that begin with zero are libzmq's own.
        [1] + (0..<16).map { _ in UInt8.random(in: .min ... .max) }
    }

    /// `rand()` has one state for the whole process.
    private static let turn = Mutex(())

    /// What the usual generator needs, by the manual of initstate(3).
    private static var stateBytes: Int { 128 }

    /// Makes a socket while `rand()` starts from the kernel's randomness.
    ///
    /// The program's own sequence goes on afterwards where it was: what it has seeded itself stays as it wants it.
    static func withRandomStart(_ makeSocket: () -> UInt) -> UInt {
        self.turn.withLock { _ in
            let state = UnsafeMutablePointer<CChar>.allocate(capacity: Self.stateBytes)
            unsafe state.initialize(repeating: 0, count: Self.stateBytes)
            defer { unsafe state.deallocate() }
            let former = unsafe initstate(.random(in: .min ... .max), state, Self.stateBytes)
            let socket = makeSocket()
            // nil, which only a state that is too small causes, leaves the former one in use.
            if let former = unsafe former { _ = unsafe setstate(former) }
            return socket
        }
    }
}
