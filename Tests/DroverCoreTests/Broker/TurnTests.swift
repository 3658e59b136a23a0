// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire
import Testing

/// Workers of a fixed number of slots that run what they are sent, in simulated time.
private struct Floor: ~Copyable {
    struct Job {
        var end: UInt64
        var id: UInt64
        var client: Int
        var call: UInt64
        var duration: UInt64
    }

    struct Lane {
        var slots: Int
        var queue: [(id: UInt64, client: Int, call: UInt64)] = []
        var running: [Job] = []
    }

    var bench = BrokerBench()
    /// Microseconds since it began.
    var now: UInt64 = 0
    /// How long each client's calls take, in microseconds.
    var durations: [Int: UInt64] = [:]
    /// Clients whose calls all end by a cancellation while they run.
    var cancelled: Set<Int> = []
    /// Clients that ask again for what has ended.
    var repeating: Set<Int> = []
    /// Workers that don't say how long a call ran.
    var isSilent = false
    /// How long each client's calls ran.
    var time: [Int: UInt64] = [:]
    private var lanes: [Int: Lane] = [:]
    private var lastID: UInt64 = 0
    private var queues: [UInt64: String] = [:]
    private let start = Instant(nanoseconds: 1_000_000)

    mutating func worker(slots: Int, queues: Set<String> = [""]) throws -> Int {
        let number = UInt64(self.lanes.count + 1)
        let worker = try self.bench.worker(number, concurrency: slots, queues: queues)
        self.lanes[worker] = Lane(slots: slots)
        return worker
    }

    mutating func client(_ number: UInt64, _ quotas: Quotas = Quotas(), taking duration: UInt64) throws -> Int {
        let client = try self.bench.client(number, of: "tenant \(number)", quotas)
        self.durations[client] = duration
        return client
    }

    mutating func ask(_ count: Int, by client: Int, queue: String = "", priority: UInt8 = 4, key: String? = nil) {
        let demands = queue.isEmpty ? nil : Demands(queue: queue)
        for _ in 0..<count {
            self.lastID += 1
            self.queues[self.lastID] = queue
            self.bench.request(self.lastID, from: client, priority: priority, demands: demands, key: key)
        }
    }

    private mutating func gather() {
        for sent in self.bench.transmitted() {
            let client = self.bench.machine.addressee(sent.id, from: sent.worker)?.client ?? -1
            self.lanes[sent.worker]?.queue.append((sent.id, client, sent.call))
        }
        for worker in self.lanes.keys.sorted() {
            guard var lane = self.lanes[worker] else { continue }
            while lane.running.count < lane.slots, !lane.queue.isEmpty {
                let next = lane.queue.removeFirst()
                let duration = self.durations[next.client] ?? 1
                lane.running.append(
                    Job(end: self.now + duration, id: next.id, client: next.client, call: next.call, duration: duration)
                )
            }
            self.lanes[worker] = lane
        }
    }

    /// Runs until so much time has passed.
    mutating func run(milliseconds: UInt64) {
        let limit = self.now + milliseconds * 1000
        self.gather()
        while true {
            var first: (worker: Int, place: Int, end: UInt64)?
            for worker in self.lanes.keys.sorted() {
                for (place, job) in (self.lanes[worker]?.running ?? []).enumerated()
                where job.end < first?.end ?? limit { first = (worker, place, job.end) }
            }
            guard let first, let job = self.lanes[first.worker]?.running.remove(at: first.place) else { break }
            self.now = job.end
            self.bench.now = self.start.advanced(byNanoseconds: self.now * 1000)
            self.time[job.client, default: 0] += job.duration
            if self.cancelled.contains(job.client) {
                self.bench.machine.cancellationConfirmed(
                    job.id,
                    stage: .whileRunning,
                    from: first.worker,
                    at: self.bench.now,
                    actions: &self.bench.actions
                )
            } else {
                let said = self.isSilent ? 0 : UInt32(job.duration)
                _ = self.bench.answer(job.id, from: first.worker, ran: said)
            }
            let queue = self.queues.removeValue(forKey: job.call) ?? ""
            if self.repeating.contains(job.client) { self.ask(1, by: job.client, queue: queue) }
            self.gather()
        }
        self.now = limit
        self.bench.now = self.start.advanced(byNanoseconds: self.now * 1000)
    }

    /// Seconds that the workers ran a client's calls.
    func seconds(_ client: Int) -> Double { Double(self.time[client] ?? 0) / 1_000_000 }
}

/// Tenants that wait for the same workers have as much of their time, whatever others do elsewhere.
@Suite struct TurnTests {
    @Test("two tenants share a worker by time though a third is served at others", arguments: [1, 2, 4, 16])
    func elsewhere(slots: Int) throws {
        var floor = Floor()
        let far = try floor.client(1, taking: 10_000)
        let (quick, slow) = (try floor.client(2, taking: 1000), try floor.client(3, taking: 100_000))
        _ = try floor.worker(slots: 1)
        _ = try floor.worker(slots: slots, queues: ["far"])
        floor.ask(20_000, by: far, queue: "far")
        floor.ask(20_000, by: quick)
        floor.ask(400, by: slow)
        floor.run(milliseconds: 10_000)
        #expect((4.5...5.5).contains(floor.seconds(quick)), "\(floor.seconds(quick)) s of 10 s")
        #expect((4.5...5.5).contains(floor.seconds(slow)), "\(floor.seconds(slow)) s of 10 s")
    }

    @Test("two tenants share by time what one with a higher priority leaves")
    func higherPriority() throws {
        var floor = Floor()
        var quotas = Quotas()
        quotas.priority = 7
        let first = try floor.client(1, quotas, taking: 30_000)
        let (quick, slow) = (try floor.client(2, taking: 1000), try floor.client(3, taking: 100_000))
        _ = try floor.worker(slots: 1)
        floor.ask(300, by: first, priority: 7, key: "k")
        floor.ask(20_000, by: quick)
        floor.ask(400, by: slow)
        floor.run(milliseconds: 20_000)
        #expect(floor.seconds(first) > 4)
        let (one, other) = (floor.seconds(quick), floor.seconds(slow))
        #expect(abs(one - other) < 1, "\(one) and \(other) s")
    }

    @Test("a tenant's calls run beside another's, however much it has at workers of its own")
    func plenty() throws {
        var floor = Floor()
        let (rich, poor) = (try floor.client(1, taking: 10_000), try floor.client(2, taking: 10_000))
        _ = try floor.worker(slots: 1)
        _ = try floor.worker(slots: 16, queues: ["far"])
        floor.ask(20_000, by: rich, queue: "far")
        floor.ask(2000, by: rich)
        floor.run(milliseconds: 2000)
        floor.time = [:]
        floor.ask(2000, by: poor)
        floor.run(milliseconds: 4000)
        #expect((1.9...2.1).contains(floor.seconds(poor)), "\(floor.seconds(poor)) s of 4 s")
    }

    @Test(
        "a tenant that had the workers to itself for long owes nothing but what it runs, and one that was idle has no claim"
    )
    func idle() throws {
        var floor = Floor()
        let (old, new) = (try floor.client(1, taking: 50_000), try floor.client(2, taking: 50_000))
        _ = try floor.worker(slots: 2)
        // Never more than there are slots: nothing waits.
        floor.repeating = [old]
        floor.ask(2, by: old)
        floor.run(milliseconds: 30_000)
        floor.time = [:]
        floor.ask(600, by: new)
        floor.ask(600, by: old)
        floor.run(milliseconds: 2000)
        #expect((1.7...2.3).contains(floor.seconds(old)), "\(floor.seconds(old)) s of 4 s")
        #expect((1.7...2.3).contains(floor.seconds(new)), "\(floor.seconds(new)) s of 4 s")
    }

    @Test("a hundred tenants, and three hundred, have as much each, though their calls take from 1 to 20 ms")
    func many() throws {
        for count in [100, 300] as [UInt64] {
            var floor = Floor()
            _ = try floor.worker(slots: 4)
            let clients = try (1...count).map { try floor.client($0, taking: 1000 * (1 + $0 % 20)) }
            for client in clients { floor.ask(3, by: client) }
            floor.repeating = Set(clients)
            floor.run(milliseconds: count * 100)
            let times = clients.map { floor.seconds($0) }
            // 400 ms for each.
            #expect(times.min() ?? 0 > 0.33 && times.max() ?? 0 < 0.47, "\(times.min() ?? 0) to \(times.max() ?? 0)")
        }
    }

    @Test("calls that are cancelled while they run cost their tenant the time that they had")
    func cancelledCalls() throws {
        var floor = Floor()
        let (one, other) = (try floor.client(1, taking: 50_000), try floor.client(2, taking: 50_000))
        _ = try floor.worker(slots: 1)
        floor.cancelled = [one]
        floor.ask(1000, by: one)
        floor.ask(1000, by: other)
        floor.run(milliseconds: 20_000)
        #expect((9.5...10.5).contains(floor.seconds(one)), "\(floor.seconds(one)) s of 20 s")
    }

    @Test("calls of workers that don't say the run time cost the time that they were there")
    func silentWorkers() throws {
        var floor = Floor()
        let (quick, slow) = (try floor.client(1, taking: 5000), try floor.client(2, taking: 50_000))
        _ = try floor.worker(slots: 1)
        floor.isSilent = true
        floor.ask(5000, by: quick)
        floor.ask(1000, by: slow)
        floor.run(milliseconds: 20_000)
        #expect((9...11).contains(floor.seconds(quick)), "\(floor.seconds(quick)) s of 20 s")
    }

    @Test("a session that ends and begins again for each call owes its tenant's turns all the same")
    func newSessions() throws {
        var floor = Floor()
        let steady = try floor.client(1, taking: 1000)
        _ = try floor.worker(slots: 1)
        floor.ask(20_000, by: steady)
        floor.run(milliseconds: 10)
        var total = 0.0
        for number in 2..<102 as Range<UInt64> {
            let client = try floor.bench.client(number, of: "fickle")
            floor.durations[client] = 100_000
            floor.ask(1, by: client)
            floor.time[client] = 0
            while floor.time[client] == 0, floor.now < 10_000_000 { floor.run(milliseconds: 5) }
            total += floor.seconds(client)
            floor.bench.machine.clientLeft(client, at: floor.bench.now, actions: &floor.bench.actions)
        }
        #expect((4.0...5.6).contains(total), "\(total) s of 10 s")
    }

    @Test("tenants that always wait for the same workers differ by what runs at once, whatever others do: random mixes")
    func mixes() throws {
        for seed in 1...12 as ClosedRange<UInt64> {
            var random = Lottery(state: seed)
            var floor = Floor()
            let queues = ["", "one", "two"]
            var slots = 0
            for index in 0..<(2 + random.below(4)) {
                let count = 1 + random.below(3)
                slots += count
                // Some serve several queues.
                let own = Set([queues[index % 3]] + (random.below(3) == 0 ? [queues[random.below(3)]] : []))
                _ = try floor.worker(slots: count, queues: own)
            }
            var kinds: [Int: [Int]] = [:]
            for number in 1...UInt64(3 + random.below(8)) {
                let client = try floor.client(number, taking: UInt64(1000 * (1 + random.below(100))))
                let kind = 1 + random.below(7)
                kinds[kind, default: []].append(client)
                floor.repeating.insert(client)
                for (bit, queue) in queues.enumerated() where kind & 1 << bit != 0 {
                    floor.ask(200, by: client, queue: queue)
                }
            }
            // One that comes and goes, everywhere.
            let fickle = try floor.client(100, taking: UInt64(1000 * (1 + random.below(300))))
            for _ in 0..<20 {
                for queue in queues where random.below(2) == 0 { floor.ask(random.below(10), by: fickle, queue: queue) }
                floor.run(milliseconds: 1000)
            }
            // At each slot one call of each may run, and one more be sent; calls take up to 100 ms.
            let bound = Double(slots) * 0.4
            for alike in kinds.values {
                let times = alike.map { floor.seconds($0) }
                let difference = (times.max() ?? 0) - (times.min() ?? 0)
                #expect(difference <= bound, "seed \(seed): \(times) of \(slots) slots")
            }
        }
    }

    @Test("a rate isn't got round by sessions that end and begin again, nor by keys that say another")
    func rate() throws {
        var bench = BrokerBench()
        var quotas = Quotas()
        quotas.rate = 10
        let worker = try bench.worker(1, concurrency: 1)
        // The route is somebody else's, as it is when others called the function before.
        let modest = try bench.client(999, of: "modest")
        bench.request(1, from: modest)
        _ = bench.serve(by: worker) { _ in 10 }
        func taken(in rounds: ClosedRange<UInt64>, _ bench: inout BrokerBench) throws -> Int {
            var taken = 0
            for round in rounds {
                quotas.rate = round % 2 == 0 ? 10 : 9
                let client = try bench.client(round, of: "greedy", quotas)
                for id in 1...40 as ClosedRange<UInt64> {
                    if case .taken = bench.request(round * 1000 + id, from: client) { taken += 1 }
                }
                _ = bench.serve(by: worker) { _ in 10 }
                bench.machine.clientLeft(client, at: bench.now, actions: &bench.actions)
                bench.pass(milliseconds: 1)
            }
            return taken
        }
        let atOnce = try taken(in: 1...20, &bench)
        #expect((18...20).contains(atOnce), "\(atOnce) in no time")
        // It is forgotten once its allowance is full. The other one's route stays, until memory is given back.
        bench.machine.clientLeft(modest, at: bench.now, actions: &bench.actions)
        bench.machine.trim()
        bench.pass(milliseconds: 1)
        let places = bench.machine.tenants.placeCount
        bench.pass(milliseconds: 4000)
        #expect(places == 2 && bench.machine.tenants.placeCount == 0)
        let later = try taken(in: 21...21, &bench)
        #expect(later == 18)
    }

    @Test("tenants that come and go by thousands leave no more places than rest at once")
    func comers() throws {
        var bench = BrokerBench()
        for number in 1...10_000 as ClosedRange<UInt64> {
            let client = try bench.client(number, of: "tenant \(number)")
            bench.machine.clientLeft(client, at: bench.now, actions: &bench.actions)
        }
        #expect(bench.machine.tenants.count == 0 && bench.machine.tenants.placeCount <= 4098)
        bench.pass(milliseconds: 1)
        bench.pass(milliseconds: 4000)
        #expect(bench.machine.tenants.placeCount == 0)
    }

    @Test("what the list says of a key that is another tenant's now changes neither's quotas in a session that goes on")
    func movedKey() throws {
        var bench = BrokerBench()
        let (one, moved) = (try bench.client(1, of: "web"), try bench.client(2, of: "web"))
        var quotas = Quotas()
        quotas.calls = 2
        let small = TenantClaim(name: "small", quotas: quotas)
        bench.machine.changeQuotas(of: .client(moved), to: small, at: bench.now)
        let taken = (1...5 as ClosedRange<UInt64>).map { bench.request($0, from: one) }
        #expect(taken.allSatisfy { if case .taken = $0 { true } else { false } })
        quotas.calls = 0
        bench.machine.changeQuotas(of: .client(moved), to: TenantClaim(name: "web", quotas: quotas), at: bench.now)
        guard case .overQuota(let refusal) = bench.request(6, from: one) else {
            Issue.record("back again, its line counts")
            return
        }
        #expect(refusal.quota == .calls)
    }
}

private struct Lottery {
    var state: UInt64

    mutating func below(_ bound: Int) -> Int {
        self.state = self.state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return Int(self.state >> 33) % bound
    }
}
