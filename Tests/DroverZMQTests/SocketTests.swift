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
}
