// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire
import Testing

/// Tables that clients and workers fill: what one peer puts there keeps no other out, and goes with it.
@Suite struct BrokerTableTests {
    private func request(
        _ id: UInt64,
        _ number: UInt32,
        from client: Int,
        demands: Demands? = nil,
        in bench: inout BrokerBench
    ) -> BrokerVerdict {
        var request = BrokerRequest(id: id, number: number)
        request.demands = demands
        return bench.machine.requestReceived(request, from: client, at: bench.now, actions: &bench.actions)
    }

    @Test("a client with as many names as it may have keeps no worker's function from being called")
    func namesOfOneClient() throws {
        var bench = BrokerBench()
        let greedy = try bench.client(1)
        for number in 0..<4096 as Range<UInt32> {
            let isTaken = bench.machine.defined(number, name: "n\(number)", by: greedy)
            #expect(isTaken)
        }
        let isTaken = bench.machine.defined(4096, name: "one more", by: greedy)
        #expect(!isTaken)
        #expect(self.request(1, 4096, from: greedy, in: &bench) == .tooManyFunctions(own: 4096))
        let modest = try bench.client(2)
        let worker = try bench.worker(1, functions: ["f"])
        bench.actions = []
        bench.request(1, from: modest)
        #expect(bench.transmitted().map { $0.worker } == [worker])
        let number = bench.machine.functionNumber(in: 0)
        #expect(number < 4096, "a worker's table has no other numbers")
    }

    @Test("names that fill the broker's table are refused to who has most, and there is room when it leaves")
    func namesInAll() throws {
        var configuration = BrokerMachine.Configuration(seed: 7)
        configuration.maxNames = 64
        configuration.ownShare = 4
        var bench = BrokerBench(configuration)
        var greedy: [Int] = []
        for index in 0..<8 as Range<UInt64> {
            let client = try bench.client(index + 1)
            greedy.append(client)
            for number in 2..<64 as Range<UInt32> {
                _ = bench.machine.defined(number, name: "\(index) \(number)", by: client)
            }
        }
        // Sixteen each, a quarter of the table, until it is full, then their share.
        #expect(bench.machine.functionCount <= 64 + 8 * 4)
        #expect(self.request(1, 63, from: greedy[7], in: &bench) == .tooManyFunctions(own: 4))
        let late = try bench.client(100)
        let isTaken = bench.machine.defined(2, name: "mine", by: late)
        #expect(isTaken)
        _ = bench.machine.defined(3, name: "mine as well", by: late)
        for number in 4..<8 as Range<UInt32> { _ = bench.machine.defined(number, name: "later \(number)", by: late) }
        #expect(self.request(1, 7, from: late, in: &bench) == .tooManyFunctions(own: 4))
        for client in greedy { bench.machine.clientLeft(client, at: bench.now, actions: &bench.actions) }
        // The name is still known, and is taken with the next request.
        guard case .taken = self.request(2, 7, from: late, in: &bench) else {
            Issue.record("there is room, and the name is refused")
            return
        }
        bench.machine.clientLeft(late, at: bench.now, actions: &bench.actions)
        bench.machine.trim()
        #expect(bench.machine.functionCount == 0 && bench.machine.routeCount == 0)
    }

    @Test("numbers towards workers are taken from functions that no worker offers any more")
    func numbers() throws {
        var bench = BrokerBench()
        let client = try bench.client(1)
        for number in 2..<100 as Range<UInt32> { _ = bench.machine.defined(number, name: "old \(number)", by: client) }
        let first = try bench.worker(1, functions: (0..<4095).map { "old \($0)" } + ["f"])
        bench.request(1, from: client)
        let sent = bench.transmitted()
        #expect(sent.map { $0.worker } == [first])
        func offer(_ number: UInt64, _ names: [String]) -> WorkerOffer {
            WorkerOffer(worker: PeerID(high: 2, low: number), epoch: number, concurrency: 1, functions: names)
        }
        let other = offer(2, (0..<4095).map { "new \($0)" })
        let isRefused = !bench.machine.hasNumbers(for: other)
        #expect(isRefused, "the first worker has all numbers")
        // Its functions are still in use by the client that defined them, and by the call that it has not answered.
        bench.machine.goodbyeReceived(from: first, reason: .leaving, at: bench.now, actions: &bench.actions)
        bench.actions = []
        let hasNumbers = bench.machine.hasNumbers(for: other)
        #expect(hasNumbers)
        let second = try bench.worker(2, functions: other.functions)
        let third = try bench.worker(3, functions: ["f"])
        _ = bench.machine.defined(1, name: "new 4000", by: client)
        bench.actions = []
        _ = self.request(2, 1, from: client, in: &bench)
        _ = self.request(3, 0, from: client, in: &bench)
        let defined = bench.actions.compactMap { action -> String? in
            guard case .define(let worker, let function) = action else { return nil }
            return "\(worker) \(bench.machine.functionName(function)) \(bench.machine.number(of: function) < 4096)"
        }
        #expect(defined == ["\(second) new 4000 true", "\(third) f true"])
    }

    @Test("a client whose calls ask for ever other queues is refused, another is served")
    func routes() throws {
        var configuration = BrokerMachine.Configuration(seed: 7)
        configuration.maxRoutes = 64
        configuration.ownShare = 4
        var bench = BrokerBench(configuration)
        let greedy = try bench.client(1)
        for id in 0..<16 as Range<UInt64> {
            _ = self.request(id, 0, from: greedy, demands: Demands(queue: "q\(id)"), in: &bench)
        }
        let refused = self.request(99, 0, from: greedy, demands: Demands(queue: "another"), in: &bench)
        #expect(refused == .tooManyRoutes(own: 16))
        guard case .taken = self.request(100, 0, from: greedy, demands: Demands(queue: "q3"), in: &bench) else {
            Issue.record("a queue that it uses is known")
            return
        }
        var more: [Int] = []
        for index in 2..<8 as Range<UInt64> {
            let client = try bench.client(index)
            more.append(client)
            for id in 0..<16 as Range<UInt64> {
                _ = self.request(id, 0, from: client, demands: Demands(queue: "\(index) \(id)"), in: &bench)
            }
        }
        #expect(bench.machine.routeCount <= 64 + 7 * 4)
        let modest = try bench.client(50)
        guard case .taken = self.request(1, 0, from: modest, demands: Demands(queue: "mine"), in: &bench) else {
            Issue.record("others keep a client out")
            return
        }
        // The routes go with the calls.
        for client in more { bench.machine.clientLeft(client, at: bench.now, actions: &bench.actions) }
        for id in 0..<16 as Range<UInt64> {
            _ = bench.machine.cancelReceived(
                id,
                reason: .requested,
                from: greedy,
                at: bench.now,
                actions: &bench.actions
            )
        }
        guard case .taken = self.request(101, 0, from: greedy, demands: Demands(queue: "another"), in: &bench) else {
            Issue.record("there is room again")
            return
        }
    }

    @Test("a worker whose callbacks aren't answered is refused more, another's are delivered")
    func invocations() throws {
        var configuration = BrokerMachine.Configuration(seed: 7)
        configuration.maxInvocations = 64
        configuration.ownShare = 4
        var bench = BrokerBench(configuration)
        let client = try bench.client(1)
        let identity = PeerID(high: 1, low: 1)
        var greedy: [Int] = []
        for number in 1...5 as ClosedRange<UInt64> {
            let worker = try bench.worker(number)
            greedy.append(worker)
            let isBound = bench.machine.bound(0, to: 1, of: identity, by: worker, actions: &bench.actions)
            #expect(isBound)
            for id in 0..<64 as Range<UInt64> { _ = bench.machine.invocationReceived(0, id: id, from: worker) }
        }
        #expect(bench.machine.invocationCount == 64 + 4)
        let modest = try bench.worker(9)
        let isBound = bench.machine.bound(0, to: 1, of: identity, by: modest, actions: &bench.actions)
        #expect(isBound)
        let delivery = bench.machine.invocationReceived(0, id: 1, from: modest)
        #expect(delivery?.client == client)
        // Answers make room.
        for id in 1...16 as ClosedRange<UInt64> { _ = bench.machine.invocationAnswered(id, by: client) }
        let again = bench.machine.invocationReceived(0, id: 100, from: greedy[0])
        #expect(again != nil)
        for worker in greedy {
            bench.machine.goodbyeReceived(from: worker, reason: .leaving, at: bench.now, actions: &bench.actions)
        }
        #expect(bench.machine.invocationCount == 1)
    }
}
