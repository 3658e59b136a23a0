// SPDX-License-Identifier: Apache-2.0

package import DroverZMQ

extension Socket {
    /// Sets what the sockets of clients, workers and brokers have in common.
    ///
    /// Silence is noticed twice: libzmq's own heartbeats close connections whose other end is gone, the protocol's beats
    /// tell that nobody reads them any more.
    ///
    /// - Parameters:
    ///   - addresses: What the socket will be bound or connected to.
    ///   - maxPayloadBytes: The largest payload that a peer may send.
    /// - Throws: `ZMQError` for an option that libzmq doesn't take.
    package borrowing func prepare(for addresses: [String], maxPayloadBytes: Int) throws(ZMQError) {
        try self.set(.sendHighWaterMark, 100_000)
        try self.set(.receiveHighWaterMark, 100_000)
        try self.set(.maxMessageSize, maxPayloadBytes + (1 << 16))
        try self.set(.handshakeInterval, .seconds(5))
        try self.set(.heartbeatInterval, .seconds(2))
        try self.set(.heartbeatTimeout, .seconds(6))
        try self.set(.heartbeatTTL, .seconds(6))
        try self.set(.reconnectInterval, .milliseconds(100))
        try self.set(.reconnectIntervalMax, .seconds(5))
        guard addresses.contains(where: { $0.hasPrefix("tcp:") }) else { return }
        try self.set(.connectTimeout, .seconds(5))
        try self.set(.tcpKeepalive, true)
        try self.set(.tcpKeepaliveIdle, .seconds(30))
        try self.set(.tcpKeepaliveInterval, .seconds(10))
        try self.set(.tcpKeepaliveCount, 3)
        try self.set(.backlog, 1024)
    }
}
