// SPDX-License-Identifier: Apache-2.0

import DroverZMQ
import Synchronization
import Testing

@Suite("ZAP handler", .timeLimit(.minutes(1)))
struct ZAPHandlerTests {
    private func server(_ context: Context, _ keys: CurveKeyPair, domain: String) throws -> Socket {
        let server = try Socket(.router, in: context)
        try server.set(.zapDomain, domain)
        try server.set(.zapEnforceDomain, true)
        try server.set(.curveServer, true)
        try server.set(.curveSecretKey, keys.secretKey)
        try server.bind("tcp://127.0.0.1:*")
        return server
    }

    private func client(_ context: Context, _ keys: CurveKeyPair, server: CurveKeyPair) throws -> Socket {
        let client = try Socket(.dealer, in: context)
        try client.set(.curvePublicKey, keys.publicKey)
        try client.set(.curveSecretKey, keys.secretKey)
        try client.set(.curveServerKey, server.publicKey)
        return client
    }

    @Test("whoever is allowed gets in, under the name that the judge gave; whoever isn't is told by 400")
    func judges() throws {
        let context = try Context()
        let handler = try ZAPHandler(in: context)
        let (serverKeys, known) = (try CurveKeyPair.generate(), try CurveKeyPair.generate())
        let domain = handler.add { request in
            request.publicKey == known.publicKey && request.address == "127.0.0.1"
                ? .allowed(userID: "the known one") : .refused(reason: "unknown")
        }
        let server = try self.server(context, serverKeys, domain: domain)

        let friend = try self.client(context, known, server: serverKeys)
        try friend.connect(server.lastEndpoint)
        try sendFrames(friend, [1])
        var frame = Message()
        var poll = PollSet()
        _ = poll.add(server, for: .readable)
        _ = try poll.wait(timeout: .seconds(10))
        #expect(try server.receive(into: &frame))
        #expect(try server.receive(into: &frame))
        let properties = [frame.property("User-Id"), frame.property("Peer-Address"), frame.property("Nonsense")]
        #expect(properties == ["the known one", "127.0.0.1", nil])
        let isKnown = frame.hasProperty("User-Id", Array("the known one".utf8CString))
        #expect(isKnown)
        let isOther = frame.hasProperty("User-Id", Array("the known on".utf8CString))
        #expect(!isOther)
        let isThere = frame.hasProperty("Nonsense", Array("".utf8CString))
        #expect(!isThere)

        let stranger = try self.client(context, CurveKeyPair.generate(), server: serverKeys)
        var monitor = try stranger.monitor(.handshake)
        try stranger.connect(server.lastEndpoint)
        #expect(try self.next(&monitor) == .handshakeFailedAuth(status: 400))

        handler.remove(domain: domain)
        let late = try self.client(context, known, server: serverKeys)
        var lateMonitor = try late.monitor(.handshake)
        try late.connect(server.lastEndpoint)
        #expect(try self.next(&lateMonitor) == .handshakeFailedAuth(status: 400))
    }

    @Test("it survives what is no question, and goes on answering")
    func garbage() throws {
        let context = try Context()
        let handler = try ZAPHandler(in: context)
        let vandal = try Socket(.dealer, in: context)
        try vandal.connect(ZAPHandler.endpoint)
        try sendFrames(vandal, [])
        try sendFrames(vandal, [], Array("1.0".utf8))
        try sendFrames(vandal, [], [9], [1], [], [], [], [], [])
        try sendFrames(vandal, [], Array(repeating: 7, count: 5000), [1])
        for count in 1..<40 {
            for index in 0..<count {
                var frame = Message(copying: [UInt8](repeating: UInt8(index), count: count))
                _ = try vandal.send(&frame, more: index + 1 < count)
            }
        }
        // What is a question, for a domain that nobody knows.
        try sendFrames(vandal, [], Array("1.0".utf8), [42], [1], [2], [3], Array("NULL".utf8))
        let answer = try receiveFrames(vandal)
        #expect(answer.count == 7)
        #expect(answer[2] == [42])
        #expect(answer[3] == Array("400".utf8))

        let serverKeys = try CurveKeyPair.generate()
        let domain = handler.add { _ in .allowed(userID: "all") }
        let server = try self.server(context, serverKeys, domain: domain)
        let friend = try self.client(context, CurveKeyPair.generate(), server: serverKeys)
        try friend.connect(server.lastEndpoint)
        try sendFrames(friend, [5])
        #expect(try receiveFrames(server).last == [5])
    }

    @Test("a context has one handler, which ends with it")
    func single() throws {
        let context = try Context()
        let handler = try ZAPHandler(in: context)
        #expect(thrown { () throws(ZMQError) in _ = try ZAPHandler(in: context) }?.isAddressInUse == true)
        context.terminate()
        handler.remove(domain: "none")
    }

    private func next(_ monitor: inout Monitor) throws -> Monitor.Event.Kind? {
        var poll = DescriptorPoll(capacity: 1)
        for _ in 0..<100 {
            if let event = try monitor.next() { return event.kind }
            poll.removeAll()
            _ = poll.add(try monitor.fileDescriptor)
            try poll.wait(milliseconds: 100)
        }
        return nil
    }
}
