// SPDX-License-Identifier: Apache-2.0

import CDroverZMQ
import Glibc

/// Wakes a thread that waits in a poll; any thread may call it.
package final class Waker: Sendable {
    /// Readable from a ``wake()`` until ``drain()``.
    package let fileDescriptor: CInt

    /// Creates a waker.
    ///
    /// - Throws: ``ZMQError`` if no descriptor is left.
    package init() throws(ZMQError) {
        let descriptor = drover_eventfd()
        guard descriptor >= 0 else { throw ZMQError(errno: Glibc.errno, .createWaker) }
        self.fileDescriptor = descriptor
    }

    deinit {
        close(self.fileDescriptor)
    }

    /// Makes the descriptor readable; costs a system call.
    package func wake() {
        // Fails only after 2^64 - 2 wakes without a drain, and then it is readable anyway.
        _ = eventfd_write(self.fileDescriptor, 1)
    }

    /// Makes the descriptor unreadable again.
    ///
    /// - Returns: Whether there was a wake since the last drain.
    @discardableResult
    package func drain() -> Bool {
        var count: eventfd_t = 0
        // Fails if there was none.
        return unsafe eventfd_read(self.fileDescriptor, &count) == 0
    }
}
