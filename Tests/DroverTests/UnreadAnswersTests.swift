// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire
import Testing

@testable import Drover

extension ServingTests {
    /// Clients that ask for more than they read.
    @Suite(.serialized)
    struct UnreadAnswersTests {}
}

extension ServingTests.UnreadAnswersTests {
    private static let growing = Function<Int, [UInt8]>("growing")

    private static func worker() throws -> RunningWorker {
        var configuration = WorkerConfiguration()
        configuration.concurrency = 2
        configuration.maxUnreadBytes = 4 << 20
        let worker = Worker(configuration: configuration)
        worker.register(Self.growing) { (count: Int) in [UInt8](repeating: 7, count: count) }
        worker.register(Job.echo) { (number: Int) in number }
        return try worker.start(.bind("tcp://127.0.0.1:*"))
    }

    @Test(
        "requests of a client that doesn't read its answers wait, and those of others run",
        .timeLimit(.minutes(1)),
        arguments: [100_000, 600_000]
    )
    func slowReader(count: Int) throws {
        let running = try Self.worker()
        let raw = try RawClient(running.endpoint)
        raw.introduce(functions: "growing")
        let requests = 20_000_000 / count
        for number in 0..<requests { raw.request(UInt64(number + 1), Packed.arguments(count)) }
        eventually("it is held up") { running.core.counters.heldUp.current == 1 }
        let client = try Client(running.endpoint)
        for number in 0..<50 { #expect(try client.function(Job.echo).blocking(number) == number) }
        // Those end that ran, or had just ended, when the limit was reached.
        let most = 2 * (4 << 20) / count + 4
        #expect(running.status.completed - 50 <= most)
        var answered = 0
        eventually("all is answered once it says that it has read", within: .seconds(30)) {
            let pings = raw.messages.filter { $0.header.kind == .ping }
            for ping in pings.dropFirst(answered) { raw.send(RawMessage(.pong, id: ping.header.id)) }
            answered = pings.count
            return raw.messages.count { $0.header.kind == .reply } == requests
        }
        client.closeBlocking()
        raw.stop()
        running.stopBlocking(grace: .zero)
    }

    @Test("a client that doesn't read and is only refused is given up", .timeLimit(.minutes(1)))
    func refused() throws {
        let running = try Self.worker()
        let raw = try RawClient(running.endpoint)
        raw.introduce(functions: "growing", "unknown")
        for number in 0..<100 { raw.request(UInt64(number + 1), Packed.arguments(600_000)) }
        eventually("it is held up") { running.core.counters.heldUp.current == 1 }
        #expect(running.status.clients == 1)
        raw.request(1000, function: 1, Packed.arguments(1))
        eventually("its session is over") { running.status.clients == 0 && running.status.running == 0 }
        raw.stop()
        running.stopBlocking(grace: .zero)
    }

    @Test("a client that reads gets all of what is more than the limit", .timeLimit(.minutes(1)))
    func quickReader() throws {
        let running = try Self.worker()
        let client = try Client(running.endpoint)
        let growing = client.function(Self.growing)
        let started = ContinuousClock.now
        for count in [700_000, 3_000_000] {
            let results = try (0..<40).map { _ in try growing.async(count) }
            for result in results { #expect(try result.get().count == count) }
        }
        client.closeBlocking()
        // No answer waited for a beat.
        #expect(running.core.counters.heldUp.current > 0 && started.duration(to: .now) < .seconds(isSanitized ? 30 : 4))
        running.stopBlocking(grace: .zero)
    }
}
