// SPDX-License-Identifier: Apache-2.0

import Glibc

/// Tells threads apart while they live; a later thread may get the same one.
package struct ThreadID: Hashable, Sendable {
    private let raw: pthread_t

    /// The id as a number, to be kept in an atomic word; never 0.
    package var number: UInt { UInt(self.raw) }

    /// The thread that asks; costs a few nanoseconds.
    @available(*, noasync)
    package static var current: ThreadID { ThreadID(raw: pthread_self()) }
}
