// SPDX-License-Identifier: Apache-2.0

import Drover
import Testing

@Suite("Endpoints", .timeLimit(.minutes(1)))
struct EndpointTests {
    @Test(
        "S104 addresses of the loopback are local",
        arguments: [
            "tcp://127.0.0.1:5570", "tcp://127.9.8.7:*", "tcp://[::1]:*", "tcp://[0:0:0:0:0:0:0:1]:1",
            "tcp://[::ffff:127.0.0.1]:80", "tcp://localhost:5570", "tcp://LOCALHOST:*", "ipc:///run/drover.sock",
        ]
    )
    func local(_ address: String) throws {
        let endpoint = try Endpoint(address)
        #expect(endpoint.isLocal && endpoint.isLocalToBind)
    }

    @Test(
        "S104 what only looks like the loopback is not taken for it",
        arguments: [
            "tcp://127.evil.example:5570", "tcp://localhost.example:1", "tcp://0.0.0.0:5570", "tcp://*:5570",
            "tcp://[::]:1",
            "tcp://[::ffff:10.0.0.1]:80", "tcp://10.0.0.127:1", "tcp://[fe80::1%lo]:1", "tcp://eth0:*",
            "tcp://127.1:5570",
        ]
    )
    func remote(_ address: String) throws {
        let endpoint = try Endpoint(address)
        #expect(!endpoint.isLocal && !endpoint.isLocalToBind)
        // Refused before a socket exists.
        #expect(throws: UsageError.self) { try Worker().start(.bind(address)) }
        #expect(throws: UsageError.self) { try Client(address) }
    }

    @Test("S104 what an address without keys lets others do is said aloud")
    func warnings() throws {
        let far = try Endpoint("tcp://0.0.0.0:5570")
        #expect(far.warningToBind(hasKeys: false)?.contains("may do everything") == true)
        #expect(try Endpoint("tcp://192.0.2.1:5570").warningToDial(hasKeys: false)?.contains("read and change") == true)
        #expect(try Endpoint("ipc://@name").warningToBind(hasKeys: false)?.contains("every user") == true)
        #expect(far.warningToBind(hasKeys: true) == nil && far.warningToDial(hasKeys: true) == nil)
        for address in ["tcp://127.0.0.1:1", "ipc:///run/s", "tcp://localhost:1"] {
            let endpoint = try Endpoint(address)
            #expect(endpoint.warningToBind(hasKeys: false) == nil && endpoint.warningToDial(hasKeys: false) == nil)
        }
    }

    @Test("the loopback's interface is local to listen at; as a name to dial it is a host's")
    func interface() throws {
        let endpoint = try Endpoint("tcp://lo:*")
        #expect(endpoint.isLocalToBind && !endpoint.isLocal)
    }

    @Test(
        "S104 an address that is two, or none, is refused with what to write instead",
        arguments: [
            ("tcp://127.0.0.1:0;0.0.0.0:0", "a name, an IPv4 address"),
            ("tcp://127.0.0.1;0.0.0.0:0", "a name, an IPv4 address"),
            ("tcp://[::1:80", "in brackets"), ("tcp://::1:80", "in brackets"), ("tcp://a b:80", "a name"),
            ("tcp://host:+80", "up to 65535"), ("tcp://host:65536", "up to 65535"), ("tcp://host", "has no port"),
            ("tcp://:80", "names no host"), ("tcp://h\u{1B}[2J:80", "a name"), ("tcp://[fe80::1%;]:1", "in brackets"),
        ]
    )
    func refused(_ address: String, remedy: String) {
        let error = #expect(throws: UsageError.self) { try Endpoint(address) }
        #expect(error?.message.contains(remedy) == true, "\(String(describing: error))")
    }

    @Test(
        "a worker listens at localhost and at the loopback of IPv6",
        arguments: ["tcp://localhost:*", "tcp://[::1]:*"]
    )
    func listening(_ address: String) async throws {
        let worker = Worker()
        worker.register(Job.echo) { (number: Int) in number }
        let running = try worker.start(.bind(address))
        let client = try Client(running.endpoint)
        #expect(try await client.call(Job.echo, 7, timeout: .seconds(20)) == 7)
        await client.close()
        await running.stop()
    }
}
