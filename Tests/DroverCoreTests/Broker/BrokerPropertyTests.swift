// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire
import Simulator
import Testing

@Suite struct BrokerPropertyTests {
    private struct Model {
        /// Clients' open calls, by client and id.
        var open: Set<[UInt64]> = []
        /// What each worker has, by the broker's id.
        var held: [Int: [UInt64: [UInt64]]] = [:]
        var cancelled: [Int: Set<UInt64>] = [:]

        mutating func end(_ client: Int, _ id: UInt64) throws {
            try check(self.open.remove([UInt64(client), id]) != nil, "call \(id) of \(client) ended and was not open")
        }

        mutating func perform(_ bench: inout BrokerBench) throws {
            var sent: Set<Int> = []
            for action in bench.actions {
                switch action {
                case .transmit(let slot, let worker, let id, _):
                    let call = bench.machine.call(in: slot)
                    sent.insert(worker)
                    let isHeldUp = bench.machine.clients[Int(call.client)].isHeldUp
                    try check(!isHeldUp, "a client that doesn't read had call \(call.id) sent")
                    self.held[worker, default: [:]][id] = [UInt64(call.client), call.id]
                case .finish(_, let client, let id, _): try self.end(client, id)
                case .workerLost(let worker, _, _): self.held[worker] = [:]
                case .clientLost(let client, _): self.open = self.open.filter { $0[0] != UInt64(client) }
                default: break
                }
            }
            bench.actions = []
            let slots = bench.machine.workers.reduce(0) { $0 + ($1.isLive ? $1.offer.concurrency : 0) }
            try check(
                bench.machine.slotCount == slots,
                "\(bench.machine.slotCount) handlers counted, there are \(slots)"
            )
            for (worker, calls) in self.held where bench.machine.workers[worker].isLive {
                let known = bench.machine.workers[worker]
                try check(calls.count == known.outstanding, "worker \(worker) has \(calls.count) calls")
                // Credit may sink below what a worker has; then it gets nothing.
                let wasGiven = sent.contains(worker)
                try check(!wasGiven || calls.count <= known.credit, "worker \(worker) has more than its credit")
            }
        }
    }

    @Test(
        "whatever happens, each call ends once, answers find their client, credit holds, and the tables are empty at the end"
    )
    func histories() throws {
        try withSeeds(2000) { random in
            var bench = BrokerBench()
            var model = Model()
            var lives: UInt64 = 0
            var id: UInt64 = 0
            var clients: [Int] = []
            var workers: [Int] = []
            func live() { lives += 1 }
            for _ in 0..<120 {
                bench.now = bench.now.advanced(byNanoseconds: UInt64(random.below(3_000_000)))
                switch random.below(17) {
                case 0 where clients.count < 3:
                    live()
                    clients.append(try bench.client(lives))
                case 1 where workers.count < 3:
                    live()
                    workers.append(try bench.worker(lives, concurrency: 1 + random.below(3), resources: ["gpu": 2]))
                case 2 where random.oneIn(3) && !workers.isEmpty:
                    let worker = workers.remove(at: random.below(workers.count))
                    let reason: GoodbyeReason = .leaving
                    bench.machine.goodbyeReceived(from: worker, reason: reason, at: bench.now, actions: &bench.actions)
                case 3 where random.oneIn(3) && !clients.isEmpty:
                    let client = clients.remove(at: random.below(clients.count))
                    bench.machine.clientLeft(client, at: bench.now, actions: &bench.actions)
                case 4, 5, 6, 7, 8:
                    guard !clients.isEmpty else { continue }
                    let client = clients[random.below(clients.count)]
                    id += 1
                    model.open.insert([UInt64(client), id])
                    let verdict = bench.request(
                        id,
                        from: client,
                        time: random.oneIn(4) ? UInt32(1 + random.below(9)) : Header.noTimeLimit,
                        isIdempotent: random.oneIn(2),
                        priority: UInt8(random.below(8)),
                        demands: random.oneIn(4) ? Demands(resources: ["gpu": 1]) : nil,
                        key: random.oneIn(4) ? "k\(random.below(2))" : nil,
                        byteCount: random.below(1000)
                    )
                    guard case .taken = verdict else { throw Violation("call \(id) was refused: \(verdict)") }
                case 9, 10, 11, 12:
                    try Self.answer(&bench, &model, &random)
                case 13 where !clients.isEmpty:
                    // One doesn't read, or has read.
                    let client = clients[random.below(clients.count)]
                    bench.reads(random.oneIn(2) ? .max / 2 : 0, client)
                case 14:
                    guard let call = model.open.sorted(by: { $0[1] < $1[1] }).first else { continue }
                    _ = bench.machine.cancelReceived(
                        call[1],
                        reason: .requested,
                        from: Int(call[0]),
                        at: bench.now,
                        actions: &bench.actions
                    )
                default:
                    bench.machine.ticked(at: bench.now, actions: &bench.actions)
                    bench.restateReadiness()
                }
                try model.perform(&bench)
            }
            for client in clients { bench.reads(0, client) }
            try model.perform(&bench)
            live()
            if workers.isEmpty { _ = try bench.worker(lives, resources: ["gpu": 2]) }
            try model.perform(&bench)
            for _ in 0..<1000 where bench.machine.callCount > 0 {
                bench.now = bench.now.advanced(byNanoseconds: 1_000_000)
                bench.machine.ticked(at: bench.now, actions: &bench.actions)
                bench.restateReadiness()
                try model.perform(&bench)
                try Self.answer(&bench, &model, &random)
                try model.perform(&bench)
            }
            try check(model.open.isEmpty && bench.machine.callCount == 0, "\(model.open.count) calls never ended")
            let machine = (bench.machine.sentCount, bench.machine.timerCount, bench.machine.queuedCount)
            try check(machine == (0, 0, 0), "tables are not empty: \(machine)")
            let lines = (bench.machine.keyCount, bench.machine.flowCount)
            try check(bench.machine.keptBytes == 0, "\(bench.machine.keptBytes) bytes are kept")
            try check(lines == (0, 0), "keys or flows are left: \(lines)")
        }
    }

    /// One of the calls that workers have comes to an answer, or is given back.
    private static func answer(
        _ bench: inout BrokerBench,
        _ model: inout Model,
        _ random: inout SeededRandom
    ) throws {
        let busy = model.held.filter { !$0.value.isEmpty }.keys.sorted()
        guard !busy.isEmpty else { return }
        let worker = busy[random.below(busy.count)]
        let ids = (model.held[worker] ?? [:]).keys.sorted()
        let id = ids[random.below(ids.count)]
        let call = model.held[worker]?.removeValue(forKey: id) ?? []
        if random.oneIn(5) {
            let stage: CancelledStage = random.oneIn(2) ? .beforeStart : .whileRunning
            bench.machine.cancellationConfirmed(id, stage: stage, from: worker, at: bench.now, actions: &bench.actions)
            return
        }

        let addressee = bench.answer(id, from: worker)
        guard let addressee else { throw Violation("the answer to \(id) was not taken") }
        guard let client = addressee.client else { return }
        try check([UInt64(client), addressee.id] == call, "an answer went to another call")
        try model.end(client, addressee.id)
    }
}
