// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire
import Testing

extension BrokerBench {
    mutating func lose(_ worker: Int) {
        self.machine.goodbyeReceived(from: worker, reason: .leaving, at: self.now, actions: &self.actions)
    }

    mutating func confirm(_ id: UInt64, _ stage: CancelledStage, from worker: Int) {
        self.machine.cancellationConfirmed(id, stage: stage, from: worker, at: self.now, actions: &self.actions)
    }

    mutating func cancel(_ id: UInt64, of client: Int) -> Bool {
        self.machine.cancelReceived(id, reason: .requested, from: client, at: self.now, actions: &self.actions)
    }

    /// A worker offers itself again, by the same route or another.
    mutating func offerAgain(
        _ number: UInt64,
        concurrency: Int = 1,
        epoch: UInt64? = nil,
        notices: Bool = false,
        route: UInt64
    ) -> Int? {
        let offer = WorkerOffer(
            worker: PeerID(high: 2, low: number),
            epoch: epoch ?? number,
            concurrency: concurrency,
            functions: ["f"],
            notices: notices
        )
        return self.machine.offerReceived(offer, route: route, at: self.now, actions: &self.actions)
    }

    mutating func welcome(by worker: Int, epoch: UInt64, session: UInt32 = 7) {
        self.machine.welcomed(
            by: worker,
            epoch: epoch,
            session: session,
            window: 1024,
            at: self.now,
            actions: &self.actions
        )
    }

    mutating func ready(_ worker: Int, epoch: UInt64, isStarved: Bool = false) {
        self.machine.readyReceived(
            from: worker,
            epoch: epoch,
            isQuiet: false,
            isStarved: isStarved,
            at: self.now,
            actions: &self.actions
        )
    }

    mutating func resend(_ id: UInt64, from client: Int, isIdempotent: Bool = false) -> BrokerVerdict {
        var request = BrokerRequest(id: id, number: 0)
        request.isResent = true
        request.isIdempotent = isIdempotent
        return self.machine.requestReceived(request, from: client, at: self.now, actions: &self.actions)
    }

    mutating func remember(_ id: UInt64, of client: Int, count: Int = 16) {
        let bytes = [UInt8](repeating: 1, count: count)
        unsafe bytes.withUnsafeBytes { unsafe self.machine.remember(id, message: $0, of: client) }
    }

    /// How calls ended without an answer since, by the client's id.
    func endings() -> [UInt64: BrokerEnding] {
        var endings: [UInt64: BrokerEnding] = [:]
        for case .finish(_, _, let id, let ending) in self.actions { endings[id] = ending }
        return endings
    }

    /// Time passes in which all peers but one are heard.
    mutating func passInSilence(of silent: BrokerPeer) {
        for _ in 0..<14 {
            self.pass(milliseconds: 500)
            for client in self.machine.clients.indices where self.machine.clients[client].isLive {
                if silent != .client(client) { self.machine.heard(from: .client(client), at: self.now) }
            }
            for worker in self.machine.workers.indices where self.machine.workers[worker].isLive {
                if silent != .worker(worker) { self.machine.heard(from: .worker(worker), at: self.now) }
            }
        }
    }
}

@Suite struct BrokerTimeTests {
    @Test("calls of one ordering key that lapse in the same tick all end, and none is sent")
    func lapseTogether() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        _ = try bench.worker(1)
        bench.request(1, from: client)
        for id in 2...4 { bench.request(UInt64(id), from: client, time: 20, key: "k") }
        _ = bench.transmitted()
        bench.now = bench.now.advanced(byNanoseconds: 25_000_000)
        bench.pass(milliseconds: 1)
        let endings = bench.endings()
        #expect(endings.count == 3 && endings.values.allSatisfy { $0 == .cancelled(.lapsed) })
        let sent = bench.transmitted()
        #expect(sent.isEmpty)
        #expect(bench.machine.queuedCount == 0 && bench.machine.keyCount == 0 && bench.machine.callCount == 1)
    }

    @Test("the key passes over calls whose time is over, however many")
    func longLine() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1)
        bench.request(1, from: client, key: "k")
        for id in 2...100_000 { bench.request(UInt64(id), from: client, time: 1, key: "k") }
        bench.request(100_001, from: client, key: "k")
        let first = bench.transmitted()
        bench.now = bench.now.advanced(byNanoseconds: 2_000_000)
        _ = bench.answer(first[0].id, from: worker)
        let next = bench.transmitted()
        #expect(next.map(\.call) == [100_001])
        #expect(bench.machine.timerCount == 0)
    }

    @Test("a call that waited is not sent when its time is over, even if the clock wasn't looked at")
    func late() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1)
        bench.request(1, from: client)
        bench.request(2, from: client, time: 5)
        let sent = bench.transmitted()
        bench.now = bench.now.advanced(byNanoseconds: 6_000_000)
        _ = bench.answer(sent[0].id, from: worker)
        #expect(bench.endings() == [2: .cancelled(.lapsed)])
    }

    @Test("when the last worker that may run a call is gone, the call waits only so long for another")
    func patience() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1)
        bench.request(1, from: client)
        bench.request(2, from: client)
        bench.request(3, from: client, key: "k")
        bench.request(4, from: client, key: "k")
        _ = bench.transmitted()
        bench.lose(worker)
        bench.actions = []
        bench.passInSilence(of: .worker(-1))
        #expect(bench.machine.callCount == 3)
        bench.pass(milliseconds: 3100)
        #expect(bench.endings() == [2: .noWorker, 3: .noWorker, 4: .noWorker])
    }

    @Test("a waiting call that is cancelled is said never to have run only if no worker has had it")
    func cancelledAfterLoss() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1)
        bench.request(1, from: client, isIdempotent: true)
        bench.request(2, from: client, isIdempotent: true)
        _ = bench.transmitted()
        bench.lose(worker)
        bench.actions = []
        #expect(bench.cancel(1, of: client) && bench.cancel(2, of: client))
        #expect(bench.endings() == [1: .cancelled(.whileRunning), 2: .cancelled(.beforeStart)])
    }

    @Test("a moved deadline doesn't make a call wait longer for a worker than others")
    func patienceAfterMove() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        bench.request(1, from: client, time: 60_000)
        bench.machine.deadlineReceived(
            1,
            time: Header.noTimeLimit,
            from: client,
            at: bench.now,
            actions: &bench.actions
        )
        for _ in 0..<3 {
            bench.pass(milliseconds: 3500)
            bench.machine.heard(from: .client(client), at: bench.now)
        }
        #expect(bench.endings() == [1: .noWorker])
    }

    @Test("a moved deadline counts in the queue, and is told to the worker that has the call")
    func movedDeadline() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1)
        bench.request(1, from: client, time: 1000)
        bench.request(2, from: client, time: 1000)
        let id = bench.transmitted()[0].id
        for call in [UInt64(1), 2] {
            bench.machine.deadlineReceived(call, time: 10, from: client, at: bench.now, actions: &bench.actions)
        }
        let deadline = bench.now.advanced(byNanoseconds: 10_000_000)
        #expect(bench.actions == [.sendDeadline(worker: worker, id: id, deadline: deadline)])
        bench.pass(milliseconds: 11)
        #expect(bench.endings() == [2: .cancelled(.lapsed)])
    }

    @Test(
        "S87 a worker that closed its connection is lost a second later, if it would say at once that it is back",
        arguments: [true, false]
    )
    func closed(notices: Bool) throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let index = bench.offerAgain(1, concurrency: 4, notices: notices, route: 99)
        let worker = try #require(index)
        bench.welcome(by: worker, epoch: 1)
        bench.request(1, from: client)
        bench.request(2, from: client, isIdempotent: true)
        let other = try bench.worker(2)
        bench.pass(milliseconds: 10)
        bench.machine.unreachable(worker, at: bench.now, actions: &bench.actions)
        for _ in 0..<19 { bench.pass(milliseconds: 50) }
        #expect(bench.endings() == [:])
        for _ in 0..<2 { bench.pass(milliseconds: 50) }
        #expect(bench.endings() == (notices ? [1: .lost(.disconnected, worker: "")] : [:]))
        let again = bench.transmitted().filter { $0.worker == other }
        #expect(again.count == (notices ? 1 : 0))
    }

    @Test(
        "S87 a welcome that was under way when its connection closed doesn't bring the worker back",
        arguments: [true, false]
    )
    func welcomeOfClosed(isAgain: Bool) throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let index = bench.offerAgain(1, notices: true, route: 99)
        let worker = try #require(index)
        bench.welcome(by: worker, epoch: 1)
        bench.request(1, from: client)
        bench.pass(milliseconds: 10)
        bench.machine.unreachable(worker, at: bench.now, actions: &bench.actions)
        bench.actions = []
        bench.welcome(by: worker, epoch: 1)
        #expect(bench.transmitted().isEmpty, "nothing is sent by a connection that is gone")
        if isAgain {
            #expect(bench.offerAgain(1, notices: true, route: 100) == worker)
            bench.actions = []
            bench.welcome(by: worker, epoch: 1)
            #expect(bench.transmitted().map(\.call) == [1])
        } else {
            for _ in 0..<21 { bench.pass(milliseconds: 50) }
            #expect(bench.endings() == [1: .lost(.disconnected, worker: "")])
        }
    }

    @Test("S88 a worker that offers itself by another connection within a second keeps its calls")
    func closedAndBack() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let index = bench.offerAgain(1, notices: true, route: 99)
        let worker = try #require(index)
        bench.welcome(by: worker, epoch: 1)
        bench.request(1, from: client)
        bench.machine.unreachable(worker, at: bench.now, actions: &bench.actions)
        for _ in 0..<19 { bench.pass(milliseconds: 50) }
        #expect(bench.offerAgain(1, notices: true, route: 100) == worker)
        bench.welcome(by: worker, epoch: 1)
        for _ in 0..<10 { bench.pass(milliseconds: 50) }
        #expect(bench.endings() == [:])
        #expect(bench.machine.workers[worker].outstanding == 1)
    }

    @Test("a worker that never answers the introduction is given up")
    func neverWelcomed() throws {
        var bench = BrokerBench()
        let index = bench.offerAgain(1, route: 99)
        let worker = try #require(index)
        #expect(bench.actions == [.sendHello(worker: worker, session: 0)])
        for _ in 0..<14 { bench.pass(milliseconds: 500) }
        #expect(bench.machine.workerCount == 0)
        #expect(bench.actions.contains(.workerLost(worker: worker, PeerID(high: 2, low: 1), reason: .silent)))
    }

    @Test("a worker that offers itself again and again, and never answers the introduction, keeps no call waiting")
    func offersOnly() throws {
        var configuration = BrokerMachine.Configuration(seed: 7)
        configuration.patienceNanoseconds = 10_000_000_000
        var bench = BrokerBench(configuration)
        let client = try bench.client(1)
        _ = bench.offerAgain(1, route: 99)
        bench.request(1, from: client)
        var lives: Set<UInt64> = []
        for _ in 0..<24 {
            bench.pass(milliseconds: 500)
            bench.machine.heard(from: .client(client), at: bench.now)
            let index = bench.offerAgain(1, route: 99)
            let worker = try #require(index)
            bench.machine.heard(from: .worker(worker), at: bench.now)
            lives.insert(bench.machine.workers[worker].incarnation)
        }
        // It was given up, and is introduced to as a new one.
        #expect(lives.count > 1)
        #expect(bench.endings() == [1: .noWorker])
        #expect(bench.machine.routeViews(at: bench.now).allSatisfy { $0.workers == 0 })
    }
}

@Suite struct BrokerDispatchTests {
    @Test("a worker that refuses a request gets no other before it says that it is ready")
    func refusing() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1)
        bench.request(1, from: client)
        let id = bench.transmitted()[0].id
        bench.confirm(id, .beforeStart, from: worker)
        let none = bench.transmitted()
        #expect(none.isEmpty)
        bench.ready(worker, epoch: 1)
        let again = bench.transmitted()
        #expect(again.map(\.call) == [1])
        #expect(again[0].id > id, "a call that was given back must take another id")
        #expect(bench.machine.call(in: 0).sends == 1, "it was not tried")
    }

    @Test("a call that asks for much of a resource isn't passed over for ever by those that ask for little")
    func reservation() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1, concurrency: 8, resources: ["gpu": 2])
        var open: [UInt64] = []
        var id: UInt64 = 0
        func small() -> Demands { Demands(resources: ["gpu": 1]) }
        for _ in 0..<2 {
            id += 1
            bench.request(id, from: client, demands: small())
        }
        open += bench.transmitted().map(\.id)
        bench.request(1_000_000, from: client, demands: Demands(resources: ["gpu": 2]))
        for _ in 0..<200 {
            // One ends and the next comes, so that the two are never free at once.
            id += 1
            bench.request(id, from: client, demands: small())
            if !open.isEmpty { _ = bench.answer(open.removeFirst(), from: worker) }
            let sent = bench.transmitted()
            if sent.contains(where: { $0.call == 1_000_000 }) { return }
            open += sent.map(\.id)
        }
        Issue.record("the call was never sent")
    }

    @Test("a call that only one worker may run gets its turn there among those that any may run")
    func onlyWorker() throws {
        var bench = BrokerBench()
        let (many, few) = (try bench.client(1), try bench.client(2))
        let workers = [try bench.worker(1, labels: ["zone": "eu"]), try bench.worker(2)]
        for id in 1...1000 { bench.request(UInt64(id), from: many) }
        bench.request(1, from: few, demands: Demands(labels: ["zone": "eu"]))
        var open = bench.transmitted()
        for step in 0..<20 {
            bench.now = bench.now.advanced(byNanoseconds: 20_000_000)
            let next = open.removeFirst()
            if bench.answer(next.id, from: next.worker)?.client == few {
                #expect(next.worker == workers[0])
                return
            }
            if step == 19 { Issue.record("not within twenty calls") }
            open += bench.transmitted()
        }
    }

    @Test("a client gets no more by using more functions", arguments: [2, 10, 100])
    func manyFunctions(count: Int) throws {
        var bench = BrokerBench()
        let (broad, narrow) = (try bench.client(1), try bench.client(2))
        let functions = (0..<count).map { "r\($0)" }
        for (number, name) in functions.enumerated() {
            _ = bench.machine.defined(UInt32(number), name: name, by: broad)
            _ = bench.machine.defined(UInt32(number), name: name, by: narrow)
        }
        for id in 0..<4000 {
            var request = BrokerRequest(id: UInt64(id + 1), number: UInt32(id % count))
            _ = bench.machine.requestReceived(request, from: broad, at: bench.now, actions: &bench.actions)
            request.number = 0
            _ = bench.machine.requestReceived(request, from: narrow, at: bench.now, actions: &bench.actions)
        }
        let worker = try bench.worker(1, functions: functions)
        var open = bench.transmitted().map(\.id)
        var answered = [broad: 0, narrow: 0]
        for _ in 0..<2000 {
            bench.now = bench.now.advanced(byNanoseconds: 10_000_000)
            if let client = bench.answer(open.removeFirst(), from: worker)?.client { answered[client, default: 0] += 1 }
            open += bench.transmitted().map(\.id)
        }
        #expect((900...1100).contains(answered[narrow] ?? 0), "\(answered)")
    }

    @Test("a client that comes late shares from then on, and doesn't make up for what it missed")
    func lateClient() throws {
        var bench = BrokerBench()
        let early = try bench.client(1)
        let worker = try bench.worker(1)
        for id in 1...3000 { bench.request(UInt64(id), from: early) }
        var open = bench.transmitted().map(\.id)
        var answered: [Int: Int] = [:]
        func proceed(_ bench: inout BrokerBench) {
            bench.now = bench.now.advanced(byNanoseconds: 10_000_000)
            if let client = bench.answer(open.removeFirst(), from: worker)?.client { answered[client, default: 0] += 1 }
            open += bench.transmitted().map(\.id)
        }
        for _ in 0..<1000 { proceed(&bench) }
        let late = try bench.client(2)
        for id in 1...1000 { bench.request(UInt64(id), from: late) }
        answered = [:]
        for _ in 0..<200 { proceed(&bench) }
        #expect((90...120).contains(answered[late] ?? 0), "\(answered)")
    }

    @Test("workers that are equally loaded take turns")
    func turns() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        for number in 1...3 { _ = try bench.worker(UInt64(number), concurrency: 4) }
        var chosen: [Int] = []
        for id in 1...6 {
            bench.request(UInt64(id), from: client)
            let sent = bench.transmitted()[0]
            chosen.append(sent.worker)
            _ = bench.answer(sent.id, from: sent.worker)
        }
        #expect(chosen == [0, 1, 2, 0, 1, 2])
    }

    @Test("calls that only wait behind others go to one worker in runs, and yet to all alike")
    func runs() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let workers = try (1...2).map { try bench.worker(UInt64($0)) }
        // Answers that say so little run time that credit covers the way to the worker.
        for id in 1...400 {
            bench.request(UInt64(id), from: client)
            for sent in bench.transmitted() { _ = bench.answer(sent.id, from: sent.worker, ran: 1) }
        }
        for id in 401...1000 { bench.request(UInt64(id), from: client) }
        let chosen = bench.transmitted().map(\.worker)
        let changes = zip(chosen, chosen.dropFirst()).count { $0 != $1 }
        #expect(changes < 20, "\(changes) changes in \(chosen.count) calls")
        for worker in workers { #expect((250...350).contains(chosen.count { $0 == worker })) }
    }

    @Test("a worker that offers more handlers is given calls for them at once")
    func moreHandlers() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1)
        for id in 1...6 { bench.request(UInt64(id), from: client) }
        _ = bench.transmitted()
        _ = bench.offerAgain(1, concurrency: 4, route: 1 << 32 | 1)
        #expect(bench.actions.contains { if case .sendCredit(worker, 4, _) = $0 { true } else { false } })
        let sent = bench.transmitted()
        #expect(sent.map(\.call) == [2, 3, 4])
    }

    @Test("a worker that says it is starved is told again what waits for it")
    func starved() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1)
        bench.request(1, from: client)
        bench.request(2, from: client)
        let id = bench.transmitted()[0].id
        bench.ready(worker, epoch: 1)
        #expect(bench.actions == [.sendCredit(worker: worker, credit: 1, waiting: 1)])
        _ = bench.answer(id, from: worker)
        bench.actions = []
        bench.ready(worker, epoch: 1, isStarved: true)
        #expect(bench.machine.starvedCount == 1)
        #expect(
            bench.actions == [.sendCredit(worker: worker, credit: bench.machine.workers[worker].credit, waiting: 0)]
        )
    }

    @Test("a draining broker takes no requests, and sees to those that it has")
    func draining() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        bench.request(1, from: client)
        bench.machine.drain()
        let verdict = bench.request(2, from: client)
        #expect(verdict == .draining)
        _ = try bench.worker(1)
        let sent = bench.transmitted()
        #expect(sent.map(\.call) == [1])
    }
}

@Suite struct BrokerLossTests {
    @Test("an idempotent call is taken back from so many workers that leave, and then is lost")
    func attempts() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        bench.request(1, from: client, isIdempotent: true)
        for number in 1...17 {
            let worker = try bench.worker(UInt64(number))
            let sent = bench.transmitted()
            #expect(sent.map(\.call) == [1])
            bench.lose(worker)
        }
        #expect(bench.endings() == [1: .lost(.left, worker: "")])
    }

    @Test("a worker that falls silent loses its calls, one that restarts as well")
    func silentWorker() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let silent = try bench.worker(1)
        bench.request(1, from: client, isIdempotent: true)
        _ = bench.transmitted()
        let other = try bench.worker(2)
        bench.passInSilence(of: .worker(silent))
        let moved = bench.transmitted()
        #expect(moved.map(\.worker) == [other] && bench.machine.workerCount == 1)
        let restarted = bench.offerAgain(2, epoch: 22, route: 77)
        let next = try #require(restarted)
        #expect(bench.actions.contains(.workerLost(worker: other, PeerID(high: 2, low: 2), reason: .restarted)))
        bench.actions = []
        bench.welcome(by: next, epoch: 22)
        let again = bench.transmitted()
        #expect(again.map(\.call) == [1])
    }

    @Test("a beat of another epoch loses a worker")
    func otherEpoch() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1)
        bench.request(1, from: client)
        bench.ready(worker, epoch: 2)
        #expect(bench.endings() == [1: .lost(.restarted, worker: "")])
    }

    @Test("a worker on a new connection is sent nothing before it says which session goes on, then all that it has")
    func resumedWorker() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1, concurrency: 2)
        for id in 1...3 { bench.request(UInt64(id), from: client) }
        let sent = bench.transmitted()
        #expect(sent.count == 2)
        _ = bench.offerAgain(1, concurrency: 8, route: 99)
        #expect(bench.actions == [.sendHello(worker: worker, session: 7)])
        let isKnown = bench.cancel(2, of: client)
        #expect(isKnown && bench.actions.count == 1, "a cancel without a session would be lost")
        bench.actions = []
        bench.welcome(by: worker, epoch: 1)
        let transmissions = bench.actions.filter { if case .transmit = $0 { true } else { false } }
        #expect(transmissions.first == .transmit(slot: 0, worker: worker, id: sent[0].id, isResent: true))
        #expect(bench.actions.contains(.sendCancel(worker: worker, id: sent[1].id, reason: .requested)))
        #expect(transmissions.count == 2, "the third call goes as well")
    }

    @Test("a worker that has forgotten the session, or begun another, has lost its calls", arguments: [UInt32(0), 8])
    func forgotten(session: UInt32) throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1)
        bench.request(1, from: client)
        _ = bench.offerAgain(1, route: 99)
        bench.welcome(by: worker, epoch: 1, session: session)
        #expect(bench.endings() == [1: .lost(.forgotten, worker: "")] && bench.machine.workerCount == 0)
        let again = bench.offerAgain(1, route: 99)
        let next = try #require(again)
        #expect(bench.machine.workers[next].incarnation == 2, "it would take what was sent before for part of the next")
    }

    @Test("a call that was recalled ends once, whatever overtakes what")
    func recallRace() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1)
        for id in 1...200 { bench.request(UInt64(id), from: client) }
        var open = bench.transmitted().map(\.id)
        for _ in 0..<100 {
            bench.now = bench.now.advanced(byNanoseconds: 5000)
            _ = bench.answer(open.removeFirst(), from: worker)
            open += bench.transmitted().map(\.id)
        }
        try #require(open.count > 3)
        bench.pass(milliseconds: 60)
        let waiting = bench.machine.queuedCount
        bench.actions = []
        // Answered before the recall came, cancelled meanwhile, given back twice.
        let answered = bench.answer(open[1], from: worker)
        #expect(answered != nil)
        bench.confirm(open[1], .beforeStart, from: worker)
        let second = bench.machine.addressee(open[2], from: worker)
        let isKnown = bench.cancel(try #require(second).id, of: client)
        #expect(isKnown)
        bench.confirm(open[2], .beforeStart, from: worker)
        bench.confirm(open[3], .beforeStart, from: worker)
        bench.confirm(open[3], .beforeStart, from: worker)
        #expect(bench.endings() == [try #require(second).id: .cancelled(.beforeStart)])
        #expect(bench.machine.queuedCount == waiting + 1)
        #expect(!bench.machine.workers[worker].isRefusing, "giving back what was asked for is no refusal")
    }

    @Test("a client that falls silent takes its calls along; answers to them are discarded")
    func silentClient() throws {
        var bench = BrokerBench()
        let (gone, other) = (try bench.client(1), try bench.client(2))
        let worker = try bench.worker(1)
        bench.request(1, from: gone, key: "k")
        bench.request(2, from: gone, key: "k")
        bench.request(3, from: other, key: "k")
        let first = bench.transmitted()
        bench.passInSilence(of: .client(gone))
        #expect(bench.actions.contains(.sendCancel(worker: worker, id: first[0].id, reason: .requested)))
        #expect(bench.actions.contains(.release(slot: 1)))
        bench.actions = []
        let addressee = bench.answer(first[0].id, from: worker)
        #expect(addressee?.slot == 0 && addressee?.client == nil)
        let next = bench.transmitted()
        #expect(next.map(\.call) == [3])
    }

    @Test("a request that is sent again is known, answered again, indeterminate or new")
    func resent() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1)
        bench.request(1, from: client)
        let id = bench.transmitted()[0].id
        let known = bench.resend(1, from: client)
        #expect(known == .known(slot: 0))
        _ = bench.answer(id, from: worker)
        bench.remember(1, of: client)
        let held = bench.resend(1, from: client)
        #expect(held == .answerAgain)
        bench.machine.forgetResult(2, of: client)
        let forgotten = bench.resend(2, from: client)
        #expect(forgotten == .indeterminate)
        let idempotent = bench.resend(2, from: client, isIdempotent: true)
        let fresh = bench.resend(3, from: client)
        guard case .taken = idempotent, case .taken = fresh else {
            Issue.record("\(idempotent), \(fresh)")
            return
        }
        let duplicate = bench.request(3, from: client)
        #expect(duplicate == .duplicateID)
    }

    @Test("a client goes on with its session by another route, and with no other than that")
    func resumedClient() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        bench.request(1, from: client)
        func hello(_ claimed: UInt32, _ epoch: UInt64, _ bench: inout BrokerBench) -> BrokerMachine.ClientIntroduction {
            bench.machine.helloReceived(
                client: PeerID(high: 1, low: 1),
                epoch: epoch,
                claimed: claimed,
                route: 55,
                at: bench.now,
                actions: &bench.actions
            )
        }
        let number = bench.machine.clients[client].number
        let other = hello(number + 1, 1, &bench)
        #expect(other == .forgotten)
        let resumed = hello(number, 1, &bench)
        #expect(resumed == .welcome(session: client, isResumed: true))
        #expect(bench.machine.peer(route: 55) == .client(client) && bench.machine.peer(route: 1) == nil)
        #expect(bench.machine.callCount == 1)
        let restarted = hello(0, 2, &bench)
        guard case .welcome(_, isResumed: false) = restarted else {
            Issue.record("\(restarted)")
            return
        }
        #expect(bench.machine.callCount == 0)
    }

    @Test("of two clients that used a place one after the other, each gets its own subscriptions only")
    func subscriptionsOfReusedPlace() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1)
        for number in [UInt32(0), 1] {
            let isBound = bench.bind(number, to: 9, by: worker)
            #expect(isBound)
        }
        bench.machine.clientLeft(client, at: bench.now, actions: &bench.actions)
        let next = try bench.client(2)
        #expect(next == client)
        for number in [UInt32(0), 1] {
            let delivery = bench.machine.eventReceived(number, sequence: 0, from: worker)
            #expect(delivery == nil)
        }
    }

    @Test("a pause holds for workers that bind later, and is said again after a connection was lost")
    func flow() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let (one, two) = (try bench.worker(1), try bench.worker(2))
        _ = bench.bind(0, to: 9, by: one)
        bench.actions = []
        bench.machine.flowReceived(9, isPaused: true, from: client, actions: &bench.actions)
        #expect(bench.actions == [.sendFlow(worker: one, number: 0, isPaused: true)])
        _ = bench.bind(4, to: 9, by: two)
        let isPaused = bench.machine.isPaused(4, of: two)
        #expect(isPaused)
        bench.machine.resetReceived(from: one, at: bench.now, actions: &bench.actions)
        bench.actions = []
        bench.welcome(by: one, epoch: 1)
        #expect(bench.actions.contains(.sendFlow(worker: one, number: 0, isPaused: true)))
    }

    @Test("S78 whether events were read is answered by their client, and by the broker once that is gone")
    func questions() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1)
        bench.bind(0, to: 7, by: worker)
        bench.bind(1, to: 8, by: worker)
        let unbound = bench.machine.questionReceived(1, afterEventsOf: 5, from: worker)
        #expect(unbound == nil)
        let asked = bench.machine.questionReceived(2, afterEventsOf: 0, from: worker)
        let first = try #require(asked)
        #expect(first.client == client)
        let foreign = bench.machine.questionAnswered(first.id + 7, by: client)
        #expect(foreign == nil)
        let answer = bench.machine.questionAnswered(first.id, by: client)
        #expect(answer?.worker == worker && answer?.id == 2)
        // Asked again about the same, only the last one counts.
        _ = bench.machine.questionReceived(3, afterEventsOf: 0, from: worker)
        _ = bench.machine.questionReceived(4, afterEventsOf: 0, from: worker)
        _ = bench.machine.questionReceived(5, afterEventsOf: 1, from: worker)
        #expect(bench.machine.questionCount == 2)
        bench.actions = []
        // By another connection: what was asked by the former one may be lost.
        _ = bench.machine.helloReceived(
            client: PeerID(high: 1, low: 1),
            epoch: bench.machine.clients[client].epoch,
            route: 4711,
            at: bench.now,
            actions: &bench.actions
        )
        #expect(bench.actions.contains(.answerQuestion(worker: worker, id: 4)))
        #expect(bench.actions.contains(.answerQuestion(worker: worker, id: 5)))
        #expect(bench.machine.questionCount == 0)
        bench.request(9, from: client)
        let sent = try #require(bench.transmitted().first)
        let progress = bench.machine.questionReceived(6, afterProgressOf: sent.id, from: worker)
        #expect(progress?.client == client)
        bench.machine.clientLeft(client, at: bench.now, actions: &bench.actions)
        #expect(bench.actions.contains(.answerQuestion(worker: worker, id: 6)))
    }

    @Test(
        "bindings that are stated again go on with their numbers; what was said of others by a lost connection is known"
    )
    func restatedBindings() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1)
        // The BIND of 3 is lost, with events 0 and 1 of it, and so is the worker's ENDED of 2.
        for number in 0...2 as ClosedRange<UInt32> {
            let isBound = bench.bind(number, to: UInt64(number) + 10, by: worker)
            #expect(isBound)
        }
        _ = bench.machine.eventReceived(0, sequence: 0, from: worker)
        bench.machine.resetReceived(from: worker, at: bench.now, actions: &bench.actions)
        // The broker's ENDED of 1 is lost.
        bench.machine.endedReceived(11, from: client, actions: &bench.actions)
        bench.welcome(by: worker, epoch: 1)
        var stated: [Bool] = []
        for number in [UInt32(0), 1, 3] { stated.append(bench.bind(number, to: UInt64(number) + 10, by: worker)) }
        #expect(stated == [true, false, true])
        bench.actions = []
        bench.ready(worker, epoch: 1)
        #expect(bench.actions.contains(.endClientSubscription(client: client, subscription: 12)))
        let next = bench.machine.eventReceived(0, sequence: 1, from: worker)
        #expect(next?.id == 1 && next?.subscription == 10)
        let late = bench.machine.eventReceived(3, sequence: 2, from: worker)
        #expect(late?.id == 2 && late?.subscription == 13)
        for number in [UInt32(1), 2] {
            let delivery = bench.machine.eventReceived(number, sequence: 5, from: worker)
            #expect(delivery == nil)
        }
        bench.actions = []
        bench.ready(worker, epoch: 1)
        #expect(!bench.actions.contains { if case .endClientSubscription = $0 { true } else { false } })
    }

    @Test("what a worker has ended is over for all, and nothing else takes its numbers")
    func endedByWorker() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let (one, two) = (try bench.worker(1), try bench.worker(2))
        for worker in [one, two] { bench.bind(0, to: 9, by: worker) }
        bench.actions = []
        let ended = bench.machine.endedReceived(0, by: one, actions: &bench.actions)
        #expect(ended?.client == client && ended?.subscription == 9)
        #expect(bench.actions == [.endSubscription(worker: two, number: 0)])
        bench.actions = []
        // The client has not heard of it.
        let isBound = bench.bind(1, to: 9, by: two)
        #expect(!isBound)
        #expect(bench.actions == [.endClientSubscription(client: client, subscription: 9)])
        bench.machine.endedReceived(9, from: client, actions: &bench.actions)
        // The client says so itself, and a number is never used twice.
        let isBoundAgain = bench.bind(2, to: 9, by: two)
        #expect(!isBoundAgain)
    }

    @Test("what a client says of a callback before a worker has bound it holds when one does")
    func callbacksBeforeTheirBinding() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1)
        bench.machine.endedReceived(8, from: client, actions: &bench.actions)
        for (subscription, pauses) in [(UInt32(9), [true]), (10, [true, false]), (11, [])] {
            for isPaused in pauses {
                bench.machine.flowReceived(subscription, isPaused: isPaused, from: client, actions: &bench.actions)
            }
        }
        let bound = (8...11 as ClosedRange<UInt32>).map { bench.bind($0, to: UInt64($0), by: worker) }
        #expect(bound == [false, true, true, true])
        let paused = (9...11 as ClosedRange<UInt32>).map { bench.machine.isPaused($0, of: worker) }
        #expect(paused == [true, false, false])
        let event = bench.machine.eventReceived(8, sequence: 0, from: worker)
        #expect(event == nil)
        // Another client has callbacks of the same numbers.
        let other = try bench.client(2)
        bench.machine.endedReceived(9, from: other, actions: &bench.actions)
        #expect(bench.machine.eventReceived(9, sequence: 0, from: worker)?.subscription == 9)
    }

    @Test("a number beyond 32 bits is no other callback's")
    func hugeSubscriptions() throws {
        var bench = BrokerBench()
        _ = try bench.client(1)
        let worker = try bench.worker(1)
        let bound = [UInt64(9), 9 + (1 << 32), .max].enumerated()
            .map { bench.bind(UInt32($0.offset), to: $0.element, by: worker) }
        #expect(bound == [true, false, false])
        let event = bench.machine.eventReceived(1, sequence: 0, from: worker)
        #expect(event == nil)
    }

    @Test("a pause that is over while no worker is bound is over for those that bind later")
    func pauseWithoutWorkers() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let (one, two) = (try bench.worker(1), try bench.worker(2))
        bench.bind(0, to: 9, by: one)
        bench.machine.flowReceived(9, isPaused: true, from: client, actions: &bench.actions)
        bench.lose(one)
        bench.machine.flowReceived(9, isPaused: false, from: client, actions: &bench.actions)
        bench.bind(0, to: 9, by: two)
        let isPaused = bench.machine.isPaused(0, of: two)
        #expect(!isPaused)
    }

    @Test("what a worker says of callbacks before it has answered the introduction belongs to no session")
    func beforeWelcome() throws {
        var bench = BrokerBench()
        _ = try bench.client(1)
        let worker = try bench.worker(1)
        var states = [bench.machine.isInSession(worker)]
        bench.lose(worker)
        let next = bench.offerAgain(1, route: 1 << 32 | 1)
        states.append(bench.machine.isInSession(worker))
        bench.welcome(by: worker, epoch: 1)
        states.append(bench.machine.isInSession(worker))
        #expect(next == worker && states == [true, false, true])
    }

    @Test("of two numbers that a worker gives one subscription the second counts, and neither outlives it")
    func boundTwice() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1)
        for number in [UInt32(0), 1] { _ = bench.bind(number, to: 9, by: worker) }
        let former = bench.machine.eventReceived(0, sequence: 0, from: worker)
        let delivery = bench.machine.eventReceived(1, sequence: 0, from: worker)
        #expect(former == nil && delivery?.subscription == 9)
        bench.actions = []
        bench.machine.endedReceived(9, from: client, actions: &bench.actions)
        #expect(bench.actions == [.endSubscription(worker: worker, number: 1)])
        let ended = bench.machine.eventReceived(1, sequence: 1, from: worker)
        #expect(ended == nil)
    }

    @Test("a lost worker's invocations and bindings are forgotten, a lost client's invocations fail")
    func invocations() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let (one, two) = (try bench.worker(1), try bench.worker(2))
        for worker in [one, two] {
            _ = bench.bind(0, to: 9, by: worker)
            let delivery = bench.machine.invocationReceived(0, id: 5, from: worker)
            #expect(delivery != nil)
        }
        bench.lose(one)
        #expect(bench.machine.invocationCount == 1)
        bench.actions = []
        bench.machine.clientLeft(client, at: bench.now, actions: &bench.actions)
        #expect(bench.actions.contains(.failInvocation(worker: two, id: 5, isLost: false)))
        #expect(bench.machine.invocationCount == 0)
    }

    @Test("what a client doesn't name of a former connection's invocations is lost, and nothing else")
    func pending() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1)
        _ = bench.bind(0, to: 9, by: worker)
        var ids: [UInt64] = []
        func invoke(_ bench: inout BrokerBench, _ id: UInt64) {
            ids.append(bench.machine.invocationReceived(0, id: id, from: worker)?.id ?? 0)
        }
        for id in [5, 6, 7] as [UInt64] { invoke(&bench, id) }
        let known = bench.machine.clients[client]
        let again = bench.machine.helloReceived(
            client: known.client,
            epoch: known.epoch,
            route: 1 << 40,
            at: bench.now,
            actions: &bench.actions
        )
        #expect(again == .welcome(session: client, isResumed: true))
        #expect(bench.machine.clients[client].connection == 2)
        // It went by the new connection before the list came.
        invoke(&bench, 8)
        bench.actions = []
        for id in [ids[1], 999] { bench.machine.isPending(id, from: client) }
        #expect(bench.actions.isEmpty, "more may follow")
        bench.machine.endLostInvocations(of: client, actions: &bench.actions)
        #expect(
            bench.actions == [
                .failInvocation(worker: worker, id: 5, isLost: true),
                .failInvocation(worker: worker, id: 7, isLost: true),
            ]
        )
        #expect(bench.machine.invocations(of: worker).sorted() == [6, 8])
        let answered = bench.machine.invocationAnswered(ids[1], by: client)
        #expect(answered?.id == 6)
    }

    @Test(
        "calls that wait in a queue that is taken from their client end as forbidden, others and those at workers don't"
    )
    func restricted() throws {
        var bench = BrokerBench()
        let (client, other) = (try bench.client(1), try bench.client(2))
        let worker = try bench.worker(1, queues: ["mail", "paint"])
        for (id, queue, owner) in [
            (1, "mail", client), (2, "mail", client), (3, "paint", client), (4, "mail", client), (5, "mail", other),
        ] as [(UInt64, String, Int)] {
            bench.request(id, from: owner, demands: Demands(queue: queue), key: id == 2 || id == 4 ? "k" : nil)
        }
        #expect(bench.transmitted().map { $0.call } == [1])
        bench.actions = []
        bench.machine.restrict(client, at: bench.now, actions: &bench.actions) { $1 == "paint" }
        let ending = BrokerEnding.forbidden(function: "f", queue: "mail")
        #expect(bench.endings() == [2: ending, 4: ending])
        bench.actions = []
        let first = bench.machine.calls(known: 1, to: nil)
        #expect(first.map { $0.worker } == [bench.machine.workers[worker].offer.name])
        #expect(bench.machine.callCount == 3)
    }
}
