// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverWire
import DroverZMQ
import Foundation
import Testing

/// Contract sections C and E: expiries and `timed`.
@Suite("Expiry")
struct ExpiryTests {
    @Test(
        "S25 S26 S33 S61 S62 A5 A6 a call expires at its deadline, finally, and says how far it had come",
        .timeLimit(.minutes(1))
    )
    func expires() throws {
        let rig = try Rig()
        let client = try rig.client()
        let result = try client.function(Job.gated).async("a")
        eventually("it runs") { if case .running = result.phase { true } else { false } }
        #expect(result.setExpiry(.milliseconds(50)))
        let error = #expect(throws: AsyncResultTimeout.self) { try result.wait() }
        #expect(error?.function == "gated" && error?.correlationID == result.correlationID)
        #expect(error?.limit == .milliseconds(50) && error.map { $0.elapsed >= .milliseconds(50) } == true)
        #expect(error?.phase == .running(worker: "worker"))
        #expect(result.hasExpired && !result.isReady && !result.hasError)
        #expect(throws: AsyncResultTimeout.self) { try result.get() }
        eventually("the worker was told") { rig.cancelled.values == ["a"] }
        #expect(try client.function(Job.echo).blocking(1) == 1)
        client.closeBlocking()
        rig.stop()
    }

    @Test("no time is too long: graces, expiries and limits beyond all clocks mean never", .timeLimit(.minutes(1)))
    func endless() throws {
        for endless in [Duration.seconds(Int64.max), .seconds(Int64.max) + .seconds(10), .seconds(Int64.max) * 10] {
            let rig = try Rig {
                $0.drainGrace = endless
                $0.cancellationGrace = endless
                $0.reportDelay = endless
                $0.recycling.maxAge = endless
                $0.silenceLimit = endless
                $0.timeLimits = TimeLimits(soft: endless, hard: endless)
            }
            let client = try rig.client { $0.silenceLimit = endless }
            _ = try client.connectBlocking(timeout: endless)
            let result = try client.function(Job.gated).async("a")
            #expect(result.setExpiry(endless) && result.setDeadline(at: .now + .seconds(Int64.max)))
            rig.gate.open("a")
            #expect(try result.wait(timeout: endless) && result.get() == "a")
            #expect(try timed(client.function(Job.echo), endless)(1).get() == 1)
            let thread = try LoopThread.start(named: "closes") {
                client.closeBlocking(grace: endless)
                rig.running.stopBlocking(grace: endless)
            }
            expectEnd(of: [thread])
        }
    }

    @Test(
        "beats and silences that clocks can't tell apart are refused",
        arguments: [Duration.seconds(1 << 40), .seconds(Int64.max)]
    )
    func endlessBeats(beat: Duration) {
        func expectRefused(_ body: () throws -> Void) {
            let error = #expect(throws: UsageError.self, performing: body)
            #expect(error?.message.contains("silenceLimit") == true)
        }
        expectRefused {
            _ = try Client.forTest("tcp://127.0.0.1:1") {
                $0.heartbeatInterval = beat
                $0.silenceLimit = beat * 2
            }
        }
        expectRefused {
            _ = try Rig {
                $0.heartbeatInterval = beat
                $0.silenceLimit = beat * 2
            }
        }
    }

    @Test("S27 S28 S39 A8 A9 a later expiry replaces the former, also while somebody waits", .timeLimit(.minutes(1)))
    func replacing() throws {
        let rig = try Rig()
        let client = try rig.client()
        let result = try client.function(Job.gated).async("a")
        #expect(result.setExpiry(.seconds(60)))
        #expect(result.setExpiry(nil))
        let ended = Gathered<Bool>()
        let waiter = try LoopThread.start(named: "waiter") {
            do { try result.wait() } catch { ended.add(error is AsyncResultTimeout) }
        }
        #expect(result.setExpiry(.milliseconds(30)))
        expectEnd(of: [waiter])
        #expect(ended.values == [true])
        client.closeBlocking()
        rig.stop()
    }

    @Test("S27 S28 a worker keeps a queued request whose expiry is lengthened or removed", .timeLimit(.minutes(1)))
    func queuedAndMoved() throws {
        try withRig(concurrency: 1) { rig, client in
            let gated = client.function(Job.gated)
            let first = try gated.async("first")
            eventually("it runs") { rig.gate.begun == ["first"] }
            let brief = timed(gated, .seconds(1))
            let (longer, endless) = (try brief("longer"), try brief("endless"))
            // Lapses behind both.
            let marker = try timed(gated, .milliseconds(1100))("marker")
            eventually("they wait at the worker") {
                [longer, endless, marker].allSatisfy { if case .accepted = $0.phase { true } else { false } }
            }
            #expect(longer.setExpiry(.seconds(60)))
            #expect(endless.setExpiry(nil))
            eventually("the time that travelled is over") { marker.hasExpired && rig.running.status.dropped > 0 }
            for key in ["first", "longer", "endless"] { rig.gate.open(key) }
            #expect(try [first.get(), longer.get(), endless.get()] == ["first", "longer", "endless"])
            #expect(rig.running.status.dropped == 1 && rig.running.status.received == 4)
        }
    }

    @Test("S28 what a request spent under way is taken off its time at the worker", .timeLimit(.minutes(1)))
    func underWay() throws {
        let rig = try Rig()
        let raw = try RawClient(rig.endpoint)
        raw.introduce(functions: "gated", "untilLeft")
        let clock = UInt32(truncatingIfNeeded: MonotonicClock.now() / 1000)
        // A stamp that was not under way, and one that was for five seconds longer.
        raw.send(RawMessage(.beat, id: raw.epoch, time: clock))
        raw.send(
            RawMessage(.beat, id: raw.epoch, time: clock &- 5_000_000),
            RawMessage(.request, id: 1, number: 0, time: 3000, payload: Packed.arguments("late")),
            RawMessage(.request, id: 2, number: 1, time: 60_500, payload: Packed.arguments(0, 100))
        )
        // Behind the same stamp, in another frame.
        raw.send(RawMessage(.request, id: 3, number: 0, time: 4000, payload: Packed.arguments("late")))
        let answers = raw.messages(3) { [.cancelled, .reply].contains($0.kind) }
        let cancelled = answers.filter { $0.kind == .cancelled }
        #expect(cancelled.map { $0.id } == [1, 3])
        #expect(cancelled.allSatisfy { $0.header.number == CancelledStage.lapsed.rawValue })
        let left = try #require(answers.first { $0.kind == .reply }).value(as: Int.self)
        #expect((45...55).contains(left), "\(left) s are left of 60, less 5 under way")
        // A copy that was sent again, with more time, doesn't run either: its client knows that the call never did.
        raw.send(
            RawMessage(.request, id: 1, time: 65_000, flags: [.resent], payload: Packed.arguments("late"))
        )
        let again = raw.messages(3) { $0.kind == .cancelled }
        #expect(again.map { $0.id } == [1, 3, 1])
        #expect(rig.gate.begun.isEmpty && rig.running.status.dropped == 2)
        raw.stop()
        rig.stop()
    }

    @Test("S28 what goes in parts counts from the stamp before its first part, once", .timeLimit(.minutes(1)))
    func underWayInParts() throws {
        let rig = try Rig()
        let raw = try RawClient(rig.endpoint)
        raw.introduce(functions: "gated", "untilLeft")
        let clock = UInt32(truncatingIfNeeded: MonotonicClock.now() / 1000)
        let late = RawMessage(.request, id: 1, number: 0, time: 3000, payload: Packed.arguments("late"))
        let early = RawMessage(.request, id: 2, number: 1, time: 60_500, payload: Packed.arguments(0, 100))
        func first(_ message: RawMessage) -> RawMessage {
            RawMessage(.part, id: message.id, payload: Array(message.bytes.prefix(Header.byteCount)))
        }
        func rest(_ message: RawMessage) -> RawMessage {
            RawMessage(.part, id: message.id, time: UInt32(Header.byteCount), payload: message.payload)
        }
        raw.send(RawMessage(.beat, id: raw.epoch, time: clock))
        raw.send(RawMessage(.beat, id: raw.epoch, time: clock &- 5_000_000), first(late), first(early))
        // The others come behind a stamp that was under way for longer.
        raw.send(RawMessage(.beat, id: raw.epoch, time: clock &- 15_000_000), rest(late), rest(early))
        let answers = raw.messages(2) { [.cancelled, .reply].contains($0.kind) }
        let cancelled = try #require(answers.first { $0.kind == .cancelled })
        #expect(cancelled.id == 1 && cancelled.header.number == CancelledStage.lapsed.rawValue)
        let left = try #require(answers.first { $0.kind == .reply }).value(as: Int.self)
        #expect((46...55).contains(left), "\(left) s are left of 60, less 5 under way")
        #expect(rig.gate.begun.isEmpty)
        raw.stop()
        rig.stop()
    }

    @Test("S28 a client stamps what goes in parts, and says what is left when it goes", .timeLimit(.minutes(1)))
    func stampedParts() throws {
        let raw = try RawPeer(.router, bind: "tcp://127.0.0.1:*") { frames in
            guard let frames, let route = frames.first else { return [] }
            return RawMessage.all(in: frames.dropFirst().map { $0 })
                .compactMap { message in
                    guard message.kind == .hello else { return nil }
                    let welcome = Packed.welcome(
                        window: 10,
                        isResumed: false,
                        maxPayloadBytes: 8 << 20,
                        takesParts: true
                    )
                    return [route, RawMessage(.welcome, id: 7, payload: welcome).bytes]
                }
        }
        let client = try Client.forTest(raw.endpoint)
        func clock() -> UInt32 { UInt32(truncatingIfNeeded: MonotonicClock.now() / 1000) }
        let before = clock()
        let payload = [UInt8](repeating: 7, count: 2 << 20)
        let result = try timed(client.function(Job.bytes), .seconds(60))(payload)
        let spent = clock() &- before
        func messages() -> [RawMessage] { raw.received.flatMap { RawMessage.all(in: $0.dropFirst().map { $0 }) } }
        eventually("the first part came") { messages().contains { $0.kind == .part } }
        let all = messages()
        let index = try #require(all.firstIndex { $0.kind == .part })
        #expect(all[index - 1].kind == .beat)
        let request = try all[index].payload.withUnsafeBytes { try Header(reading: $0) }
        #expect(request.kind == .request && request.id == result.correlationID.rawValue)
        // Together they say when its time is over, rounded up to a millisecond.
        let limit = all[index - 1].header.time &+ request.time * 1000 &- before
        #expect(limit >= 60_000_000 && limit <= 60_002_000 + spent, "\(limit) us")
        client.closeBlocking()
        raw.stop()
    }

    @Test("S28 a client stamps what has a limit, in the order of its clock", .timeLimit(.minutes(1)))
    func stamps() throws {
        let raw = try RawPeer(.router, bind: "tcp://127.0.0.1:*") { frames in
            guard let frames, let route = frames.first else { return [] }
            return RawMessage.all(in: frames.dropFirst().map { $0 })
                .compactMap { message in
                    switch message.kind {
                    case .hello:
                        let welcome = Packed.welcome(window: 10, isResumed: false)
                        return [route, RawMessage(.welcome, id: 7, payload: welcome).bytes]
                    case .request:
                        return [route, RawMessage(.reply, id: message.id, payload: Packed.value(1)).bytes]
                    default: return nil
                    }
                }
        }
        let client = try Client.forTest(raw.endpoint)
        let before = UInt32(truncatingIfNeeded: MonotonicClock.now() / 1000)
        #expect(try client.function(Job.echo).blocking(1) == 1)
        #expect(try timed(client.function(Job.echo), .seconds(60))(1).get() == 1)
        let messages = raw.received.flatMap { RawMessage.all(in: $0.dropFirst().map { $0 }) }
        let hello = try #require(messages.first { $0.kind == .hello })
        #expect(hello.header.time != 0)
        let request = try #require(messages.lastIndex { $0.kind == .request })
        let stamp = messages[request - 1]
        #expect(stamp.kind == .beat && stamp.id == hello.id && stamp.header.number == 0)
        #expect(stamp.header.time &- before < 60_000_000)
        #expect((59_000...60_000).contains(messages[request].header.time))
        client.closeBlocking()
        raw.stop()
    }

    @Test("S27 S28 a running handler sees how its caller's expiry moves", .timeLimit(.minutes(1)))
    func runningAndMoved() throws {
        try withRig { _, client in
            let untilLeft = timed(client.function(Job.untilLeft), .seconds(100))
            for (expiry, least, most) in [(200, 150, 200), (nil, -1, -1), (60, 40, 60)] as [(Int?, Int, Int)] {
                let result = try untilLeft(least, most)
                eventually("it runs") { if case .running = result.phase { true } else { false } }
                #expect(result.setExpiry(expiry.map { .seconds($0) }))
                #expect(try result.wait(timeout: .seconds(20)), "\(expiry ?? -1) never came")
                if result.isReady { #expect(try (least...most).contains(result.get())) }
            }
        }
    }

    @Test("S27 what a worker is told of a moved expiry is what is left of it", .timeLimit(.minutes(1)))
    func movedOnTheWire() throws {
        try withRawWorker { raw, client in
            let result = try timed(client.function(Job.echo), .seconds(100))(1)
            eventually("the request came") { raw.requests.count == 1 }
            result.setExpiry(.seconds(500))
            // One that follows at once would replace it before it is sent.
            eventually("the first was told") { raw.messages.contains { $0.kind == .deadline } }
            result.setExpiry(nil)
            let id = result.correlationID.rawValue
            eventually("both were told") { raw.messages.count { $0.kind == .deadline } == 2 }
            let told = raw.messages.filter { $0.kind == .deadline }
            #expect(told.allSatisfy { $0.id == id && $0.payload.isEmpty })
            #expect((450_000...500_000).contains(told.first?.header.time ?? 0))
            #expect(told.last?.header.time == Header.noTimeLimit)
        }
    }

    @Test(
        "S29 S30 S36 S38 A10 A11 zero and less expire what is pending and leave what has ended",
        .timeLimit(.minutes(1))
    )
    func zero() throws {
        let rig = try Rig()
        let client = try rig.client()
        for limit in [Duration.zero, .seconds(-1)] {
            let pending = try client.function(Job.gated).async("\(limit)")
            #expect(pending.setExpiry(limit))
            #expect(pending.hasExpired)
            #expect(!pending.setExpiry(.seconds(60)))
            #expect(!pending.setExpiry(nil))
            #expect(pending.hasExpired)
        }
        let past = try client.function(Job.gated).async("past")
        #expect(past.setDeadline(at: ContinuousClock.now - .seconds(1)))
        #expect(past.hasExpired)
        let done = try client.function(Job.echo).async(5)
        #expect(try done.get() == 5)
        #expect(!done.setExpiry(.zero))
        #expect(try done.get() == 5)
        client.closeBlocking()
        rig.stop()
    }

    @Test("S31 S32 A12 A13 a huge expiry is never, and the wall clock plays no part", .timeLimit(.minutes(1)))
    func huge() throws {
        let rig = try Rig()
        let client = try rig.client()
        for limit in [Duration.seconds(100 * 365 * 86_400), .seconds(Int64.max)] {
            let result = try client.function(Job.echo).async(1)
            _ = result.setExpiry(limit)
            #expect(try result.wait(timeout: limit))
            #expect(try result.get() == 1)
        }
        // Deadlines come from the monotonic clock: the only one that the library reads.
        let waiting = try client.function(Job.gated).async("a")
        waiting.setExpiry(.seconds(100))
        #expect(waiting.outcome == nil)
        client.closeBlocking()
        rig.stop()
    }

    @Test(
        "S34 S35 S37 S41 A7 the deadline holds whatever callbacks do, a late reply goes to the hook",
        .timeLimit(.minutes(1))
    )
    func lateReply() throws {
        let late = Gathered<LateReply>()
        let raw = try RawWorker()
        let client = try Client.forTest(raw.endpoint) { $0.onLateReply = { late.add($0) } }
        let result = try client.function(Job.echo).async(1)
        let seen = Gathered<Bool>()
        result.addCallback { seen.add($0.hasExpired) }
        eventually("the request came") { raw.requests.count == 1 }
        result.setExpiry(.milliseconds(20))
        #expect(throws: AsyncResultTimeout.self) { try result.wait() }
        raw.send(RawMessage(.reply, id: result.correlationID.rawValue, payload: Packed.value(1)))
        eventually("the hook ran") { late.count == 1 }
        #expect(late.values.first?.function == "echo")
        #expect(seen.values == [true])
        #expect(result.hasExpired && client.statistics.lateReplies == 1)
        client.closeBlocking()
        raw.stop()
    }

    @Test("S58 S59 S60 S63 A14 A15 timed gives each call a deadline of its own", .timeLimit(.minutes(1)))
    func timedCalls() async throws {
        let rig = try Rig()
        let client = try rig.client()
        let brief = timed(client.function(Job.gated), .milliseconds(100))
        let first = try brief("first")
        rig.gate.open("first")
        #expect(try await first.value == "first")
        let second = try brief("second")
        await #expect(throws: AsyncResultTimeout.self) { try await second.value }
        #expect(try await timed(client.function(Job.echo), nil)(1).value == 1)
        let never = try timed(client.function(Job.echo), .zero)(1)
        #expect(never.hasExpired)
        let negative = try timed(client.function(Job.echo), .seconds(-1))(1)
        #expect(negative.hasExpired)
        await #expect(throws: AsyncResultTimeout.self) {
            try await client.call(Job.gated, "third", timeout: .milliseconds(20))
        }
        #expect(try await client.call(Job.echo, 2, timeout: .seconds(10)) == 2)
        await client.close()
        await rig.running.stop(grace: .zero)
    }

    @Test("A36 without a worker a call expires and says that none has accepted it", .timeLimit(.minutes(1)))
    func noWorker() throws {
        let client = try Client.forTest("tcp://127.0.0.1:9")
        let result = try timed(client.function(Job.echo), .milliseconds(50))(1)
        let error = #expect(throws: AsyncResultTimeout.self) { try result.get() }
        #expect(error?.phase == .local)
        #expect(error.map { "\($0)".contains("not accepted") } == true)
        client.closeBlocking()
    }

    @Test("A43 an expiry is punctual while an event's callback sleeps", .timeLimit(.minutes(1)))
    func besideSlowCallback() throws {
        let rig = try Rig()
        let client = try rig.client()
        let inside = Gathered<Int>()
        let callback = client.callback { (number: Int) in
            inside.add(number)
            block(for: .milliseconds(500))
        }
        _ = try client.function(Job.tick).async(callback, 1, 0)
        eventually("the callback sleeps") { inside.count == 1 }
        let result = try client.function(Job.gated).async("a")
        result.setExpiry(.milliseconds(50))
        #expect(throws: AsyncResultTimeout.self) { try result.wait() }
        client.closeBlocking()
        rig.stop()
    }
}
