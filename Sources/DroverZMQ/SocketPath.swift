// SPDX-License-Identifier: Apache-2.0

import CDroverZMQ
import Glibc

/// The path of a socket in the file system, as in an `ipc` endpoint.
package struct SocketPath: Hashable, Sendable {
    /// What is at a path.
    package enum Occupant: Hashable, Sendable {
        /// Nothing is there.
        case nobody
        /// A socket with no listener any more: its process was killed, or is just closing it.
        case left
        /// A socket at which a process listens, or may.
        case somebody
        /// Something that isn't a socket.
        case file
    }

    /// The path.
    package let path: String

    /// The path of an endpoint; nil if it has none: another transport, an abstract name, or one that libzmq makes up.
    package init?(ofEndpoint endpoint: String) {
        guard endpoint.hasPrefix("ipc://") else { return nil }
        let path = endpoint.dropFirst("ipc://".count)
        guard !path.isEmpty, path != "*", !path.hasPrefix("@") else { return nil }
        self.path = String(path)
    }

    /// What is there now.
    package var occupant: Occupant {
        switch unsafe drover_look_at_socket(self.path) {
        case ENOENT, ENOTDIR: .nobody
        case ECONNREFUSED: .left
        case EEXIST: .file
        default: .somebody
        }
    }

    /// Keeps other users of this library from changing what is there.
    ///
    /// - Throws: `ZMQError` if another one is changing it at this moment. Where a directory can't be locked, nothing is
    ///   kept out, and the bind itself reports what is wrong.
    func lock(for endpoint: String) throws(ZMQError) -> Lock {
        let slash = self.path.lastIndex(of: "/")
        let directory = slash.map { self.path[...$0] } ?? "./"
        let descriptor = unsafe drover_lock_directory(String(directory))
        if descriptor == -EWOULDBLOCK { throw ZMQError(errno: EADDRINUSE, .bind, endpoint) }
        return Lock(descriptor: descriptor)
    }

    /// A lock that is held until it is released.
    struct Lock {
        fileprivate let descriptor: CInt

        func release() {
            if self.descriptor >= 0 { close(self.descriptor) }
        }
    }
}
