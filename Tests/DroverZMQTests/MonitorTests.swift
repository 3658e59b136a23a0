// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import DroverZMQ

@Suite("Monitor", .timeLimit(.minutes(1)))
struct MonitorTests {
    /// Reads events, for at most ten seconds, up to the first that `isWanted`.
    private func events(
        of monitor: inout Monitor,
        until isWanted: (Monitor.Event.Kind) -> Bool
    ) throws -> [Monitor.Event] {
        var events: [Monitor.Event] = []
        var poll = PollSet()
        _ = poll.add(monitor)
        while try poll.wait(timeout: .seconds(10)) > 0 {
            while let event = try monitor.next() {
                events.append(event)
                if isWanted(event.kind) { return events }
            }
        }
        Issue.record("the event didn't come, only \(events)")
        return events
    }

    @Test("both sides see a connection come and go")
    func connection() throws {
        let context = try Context()
        let server = try Socket(.router, in: context)
        var serverMonitor = try server.monitor()
        try server.bind("tcp://127.0.0.1:*")
        let endpoint = try server.lastEndpoint
        do {
            let client = try Socket(.dealer, in: context)
            var clientMonitor = try client.monitor([.connected, .handshakeSucceeded])
            try client.connect(endpoint)
            let seen = try self.events(of: &clientMonitor) { $0 == .handshakeSucceeded }
            #expect(seen.count == 2)
            #expect(seen.first?.endpoint == endpoint)
            guard case .connected = seen.first?.kind else { throw thrownOutside("\(seen)") }
        }
        let seen = try self.events(of: &serverMonitor) { if case .disconnected = $0 { true } else { false } }
        guard case .listening = seen.first?.kind else { throw thrownOutside("\(seen)") }
        #expect(seen.contains { $0.kind == .handshakeSucceeded })
        #expect(seen.contains { if case .accepted = $0.kind { true } else { false } })
    }

    private func thrownOutside(_ text: String) -> any Error {
        Unexpected(text: text)
    }

    private struct Unexpected: Error {
        let text: String
    }

    @Test("nobody at the other end is retried")
    func retried() throws {
        let socket = try Socket(.dealer, in: Context())
        var monitor = try socket.monitor()
        try socket.set(.reconnectInterval, .milliseconds(10))
        try socket.connect("tcp://127.0.0.1:1")
        let seen = try self.events(of: &monitor) { if case .connectRetried = $0 { true } else { false } }
        #expect(seen.last?.endpoint == "tcp://127.0.0.1:1")
    }

    @Test("a client with the wrong server key fails visibly on both sides")
    func wrongKey() throws {
        let context = try Context()
        let (serverKeys, clientKeys, otherKeys) = (
            try CurveKeyPair.generate(), try CurveKeyPair.generate(), try CurveKeyPair.generate()
        )
        let server = try Socket(.router, in: context)
        try server.set(.curveServer, true)
        try server.set(.curveSecretKey, serverKeys.secretKey)
        var serverMonitor = try server.monitor(.handshake)
        try server.bind("tcp://127.0.0.1:*")

        let client = try Socket(.dealer, in: context)
        try client.set(.curvePublicKey, clientKeys.publicKey)
        try client.set(.curveSecretKey, clientKeys.secretKey)
        try client.set(.curveServerKey, otherKeys.publicKey)
        var clientMonitor = try client.monitor()
        try client.connect(server.lastEndpoint)
        _ = try self.events(of: &serverMonitor) { if case .handshakeFailedProtocol = $0 { true } else { false } }
        let seen = try self.events(of: &clientMonitor) {
            switch $0 {
            case .handshakeFailedNoDetail, .handshakeFailedProtocol, .disconnected: true
            default: false
            }
        }
        #expect(!seen.contains { $0.kind == .handshakeSucceeded })
    }

    @Test("the right keys make a connection")
    func rightKey() throws {
        let context = try Context()
        let (serverKeys, clientKeys) = (try CurveKeyPair.generate(), try CurveKeyPair.generate())
        let server = try Socket(.router, in: context)
        try server.set(.curveServer, true)
        try server.set(.curveSecretKey, serverKeys.secretKey)
        try server.bind("tcp://127.0.0.1:*")
        let client = try Socket(.dealer, in: context)
        try client.set(.curvePublicKey, clientKeys.publicKey)
        try client.set(.curveSecretKey, clientKeys.secretKey)
        try client.set(.curveServerKey, serverKeys.publicKey)
        try client.connect(server.lastEndpoint)
        try sendFrames(client, [1, 2, 3])
        #expect(try receiveFrames(server).last == [1, 2, 3])
    }

    @Test("with an enforced ZAP domain and no handler nobody gets in")
    func enforcedDomain() throws {
        let context = try Context()
        let (serverKeys, clientKeys) = (try CurveKeyPair.generate(), try CurveKeyPair.generate())
        let server = try Socket(.router, in: context)
        try server.set(.zapDomain, "drover")
        try server.set(.zapEnforceDomain, true)
        try server.set(.curveServer, true)
        try server.set(.curveSecretKey, serverKeys.secretKey)
        var monitor = try server.monitor(.handshake)
        try server.bind("tcp://127.0.0.1:*")
        let client = try Socket(.dealer, in: context)
        try client.set(.curvePublicKey, clientKeys.publicKey)
        try client.set(.curveSecretKey, clientKeys.secretKey)
        try client.set(.curveServerKey, serverKeys.publicKey)
        try client.connect(server.lastEndpoint)
        let seen = try self.events(of: &monitor) { _ in true }
        #expect(seen.count == 1)
        #expect(seen.first?.kind != .handshakeSucceeded)
    }

    @Test("a stopped monitor says so, and another may follow")
    func stops() throws {
        let socket = try Socket(.router, in: Context())
        var monitor = try socket.monitor()
        #expect(thrown { () throws(ZMQError) in _ = try socket.monitor() } != nil)
        monitor.stop()
        monitor.stop()
        #expect(try self.events(of: &monitor) { $0 == .monitorStopped }.count == 1)
        try socket.bind("tcp://127.0.0.1:*")
        #expect(try monitor.next() == nil)
        var second = try socket.monitor()
        try socket.bind("tcp://127.0.0.1:*")
        _ = try self.events(of: &second) { if case .listening = $0 { true } else { false } }
    }

    @Test("a monitor may end before its socket, with events to come")
    func endsFirst() throws {
        let context = try Context()
        do {
            let socket = try Socket(.dealer, in: context)
            try socket.set(.reconnectInterval, .milliseconds(1))
            do {
                let monitor = try socket.monitor()
                try socket.connect("tcp://127.0.0.1:1")
                _ = consume monitor
            }
            // Each of these would be an event, and the I/O thread would wait for a reader.
            for port in 2..<10 { try socket.connect("tcp://127.0.0.1:\(port)") }
        }
        context.terminate()
    }

    @Test("a monitor may outlive its socket and read the rest")
    func endsLast() throws {
        let context = try Context()
        let socket = try Socket(.router, in: context)
        var monitor = try socket.monitor()
        try socket.bind("tcp://127.0.0.1:*")
        _ = consume socket
        let seen = try self.events(of: &monitor) { $0 == .monitorStopped }
        #expect(seen.count == 2)
    }
}
