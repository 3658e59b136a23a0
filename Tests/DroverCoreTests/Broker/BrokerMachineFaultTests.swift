// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire
import Testing

@Suite("BrokerMachine, what goes wrong")
struct BrokerMachineFaultTests {
    private func endings(_ bench: borrowing BrokerBench) -> [UInt64: BrokerEnding] {
        var endings: [UInt64: BrokerEnding] = [:]
        for case .finish(_, _, let id, let ending) in bench.actions { endings[id] = ending }
        return endings
    }

    @Test("a call that waits when its last worker goes ends after the patience, also behind an ordering key")
    func lastWorkerGoes() throws {
        var configuration = BrokerMachine.Configuration(seed: 7)
        configuration.patienceNanoseconds = 1_000_000_000
        var bench = BrokerBench(configuration)
        let client = try bench.client(1)
        let worker = try bench.worker(1)
        bench.actions = []
        for id in 1...3 as ClosedRange<UInt64> { bench.request(id, from: client, key: id == 1 ? nil : "k") }
        bench.machine.goodbyeReceived(from: worker, reason: .leaving, at: bench.now, actions: &bench.actions)
        #expect(self.endings(bench) == [1: .lost(.left, worker: "")])
        bench.actions = []
        bench.pass(milliseconds: 1100)
        bench.pass(milliseconds: 1100)
        #expect(self.endings(bench) == [2: .noWorker, 3: .noWorker])
        #expect(bench.machine.callCount == 0)
    }

    private func calls(
        _ id: UInt64,
        of client: String? = nil,
        _ bench: borrowing BrokerBench
    ) -> [BrokerMachine.KnownCall] {
        bench.machine.calls(known: id, to: client)
    }

    @Test("what an operator cancels ends as revoked: its client, which wants it, must not ask for it again")
    func revoked() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1, concurrency: 1)
        bench.actions = []
        for id in 1...3 as ClosedRange<UInt64> { bench.request(id, from: client, key: "k") }
        let sent = try #require(bench.transmitted().first)
        bench.actions = []
        // Behind its ordering key: at once.
        let held = try #require(self.calls(2, bench).first)
        bench.machine.revoke(held, at: bench.now, actions: &bench.actions)
        #expect(self.endings(bench) == [2: .revoked])
        #expect(self.calls(2, bench).isEmpty)
        // At a worker: when that has said what became of it.
        bench.actions = []
        let first = try #require(self.calls(1, bench).first)
        #expect(first.worker != nil && held.worker == nil)
        bench.machine.revoke(first, at: bench.now, actions: &bench.actions)
        #expect(bench.actions == [.sendCancel(worker: worker, id: sent.id, reason: .requested)])
        bench.actions = []
        bench.machine.cancellationConfirmed(
            sent.id,
            stage: .beforeStart,
            from: worker,
            at: bench.now,
            actions: &bench.actions
        )
        #expect(self.endings(bench) == [1: .revoked])
        // At a worker that is lost.
        let last = try #require(self.calls(3, bench).first)
        bench.machine.revoke(last, at: bench.now, actions: &bench.actions)
        bench.actions = []
        bench.machine.goodbyeReceived(from: worker, reason: .leaving, at: bench.now, actions: &bench.actions)
        #expect(self.endings(bench) == [3: .revoked])
        #expect(bench.machine.callCount == 0)
    }

    @Test("a call that an operator names is that of the client that is named")
    func known() throws {
        var bench = BrokerBench()
        let (one, other) = (try bench.client(1), try bench.client(2))
        bench.request(7, from: one)
        bench.request(7, from: other)
        #expect(self.calls(7, bench).map { $0.client } == [one, other])
        let identity = "\(bench.machine.clients[other].client)"
        #expect(self.calls(7, of: identity, bench).map { $0.client } == [other])
        #expect(self.calls(7, of: "nobody", bench).isEmpty)
        #expect(self.calls(8, bench).isEmpty)
    }

    @Test("workers that claim to have no end of handlers break no sum")
    func hugeOffers() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        for number in 1...3 as ClosedRange<UInt64> { _ = try bench.worker(number, concurrency: .max) }
        let slots = bench.machine.workers.reduce(0) { $0 + $1.offer.concurrency }
        #expect(slots == 3 << 16)
        bench.actions = []
        bench.request(1, from: client)
        let sent = try #require(bench.transmitted().first)
        bench.pass(milliseconds: 5)
        let addressee = bench.answer(sent.id, from: sent.worker)
        #expect(addressee?.id == 1)
    }

    @Test("a worker that can't be reached gets no more calls; one that never answered the introduction is gone")
    func unreachable() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1)
        bench.actions = []
        bench.machine.unreachable(worker, at: bench.now, actions: &bench.actions)
        bench.request(1, from: client)
        #expect(bench.transmitted().isEmpty)
        #expect(bench.machine.workerCount == 1)
        let offer = WorkerOffer(worker: PeerID(high: 2, low: 9), epoch: 9, functions: ["f"])
        let silent = try #require(
            bench.machine.offerReceived(offer, route: 99, at: bench.now, actions: &bench.actions)
        )
        #expect(bench.machine.workerCount == 2)
        bench.actions = []
        bench.machine.unreachable(silent, at: bench.now, actions: &bench.actions)
        #expect(bench.machine.workerCount == 1)
        // It has died, and hasn't said goodbye: the log tells one from the other.
        let isDeath = bench.actions.contains { action in
            guard case .workerLost(_, _, .disconnected) = action else { return false }
            return true
        }
        #expect(isDeath)
    }

    @Test("a worker that would not take a call gets none until it says how it is")
    func heldOff() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        let worker = try bench.worker(1)
        bench.actions = []
        bench.machine.holdOff(worker)
        bench.request(1, from: client)
        #expect(bench.transmitted().isEmpty)
        bench.machine.readyReceived(
            from: worker,
            epoch: 1,
            isQuiet: false,
            isStarved: false,
            at: bench.now,
            actions: &bench.actions
        )
        #expect(bench.transmitted().map { $0.call } == [1])
    }
}
