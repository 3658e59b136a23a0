// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Logging
import Testing

@testable import Attackers

/// Somebody wants to be taken for the broker of a worker that also listens.
@Suite("Attack: being taken for a broker", .serialized, .timeLimit(.minutes(1)))
struct BrokerImpostorTests {
    private static func worker(dialling broker: String? = nil, _ keys: ConnectionKeys? = nil) throws -> RunningWorker {
        var configuration = WorkerConfiguration()
        configuration.keys = keys
        configuration.logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let worker = Worker(configuration: configuration)
        worker.register(Job.add) { $0 + $1 }
        return try worker.start(.bind("tcp://127.0.0.1:*", connecting: broker.map { [$0] } ?? []))
    }

    private static func order(_ number: UInt32) -> [UInt8] { Plain.message(Plain.control, number: number) }

    @Test("a client that says it is a broker is refused, and its orders aren't taken")
    func claimed() async throws {
        let worker = try Self.worker()
        do {
            let attacker = try PlainPeer(worker.endpoint)
            attacker.send(Plain.hello(client: 7, [("broker", Plain.yes)]), Self.order(1), Self.order(3))
            let kinds = attacker.kinds()
            #expect(kinds.contains(Plain.refused) && !kinds.contains(Plain.welcome))
        }
        #expect(!worker.isQuiet)
        let client = try Client(worker.endpoint)
        #expect(try await client.function(Job.add)(1, 2) == 3)
        await client.close(grace: .zero)
        await worker.stop(grace: .zero)
    }

    @Test("connections that claim what a dialled broker's could be called neither end the worker nor order it")
    func routes() async throws {
        let ring = try Keyring()
        let pool = try ring.pool(workers: 0)
        // The broker doesn't know the worker's key, so that it is dialled again and again.
        let stranger = try KeyPair()
        let worker = try Self.worker(dialling: pool.endpoint, ring.connection(stranger))
        let attackers = try (0..<40)
            .map { number in
                let peer = try PlainPeer(worker.endpoint, claiming: Array("broker 0 \(number)".utf8))
                peer.send(Plain.hello(client: 8, [("broker", Plain.yes)]), Self.order(1))
                return peer
            }
        // Three attempts and more.
        for _ in 0..<4 { for peer in attackers { #expect(!peer.kinds(within: 10).contains(Plain.welcome)) } }
        #expect(!worker.isQuiet)
        try ring.allow(stranger, "late work")
        try await becomesTrue("the broker has welcomed it") { worker.brokerCount == 1 }
        #expect(!worker.isQuiet)
        await worker.stop(grace: .zero)
        await pool.close()
    }
}
