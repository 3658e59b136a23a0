// SPDX-License-Identifier: Apache-2.0

package import DroverZMQ
internal import Synchronization

/// The process's one libzmq context, alive as long as any client or worker is: they share its I/O thread.
package final class SharedContext: Sendable {
    private struct Holder: Sendable { weak var current: SharedContext? }

    private static let holder = Mutex(Holder())

    package let context: Context
    private let zap = Mutex<ZAPHandler?>(nil)

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

    /// Who answers for this context's sockets which keys may connect; started when it is first asked for.
    @available(*, noasync)
    package func zapHandler() throws -> ZAPHandler {
        try self.zap.withLock { handler in
            if let handler { return handler }
            let made = try ZAPHandler(in: self.context)
            handler = made
            return made
        }
    }
}
