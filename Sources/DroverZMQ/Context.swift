// SPDX-License-Identifier: Apache-2.0

import CDroverZMQ
import Glibc
import Synchronization

/// Owns libzmq's I/O threads and the sockets' common state.
///
/// All threads may share it. Each socket keeps its context alive, so a context that is simply dropped ends after its
/// last socket.
///
/// `@unchecked Sendable`: `handle` never changes, and libzmq's context functions may be called from any thread, except
/// that the handle mustn't be used after `zmq_ctx_term`. `isOpen` rules that out: each use happens inside the lock
/// while `isOpen` is true, and only the one caller that set it to false calls `zmq_ctx_term`.
@safe package final class Context: @unchecked Sendable {
    /// A libzmq version.
    package struct Version: Comparable, Sendable, CustomStringConvertible {
        package let major: Int
        package let minor: Int
        package let patch: Int

        package init(_ major: Int, _ minor: Int, _ patch: Int) {
            self.major = major
            self.minor = minor
            self.patch = patch
        }

        package static func < (lhs: Self, rhs: Self) -> Bool {
            (lhs.major, lhs.minor, lhs.patch) < (rhs.major, rhs.minor, rhs.patch)
        }

        /// The numbers, separated by periods.
        package var description: String { "\(self.major).\(self.minor).\(self.patch)" }
    }

    /// The oldest safe libzmq: before it, unauthenticated peers could starve or crash a CURVE server (CVE-2020-15166).
    package static let oldestSupportedVersion = Version(4, 3, 3)

    private let handle: UnsafeMutableRawPointer
    private let isOpen = Mutex(true)

    /// Creates a context.
    ///
    /// - Parameters:
    ///   - ioThreads: How many threads move bytes; one handles about a gigabyte per second.
    ///   - maxSockets: How many sockets may exist at once, monitors included; nil for libzmq's maximum, which is more
    ///     than most processes have descriptors for.
    /// - Throws: ``ZMQError`` if libzmq is too old or a number is out of range.
    package init(ioThreads: Int = 1, maxSockets: Int? = nil) throws(ZMQError) {
        guard Self.libraryVersion >= Self.oldestSupportedVersion else {
            throw ZMQError(errno: EINVAL, .createContext, "with libzmq \(Self.libraryVersion)")
        }
        guard let handle = unsafe zmq_ctx_new() else { throw .last(.createContext) }
        unsafe self.handle = handle
        try unsafe Self.set(ZMQ_IO_THREADS, "ioThreads", ioThreads, on: handle)
        let most = maxSockets ?? Int(unsafe zmq_ctx_get(handle, ZMQ_SOCKET_LIMIT))
        try unsafe Self.set(ZMQ_MAX_SOCKETS, "maxSockets", most, on: handle)
        // By default, ending a context waits indefinitely for unsent messages.
        try unsafe Self.set(ZMQ_BLOCKY, "blocky", 0, on: handle)
    }

    deinit {
        self.terminate()
    }

    /// The version of the libzmq loaded in this process.
    package static var libraryVersion: Version {
        var (major, minor, patch): (CInt, CInt, CInt) = (0, 0, 0)
        unsafe zmq_version(&major, &minor, &patch)
        return Version(Int(major), Int(minor), Int(patch))
    }

    /// Whether libzmq was built with a capability, such as "curve" or "ipc".
    package static func has(_ capability: String) -> Bool {
        unsafe zmq_has(capability) == 1
    }

    /// Ends all waiting in this context's sockets: from now on, their operations fail with ``ZMQError/isTerminated``.
    ///
    /// Returns at once; a second call does nothing.
    package func shutdown() {
        self.isOpen.withLock { isOpen in
            // The result only says whether the handle is valid, which `isOpen` has shown.
            if isOpen { _ = unsafe zmq_ctx_shutdown(self.handle) }
        }
    }

    /// Shuts the context down and waits until all its sockets are closed.
    ///
    /// A second call does nothing. A thread that still owns a socket must not call this: it would wait for itself.
    package func terminate() {
        let isFirst = self.isOpen.withLock { isOpen in
            defer { isOpen = false }
            return isOpen
        }
        guard isFirst else { return }
        while unsafe zmq_ctx_term(self.handle) != 0 && zmq_errno() == EINTR {}
    }

    /// Makes a libzmq socket; after ``terminate()`` it fails with ETERM.
    func makeSocket(_ kind: SocketKind) throws(ZMQError) -> UnsafeMutableRawPointer {
        // Don't throw inside the closure: the lock loses the error's type. The pointer is a number because a pointer
        // can't leave the lock.
        var code = drover_eterm()
        let address = self.isOpen.withLock { isOpen -> UInt in
            guard isOpen else { return 0 }
            return RoutingIDs.withRandomStart {
                let raw = unsafe zmq_socket(self.handle, kind.raw)
                if unsafe raw == nil { code = zmq_errno() }
                return UInt(bitPattern: raw)
            }
        }
        guard let raw = unsafe UnsafeMutableRawPointer(bitPattern: address) else {
            throw ZMQError(errno: code, .createSocket)
        }
        return unsafe raw
    }

    private static func set(
        _ option: CInt,
        _ name: String,
        _ value: Int,
        on handle: UnsafeMutableRawPointer
    ) throws(ZMQError) {
        guard let value = CInt(exactly: value) else { throw ZMQError(errno: EINVAL, .setContextOption, name) }
        guard unsafe zmq_ctx_set(handle, option, value) == 0 else { throw .last(.setContextOption, name) }
    }
}
