// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverWire
import DroverZMQ
import Foundation
import Synchronization
import Testing

extension ServingTests {
    /// Contract section H: a connection's life.
    @Suite(.serialized)
    struct ConnectionTests {}
}

extension ServingTests.ConnectionTests {
    @Test("S85 when a worker is lost every pending handle is, and each waiter is told once", .timeLimit(.minutes(1)))
    func peerDies() async throws {
        let raw = try RawWorker()
        let client = try Client.forTest(raw.endpoint)
        let results = try (0..<20)
            .map { number in
                let result = try client.function(Job.echo).async(number)
                if number % 2 == 0 { result.setExpiry(.seconds(3600)) }
                return result
            }
        let callbacks = Gathered<Int>()
        let waiters = Gathered<Int>()
        for (number, result) in results.enumerated() { result.addCallback { _ in callbacks.add(number) } }
        let threads = try results.enumerated()
            .map { number, result in
                try LoopThread.start(named: "waiter") {
                    do { try result.wait() } catch let error as ConnectionError where error.code == .lost {
                        waiters.add(number)
                    } catch {}
                }
            }
        let tasks = results.map { result in Task { try await result.value } }
        eventually("the requests came") { raw.requests.count == 20 }
        raw.update { $0.isAlive = false }
        eventually("the loss is decided", within: .seconds(3)) { results.allSatisfy { $0.isTerminal } }
        for task in tasks {
            let error = await #expect(throws: ConnectionError.self) { try await task.value }
            #expect(error?.code == .lost)
        }
        eventually("everybody was told") { callbacks.count == 20 && waiters.count == 20 }
        expectEnd(of: threads)
        await client.drainCallbacks()
        #expect(callbacks.values.sorted() == Array(0..<20))
        #expect(results.allSatisfy { $0.isReady && $0.hasError && !$0.hasExpired })
        await client.close()
        raw.stop()
    }

    @Test(
        "a worker that has no room for a client keeps its calls waiting until another has left",
        .timeLimit(.minutes(1))
    )
    func fullWorker() async throws {
        let rig = try Rig { $0.maxClients = 1 }
        let first = try rig.client()
        #expect(try await first.call(Job.echo, 1) == 1)
        let second = try rig.client()
        let waiting = try second.function(Job.echo).async(2)
        let brief = try second.function(Job.echo).async(3)
        try await becomesTrue("it was refused more than once") { second.statistics.disconnections >= 1 }
        brief.setExpiry(.milliseconds(1))
        let error = await #expect(throws: AsyncResultTimeout.self) { try await brief.value }
        #expect("\(error as Any)".contains("1 clients, its limit"))
        #expect(!waiting.isTerminal)
        await first.close()
        #expect(try await waiting.value == 2)
        await second.close()
        rig.stop()
    }

    @Test("S86 calls without a worker queue up to the limit and expire normally", .timeLimit(.minutes(1)))
    func peerNotThere() throws {
        let endpoint = try Self.unusedEndpoint()
        let client = try Client.forTest(endpoint) { $0.maxOutstandingCalls = 10 }
        let echo = client.function(Job.echo)
        let results = try (0..<10).map { try timed(echo, .milliseconds($0 < 5 ? 100 : 60_000))($0) }
        let error = #expect(throws: ConnectionError.self) { try echo.async(11) }
        #expect(error?.code == .backpressure)
        for result in results.prefix(5) {
            let error = #expect(throws: AsyncResultTimeout.self) { try result.get() }
            #expect(error?.phase == .local)
        }
        #expect(results.suffix(5).allSatisfy { !$0.isTerminal })
        // It comes after all, and serves what waits.
        let rig = try Rig(at: endpoint)
        for (number, result) in results.enumerated().suffix(5) { #expect(try result.get() == number) }
        client.closeBlocking()
        rig.stop()
    }

    @Test("S86 connect does a handshake, or fails fast and says why", .timeLimit(.minutes(1)))
    func connect() async throws {
        let endpoint = try Self.unusedEndpoint()
        let client = try Client.forTest(endpoint)
        let time = await elapsed {
            let error = await #expect(throws: ConnectionError.self) {
                try await client.connect(timeout: .seconds(30))
            }
            #expect(error?.code == .unavailable)
            #expect(error?.message.contains(endpoint) == true)
            #expect(error?.message.contains("nobody listens there") == true)
        }
        // What is known at once is said at once.
        #expect(time < .seconds(1))
        let patient = await elapsed {
            let error = await #expect(throws: ConnectionError.self) {
                try await client.connect(timeout: .milliseconds(300), patiently: true)
            }
            #expect(error?.code == .unavailable)
            #expect(error?.message.contains("nobody listens there") == true)
        }
        #expect(patient >= .milliseconds(300))
        let coming = Task { try await client.connect(timeout: .seconds(30), patiently: true) }
        let rig = try Rig(at: endpoint) { $0.name = "late" }
        #expect(try await coming.value.worker == "late")
        #expect(try await client.connect().worker == "late")
        await client.close()
        rig.stop()
    }

    @Test(
        "S86 connect reaches a worker that has just begun to listen, though nobody did before",
        .timeLimit(.minutes(1)),
        arguments: [0, 50, 400]
    )
    func connectAfterNobody(pause: Int) async throws {
        let endpoint = try Self.unusedEndpoint()
        let client = try Client.forTest(endpoint)
        let early = try client.function(Job.echo).async(1)
        eventually("it is known that nobody listens") { client.connectionProblems.contains("nobody") }
        // Before, at and after the moments at which it is tried again by itself.
        try await Task.sleep(for: .milliseconds(pause))
        let rig = try Rig(at: endpoint)
        try await client.connect()
        #expect(try await early.value == 1)
        await client.close()
        rig.stop()
    }

    @Test(
        "S86 connect reaches a worker's next life at once, though its address was dead between",
        .timeLimit(.minutes(1))
    )
    func connectAfterRestart() async throws {
        let endpoint = try Self.unusedEndpoint()
        var rig = try Rig(at: endpoint)
        let client = try Client.forTest(endpoint)
        try await client.connect()
        rig.stop()
        eventually("it is known that nobody listens") { client.connectionProblems.contains("nobody") }
        let error = await #expect(throws: ConnectionError.self) { try await client.connect() }
        #expect(error?.code == .unavailable)
        rig = try Rig(at: endpoint)
        try await client.connect()
        await client.close()
        rig.stop()
    }

    @Test("S86 connect reaches the one of two endpoints that has come, many times at once", .timeLimit(.minutes(1)))
    func connectToOneOfTwo() async throws {
        let (dead, late) = (try Self.unusedEndpoint(), try Self.unusedEndpoint())
        let client = try Client.forTest(dead, late)
        eventually("it is known that nobody listens at either") {
            client.connectionProblems.components(separatedBy: "nobody").count > 2
        }
        let rig = try Rig(at: late)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<20 { group.addTask { try await client.connect() } }
            try await group.waitForAll()
        }
        await client.close()
        rig.stop()
    }

    @Test(
        "a call that ran where its worker died isn't said not to have run, however it ends before another has it",
        .timeLimit(.minutes(1)),
        arguments: [false, true]
    )
    func ranBefore(isClosed: Bool) throws {
        let worker = try WorkerProcess()
        let client = try Client.forTest(worker.endpoint)
        let sleep = Function<Double, String, String>("sleep", isIdempotent: true)
        let call = try client.function(sleep).async(30, "x")
        eventually("it runs") { "\(call.phase)".hasPrefix("running") }
        worker.end()
        eventually("it waits here again") { call.phase == .local }
        // One that was made since has been nowhere.
        let other = try client.function(sleep).async(30, "y")
        if isClosed {
            client.closeBlocking()
        } else {
            call.setExpiry(.zero)
            other.setExpiry(.zero)
        }
        let failure = #expect(throws: (any Error).self) { try call.get() }
        #expect((failure as? any CallFailure)?.execution == .mayHaveRun)
        let otherFailure = #expect(throws: (any Error).self) { try other.get() }
        #expect((otherFailure as? any CallFailure)?.execution == .didNotRun)
        client.closeBlocking()
    }

    @Test("a wait that can't be isn't said to have kept a running call from running", .timeLimit(.minutes(1)))
    func unwaitable() throws {
        let rig = try Rig()
        let client = try Client.forTest(rig.endpoint) { $0.startsPoller = false }
        let poller = try BackgroundPoller(serving: client)
        let call = try client.function(Job.gated).async("g")
        eventually("it runs") { "\(call.phase)".hasPrefix("running") }
        poller.stop()
        let error = #expect(throws: UsageError.self) { try call.get() }
        #expect(error?.code == .notRunning)
        #expect(error?.execution == .mayHaveRun)
        rig.gate.open("g")
        try poller.start()
        #expect(try call.get() == "g")
        client.closeBlocking()
        rig.stop()
    }

    @Test("S87 a busy worker is not lost, nor is a client whose callbacks are busy", .timeLimit(.minutes(1)))
    func busy() throws {
        let rig = try Rig(concurrency: 1)
        let losses = Gathered<String>()
        let client = try rig.client { $0.onDisconnect = { losses.add("\($0.error)") } }
        // Three times the silence limit, on both sides.
        let result = try client.function(Job.sleep).async(1.8, "done")
        let callback = client.callback { (_: Int) in block(for: .milliseconds(1800)) }
        let queued = try client.function(Job.tick).async(callback, 1, 0)
        #expect(try result.get() == "done")
        #expect(try queued.get() == 1)
        #expect(rig.running.status.clients == 1)
        #expect(client.statistics.disconnections == 0)
        #expect(client.statistics.sessions == 1)
        client.closeBlocking()
        rig.stop()
    }

    @Test("S87 a new epoch is loss, faster than the silence limit", .timeLimit(.minutes(1)))
    func newEpoch() throws {
        let raw = try RawWorker()
        let client = try Client.forTest(raw.endpoint) {
            $0.heartbeatInterval = .seconds(10)
            $0.silenceLimit = .seconds(50)
        }
        let result = try client.function(Job.echo).async(1)
        eventually("the request came") { raw.requests.count == 1 }
        raw.update { $0.epoch = 78 }
        eventually("the loss is decided", within: .seconds(2)) { result.isTerminal }
        let error = #expect(throws: ConnectionError.self) { try result.get() }
        #expect(error?.code == .lost)
        #expect(error?.message.contains("restarted") == true)
        client.closeBlocking()
        raw.stop()
    }

    @Test("S87 beats come from the I/O thread while the only handler blocks", .timeLimit(.minutes(1)))
    func beats() throws {
        let rig = try Rig(concurrency: 1)
        let raw = try RawClient(rig.endpoint)
        raw.introduce(functions: "gated")
        raw.request(1, Packed.arguments("block"))
        eventually("the handler runs") { rig.gate.begun == ["block"] }
        let epoch = try #require(raw.messages { $0.kind == .welcome }.first).id
        block(for: .milliseconds(1200))
        let beats = raw.messages.filter { $0.kind == .beat }
        #expect(beats.count >= 3)
        #expect(beats.allSatisfy { $0.id == epoch })
        rig.gate.open("block")
        #expect(raw.messages { $0.kind == .reply }.count == 1)
        raw.stop()
        rig.stop()
    }

    @Test(
        "S88 after a restart idempotent calls are sent again, others are lost; all of it shows",
        .timeLimit(.minutes(1))
    )
    func reconnect() throws {
        let raw = try RawWorker { message in
            // Only what comes a second time is answered.
            guard message.kind == .request, message.header.flags.contains(.resent),
                let number = try? message.value(as: [Int].self).first
            else { return [] }
            return [RawMessage(.reply, id: message.id, payload: Packed.value(number))]
        }
        let (connections, disconnections) = (Gathered<Connection>(), Gathered<Disconnection>())
        let client = try Client.forTest(raw.endpoint) {
            $0.onConnect = { connections.add($0) }
            $0.onDisconnect = { disconnections.add($0) }
        }
        let plain = try (0..<10).map { try client.function(Job.echo).async($0) }
        let sure = try (10..<20).map { try client.function(Job.sureEcho).async($0) }
        eventually("the requests came") { raw.requests.count == 20 }
        let ids = raw.requests.map { $0.id }
        raw.update { $0.epoch = 78 }
        raw.send(RawMessage(.reset))
        for (number, result) in sure.enumerated() { #expect(try result.get() == 10 + number) }
        for result in plain {
            let error = #expect(throws: ConnectionError.self) { try result.get() }
            #expect(error?.code == .lost)
        }
        let again = raw.requests.suffix(10)
        #expect(again.map { $0.id }.sorted() == ids.suffix(10).sorted())
        #expect(again.allSatisfy { $0.header.flags.contains(.resent) && $0.header.flags.contains(.idempotent) })
        eventually("the hooks ran") { connections.count == 2 && disconnections.count == 1 }
        #expect(client.statistics.resends == 10)
        #expect(client.statistics.sessions == 2)
        #expect(client.statistics.disconnections == 1)
        client.closeBlocking()
        raw.stop()
    }

    @Test("S100 ten short calls don't wait behind a long one while another worker is idle", .timeLimit(.minutes(1)))
    func freeSlots() async throws {
        let rigs = [try Rig(concurrency: 1), try Rig(concurrency: 1)]
        let client = try Client.forTest(rigs.map { $0.endpoint })
        for endpoint in 0..<2 { _ = try await client.ping(endpoint: endpoint) }
        let long = try client.function(Job.gated).async("long")
        eventually("it runs") { rigs.contains { $0.gate.begun == ["long"] } }
        let begin = ContinuousClock.now
        let short = try (0..<10).map { try client.function(Job.echo).async($0) }
        for (number, result) in short.enumerated() { #expect(try await result.value == number) }
        #expect(ContinuousClock.now - begin < .milliseconds(900))
        #expect(!long.isTerminal)
        for rig in rigs { rig.gate.open("long") }
        #expect(try await long.value == "long")
        await client.close()
        for rig in rigs { rig.stop() }
    }

    @Test("a welcome that answers another introduction opens no session", .timeLimit(.minutes(1)))
    func foreignWelcome() throws {
        let raw = try RawWorker(.init(isAlive: false))
        let client = try Client.forTest(raw.endpoint)
        eventually("it introduces itself") { raw.messages.contains { $0.kind == .hello } }
        let epoch = try #require(raw.messages.first { $0.kind == .hello }).id
        func welcome(answers epoch: UInt64) -> RawMessage {
            let payload = Packed.welcome(window: 8, isResumed: false, answers: epoch)
            return RawMessage(.welcome, id: 77, payload: payload)
        }
        raw.send(welcome(answers: epoch &- 1), RawMessage(.ping, id: 5))
        eventually("it was read") { raw.messages.contains { $0.kind == .pong } }
        #expect(client.statistics.sessions == 0)
        raw.send(welcome(answers: epoch))
        eventually("there is a session") { client.statistics.sessions == 1 }
        client.closeBlocking()
        raw.stop()
    }

    @Test("S88 attempts are bounded", .timeLimit(.minutes(1)))
    func attempts() throws {
        let raw = try RawWorker()
        let client = try Client.forTest(raw.endpoint) { $0.maxAttempts = 2 }
        let result = try client.function(Job.sureEcho).async(1)
        for round in 1...2 {
            eventually("attempt \(round) came") { raw.requests.count == round }
            #expect(!result.isTerminal)
            raw.update { $0.epoch += 1 }
            raw.send(RawMessage(.reset))
        }
        let error = #expect(throws: RemoteError.self) { try result.get() }
        #expect(error?.code == .poison && error?.attempts == 2 && error?.workers == ["raw", "raw"])
        #expect(raw.requests.count == 2)
        client.closeBlocking()
        raw.stop()
    }

    @Test("S88 a subscription works with the worker's next life", .timeLimit(.minutes(1)))
    func subscriptions() throws {
        let first = try WorkerProcess()
        let client = try Client.forTest(first.endpoint)
        let events = Gathered<Int>()
        let callback = client.callback(.init(lifetime: .untilCancelled)) { (number: Int) in events.add(number) }
        let call = try client.function(Job.sureTick).async(callback, 40, 0.01)
        eventually("events came") { events.count >= 3 }
        first.end()
        let countBefore = events.count
        let second = try WorkerProcess(at: first.endpoint)
        #expect(try call.get() == 40)
        eventually("the new life's events came") { events.values.suffix(40) == ArraySlice(0..<40) }
        #expect(events.count >= countBefore)
        #expect(client.statistics(of: callback) != nil)
        client.closeBlocking()
        second.end()
    }

    @Test("S89 close refuses new calls, waits for the grace, and makes the rest lost", .timeLimit(.minutes(1)))
    func close() async throws {
        let rig = try Rig()
        let client = try rig.client()
        let quick = try client.function(Job.gated).async("quick")
        let stuck = try client.function(Job.gated).async("stuck")
        let callback = Gathered<Bool>()
        stuck.addCallback { callback.add($0.isReady) }
        eventually("both run") { rig.gate.begun.count == 2 }
        let closing = Task { await elapsed { await client.close(grace: .milliseconds(500)) } }
        eventually("new calls are refused") {
            do {
                _ = try client.function(Job.echo).async(1)
                return false
            } catch let error as ConnectionError {
                return error.code == .closed
            } catch { return false }
        }
        rig.gate.open("quick")
        #expect(try await quick.value == "quick")
        let time = await closing.value
        #expect(time > .milliseconds(450) && time < .milliseconds(700), "closing took \(time)")
        let error = await #expect(throws: ConnectionError.self) { try await stuck.value }
        #expect(error?.code == .closed)
        eventually("the callback ran") { callback.values == [true] }
        #expect(await elapsed { await client.close(grace: .seconds(5)) } < .milliseconds(100))
        rig.gate.open("stuck")
        rig.stop()
    }

    @Test("S90 every waiter ends with its outcome when the client closes", .timeLimit(.minutes(1)))
    func waitersAtClose() async throws {
        let rig = try Rig()
        let client = try rig.client()
        let result = try client.function(Job.gated).async("stuck")
        let ends = Gathered<String>()
        let isWaiting = Atomic<Int>(0)
        let threads = try (0..<8)
            .map { _ in
                try LoopThread.start(named: "waiter") {
                    isWaiting.add(1, ordering: .relaxed)
                    do { ends.add(try result.get()) } catch let error as ConnectionError {
                        ends.add("\(error.code)")
                    } catch {
                        ends.add("\(error)")
                    }
                }
            }
        let tasks = (0..<8)
            .map { _ in
                Task {
                    do { ends.add(try await result.value) } catch let error as ConnectionError {
                        ends.add("\(error.code)")
                    }
                }
            }
        eventually("all wait") { isWaiting.load(ordering: .relaxed) == 8 }
        let time = await elapsed {
            await client.close(grace: .milliseconds(100))
            for task in tasks { try? await task.value }
        }
        expectEnd(of: threads)
        #expect(time < .milliseconds(300))
        #expect(ends.values == Array(repeating: "closed", count: 16))
        rig.stop()
    }

    @Test("S91 SIGTERM drains: what runs is finished, the process leaves", .timeLimit(.minutes(1)))
    func terminated() throws {
        let worker = try WorkerProcess()
        let disconnections = Gathered<Disconnection>()
        let client = try Client.forTest(worker.endpoint) { $0.onDisconnect = { disconnections.add($0) } }
        let running = try client.function(Job.sleep).async(0.5, "finished")
        eventually("it runs") { if case .running = running.phase { true } else { false } }
        worker.signal(SIGTERM)
        #expect(try running.get() == "finished")
        let end = worker.waitForExit()
        #expect(end.status == 0 && !end.wasSignalled)
        eventually("the goodbye came") { disconnections.count == 1 }
        #expect(disconnections.values.first?.error.message.contains("shut down") == true)
        client.closeBlocking()
    }

    @Test("S91 a process that ends once it has drained has got its last answers through", .timeLimit(.minutes(1)))
    func lastAnswers() throws {
        let text = String(repeating: "x", count: 8 << 20)
        for _ in 0..<5 {
            let worker = try WorkerProcess()
            let client = try Client.forTest(worker.endpoint) { $0.silenceLimit = .seconds(10) }
            let running = try client.function(Job.sleep).async(0.05, text)
            eventually("it runs") { if case .running = running.phase { true } else { false } }
            worker.signal(SIGTERM)
            #expect(try running.get().utf8.count == text.utf8.count)
            #expect(worker.waitForExit().status == 0)
            client.closeBlocking()
        }
    }

    @Test(
        "S91 a draining worker announces it, refuses new requests as retryable, says goodbye",
        .timeLimit(.minutes(1))
    )
    func draining() async throws {
        let rig = try Rig()
        let raw = try RawClient(rig.endpoint, answersPings: true)
        raw.introduce(functions: "gated", "echo")
        raw.request(1, Packed.arguments("last"))
        eventually("the handler runs") { rig.gate.begun == ["last"] }
        rig.running.drain(grace: .seconds(10))
        #expect(raw.messages { $0.kind == .goodbye }.first?.header.number == GoodbyeReason.draining.rawValue)
        raw.request(2, function: 1, Packed.arguments(5))
        let refusal = try #require(raw.messages { $0.kind == .error && $0.id == 2 }.first).error()
        #expect(refusal.code == "draining" && refusal.isRetryable)
        rig.gate.open("last")
        #expect(try raw.messages { $0.kind == .reply && $0.id == 1 }.first?.value(as: String.self) == "last")
        #expect(raw.messages(2) { $0.kind == .goodbye }.last?.header.number == GoodbyeReason.leaving.rawValue)
        await rig.running.stop()
        raw.stop()
    }

    @Test("S91 what still runs when the grace is over is cancelled", .timeLimit(.minutes(1)))
    func drainGrace() async throws {
        let rig = try Rig()
        let client = try rig.client()
        let result = try client.function(Job.gated).async("slow")
        eventually("the handler runs") { rig.gate.begun == ["slow"] }
        let time = await elapsed { await rig.running.stop(grace: .milliseconds(200)) }
        #expect(time < .seconds(2))
        eventually("the handler saw it") { rig.cancelled.values == ["slow"] }
        await #expect(throws: (any Error).self) { try await result.value }
        await client.close()
    }

    @Test("S92 a ping reports round trip, running jobs and queue length", .timeLimit(.minutes(1)))
    func ping() async throws {
        let rig = try Rig(concurrency: 2) { $0.name = "pinged" }
        let client = try rig.client()
        for key in 0..<5 { _ = try client.function(Job.gated).async("\(key)") }
        eventually("two run") { rig.gate.begun.count == 2 }
        eventually("three wait") { rig.running.status.queued == 3 }
        let ping = try await client.ping()
        #expect(ping.worker.worker == "pinged")
        #expect(ping.worker.running == 2)
        #expect(ping.worker.queued == 3)
        #expect(ping.worker.concurrency == 2)
        #expect(ping.roundTrip > .zero && ping.roundTrip < .milliseconds(isSanitized ? 500 : 50))
        for key in 0..<5 { rig.gate.open("\(key)") }
        await client.close()
        rig.stop()
    }

    // MARK: Scenarios

    @Test("A27 a worker whose handlers are all busy answers a ping in under 50 ms", .timeLimit(.minutes(1)))
    func pingBusy() async throws {
        let rig = try Rig()
        let client = try rig.client()
        // They spin, and there are as many as the worker takes at once.
        let results = try (0..<4).map { try client.function(Job.gated).async("\($0)") }
        eventually("all run") { rig.gate.begun.count == 4 }
        for _ in 0..<10 {
            let ping = try await client.ping()
            #expect(ping.roundTrip < .milliseconds(isSanitized ? 500 : 50), "\(ping.roundTrip)")
            #expect(ping.worker.running == 4)
        }
        for (key, result) in results.enumerated() {
            rig.gate.open("\(key)")
            #expect(try await result.value == "\(key)")
        }
        await client.close()
        rig.stop()
    }

    @Test("A35 a worker that crashes loses all its calls within the heartbeat limit", .timeLimit(.minutes(1)))
    func crash() throws {
        let worker = try WorkerProcess()
        let client = try Client.forTest(worker.endpoint)
        let callbacks = Gathered<String>()
        let sleeping = try (0..<3).map { try client.function(Job.sleep).async(30, "\($0)") }
        for result in sleeping { result.addCallback { callbacks.add($0.functionName) } }
        eventually("they run") { sleeping.allSatisfy { if case .running = $0.phase { true } else { false } } }
        let crashing = try client.function(Function<Nothing>("crash")).async()
        crashing.addCallback { callbacks.add($0.functionName) }
        // A loop that polls the outcome ends.
        let time = elapsed {
            while crashing.outcome == nil || sleeping.contains(where: { $0.outcome == nil }) { usleep(500) }
        }
        #expect(time < .milliseconds(2500), "it took \(time)")
        for result in sleeping {
            let error = #expect(throws: ConnectionError.self) { try result.get() }
            #expect(error?.code == .lost)
        }
        eventually("the callbacks ran") { callbacks.count == 4 }
        #expect(callbacks.values.sorted() == ["crash", "sleep", "sleep", "sleep"])
        #expect(worker.waitForExit().wasSignalled)
        client.closeBlocking()
    }

    /// An address where nobody listens, until this test asks for that very port.
    static func unusedEndpoint() throws -> String { "tcp://127.0.0.1:\(try ReservedPort.next())" }
}
