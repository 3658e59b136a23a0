// SPDX-License-Identifier: Apache-2.0

package import DroverZMQ
internal import Glibc

extension Socket {
    /// Sets what the sockets of clients, workers and brokers have in common.
    ///
    /// The protocol's beats are the only ones. They tell whether the peer lives; and if its host doesn't acknowledge them, or
    /// anything else, the kernel closes the connection, so that another can take its place. ZeroMQ's own heartbeats would
    /// say the same again, at twice the cost of an idle connection.
    ///
    /// - Parameters:
    ///   - addresses: What the socket will be bound or connected to.
    ///   - maxPayloadBytes: The largest payload that a peer may send.
    ///   - maxFrameBytes: The most that it may send in one piece, if that is less.
    /// - Throws: `ZMQError` for an option that libzmq doesn't take.
    package borrowing func prepare(
        for addresses: [String],
        maxPayloadBytes: Int,
        maxFrameBytes: Int? = nil
    ) throws(ZMQError) {
        try self.set(.sendHighWaterMark, 100_000)
        try self.set(.receiveHighWaterMark, 100_000)
        try self.set(.maxMessageSize, min(maxFrameBytes ?? .max, maxPayloadBytes + (1 << 16)))
        try self.set(.handshakeInterval, .seconds(5))
        try self.set(.reconnectInterval, .milliseconds(100))
        // A link that was closed for half a second must be back within one.
        try self.set(.reconnectIntervalMax, .milliseconds(250))
        guard addresses.contains(where: { $0.hasPrefix("tcp:") }) else { return }
        // Without it libzmq takes no IPv6 address; with it, IPv4 goes on as before.
        if addresses.contains(where: { $0.hasPrefix("tcp://[") }) { try self.set(.ipv6, true) }
        try self.set(.connectTimeout, .seconds(5))
        // With a beat every two seconds a dead connection is closed before the third.
        try self.set(.tcpMaxRetransmit, .milliseconds(3500))
        try self.set(.tcpKeepalive, true)
        try self.set(.tcpKeepaliveIdle, .seconds(30))
        try self.set(.tcpKeepaliveInterval, .seconds(10))
        try self.set(.tcpKeepaliveCount, 3)
        try self.set(.backlog, 1024)
    }

    /// Begins to connect to an address without a name.
    ///
    /// - Parameter address: Where to.
    /// - Throws: `ZMQError` if libzmq doesn't take it.
    @available(*, noasync)
    package borrowing func connectTo(_ address: String) throws(ZMQError) {
        // Only for those: with it the other addresses would take sockets of IPv6 as well.
        try self.set(.ipv6, address.hasPrefix("tcp://["))
        defer { try? self.set(.ipv6, false) }
        try self.connect(address)
    }

    /// Binds the socket; an address that is in use is tried again for a moment.
    ///
    /// libzmq closes a listener after the socket that had it, on a thread of its own: who stops a server and starts another
    /// at the same address at once would find it taken, now and then. It closes an `ipc` listener before it removes the file,
    /// whatever that is by then: so a socket that was left is given a moment to go before it is taken over.
    ///
    /// - Parameters:
    ///   - address: Where to listen.
    ///   - mode: Who may use the path of an `ipc` address.
    /// - Throws: `ZMQError` if that can't be done.
    @available(*, noasync)
    package borrowing func bindPatiently(_ address: String, mode: UInt32) throws(ZMQError) {
        let path = SocketPath(ofEndpoint: address)
        for _ in 0..<Self.looksAtLeftSocket {
            guard path?.occupant == .left else { break }
            usleep(10_000)
        }
        for _ in 0..<Self.bindAttempts {
            do throws(ZMQError) {
                return try self.bind(address, mode: mode)
            } catch {
                guard error.isAddressInUse else { throw error }
            }
            usleep(10_000)
        }
        try self.bind(address, mode: mode)
    }

    private static var bindAttempts: Int { 25 }
    private static var looksAtLeftSocket: Int { 3 }
}
