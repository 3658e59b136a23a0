// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverCodec
import Glibc
import Synchronization
import Testing

/// Whatever a call ends in says whether it ran, and whether another try may succeed.
@Suite("Call failures", .timeLimit(.minutes(2)))
struct CallFailureTests {
    private struct Weary: Error, CustomStringConvertible {
        let length: Int
        var description: String { String(repeating: "é", count: self.length) }
    }

    private static func failure(_ body: () throws -> Void) -> (any CallFailure)? {
        do {
            try body()
            return nil
        } catch { return error as? any CallFailure }
    }

    @Test("every error that a call can end in answers: did it run, may it be tried again")
    func answers() throws {
        let rig = try Rig(concurrency: 1)
        let client = try rig.client()
        func expect(
            _ execution: Execution,
            isRetryable: Bool,
            _ body: () throws -> Void,
            sourceLocation: SourceLocation = #_sourceLocation
        ) {
            let failure = Self.failure(body)
            #expect(failure?.execution == execution, "\(String(describing: failure))", sourceLocation: sourceLocation)
            #expect(failure?.isRetryable == isRetryable, sourceLocation: sourceLocation)
        }
        expect(.ran, isRetryable: false) { _ = try client.function(Job.fail).blocking("boom") }
        expect(.didNotRun, isRetryable: false) { _ = try client.function(Function<Int>("nobody")).blocking() }
        expect(.didNotRun, isRetryable: false) { _ = try client.function(Function<String, Int>("echo")).blocking("1") }
        expect(.ran, isRetryable: false) { _ = try client.function(Function<Int, String>("echo")).blocking(1) }
        // One runs, and one waits behind it.
        let running = try client.function(Job.gated).async("gate")
        while !rig.gate.begun.contains("gate") {}
        expect(.mayHaveRun, isRetryable: true) { _ = try timed(client.function(Job.echo), .milliseconds(30))(1).get() }
        let cancelled = try client.function(Job.echo).async(1)
        cancelled.cancel()
        expect(.mayHaveRun, isRetryable: false) { _ = try cancelled.get() }
        while !"\(running.phase)".hasPrefix("running") {}
        running.setExpiry(.zero)
        expect(.ran, isRetryable: true) { _ = try running.get() }
        rig.gate.open("gate")
        client.closeBlocking()
        // A closed client sends nothing any more.
        expect(.didNotRun, isRetryable: false) { _ = try client.function(Job.echo).async(1).get() }
        rig.stop()

        let nobody = try Client.forTest("tcp://127.0.0.1:1")
        expect(.didNotRun, isRetryable: true) { try nobody.connectBlocking() }
        expect(.didNotRun, isRetryable: true) {
            _ = try timed(nobody.function(Job.echo), .milliseconds(30))(1).get()
        }
        // What never left the process can't have run.
        let waiting = try nobody.function(Job.echo).async(1)
        nobody.closeBlocking()
        expect(.didNotRun, isRetryable: false) { _ = try waiting.get() }
        expect(.didNotRun, isRetryable: false) { throw UsageError.anyOfThem }
    }

    @Test("what did not run can be made again without harm")
    func again() async throws {
        let rig = try Rig()
        let client = try rig.client()
        let greet = Function<Int, Int>("echo")
        func greeting() async throws -> Int {
            do {
                return try await client.call(greet, 7)
            } catch let error as any CallFailure where error.isRetryable && error.execution == .didNotRun {
                // Nothing has happened yet, so once more.
                return try await client.call(greet, 7)
            }
        }
        #expect(try await greeting() == 7)
        await client.close()
        rig.stop()
    }

    @Test("S91 a call that a worker refuses since it shuts down goes to another one, or waits for one: it did not run")
    func draining() throws {
        let raw = try RawWorker { message in
            guard message.kind == .request else { return [] }
            return [RawMessage(.error, id: message.id, payload: Packed.error("draining", "it shuts down"))]
        }
        let rig = try Rig()
        let client = try Client([raw.endpoint, rig.endpoint])
        eventually("both are there") { client.statistics.sessions == 2 }
        let results = try (0..<50).map { try client.function(Job.echo).async($0) }
        for (number, result) in results.enumerated() { #expect(try result.get() == number) }
        client.closeBlocking()
        let alone = try Client.forTest(raw.endpoint)
        let refused = raw.requests.count
        let waiting = try alone.function(Job.echo).async(1)
        eventually("it was refused, and waits") { raw.requests.count > refused && waiting.phase == .local }
        waiting.setExpiry(.zero)
        let error = #expect(throws: AsyncResultTimeout.self) { try waiting.get() }
        #expect(error?.phase == .local && error?.execution == .didNotRun)
        alone.closeBlocking()
        raw.stop()
        rig.stop()
    }

    @Test("S100 ERROR `lapsed` for a call that has time left is as CANCELLED 3: it never ran, and is sent again")
    func lapsed() throws {
        let refusals = Atomic(0)
        let raw = try RawWorker { message in
            guard message.kind == .request else { return [] }
            guard refusals.add(1, ordering: .relaxed).newValue > 2 else {
                return [RawMessage(.error, id: message.id, payload: Packed.error("lapsed", "it came too late"))]
            }
            return [RawMessage(.reply, id: message.id, payload: [7])]
        }
        let client = try Client.forTest(raw.endpoint)
        #expect(try client.function(Job.echo).blocking(7) == 7)
        #expect(raw.requests.count == 3)
        client.closeBlocking()
        raw.stop()
    }

    @Test("an error's text travels up to 64 KiB, and what was cut off is marked")
    func longTexts() throws {
        let worker = Worker()
        let function = Function<Int, Nothing>("complain")
        worker.register(function) { (length: Int) throws -> Nothing in throw Weary(length: length) }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        let client = try Client.forTest(running.endpoint)
        let short = #expect(throws: RemoteError.self) { try client.function(function).blocking(1000) }
        #expect(short?.message == String(repeating: "é", count: 1000))
        let long = #expect(throws: RemoteError.self) { try client.function(function).blocking(10_000_000) }
        let message = long?.message ?? ""
        #expect(message.utf8.count < 66_000)
        #expect(message.hasSuffix("é… (\(20_000_000 - 65_536) bytes more)"), "\(message.suffix(60))")
        client.closeBlocking()
        running.stopBlocking(grace: .zero)
    }

    @Test("a callback's type may be written out, and one that has ended says why")
    func callbacks() async throws {
        let client = try Client.forTest("tcp://127.0.0.1:1")
        let told: Callback<Int, Nothing> = client.callback { number in print(number) }
        let asked: Callback<Int, Int> = client.callback { number in number + 1 }
        let awaited: Callback<Int, Nothing> = client.asyncCallback { _ in await Task.yield() }
        #expect(Set([told.subscription, asked.subscription, awaited.subscription]).count == 3)
        client.cancel(told)
        let cancelled = #expect(throws: UsageError.self) { try client.function(Job.hold).async(told) }
        #expect(
            cancelled?.message.hasSuffix("it was cancelled; make a new one") == true,
            "\(String(describing: cancelled))"
        )
        let call = try client.function(Job.hold).async(awaited)
        call.cancel()
        eventually("it ended with its call") { (try? client.function(Job.hold).async(awaited).cancel()) == nil }
        let ended = #expect(throws: UsageError.self) { try client.function(Job.hold).async(awaited) }
        #expect(ended?.message.contains("the calls that it was passed to have ended") == true)
        await client.close()
    }

    @Test("processes that were given no names have names of their own")
    func names() {
        #expect(WorkerConfiguration().name.hasSuffix("-\(getpid())"))
        #expect(ClientConfiguration().name == WorkerConfiguration().name)
    }

    @Test("no error's text begins with a code, nor shows digits that nobody reads")
    func texts() throws {
        let usage = #expect(throws: UsageError.self) { try Client("udp://here") }
        #expect(usage.map { "\($0)" } == usage?.message)
        let client = try Client.forTest("tcp://127.0.0.1:1")
        let connection = #expect(throws: ConnectionError.self) { try client.connectBlocking() }
        #expect(connection.map { "\($0)" }?.hasPrefix("no worker or broker can be reached") == true)
        let timeout = #expect(throws: AsyncResultTimeout.self) {
            try timed(client.function(Job.echo), .milliseconds(40))(1).get()
        }
        let text = timeout.map { "\($0)" } ?? ""
        #expect(text.contains("(limit 40 ms)") && !text.contains("seconds"), "\(text)")
        client.closeBlocking()
        let remote = RemoteError(.busy, message: "later", worker: "w", function: "f", correlationID: .init(3))
        #expect("\(remote)" == "later (f #3 on w: busy)")
        #expect(PeopleText.size(64 << 20) == "64 MiB" && PeopleText.size((64 << 20) + 1) == "64.01 MiB")
        #expect(PeopleText.size(1023) == "1023 bytes" && PeopleText.size(1536) == "1.50 KiB")
        #expect(PeopleText.time(.milliseconds(201)) == "201 ms" && PeopleText.time(.milliseconds(2500)) == "2.5 s")
        #expect(PeopleText.time(.microseconds(80)) == "80 µs" && PeopleText.time(.seconds(125)) == "2 min 5 s")
    }
}

extension UsageError {
    fileprivate static var anyOfThem: any Error {
        do {
            _ = try Endpoint("")
            return CancellationError()
        } catch { return error }
    }
}
