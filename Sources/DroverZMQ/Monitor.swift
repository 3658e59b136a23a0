// SPDX-License-Identifier: Apache-2.0

import CDroverZMQ
import Glibc
import Synchronization

/// Reports what happens to a socket's connections.
///
/// It belongs to the socket's thread, may be polled, and may end before or after the socket. Read it often: events are
/// kept in memory until they are read.
package struct Monitor: ~Copyable {
    /// A set of event kinds.
    package struct Events: OptionSet, Hashable, Sendable {
        package let rawValue: UInt16

        package init(rawValue: UInt16) {
            self.rawValue = rawValue
        }

        init(_ raw: CInt) {
            self.rawValue = UInt16(truncatingIfNeeded: raw)
        }

        package static let connected = Events(ZMQ_EVENT_CONNECTED)
        package static let connectDelayed = Events(ZMQ_EVENT_CONNECT_DELAYED)
        package static let connectRetried = Events(ZMQ_EVENT_CONNECT_RETRIED)
        package static let listening = Events(ZMQ_EVENT_LISTENING)
        package static let bindFailed = Events(ZMQ_EVENT_BIND_FAILED)
        package static let accepted = Events(ZMQ_EVENT_ACCEPTED)
        package static let closed = Events(ZMQ_EVENT_CLOSED)
        package static let closeFailed = Events(ZMQ_EVENT_CLOSE_FAILED)
        package static let disconnected = Events(ZMQ_EVENT_DISCONNECTED)
        package static let monitorStopped = Events(ZMQ_EVENT_MONITOR_STOPPED)
        package static let handshakeSucceeded = Events(ZMQ_EVENT_HANDSHAKE_SUCCEEDED)
        package static let handshakeFailedNoDetail = Events(ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL)
        package static let handshakeFailedProtocol = Events(ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL)
        package static let handshakeFailedAuth = Events(ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)

        /// All kinds that concern the handshake.
        package static let handshake: Events = [
            .handshakeSucceeded, .handshakeFailedNoDetail, .handshakeFailedProtocol, .handshakeFailedAuth,
        ]
        /// All kinds.
        package static let all = Events(ZMQ_EVENT_ALL)
    }

    /// Something that happened.
    package struct Event: Hashable, Sendable {
        /// What happened, with its detail.
        package enum Kind: Hashable, Sendable {
            /// The connection is established at the TCP level; the handshake follows.
            case connected(fileDescriptor: CInt)
            /// The connect continues in the background.
            case connectDelayed
            /// The connect failed and will be retried after a while.
            case connectRetried(after: Duration)
            /// The socket listens.
            case listening(fileDescriptor: CInt)
            /// The socket couldn't listen.
            case bindFailed(errno: CInt)
            /// A peer connected.
            case accepted(fileDescriptor: CInt)
            /// We closed a connection or a listener.
            case closed(fileDescriptor: CInt)
            /// A descriptor couldn't be closed.
            case closeFailed(errno: CInt)
            /// A connection broke or was closed by the peer.
            case disconnected(fileDescriptor: CInt)
            /// There will be no more events.
            case monitorStopped
            /// The peer may send and receive.
            case handshakeSucceeded
            /// The handshake ended without a reason: the peer just closed the connection.
            case handshakeFailedNoDetail(errno: CInt)
            /// The peer broke the protocol or, with CURVE, the server has a different key.
            case handshakeFailedProtocol(code: CInt)
            /// The peer refused us, with ZAP's status.
            case handshakeFailedAuth(status: Int)
            /// A kind this binding doesn't know.
            case other(number: UInt16, value: Int32)
        }

        /// The detail of ``Kind/handshakeFailedProtocol(code:)`` when one side uses CURVE and the other doesn't.
        package static let mechanismMismatch = CInt(ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)

        /// What happened.
        package let kind: Kind
        /// The endpoint where it happened, as libzmq writes it; may be empty.
        package let endpoint: String
    }

    private static let lastNumber = Atomic<UInt64>(0)

    private(set) var socket: Socket
    private let watched: SocketLifetime
    private var frame = Message()

    /// Makes the current thread the owner; see ``Socket/moveToCurrentThread()``.
    @available(*, noasync)
    package mutating func moveToCurrentThread() { self.socket.moveToCurrentThread() }

    /// The descriptor that becomes readable when there may be an event; see ``DescriptorPoll``.
    @available(*, noasync)
    package var fileDescriptor: CInt { get throws(ZMQError) { try self.socket.get(.fileDescriptor) } }

    init(of watched: SocketLifetime, events: Events, in context: Context) throws(ZMQError) {
        guard !watched.isMonitored else { throw ZMQError(errno: EBUSY, .monitor, "a socket that has a monitor") }
        let number = Self.lastNumber.add(1, ordering: .relaxed).newValue
        let endpoint = "inproc://drover-monitor-\(number)"
        // Everything that may fail is done before the first event can be sent: see `SocketLifetime`.
        let socket = try Socket(.pair, in: context)
        // If the queue were full, the I/O thread would wait, and all connections with it.
        try socket.set(.receiveHighWaterMark, 0)
        try watched.startMonitor(at: endpoint, events: CInt(events.rawValue))
        do {
            try socket.connect(endpoint)
        } catch {
            watched.stopMonitor()
            throw error
        }
        self.socket = socket
        self.watched = watched
    }

    deinit {
        self.watched.stopMonitor()
    }

    /// Ends the events; earlier ones, and ``Event/Kind/monitorStopped``, can still be read.
    @available(*, noasync)
    package borrowing func stop() {
        self.watched.stopMonitor()
    }

    /// The next event, or nil if there is none now.
    @available(*, noasync)
    package mutating func next() throws(ZMQError) -> Event? {
        guard try self.socket.receive(into: &self.frame) else { return nil }
        let (number, value) = unsafe self.frame.withUnsafeBytes { bytes -> (UInt16, Int32) in
            guard bytes.count >= 6 else { return (0, 0) }
            return unsafe (
                bytes.loadUnaligned(as: UInt16.self), bytes.loadUnaligned(fromByteOffset: 2, as: Int32.self)
            )
        }
        var endpoint = ""
        // libzmq hands over all frames of a message at once.
        while self.frame.hasMore {
            guard try self.socket.receive(into: &self.frame) else { break }
            endpoint = unsafe self.frame.withUnsafeBytes { unsafe String(decoding: $0, as: UTF8.self) }
        }
        return Event(kind: Self.kind(number: number, value: value), endpoint: endpoint)
    }

    private static func kind(number: UInt16, value: Int32) -> Event.Kind {
        switch Events(rawValue: number) {
        case .connected: .connected(fileDescriptor: value)
        case .connectDelayed: .connectDelayed
        case .connectRetried: .connectRetried(after: .milliseconds(Int64(value)))
        case .listening: .listening(fileDescriptor: value)
        case .bindFailed: .bindFailed(errno: value)
        case .accepted: .accepted(fileDescriptor: value)
        case .closed: .closed(fileDescriptor: value)
        case .closeFailed: .closeFailed(errno: value)
        case .disconnected: .disconnected(fileDescriptor: value)
        case .monitorStopped: .monitorStopped
        case .handshakeSucceeded: .handshakeSucceeded
        case .handshakeFailedNoDetail: .handshakeFailedNoDetail(errno: value)
        case .handshakeFailedProtocol: .handshakeFailedProtocol(code: value)
        case .handshakeFailedAuth: .handshakeFailedAuth(status: Int(value))
        default: .other(number: number, value: value)
        }
    }
}
