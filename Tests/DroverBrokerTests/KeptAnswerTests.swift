// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Synchronization
import Testing

/// Answers that are lost with a connection.
@Suite("Large answers by a link that flaps", .serialized, .timeLimit(.minutes(2)))
struct KeptAnswerTests {
    /// Where the link is that breaks.
    enum Hop: String, CaseIterable, Sendable { case direct, toClient, toWorker }

    private static let grow = Function<Int, Int, [UInt8]>("grow")
    private static let take = Function<Int, [UInt8], Int>("take")
    private static let sizes = [20_000, 40_000, 600 << 10, 4 << 20]

    /// A worker whose answers wait for the test, and a client that reaches it by a link that breaks.
    private final class Scene: Sendable {
        let pool: Pool?
        let link: FlakyLink
        let worker: RunningWorker
        let client: Client
        let runs = Mutex<[Int: Int]>([:])
        let mayAnswer = Atomic<Bool>(true)

        /// Leads from the handlers here, until it is closed.
        private let box = Box()

        init(_ hop: Hop) throws {
            let box = self.box
            var configuration = WorkerConfiguration()
            configuration.concurrency = 4
            let worker = Worker(configuration: configuration)
            worker.register(KeptAnswerTests.grow) { (number: Int, count: Int) async throws -> [UInt8] in
                box.scene.withLock { $0?.runs.withLock { $0[number, default: 0] += 1 } }
                while box.scene.withLock({ $0?.mayAnswer.load(ordering: .acquiring) }) == false {
                    try await Task.sleep(for: .milliseconds(1))
                }
                return [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: count)
            }
            worker.register(KeptAnswerTests.take) { (number: Int, bytes: [UInt8]) in
                box.scene.withLock { $0?.runs.withLock { $0[number, default: 0] += 1 } }
                return bytes.count
            }
            worker.register(Function<Int, [UInt8]>("size")) { (number: Int) in
                box.scene.withLock { $0?.runs.withLock { $0[number, default: 0] += 1 } }
                return [UInt8](repeating: 1, count: [300_000, 2000, 40_000][number % 3])
            }
            if hop == .direct {
                self.pool = nil
                self.worker = try worker.start(.bind("tcp://127.0.0.1:*"))
                self.link = try FlakyLink(to: self.worker.endpoint)
                self.client = try Client(self.link.endpoint)
            } else {
                let pool = try Pool(workers: 0)
                self.pool = pool
                self.link = try FlakyLink(to: pool.endpoint)
                let broker = hop == .toWorker ? self.link.endpoint : pool.endpoint
                self.worker = try worker.start(.bind(nil, connecting: [broker]))
                self.client = try Client(hop == .toClient ? self.link.endpoint : pool.endpoint)
            }
            box.scene.withLock { $0 = self }
        }

        private final class Box: Sendable {
            let scene = Mutex<Scene?>(nil)
        }

        /// How many answers have reached the side that is to lose them.
        func answered(_ hop: Hop) -> Int {
            hop == .toClient ? self.pool?.broker.status.answered ?? 0 : self.worker.status.completed
        }

        func close() async {
            self.box.scene.withLock { $0 = nil }
            await self.client.close(grace: .zero)
            await self.worker.stop(grace: .zero)
            await self.pool?.close()
            self.link.close()
        }
    }

    @Test("S97 answers of calls that may run once come after all, and none runs twice", arguments: Hop.allCases)
    func lost(hop: Hop) async throws {
        let scene = try Scene(hop)
        let grow = scene.client.function(Self.grow)
        for (number, size) in Self.sizes.enumerated() {
            scene.mayAnswer.store(false, ordering: .releasing)
            let before = scene.answered(hop)
            let call = try grow.async(number, size)
            try await becomesTrue("it runs") { scene.runs.withLock { $0[number] == 1 } }
            // The answer goes into the sockets, and no further.
            scene.link.hold(true)
            scene.mayAnswer.store(true, ordering: .releasing)
            try await becomesTrue("it was answered") { scene.answered(hop) == before + 1 }
            scene.link.cut(for: .milliseconds(50))
            scene.link.hold(false)
            call.setExpiry(.seconds(20))
            let value = try await call.value
            #expect(value == [UInt8](repeating: UInt8(number), count: size), "\(size) bytes")
        }
        #expect(scene.runs.withLock { $0 == [0: 1, 1: 1, 2: 1, 3: 1] })
        #expect(scene.client.statistics.losses == 0)
        await scene.close()
    }

    @Test("S97 many small answers that are lost together on the way from a broker come after all, and none runs twice")
    func lostTogether() async throws {
        let scene = try Scene(.toClient)
        let broker = try #require(scene.pool?.broker)
        let grow = scene.client.function(Self.grow)
        scene.mayAnswer.store(false, ordering: .releasing)
        let calls = try (0..<900).map { try grow.async($0, 2000) }
        try await becomesTrue("all are at the broker") { broker.status.received == 900 }
        // All are answered, and no answer gets further than into the sockets.
        scene.link.hold(true)
        scene.mayAnswer.store(true, ordering: .releasing)
        try await becomesTrue("all are answered") { broker.status.answered == 900 }
        scene.link.cut(for: .milliseconds(50))
        scene.link.hold(false)
        var failed = 0
        for (number, call) in calls.enumerated() {
            call.setExpiry(.seconds(20))
            do {
                let value = try await call.value
                #expect(value == [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: 2000))
            } catch { failed += 1 }
        }
        #expect(failed == 0)
        #expect(scene.runs.withLock { runs in runs.count == calls.count && runs.values.allSatisfy { $0 == 1 } })
        await scene.close()
    }

    @Test("S97 however often the link breaks, each call is answered, and ran once", arguments: Hop.allCases)
    func often(hop: Hop) async throws {
        let scene = try Scene(hop)
        let grow = scene.client.function(Self.grow)
        var calls: [(Int, AsyncResult<[UInt8]>)] = []
        for round in 0..<8 {
            for size in Self.sizes + [2_000_000] { calls.append((size, try grow.async(calls.count, size))) }
            try await Task.sleep(for: .milliseconds(20 + 17 * (round % 3)))
            scene.link.cut(for: .milliseconds(50))
            try await Task.sleep(for: .milliseconds(150))
        }
        for (number, (size, call)) in calls.enumerated() {
            call.setExpiry(.seconds(40))
            let value = try await call.value
            #expect(value == [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: size))
        }
        #expect(scene.runs.withLock { runs in runs.count == calls.count && runs.values.allSatisfy { $0 == 1 } })
        #expect(scene.client.statistics.losses == 0)
        await scene.close()
    }

    @Test(
        "S97 a large request that later ones overtook comes after all, though their answers were read",
        arguments: Hop.allCases
    )
    func overtaken(hop: Hop) async throws {
        let scene = try Scene(hop)
        let take = scene.client.function(Self.take)
        for round in 0..<2 {
            let slow = try take.async(round, [UInt8](repeating: 1, count: 60_000_000))
            for index in 0..<3 {
                _ = try await scene.client.call(Self.grow, 100 + round * 10 + index, 900_000)
            }
            scene.link.cut(for: .milliseconds(20))
            slow.setExpiry(.seconds(20))
            #expect(try await slow.value == 60_000_000)
            #expect(scene.runs.withLock { $0[round] } == 1)
        }
        await scene.close()
    }

    @Test(
        "S97 of batches with answers of all sizes none is lost or runs twice, however often the link breaks",
        arguments: Hop.allCases
    )
    func batches(hop: Hop) async throws {
        let scene = try Scene(hop)
        let size = Function<Int, [UInt8]>("size")
        try await scene.client.connect()
        let cutter = Task {
            while !Task.isCancelled {
                // A peer that is cut off again and again before it is back is lost.
                try? await Task.sleep(for: .milliseconds(400))
                scene.link.cut(for: .milliseconds(10))
            }
        }
        var count = 0
        for try await (_, value) in scene.client.map(size, over: 0..<600) {
            if value.count == 2000 || value.count == 300_000 || value.count == 40_000 { count += 1 }
        }
        cutter.cancel()
        await cutter.value
        #expect(count == 600)
        #expect(scene.runs.withLock { $0.count == 600 && $0.values.allSatisfy { $0 == 1 } })
        await scene.close()
    }
}
