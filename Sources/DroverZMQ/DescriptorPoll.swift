// SPDX-License-Identifier: Apache-2.0

import Glibc

/// Waits for file descriptors to become readable, with one system call.
///
/// `zmq_poll` checks each socket before and after it waits, which costs several system calls per socket. A loop that
/// reads its sockets until they are empty can wait for their descriptors (``SocketOption/fileDescriptor``) instead.
/// Such a descriptor becomes readable when something happens to a socket, and stays readable until the socket is used;
/// a send may use up the signal as well, and libzmq doesn't signal a socket that was never read from. So the last thing
/// done to a socket before the wait must be a receive that found nothing, or a read of its ``SocketOption/events``.
@safe package struct DescriptorPoll: ~Copyable {
    private let items: UnsafeMutableBufferPointer<pollfd>
    /// The number of descriptors.
    package private(set) var count = 0

    /// Creates an empty set with room for `capacity` descriptors.
    package init(capacity: Int) {
        unsafe self.items = .allocate(capacity: capacity)
        unsafe self.items.initialize(repeating: pollfd())
    }

    deinit {
        unsafe self.items.deallocate()
    }

    /// Forgets all descriptors.
    package mutating func removeAll() {
        self.count = 0
    }

    /// Adds a descriptor.
    ///
    /// - Returns: Its place in the set.
    package mutating func add(_ descriptor: CInt) -> Int {
        unsafe precondition(self.count < self.items.count, "the set is full")
        unsafe self.items[self.count] = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        defer { self.count += 1 }
        return self.count
    }

    /// Waits until a descriptor is readable, the time is up or a signal arrives.
    ///
    /// - Parameter milliseconds: How long to wait at most; 0 checks without waiting, a negative number waits forever.
    /// - Throws: ``ZMQError`` if the system can't wait.
    @available(*, noasync)
    package mutating func wait(milliseconds: Int) throws(ZMQError) {
        let limit = CInt(clamping: max(milliseconds, -1))
        guard unsafe poll(self.items.baseAddress, nfds_t(self.count), limit) < 0 else { return }
        for index in 0..<self.count { unsafe self.items[index].revents = 0 }
        let code = errno
        if code != EINTR { throw ZMQError(errno: code, .poll) }
    }

    /// Checks repeatedly whether a descriptor is readable, for a time too short to sleep.
    ///
    /// It yields the processor between the checks.
    ///
    /// - Parameters:
    ///   - deadline: A reading of ``MonotonicClock``.
    ///   - isOver: Whether there is another reason to end; checked more often than the descriptors are.
    /// - Returns: Whether a descriptor is readable or `isOver` returned true; false when the time is up.
    /// - Throws: ``ZMQError`` if the system can't check.
    @available(*, noasync)
    package mutating func spin(until deadline: UInt64, _ isOver: () -> Bool) throws(ZMQError) -> Bool {
        repeat {
            if isOver() { return true }
            try self.wait(milliseconds: 0)
            for index in 0..<self.count where self.isReady(index) { return true }
            if isOver() { return true }
            sched_yield()
        } while MonotonicClock.now() < deadline
        return false
    }

    /// Whether a descriptor was readable, or broken, at the last wait.
    package borrowing func isReady(_ index: Int) -> Bool {
        precondition(index < self.count, "no such descriptor")
        return unsafe self.items[index].revents != 0
    }
}
