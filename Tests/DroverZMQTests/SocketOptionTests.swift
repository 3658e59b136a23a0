// SPDX-License-Identifier: Apache-2.0

import Glibc
import Testing

@testable import DroverZMQ

@Suite("Socket options", .timeLimit(.minutes(1)))
struct SocketOptionTests {
    private func expectRoundTrip<Value: SocketOptionValue & Equatable>(
        _ option: SocketOption<Value>,
        _ values: Value...,
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let socket = try Socket(.dealer, in: Context())
        for value in values {
            try socket.set(option, value)
            #expect(try socket.get(option) == value, "\(option.name)", sourceLocation: sourceLocation)
        }
    }

    @Test("durations come back as they were set")
    func durations() throws {
        try self.expectRoundTrip(.linger, .milliseconds(1_500), .zero, .unlimited)
        try self.expectRoundTrip(.heartbeatInterval, .seconds(2), .zero)
        try self.expectRoundTrip(.heartbeatTimeout, .seconds(6))
        try self.expectRoundTrip(.heartbeatTTL, .seconds(6), .milliseconds(600))
        try self.expectRoundTrip(.handshakeInterval, .seconds(5))
        try self.expectRoundTrip(.reconnectInterval, .milliseconds(100), .unlimited)
        try self.expectRoundTrip(.reconnectIntervalMax, .seconds(5))
        try self.expectRoundTrip(.connectTimeout, .seconds(5))
        try self.expectRoundTrip(.tcpMaxRetransmit, .seconds(10))
        try self.expectRoundTrip(.tcpKeepaliveIdle, .seconds(30))
        try self.expectRoundTrip(.tcpKeepaliveInterval, .seconds(10))
        try self.expectRoundTrip(.sendTimeout, .seconds(1), .zero, .unlimited)
        try self.expectRoundTrip(.receiveTimeout, .seconds(1), .unlimited)
    }

    @Test("numbers come back as they were set")
    func numbers() throws {
        try self.expectRoundTrip(.sendHighWaterMark, 7, 0)
        try self.expectRoundTrip(.receiveHighWaterMark, 7)
        try self.expectRoundTrip(.maxMessageSize, -1, 4 << 20, 5 << 32)
        try self.expectRoundTrip(.tcpKeepaliveCount, 3)
        try self.expectRoundTrip(.backlog, 7)
    }

    @Test("flags come back as they were set")
    func flags() throws {
        try self.expectRoundTrip(.immediate, true, false)
        try self.expectRoundTrip(.tcpKeepalive, true, false)
        try self.expectRoundTrip(.ipv6, true, false)
        try self.expectRoundTrip(.zapEnforceDomain, true, false)
        try self.expectRoundTrip(.curveServer, true, false)
    }

    @Test("text and bytes come back as they were set")
    func textAndBytes() throws {
        let keys = try CurveKeyPair.generate()
        try self.expectRoundTrip(.zapDomain, "drover")
        try self.expectRoundTrip(.routingID, [1], Array(repeating: 255, count: 255))
        try self.expectRoundTrip(.curvePublicKey, keys.publicKey)
        try self.expectRoundTrip(.curveSecretKey, keys.secretKey)
        try self.expectRoundTrip(.curveServerKey, keys.publicKey)
    }

    @Test("nothing lingers unless asked")
    func lingerIsZero() throws {
        #expect(try Socket(.dealer, in: Context()).get(.linger) == .zero)
    }

    @Test("the last endpoint tells the chosen port")
    func lastEndpoint() throws {
        let socket = try Socket(.router, in: Context())
        #expect(try socket.lastEndpoint == "")
        try socket.bind("tcp://127.0.0.1:*")
        let endpoint = try socket.lastEndpoint
        #expect(endpoint.hasPrefix("tcp://127.0.0.1:"))
        #expect(!endpoint.hasSuffix("*"))
    }

    @Test("the descriptor and the events can be read")
    func descriptorAndEvents() throws {
        let socket = try Socket(.router, in: Context())
        #expect(try socket.get(.fileDescriptor) > 2)
        #expect(try !socket.get(.events).contains(.readable))
    }

    @Test("options that can't be read say so")
    func writeOnly() throws {
        let socket = try Socket(.router, in: Context())
        try socket.set(.routerMandatory, true)
        try socket.set(.probeRouter, true)
        try socket.set(.connectRoutingID, [1, 2, 3])
        let error = thrown { () throws(ZMQError) in _ = try socket.get(.connectRoutingID) }
        #expect(error == ZMQError(errno: EINVAL, .getOption, "connectRoutingID"))
    }

    @Test("values out of range are refused with the option's name and the remedy")
    func outOfRange() throws {
        let socket = try Socket(.dealer, in: Context())
        func refused<Value>(_ option: SocketOption<Value>, _ value: Value) {
            let error = thrown { () throws(ZMQError) in try socket.set(option, value) }
            #expect(error == ZMQError(errno: EINVAL, .setOption, option.name))
            #expect(error?.description.contains("out of the option's range") == true)
        }
        refused(.sendHighWaterMark, -1)
        refused(.sendHighWaterMark, Int.max)
        refused(.maxMessageSize, -2)
        refused(.linger, .milliseconds(-2))
        refused(.linger, .seconds(Int64.max))
        refused(.heartbeatInterval, .milliseconds(-1))
        refused(.heartbeatTTL, .seconds(6_554))
        refused(.routingID, [])
        refused(.routingID, Array(repeating: 1, count: 256))
        refused(.curveServerKey, Array(repeating: 1, count: 31))
        refused(.curveServerKey, Array(repeating: 65, count: 40))
        refused(.tcpKeepaliveCount, -2)
    }

    @Test("a part of a unit counts as a whole one")
    func roundsUp() throws {
        let socket = try Socket(.dealer, in: Context())
        try socket.set(.linger, .nanoseconds(1))
        #expect(try socket.get(.linger) == .milliseconds(1))
        try socket.set(.tcpKeepaliveIdle, .milliseconds(1_001))
        #expect(try socket.get(.tcpKeepaliveIdle) == .seconds(2))
    }
}
