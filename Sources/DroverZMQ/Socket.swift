// SPDX-License-Identifier: Apache-2.0

import CDroverZMQ
import Glibc

/// A socket with exactly one owner, used by one thread.
///
/// It can't be copied, isn't `Sendable`, and its methods can't be called from async code, so a program that shares it
/// doesn't compile. Debug builds also check the thread. No method ever waits: "not now" is `false`.
///
/// `LINGER` is 0 from the start: closing drops what wasn't sent. Set another value for an orderly close.
@safe package struct Socket: ~Copyable {
    @usableFromInline let handle: UnsafeMutableRawPointer
    private let lifetime: SocketLifetime
    private let context: Context
    @usableFromInline var owner: ThreadID

    /// The kind of socket this is.
    package let kind: SocketKind

    /// Creates a socket that belongs to the current thread.
    @available(*, noasync)
    package init(_ kind: SocketKind, in context: Context) throws(ZMQError) {
        let handle = try unsafe context.makeSocket(kind)
        let lifetime = unsafe SocketLifetime(handle: handle)
        do {
            try unsafe SocketOption.linger.set(.zero, on: handle)
        } catch {
            lifetime.close()
            throw error
        }
        unsafe self.handle = handle
        self.lifetime = lifetime
        self.context = context
        self.owner = .current
        self.kind = kind
    }

    deinit {
        self.lifetime.close()
    }

    /// Makes the current thread the owner.
    ///
    /// The caller must have got this right from the previous owner through a release and an acquire, as ``LoopToken``
    /// provides.
    @available(*, noasync)
    package mutating func moveToCurrentThread() {
        self.owner = .current
    }

    /// Listens at `endpoint`; with port `*`, ``lastEndpoint`` gives the port that was chosen.
    ///
    /// libzmq would take over the path of an `ipc` endpoint even from a process that listens there, and delete whatever
    /// file it finds; here, that is an error. Only a socket at which no process listens any more is taken over.
    ///
    /// - Parameters:
    ///   - endpoint: Where to listen.
    ///   - mode: Who may use the path of an `ipc` endpoint, whatever the process's umask.
    /// - Throws: `ZMQError` if it can't listen there.
    @available(*, noasync)
    package borrowing func bind(_ endpoint: String, mode: UInt32 = 0o600) throws(ZMQError) {
        guard let path = SocketPath(ofEndpoint: endpoint) else {
            return try unsafe self.perform(.bind, endpoint) { unsafe zmq_bind($0, $1) }
        }
        // Two processes that find the same stale file must not take it over from each other.
        let lock = try path.lock(for: endpoint)
        defer { lock.release() }
        switch path.occupant {
        case .nobody, .left:
            let place = path.path
            try unsafe self.perform(.bind, endpoint) { unsafe drover_bind_path($0, $1, place, mode_t(mode)) }
        case .somebody: throw ZMQError(errno: EADDRINUSE, .bind, endpoint)
        case .file: throw ZMQError(errno: EEXIST, .bind, endpoint)
        }
    }

    /// Starts connecting to `endpoint`, in the background, as often as it takes.
    @available(*, noasync)
    package borrowing func connect(_ endpoint: String) throws(ZMQError) {
        try unsafe self.perform(.connect, endpoint) { unsafe zmq_connect($0, $1) }
    }

    /// Stops listening at `endpoint`, written as ``lastEndpoint`` gave it.
    @available(*, noasync)
    package borrowing func unbind(_ endpoint: String) throws(ZMQError) {
        try unsafe self.perform(.unbind, endpoint) { unsafe zmq_unbind($0, $1) }
    }

    /// Ends the connection to `endpoint`.
    @available(*, noasync)
    package borrowing func disconnect(_ endpoint: String) throws(ZMQError) {
        try unsafe self.perform(.disconnect, endpoint) { unsafe zmq_disconnect($0, $1) }
    }

    /// The endpoint most recently bound or connected, with the actual port; empty before the first.
    @available(*, noasync)
    package var lastEndpoint: String {
        get throws(ZMQError) { try self.get(.lastEndpoint) }
    }

    /// Sets an option; most options only affect later binds and connects.
    @available(*, noasync)
    package borrowing func set<Value>(_ option: SocketOption<Value>, _ value: Value) throws(ZMQError) {
        self.checkThread()
        try unsafe option.set(value, on: self.handle)
    }

    /// Reads an option.
    @available(*, noasync)
    package borrowing func get<Value>(_ option: SocketOption<Value>) throws(ZMQError) -> Value {
        self.checkThread()
        return try unsafe option.get(from: self.handle)
    }

    /// Sends a frame without copying it.
    ///
    /// - Returns: Whether libzmq took it, which leaves `message` empty. If false, there is no peer or its queue is
    ///   full, and `message` is unchanged. libzmq never refuses the frames after the first of a message.
    /// - Throws: ``ZMQError``; its ``ZMQError/isUnreachable`` is true if a ROUTER knows no such peer.
    @available(*, noasync)
    @inlinable package borrowing func send(_ message: inout Message, more: Bool = false) throws(ZMQError) -> Bool {
        self.checkThread()
        let flags = more ? ZMQ_DONTWAIT | ZMQ_SNDMORE : ZMQ_DONTWAIT
        if unsafe zmq_msg_send(&message.raw, self.handle, flags) >= 0 { return true }
        return try self.mayRepeat(.send, errno: zmq_errno()) ? self.send(&message, more: more) : false
    }

    /// Sends a copy of `bytes` as a frame.
    ///
    /// - Returns: Whether libzmq took it; see ``send(_:more:)``.
    @available(*, noasync)
    @inlinable package borrowing func send(
        copying bytes: UnsafeRawBufferPointer,
        more: Bool = false
    ) throws(ZMQError) -> Bool {
        self.checkThread()
        let flags = more ? ZMQ_DONTWAIT | ZMQ_SNDMORE : ZMQ_DONTWAIT
        if unsafe zmq_send(self.handle, bytes.baseAddress, bytes.count, flags) >= 0 { return true }
        return try unsafe self.mayRepeat(.send, errno: zmq_errno()) ? self.send(copying: bytes, more: more) : false
    }

    /// Receives a frame into `message`, whose previous contents are dropped.
    ///
    /// - Returns: Whether there was one.
    @available(*, noasync)
    @inlinable package borrowing func receive(into message: inout Message) throws(ZMQError) -> Bool {
        self.checkThread()
        if unsafe zmq_msg_recv(&message.raw, self.handle, ZMQ_DONTWAIT) >= 0 { return true }
        return try self.mayRepeat(.receive, errno: zmq_errno()) ? self.receive(into: &message) : false
    }

    /// Reports what happens to this socket's connections from now on; one monitor at a time.
    @available(*, noasync)
    package borrowing func monitor(_ events: Monitor.Events = .all) throws(ZMQError) -> Monitor {
        self.checkThread()
        return try Monitor(of: self.lifetime, events: events, in: self.context)
    }

    /// Decides after a failed transfer whether to try again (interrupted) or not (not now); throws if it is a real
    /// error.
    @usableFromInline func mayRepeat(_ operation: ZMQError.Operation, errno: CInt) throws(ZMQError) -> Bool {
        switch errno {
        case EAGAIN: return false
        case EINTR: return true
        default: throw ZMQError(errno: errno, operation)
        }
    }

    @inlinable func checkThread() {
        assert(self.owner == .current, "a socket is used by one thread only")
    }

    private borrowing func perform(
        _ operation: ZMQError.Operation,
        _ endpoint: String,
        _ call: (UnsafeMutableRawPointer, UnsafePointer<CChar>) -> CInt
    ) throws(ZMQError) {
        self.checkThread()
        while unsafe call(self.handle, endpoint) != 0 {
            let code = zmq_errno()
            if code != EINTR { throw ZMQError(errno: code, operation, endpoint) }
        }
    }
}

/// What a socket and its monitor share: whether the socket is open and monitored.
///
/// libzmq's I/O thread blocks forever when it has an event for a monitor whose receiving end is closed. So whichever of
/// the two ends first stops the events before anything is closed.
@safe final class SocketLifetime {
    private let handle: UnsafeMutableRawPointer
    private var isOpen = true
    private(set) var isMonitored = false

    init(handle: UnsafeMutableRawPointer) {
        unsafe self.handle = handle
    }

    func startMonitor(at endpoint: String, events: CInt) throws(ZMQError) {
        guard unsafe zmq_socket_monitor(self.handle, endpoint, events) == 0 else { throw .last(.monitor, endpoint) }
        self.isMonitored = true
    }

    func stopMonitor() {
        guard self.isOpen && self.isMonitored else { return }
        self.isMonitored = false
        // Fails only after the context has ended, when there are no more events.
        _ = unsafe zmq_socket_monitor(self.handle, nil, 0)
    }

    func close() {
        self.stopMonitor()
        self.isOpen = false
        // Fails only for a handle that isn't a socket.
        _ = unsafe zmq_close(self.handle)
    }
}
