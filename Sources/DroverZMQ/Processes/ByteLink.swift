// SPDX-License-Identifier: Apache-2.0

import CDroverZMQ
import Glibc

/// One end of a stream of bytes between a process and its child.
///
/// Only one thread at a time may write and read.
package final class ByteLink: Sendable {
    /// Why a transfer failed.
    package enum Failure: Error, Equatable {
        /// The other end is gone.
        case ended
        /// The wait was ended by the waker.
        case woken
        /// The deadline passed.
        case timedOut
        /// The other end announced more bytes than this end takes.
        case tooLong(byteCount: Int)
        case system(errno: CInt)
    }

    /// The descriptor number at which a child finds its end.
    package static var inherited: CInt { DROVER_CHILD_DESCRIPTOR }

    package let descriptor: CInt

    /// Takes over a connected socket.
    ///
    /// It fails if the descriptor isn't a socket.
    ///
    /// - Parameter descriptor: The socket.
    package init?(adopting descriptor: CInt) {
        var status = stat()
        guard unsafe fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK else { return nil }
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        self.descriptor = descriptor
    }

    private init(_ descriptor: CInt) { self.descriptor = descriptor }

    deinit { close(self.descriptor) }

    /// Makes the two ends of a stream.
    ///
    /// - Throws: ``ZMQError`` if no descriptor is left.
    package static func pair() throws(ZMQError) -> (ByteLink, ByteLink) {
        var pair: (CInt, CInt) = (-1, -1)
        let code = unsafe withUnsafeMutableBytes(of: &pair) { bytes in
            unsafe drover_socket_pair(bytes.assumingMemoryBound(to: CInt.self).baseAddress)
        }
        guard code == 0 else { throw ZMQError(errno: code, .createSocket, "for a child process") }
        return (ByteLink(pair.0), ByteLink(pair.1))
    }

    /// Whether the other end is gone.
    package var isEnded: Bool {
        var item = pollfd(fd: self.descriptor, events: 0, revents: 0)
        return unsafe poll(&item, 1, 0) > 0
    }

    /// Waits until the other end is gone.
    @available(*, noasync)
    package func waitForEnd() {
        var item = pollfd(fd: self.descriptor, events: 0, revents: 0)
        // A failed poll doesn't mean the end; all we can do is try again.
        while unsafe poll(&item, 1, -1) <= 0 {}
    }

    /// Writes all bytes.
    ///
    /// - Parameters:
    ///   - bytes: What to write.
    ///   - waker: Ends the wait when it is woken.
    ///   - deadline: When to give up, a reading of ``MonotonicClock``.
    /// - Throws: ``Failure``; a transfer that failed can't be resumed.
    @available(*, noasync)
    package func write(
        _ bytes: UnsafeRawBufferPointer,
        until waker: Waker? = nil,
        deadline: UInt64 = MonotonicClock.never
    ) throws(Failure) {
        var rest = unsafe bytes
        while unsafe !rest.isEmpty {
            let flags = CInt(MSG_NOSIGNAL | MSG_DONTWAIT)
            let count = unsafe send(self.descriptor, rest.baseAddress, rest.count, flags)
            if count >= 0 {
                unsafe rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(count))
            } else {
                try self.judge(errno)
                try self.wait(for: POLLOUT, until: waker, deadline)
            }
        }
    }

    /// Fills the buffer.
    ///
    /// - Parameters:
    ///   - buffer: Where to put the bytes.
    ///   - waker: Ends the wait when it is woken.
    ///   - deadline: When to give up, a reading of ``MonotonicClock``.
    /// - Throws: ``Failure``; a transfer that failed can't be resumed.
    @available(*, noasync)
    package func read(
        into buffer: UnsafeMutableRawBufferPointer,
        until waker: Waker? = nil,
        deadline: UInt64 = MonotonicClock.never
    ) throws(Failure) {
        var rest = unsafe buffer
        while unsafe !rest.isEmpty {
            let count = unsafe recv(self.descriptor, rest.baseAddress, rest.count, CInt(MSG_DONTWAIT))
            if count > 0 {
                unsafe rest = UnsafeMutableRawBufferPointer(rebasing: rest.dropFirst(count))
            } else if count == 0 {
                throw .ended
            } else {
                try self.judge(errno)
                try self.wait(for: POLLIN, until: waker, deadline)
            }
        }
    }

    private func judge(_ code: CInt) throws(Failure) {
        switch code {
        case EAGAIN, EINTR: return
        case EPIPE, ECONNRESET: throw .ended
        default: throw .system(errno: code)
        }
    }

    private func wait(for events: CInt, until waker: Waker?, _ deadline: UInt64) throws(Failure) {
        var milliseconds: CInt = -1
        if deadline != MonotonicClock.never {
            let now = MonotonicClock.now()
            guard now < deadline else { throw .timedOut }
            milliseconds = CInt(clamping: (deadline - now) / 1_000_000 + 1)
        }
        var items = (
            pollfd(fd: self.descriptor, events: Int16(events), revents: 0),
            // The kernel ignores a negative descriptor.
            pollfd(fd: waker?.fileDescriptor ?? -1, events: Int16(POLLIN), revents: 0)
        )
        _ = unsafe withUnsafeMutableBytes(of: &items) { bytes in
            unsafe poll(bytes.assumingMemoryBound(to: pollfd.self).baseAddress, 2, milliseconds)
        }
        if items.1.revents != 0 { throw .woken }
    }
}
