// SPDX-License-Identifier: Apache-2.0

import CDroverZMQ
import Glibc

/// What a thread waits for: sockets and file descriptors, in storage that is reused.
///
/// A socket must stay open while it is in the set.
@safe package struct PollSet: ~Copyable {
    /// The events to wait for, or those that occurred.
    package struct Events: OptionSet, Hashable, Sendable {
        package let rawValue: Int16

        package init(rawValue: Int16) {
            self.rawValue = rawValue
        }

        package static let readable = Events(rawValue: Int16(ZMQ_POLLIN))
        package static let writable = Events(rawValue: Int16(ZMQ_POLLOUT))
        package static let failed = Events(rawValue: Int16(ZMQ_POLLERR))
    }

    /// An entry of the set.
    package struct Index: Hashable, Sendable {
        let offset: Int
    }

    private let items: UnsafeMutableBufferPointer<zmq_pollitem_t>
    /// The number of entries.
    package private(set) var count = 0

    /// Creates an empty set with room for `capacity` entries.
    package init(capacity: Int = 8) {
        unsafe self.items = .allocate(capacity: capacity)
        unsafe self.items.initialize(repeating: zmq_pollitem_t())
    }

    deinit {
        unsafe self.items.deallocate()
    }

    /// How many entries the set has room for.
    package var capacity: Int { unsafe self.items.count }

    /// Adds a socket that belongs to this thread.
    @available(*, noasync)
    package mutating func add(_ socket: borrowing Socket, for events: Events = .readable) -> Index {
        unsafe self.append(zmq_pollitem_t(socket: socket.handle, fd: 0, events: events.rawValue, revents: 0))
    }

    /// Adds a monitor that belongs to this thread.
    @available(*, noasync)
    package mutating func add(_ monitor: borrowing Monitor) -> Index {
        self.add(monitor.socket)
    }

    /// Adds a file descriptor.
    package mutating func add(fileDescriptor: CInt, for events: Events = .readable) -> Index {
        unsafe self.append(zmq_pollitem_t(socket: nil, fd: fileDescriptor, events: events.rawValue, revents: 0))
    }

    /// Changes what an entry waits for; an entry without events is ignored.
    package mutating func wait(at index: Index, for events: Events) {
        precondition(index.offset < self.count)
        unsafe self.items[index.offset].events = events.rawValue
    }

    /// Forgets all entries.
    package mutating func removeAll() {
        self.count = 0
    }

    /// Waits until an entry is ready or the time is up.
    ///
    /// - Parameter milliseconds: How long to wait at most; 0 checks without waiting, a negative number waits forever.
    ///   More than 24 days count as 24 days.
    /// - Returns: How many entries are ready.
    /// - Throws: ``ZMQError``, such as ``ZMQError/isTerminated`` after the context's end.
    @available(*, noasync)
    package mutating func wait(milliseconds: Int) throws(ZMQError) -> Int {
        var remaining = min(max(milliseconds, -1), Int(CInt.max))
        let deadline = MonotonicClock.now() + UInt64(max(remaining, 0)) * 1_000_000
        while true {
            let ready = unsafe zmq_poll(self.items.baseAddress, CInt(self.count), remaining)
            if ready >= 0 { return Int(ready) }
            let code = zmq_errno()
            guard code == EINTR else { throw ZMQError(errno: code, .poll) }
            if remaining > 0 {
                let now = MonotonicClock.now()
                remaining = now >= deadline ? 0 : Int((deadline - now + 999_999) / 1_000_000)
            }
        }
    }

    /// Waits until an entry is ready or `timeout` has passed; without a timeout, it waits forever.
    ///
    /// - Returns: How many entries are ready.
    @available(*, noasync)
    package mutating func wait(timeout: Duration?) throws(ZMQError) -> Int {
        guard let timeout else { return try self.wait(milliseconds: -1) }
        return try self.wait(milliseconds: timeout.roundedUp(toMultipleOfNanoseconds: 1_000_000).map(Int.init) ?? -1)
    }

    /// The events at an entry as of the last wait.
    package borrowing func events(at index: Index) -> Events {
        precondition(index.offset < self.count)
        return unsafe Events(rawValue: self.items[index.offset].revents)
    }

    /// Whether an entry was readable at the last wait.
    package borrowing func isReadable(_ index: Index) -> Bool {
        self.events(at: index).contains(.readable)
    }

    /// Whether an entry was writable at the last wait.
    package borrowing func isWritable(_ index: Index) -> Bool {
        self.events(at: index).contains(.writable)
    }

    private mutating func append(_ item: zmq_pollitem_t) -> Index {
        precondition(self.count < self.capacity, "the poll set is full")
        unsafe self.items[self.count] = item
        defer { self.count += 1 }
        return Index(offset: self.count)
    }
}
