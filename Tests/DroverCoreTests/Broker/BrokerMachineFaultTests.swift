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
        var configuration = BrokerMachine.Configuration()
        configuration.patienceNanoseconds = 1_000_000_000
        var bench = BrokerBench(configuration)
        let client = try bench.client(1)
        let worker = try bench.worker(1)
        bench.actions = []
        for id in 1...3 as ClosedRange<UInt64> { bench.request(id, from: client, key: id == 1 ? nil : "k") }
        bench.machine.goodbyeReceived(from: worker, reason: .leaving, at: bench.now, actions: &bench.actions)
        #expect(self.endings(bench) == [1: .lost(.left)])
        bench.actions = []
        bench.pass(milliseconds: 1100)
        bench.pass(milliseconds: 1100)
        #expect(self.endings(bench) == [2: .noWorker, 3: .noWorker])
        #expect(bench.machine.callCount == 0)
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
        bench.machine.unreachable(silent, at: bench.now, actions: &bench.actions)
        #expect(bench.machine.workerCount == 1)
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
