// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire
import Simulator
import Testing

/// Calls that kill workers, and workers that take no calls.
@Suite struct SuspectTests {
    private static func at(_ milliseconds: UInt64) -> Instant { Instant(nanoseconds: milliseconds * 1_000_000) }

    private static func open(
        _ machine: inout ClientMachine,
        _ endpoint: Int,
        epoch: UInt64 = 7,
        slots: Int,
        at now: Instant = at(1)
    ) {
        var actions: [ClientAction] = []
        machine.connected(endpoint, at: now, actions: &actions)
        machine.welcomed(
            by: endpoint,
            epoch: epoch,
            session: 1,
            window: 1024,
            slots: slots,
            isResumed: true,
            at: now,
            actions: &actions
        )
    }

    @Test("S100 short calls don't wait behind a long one while another worker is idle")
    func freeSlots() throws {
        var machine = ClientMachine(endpointCount: 2)
        for endpoint in 0..<2 { Self.open(&machine, endpoint, slots: 1) }
        var actions: [ClientAction] = []
        let long = try #require(machine.submitted(Call(id: 1), at: Self.at(2))?.endpoint)
        for id in 2...11 {
            _ = machine.submitted(Call(id: UInt64(id)), at: Self.at(2))
            machine.dispatch(actions: &actions)
        }
        #expect(machine.endpoints[long].outstanding == 1)
        for id in 2...11 {
            let now = Self.at(UInt64(10 * id))
            let verdict = machine.replied(UInt64(id), ranMicroseconds: 10_000, from: 1 - long, at: now)
            guard case .deliver = verdict else { throw Violation("\(id) was not at the idle worker: \(verdict)") }
            machine.dispatch(actions: &actions)
            #expect(machine.endpoints[long].outstanding == 1)
        }
        #expect(machine.callCount == 1)
    }

    @Test("S100 quick calls fill the way to a worker, and come back when one turns out to be slow")
    func credit() throws {
        var machine = ClientMachine(endpointCount: 2)
        for endpoint in 0..<2 { Self.open(&machine, endpoint, slots: 1) }
        var actions: [ClientAction] = []
        for id in 1...4000 { _ = machine.submitted(Call(id: UInt64(id)), at: Self.at(2)) }
        var held: [[UInt64]] = [[], []]
        func perform() {
            for action in actions {
                if case .transmit(let slot, let endpoint, _, _) = action {
                    held[endpoint].append(machine.call(in: slot).id)
                }
            }
            actions = []
        }
        for slot in 0..<2 { held[Int(machine.call(in: UInt32(slot)).endpoint)].append(UInt64(slot + 1)) }
        for _ in 0..<200 {
            for endpoint in 0..<2 where !held[endpoint].isEmpty {
                let id = held[endpoint].removeFirst()
                _ = machine.replied(id, ranMicroseconds: 5, from: endpoint, at: Self.at(3))
                machine.dispatch(actions: &actions)
                perform()
            }
        }
        #expect(machine.endpoints.allSatisfy { $0.outstanding > 150 }, "the credit covers the way")
        // One is slow all at once: what waits behind it is asked for, once.
        var recalls: [UInt64] = []
        for milliseconds in stride(from: UInt64(60), to: 5000, by: 60) {
            machine.ticked(at: Self.at(milliseconds), actions: &actions)
            for case .sendCancel(0, let id, .recalled) in actions { recalls.append(id) }
            perform()
        }
        #expect(Set(recalls) == Set(held[0].dropFirst()) && recalls.count == held[0].count - 1)
        for id in recalls {
            machine.cancellationConfirmed(id, stage: .beforeStart, from: 0, at: Self.at(5000), actions: &actions)
        }
        #expect(machine.endpoints[0].outstanding == 1 && machine.endpoints[0].credit == 1)
    }

    @Test("S100 a worker that declines is asked ever more seldom, and a call so often at most")
    func declining() throws {
        for stage in [CancelledStage.beforeStart, .lapsed] {
            var machine = ClientMachine(endpointCount: 1)
            Self.open(&machine, 0, slots: 4)
            var actions: [ClientAction] = []
            var count = 1
            _ = machine.submitted(Call(id: 1), at: Self.at(2))
            machine.cancellationConfirmed(1, stage: stage, from: 0, at: Self.at(2), actions: &actions)
            for milliseconds in UInt64(3)...60_000 where machine.callCount > 0 {
                machine.heard(from: 0, at: Self.at(milliseconds))
                machine.ticked(at: Self.at(milliseconds), actions: &actions)
                machine.dispatch(actions: &actions)
                for case .transmit in actions {
                    count += 1
                    if milliseconds == 2000 { #expect(count < 12) }
                    machine.cancellationConfirmed(
                        1,
                        stage: stage,
                        from: 0,
                        at: Self.at(milliseconds),
                        actions: &actions
                    )
                }
                if !actions.contains(where: { if case .finish = $0 { true } else { false } }) { actions = [] }
            }
            #expect(count == 20)
            #expect(actions.contains(.finish(slot: 0, id: 1, ending: .declined(0))))
        }
    }

    @Test("S100 through a broker a worker that declines is asked ever more seldom, and a call so often at most")
    func decliningBrokered() throws {
        for stage in [CancelledStage.beforeStart, .lapsed] {
            var bench = BrokerBench()
            let client = try bench.client(1)
            let worker = try bench.worker(1)
            bench.request(1, from: client)
            var count = 0
            var hasEnded = false
            for milliseconds in UInt64(2)...60_000 where !hasEnded {
                bench.now = Self.at(milliseconds)
                bench.machine.heard(from: .worker(worker), at: bench.now)
                bench.machine.heard(from: .client(client), at: bench.now)
                bench.ready(worker, epoch: 1)
                bench.machine.ticked(at: bench.now, actions: &bench.actions)
                hasEnded = bench.actions.contains(.finish(slot: 0, client: client, id: 1, ending: .declined))
                while let sent = bench.transmitted().first {
                    count += 1
                    bench.confirm(sent.id, stage, from: worker)
                    if bench.actions.contains(.finish(slot: 0, client: client, id: 1, ending: .declined)) {
                        hasEnded = true
                        break
                    }
                }
                if milliseconds == 2000 { #expect(count < 12) }
            }
            #expect(hasEnded && count == 20)
        }
    }

    @Test("S40 S62 S85 to the only worker few calls go ahead, and none if many wait")
    func ahead() throws {
        for count in [100, 1000] {
            var machine = ClientMachine(endpointCount: 1)
            var actions: [ClientAction] = []
            for id in 1...UInt64(count) { _ = machine.submitted(Call(id: id), at: Self.at(1)) }
            Self.open(&machine, 0, slots: 4)
            machine.dispatch(actions: &actions)
            #expect(machine.endpoints[0].outstanding == (count == 100 ? 100 : 4))
        }
        // With another worker all wait where either can take them.
        var machine = ClientMachine(endpointCount: 2)
        for endpoint in 0..<2 { Self.open(&machine, endpoint, slots: 4) }
        for id in 1...UInt64(100) { _ = machine.submitted(Call(id: id), at: Self.at(2)) }
        #expect(machine.endpoints.map(\.outstanding) == [4, 4])
    }

    @Test("S9 calls that wait behind their ordering key take no slot from others", arguments: [1, 2])
    func keyed(endpoints: Int) throws {
        var machine = ClientMachine(endpointCount: endpoints)
        var actions: [ClientAction] = []
        for endpoint in 0..<endpoints { Self.open(&machine, endpoint, slots: 4) }
        for id in 1...UInt64(300) { _ = machine.submitted(Call(id: id, affinity: 8), at: Self.at(1)) }
        for id in 301...UInt64(304) { _ = machine.submitted(Call(id: id, affinity: 10), at: Self.at(1)) }
        machine.dispatch(actions: &actions)
        #expect(machine.endpoints[0].outstanding == 304, "all of a key go to its worker")
        // Two slots are for the two keys.
        let room = 4 * endpoints - 2
        for id in 401...UInt64(400 + room) {
            let place = machine.submitted(Call(id: id), at: Self.at(2))
            #expect(place?.endpoint != nil)
        }
        #expect(!machine.endpoints.contains { $0.hasRoom })
        // A key's last call frees its slot.
        for id in 301...UInt64(304) { _ = machine.replied(id, from: 0, at: Self.at(3)) }
        #expect(machine.endpoints[0].hasRoom)
    }

    @Test(
        "S9 calls of an ordering key stay where some of it are when another worker comes or goes, and may move once those ended"
    )
    func homes() throws {
        var machine = ClientMachine(endpointCount: 3)
        var actions: [ClientAction] = []
        Self.open(&machine, 0, epoch: 7, slots: 4, at: Self.at(1))
        var id: UInt64 = 0
        func submit(_ affinity: UInt64) -> Int? {
            id += 1
            return machine.submitted(Call(id: id, affinity: affinity), at: Self.at(2))?.endpoint
        }
        for affinity in UInt64(1)...6 { #expect(submit(affinity) == 0) }
        for endpoint in 1...2 { Self.open(&machine, endpoint, epoch: 7, slots: 4, at: Self.at(3)) }
        for affinity in UInt64(1)...6 { #expect(submit(affinity) == 0) }
        let spread = Set((7...12 as ClosedRange<UInt64>).map { submit($0) })
        #expect(spread == [0, 1, 2], "new ones go to all")
        let before = (7...12 as ClosedRange<UInt64>).map { ($0, submit($0)) }
        machine.goodbyeReceived(from: 2, reason: .draining, at: Self.at(4), actions: &actions)
        for (affinity, endpoint) in before where endpoint != 2 { #expect(submit(affinity) == endpoint) }
        // None is left of the first six: they go where they would have gone at first.
        for ended in UInt64(1)...12 { _ = machine.replied(ended, from: 0, at: Self.at(5)) }
        #expect(Set((1...6 as ClosedRange<UInt64>).map { submit($0) }) == [0, 1])
    }

    @Test("S9 S88 what comes behind a suspect of its ordering key waits for it, also while its worker takes others")
    func keyedSuspect() throws {
        var configuration = ClientMachine.Configuration()
        configuration.aloneNanoseconds = 1_000_000_000
        var machine = ClientMachine(endpointCount: 1, configuration: configuration)
        var actions: [ClientAction] = []
        for id in UInt64(1)...2 {
            _ = machine.submitted(Call(id: id, isIdempotent: true, affinity: id == 1 ? 0 : 8), at: Self.at(1))
        }
        Self.open(&machine, 0, epoch: 7, slots: 4, at: Self.at(2))
        machine.dispatch(actions: &actions)
        machine.beatReceived(from: 0, epoch: 8, at: Self.at(3), actions: &actions)
        Self.open(&machine, 0, epoch: 8, slots: 4, at: Self.at(3))
        machine.dispatch(actions: &actions)
        // One more of the key, which has not been sent when both die for the second time.
        machine.beatReceived(from: 0, epoch: 9, at: Self.at(4), actions: &actions)
        _ = machine.submitted(Call(id: 3, affinity: 8), at: Self.at(4))
        Self.open(&machine, 0, epoch: 9, slots: 4, at: Self.at(5))
        var sent = Self.pass(&machine, from: 5, to: 900).map(\.id)
        #expect(sent == [1], "the first suspect is alone")
        // The first has had its time, and runs on: others may come, and the next suspect may not, yet.
        _ = machine.submitted(Call(id: 4, affinity: 8), at: Self.at(1100))
        sent = Self.pass(&machine, from: 1105, to: 1200).map(\.id)
        #expect(machine.submitted(Call(id: 5, affinity: 10), at: Self.at(1200))?.endpoint == 0)
        #expect(machine.submitted(Call(id: 6, affinity: 8), at: Self.at(1200))?.endpoint == nil)
        sent += Self.pass(&machine, from: 1200, to: 20_000).map(\.id)
        #expect(sent == [2, 3, 4, 6], "\(sent)")
        for id in UInt64(1)...6 { _ = machine.replied(id, from: 0, at: Self.at(20_000)) }
        let left = machine.queuedIDs
        #expect(left == 0 && machine.callCount == 0)
    }

    @Test("quick calls open the credit to all that a millisecond covers, within few answers")
    func opening() throws {
        for (slots, microseconds, expected) in [(1, UInt32(1), 1001), (1, 10, 101), (4, 2, 1024), (16, 1000, 32)] {
            var machine = ClientMachine(endpointCount: 1)
            Self.open(&machine, 0, slots: slots)
            var actions: [ClientAction] = []
            for id in 1...UInt64(4000) { _ = machine.submitted(Call(id: id), at: Self.at(2)) }
            for id in 1...UInt64(12) {
                _ = machine.replied(id, ranMicroseconds: microseconds, from: 0, at: Self.at(3))
                machine.dispatch(actions: &actions)
            }
            #expect(machine.endpoints[0].credit == expected, "\(slots) slots, \(microseconds) us")
        }
    }

    @Test("S100 a handler that waits without a slot makes room for another call, also where a worker is emptied")
    func released() throws {
        var machine = ClientMachine(endpointCount: 2)
        for endpoint in 0..<2 { Self.open(&machine, endpoint, slots: 1) }
        var actions: [ClientAction] = []
        for id in 1...UInt64(4) { _ = machine.submitted(Call(id: id), at: Self.at(2)) }
        #expect(machine.endpoints.map(\.outstanding) == [1, 1])
        let first = Int(machine.call(in: 0).endpoint)
        machine.slotReleased(1, true, from: first)
        machine.slotReleased(1, true, from: first)
        machine.slotReleased(1, true, from: 1 - first)
        machine.dispatch(actions: &actions)
        #expect(machine.endpoints[first].outstanding == 2 && machine.endpoints[1 - first].outstanding == 1)
        machine.slotReleased(1, false, from: first)
        machine.slotReleased(1, true, from: first)
        machine.dispatch(actions: &actions)
        #expect(machine.endpoints[first].outstanding == 2)
        _ = machine.replied(1, ranMicroseconds: 50_000, from: first, at: Self.at(60))
        #expect(machine.endpoints[first].outstanding == 1 && machine.endpoints[first].released == 0)
        machine.dispatch(actions: &actions)
        #expect(machine.endpoints[first].outstanding == 1)
    }

    @Test("S88 a suspect whose handler waits for a call that waits for a slot is alone no longer")
    func stalledSuspect() throws {
        var bench = BrokerBench()
        let (client, nested) = (try bench.client(1), try bench.client(2))
        bench.request(1, from: client, isIdempotent: true)
        for epoch in UInt64(1)...2 {
            let worker = try bench.worker(epoch, concurrency: 4)
            #expect(bench.transmitted().map(\.call) == [1])
            bench.die(worker)
        }
        let worker = try bench.worker(9, concurrency: 4)
        let alone = try #require(bench.transmitted().first)
        bench.request(7, from: nested)
        #expect(bench.transmitted().isEmpty)
        let slot = try #require(bench.machine.addressee(alone.id, from: worker)?.slot)
        bench.machine.phaseReported(slot, isStalled: true, at: bench.now, actions: &bench.actions)
        #expect(bench.transmitted().map(\.call) == [7])
    }

    /// A client's machine with two calls that were in two deaths, each alone at a worker of eight slots; no others wait.
    private static func suspects(of maxAttempts: UInt8 = 3, slots: Int = 8) throws -> ClientMachine {
        var configuration = ClientMachine.Configuration()
        configuration.maxAttempts = maxAttempts
        var machine = ClientMachine(endpointCount: 2, configuration: configuration)
        var actions: [ClientAction] = []
        for id in UInt64(1)...2 { _ = machine.submitted(Call(id: id, isIdempotent: true), at: Self.at(1)) }
        for epoch in UInt64(7)...9 {
            for endpoint in 0..<2 {
                Self.open(&machine, endpoint, epoch: epoch, slots: slots, at: Self.at(2))
                machine.dispatch(actions: &actions)
            }
            guard epoch < 9 else { break }
            for endpoint in 0..<2 {
                machine.beatReceived(from: endpoint, epoch: epoch + 1, at: Self.at(3), actions: &actions)
            }
        }
        return machine
    }

    /// Everybody is heard while time passes; what is sent meanwhile.
    private static func pass(
        _ machine: inout ClientMachine,
        from start: UInt64,
        to end: UInt64
    ) -> [(id: UInt64, endpoint: Int, at: UInt64)] {
        var sent: [(id: UInt64, endpoint: Int, at: UInt64)] = []
        var actions: [ClientAction] = []
        for milliseconds in stride(from: start, to: end, by: 100) {
            let now = Self.at(milliseconds)
            for endpoint in machine.endpoints.indices { machine.heard(from: endpoint, at: now) }
            machine.ticked(at: now, actions: &actions)
            machine.dispatch(actions: &actions)
            for case .transmit(let slot, let endpoint, _, _) in actions {
                sent.append((machine.call(in: slot).id, endpoint, milliseconds))
            }
            actions = []
        }
        return sent
    }

    @Test("S88 S100 a suspect that runs for long keeps its worker from others for five seconds, and no longer")
    func longSuspect() throws {
        var machine = try Self.suspects()
        #expect(machine.endpoints.map(\.outstanding) == [1, 1])
        for id in UInt64(10)...13 { _ = machine.submitted(Call(id: id), at: Self.at(4)) }
        #expect(Self.pass(&machine, from: 100, to: 4900).isEmpty)
        let sent = Self.pass(&machine, from: 4900, to: 5300)
        #expect(sent.map(\.id).sorted() == [10, 11, 12, 13], "\(sent)")
        // They run on, and their workers take others at once.
        #expect(Self.pass(&machine, from: 5300, to: 20_000).isEmpty)
        #expect(machine.submitted(Call(id: 14), at: Self.at(20_000))?.endpoint != nil)
    }

    @Test("S88 a worker that dies after that is a suspect's doing first of all; who came later has one start more")
    func blame() throws {
        var machine = try Self.suspects()
        for id in UInt64(10)...11 { _ = machine.submitted(Call(id: id, isIdempotent: true), at: Self.at(4)) }
        _ = Self.pass(&machine, from: 100, to: 5300)
        let place = Int(machine.call(in: 0).endpoint)
        var actions: [ClientAction] = []
        machine.beatReceived(from: place, epoch: 99, at: Self.at(5400), actions: &actions)
        let endings = actions.compactMap { if case .finish(_, let id, let ending) = $0 { (id, ending) } else { nil } }
        #expect(endings.count == 1 && endings.first?.0 == 1)
        guard case .poison(3, _)? = endings.first?.1 else { throw Violation("\(endings)") }
        for id in UInt64(10)...11 {
            let found = machine.slot(of: id)
            let slot = try #require(found)
            #expect(machine.call(in: slot).attempts <= 1)
        }
    }

    @Test(
        "S88 a worker that doesn't become empty is a suspect's after five seconds; only that is blamed if it dies then"
    )
    func neverEmpty() throws {
        var machine = try Self.suspects(slots: 2)
        // One of the long ones runs alone at each; a third comes to be suspected.
        var actions: [ClientAction] = []
        _ = machine.submitted(Call(id: 3, isIdempotent: true, attempts: 2), at: Self.at(4))
        let sent = Self.pass(&machine, from: 100, to: 16_000)
        // Alone for five seconds, others for five, emptied for five.
        let third = try #require(sent.first { $0.id == 3 })
        #expect((14_900...15_400).contains(third.at), "\(sent)")
        machine.beatReceived(from: third.endpoint, epoch: 99, at: Self.at(16_100), actions: &actions)
        let endings = actions.compactMap { if case .finish(_, let id, let ending) = $0 { (id, ending) } else { nil } }
        #expect(endings.map(\.0) == [3], "\(endings)")
    }

    @Test("S88 suspects take no more than half of a worker's time from others")
    func half() throws {
        var machine = ClientMachine(endpointCount: 1)
        Self.open(&machine, 0, slots: 1)
        for id in UInt64(1)...100 {
            _ = machine.submitted(Call(id: id, isIdempotent: true, attempts: 2), at: Self.at(2))
        }
        var actions: [ClientAction] = []
        machine.dispatch(actions: &actions)
        for id in UInt64(101)...200 { _ = machine.submitted(Call(id: id), at: Self.at(2)) }
        var (held, time): ([UInt64], UInt64) = ([], 2)
        var others: [UInt64] = []
        for case .transmit(let slot, _, _, _) in actions { held.append(machine.call(in: slot).id) }
        #expect(held == [1])
        actions = []
        while machine.callCount > 0, time < 60_000 {
            time += 200
            let now = Self.at(time)
            machine.heard(from: 0, at: now)
            machine.ticked(at: now, actions: &actions)
            if !held.isEmpty {
                let id = held.removeFirst()
                _ = machine.replied(id, ranMicroseconds: 200_000, from: 0, at: now)
                if id > 100 { others.append(time) }
            }
            machine.dispatch(actions: &actions)
            for case .transmit(let slot, _, _, _) in actions { held.append(machine.call(in: slot).id) }
            actions = []
        }
        #expect(machine.callCount == 0)
        // The first of the others came soon, and by the time that as many suspects had run most others had.
        #expect(others.first ?? .max < 6000 && others.count { $0 < 25_000 } > 40, "\(others)")
    }

    @Test("S88 a call whose first death is the last is never alone, and ends at once")
    func oneAttempt() throws {
        var configuration = ClientMachine.Configuration()
        configuration.maxAttempts = 1
        var machine = ClientMachine(endpointCount: 1, configuration: configuration)
        Self.open(&machine, 0, slots: 4)
        var actions: [ClientAction] = []
        for id in UInt64(1)...3 { _ = machine.submitted(Call(id: id, isIdempotent: true), at: Self.at(2)) }
        #expect(machine.endpoints[0].outstanding == 3)
        machine.beatReceived(from: 0, epoch: 8, at: Self.at(3), actions: &actions)
        let ended = actions.count { if case .finish(_, _, .poison(1, _)) = $0 { true } else { false } }
        #expect(ended == 3 && machine.callCount == 0)
    }

    @Test("S88 S100 through a broker a suspect that runs for long keeps its worker for five seconds, and no longer")
    func longSuspectBrokered() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        bench.request(1, from: client, isIdempotent: true)
        bench.request(2, from: client, isIdempotent: true)
        var number: UInt64 = 0
        var workers: [Int] = []
        func pass(_ steps: Int) {
            for _ in 0..<steps {
                for worker in workers { bench.machine.heard(from: .worker(worker), at: bench.now) }
                bench.machine.heard(from: .client(client), at: bench.now)
                bench.pass(milliseconds: 100)
            }
        }
        for round in 0..<3 {
            workers = []
            for _ in 0..<2 {
                number += 1
                workers.append(try bench.worker(number, concurrency: round < 2 ? 1 : 8))
            }
            #expect(bench.transmitted().count == 2)
            guard round < 2 else { break }
            for worker in workers { bench.die(worker) }
        }
        #expect(
            bench.machine.workers[workers[0]].outstanding == 1 && bench.machine.workers[workers[1]].outstanding == 1
        )
        bench.actions = []
        for id in UInt64(10)...12 { bench.request(id, from: client, isIdempotent: id == 12) }
        pass(48)
        #expect(bench.transmitted().isEmpty)
        pass(4)
        #expect(bench.transmitted().map(\.call).sorted() == [10, 11, 12])
        // It dies now: the suspect is to blame.
        let place = try #require(workers.first { bench.machine.workers[$0].outstanding > 0 })
        bench.die(place)
        let poisoned = bench.endings().filter { if case .poison = $0.value { true } else { false } }
        #expect(poisoned.count == 1 && (poisoned.keys.first ?? 9) <= 2)
    }

    /// A worker's model: it starts what it has in order, and dies when the bad one starts.
    private struct Model {
        var slots: Int
        var held: [UInt64] = []
        var epoch: UInt64 = 7
        var started: Int { min(self.slots, self.held.count) }
    }

    @Test("S88 one bad call of 2,000 is the only one to end as poison, at any number of workers and slots")
    func poison() throws {
        try withSeeds(60) { random in
            let bad = UInt64(1 + random.below(2000))
            let (workers, slots) = (1 + random.below(6), 1 + random.below(12))
            let microseconds = [UInt32(3), 100, 5000][random.below(3)]
            let hasPlain = random.oneIn(2)
            var machine = ClientMachine(endpointCount: workers)
            var models = [Model](repeating: Model(slots: slots), count: workers)
            for index in models.indices { Self.open(&machine, index, slots: slots) }
            var ended: [UInt64: CallEnding?] = [:]
            var starts: [UInt64: Int] = [:]
            var actions: [ClientAction] = []
            var now: UInt64 = 2
            var deaths = 0
            func isPlain(_ id: UInt64) -> Bool { hasPlain && id != bad && id.isMultiple(of: 2) }
            func perform() {
                for action in actions {
                    switch action {
                    case .transmit(let slot, let endpoint, _, _):
                        models[endpoint].held.append(machine.call(in: slot).id)
                    case .finish(_, let id, let ending): ended[id] = .some(ending)
                    default: break
                    }
                }
                actions = []
            }
            for id in 1...UInt64(2000) {
                guard let place = machine.submitted(Call(id: id, isIdempotent: !isPlain(id)), at: Self.at(now)) else {
                    throw Violation("\(id) was refused")
                }
                if let endpoint = place.endpoint { models[endpoint].held.append(id) }
            }
            var rounds = 0
            while machine.callCount > 0 {
                rounds += 1
                try check(rounds < 20_000, "the calls don't end")
                now += 1
                let index = random.below(workers)
                machine.heard(from: index, at: Self.at(now))
                let running = models[index].held.prefix(slots)
                if running.contains(bad) {
                    deaths += 1
                    for id in running { starts[id, default: 0] += 1 }
                    models[index].held = []
                    models[index].epoch += 1
                    machine.beatReceived(from: index, epoch: models[index].epoch, at: Self.at(now), actions: &actions)
                    perform()
                    Self.open(&machine, index, epoch: models[index].epoch, slots: slots, at: Self.at(now))
                } else if !running.isEmpty {
                    let id = models[index].held.remove(at: random.below(running.count))
                    starts[id, default: 0] += 1
                    let verdict = machine.replied(id, ranMicroseconds: microseconds, from: index, at: Self.at(now))
                    if case .deliver = verdict { ended[id] = .some(nil) }
                }
                machine.dispatch(actions: &actions)
                perform()
            }
            try check(deaths == 3, "\(deaths) deaths")
            var lost = 0
            for id in 1...UInt64(2000) {
                guard let ending = ended[id] else { throw Violation("\(id) has not ended") }
                if id == bad {
                    guard case .poison(3, _)? = ending else {
                        throw Violation("the bad one: \(String(describing: ending))")
                    }
                } else if isPlain(id) {
                    try check(starts[id, default: 0] <= 1, "\(id) may run once, and ran again")
                    if ending != nil { lost += 1 }
                } else {
                    try check(ending == nil, "\(id) came to \(String(describing: ending))")
                }
            }
            // Of slow calls only those in slots can have run.
            if microseconds == 5000 { try check(lost <= 2 * slots, "\(lost) were lost") }
        }
    }

    @Test("S88 through a broker one bad call of 2,000 is the only one to end as poison")
    func poisonBrokered() throws {
        try withSeeds(30) { random in
            let bad = UInt64(1 + random.below(2000))
            let (workers, slots) = (1 + random.below(6), 1 + random.below(12))
            let microseconds = [UInt32(3), 100, 5000][random.below(3)]
            var bench = BrokerBench()
            let client = try bench.client(1)
            var models: [Int: Model] = [:]
            for number in 1...workers {
                let worker = try bench.worker(UInt64(number), concurrency: slots)
                models[worker] = Model(slots: slots, epoch: UInt64(number))
            }
            for id in 1...UInt64(2000) { bench.request(id, from: client, isIdempotent: true) }
            var callOf: [UInt64: UInt64] = [:]
            var ended: [UInt64: BrokerEnding?] = [:]
            var deaths = 0
            func perform() {
                for action in bench.actions {
                    switch action {
                    case .transmit(let slot, let worker, let id, _):
                        callOf[id] = bench.machine.call(in: slot).id
                        models[worker]?.held.append(id)
                    case .finish(_, _, let id, let ending): ended[id] = .some(ending)
                    default: break
                    }
                }
                bench.actions = []
            }
            perform()
            var rounds = 0
            while bench.machine.callCount > 0 {
                rounds += 1
                try check(rounds < 40_000, "the calls don't end")
                bench.now = bench.now.advanced(byNanoseconds: 1_000_000)
                let numbers = models.keys.sorted()
                let worker = numbers[random.below(numbers.count)]
                guard let model = models[worker] else { continue }
                let running = model.held.prefix(slots)
                if running.contains(where: { callOf[$0] == bad }) {
                    deaths += 1
                    let number = bench.machine.workers[worker].offer.worker.low
                    models[worker] = nil
                    bench.die(worker)
                    perform()
                    let epoch = UInt64(1000 + deaths)
                    let next = try bench.worker(number + 100 * epoch, concurrency: slots)
                    models[next] = Model(slots: slots, epoch: epoch)
                    perform()
                } else if !running.isEmpty {
                    let id = running[running.startIndex + random.below(running.count)]
                    models[worker]?.held.removeAll { $0 == id }
                    if let addressee = bench.answer(id, from: worker, ran: microseconds) {
                        ended[addressee.id] = .some(nil)
                    }
                    perform()
                }
            }
            try check(deaths == 3, "\(deaths) deaths")
            for id in 1...UInt64(2000) {
                guard let ending = ended[id] else { throw Violation("\(id) has not ended") }
                if id == bad {
                    guard case .poison(3, let names)? = ending, names.count == 3 else {
                        throw Violation("the bad one: \(String(describing: ending))")
                    }
                } else {
                    try check(ending == nil, "\(id) came to \(String(describing: ending))")
                }
            }
        }
    }
}

extension BrokerBench {
    /// A worker dies: another epoch shows it.
    fileprivate mutating func die(_ worker: Int) {
        self.ready(worker, epoch: self.machine.workers[worker].offer.epoch &+ 1)
    }
}
