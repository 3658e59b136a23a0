// SPDX-License-Identifier: Apache-2.0

package import DroverZMQ
internal import Synchronization

/// The process's one libzmq context, alive as long as any client or worker is: they share its I/O thread, and `inproc`
/// endpoints need it.
package final class SharedContext: Sendable {
    private struct Holder: Sendable { weak var current: SharedContext? }

    private static let holder = Mutex(Holder())

    package let context: Context

    private init() throws(ZMQError) {
        self.context = try Context()
    }

    deinit { self.context.terminate() }

    /// The context that is alive, or a new one.
    package static func acquire() throws -> SharedContext {
        try self.holder.withLock { holder in
            if let current = holder.current { return current }
            let made = try SharedContext()
            holder.current = made
            return made
        }
    }
}
