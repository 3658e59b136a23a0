// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire
import Testing

extension BrokerBench {
    mutating func introduce(_ number: UInt64, of tenant: String, _ quotas: Quotas = Quotas())
        -> BrokerMachine
        .ClientIntroduction
    {
        self.machine.helloReceived(
            client: PeerID(high: 1, low: number),
            epoch: number,
            tenant: TenantClaim(name: tenant, quotas: quotas),
            route: number,
            at: self.now,
            actions: &self.actions
        )
    }

    mutating func client(_ number: UInt64, of tenant: String, _ quotas: Quotas = Quotas()) throws -> Int {
        guard case .welcome(let client, _) = self.introduce(number, of: tenant, quotas) else {
            throw CancellationError()
        }
        _ = self.machine.defined(0, name: "f", by: client)
        return client
    }

    /// Answers what a worker was sent, one after the other, and tells which calls of which clients those were.
    ///
    /// Each takes so long that the worker gets no more than it has handlers.
    mutating func serve(
        by worker: Int,
        ran: (Int) -> UInt32 = { _ in 1_000_000 }
    ) -> [(client: Int, call: UInt64)] {
        var order: [(Int, UInt64)] = []
        var pending = self.transmitted()
        while !pending.isEmpty {
            let next = pending.removeFirst()
            let client = self.machine.addressee(next.id, from: worker)?.client ?? -1
            let addressee = self.answer(next.id, from: worker, ran: ran(client))
            order.append((addressee?.client ?? -1, next.call))
            pending += self.transmitted()
        }
        return order
    }
}

/// Who shares what: a key's principal, or a group that the allow-list names, is a tenant.
@Suite struct TenantTests {
    private func isTaken(_ verdict: BrokerVerdict) -> Bool { if case .taken = verdict { true } else { false } }

    @Test("a tenant with many sessions has one share of the workers, as one with a single session has")
    func fairShare() throws {
        var bench = BrokerBench()
        let modest = try bench.client(1, of: "modest")
        var greedy: [Int] = []
        for number in 2..<52 as Range<UInt64> { greedy.append(try bench.client(number, of: "greedy")) }
        let worker = try bench.worker(1)
        var id: UInt64 = 0
        for client in greedy {
            for _ in 0..<4 {
                id += 1
                bench.request(id, from: client)
            }
        }
        for _ in 0..<40 {
            id += 1
            bench.request(id, from: modest)
        }
        let order = bench.serve(by: worker).prefix(60).map(\.client)
        let own = order.count { $0 == modest }
        #expect((28...31).contains(own), "\(own) of \(order.count)")
        // Within the tenant its clients take turns.
        #expect(Set(order.filter { $0 != modest }).count >= 28)
    }

    @Test("a tenant whose calls take long gets as much of the workers' time as others, not as many calls")
    func time() throws {
        var bench = BrokerBench()
        let slow = try bench.client(1, of: "slow")
        let quick = try bench.client(2, of: "quick")
        let worker = try bench.worker(1)
        for id in 1...100 as ClosedRange<UInt64> { bench.request(id, from: slow) }
        for id in 1...300 as ClosedRange<UInt64> { bench.request(id, from: quick) }
        let order = bench.serve(by: worker) { $0 == slow ? 20_000 : 2_000 }.map(\.client)
        // 201 and 21 turns for each.
        let slowCalls = order.prefix(220).count { $0 == slow }
        #expect((18...24).contains(slowCalls), "\(slowCalls)")
        #expect(order.count == 400)
    }

    @Test("a high priority goes before a tenant's own calls, not before another's; a low one yields to all")
    func priorities() throws {
        var bench = BrokerBench()
        let greedy = try bench.client(1, of: "greedy")
        let modest = try bench.client(2, of: "modest")
        let worker = try bench.worker(1)
        bench.request(100, from: greedy)
        for id in 1...20 as ClosedRange<UInt64> { bench.request(id, from: greedy, priority: 4) }
        for id in 21...40 as ClosedRange<UInt64> { bench.request(id, from: greedy, priority: 7) }
        for id in 1...10 as ClosedRange<UInt64> { bench.request(id, from: modest) }
        bench.request(11, from: modest, priority: 0)
        let order = bench.serve(by: worker)
        let firstTwenty = order.dropFirst().prefix(20)
        #expect(firstTwenty.count { $0.client == modest } == 10)
        #expect(order.dropFirst().filter { $0.client == greedy }.map(\.call) == Array(21...40) + Array(1...20))
        #expect(order.last?.call == 11 && order.last?.client == modest)
    }

    @Test("a tenant that the list gives a priority goes before others with it")
    func grantedPriority() throws {
        var bench = BrokerBench()
        var quotas = Quotas()
        quotas.priority = 7
        let first = try bench.client(1, of: "first", quotas)
        let other = try bench.client(2, of: "other")
        let worker = try bench.worker(1)
        bench.request(100, from: other)
        for id in 1...5 as ClosedRange<UInt64> { bench.request(id, from: other, priority: 7) }
        for id in 1...5 as ClosedRange<UInt64> { bench.request(id, from: first, priority: 6) }
        let order = bench.serve(by: worker)
        #expect(order.count == 11 && order.dropFirst().prefix(5).allSatisfy { $0.client == first })
    }

    @Test("without keys priorities and ordering keys hold between all clients")
    func withoutKeys() throws {
        var bench = BrokerBench()
        let (ann, bob) = (try bench.client(1), try bench.client(2))
        let worker = try bench.worker(1, concurrency: 2)
        bench.actions = []
        bench.request(1, from: ann, key: "k")
        bench.request(1, from: bob, key: "k")
        let sent = bench.transmitted()
        #expect(sent.count == 1)
        _ = bench.answer(sent[0].id, from: worker)
        let check2 = bench.transmitted().count == 1
        #expect(check2)
    }

    @Test("an ordering key holds up nobody else's calls")
    func orderingKeys() throws {
        var bench = BrokerBench()
        let greedy = try bench.client(1, of: "greedy")
        let (modest, colleague) = (try bench.client(2, of: "modest"), try bench.client(3, of: "modest"))
        let worker = try bench.worker(1, concurrency: 4)
        bench.actions = []
        for id in 1...50 as ClosedRange<UInt64> { bench.request(id, from: greedy, key: "k") }
        bench.request(1, from: modest, key: "k")
        bench.request(2, from: colleague, key: "k")
        let sent = bench.transmitted()
        #expect(sent.map(\.call) == [1, 1], "one of each tenant")
        _ = bench.answer(sent[1].id, from: worker)
        let check3 = bench.transmitted().map(\.call) == [2]
        #expect(check3, "within a tenant it holds")
        // A client that leaves passes its keys on, whatever others have.
        bench.machine.clientLeft(greedy, at: bench.now, actions: &bench.actions)
        #expect(bench.machine.keyCount == 2)
    }

    @Test("sessions, calls, bytes and routes over a quota are refused to the tenant alone, by the quota's name")
    func quotas() throws {
        var bench = BrokerBench()
        var quotas = Quotas()
        quotas.clients = 2
        quotas.calls = 3
        quotas.bytes = 1000
        quotas.routes = 2
        let first = try bench.client(1, of: "greedy", quotas)
        let second = try bench.client(2, of: "greedy", quotas)
        guard case .refuse(let refusal) = bench.introduce(3, of: "greedy", quotas) else {
            Issue.record("a third session")
            return
        }
        #expect(refusal.quota == .clients && refusal.limit == 2 && refusal.own == 2)
        let other = try bench.client(4, of: "modest", quotas)
        let check4 = self.isTaken(bench.request(1, from: first, byteCount: 400))
        #expect(check4)
        let check5 = self.isTaken(bench.request(2, from: second, byteCount: 400))
        #expect(check5)
        let check6 =
            bench.request(3, from: second, byteCount: 400) == .tooManyBytes(own: 800, retryAfterMilliseconds: 10)
        #expect(check6)
        let check7 = self.isTaken(bench.request(4, from: second, demands: Demands(queue: "q")))
        #expect(check7)
        guard case .overQuota(let calls) = bench.request(5, from: first) else {
            Issue.record("a fourth call")
            return
        }
        #expect(calls.quota == .calls && calls.own == 3)
        let tenant = bench.machine.clients[first].tenant
        #expect(bench.machine.tenants.refusals(of: tenant) == 2)
        let check8 = self.isTaken(bench.request(1, from: other, byteCount: 400))
        #expect(check8)
        let check9 = bench.cancel(1, of: first)
        #expect(check9)
        let check10 = bench.request(6, from: first, demands: Demands(queue: "r")) == .tooManyRoutes(own: 2)
        #expect(check10)
        // All is given back.
        for client in [first, second, other] {
            bench.machine.clientLeft(client, at: bench.now, actions: &bench.actions)
        }
        bench.machine.trim()
        #expect(bench.machine.tenants.count == 0)
        #expect(bench.machine.tenants.total == TenantBook.Usage())
    }

    @Test("a tenant has half of the clients' and workers' places, and others have theirs when the table is full")
    func places() throws {
        var configuration = BrokerMachine.Configuration(seed: 7)
        configuration.maxClients = 128
        configuration.maxWorkers = 128
        var bench = BrokerBench(configuration)
        var number: UInt64 = 0
        func sessions(_ tenant: String, _ bench: inout BrokerBench) -> Int {
            var count = 0
            for _ in 0..<100 {
                number += 1
                if case .welcome = bench.introduce(number, of: tenant) { count += 1 }
            }
            return count
        }
        let check11 = sessions("greedy", &bench) == 64
        #expect(check11)
        let check12 = sessions("as greedy", &bench) == 64
        #expect(check12)
        let check13 = sessions("modest", &bench) == 2
        #expect(check13, "a share in any case")
        var workers = 0
        for number in 1...100 as ClosedRange<UInt64> {
            let offer = WorkerOffer(worker: PeerID(high: 3, low: number), epoch: number, functions: ["f"])
            let claim = TenantClaim(name: "greedy")
            let route = 1 << 33 | number
            if bench.machine
                .offerReceived(offer, tenant: claim, route: route, at: bench.now, actions: &bench.actions) != nil
            {
                workers += 1
            }
        }
        #expect(workers == 64)
        #expect(bench.machine.refusalOfWorker?.quota == .workers)
    }

    @Test("a rate lets so many calls through, and twice as many at once")
    func rate() throws {
        var bench = BrokerBench()
        var quotas = Quotas()
        quotas.rate = 10
        let client = try bench.client(1, of: "quick", quotas)
        func taken(_ ids: Range<UInt64>, _ bench: inout BrokerBench) -> Int {
            var count = 0
            for id in ids where self.isTaken(bench.request(id, from: client)) { count += 1 }
            return count
        }
        let check14 = taken(0..<100, &bench) == 20
        #expect(check14)
        guard case .overQuota(let refusal) = bench.request(101, from: client) else {
            Issue.record("over the rate")
            return
        }
        #expect(refusal.quota == .rate && refusal.retryAfterMilliseconds == 100)
        bench.pass(milliseconds: 500)
        let check15 = taken(200..<300, &bench) == 5
        #expect(check15)
        // Another list is in force.
        quotas.rate = nil
        bench.machine.changeQuotas(of: .client(client), to: TenantClaim(name: "quick", quotas: quotas), at: bench.now)
        let check16 = taken(300..<400, &bench) == 100
        #expect(check16)
    }

    @Test("demands that take much stay no longer than their calls, and are bounded in bytes")
    func largeDemands() throws {
        var configuration = BrokerMachine.Configuration(seed: 7)
        configuration.maxRouteBytes = 4 << 20
        var bench = BrokerBench(configuration)
        let greedy = try bench.client(1, of: "greedy")
        func demands(_ number: Int) -> Demands {
            let labels = (0..<100).map { ("\(number) \($0)", String(repeating: "l", count: 255)) }
            return Demands(labels: Dictionary(uniqueKeysWithValues: labels))
        }
        var verdicts: [BrokerVerdict] = []
        for number in 0..<100 {
            verdicts.append(bench.request(UInt64(number), from: greedy, demands: demands(number)))
        }
        let taken = verdicts.count { self.isTaken($0) }
        #expect((20...40).contains(taken), "\(taken) of more than 32 KiB each fit into 1 MiB")
        #expect(verdicts.last == .tooManyRoutes(own: taken))
        let modest = try bench.client(2, of: "modest")
        let check17 = self.isTaken(bench.request(1, from: modest, demands: demands(1000)))
        #expect(check17)
        for id in 0..<UInt64(taken) { _ = bench.cancel(id, of: greedy) }
        for round in 0..<50 {
            let id = UInt64(1000 + round)
            _ = bench.request(id, from: greedy, demands: demands(2000 + round))
            _ = bench.cancel(id, of: greedy)
            bench.pass(milliseconds: 10)
        }
        #expect(bench.machine.tenants.total.routeBytes <= 2 << 20)
    }

    @Test("labels that nobody has make one tenant busy, not the others")
    func labels() throws {
        var bench = BrokerBench()
        var greedy: [Int] = []
        for number in 1...8 as ClosedRange<UInt64> { greedy.append(try bench.client(number, of: "greedy")) }
        var taken = 0
        for id in 0..<20_000 as Range<UInt64> {
            let demands = Demands(labels: ["l": "\(id)"])
            if self.isTaken(bench.request(id, from: greedy[Int(id % 8)], demands: demands)) { taken += 1 }
        }
        #expect(taken == 4096)
        let modest = try bench.client(100, of: "modest")
        for id in 0..<1000 as Range<UInt64> {
            let check18 = self.isTaken(bench.request(id, from: modest, demands: Demands(labels: ["mine": "\(id)"])))
            #expect(check18)
        }
    }

    @Test("an allowance gives what its rate says, whatever the clock does")
    func allowance() {
        func at(_ milliseconds: UInt64) -> Instant { Instant(nanoseconds: milliseconds * 1_000_000) }
        var allowance = Allowance(perSecond: 2, at: at(1000))
        let first = (0..<10).map { _ in allowance.take(at: at(1000)) }.count { $0 }
        #expect(first == 4)
        #expect(allowance.wait == 500)
        let back = allowance.take(at: at(0))
        #expect(!back)
        let later = (1...40).map { allowance.take(at: at(1000 + 100 * $0)) }.count { $0 }
        #expect(later == 8)
        let muchLater = (0..<10).map { _ in allowance.take(at: at(1_000_000)) }.count { $0 }
        #expect(muchLater == 4)
    }
}
