// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Foundation
import Logging
import Synchronization
import Testing

/// Requests that wait at a worker for their function's limit or ordering key, while slots are free.
@Suite("Held calls", .serialized, .timeLimit(.minutes(1)))
struct HeldCallTests {
    private static let outer = Function<Int, Int>("outer")
    private static let slow = Function<Int, Int>("slow")

    private final class Seat: Sendable {
        let client = Mutex<Client?>(nil)

        func requireClient() throws -> Client { try #require(self.client.withLock { $0 }) }
    }

    private func worker(_ seat: Seat, concurrency: Int = 4, limit: Int? = 1, releases: Bool = false) -> Worker {
        var configuration = WorkerConfiguration()
        configuration.concurrency = concurrency
        configuration.heartbeatInterval = .milliseconds(300)
        configuration.silenceLimit = .milliseconds(1500)
        configuration.logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let worker = Worker(configuration: configuration)
        worker.register(Job.add) { $0 + $1 }
        worker.register(Self.slow, limit: limit) { (number: Int) in
            usleep(400_000)
            return number
        }
        worker.register(Self.outer, limit: limit) { (context: JobContext, number: Int) async throws -> Int in
            try await Task.sleep(for: .milliseconds(2))
            let client = try seat.requireClient()
            guard releases else { return try await client.call(Job.add, number, 1) }
            return try await context.withSlotReleased { try await client.call(Job.add, number, 1) }
        }
        return worker
    }

    @Test("handlers of a function with a limit call their pool, which has free slots", arguments: [false, true])
    func limitedNested(releases: Bool) async throws {
        let pool = try Pool(workers: 0)
        let seat = Seat()
        let running = try self.worker(seat, releases: releases).start(.connect(pool.endpoint))
        seat.client.withLock { $0 = try? pool.client() }
        try await becomesTrue("it is there") { pool.broker.status.workers == 1 }
        let client = try pool.client()
        let results = try (0..<200).map { try client.function(Self.outer).async($0) }
        for (number, result) in results.enumerated() {
            result.setExpiry(.seconds(20))
            #expect(try await result.value == number + 1)
        }
        seat.client.withLock { $0 = nil }
        await running.stop(grace: .zero)
        await pool.close()
    }

    @Test("the same without a broker, by the client that has many more of them waiting", arguments: [false, true])
    func limitedNestedDirect(releases: Bool) async throws {
        let seat = Seat()
        let running = try self.worker(seat, releases: releases).start(.bind("tcp://127.0.0.1:*"))
        let client = try Client(running.endpoint)
        seat.client.withLock { $0 = client }
        let results = try (0..<400).map { try client.function(Self.outer).async($0) }
        for (number, result) in results.enumerated() {
            result.setExpiry(.seconds(20))
            #expect(try await result.value == number + 1)
        }
        seat.client.withLock { $0 = nil }
        await client.close(grace: .zero)
        await running.stop(grace: .zero)
    }

    @Test(
        "calls of a function with a limit keep no free slots from other clients, nor from their own",
        arguments: [false, true]
    )
    func limited(isBrokered: Bool) async throws {
        let pool = try Pool(workers: 0)
        let place = isBrokered ? WorkerEndpoint.connect(pool.endpoint) : .bind("tcp://127.0.0.1:*")
        let running = try self.worker(Seat()).start(place)
        if isBrokered { try await becomesTrue("it is there") { pool.broker.status.workers == 1 } }
        let clients = try (0..<2).map { _ in isBrokered ? try pool.client() : try Client(running.endpoint) }
        for client in clients { #expect(try await client.call(Job.add, 1, 1) == 2) }
        let held = try (0..<300).map { try clients[0].function(Self.slow).async($0) }
        try await becomesTrue("some are held") { "\(held[1])".contains("of its function") }
        for client in clients {
            for _ in 0..<3 {
                let start = ContinuousClock.now
                #expect(try await client.call(Job.add, 3, 1, timeout: .seconds(15)) == 4)
                let time = ContinuousClock.now - start
                #expect(time < .milliseconds(300))
            }
        }
        for call in held { call.cancel() }
        if !isBrokered { for client in clients { await client.close(grace: .zero) } }
        await running.stop(grace: .zero)
        await pool.close()
    }

    @Test(
        "calls that wait for an ordering key, whose call has given its slot back, keep no slot from what that waits for"
    )
    func keyed() async throws {
        let seat = Seat()
        let running = try self.worker(seat, concurrency: 1, limit: nil, releases: true)
            .start(.bind("tcp://127.0.0.1:*"))
        let (first, second) = (try Client(running.endpoint), try Client(running.endpoint))
        // What the handler calls comes from the client whose calls wait for its key.
        seat.client.withLock { $0 = second }
        var options = CallOptions()
        options.orderingKey = "k"
        var results = [try first.function(Self.outer).with(options).async(0)]
        results += try (1..<300).map { try second.function(Self.outer).with(options).async($0) }
        for (number, result) in results.enumerated() {
            result.setExpiry(.seconds(20))
            #expect(try await result.value == number + 1)
        }
        seat.client.withLock { $0 = nil }
        for client in [first, second] { await client.close(grace: .zero) }
        await running.stop(grace: .zero)
    }

    @Test("a call that is held for a limit says so, and the broker too, rather than that it waits for a slot")
    func explained() async throws {
        let pool = try Pool(workers: 0)
        let running = try self.worker(Seat()).start(.connect(pool.endpoint))
        try await becomesTrue("it is there") { pool.broker.status.workers == 1 }
        let client = try pool.client()
        let calls = try (0..<8).map { try client.function(Self.slow).async($0) }
        try await becomesTrue("the handle says it") {
            "\(calls[1])".contains("its worker runs no more at once (limit)")
        }
        let held = try await client.function(.brokerWhy)(calls[1].correlationID.rawValue).first?.reason ?? ""
        #expect(held.contains("(limit)"))
        let last = try await client.function(.brokerWhy)(calls[7].correlationID.rawValue).first
        #expect(last?.candidates.first?.obstacle.contains("(limit)") == true)
        calls[1].setExpiry(.milliseconds(1))
        let error = await #expect(throws: AsyncResultTimeout.self) { try await calls[1].value }
        #expect("\(try #require(error))".contains("(limit)"))
        client.cancelAll()
        await running.stop(grace: .zero)
        await pool.close()
    }
}
