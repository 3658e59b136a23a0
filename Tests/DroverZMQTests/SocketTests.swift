// SPDX-License-Identifier: Apache-2.0

import Glibc
import Testing

@testable import DroverZMQ

@Suite("Socket", .timeLimit(.minutes(1)))
struct SocketTests {
    @Test("frames cross tcp, ipc and inproc, and the answer finds its way", arguments: ["tcp", "ipc", "inproc"])
    func framesCross(transport: String) throws {
        let context = try Context()
        let server = try Socket(.router, in: context)
        switch transport {
        case "tcp": try server.bind("tcp://127.0.0.1:*")
        case "ipc": try server.bind("ipc://*")
        default: try server.bind("inproc://frames")
        }
        let client = try Socket(.dealer, in: context)
        try client.connect(server.lastEndpoint)
        try sendFrames(client, [], [UInt8](text: "hello"), [UInt8](repeating: 7, count: 100_000))
        let request = try receiveFrames(server)
        try #require(request.count == 4)
        #expect(request[1].isEmpty)
        #expect(request[2] == [UInt8](text: "hello"))
        #expect(request[3] == [UInt8](repeating: 7, count: 100_000))
        try sendFrames(server, request[0], [UInt8](text: "world"))
        #expect(try receiveFrames(client) == [[UInt8](text: "world")])
    }

    @Test("bytes can be sent as a copy")
    func sendsCopies() throws {
        let context = try Context()
        let left = try Socket(.pair, in: context)
        let right = try Socket(.pair, in: context)
        try left.bind("inproc://copies")
        try right.connect("inproc://copies")
        let wasSent = try [UInt8](text: "first").withUnsafeBytes { try left.send(copying: $0, more: true) }
        let wasEmptySent = try left.send(copying: UnsafeRawBufferPointer(start: nil, count: 0))
        #expect(wasSent && wasEmptySent)
        #expect(try receiveFrames(right) == [[UInt8](text: "first"), []])
    }

    @Test("without a peer a message isn't taken and stays as it was")
    func notNow() throws {
        let socket = try Socket(.dealer, in: Context())
        var message = Message(copying: [1, 2, 3])
        #expect(try !socket.send(&message))
        #expect(message.bytes == [1, 2, 3])
        #expect(try !socket.receive(into: &message))
        let wasSent = try [UInt8]([1]).withUnsafeBytes { try socket.send(copying: $0) }
        #expect(!wasSent)
    }

    @Test("a full queue is not now, and nothing gets lost")
    func fullQueue() throws {
        let context = try Context()
        let left = try Socket(.pair, in: context)
        let right = try Socket(.pair, in: context)
        try left.set(.sendHighWaterMark, 5)
        try right.set(.receiveHighWaterMark, 5)
        try left.bind("inproc://full")
        try right.connect("inproc://full")
        var taken = 0
        var message = Message(copying: [UInt8(taken)])
        while try left.send(&message) {
            taken += 1
            message = Message(copying: [UInt8(taken)])
        }
        #expect(taken == 10)
        #expect(message.bytes == [10])
        for number in 0..<taken { #expect(try receiveFrames(right) == [[UInt8(number)]]) }
    }

    @Test("a ROUTER reports a peer it doesn't know")
    func unknownPeer() throws {
        let socket = try Socket(.router, in: Context())
        try socket.set(.routerMandatory, true)
        var message = Message(copying: [UInt8](text: "nobody"))
        var wasSent = false
        let error = thrown { () throws(ZMQError) in wasSent = try socket.send(&message, more: true) }
        #expect(error?.isUnreachable == true)
        #expect(!wasSent)
        #expect(message.bytes == [UInt8](text: "nobody"))
    }

    @Test("a ROUTER may name the peer it dials")
    func connectRoutingID() throws {
        let context = try Context()
        let broker = try Socket(.router, in: context)
        try broker.bind("tcp://127.0.0.1:*")
        let worker = try Socket(.router, in: context)
        try worker.set(.routerMandatory, true)
        try worker.set(.connectRoutingID, [UInt8](text: "broker"))
        try worker.connect(broker.lastEndpoint)
        try sendFrames(worker, [UInt8](text: "broker"), [UInt8](text: "ready"))
        #expect(try receiveFrames(broker).last == [UInt8](text: "ready"))
    }

    @Test("binding twice says that the address is in use")
    func addressInUse() throws {
        let context = try Context()
        let first = try Socket(.router, in: context)
        try first.bind("tcp://127.0.0.1:*")
        let endpoint = try first.lastEndpoint
        let second = try Socket(.router, in: context)
        let error = thrown { () throws(ZMQError) in try second.bind(endpoint) }
        #expect(error?.isAddressInUse == true)
        #expect(error?.description.contains(endpoint) == true)
        #expect(error?.description.contains("another port") == true)
        try first.unbind(endpoint)
        var last: ZMQError?
        // The listener is closed by the I/O thread, a moment later.
        for _ in 0..<1_000 {
            do throws(ZMQError) {
                try second.bind(endpoint)
                last = nil
                break
            } catch {
                last = error
                usleep(1_000)
            }
        }
        #expect(last == nil)
    }

    @Test(
        "bad endpoints are refused with a reason",
        arguments: [
            ("nonsense", EINVAL), ("tcp://127.0.0.1", EINVAL), ("tcp://127.0.0.1:x", EINVAL),
            ("gopher://x:1", EPROTONOSUPPORT), ("tcp://no-such-host.invalid:1", ENODEV),
            ("tcp://192.0.2.1:*", EADDRNOTAVAIL), ("ipc:///no/such/directory/socket", ENOENT),
            ("ipc:///" + String(repeating: "x", count: 200), ENAMETOOLONG),
        ]
    )
    func badEndpoints(endpoint: String, code: CInt) throws {
        let socket = try Socket(.router, in: Context())
        let error = thrown { () throws(ZMQError) in try socket.bind(endpoint) }
        #expect(error == ZMQError(errno: code, .bind, endpoint))
        #expect(error?.remedy != nil)
    }

    @Test("what isn't connected can't be disconnected")
    func disconnectUnknown() throws {
        let socket = try Socket(.dealer, in: Context())
        let error = thrown { () throws(ZMQError) in try socket.disconnect("tcp://127.0.0.1:1") }
        #expect(error?.errno == ENOENT)
        try socket.connect("tcp://127.0.0.1:1")
        try socket.disconnect("tcp://127.0.0.1:1")
    }

    @Test("a socket may move to another thread with the token")
    func movesWithToken() throws {
        let loop = MovingLoop(try Socket(.pair, in: Context()))
        let ticket = loop.token.lend()
        let thread = try LoopThread.start(named: "mover") {
            if loop.token.takeOver(ticket) { loop.run() }
        }
        #expect(thread.join(within: .seconds(10)))
        #expect(loop.isBound.current == true)
    }
}

/// A loop whose socket belongs to whoever holds the token.
private final class MovingLoop: @unchecked Sendable {
    let token = LoopToken()
    let isBound = ReadySignal<Bool>()
    private var socket: Socket

    init(_ socket: consuming Socket) {
        self.socket = socket
    }

    func run() {
        self.socket.moveToCurrentThread()
        do {
            try self.socket.bind("inproc://moved")
            self.isBound.set(true)
        } catch {
            self.isBound.set(false)
        }
    }
}
