// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Foundation
import Testing

@testable import Attackers

/// More clients come than a broker or a worker has descriptors for.
@Suite("Many sessions", .serialized, .timeLimit(.minutes(1)))
struct ManySessionsTests {
    private let folder: URL
    private var log: String { self.folder.appending(path: "log").path() }
    private let echo = Function<Int, Int>("echo")

    init() throws {
        TCPFlood.raiseLimit(to: 4096)
        self.folder = URL(filePath: NSTemporaryDirectory()).appending(path: "drover-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: self.folder, withIntermediateDirectories: true)
    }

    /// Some of 80 descriptors stay free: not all clients have a session, and those over it wait, know why, and get in later.
    private func crowd(at endpoint: String) async throws {
        var early: [Client] = []
        var problem: AsyncResultTimeout?
        while problem == nil, early.count < 80 {
            let client = try Client(endpoint)
            do {
                _ = try await client.call(self.echo, 1, timeout: .seconds(2))
                early.append(client)
            } catch let error as AsyncResultTimeout {
                problem = error
                await client.close(grace: .zero)
            }
        }
        #expect("\(problem as Any)".contains("ulimit -n"), "\(problem as Any)")
        #expect((10...60).contains(early.count), "\(early.count) of 80")
        let late = try (0..<3).map { _ in try Client(endpoint) }
        let waiting = try late.map { try $0.function(self.echo).async(3) }
        for client in early { #expect(try await client.call(self.echo, 4, timeout: .seconds(10)) == 4) }
        #expect(waiting.allSatisfy { !$0.isTerminal })
        for client in early.prefix(3) { await client.close(grace: .zero) }
        for call in waiting { #expect(try await call.value == 3) }
        for client in early + late { await client.close(grace: .zero) }
    }

    @Test(
        "clients over what a broker's descriptors allow wait with the remedy in their errors, and get in as others leave"
    )
    func broker() async throws {
        defer { try? FileManager.default.removeItem(at: self.folder) }
        let broker = try BrokerProcess(descriptors: 80, log: self.log, [])
        let worker = try WorkerProcess(dialling: broker.endpoint)
        try await self.crowd(at: broker.endpoint)
        let text = try String(contentsOfFile: self.log, encoding: .utf8)
        #expect(text.contains("as many sessions as the descriptors allow"), "\(text)")
        worker.kill()
        broker.kill()
    }

    @Test("so it is at a worker that listens")
    func worker() async throws {
        defer { try? FileManager.default.removeItem(at: self.folder) }
        let worker = try WorkerProcess(descriptors: 80, log: self.log)
        try await self.crowd(at: worker.endpoint)
        worker.kill()
    }
}
