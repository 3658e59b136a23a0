// SPDX-License-Identifier: Apache-2.0

import DroverZMQ
import Foundation
import Glibc
import Testing

/// `ipc` listeners and what stands at their paths already.
@Suite struct SocketPathTests {
    /// A folder of the test's own.
    private static func withFolder(_ body: (String) throws -> Void) throws {
        let folder = FileManager.default.temporaryDirectory
            .appendingPathComponent("drover-path-\(UInt64.random(in: 0 ... .max))").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try body(folder)
    }

    @Test("nobody takes a path from a socket that listens there, which goes on", .timeLimit(.minutes(1)))
    func listened() throws {
        try Self.withFolder { folder in
            let endpoint = "ipc://\(folder)/s"
            let path = try #require(SocketPath(ofEndpoint: endpoint))
            #expect(path.occupant == .nobody)
            let context = try Context()
            let first = try Socket(.router, in: context)
            try first.bind(endpoint)
            #expect(path.occupant == .somebody)
            let second = try Socket(.router, in: context)
            let error = thrown { () throws(ZMQError) in try second.bind(endpoint) }
            #expect(error?.isAddressInUse == true)
            #expect(error?.description.contains(endpoint) == true)
            let client = try Socket(.dealer, in: context)
            try client.connect(endpoint)
            try sendFrames(client, [1])
            #expect(try receiveFrames(first).last == [1])
        }
    }

    @Test("a socket that its process has left is taken over", .timeLimit(.minutes(1)))
    func left() throws {
        try Self.withFolder { folder in
            let endpoint = "ipc://\(folder)/s"
            let path = try #require(SocketPath(ofEndpoint: endpoint))
            let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
            var address = sockaddr_un()
            address.sun_family = sa_family_t(AF_UNIX)
            withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.path.utf8)) }
            let bound = withUnsafePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                    bind(descriptor, pointer, socklen_t(MemoryLayout<sockaddr_un>.size))
                }
            }
            #expect(bound == 0)
            close(descriptor)
            #expect(path.occupant == .left)
            let context = try Context()
            let heir = try Socket(.router, in: context)
            try heir.bind(endpoint)
            #expect(path.occupant == .somebody)
        }
    }

    @Test("a file that is no socket is not deleted, nor is a link", .timeLimit(.minutes(1)))
    func files() throws {
        try Self.withFolder { folder in
            let (file, link) = ("\(folder)/precious", "\(folder)/link")
            try Data("kept".utf8).write(to: URL(fileURLWithPath: file))
            try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: file)
            let context = try Context()
            for path in [file, link] {
                let socket = try Socket(.router, in: context)
                let error = thrown { () throws(ZMQError) in try socket.bind("ipc://\(path)") }
                #expect(error?.errno == EEXIST)
                #expect(error?.description.contains("no socket") == true)
            }
            #expect(try String(contentsOfFile: link, encoding: .utf8) == "kept")
        }
    }

    @Test("of many that begin at one path at once, one listens there", .timeLimit(.minutes(1)))
    func race() throws {
        try Self.withFolder { folder in
            let winners = Counter()
            let context = try Context()
            let done = Counter()
            let threads = try (0..<8)
                .map { number in
                    try LoopThread.start(named: "binder-\(number)") {
                        guard let socket = try? Socket(.router, in: context) else { return }
                        if (try? socket.bind("ipc://\(folder)/s")) != nil { winners.increment() }
                        done.increment()
                        // Nobody leaves before all have tried.
                        while done.value < 8 { usleep(1000) }
                    }
                }
            for thread in threads { thread.join() }
            #expect(winners.value == 1)
        }
    }

    @Test(
        "only names in the file system are looked at",
        arguments: [
            ("ipc:///run/s", "/run/s"), ("ipc://s", "s"), ("ipc://@s", nil), ("ipc://*", nil), ("tcp://*:1", nil),
        ]
    )
    func endpoints(endpoint: String, path: String?) {
        #expect(SocketPath(ofEndpoint: endpoint)?.path == path)
    }
}
