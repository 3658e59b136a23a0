// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverZMQ
import Foundation
import Synchronization
import Testing

extension ServingTests {
    /// Contract section A: invocation and async proxies.
    @Suite(.serialized, .tags(.acceptance), .timeLimit(.minutes(1)))
    struct WrappingTests {}
}

extension ServingTests.WrappingTests {
    @Test("S1 wrapping sends nothing")
    func wrappingSendsNothing() throws {
        try withRawWorker { (raw, client) throws in
            try client.connectBlocking()
            let echo = client.function(Job.echo)
            let wrapper = async(try client.function("echo", ((Int) -> Int).self))
            let limited = timed(echo, .seconds(1))
            // What had been sent by now would come before the answer to this.
            try client.connectBlocking()
            #expect(raw.requests.isEmpty)
            #expect(client.statistics.outstandingNow == 0)
            withExtendedLifetime((wrapper, limited)) {}
        }
    }

    @Test("S1 A26 what can't be a function is refused at wrap time, an unknown name by the worker")
    func wrongTarget() throws {
        try withRig { (_, client) throws in
            for name in ["", String(repeating: "x", count: 256)] {
                let error = #expect(throws: UsageError.self) {
                    _ = async(try client.function(name, ((Int) -> Int).self))
                }
                #expect(error?.code == .notCallable)
                let timedError = #expect(throws: UsageError.self) {
                    _ = timed(try client.function(name, ((Int) -> Int).self), .seconds(1))
                }
                #expect(timedError?.code == .notCallable)
            }
            let unknown = try async(client.function("unknown", ((Int) -> Int).self))(1)
            let error = #expect(throws: RemoteError.self) { try unknown.get() }
            #expect(error?.code == .unknownFunction)
            #expect(error?.function == "unknown")
        }
    }

    @Test("S2 a call returns its pending handle at once, with a worker or without")
    func dispatch() throws {
        var calls: [AnyAsyncResult] = []
        try withRig { (rig, client) throws in
            try client.connectBlocking()
            let sleep = client.function(Job.gated)
            let wrapper = async(sleep)
            try expectTime("a submission", atMost: .milliseconds(20)) {
                try elapsed { calls.append(try sleep.async("a")) }
            }
            try expectTime("a wrapper's submission", atMost: .milliseconds(20)) {
                try elapsed { calls.append(try wrapper("b")) }
            }
            #expect(calls.count >= 2 && calls.allSatisfy { !$0.isTerminal })
            withExtendedLifetime(rig) {}
        }
        calls.removeAll()
        let alone = try Client.forTest(try ServingTests.ConnectionTests.unusedEndpoint())
        try expectTime("a submission without a worker", atMost: .milliseconds(20)) {
            try elapsed { calls.append(try alone.function(Job.echo).async(1)) }
        }
        #expect(!calls.isEmpty && calls.allSatisfy { !$0.isTerminal })
        alone.closeBlocking()
    }

    @Test("S2 over the limit a call is refused; an awaiting one suspends for room, a cancellation or its deadline")
    func backpressure() async throws {
        let rig = try Rig()
        let client = try rig.client { $0.maxOutstandingCalls = 1 }
        let (echo, gated) = (client.function(Job.echo), client.function(Job.gated))
        let first = try gated.async("first")
        let error = #expect(throws: ConnectionError.self) { try echo.async(1) }
        #expect(error?.code == .backpressure)
        let done = Gathered<Int>()
        try await withThrowingTaskGroup(of: Int.self) { group in
            group.addTask {
                let value = try await echo(2)
                done.add(value)
                return value
            }
            let started = ContinuousClock.now
            let timeout = await #expect(throws: AsyncResultTimeout.self) {
                try await client.call(Job.echo, 3, timeout: .milliseconds(100))
            }
            #expect(ContinuousClock.now - started >= .milliseconds(100))
            #expect(timeout?.phase == .local)
            let cancelled = Task { try await echo(4) }
            cancelled.cancel()
            await #expect(throws: CancellationError.self) { try await cancelled.value }
            #expect(done.count == 0)
            #expect(!first.isTerminal)
            rig.gate.open("first")
            let second = try await group.next()
            #expect(second == 2)
        }
        #expect(try await first.value == "first")
        try await becomesTrue("all places are free again") { client.statistics.outstandingNow == 0 }
        #expect(try await echo(5) == 5)
        await client.close()
        rig.stop()
    }

    /// Can't be encoded.
    private struct Opaque: Codable, Sendable {
        struct Refusal: Error {}
        func encode(to encoder: any Encoder) throws { throw Refusal() }
    }

    @Test("S3 an argument that can't be encoded throws at the call; no handle exists, nothing is sent")
    func unencodable() throws {
        try withRawWorker(script: { [RawMessage(.reply, id: $0.id, payload: Packed.value(7))] }) {
            (raw, client) throws in
            let function = client.function(Function<Int, Opaque, Int>("opaque"))
            #expect(throws: (any Error).self) { try function.async(1, Opaque()) }
            #expect(throws: (any Error).self) { try function.blocking(1, Opaque()) }
            #expect(client.statistics.outstandingNow == 0)
            #expect(try client.function(Job.echo).blocking(7) == 7)
            #expect(raw.requests.count == 1)
            eventually("the table is empty") { client.statistics.tableEntriesNow == 0 }
        }
    }

    @Test("S4 after a local close a call throws at once; with the worker merely away it waits")
    func deadConnection() async throws {
        let endpoint = try ServingTests.ConnectionTests.unusedEndpoint()
        let client = try Client.forTest(endpoint)
        let echo = client.function(Job.echo)
        let early = try echo.async(4)
        #expect(!early.isTerminal)
        let rig = try Rig(at: endpoint)
        #expect(try await early.value == 4)
        await client.close()
        let error = #expect(throws: ConnectionError.self) { try echo.async(5) }
        #expect(error?.code == .closed)
        let wrapperError = #expect(throws: ConnectionError.self) { try async(echo)(5) }
        #expect(wrapperError?.code == .closed)
        let awaitingError = await #expect(throws: ConnectionError.self) { try await echo(5) }
        #expect(awaitingError?.code == .closed)
        rig.stop()
    }

    @Test("S5 A25 a wrapper is one per client, name and type while it is held, and gone afterwards")
    func identity() throws {
        try withRig { (rig, client) throws in
            let other = try rig.client()
            defer { other.closeBlocking() }
            func hold() throws {
                let function = client.function(Job.echo)
                let first = async(function)
                #expect(async(function) === first)
                #expect(async(client.function(Job.echo)) === first)
                #expect(async(try client.function("echo", ((Int) -> Int).self)) === first)
                #expect(async(first) === first)
                #expect(client.statistics.wrappersNow == 1)
                let otherName = async(client.function(Job.report))
                #expect(otherName !== first)
                let otherType = async(try client.function("echo", ((Double) -> Int).self))
                #expect(otherType as AnyObject !== first)
                let otherClient = async(other.function(Job.echo))
                #expect(otherClient !== first)
                #expect(client.statistics.wrappersNow == 3)
                #expect(try first(8).get() == 8)
            }
            try hold()
            #expect(client.statistics.wrappersNow == 0)
            #expect(try async(client.function(Job.echo))(9).get() == 9)
            #expect(client.statistics.wrappersNow == 0)
        }
    }

    @Test("S6 wrapping and releasing at once yields no dead and no second wrapper, and leaves nothing")
    func weakCache() throws {
        try withRig { (_, client) throws in
            let function = client.function(Job.echo)
            let rounds = isSanitized ? 2_000 : 20_000
            try onThreads(4) { _ in
                for _ in 0..<rounds {
                    let one = async(function)
                    let other = async(function)
                    // Held by this thread all the time, so both must be the same.
                    guard one === other, one.function.name == "echo" else {
                        Issue.record("two wrappers at once")
                        return
                    }
                }
            }
            #expect(client.statistics.wrappersNow == 0)
            let wrapper = async(function)
            #expect(async(function) === wrapper)
            #expect(client.statistics.wrappersNow == 1)
        }
    }

    @Test("S7 A24 a thousand calls of wrappers that nobody stores, under memory pressure")
    func temporaryWrappers() throws {
        try withRig { (_, client) throws in
            var results: [AsyncResult<Int>] = []
            for number in 0..<1000 {
                results.append(try async(client.function(Job.echo))(number))
                if number % 100 == 0 { Self.reclaim() }
            }
            for (number, result) in results.enumerated() { #expect(try result.get() == number) }
            #expect(client.statistics.wrappersNow == 0)
        }
    }

    @Test("S8 A23 wrapper and handle may be dropped: the job runs and its callback too")
    func dropping() throws {
        try withRig { (rig, client) throws in
            let calls = Gathered<String>()
            func start() throws {
                let wrapper = async(client.function(Job.gated))
                let result = try wrapper("dropped")
                result.addCallback { calls.add(try $0.get()) }
                // Nobody looks at this one at all.
                _ = try client.function(Job.gated).async("forgotten")
            }
            try start()
            #expect(client.statistics.wrappersNow == 0)
            Self.reclaim()
            eventually("both handlers run") { Set(rig.gate.begun) == ["dropped", "forgotten"] }
            rig.gate.open("dropped")
            rig.gate.open("forgotten")
            eventually("both have ended, and the callback ran") {
                Set(rig.log.values) == ["dropped", "forgotten"] && calls.values == ["dropped"]
            }
            #expect(client.statistics.cancellations == 0)
            #expect(rig.cancelled.values.isEmpty)
        }
    }

    @Test("S9 replies may come in any order; each reaches its own handle")
    func anyOrder() throws {
        try withRig { (rig, client) throws in
            let gated = client.function(Job.gated)
            let results = try ["a", "b", "c"].map { try gated.async($0) }
            rig.gate.open("c")
            #expect(try results[2].get() == "c")
            #expect(!results[0].isTerminal && !results[1].isTerminal)
            rig.gate.open("a")
            #expect(try results[0].get() == "a")
            #expect(!results[1].isTerminal)
            rig.gate.open("b")
            #expect(try results[1].get() == "b")
        }
    }

    @Test("S9 requests of one ordering key start in the order of submission, one at a time")
    func orderingKey() throws {
        try withRig { (rig, client) throws in
            let keyed = client.function(Job.gated, options: .init(orderingKey: "account 7"))
            let names = (0..<6).map { "k\($0)" }
            let results = try names.map { try keyed.async($0) }
            for (number, result) in results.enumerated() {
                eventually("\(number) begins") { rig.gate.begun.count == number + 1 }
                // Others pass: the worker has room, and has seen all requests of the key.
                #expect(try client.function(Job.report).blocking(0) == 0)
                #expect(rig.gate.begun == Array(names.prefix(number + 1)))
                rig.gate.open(names[number])
                #expect(try result.get() == names[number])
            }
        }
    }

    @Test("S9 a job that waits runs no other on its stack")
    func noNesting() throws {
        try withRig(concurrency: 1) { (rig, client) throws in
            let inner = Gathered<AsyncResult<String>>()
            let gated = client.function(Job.gated)
            let callback = client.callback { (number: Int) -> Int in
                inner.add(try gated.async("inner"))
                eventually("the other request waits there") { rig.running.status.queued == 1 }
                #expect(rig.gate.begun.isEmpty)
                return number * 2
            }
            #expect(try client.function(Job.ask).blocking(callback, 4) == 8)
            eventually("it begins when the first has ended") { rig.gate.begun == ["inner"] }
            rig.gate.open("inner")
            #expect(try inner.values.first?.get() == "inner")
        }
    }

    @Test("S10 a worker runs as many jobs of one client at once as it may; control frames pass them")
    func concurrency() async throws {
        let rig = try Rig(concurrency: 3)
        let client = try rig.client()
        let gated = client.function(Job.gated)
        let results = try (0..<5).map { try gated.async("\($0)") }
        try await becomesTrue("three run, two wait") {
            rig.gate.begun.count == 3 && rig.running.status.running == 3 && rig.running.status.queued == 2
        }
        let ping = try await client.ping()
        #expect(ping.worker.running == 3)
        #expect(ping.worker.queued == 2)
        // A cancellation and a close pass as well.
        results[4].cancel()
        try await becomesTrue("the cancelled request is gone") { rig.running.status.queued == 1 }
        #expect(rig.gate.begun.count == 3)
        let other = try rig.client()
        try await other.connect()
        try await becomesTrue("the other client has come") { rig.running.status.clients == 2 }
        await other.close()
        try await becomesTrue("the other client has gone") { rig.running.status.clients == 1 }
        for number in 0..<4 { rig.gate.open("\(number)") }
        for number in 0..<4 { #expect(try await results[number].value == "\(number)") }
        await client.close()
        rig.stop()
    }

    @Test("A44 two hundred results are each the answer to their own request")
    func ownAnswers() throws {
        try withRig { (_, client) throws in
            let echo = client.function(Job.echo)
            let results = try (0..<200).map { try echo.async($0 * 7 + 1) }
            for (number, result) in results.enumerated().reversed() { #expect(try result.get() == number * 7 + 1) }
        }
    }

    /// Fills freed memory with something else.
    private static func reclaim() {
        for size in [32, 64, 128, 256, 1024] {
            let blocks = (0..<200).map { _ in [UInt8](repeating: 0xA5, count: size) }
            withExtendedLifetime(blocks) {}
        }
    }
}
