// SPDX-License-Identifier: Apache-2.0

import Glibc

/// Identifies a thread while it lives; a later thread may get the same id.
package struct ThreadID: Hashable, Sendable {
    private let raw: pthread_t

    /// The id as a number that fits in an atomic word; never 0.
    package var number: UInt { UInt(self.raw) }

    /// The calling thread; costs a few nanoseconds.
    @available(*, noasync)
    package static var current: ThreadID { ThreadID(raw: pthread_self()) }
}
