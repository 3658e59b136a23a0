// SPDX-License-Identifier: Apache-2.0

import CDroverZMQ
import Glibc

/// A socket option, with the type of its value.
///
/// The table below has all that we use; each line gives libzmq's number, and the unit and range where they aren't
/// obvious.
package struct SocketOption<Value: SocketOptionValue>: Sendable {
    /// The name, for errors.
    package let name: String
    let raw: CInt
    let form: SocketOptionForm

    fileprivate init(_ name: String, _ raw: CInt, _ form: SocketOptionForm = .plain) {
        self.name = name
        self.raw = raw
        self.form = form
    }

    func set(_ value: Value, on handle: UnsafeMutableRawPointer) throws(ZMQError) {
        let code = unsafe value.withOptionBytes(in: self.form) { bytes -> CInt in
            unsafe zmq_setsockopt(handle, self.raw, bytes.baseAddress, bytes.count) == 0 ? 0 : zmq_errno()
        }
        if code != 0 { throw ZMQError(errno: code, .setOption, self.name) }
    }

    func get(from handle: UnsafeMutableRawPointer) throws(ZMQError) -> Value {
        let raw = self.raw
        var code: CInt = 0
        let value = unsafe Value.fromOption(in: self.form) { bytes -> Int? in
            var size = bytes.count
            // Reading the events handles commands from other threads, which a signal may interrupt.
            while unsafe zmq_getsockopt(handle, raw, bytes.baseAddress, &size) != 0 {
                code = zmq_errno()
                guard code == EINTR else { return nil }
            }
            return size
        }
        guard let value else { throw ZMQError(errno: code, .getOption, self.name) }
        return value
    }
}

/// How libzmq stores an option's value.
package enum SocketOptionForm: Hashable, Sendable {
    /// As the type suggests: an `int`, text or bytes; durations in milliseconds.
    case plain
    /// A 64-bit integer.
    case wide
    /// A duration in whole seconds.
    case seconds
    /// A duration in milliseconds, with -1 (``Swift/Duration/unlimited``) for no limit.
    case millisecondsOrUnlimited
    /// A CURVE key: exactly 32 bytes, in both directions.
    case key
}

// MARK: - The table

extension SocketOption<Duration> {
    /// How long a closed socket goes on sending; 0 by our default, or ``Swift/Duration/unlimited``.
    package static var linger: Self { Self("linger", ZMQ_LINGER, .millisecondsOrUnlimited) }
    /// How often libzmq pings an idle connection; 0 means never.
    package static var heartbeatInterval: Self { Self("heartbeatInterval", ZMQ_HEARTBEAT_IVL) }
    /// How long a ping may go unanswered before the connection is closed.
    package static var heartbeatTimeout: Self {
        Self("heartbeatTimeout", ZMQ_HEARTBEAT_TIMEOUT, .millisecondsOrUnlimited)
    }
    /// How long the peer should wait for our traffic before it closes the connection, in tenths of a second.
    package static var heartbeatTTL: Self { Self("heartbeatTTL", ZMQ_HEARTBEAT_TTL) }
    /// How long a handshake may take.
    package static var handshakeInterval: Self { Self("handshakeInterval", ZMQ_HANDSHAKE_IVL) }
    /// How long to wait before the first reconnect; ``Swift/Duration/unlimited`` means not to reconnect.
    package static var reconnectInterval: Self {
        Self("reconnectInterval", ZMQ_RECONNECT_IVL, .millisecondsOrUnlimited)
    }
    /// The limit up to which the reconnect interval doubles; 0 means not to double.
    package static var reconnectIntervalMax: Self { Self("reconnectIntervalMax", ZMQ_RECONNECT_IVL_MAX) }
    /// How long a TCP connect may take; 0 leaves it to the kernel.
    package static var connectTimeout: Self { Self("connectTimeout", ZMQ_CONNECT_TIMEOUT) }
    /// How long TCP resends unacknowledged data; 0 leaves it to the kernel.
    package static var tcpMaxRetransmit: Self { Self("tcpMaxRetransmit", ZMQ_TCP_MAXRT) }
    /// How long a TCP connection may be idle before the kernel probes it, in seconds.
    package static var tcpKeepaliveIdle: Self { Self("tcpKeepaliveIdle", ZMQ_TCP_KEEPALIVE_IDLE, .seconds) }
    /// The time between the kernel's probes, in seconds.
    package static var tcpKeepaliveInterval: Self {
        Self("tcpKeepaliveInterval", ZMQ_TCP_KEEPALIVE_INTVL, .seconds)
    }
    /// How long a waiting send may take; ours never wait, so this is only a safeguard.
    package static var sendTimeout: Self { Self("sendTimeout", ZMQ_SNDTIMEO, .millisecondsOrUnlimited) }
    /// How long a waiting receive may take; ours never wait, so this is only a safeguard.
    package static var receiveTimeout: Self { Self("receiveTimeout", ZMQ_RCVTIMEO, .millisecondsOrUnlimited) }
}

extension SocketOption<Int> {
    /// How many messages may wait to be sent to one peer; 0 means no limit.
    package static var sendHighWaterMark: Self { Self("sendHighWaterMark", ZMQ_SNDHWM) }
    /// How many messages from one peer may wait to be received; 0 means no limit.
    package static var receiveHighWaterMark: Self { Self("receiveHighWaterMark", ZMQ_RCVHWM) }
    /// The largest frame a peer may send, in bytes; -1 means no limit.
    ///
    /// A peer that sends a larger one has its connection closed.
    package static var maxMessageSize: Self { Self("maxMessageSize", ZMQ_MAXMSGSIZE, .wide) }
    /// How many unanswered probes end a TCP connection.
    package static var tcpKeepaliveCount: Self { Self("tcpKeepaliveCount", ZMQ_TCP_KEEPALIVE_CNT) }
    /// How many connections may wait to be accepted.
    package static var backlog: Self { Self("backlog", ZMQ_BACKLOG) }
}

extension SocketOption<Bool> {
    /// Whether to queue only for established connections.
    package static var immediate: Self { Self("immediate", ZMQ_IMMEDIATE) }
    /// Whether a ROUTER reports an unknown peer instead of dropping the message; can't be read.
    package static var routerMandatory: Self { Self("routerMandatory", ZMQ_ROUTER_MANDATORY) }
    /// Whether to send an empty frame on each new connection, so that a ROUTER learns of us; can't be read.
    package static var probeRouter: Self { Self("probeRouter", ZMQ_PROBE_ROUTER) }
    /// Whether the kernel probes idle TCP connections.
    package static var tcpKeepalive: Self { Self("tcpKeepalive", ZMQ_TCP_KEEPALIVE) }
    /// Whether IPv6 is used in addition to IPv4.
    package static var ipv6: Self { Self("ipv6", ZMQ_IPV6) }
    /// Whether connections are refused when no ZAP handler is running.
    package static var zapEnforceDomain: Self { Self("zapEnforceDomain", drover_zap_enforce_domain()) }
    /// Whether this is the CURVE server's side.
    package static var curveServer: Self { Self("curveServer", ZMQ_CURVE_SERVER) }
}

extension SocketOption<String> {
    /// The domain passed to the ZAP handler.
    package static var zapDomain: Self { Self("zapDomain", ZMQ_ZAP_DOMAIN) }
    /// The endpoint most recently bound or connected; can only be read.
    package static var lastEndpoint: Self { Self("lastEndpoint", ZMQ_LAST_ENDPOINT) }
}

extension SocketOption<[UInt8]> {
    /// The name a ROUTER gives the peer of the next connect; can't be read.
    package static var connectRoutingID: Self { Self("connectRoutingID", ZMQ_CONNECT_ROUTING_ID) }
    /// The name that a ROUTER peer gives us, 1 to 255 bytes that don't begin with 0.
    package static var routingID: Self { Self("routingID", ZMQ_ROUTING_ID) }
    /// Our own public key, 32 bytes.
    package static var curvePublicKey: Self { Self("curvePublicKey", ZMQ_CURVE_PUBLICKEY, .key) }
    /// Our own secret key, 32 bytes.
    package static var curveSecretKey: Self { Self("curveSecretKey", ZMQ_CURVE_SECRETKEY, .key) }
    /// The public key of the server we connect to, 32 bytes.
    package static var curveServerKey: Self { Self("curveServerKey", ZMQ_CURVE_SERVERKEY, .key) }
}

extension SocketOption<CInt> {
    /// A descriptor that becomes readable, once, when ``SocketOption/events`` must be read again; can only be read.
    package static var fileDescriptor: Self { Self("fileDescriptor", ZMQ_FD) }
}

extension SocketOption<PollSet.Events> {
    /// What the socket can do without waiting; can only be read.
    package static var events: Self { Self("events", ZMQ_EVENTS) }
}

// MARK: - Values

/// A type that can be an option's value.
package protocol SocketOptionValue: Sendable {
    /// Calls `body` with the bytes that libzmq expects, or returns EINVAL if the value has none.
    func withOptionBytes(in form: SocketOptionForm, _ body: (UnsafeRawBufferPointer) -> CInt) -> CInt

    /// Makes a value of what `read` puts into a buffer; `read` returns the number of bytes, or nil for an error.
    static func fromOption(in form: SocketOptionForm, _ read: (UnsafeMutableRawBufferPointer) -> Int?) -> Self?
}

extension CInt: SocketOptionValue {
    package func withOptionBytes(in form: SocketOptionForm, _ body: (UnsafeRawBufferPointer) -> CInt) -> CInt {
        unsafe Swift.withUnsafeBytes(of: self) { unsafe body($0) }
    }

    package static func fromOption(
        in form: SocketOptionForm,
        _ read: (UnsafeMutableRawBufferPointer) -> Int?
    ) -> CInt? {
        var value: CInt = 0
        return unsafe withUnsafeMutableBytes(of: &value) { unsafe read($0) } == nil ? nil : value
    }
}

extension Int: SocketOptionValue {
    package func withOptionBytes(in form: SocketOptionForm, _ body: (UnsafeRawBufferPointer) -> CInt) -> CInt {
        // The only wide option is a size, and libzmq takes any negative size as "no limit".
        if form == .wide && self < -1 { return EINVAL }
        if form == .wide { return unsafe Swift.withUnsafeBytes(of: Int64(self)) { unsafe body($0) } }
        guard let narrow = CInt(exactly: self) else { return EINVAL }
        return unsafe narrow.withOptionBytes(in: form, body)
    }

    package static func fromOption(
        in form: SocketOptionForm,
        _ read: (UnsafeMutableRawBufferPointer) -> Int?
    ) -> Int? {
        guard form == .wide else { return unsafe CInt.fromOption(in: form, read).map(Int.init) }
        var value: Int64 = 0
        return unsafe withUnsafeMutableBytes(of: &value) { unsafe read($0) } == nil ? nil : Int(value)
    }
}

extension Bool: SocketOptionValue {
    package func withOptionBytes(in form: SocketOptionForm, _ body: (UnsafeRawBufferPointer) -> CInt) -> CInt {
        unsafe CInt(self ? 1 : 0).withOptionBytes(in: form, body)
    }

    /// -1, "the system's default", counts as not set.
    package static func fromOption(
        in form: SocketOptionForm,
        _ read: (UnsafeMutableRawBufferPointer) -> Int?
    ) -> Bool? {
        unsafe CInt.fromOption(in: form, read).map { $0 > 0 }
    }
}

extension Duration: SocketOptionValue {
    /// The value of an option without a limit.
    package static var unlimited: Duration { .milliseconds(-1) }

    package func withOptionBytes(in form: SocketOptionForm, _ body: (UnsafeRawBufferPointer) -> CInt) -> CInt {
        if self == .unlimited && form == .millisecondsOrUnlimited {
            return unsafe CInt(-1).withOptionBytes(in: form, body)
        }
        // Rounded up: a short time must not become 0, which usually means "never" or "at once".
        let unit: Int64 = form == .seconds ? 1_000_000_000 : 1_000_000
        guard self >= .zero, let count = self.roundedUp(toMultipleOfNanoseconds: unit),
            let narrow = CInt(exactly: count)
        else { return EINVAL }
        return unsafe narrow.withOptionBytes(in: form, body)
    }

    package static func fromOption(
        in form: SocketOptionForm,
        _ read: (UnsafeMutableRawBufferPointer) -> Int?
    ) -> Duration? {
        unsafe CInt.fromOption(in: form, read)
            .map { $0 < 0 ? .unlimited : form == .seconds ? .seconds(Int64($0)) : .milliseconds(Int64($0)) }
    }
}

extension String: SocketOptionValue {
    package func withOptionBytes(in form: SocketOptionForm, _ body: (UnsafeRawBufferPointer) -> CInt) -> CInt {
        var text = self
        return text.withUTF8 { unsafe body(UnsafeRawBufferPointer($0)) }
    }

    package static func fromOption(
        in form: SocketOptionForm,
        _ read: (UnsafeMutableRawBufferPointer) -> Int?
    ) -> String? {
        // Text comes with its terminating NUL.
        unsafe [UInt8].fromOption(in: form, read)
            .map { String(decoding: $0.prefix(while: { $0 != 0 }), as: UTF8.self) }
    }
}

extension [UInt8]: SocketOptionValue {
    /// Room for the longest text or name that libzmq returns.
    private static let maxCount = 1024

    package func withOptionBytes(in form: SocketOptionForm, _ body: (UnsafeRawBufferPointer) -> CInt) -> CInt {
        // libzmq would take 40 or 41 bytes as text.
        if form == .key && self.count != CurveKeyPair.keyByteCount { return EINVAL }
        return unsafe self.withUnsafeBytes { unsafe body($0) }
    }

    package static func fromOption(
        in form: SocketOptionForm,
        _ read: (UnsafeMutableRawBufferPointer) -> Int?
    ) -> [UInt8]? {
        // The buffer's size decides whether libzmq returns a key as bytes or as text.
        let capacity = form == .key ? CurveKeyPair.keyByteCount : Self.maxCount
        var failed = false
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: capacity) { buffer, count in
            let size = unsafe read(UnsafeMutableRawBufferPointer(buffer))
            failed = size == nil
            count = size ?? 0
        }
        return failed ? nil : bytes
    }
}

extension PollSet.Events: SocketOptionValue {
    package func withOptionBytes(in form: SocketOptionForm, _ body: (UnsafeRawBufferPointer) -> CInt) -> CInt {
        unsafe CInt(self.rawValue).withOptionBytes(in: form, body)
    }

    package static func fromOption(
        in form: SocketOptionForm,
        _ read: (UnsafeMutableRawBufferPointer) -> Int?
    ) -> PollSet.Events? {
        unsafe CInt.fromOption(in: form, read).map { PollSet.Events(rawValue: Int16(truncatingIfNeeded: $0)) }
    }
}
