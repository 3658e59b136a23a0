// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverZMQ
import Foundation
import Synchronization
import Testing

/// Contract section D: result callbacks.
@Suite("Result callbacks")
struct CallbackTests {
    @Test("S42 S44 S45 S50 A17 callbacks run in order, once each, given their handle", .timeLimit(.minutes(1)))
    func order() throws {
        let rig = try Rig()
        let client = try rig.client()
        let seen = Gathered<String>()
        let result = try client.function(Job.gated).async("a")
        for name in ["f", "g", "h"] {
            result.addCallback { given in seen.add(given === result ? name : "another handle") }
        }
        result.onCompletion { if case .success("a") = $0 { seen.add("value") } }
        rig.gate.open("a")
        eventually("all ran") { seen.values == ["f", "g", "h", "value"] }
        let failed = try client.function(Job.fail).async("boom")
        failed.addCallback { if $0.hasError { seen.add("error") } }
        eventually("it ran for an error") { seen.values.last == "error" }
        client.closeBlocking()
        rig.stop()
    }

    @Test("S43 S56 A19 a callback runs exactly once, whatever ends the call meanwhile", .timeLimit(.minutes(1)))
    func exactlyOnce() throws {
        let rig = try Rig()
        let client = try rig.client()
        let runs = Atomic<Int>(0)
        let rounds = 2000
        let counter = RunCounter()
        for round in 0..<rounds {
            let result = try client.function(Job.echo).async(round)
            let registrar = try LoopThread.start(named: "register") {
                for _ in 0..<2 { result.addCallback { _ in counter.count() } }
            }
            if round.isMultiple(of: 3) { result.cancel() }
            if round.isMultiple(of: 5) { result.setExpiry(.zero) }
            result.addCallback { _ in counter.count() }
            registrar.join()
        }
        _ = runs.load(ordering: .relaxed)
        eventually("each registration ran once") { counter.value == rounds * 3 }
        client.closeBlocking()
        #expect(counter.value == rounds * 3)
        rig.stop()
    }

    @Test("S43 a withdrawn callback never runs, one closure registered twice runs twice", .timeLimit(.minutes(1)))
    func withdrawing() throws {
        let rig = try Rig()
        let client = try rig.client()
        let seen = Gathered<String>()
        let result = try client.function(Job.gated).async("a")
        let token = result.addCallback { _ in seen.add("withdrawn") }
        let twice: @Sendable (AsyncResult<String>) -> Void = { _ in seen.add("twice") }
        result.addCallback(twice)
        result.addCallback(twice)
        #expect(token.remove())
        #expect(!token.remove())
        rig.gate.open("a")
        eventually("they ran") { seen.values == ["twice", "twice"] }
        client.closeBlocking()
        #expect(seen.values == ["twice", "twice"])
        rig.stop()
    }

    @Test("S46 callbacks run for expiry, cancellation and loss, onReply only for answers", .timeLimit(.minutes(1)))
    func everyEnd() throws {
        let rig = try Rig()
        let client = try rig.client()
        let seen = Gathered<String>()
        for (name, end) in [
            ("expired", { (result: AsyncResult<String>) in _ = result.setExpiry(.zero) }),
            ("cancelled", { (result: AsyncResult<String>) in _ = result.cancel() }),
        ] {
            let result = try client.function(Job.gated).async(name)
            result.addCallback { _ in seen.add(name) }
            result.onReply { _ in seen.add("reply to \(name)") }
            end(result)
        }
        let lost = try client.function(Job.gated).async("lost")
        lost.addCallback { _ in seen.add("lost") }
        client.closeBlocking()
        eventually("all ran") { Set(seen.values) == ["expired", "cancelled", "lost"] }
        rig.stop()
    }

    @Test(
        "S47 S48 S49 S51 A18 A22 a callback on an ended call runs soon, elsewhere, and may nest",
        .timeLimit(.minutes(1))
    )
    func afterwards() throws {
        let rig = try Rig()
        let client = try rig.client()
        let result = try client.function(Job.echo).async(1)
        try result.wait()
        let here = ThreadID.current
        let seen = Gathered<String>()
        result.addCallback { outer in
            outer.addCallback { inner in
                // The own value is there at once (contract S52).
                seen.add("inner \((try? inner.get()) ?? 0) \(ThreadID.current == here)")
            }
            seen.add("outer")
        }
        eventually("both ran") { seen.values == ["outer", "inner 1 false"] }
        client.closeBlocking()
        rig.stop()
    }

    @Test("S51 draining waits for callbacks that waiting does not wait for", .timeLimit(.minutes(1)))
    func draining() async throws {
        let rig = try Rig()
        let client = try rig.client()
        let seen = Gathered<Int>()
        for number in 0..<20 { try client.function(Job.echo).async(number).addCallback { _ in seen.add(number) } }
        _ = try await client.call(Job.echo, 99)
        eventually("all are answered") { client.statistics.values == 21 }
        await client.drainCallbacks()
        #expect(seen.count == 20)
        await client.close()
        await rig.running.stop(grace: .zero)
    }

    @Test(
        "draining within a callback returns at once, in a task that it leaves behind it waits",
        .timeLimit(.minutes(1))
    )
    func drainingInside() async throws {
        let rig = try Rig()
        let client = try rig.client()
        let left = Gathered<Task<Void, Never>>()
        let (stream, ending) = AsyncStream<Void>.makeStream()
        let seen = Gathered<Int>()
        let drains = client.asyncCallback { (number: Int) async throws -> Int in
            left.add(
                Task {
                    for await _ in stream { break }
                    await client.drainCallbacks()
                    seen.add(1)
                }
            )
            await client.drainCallbacks()
            return number
        }
        #expect(try await client.call(Job.ask, drains, 7, timeout: .seconds(20)) == 7)
        let gate = DispatchSemaphore(value: 0)
        let next = try client.function(Job.echo).async(1)
        next.addCallback { _ in
            _ = gate.wait(timeout: .now() + 20)
            seen.add(0)
        }
        _ = try await next.value
        // The callback is over, so its task waits for others like any.
        ending.yield()
        gate.signal()
        for task in left.values { await task.value }
        #expect(seen.values == [0, 1])
        await client.close()
        rig.stop()
    }

    @Test("S51 draining waits for the callbacks of a call whose end was only just seen", .timeLimit(.minutes(1)))
    func drainingAtOnce() async throws {
        let rig = try Rig()
        let client = try rig.client()
        let echo = client.function(Job.echo)
        let runs = Atomic<Int>(0)
        var missed = 0
        for round in 1...1000 {
            let result = try echo.async(round)
            result.addCallback { _ in runs.add(1, ordering: .relaxed) }
            // Others that end in the same turn make the time between an end and its callbacks longer.
            for number in 0..<20 { _ = try echo.async(number) }
            while !result.isTerminal {}
            await client.drainCallbacks()
            if runs.load(ordering: .relaxed) < round { missed += 1 }
        }
        #expect(missed == 0)
        await client.close()
        rig.stop()
    }

    @Test("S52 S55 a callback may wait for another call, also by way of another thread", .timeLimit(.minutes(1)))
    func waitingInside() throws {
        let rig = try Rig()
        let client = try rig.client()
        let seen = Gathered<Int>()
        try client.function(Job.echo).async(1)
            .addCallback { _ in
                seen.add(try client.function(Job.echo).blocking(2))
                let thread = try LoopThread.start(named: "caller") {
                    do { seen.add(try client.function(Job.echo).blocking(3)) } catch { Issue.record("\(error)") }
                }
                thread.join()
            }
        eventually("both were answered") { seen.values == [2, 3] }
        client.closeBlocking()
        rig.stop()
    }

    @Test("S53 A20 what a callback throws is reported once and harms nobody", .timeLimit(.minutes(1)))
    func throwing() throws {
        let rig = try Rig()
        let errors = Gathered<String>()
        let client = try rig.client { $0.onCallbackError = { error, source in errors.add("\(error) \(source)") } }
        let seen = Gathered<Int>()
        let result = try client.function(Job.gated).async("a")
        result.addCallback { _ in throw FixtureError(message: "thrown") }
        result.addCallback { _ in seen.add(1) }
        rig.gate.open("a")
        eventually("the second ran") { seen.values == [1] }
        #expect(errors.count == 1 && errors.values.first?.contains("thrown") == true)
        #expect(try client.function(Job.echo).blocking(4) == 4)
        client.closeBlocking()
        rig.stop()
    }

    @Test("S54 A21 a slow callback delays no call", .timeLimit(.minutes(1)))
    func slow() throws {
        let rig = try Rig()
        let client = try rig.client()
        let inside = Gathered<Int>()
        let release = ReadySignal<Void>()
        try client.function(Job.echo).async(1)
            .addCallback { _ in
                inside.add(1)
                release.wait()
            }
        eventually("the callback is inside") { inside.count == 1 }
        for number in 0..<20 { #expect(try client.function(Job.echo).blocking(number) == number) }
        release.set(())
        client.closeBlocking()
        rig.stop()
    }

    @Test("S57 closures are released after every kind of end, also if they throw", .timeLimit(.minutes(1)))
    func retention() throws {
        let rig = try Rig()
        let client = try rig.client { $0.onCallbackError = { _, _ in } }
        var gone: [WeakWitness] = []
        var handles: [AsyncResult<String>] = []
        for end in ["value", "throws", "expired", "cancelled"] {
            let witness = Witness()
            gone.append(WeakWitness(witness))
            let result = try client.function(Job.gated).async(end)
            result.addCallback { _ in
                withExtendedLifetime(witness) {}
                if end == "throws" { throw FixtureError(message: "x") }
            }
            handles.append(result)
        }
        rig.gate.open("value")
        rig.gate.open("throws")
        handles[2].setExpiry(.zero)
        handles[3].cancel()
        eventually("all closures are gone") { gone.allSatisfy { $0.isGone } }
        #expect(handles.allSatisfy { $0.isTerminal })
        client.closeBlocking()
        rig.stop()
    }
}

private final class RunCounter: Sendable {
    private let counted = Atomic<Int>(0)
    var value: Int { self.counted.load(ordering: .relaxed) }
    func count() { self.counted.add(1, ordering: .relaxed) }
}
