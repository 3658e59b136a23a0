// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverCodec
import DroverWire
import DroverZMQ
import Foundation
import Synchronization
import Testing

extension ServingTests {
    /// Contract section I: correlation and the running of jobs.
    @Suite(.serialized)
    struct CorrelationTests {}
}

extension ServingTests.CorrelationTests {
    /// A raw worker that answers `echo` with its argument.
    static func echoing(_ settings: RawWorker.Settings = .init()) throws -> RawWorker {
        try RawWorker(settings) { message in
            guard message.kind == .request else { return [] }
            return [RawMessage(.reply, id: message.id, payload: [UInt8](message.payload.dropFirst()))]
        }
    }

    @Test("S93 correlation ids are unique, also across client restarts", .timeLimit(.minutes(1)))
    func ids() throws {
        let raw = try Self.echoing()
        var seen = Set<[String]>()
        for _ in 0..<3 {
            let client = try Client.forTest(raw.endpoint)
            let results = try (0..<500).map { try client.function(Job.echo).async($0) }
            for result in results { _ = try result.get() }
            let ids = results.map { $0.correlationID }
            #expect(ids == ids.sorted() && Set(ids).count == 500)
            // With the client's identity, which each life draws anew, an id is unique for ever.
            for id in ids { #expect(seen.insert(["\(client.identity)", "\(id)"]).inserted) }
            client.closeBlocking()
        }
        #expect(seen.count == 1500)
        let hellos = raw.messages.filter { $0.kind == .hello }
        #expect(Set(hellos.map { $0.id }).count == hellos.count, "each life has an epoch of its own")
        raw.stop()
    }

    @Test("S94 a duplicate reply is ignored and counted", .timeLimit(.minutes(1)))
    func duplicate() throws {
        let raw = try RawWorker { message in
            guard message.kind == .request else { return [] }
            return [1, 2].map { RawMessage(.reply, id: message.id, payload: Packed.value(Int($0))) }
        }
        let client = try Client.forTest(raw.endpoint)
        let result = try client.function(Job.echo).async(0)
        #expect(try result.get() == 1)
        eventually("it is counted") { client.statistics.duplicateReplies == 1 }
        #expect(try result.get() == 1)
        #expect(client.statistics.values == 1)
        client.closeBlocking()
        raw.stop()
    }

    @Test(
        "S95 a reply to an unknown id is ignored and counted, as late if the call is remembered",
        .timeLimit(.minutes(1))
    )
    func unknown() throws {
        let raw = try RawWorker()
        let late = Gathered<LateReply>()
        let client = try Client.forTest(raw.endpoint) { $0.onLateReply = { late.add($0) } }
        let result = try timed(client.function(Job.echo), .milliseconds(300))(1)
        eventually("the request came") { raw.requests.count == 1 }
        #expect(throws: AsyncResultTimeout.self) { try result.get() }
        raw.send(RawMessage(.reply, id: result.correlationID.rawValue, payload: Packed.value(1)))
        raw.send(RawMessage(.reply, id: 999_999, payload: Packed.value(1)))
        raw.send(RawMessage(.error, id: 999_998, payload: Packed.error("failed", "x")))
        eventually("they are counted") {
            client.statistics.lateReplies == 1 && client.statistics.unknownReplies == 2
        }
        eventually("the hook ran") { late.count == 1 }
        #expect(late.values.first?.correlationID == result.correlationID)
        #expect(late.values.first?.function == "echo")
        #expect(result.hasExpired)
        client.closeBlocking()
        raw.stop()
    }

    @Test("S96 an instant answer is never too early", .timeLimit(.minutes(1)))
    func registerFirst() throws {
        let raw = try Self.echoing()
        let client = try Client.forTest(raw.endpoint)
        let echo = client.function(Job.echo)
        // Submitted from several threads, so that answers come while others are still submitting.
        try onThreads(4) { thread in
            do {
                let results = try (0..<500).map { try echo.async(thread * 1000 + $0) }
                for (number, result) in results.enumerated() {
                    guard try result.wait(timeout: .seconds(10)) else {
                        Issue.record("\(result) \(client.statistics) \(raw.requests.count)")
                        return
                    }
                    let value = try result.get()
                    #expect(value == thread * 1000 + number)
                }
            } catch { Issue.record("\(error)") }
        }
        #expect(client.statistics.unknownReplies == 0)
        #expect(client.statistics.values == 2000)
        client.closeBlocking()
        raw.stop()
    }

    @Test("a worker with one slot runs requests in the order in which they came", .timeLimit(.minutes(1)))
    func oneSlot() throws {
        let order = Mutex<[Int]>([])
        var configuration = WorkerConfiguration()
        configuration.concurrency = 1
        configuration.logger = .quiet
        let worker = Worker(configuration: configuration)
        // Quick enough to run beside the loop: the one whatever else there is, the other if nothing else waits.
        worker.register(Function<Int, Int>("quick")) { (number: Int) in
            order.withLock { $0.append(number) }
            return number
        }
        worker.register(Function<Int, Int>("brisk")) { (number: Int) in
            order.withLock { $0.append(number) }
            let end = MonotonicClock.now() + 10_000
            while MonotonicClock.now() < end {}
            return number
        }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        let raw = try RawClient(running.endpoint)
        raw.introduce(functions: "quick", "brisk")
        let functions: [UInt32] = [1, 1, 0, 1, 0, 0, 1, 0]
        var next: UInt64 = 0
        // One by one at first, then as one frame each time.
        for round in 0..<60 {
            let batches = round < 20 ? functions.map { [$0] } : [functions]
            for batch in batches {
                let messages = batch.map { function in
                    next += 1
                    return RawMessage(
                        .request,
                        id: next,
                        number: function,
                        time: Header.noTimeLimit,
                        payload: Packed.arguments(Int(next))
                    )
                }
                raw.send(frames: [messages.flatMap { $0.bytes }])
                let last = next
                _ = raw.messages { $0.kind == .reply && $0.id == last }
            }
        }
        eventually("all have run") { order.withLock { $0.count } == Int(next) }
        #expect(order.withLock { $0 } == Array(1...Int(next)))
        raw.stop()
        running.stopBlocking(grace: .zero)
    }

    @Test("S97 a request that is sent again runs once and is answered from the result cache", .timeLimit(.minutes(1)))
    func atMostOnce() throws {
        let rig = try Rig(counts: true)
        let raw = try RawClient(rig.endpoint)
        raw.introduce(functions: "echo", "gated")
        raw.request(1, Packed.arguments(41))
        #expect(raw.messages { $0.kind == .reply && $0.id == 1 }.count == 1)
        raw.request(1, flags: .resent, Packed.arguments(41))
        let answers = raw.messages(2) { $0.kind == .reply && $0.id == 1 }
        #expect(try answers.map { try $0.value(as: Int.self) } == [41, 41])
        #expect(rig.runs(of: 41) == 1)
        // While it runs, it isn't started again.
        raw.request(2, function: 1, Packed.arguments("once"))
        eventually("the handler runs") { rig.gate.begun == ["once"] }
        raw.request(2, function: 1, flags: .resent, Packed.arguments("once"))
        raw.request(3, Packed.arguments(3))
        #expect(raw.messages { $0.kind == .reply && $0.id == 3 }.count == 1)
        #expect(rig.gate.begun == ["once"])
        rig.gate.open("once")
        #expect(raw.messages { $0.kind == .reply && $0.id == 2 }.count == 1)
        // One that was never here runs.
        raw.request(4, flags: .resent, Packed.arguments(44))
        #expect(raw.messages { $0.kind == .reply && $0.id == 4 }.count == 1)
        #expect(rig.runs(of: 44) == 1)
        raw.stop()
        rig.stop()
    }

    @Test("S97 a request that was taken out before it ran is not run by a copy of it", .timeLimit(.minutes(1)))
    func takenOut() throws {
        let rig = try Rig(concurrency: 1)
        let raw = try RawClient(rig.endpoint)
        raw.introduce(functions: "gated")
        raw.request(1, Packed.arguments("running"))
        eventually("the handler runs") { rig.gate.begun == ["running"] }
        raw.request(2, Packed.arguments("queued"))
        raw.send(RawMessage(.cancel, id: 2))
        // Sent again after a connection was lost, it may come once more; the answer is the same.
        raw.request(2, flags: .resent, Packed.arguments("queued"))
        let answers = raw.messages(2) { $0.kind == .cancelled && $0.id == 2 }
        #expect(answers.allSatisfy { $0.header.number == CancelledStage.beforeStart.rawValue })
        rig.gate.open("running")
        #expect(raw.messages { $0.kind == .reply && $0.id == 1 }.count == 1)
        #expect(rig.gate.begun == ["running"])
        // Whoever knows that it never ran, and still wants it, says so.
        rig.gate.open("queued")
        raw.request(2, flags: [.resent, .renewed], Packed.arguments("queued"))
        #expect(raw.messages { $0.kind == .reply && $0.id == 2 }.count == 1)
        raw.request(2, flags: [.resent, .renewed], Packed.arguments("queued"))
        #expect(raw.messages(2) { $0.kind == .reply && $0.id == 2 }.count == 2)
        #expect(rig.gate.begun == ["running", "queued"])
        raw.stop()
        rig.stop()
    }

    @Test("S97 a request that was refused is not run by a copy of it", .timeLimit(.minutes(1)))
    func refusedCopy() throws {
        let rig = try Rig(counts: true) { $0.window = 1 }
        let raw = try RawClient(rig.endpoint)
        raw.introduce(functions: "echo", "gated")
        raw.request(1, function: 1, Packed.arguments("running"))
        eventually("the handler runs") { rig.gate.begun == ["running"] }
        raw.request(2, Packed.arguments(2))
        #expect(raw.messages { $0.kind == .error && $0.id == 2 }.count == 1)
        rig.gate.open("running")
        #expect(raw.messages { $0.kind == .reply && $0.id == 1 }.count == 1)
        // Now there would be room.
        raw.request(2, flags: .resent, Packed.arguments(2))
        let errors = raw.messages(2) { $0.kind == .error && $0.id == 2 }
        #expect(try errors.map { try $0.error().code } == ["busy", "busy"])
        #expect(rig.runs(of: 2) == 0)
        raw.stop()
        rig.stop()
    }

    @Test(
        "S97 the result cache is bounded; what it no longer holds is indeterminate, not run again",
        .timeLimit(.minutes(1))
    )
    func boundedCache() throws {
        // Sixteen times as much while the client doesn't say that it has read.
        let rig = try Rig(counts: true) { $0.maxCachedResultBytes = 512 }
        let raw = try RawClient(rig.endpoint)
        raw.introduce(functions: "echo")
        for id in 1...600 { raw.request(UInt64(id), Packed.arguments(id)) }
        // Several threads run them: what was answered first needn't be what was asked first.
        let answered = raw.messages(600) { $0.kind == .reply }.map(\.id)
        let (oldest, newest) = (answered[0], answered[599])
        raw.request(oldest, flags: .resent, Packed.arguments(Int(oldest)))
        raw.request(newest, flags: .resent, Packed.arguments(Int(newest)))
        let error = try #require(raw.messages { $0.kind == .error && $0.id == oldest }.first).error()
        #expect(error.code == "indeterminate")
        #expect(raw.messages(2) { $0.kind == .reply && $0.id == newest }.count == 2)
        #expect(rig.runs(of: Int(oldest)) == 1 && rig.runs(of: Int(newest)) == 1)
        raw.stop()
        rig.stop()
    }

    @Test("S98 cancel: at once for the handle; queued jobs are removed, running ones told", .timeLimit(.minutes(1)))
    func cancel() throws {
        let rig = try Rig(concurrency: 1)
        let client = try rig.client()
        let running = try client.function(Job.gated).async("running")
        eventually("the handler runs") { rig.gate.begun == ["running"] }
        let queued = try client.function(Job.gated).async("queued")
        let callbacks = Gathered<String>()
        for result in [running, queued] {
            result.addCallback { callbacks.add("\($0.outcome.map { "\($0)" } ?? "nil")") }
        }
        eventually("the other waits there") { rig.running.status.queued == 1 }
        #expect(queued.cancel())
        #expect(queued.isReady && queued.hasError && !queued.hasExpired)
        #expect(!queued.cancel())
        #expect(throws: CancellationError.self) { try queued.get() }
        #expect(running.cancel())
        eventually("the handler saw it") { rig.cancelled.values == ["running"] }
        eventually("the callbacks ran") { callbacks.values == ["cancelled", "cancelled"] }
        // A reply that arrived first wins.
        let done = try client.function(Job.echo).async(5)
        #expect(try done.get() == 5)
        #expect(!done.cancel())
        #expect(try done.get() == 5)
        #expect(rig.gate.begun == ["running"])
        #expect(rig.log.values.isEmpty)
        #expect(rig.running.status.dropped == 1)
        client.closeBlocking()
        rig.stop()
    }

    @Test("S98 a client can cancel all its calls", .timeLimit(.minutes(1)))
    func cancelAll() throws {
        let rig = try Rig()
        let client = try rig.client()
        let other = try rig.client()
        let results = try (0..<50).map { try client.function(Job.gated).async("\($0)") }
        let foreign = try other.function(Job.gated).async("foreign")
        #expect(client.cancel(results.prefix(10)) == 10)
        client.cancelAll()
        // Calls that are made afterwards are not meant.
        for number in 0..<20 {
            #expect(try client.function(Job.echo).blocking(number) == number)
            client.cancelAll()
        }
        eventually("all are cancelled") { results.allSatisfy { $0.isTerminal } }
        for result in results { #expect(throws: CancellationError.self) { try result.get() } }
        #expect(!foreign.isTerminal)
        rig.gate.open("foreign")
        #expect(try foreign.get() == "foreign")
        #expect(try client.function(Job.echo).blocking(1) == 1)
        client.closeBlocking()
        other.closeBlocking()
        rig.stop()
    }

    @Test("S99 a handle shows how far its call has come", .timeLimit(.minutes(1)))
    func phases() throws {
        let endpoint = try ServingTests.ConnectionTests.unusedEndpoint()
        let client = try Client.forTest(endpoint)
        let first = try client.function(Job.gated).async("first")
        let second = try client.function(Job.gated).async("second")
        #expect(first.phase == .local)
        let rig = try Rig(concurrency: 1, at: endpoint) { $0.name = "phased" }
        eventually("the first runs") { first.phase == .running(worker: "phased") }
        eventually("the second waits there") { second.phase == .accepted(worker: "phased") }
        rig.gate.open("first")
        #expect(try first.get() == "first")
        #expect(first.phase == .terminal)
        eventually("the second runs") { second.phase == .running(worker: "phased") }
        rig.gate.open("second")
        #expect(try second.get() == "second")
        client.closeBlocking()
        rig.stop()
    }

    @Test("S99 a request that no worker acknowledged is shown as sent", .timeLimit(.minutes(1)))
    func sentPhase() throws {
        let raw = try RawWorker()
        let client = try Client.forTest(raw.endpoint)
        let result = try client.function(Job.echo).async(1)
        eventually("the request came") { raw.requests.count == 1 }
        #expect(result.phase == .sent)
        raw.send(RawMessage(.accepted, id: result.correlationID.rawValue))
        eventually("it is accepted") { result.phase == .accepted(worker: "raw") }
        raw.send(RawMessage(.started, id: result.correlationID.rawValue))
        eventually("it runs") { result.phase == .running(worker: "raw") }
        // Phases never go back.
        raw.send(RawMessage(.accepted, id: result.correlationID.rawValue))
        raw.send(RawMessage(.reply, id: result.correlationID.rawValue, payload: Packed.value(1)))
        #expect(try result.get() == 1)
        client.closeBlocking()
        raw.stop()
    }

    @Test(
        "S100 the worker with the fewest outstanding gets the call, none more than its window",
        .timeLimit(.minutes(1))
    )
    func choosing() throws {
        let (one, other) = (try RawWorker(.init(window: 3)), try RawWorker(.init(window: 2)))
        let client = try Client.forTest(one.endpoint, other.endpoint)
        try client.pingBoth()
        let results = try (0..<9).map { try client.function(Job.echo).async($0) }
        eventually("the windows are full") { one.requests.count == 3 && other.requests.count == 2 }
        eventually("what was sent shows") { results.filter { $0.phase == .sent }.count == 5 }
        #expect(results.filter { $0.phase == .local }.count == 4)
        // The first two went to both.
        let numbers = try [one, other].map { try $0.requests.map { try $0.value(as: [Int].self)[0] } }
        #expect(Set(numbers.map { $0[0] }) == [0, 1])
        // One is free for one more: it, and no other, gets the next.
        let freed = other.requests[0]
        other.send(RawMessage(.reply, id: freed.id, payload: Packed.value(0)))
        eventually("the next came") { other.requests.count == 3 }
        #expect(one.requests.count == 3)
        // A draining worker is dealt no more; what it has it may answer.
        other.send(RawMessage(.goodbye, number: GoodbyeReason.draining.rawValue))
        for request in other.requests.dropFirst() {
            other.send(RawMessage(.reply, id: request.id, payload: Packed.value(0)))
        }
        eventually("it has answered") { results.filter { $0.isTerminal }.count == 3 }
        for request in one.requests { one.send(RawMessage(.reply, id: request.id, payload: Packed.value(0))) }
        eventually("the rest came to the other") { one.requests.count == 6 }
        #expect(other.requests.count == 3)
        client.closeBlocking()
        one.stop()
        other.stop()
    }

    @Test("S100 a dead worker is not dealt to", .timeLimit(.minutes(1)))
    func dead() throws {
        let (one, other) = (try RawWorker(), try Self.echoing())
        let client = try Client.forTest(one.endpoint, other.endpoint)
        try client.pingBoth()
        let sure = try (0..<10).map { try client.function(Job.sureEcho).async($0) }
        eventually("both got some") { !one.requests.isEmpty }
        one.stop()
        // Those of the dead one are dealt to the other.
        for (number, result) in sure.enumerated() { #expect(try result.get() == number) }
        for number in 0..<20 { #expect(try client.function(Job.echo).blocking(number) == number) }
        client.closeBlocking()
        other.stop()
    }

    @Test("S101 late and duplicate reports never alter a terminal handle", .timeLimit(.minutes(1)))
    func lateReports() throws {
        let raw = try RawWorker()
        let client = try Client.forTest(raw.endpoint)
        let results = try (0..<4).map { try client.function(Job.sureEcho).async($0) }
        eventually("the requests came") { raw.requests.count == 4 }
        let ids = results.map { $0.correlationID.rawValue }
        raw.send(RawMessage(.reply, id: ids[0], payload: Packed.value(100)))
        raw.send(RawMessage(.error, id: ids[1], payload: Packed.error("failed", "first")))
        #expect(results[2].cancel())
        #expect(results[3].setExpiry(.zero))
        #expect(try results[0].get() == 100)
        _ = #expect(throws: RemoteError.self) { try results[1].get() }
        let before = results.map { "\(String(describing: $0.outcome))" }
        for id in ids {
            raw.send(
                RawMessage(.accepted, id: id),
                RawMessage(.started, id: id),
                RawMessage(.progress, id: id, payload: Packed.value(1)),
                RawMessage(.reply, id: id, payload: Packed.value(200)),
                RawMessage(.error, id: id, payload: Packed.error("failed", "second")),
                RawMessage(.cancelled, id: id, number: CancelledStage.lapsed.rawValue)
            )
        }
        // A retry's report, from another life of the worker.
        raw.update { $0.epoch += 1 }
        raw.send(RawMessage(.reset))
        eventually("a new session began") { client.statistics.sessions == 2 }
        for id in ids { raw.send(RawMessage(.reply, id: id, payload: Packed.value(300))) }
        let last = try client.function(Job.echo).async(1)
        eventually("the call after them came") { raw.requests.count == 5 }
        raw.send(RawMessage(.reply, id: last.correlationID.rawValue, payload: Packed.value(1)))
        #expect(try last.get() == 1)
        #expect(results.map { "\(String(describing: $0.outcome))" } == before)
        #expect(results.allSatisfy { $0.phase == .terminal })
        client.closeBlocking()
        raw.stop()
    }

    @Test("S102 after any mix of outcomes tables, timers and closures are back at baseline", .timeLimit(.minutes(1)))
    func memory() throws {
        let rig = try Rig()
        let client = try rig.client { $0.onCallbackError = { _, _ in } }
        let weak = Gathered<WeakWitness>()
        func mixed(_ number: Int) throws -> AnyAsyncResult {
            let witness = Witness()
            weak.add(WeakWitness(witness))
            let result: AnyAsyncResult
            switch number % 5 {
            case 0:
                let echo = try client.function(Job.echo).async(number)
                echo.addCallback { _ in
                    _ = witness
                    throw FixtureError(message: "callback")
                }
                result = echo
            case 1:
                let failing = try client.function(Job.fail).async("x")
                failing.addCallback { _ in _ = witness }
                result = failing
            case 2:
                let expiring = try timed(client.function(Job.sleep), .milliseconds(1))(0.005, "t")
                expiring.addCallback { _ in _ = witness }
                result = expiring
            case 3:
                let cancelled = try client.function(Job.echo).async(number)
                cancelled.addCallback { _ in _ = witness }
                cancelled.setExpiry(.seconds(100))
                cancelled.cancel()
                result = cancelled
            default:
                let callback = client.callback { (_: Int) in _ = witness }
                result = try client.function(Job.tick).async(callback, 2, 0)
            }
            return result
        }
        var results: [AnyAsyncResult] = []
        for number in 0..<1000 { results.append(try mixed(number)) }
        eventually("all have ended") { results.allSatisfy { $0.isTerminal } }
        results = []
        eventually("the client is back at its baseline") {
            let now = client.statistics
            return now.outstandingNow == 0 && now.tableEntriesNow == 0 && now.timersNow == 0
                && now.subscriptionsNow == 0 && now.wrappersNow == 0
        }
        eventually("the worker is too") { rig.running.status.running == 0 && rig.running.status.queued == 0 }
        eventually("all closures are released") { weak.values.allSatisfy { $0.isGone } }
        let statistics = client.statistics
        let ended =
            statistics.values + statistics.failures + statistics.expiries + statistics.cancellations + statistics.losses
        #expect(ended == statistics.calls)
        client.closeBlocking()
        rig.stop()
    }

    @Test("S103 public members may be used from any thread and from callbacks at once", .timeLimit(.minutes(1)))
    func threadSafety() throws {
        let rig = try Rig()
        let client = try rig.client()
        let shared = Gathered<AsyncResult<Int>>()
        try onThreads(8) { thread in
            do {
                for number in 0..<100 {
                    let result = try client.function(Job.echo).async(number)
                    shared.add(result)
                    result.addCallback { result in
                        _ = result.description
                        try client.function(Job.echo).async(1).addCallback { _ in _ = client.statistics }
                    }
                    // Others' handles, in whatever state they are.
                    if let other = shared.values.randomElement() {
                        _ = (other.isReady, other.hasExpired, other.hasError, other.phase, other.description)
                        switch (thread + number) % 5 {
                        case 0: other.setExpiry(.seconds(10))
                        case 1: other.setExpiry(nil)
                        case 2: other.addCallback { _ in }.remove()
                        case 3: _ = try? other.wait(timeout: .milliseconds(1))
                        default: other.cancel()
                        }
                    }
                    let callback = client.callback { (_: Int) in }
                    if number % 10 == 0 { client.cancel(callback) }
                    _ = async(client.function(Job.echo))
                }
            } catch { Issue.record("\(error)") }
        }
        eventually("all have ended") { shared.values.allSatisfy { $0.isTerminal } }
        client.closeBlocking()
        rig.stop()
    }

    @Test("S104 only registered names run", .timeLimit(.minutes(1)))
    func registeredNames() throws {
        let rig = try Rig()
        let client = try rig.client()
        for name in ["system", "Drover.Worker", "ECHO", "echo ", "echo\0"] {
            let function = try client.function(name, ((Int) -> Int).self)
            let error = #expect(throws: RemoteError.self) { try function.blocking(1) }
            #expect(error?.code == .unknownFunction)
        }
        // A number that was never given a name.
        let raw = try RawClient(rig.endpoint)
        raw.introduce(functions: "echo")
        raw.request(1, function: 7, Packed.arguments(1))
        #expect(try raw.messages { $0.kind == .error && $0.id == 1 }.first?.error().code == "unknownFunction")
        #expect(rig.running.status.completed == 0)
        raw.stop()
        client.closeBlocking()
        rig.stop()
    }

    @Test("S104 input is data within limits of size and depth", .timeLimit(.minutes(1)))
    func limits() throws {
        let rig = try Rig { $0.maxPayloadBytes = 64 << 10 }
        let client = try rig.client()
        let error = #expect(throws: RemoteError.self) {
            try client.function(Job.bytes).blocking([UInt8](repeating: 1, count: 65 << 10))
        }
        #expect(error?.code == .tooLarge)
        let raw = try RawClient(rig.endpoint)
        raw.introduce(functions: "echo")
        // A hundred thousand arrays in one another, as an argument and where fields are skipped.
        let deep = [UInt8](repeating: 0x91, count: 50_000) + [0x01]
        raw.request(1, [0x91] + deep)
        #expect(try raw.messages { $0.kind == .error && $0.id == 1 }.first?.error().code == "badArguments")
        raw.request(2, flags: .metadata, [0x81, 0xA1, 0x78] + deep + Packed.arguments(2))
        // What is skipped costs no stack; refusing it would be right as well.
        #expect(raw.messages { ($0.kind == .error || $0.kind == .reply) && $0.id == 2 }.count == 1)
        // A text that claims four gigabytes.
        raw.request(3, [0x91, 0xDB, 0xFF, 0xFF, 0xFF, 0xFF])
        #expect(try raw.messages { $0.kind == .error && $0.id == 3 }.first?.error().code == "badArguments")
        #expect(try client.function(Job.echo).blocking(1) == 1)
        raw.stop()
        client.closeBlocking()
        rig.stop()
    }

    @Test("S104 a worker binds to loopback; the network only if that is asked for")
    func loopback() throws {
        for address in ["tcp://0.0.0.0:*", "tcp://*:*", "tcp://[::]:*", "tcp://eth0:*"] {
            let error = #expect(throws: UsageError.self) { try Worker().start(.bind(address)) }
            #expect(error?.code == .badConfiguration)
            #expect(error?.message.contains("127.0.0.1") == true)
            #expect(error?.message.contains("unencrypted") == true)
        }
        let running = try Worker().start(.bind("tcp://127.0.0.1:*"))
        #expect(running.endpoint.hasPrefix("tcp://127.0.0.1:"))
        running.stopBlocking(grace: .zero)
    }

    // MARK: Scenarios

    @Test("A39 an undecodable body costs one handle; garbage and unknown kinds cost none", .timeLimit(.minutes(1)))
    func garbage() throws {
        let raw = try RawWorker()
        let client = try Client.forTest(raw.endpoint)
        let results = try (0..<5).map { try client.function(Job.echo).async($0) }
        eventually("the requests came") { raw.requests.count == 5 }
        let k = results[2].correlationID.rawValue
        raw.send(RawMessage(.reply, id: k, payload: [0xC1, 0xFF]))
        raw.send(frames: [[1, 2, 3]])
        raw.send(frames: [[]])
        raw.send(frames: [[UInt8](repeating: 0xFF, count: 5000)])
        raw.send(frames: [[0xD1], [0xD1], [0xD1]])
        raw.send(frames: [RawMessage(.reply, id: 777_777, payload: []).bytes, [1]])
        var strange = RawMessage(.reply, id: 5)
        strange.header.rawKind = 200
        raw.send(strange)
        for (number, result) in results.enumerated() where number != 2 {
            raw.send(RawMessage(.reply, id: result.correlationID.rawValue, payload: Packed.value(number)))
        }
        for (number, result) in results.enumerated() where number != 2 { #expect(try result.get() == number) }
        let error = #expect(throws: ConnectionError.self) { try results[2].get() }
        #expect(error?.code == .protocol)
        #expect(client.statistics.unknownMessages == 1)
        #expect(client.statistics.malformedMessages >= 4)
        let next = try client.function(Job.echo).async(9)
        eventually("the next came") { raw.requests.count == 6 }
        raw.send(RawMessage(.reply, id: next.correlationID.rawValue, payload: Packed.value(9)))
        #expect(try next.get() == 9)
        client.closeBlocking()
        raw.stop()
    }

    @Test("A40 ten thousand instant answers complete normally", .timeLimit(.minutes(2)))
    func instantAnswers() throws {
        let raw = try Self.echoing()
        let client = try Client.forTest(raw.endpoint)
        let echo = client.function(Job.echo)
        let callbacks = Atomic<Int>(0)
        for round in 0..<10_000 {
            let result = try echo.async(round)
            result.addCallback { _ in callbacks.add(1, ordering: .relaxed) }
            let value = try result.get()
            if value != round { Issue.record("\(round) got \(value)") }
        }
        eventually("all callbacks ran") { callbacks.load(ordering: .relaxed) == 10_000 }
        #expect(client.statistics.values == 10_000)
        #expect(client.statistics.unknownReplies == 0)
        client.closeBlocking()
        raw.stop()
    }

    @Test("A41 sixteen threads mix calls on one client; each ends right, nothing leaks", .timeLimit(.minutes(20)))
    func stress() throws {
        // Sixteen busy threads may keep a sanitized loop, or one on a loaded machine, from the processor for longer.
        let silenceLimit = isSanitized ? Duration.seconds(10) : scaled(.milliseconds(600))
        let rig = try Rig {
            $0.window = 100_000
            $0.silenceLimit = silenceLimit
        }
        let client = try rig.client { $0.silenceLimit = silenceLimit }
        let perThread = setting("DROVER_STRESS_CALLS", isSanitized ? 1000 : 10_000)
        let wrong = Gathered<String>()
        let (echo, fail) = (client.function(Job.echo), client.function(Job.fail))
        let expiring = timed(echo, .milliseconds(1))
        let time = try elapsed {
            try onThreads(16) { thread in
                do {
                    var batch: [(Int, AnyAsyncResult)] = []
                    for number in 0..<perThread {
                        let tag = thread * 1_000_000 + number
                        switch number % 4 {
                        case 0: batch.append((tag, try echo.async(tag)))
                        case 1: batch.append((tag, try fail.async("\(tag)")))
                        case 2: batch.append((tag, try expiring(tag)))
                        default:
                            let result = try echo.async(tag)
                            result.cancel()
                            batch.append((tag, result))
                        }
                        guard batch.count == 200 || number == perThread - 1 else { continue }
                        for (tag, result) in batch { Self.check(result, tag, wrong) }
                        batch = []
                    }
                } catch { wrong.add("\(error)") }
            }
        }
        #expect(wrong.values.isEmpty, "\(wrong.values.prefix(5))")
        if !isSanitized { #expect(time < .seconds(60) * max(1, perThread / 10_000), "it took \(time)") }
        #expect(client.statistics.calls == 16 * perThread)
        eventually("nothing is left") {
            let now = client.statistics
            return now.outstandingNow == 0 && now.tableEntriesNow == 0 && now.timersNow == 0
        }
        client.closeBlocking()
        rig.stop()
    }

    private static func check(_ result: AnyAsyncResult, _ tag: Int, _ wrong: Gathered<String>) {
        if let echo = result as? AsyncResult<Int> {
            do {
                let value = try echo.get()
                if value != tag || tag % 4 == 1 { wrong.add("\(tag) got \(value)") }
            } catch is AsyncResultTimeout where tag % 4 == 2 {
            } catch is CancellationError where tag % 4 == 3 {
            } catch { wrong.add("\(tag): \(error)") }
        } else if let failing = result as? AsyncResult<Nothing> {
            do {
                _ = try failing.get()
                wrong.add("\(tag) did not fail")
            } catch let error as RemoteError where error.message == "\(tag)" {
            } catch { wrong.add("\(tag): \(error)") }
        }
    }
}

extension Client {
    /// Waits until there are sessions with both workers.
    func pingBoth() throws {
        let done = ReadySignal<String>()
        Task {
            do {
                _ = try await self.ping(endpoint: 0)
                _ = try await self.ping(endpoint: 1)
                _ = done.set("")
            } catch { _ = done.set("\(error)") }
        }
        #expect(done.wait() == "")
    }
}
