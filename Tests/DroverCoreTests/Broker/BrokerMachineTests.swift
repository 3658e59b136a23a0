// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire
import Testing

/// A broker's machine with what happened to it.
struct BrokerBench: ~Copyable {
    var machine: BrokerMachine
    var actions: [BrokerAction] = []
    var now = Instant(nanoseconds: 1_000_000)

    init(_ configuration: BrokerMachine.Configuration = .init(seed: 7)) {
        self.machine = BrokerMachine(configuration: configuration)
    }

    mutating func client(_ number: UInt64) throws -> Int {
        let introduction = self.machine.helloReceived(
            client: PeerID(high: 1, low: number),
            epoch: number,
            route: number,
            at: self.now,
            actions: &self.actions
        )
        guard case .welcome(let client, _) = introduction else { throw CancellationError() }
        _ = self.machine.defined(0, name: "f", by: client)
        _ = self.machine.defined(1, name: "g", by: client)
        return client
    }

    mutating func worker(
        _ number: UInt64,
        concurrency: Int = 1,
        functions: [String] = ["f"],
        queues: Set<String> = [""],
        labels: [String: String] = [:],
        resources: [String: UInt64] = [:]
    ) throws -> Int {
        let offer = WorkerOffer(
            worker: PeerID(high: 2, low: number),
            epoch: number,
            concurrency: concurrency,
            functions: functions,
            queues: queues,
            labels: labels,
            resources: resources
        )
        let index = self.machine.offerReceived(offer, route: 1 << 32 | number, at: self.now, actions: &self.actions)
        let worker = try #require(index)
        self.machine.welcomed(by: worker, epoch: number, session: 7, window: 1024, at: self.now, actions: &self.actions)
        return worker
    }

    @discardableResult
    mutating func request(
        _ id: UInt64,
        from client: Int,
        time: UInt32 = Header.noTimeLimit,
        isIdempotent: Bool = false,
        priority: UInt8 = 4,
        demands: Demands? = nil,
        key: String? = nil,
        byteCount: Int = 0
    ) -> BrokerVerdict {
        var request = BrokerRequest(id: id, number: 0)
        request.time = time
        request.isIdempotent = isIdempotent
        request.priority = priority
        request.demands = demands
        request.key = key
        request.byteCount = byteCount
        return self.machine.requestReceived(request, from: client, at: self.now, actions: &self.actions)
    }

    /// What was sent since, as client's id and worker.
    mutating func transmitted() -> [(call: UInt64, worker: Int, id: UInt64)] {
        defer { self.actions = [] }
        return self.actions.compactMap {
            guard case .transmit(let slot, let worker, let id, _) = $0 else { return nil }
            return (self.machine.call(in: slot).id, worker, id)
        }
    }

    mutating func answer(_ id: UInt64, from worker: Int, ran microseconds: UInt32 = 0) -> BrokerAddressee? {
        self.machine.answered(
            id,
            ranMicroseconds: microseconds,
            from: worker,
            at: self.now,
            actions: &self.actions
        )
    }

    /// A worker binds a subscription of client 1.
    @discardableResult
    mutating func bind(_ number: UInt32, to subscription: UInt64, by worker: Int) -> Bool {
        let client = PeerID(high: 1, low: 1)
        return self.machine.bound(number, to: subscription, of: client, by: worker, actions: &self.actions)
    }

    /// Every worker says that it is ready, as in a beat.
    mutating func restateReadiness() {
        for worker in self.machine.workers.indices where self.machine.workers[worker].isLive {
            self.machine.readyReceived(
                from: worker,
                epoch: self.machine.workers[worker].offer.epoch,
                isQuiet: false,
                isStarved: false,
                at: self.now,
                actions: &self.actions
            )
        }
    }

    mutating func pass(milliseconds: UInt64) {
        self.now = self.now.advanced(byNanoseconds: milliseconds * 1_000_000)
        self.machine.ticked(at: self.now, actions: &self.actions)
    }
}

@Suite struct BrokerMachineTests {
    @Test("an answer goes to the client that asked, under its own id")
    func answers() throws {
        var bench = BrokerBench()
        let (ann, bob) = (try bench.client(1), try bench.client(2))
        let worker = try bench.worker(1, concurrency: 2)
        bench.request(5, from: ann)
        bench.request(5, from: bob)
        let sent = bench.transmitted()
        #expect(sent.map(\.call) == [5, 5])
        let second = bench.answer(sent[1].id, from: worker)
        #expect(second?.client == bob && second?.id == 5)
        let seen1 = bench.answer(sent[1].id, from: worker)
        #expect(seen1 == nil, "a second answer was accepted")
        let seen2 = bench.answer(sent[0].id, from: worker + 1)
        #expect(seen2 == nil, "a stranger's answer was accepted")
        let seen3 = bench.answer(sent[0].id, from: worker)
        #expect(seen3?.client == ann)
        #expect(bench.machine.callCount == 0 && bench.machine.sentCount == 0)
    }

    @Test("a client with a hundred thousand calls doesn't delay one with ten")
    func fairness() throws {
        var bench = BrokerBench()
        let (many, few) = (try bench.client(1), try bench.client(2))
        let worker = try bench.worker(1)
        for id in 1...100_000 { bench.request(UInt64(id), from: many) }
        for id in 1...10 { bench.request(UInt64(id), from: few) }
        #expect(bench.machine.callBytes / bench.machine.callCount < 150)
        var (answered, steps) = (0, 0)
        var open = bench.transmitted().map(\.id)
        while answered < 10, steps < 60, let id = open.first {
            open.removeFirst()
            steps += 1
            bench.now = bench.now.advanced(byNanoseconds: 10_000_000)
            if bench.answer(id, from: worker)?.client == few { answered += 1 }
            open += bench.transmitted().map(\.id)
        }
        #expect(answered == 10 && steps < 30, "took \(steps) calls")
    }

    @Test("higher priorities go first, calls of one client in their order")
    func priorities() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        for (id, priority) in [(1, 4), (2, 7), (3, 0), (4, 7)] {
            bench.request(UInt64(id), from: client, priority: UInt8(priority))
        }
        _ = try bench.worker(1, concurrency: 4)
        let seen4 = bench.transmitted()
        #expect(seen4.map(\.call) == [2, 4, 1, 3])
    }

    @Test("calls go only to workers with the queue, the labels and the resources")
    func demands() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let (eu, gpu) = (
            try bench.worker(1, labels: ["zone": "eu"]), try bench.worker(2, concurrency: 9, resources: ["gpu": 2])
        )
        _ = bench.transmitted()
        bench.request(1, from: client, demands: Demands(labels: ["zone": "eu"]))
        for id in 2...4 { bench.request(UInt64(id), from: client, demands: Demands(resources: ["gpu": 1])) }
        bench.request(5, from: client, demands: Demands(queue: "night"))
        let sent = bench.transmitted()
        #expect(sent.map(\.worker) == [eu, gpu, gpu])
        _ = bench.answer(sent[1].id, from: gpu)
        let seen5 = bench.transmitted()
        #expect(seen5.map(\.call) == [4])
        bench.pass(milliseconds: 10_001)
        #expect(bench.actions.contains { if case .finish(_, client, 5, .noWorker) = $0 { true } else { false } })
    }

    @Test("calls of one ordering key run one after the other, whoever asks")
    func orderingKeys() throws {
        var bench = BrokerBench()
        let (ann, bob) = (try bench.client(1), try bench.client(2))
        let worker = try bench.worker(1, concurrency: 8)
        bench.request(1, from: ann, key: "k")
        bench.request(2, from: bob, key: "k")
        bench.request(3, from: ann, key: "k")
        let first = bench.transmitted()
        #expect(first.map(\.call) == [1])
        bench.machine.clientLeft(bob, at: bench.now, actions: &bench.actions)
        _ = bench.answer(first[0].id, from: worker)
        let second = bench.transmitted()
        #expect(second.map(\.call) == [3])
        _ = bench.answer(second[0].id, from: worker)
        #expect(bench.machine.keyCount == 0)
    }

    @Test("a full queue says busy and when to try again")
    func bounded() throws {
        var configuration = BrokerMachine.Configuration(seed: 7)
        configuration.maxQueued = 2
        var bench = BrokerBench(configuration)
        let client = try bench.client(1)
        bench.request(1, from: client)
        bench.request(2, from: client)
        let verdict = bench.request(3, from: client)
        guard case .busy(let milliseconds) = verdict else {
            Issue.record("a call over the bound was taken")
            return
        }
        #expect(milliseconds >= 10)
    }

    @Test("credit grows for short calls, and stays at one per handler for long ones")
    func credit() throws {
        for (run, expected) in [(UInt64(5_000), 64...256), (30_000_000, 2...2)] {
            var bench = BrokerBench()
            let client = try bench.client(1)
            let worker = try bench.worker(1, concurrency: 2)
            for id in 1...2000 { bench.request(UInt64(id), from: client) }
            var open = bench.transmitted().map(\.id)
            for _ in 0..<1000 {
                bench.now = bench.now.advanced(byNanoseconds: run)
                _ = bench.answer(open.removeFirst(), from: worker)
                open += bench.transmitted().map(\.id)
                #expect(bench.machine.workers[worker].outstanding <= bench.machine.workers[worker].credit)
            }
            #expect(expected.contains(bench.machine.workers[worker].credit), "run time \(run)")
        }
    }

    @Test("credit follows the run time that answers say, however slowly a busy machine lets them come")
    func saidRunTime() throws {
        for (run, expected) in [(UInt32(1), 512...512), (30_000, 2...2)] {
            var bench = BrokerBench()
            let client = try bench.client(1)
            let worker = try bench.worker(1, concurrency: 2)
            for id in 1...2000 { bench.request(UInt64(id), from: client) }
            var open = bench.transmitted().map(\.id)
            for _ in 0..<1000 {
                bench.now = bench.now.advanced(byNanoseconds: 40_000_000)
                _ = bench.answer(open.removeFirst(), from: worker, ran: run)
                open += bench.transmitted().map(\.id)
            }
            #expect(expected.contains(bench.machine.workers[worker].credit), "run time \(run) µs")
        }
    }

    @Test("cancelled in the queue a call ends at once, at a worker when the worker says so")
    func cancel() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1)
        bench.request(1, from: client)
        bench.request(2, from: client)
        let sent = bench.transmitted()
        for id in [UInt64(2), 1] {
            let isKnown = bench.machine.cancelReceived(
                id,
                reason: .requested,
                from: client,
                at: bench.now,
                actions: &bench.actions
            )
            #expect(isKnown)
        }
        #expect(bench.actions.count == 2)
        #expect(bench.actions.last == .sendCancel(worker: worker, id: sent[0].id, reason: .requested))
        bench.machine.cancellationConfirmed(
            sent[0].id,
            stage: .whileRunning,
            from: worker,
            at: bench.now,
            actions: &bench.actions
        )
        #expect(bench.machine.callCount == 0)
    }

    @Test("a call whose time is over in the queue lapses")
    func deadline() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        bench.request(1, from: client, time: 20)
        bench.pass(milliseconds: 19)
        #expect(bench.machine.callCount == 1)
        bench.pass(milliseconds: 2)
        #expect(
            bench.actions.last.map { if case .finish(_, client, 1, .cancelled(.lapsed)) = $0 { true } else { false } }
                == true
        )
        #expect(bench.machine.callCount == 0)
    }

    @Test("a lost worker's idempotent calls go elsewhere in their order, the others end as lost")
    func lostWorker() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1, concurrency: 3)
        for id in 1...3 { bench.request(UInt64(id), from: client, isIdempotent: id != 2) }
        _ = bench.transmitted()
        bench.machine.goodbyeReceived(from: worker, reason: .leaving, at: bench.now, actions: &bench.actions)
        let isLost = bench.actions.contains {
            if case .finish(_, client, 2, .lost(.left, worker: "")) = $0 { true } else { false }
        }
        #expect(isLost)
        bench.actions = []
        _ = try bench.worker(2, concurrency: 3)
        let seen6 = bench.transmitted()
        #expect(seen6.map(\.call) == [1, 3])
    }

    @Test("what waits behind a worker that answers nothing is recalled and goes elsewhere")
    func stalled() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1)
        for id in 1...100 { bench.request(UInt64(id), from: client) }
        var open = bench.transmitted().map(\.id)
        for _ in 0..<50 {
            bench.now = bench.now.advanced(byNanoseconds: 5000)
            _ = bench.answer(open.removeFirst(), from: worker)
            open += bench.transmitted().map(\.id)
        }
        #expect(open.count > 1)
        bench.pass(milliseconds: 51)
        let recalled = bench.actions.compactMap { if case .recall(worker, let id) = $0 { id } else { nil } }
        #expect(recalled == Array(open.dropFirst()))
        bench.actions = []
        // Once, however long the worker takes.
        for _ in 0..<10 { bench.pass(milliseconds: 51) }
        #expect(!bench.actions.contains { if case .recall = $0 { true } else { false } })
        bench.actions = []
        let other = try bench.worker(2)
        for id in recalled {
            bench.machine.cancellationConfirmed(
                id,
                stage: .beforeStart,
                from: worker,
                at: bench.now,
                actions: &bench.actions
            )
        }
        let again = bench.transmitted()
        #expect(again.map(\.worker) == [other])
    }

    @Test("a draining or quiet worker gets nothing new")
    func draining() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let (one, two) = (try bench.worker(1, concurrency: 4), try bench.worker(2, concurrency: 4))
        bench.machine.goodbyeReceived(from: one, reason: .draining, at: bench.now, actions: &bench.actions)
        bench.machine.readyReceived(
            from: two,
            epoch: 2,
            isQuiet: true,
            isStarved: false,
            at: bench.now,
            actions: &bench.actions
        )
        bench.request(1, from: client)
        let seen7 = bench.transmitted()
        #expect(seen7.isEmpty)
        bench.machine.readyReceived(
            from: two,
            epoch: 2,
            isQuiet: false,
            isStarved: true,
            at: bench.now,
            actions: &bench.actions
        )
        let seen8 = bench.transmitted()
        #expect(seen8.map(\.worker) == [two])
    }

    @Test("clients of calls that wait for stalled workers alone are told so, once; others are not")
    func tellsOfStalledWorkers() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let workers = [try bench.worker(1, concurrency: 1), try bench.worker(2, concurrency: 1)]
        for id in UInt64(1)...4 { bench.request(id, from: client) }
        let sent = bench.transmitted()
        #expect(sent.count == 2)
        var told: [BrokerAction] = []
        let now = bench.now
        func ready(_ index: Int, isStalled: Bool) {
            var actions: [BrokerAction] = []
            bench.machine.readyReceived(
                from: workers[index],
                epoch: UInt64(index) + 1,
                isQuiet: false,
                isStarved: false,
                isStalled: isStalled,
                at: now,
                actions: &actions
            )
            told = actions.filter { if case .tellStalled = $0 { true } else { false } }
        }
        ready(0, isStalled: true)
        #expect(told == [])
        ready(1, isStalled: true)
        #expect(told == [.tellStalled(client: client, id: 3), .tellStalled(client: client, id: 4)])
        ready(0, isStalled: true)
        #expect(told == [])
        let waiting = bench.machine.explanations(of: 3).first
        #expect(waiting?.isStalled == true)
        #expect(waiting?.workers.map(\.obstacle) == [.stalled(calls: 1), .stalled(calls: 1)])
        ready(0, isStalled: false)
        let other = bench.machine.explanations(of: 4).first
        #expect(other?.workers.first?.obstacle == .full(calls: 1, credit: 1))
        // What a worker says of a call that it has is remembered as well.
        let first = bench.machine.addressee(sent[0].id, from: sent[0].worker)
        if let first {
            let now = bench.now
            var actions: [BrokerAction] = []
            bench.machine.phaseReported(first.slot, isStalled: true, at: now, actions: &actions)
        }
        let running = bench.machine.explanations(of: 1).first
        #expect(running?.isStalled == true)
    }

    @Test("events of several workers are numbered as one stream, and gaps stay gaps")
    func events() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let (one, two) = (try bench.worker(1), try bench.worker(2))
        for worker in [one, two] {
            let isBound = bench.bind(0, to: 9, by: worker)
            #expect(isBound)
        }
        let seen9 = bench.machine.eventReceived(0, sequence: 0, from: one)
        #expect(seen9?.id == 0)
        let seen10 = bench.machine.eventReceived(0, sequence: 0, from: two)
        #expect(seen10?.id == 1)
        let seen11 = bench.machine.eventReceived(0, sequence: 3, from: one)
        #expect(seen11?.id == 4)
        let delivery = bench.machine.invocationReceived(0, id: 77, from: two)
        let invocation = try #require(delivery)
        let seen12 = bench.machine.invocationAnswered(invocation.id, by: client + 1)
        #expect(seen12 == nil)
        let seen13 = bench.machine.invocationAnswered(invocation.id, by: client)
        #expect(seen13?.id == 77)
        bench.machine.clientLeft(client, at: bench.now, actions: &bench.actions)
        #expect(bench.actions.contains(.endSubscription(worker: one, number: 0)))
    }

    @Test("S76 what a worker says was lost behind its last event is passed over for the client, once, and told to it")
    func lostTail() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let (one, two) = (try bench.worker(1), try bench.worker(2))
        for worker in [one, two] { bench.bind(0, to: 9, by: worker) }
        let silent = bench.machine.statements(to: client)
        #expect(silent.isEmpty)
        _ = bench.machine.eventReceived(0, sequence: 0, from: one)
        _ = bench.machine.eventReceived(0, sequence: 0, from: two)
        // Events 1 to 6 of the first one were lost.
        let passed = bench.machine.questionReceived(5, afterEventsOf: 0, next: 7, from: one)
        #expect(passed?.next == 8 && passed?.client == client && passed?.stream == .subscription(9))
        let again = bench.machine.questionReceived(6, afterEventsOf: 0, next: 7, from: one)
        #expect(again?.next == 8)
        // One that says no number, and one that says less than came.
        let plain = bench.machine.questionReceived(7, afterEventsOf: 0, from: two)
        #expect(plain?.next == 8)
        let old = bench.machine.questionReceived(8, afterEventsOf: 0, next: 0, from: two)
        #expect(old?.next == 8)
        let next = bench.machine.eventReceived(0, sequence: 7, from: one)
        #expect(next?.id == 8)
        let other = bench.machine.invocationReceived(0, id: 3, from: two)
        #expect(other != nil)
        // The client's connection is another: it is told how many there were, whatever has become of them.
        let told = bench.machine.statements(to: client)
        #expect(told.map { $0.next } == [10] && told.map { $0.stream } == [.subscription(9)])
        let answer = bench.machine.questionAnswered(told[0].id, by: client)
        #expect(answer == nil)
        _ = bench.machine.endedReceived(0, by: one, actions: &bench.actions)
        let ended = bench.machine.statements(to: client)
        #expect(ended.map { $0.next } == [10] && ended.map { $0.isEnded } == [true])
        bench.machine.endedReceived(9, from: client, actions: &bench.actions)
        let over = bench.machine.statements(to: client)
        #expect(over.isEmpty)
        let unknown = bench.machine.questionReceived(9, afterEventsOf: 0, next: 99, from: one)
        #expect(unknown == nil)
    }
}
