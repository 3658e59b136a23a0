// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire
import DroverZMQ
import Foundation
import Synchronization
import Testing

@testable import Drover

extension ServingTests {
    /// Contract section G: events that the server initiates.
    @Suite(.serialized)
    struct EventTests {}
}

extension ServingTests.EventTests {
    @Test("S82 no more events are on their way than may, and that they were sent isn't enough")
    func unreadEvents() throws {
        // No loop takes anything out of this one's mailbox.
        let core = try WorkerCore(configuration: WorkerConfiguration(), handlers: [:])
        defer { core.finish() }
        let client = PeerID(high: 0, low: 1)
        let subscriber = core.subscribers.subscriber(SubscriptionID(1), of: client, via: nil, core: core)
        func emit() throws -> Bool { try subscriber.give(RequestBytes()) }
        for _ in 0..<EventWindow.limit { #expect(try emit()) }
        #expect(try !emit())
        #expect(core.counters.eventsHeldBack.current == 1)
        let run = subscriber.takeEvents(leaving: EventRun())
        #expect(run.count == EventWindow.limit && run.units == EventWindow.limit)
        let mustAsk = subscriber.sent(run.units)
        #expect(try mustAsk && !emit())
        _ = subscriber.read()
        #expect(try emit())
        // A pause counts as no room, and its end as room.
        subscriber.pause(true)
        #expect(try !emit())
        subscriber.pause(false)
        #expect(try emit())
        subscriber.end()
        #expect(throws: RemoteError.self) { try emit() }
    }

    @Test("S74 a callback is a value: echoed back equal, passed on, called and emitted to", .timeLimit(.minutes(1)))
    func passing() throws {
        let (one, other) = (try Rig(), try Rig())
        let client = try Client.forTest(one.endpoint)
        let double = client.callback(.init(lifetime: .untilCancelled)) { (number: Int) in 2 * number }
        let echoed = try client.function(Job.echoCallback).blocking(double)
        #expect(echoed == double)
        #expect(echoed.client == client.identity)
        #expect(Set([double, echoed]).count == 1)
        let different = client.callback { (number: Int) in number }
        #expect(different != double)
        // As bytes of another encoder.
        let data = try JSONEncoder().encode(double)
        #expect(try JSONDecoder().decode(Callback<Int, Int>.self, from: data) == double)
        // What one worker gave back goes to the other.
        let both = try Client.forTest(one.endpoint, other.endpoint)
        let squared = both.callback(.init(lifetime: .untilCancelled)) { (number: Int) in number * number }
        let passed = try both.function(Job.echoCallback).blocking(squared)
        for number in 0..<20 { #expect(try both.function(Job.ask).blocking(passed, number) == number * number) }
        #expect(one.running.status.received > 1 && other.running.status.received > 1)
        #expect(throws: UsageError.self) { try double.emit(1) }
        client.closeBlocking()
        both.closeBlocking()
        one.stop()
        other.stop()
    }

    @Test("S75 events are delivered while the client makes no call", .timeLimit(.minutes(1)))
    func idleClient() throws {
        let rig = try Rig()
        let client = try rig.client()
        let events = Gathered<Int>()
        let (sixth, returned) = (ReadySignal<Void>(), ReadySignal<Void>())
        let callback = client.callback { (number: Int) in
            events.add(number)
            if number == 5 { _ = sixth.set(()) }
        }
        try client.function(Job.tick).async(callback, 6, 0.02).addCallback { _ in _ = returned.set(()) }
        #expect(sixth.wait(until: MonotonicClock.deadline(after: .seconds(10))) != nil)
        #expect(events.values == Array(0..<6))
        _ = returned.wait(until: MonotonicClock.deadline(after: .seconds(10)))
        client.closeBlocking()
        rig.stop()
    }

    @Test(
        "S76 events of a subscription are delivered in order, one at a time, never re-entrant",
        .timeLimit(.minutes(1))
    )
    func order() throws {
        let rig = try Rig()
        let client = try rig.client()
        let echo = client.function(Job.echo)
        let events = Gathered<Int>()
        let inside = Atomic<Int>(0)
        let deepest = Atomic<Int>(0)
        let callback = client.callback { (number: Int) in
            let depth = inside.add(1, ordering: .relaxed).newValue
            deepest.max(depth, ordering: .relaxed)
            // Waits inside, while more events come.
            if number % 50 == 0 { _ = try echo.blocking(number) }
            events.add(number)
            inside.subtract(1, ordering: .relaxed)
        }
        #expect(try client.function(Job.tick).blocking(callback, 2000, 0) == 2000)
        eventually("all events were delivered") { events.count == 2000 }
        #expect(events.isCounting(to: 2000))
        #expect(deepest.load(ordering: .relaxed) == 1)
        client.closeBlocking()
        rig.stop()
    }

    @Test("S76 subscriptions run concurrently only if asked", .timeLimit(.minutes(1)))
    func concurrency() throws {
        let rig = try Rig()
        let client = try rig.client()
        let entered = ReadySignal<Void>()
        let release = ReadySignal<Void>()
        let order = Gathered<String>()
        let slow = client.callback { (_: Int) in
            _ = entered.set(())
            release.wait()
            order.add("slow")
        }
        let usual = client.callback { (_: Int) in order.add("usual") }
        let own = client.callback(.init(executor: OwnThread())) { (_: Int) in order.add("own") }
        let tick = client.function(Job.tick)
        let calls = [try tick.async(slow, 1, 0)]
        entered.wait()
        #expect(try tick.blocking(usual, 1, 0) == 1)
        #expect(try tick.blocking(own, 1, 0) == 1)
        eventually("the one with its own executor ran") { order.values == ["own"] }
        _ = release.set(())
        eventually("the others ran") { order.values == ["own", "slow", "usual"] }
        for call in calls { _ = try call.get() }
        client.closeBlocking()
        rig.stop()
    }

    @Test("S76 events carry a sequence number, and gaps show", .timeLimit(.minutes(1)))
    func gaps() throws {
        let raw = try RawWorker { message in
            guard message.kind == .request else { return [] }
            // Numbers 0 and 4: three are missing.
            return [0, 4].map { RawMessage(.event, id: $0, number: 1, payload: Packed.arguments(Int($0))) }
        }
        let client = try Client.forTest(raw.endpoint)
        let events = Gathered<Int>()
        let callback = client.callback { (number: Int) in events.add(number) }
        #expect(callback.subscription.rawValue == 1)
        let call = try client.function(Job.tick).async(callback, 2, 0)
        eventually("the events came") { events.values == [0, 4] }
        #expect(client.statistics(of: callback)?.missing == 3)
        #expect(client.statistics(of: callback)?.received == 2)
        // Numbers that no worker gives: the count stays at what it can hold. One that was missing comes after all.
        for id in [UInt64.max - 1, 5, .max] {
            raw.send(RawMessage(.event, id: id, number: 1, payload: Packed.arguments(1)))
        }
        eventually("they came") { client.statistics(of: callback)?.received == 5 }
        #expect(client.statistics(of: callback)?.missing == .max - 1)
        call.cancel()
        client.closeBlocking()
        raw.stop()
    }

    @Test("the answer to a call of a former session is not taken for one of the next", .timeLimit(.minutes(1)))
    func formerAnswer() throws {
        let raw = try RawWorker()
        let client = try Client.forTest(raw.endpoint)
        let gate = Gate()
        let callback = client.callback(.init(lifetime: .untilCancelled)) { (key: String) -> String in
            gate.enter(key)
            while !gate.isOpen(key) { usleep(1000) }
            return key
        }
        let number = callback.subscription.rawValue
        let call = try client.function(Job.echo).async(1)
        eventually("there is a session") { raw.requests.count == 1 }
        raw.send(RawMessage(.invoke, id: 1, number: number, payload: Packed.arguments("former")))
        eventually("it runs") { gate.begun == ["former"] }
        raw.update { $0.epoch = 78 }
        raw.send(RawMessage(.beat, id: 78))
        eventually("the call is lost") { call.isReady }
        eventually("another session") { client.statistics.sessions == 2 }
        // The worker in its new life gives the same number.
        raw.send(RawMessage(.invoke, id: 1, number: number, payload: Packed.arguments("next")))
        gate.open("former")
        eventually("the next runs") { gate.begun == ["former", "next"] }
        gate.open("next")
        eventually("it is answered") { raw.messages.contains { $0.kind == .reply } }
        let answers = try raw.messages.filter { $0.kind == .reply }.map { try $0.value(as: String.self) }
        #expect(answers == ["next"])
        client.closeBlocking()
        raw.stop()
    }

    @Test("S77 an event's callback may call the worker, blocking or async, and order is kept", .timeLimit(.minutes(1)))
    func callingBack() throws {
        let rig = try Rig()
        let client = try rig.client()
        let echo = client.function(Job.echo)
        let seen = Gathered<Int>()
        let later = Gathered<Int>()
        let callback = client.callback { (number: Int) in
            seen.add(try echo.blocking(number))
            try echo.async(number).addCallback { later.add(try $0.get()) }
        }
        #expect(try client.function(Job.tick).blocking(callback, 50, 0) == 50)
        eventually("both kinds of calls were answered") { seen.count == 50 && later.count == 50 }
        #expect(seen.values == Array(0..<50))
        #expect(later.values.sorted() == Array(0..<50))

        let awaiting = Gathered<Int>()
        let asynchronous = client.asyncCallback { @concurrent (number: Int) async throws -> Nothing in
            awaiting.add(try await echo(number))
            return Nothing()
        }
        #expect(try client.function(Job.tick).blocking(asynchronous, 20, 0) == 20)
        eventually("the awaited calls were answered") { awaiting.count == 20 }
        #expect(awaiting.values == Array(0..<20))
        client.closeBlocking()
        rig.stop()
    }

    @Test("S78 a slow event callback delays no calls of other threads", .timeLimit(.minutes(1)))
    func slow() throws {
        let rig = try Rig()
        let client = try rig.client()
        let entered = ReadySignal<Void>()
        let release = ReadySignal<Void>()
        let callback = client.callback { (_: Int) in
            _ = entered.set(())
            release.wait()
        }
        let call = try client.function(Job.tick).async(callback, 1, 0)
        entered.wait()
        for number in 0..<20 {
            let time = try elapsed { _ = try client.function(Job.echo).blocking(number) }
            #expect(time < .milliseconds(isSanitized ? 500 : 50))
        }
        _ = release.set(())
        #expect(try call.get() == 1)
        client.closeBlocking()
        rig.stop()
    }

    @Test("S78 a full queue follows its policy and counts", .timeLimit(.minutes(1)))
    func overflow() throws {
        let rig = try Rig()
        let client = try rig.client()
        func overflow(_ policy: OverflowPolicy) throws -> (events: [Int], statistics: SubscriptionStatistics?) {
            let entered = ReadySignal<Void>()
            let release = ReadySignal<Void>()
            let events = Gathered<Int>()
            let options = CallbackOptions(lifetime: .untilCancelled, queueLimit: 10, overflow: policy)
            let callback = client.callback(options) { (number: Int) in
                if number == 0 {
                    _ = entered.set(())
                    release.wait()
                }
                events.add(number)
            }
            // The first is being run; of the others ten have room.
            let first = try client.function(Job.tick).async(callback, 1, 0)
            entered.wait()
            _ = try first.get()
            do { _ = try client.function(Job.tick).blocking(callback, 31, 0) } catch let error as RemoteError {
                #expect(policy == .unsubscribe && error.code == .subscriberGone)
            }
            _ = release.set(())
            // A round trip through the callback queue, behind what waits there.
            let marker = ReadySignal<Void>()
            try client.function(Job.echo).async(0).addCallback { _ in _ = marker.set(()) }
            marker.wait()
            // The worker's reply came after its events, so they have all been delivered or dropped.
            let statistics = client.statistics(of: callback)
            #expect(statistics.map { $0.delivered + $0.dropped } == statistics?.received)
            client.cancel(callback)
            #expect(client.statistics(of: callback) == statistics)
            return (events.values, statistics)
        }
        let oldest = try overflow(.dropOldest)
        #expect(oldest.events == [0] + Array(21..<31))
        #expect(oldest.statistics?.dropped == 21)
        #expect(oldest.statistics?.received == 32)
        let newest = try overflow(.dropNewest)
        #expect(newest.events == [0, 0] + Array(1..<10))
        #expect(newest.statistics?.dropped == 21)
        let ended = try overflow(.unsubscribe)
        #expect((1...21).contains(ended.statistics?.dropped ?? 0))
        #expect(ended.events == [0, 0] + Array(1..<10))
        let pushed = try overflow(.pushBack)
        #expect(pushed.events == [0] + Array(0..<31))
        #expect(pushed.statistics?.dropped == 0)
        client.closeBlocking()
        rig.stop()
    }

    @Test(
        "S78 push back makes the worker pause and go on, and loses nothing that was accepted",
        .timeLimit(.minutes(1))
    )
    func pushBack() throws {
        let rig = try Rig()
        let accepted = Function<Callback<Int, Nothing>, Int, Int>("accepted")
        rig.worker.register(accepted) { (callback: Callback<Int, Nothing>, count: Int) in
            var pauses = 0
            for number in 0..<count {
                while try !callback.tryEmit(number) {
                    pauses += 1
                    usleep(500)
                }
                usleep(100)
            }
            return pauses
        }
        let paced = try rig.worker.start(.bind("tcp://127.0.0.1:*"))
        let client = try Client.forTest(paced.endpoint)
        let events = Gathered<Int>()
        let callback = client.callback(.init(queueLimit: 50, overflow: .pushBack)) { (number: Int) in
            usleep(1000)
            events.add(number)
        }
        #expect(try client.function(accepted).blocking(callback, 500) > 0)
        eventually("all events were delivered") { events.count == 500 }
        #expect(events.isCounting(to: 500))
        client.closeBlocking()
        paced.stopBlocking(grace: .zero)
        rig.stop()
    }

    @Test(
        "S79 a callback's error is reported with its subscription, and goes to a worker that waits",
        .timeLimit(.minutes(1))
    )
    func throwing() throws {
        let rig = try Rig()
        let reports = Gathered<CallbackErrorSource>()
        let client = try rig.client {
            $0.name = "teller"
            $0.onCallbackError = { _, source in reports.add(source) }
        }
        let callback = client.callback { (_: Int) -> Int in throw FixtureError(message: "event trouble") }
        let error = #expect(throws: RemoteError.self) { try client.function(Job.ask).blocking(callback, 5) }
        #expect(error?.message.contains("event trouble") == true)
        #expect(error?.trace.contains("teller") == true)
        #expect(error?.trace.contains("ask") == true)
        #expect(reports.values == [.subscription(callback.subscription)])

        let lines = Gathered<String>()
        let logging = try rig.client { $0.logger = .calling { _, line in lines.add(line) } }
        let other = logging.callback { (_: Int) -> Int in throw FixtureError(message: "event trouble") }
        _ = #expect(throws: RemoteError.self) { try logging.function(Job.ask).blocking(other, 5) }
        #expect(lines.values.contains { $0.contains("event trouble") && $0.contains("subscription") })
        client.closeBlocking()
        logging.closeBlocking()
        rig.stop()
    }

    @Test(
        "S80 a subscription ends by the client, by the worker, with its job, or with the client",
        .timeLimit(.minutes(1))
    )
    func lifetime() throws {
        let rig = try Rig()
        let client = try rig.client()
        func make(_ lifetime: CallbackLifetime) -> (Callback<Int, Nothing>, WeakWitness) {
            let witness = Witness()
            let weak = WeakWitness(witness)
            return (client.callback(.init(lifetime: lifetime)) { (_: Int) in _ = witness }, weak)
        }
        // With its job, by default.
        let (scoped, scopedWitness) = make(.job)
        #expect(try client.function(Job.tick).blocking(scoped, 3, 0) == 3)
        eventually("the closure is released", within: .seconds(1)) { scopedWitness.isGone }
        // By the client.
        let (kept, keptWitness) = make(.untilCancelled)
        #expect(try client.function(Job.tick).blocking(kept, 3, 0) == 3)
        #expect(!keptWitness.isGone)
        #expect(client.statistics.subscriptionsNow == 1)
        client.cancel(kept)
        eventually("the closure is released", within: .seconds(1)) { keptWitness.isGone }
        // By the worker.
        let (held, heldWitness) = make(.untilCancelled)
        _ = try client.function(Job.hold).blocking(held)
        #expect(!heldWitness.isGone)
        _ = try client.function(Job.drop).blocking()
        eventually("the closure is released", within: .seconds(1)) { heldWitness.isGone }
        // With the client.
        let (last, lastWitness) = make(.untilCancelled)
        _ = try client.function(Job.hold).blocking(last)
        #expect(!lastWitness.isGone)
        client.closeBlocking()
        eventually("the closure is released", within: .seconds(1)) { lastWitness.isGone }
        rig.stop()
    }

    @Test("S81 a worker is told that its subscriber is gone; no other job sees it", .timeLimit(.minutes(1)))
    func clientGone() throws {
        let rig = try Rig()
        let leaving = try rig.client()
        let staying = try rig.client()
        let events = Gathered<Int>()
        let callback = leaving.callback(.init(lifetime: .untilCancelled)) { (number: Int) in events.add(number) }
        let lost = try leaving.function(Job.emitUntilGone).async(callback)
        let mine = staying.callback { (_: Int) in }
        let ticking = try staying.function(Job.tick).async(mine, 50, 0.01)
        eventually("events flow") { events.count > 3 }
        leaving.closeBlocking()
        #expect(lost.isTerminal)
        #expect(try ticking.get() == 50)
        // Its handler saw subscriberGone and returned: all four places are free.
        eventually("the handler has returned", within: .seconds(3)) { rig.running.status.running == 0 }
        #expect(rig.running.status.failed == 0)
        #expect(try staying.function(Job.echo).blocking(1) == 1)
        staying.closeBlocking()
        rig.stop()
    }

    @Test("S82 an event leaves nothing behind in either side's tables", .timeLimit(.minutes(1)))
    func unserved() throws {
        let rig = try Rig()
        let client = try rig.client()
        let count = Atomic<Int>(0)
        let callback = client.callback { (_: Int) in count.add(1, ordering: .relaxed) }
        let call = try client.function(Job.tick).async(callback, 5000, 0)
        #expect(try call.get() == 5000)
        eventually("all were delivered") { count.load(ordering: .relaxed) == 5000 }
        eventually("the tables are empty") {
            let statistics = client.statistics
            return statistics.tableEntriesNow == 0 && statistics.timersNow == 0 && statistics.subscriptionsNow == 0
        }
        #expect(client.statistics.events == 5000)
        client.closeBlocking()
        rig.stop()
    }

    @Test(
        "S83 an event that was sent before the reply is delivered before the result's callback",
        .timeLimit(.minutes(1))
    )
    func beforeTheResult() throws {
        let rig = try Rig()
        let client = try rig.client()
        let tick = client.function(Job.tick)
        for _ in 0..<200 {
            let events = Gathered<Int>()
            let atResult = ReadySignal<Int>()
            let callback = client.callback { (number: Int) in events.add(number) }
            try tick.async(callback, 5, 0).addCallback { _ in _ = atResult.set(events.count) }
            #expect(atResult.wait(until: MonotonicClock.deadline(after: .seconds(10))) == 5)
        }
        client.closeBlocking()
        rig.stop()
    }

    @Test("S84 a handle's events can be read as a stream that ends with the job", .timeLimit(.minutes(1)))
    func stream() async throws {
        let rig = try Rig()
        let client = try rig.client()
        let result = try client.function(Job.report).async(25)
        var numbers: [Int] = []
        for await event in result.events {
            #expect(event.sequence == numbers.count)
            numbers.append(try event.value(as: Int.self))
        }
        #expect(numbers == Array(0..<25))
        #expect(result.isTerminal)
        #expect(try await result.value == 25)
        // A job that never answers: the stream ends when it is cancelled.
        let stuck = try client.function(Job.gated).async("stuck")
        let ended = Task { for await _ in stuck.events {} }
        stuck.cancel()
        await ended.value
        await client.close()
        await rig.running.stop(grace: .zero)
    }

    // MARK: Scenarios

    @Test("A28 a hundred events come in order, each in under 10 ms, none on the main thread", .timeLimit(.minutes(1)))
    func hundredEvents() throws {
        try self.hundredEvents(limit: .milliseconds(10)) { done in
            _ = done.wait(until: MonotonicClock.deadline(after: .seconds(20)))
        }
    }

    @Test("A29 as A28, while the main thread calls all the time", .timeLimit(.minutes(1)))
    func hundredEventsBesideCalls() throws {
        let rig = try Rig()
        let client = try rig.client()
        let echo = client.function(Job.echo)
        try self.hundredEvents(limit: .milliseconds(50)) { done in
            var number = 0
            while done.current == nil, number < 1_000_000 {
                number += 1
                let value = try echo.blocking(number)
                #expect(value == number)
            }
        }
        client.closeBlocking()
        rig.stop()
    }

    private func hundredEvents(
        limit: Duration,
        meanwhile: (ReadySignal<Void>) throws -> Void
    ) throws {
        // Order and thread are right each time. Another program may take the processor now and then, so one run of
        // several must be in time.
        var worst = Duration.seconds(3600)
        for _ in 0..<5 where worst >= limit { worst = min(worst, try self.slowestOfHundred(meanwhile: meanwhile)) }
        if !isSanitized { #expect(worst < scaled(limit), "the slowest event took \(worst)") }
    }

    private func slowestOfHundred(meanwhile: (ReadySignal<Void>) throws -> Void) throws -> Duration {
        let rig = try Rig()
        let client = try rig.client()
        let numbers = Gathered<Int>()
        let latencies = Gathered<UInt64>()
        let threads = Gathered<UInt>()
        let done = ReadySignal<Void>()
        let callback = client.callback { (number: Int, sentAt: UInt64) in
            latencies.add(Clock.now() - sentAt)
            numbers.add(number)
            threads.add(ThreadID.current.number)
        }
        let main = ThreadID.current.number
        let call = try client.function(Job.stampedTick).async(callback, 100, 0.01)
        call.addCallback { _ in _ = done.set(()) }
        try meanwhile(done)
        #expect(try call.get() == 100)
        #expect(numbers.values == Array(0..<100))
        #expect(!threads.values.contains(main))
        client.closeBlocking()
        rig.stop()
        return .nanoseconds(Int64(latencies.values.max() ?? 0))
    }

    @Test("A30 a worker uses what the callback returns", .timeLimit(.minutes(1)))
    func doubling() throws {
        let rig = try Rig()
        let client = try rig.client()
        let double = client.callback { (number: Int) in 2 * number }
        #expect(try client.function(Job.ask).blocking(double, 5) == 10)
        client.closeBlocking()
        rig.stop()
    }

    @Test("A31 a callback's error reaches the caller with its name and both hops", .timeLimit(.minutes(1)))
    func throwingAnswer() throws {
        let rig = try Rig { $0.name = "hop-worker" }
        let client = try rig.client {
            $0.name = "hop-client"
            $0.onCallbackError = { _, _ in }
        }
        let callback = client.callback { (_: Int) -> Int in throw FixtureError(message: "E") }
        let error = #expect(throws: RemoteError.self) { try client.function(Job.ask).blocking(callback, 5) }
        let text = error.map { "\($0.type) \($0.message) \($0.trace)" } ?? ""
        #expect(text.contains("FixtureError"))
        #expect(text.contains("hop-client") && text.contains("hop-worker"))
        client.closeBlocking()
        rig.stop()
    }

    @Test("A32 an event's callback that throws is reported once; the other events are handled", .timeLimit(.minutes(1)))
    func throwingOnce() throws {
        let rig = try Rig()
        let reports = Gathered<String>()
        let client = try rig.client { $0.onCallbackError = { error, _ in reports.add("\(error)") } }
        let handled = Gathered<Int>()
        let callback = client.callback { (number: Int) in
            guard number != 1 else { throw FixtureError(message: "one") }
            handled.add(number)
        }
        #expect(try client.function(Job.tick).blocking(callback, 3, 0) == 3)
        eventually("the others were handled") { handled.values == [0, 2] }
        #expect(reports.values == ["one"])
        client.closeBlocking()
        rig.stop()
    }

    @Test("A33 a held callback lives until the worker drops it", .timeLimit(.minutes(1)))
    func holding() throws {
        let rig = try Rig()
        let client = try rig.client()
        let first = ReadySignal<Void>()
        let weak: WeakWitness
        do {
            let witness = Witness()
            weak = WeakWitness(witness)
            let callback = client.callback(.init(lifetime: .untilCancelled)) { (_: Int) in
                _ = witness
                _ = first.set(())
            }
            _ = try client.function(Job.hold).blocking(callback)
        }
        #expect(first.wait(until: MonotonicClock.deadline(after: .seconds(5))) != nil)
        block(for: .milliseconds(300))
        #expect(!weak.isGone)
        _ = try client.function(Job.drop).blocking()
        eventually("the closure is released", within: .seconds(1)) { weak.isGone }
        client.closeBlocking()
        rig.stop()
    }

    @Test("a callback kept beyond its worker's life fails when used, and keeps nothing alive", .timeLimit(.minutes(1)))
    func beyondTheWorker() throws {
        let keep = Function<Callback<Int, Int>, Nothing>("keep")
        let kept = Gathered<Callback<Int, Int>>()
        // The worker has no session with the second client, so nothing ends its callback before the worker goes.
        let stranger = try Client.forTest("tcp://127.0.0.1:9")
        weak var core: WorkerCore?
        do {
            let worker = Worker()
            worker.register(keep) { callback in
                kept.add(callback)
                return Nothing()
            }
            let running = try worker.start(.bind("tcp://127.0.0.1:*"))
            core = running.core
            let client = try Client.forTest(running.endpoint)
            for owner in [client, stranger] {
                let callback = owner.callback(.init(lifetime: .untilCancelled)) { (number: Int) in number }
                _ = try client.function(keep).blocking(callback)
            }
            client.closeBlocking()
            running.stopBlocking(grace: .zero)
            for callback in kept.values { Self.expectGone(callback) }
        }
        eventually("the worker is released") { core == nil }
        #expect(kept.count == 2)
        for callback in kept.values { Self.expectGone(callback) }
        for callback in kept.values { callback.cancel() }
        stranger.closeBlocking()
    }

    private static func expectGone(_ callback: Callback<Int, Int>) {
        let emitting = #expect(throws: RemoteError.self) { try callback.emit(1) }
        #expect(emitting?.code == .subscriberGone)
        #expect(emitting?.message.contains("worker has stopped") == true)
        let calling = #expect(throws: RemoteError.self) { try callback.blocking(1) }
        #expect(calling?.code == .subscriberGone)
    }

    @Test("a client that is dropped while events wait delivers them and leaves nothing", .timeLimit(.minutes(1)))
    func droppedClient() throws {
        let rig = try Rig()
        let gate = Gate()
        let seen = Gathered<Int>()
        weak var core: ClientCore?
        let weakWitness: WeakWitness
        do {
            let witness = Witness()
            weakWitness = WeakWitness(witness)
            let client = try rig.client()
            core = client.core
            let callback = client.callback(.init(lifetime: .untilCancelled)) { (number: Int) in
                _ = witness
                gate.enter("\(number)")
                while number == 0, !gate.isOpen("go") { block(for: .milliseconds(1)) }
                seen.add(number)
                if number == 3 { throw FixtureError(message: "nobody is there to be told") }
            }
            #expect(try client.function(Job.tick).blocking(callback, 5, 0) == 5)
            eventually("the first is being delivered") { gate.begun == ["0"] }
        }
        eventually("the client has left") { rig.running.status.clients == 0 }
        gate.open("go")
        eventually("all were delivered") { seen.values == [0, 1, 2, 3, 4] }
        eventually("the closure is released") { weakWitness.isGone }
        eventually("the client is released") { core == nil }
        rig.stop()
    }

    @Test(
        "S76 no handler's events overtake each other, large or small, while another one emits to the same callback",
        .timeLimit(.minutes(1))
    )
    func largeAmongSmall() throws {
        var configuration = WorkerConfiguration()
        configuration.concurrency = 2
        let worker = Worker(configuration: configuration)
        let mixed = Function<Callback<Int, Int, [UInt8], Nothing>, Int, Int>("mixed")
        worker.register(mixed) { (callback: Callback<Int, Int, [UInt8], Nothing>, tag: Int) in
            for number in 0..<1000 {
                try callback.emit(tag, number, [UInt8](repeating: 0, count: number % 50 == 7 ? 200_000 : 20))
            }
            return tag
        }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        let client = try Client(running.endpoint)
        for _ in 0..<8 {
            let seen = Mutex<[Int: [Int]]>([:])
            let callback = client.callback(CallbackOptions(lifetime: .untilCancelled)) {
                (tag: Int, number: Int, _: [UInt8]) -> Void in
                seen.withLock { $0[tag, default: []].append(number) }
            }
            let calls = try (0..<2).map { try client.function(mixed).async(callback, $0) }
            for call in calls { _ = try call.get() }
            eventually("all have come") { seen.withLock { $0.values.reduce(0) { $0 + $1.count } } == 2000 }
            for numbers in seen.withLock({ $0 }).values { #expect(numbers == Array(0..<1000)) }
            client.cancel(callback)
        }
        client.closeBlocking()
        running.stopBlocking(grace: .zero)
    }

    @Test(
        "A34 a client that vanishes during its events is noticed; the worker serves the next",
        .timeLimit(.minutes(1))
    )
    func vanishing() throws {
        let rig = try Rig()
        let raw = try RawClient(rig.endpoint)
        raw.introduce(functions: "emitUntilGone")
        let reference = Packed.arguments(
            Callback<Int, Nothing>(client: raw.identity, subscription: SubscriptionID(1), lifetime: .job, link: nil)
        )
        raw.request(1, reference)
        _ = raw.messages(3) { $0.kind == .event }
        // Gone without a goodbye.
        raw.stop()
        eventually("the subscription is gone", within: .seconds(2)) {
            rig.running.status.clients == 0 && rig.running.status.running == 0
        }
        let next = try rig.client()
        #expect(try next.function(Job.echo).blocking(1) == 1)
        next.closeBlocking()
        rig.stop()
    }
}

/// Runs what it is given on a thread of its own.
final class OwnThread: CallbackExecutor {
    private let queue = DispatchQueue(label: "own")
    func run(_ work: @escaping @Sendable () -> Void) { self.queue.async(execute: work) }
}
