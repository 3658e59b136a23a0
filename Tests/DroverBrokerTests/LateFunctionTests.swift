// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Foundation
import Logging
import Synchronization
import Testing

/// Functions that are registered while a worker serves brokers, callbacks of batches behind a broker, and brokers at paths.
@Suite(.serialized)
struct LateFunctionTests {
    private static let late = Function<Int, Int>("late")
    private static let later = Function<Int, Int>("later")

    @Test("brokers are told of a function that is registered after the start", .timeLimit(.minutes(1)))
    func brokersAreTold() async throws {
        let pool = try Pool(workers: 0)
        var configuration = WorkerConfiguration()
        configuration.logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let worker = Worker(configuration: configuration)
        worker.register(Job.add) { $0 + $1 }
        let running = try worker.start(.connect(pool.endpoint))
        let client = try pool.client()
        #expect(try await client.function(Job.add)(1, 2) == 3)
        // It waits at the broker for a worker that has the function.
        let waiting = try client.function(Self.late).async(20)
        worker.register(Self.late) { $0 * 2 }
        worker.register(Self.later) { $0 * 3 }
        #expect(try await waiting.value == 40)
        #expect(try await client.function(Self.later)(20) == 60)
        await running.stop(grace: .zero)
        await pool.close()
    }

    @Test("S80 a batch through a broker holds its callbacks for all items at all workers", .timeLimit(.minutes(1)))
    func batches() async throws {
        let pool = try Pool(workers: 2, concurrency: 1)
        let client = try pool.client()
        let count = Atomic<Int>(0)
        let told = client.callback { (_: Int) in _ = count.add(1, ordering: .relaxed) }
        let items = (0..<40).map { _ in (told, 3) }
        _ = try await client.map(Job.tick, over: items, MapOptions(window: 2)).collect()
        await client.drainCallbacks()
        #expect(count.load(ordering: .relaxed) == 120)
        #expect(throws: UsageError.self) { try client.function(Job.tick).async(told, 1) }
        await pool.close()
    }

    @Test("a second broker at one ipc path is refused while the first listens there", .timeLimit(.minutes(1)))
    func onePath() async throws {
        let path = FileManager.default.temporaryDirectory
            .appendingPathComponent("drover-\(UInt64.random(in: 0 ... .max)).sock").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        let pool = try Pool(address: "ipc://\(path)")
        let error = #expect(throws: ConnectionError.self) { try Pool(address: "ipc://\(path)", workers: 0) }
        #expect(error?.message.contains("in use") == true)
        // A worker can't have it either.
        #expect(throws: ConnectionError.self) { try Worker().start(.bind("ipc://\(path)")) }
        #expect(try await pool.client().function(Job.add)(1, 2) == 3)
        await pool.close()
    }
}
