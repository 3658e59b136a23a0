// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire
import Testing

/// Clients that don't read, and how much requests may take.
@Suite("Broker machine: unread answers and bytes")
struct BrokerUnreadTests {
    private static let limit = 64 << 10

    private static func bench(maxQueuedBytes: Int = 2 << 30) -> BrokerBench {
        var configuration = BrokerMachine.Configuration(seed: 7)
        configuration.maxUnreadBytes = Self.limit
        configuration.maxQueuedBytes = maxQueuedBytes
        return BrokerBench(configuration)
    }

    @Test("calls of a client that doesn't read go to no worker, and those of others do")
    func putAside() throws {
        var bench = Self.bench()
        let (slow, other) = (try bench.client(1), try bench.client(2))
        let worker = try bench.worker(1)
        for id in 1...4 as ClosedRange<UInt64> { bench.request(id, from: slow) }
        for id in 1...2 as ClosedRange<UInt64> { bench.request(id, from: other) }
        let first = try #require(bench.transmitted().first)
        #expect(first.call == 1)
        #expect(bench.reads(Self.limit, slow) == .isHeldUp)
        #expect(bench.reads(Self.limit, slow) == .unchanged)
        #expect(bench.machine.heldUp == [slow])
        // One that came meanwhile.
        bench.request(5, from: slow)
        bench.actions = []
        #expect(bench.answer(first.id, from: worker)?.client == slow)
        #expect(bench.answersAll(from: worker) == [1, 2])
        #expect(bench.machine.queuedCount == 4)
        #expect(bench.machine.explanations(of: 3).first?.isHeldUp == true)
        #expect(bench.machine.routeViews(at: bench.now).first?.waiting == 0)
        // It has read half.
        #expect(bench.reads(Self.limit / 2, slow) == .unchanged)
        #expect(bench.reads(Self.limit / 2 - 1, slow) == .goesOn)
        #expect(bench.answersAll(from: worker) == [2, 3, 4, 5])
        #expect(bench.machine.callCount == 0 && bench.machine.flowCount == 0)
    }

    @Test("what a worker has not started of a client that doesn't read comes back, and waits")
    func recalled() throws {
        var bench = Self.bench()
        let slow = try bench.client(1)
        let worker = try bench.worker(1, concurrency: 3)
        for id in 1...3 as ClosedRange<UInt64> { bench.request(id, from: slow) }
        let sent = bench.transmitted()
        #expect(bench.reads(Self.limit, slow) == .isHeldUp)
        let recalled = bench.actions.compactMap { if case .recall(_, let id) = $0 { id } else { nil } }
        #expect(recalled.sorted() == sent.map(\.id).sorted())
        bench.actions = []
        bench.machine.cancellationConfirmed(
            sent[2].id,
            stage: .beforeStart,
            from: worker,
            at: bench.now,
            actions: &bench.actions
        )
        #expect(bench.transmitted().isEmpty && bench.machine.queuedCount == 1)
        #expect(bench.reads(0, slow) == .goesOn)
        #expect(bench.transmitted().map(\.call) == [3])
    }

    @Test("calls that were put aside lapse, are cancelled, and go with their client")
    func ends() throws {
        var bench = Self.bench()
        let (slow, other) = (try bench.client(1), try bench.client(2))
        let worker = try bench.worker(1)
        #expect(bench.reads(Self.limit, slow) == .isHeldUp)
        bench.request(1, from: slow, time: 10)
        bench.request(2, from: slow)
        bench.request(3, from: slow, key: "k")
        bench.request(4, from: slow, key: "k")
        bench.request(5, from: slow, priority: 7)
        #expect(bench.transmitted().isEmpty && bench.machine.queuedCount == 5)
        bench.now = bench.now.advanced(byNanoseconds: 20_000_000)
        bench.machine.ticked(at: bench.now, actions: &bench.actions)
        #expect(bench.endings() == [1: .cancelled(.lapsed)])
        bench.actions = []
        let isHere = bench.machine.cancelReceived(
            2,
            reason: .requested,
            from: slow,
            at: bench.now,
            actions: &bench.actions
        )
        #expect(isHere)
        #expect(bench.endings() == [2: .cancelled(.beforeStart)])
        bench.machine.clientLeft(slow, at: bench.now, actions: &bench.actions)
        #expect(bench.machine.callCount == 0 && bench.machine.queuedCount == 0 && bench.machine.keyCount == 0)
        #expect(bench.machine.heldUp.isEmpty && bench.machine.flowCount == 0)
        bench.actions = []
        // Whoever has its place next is not held up.
        let next = try bench.client(3)
        bench.request(1, from: next)
        let sent = try #require(bench.transmitted().first)
        bench.request(1, from: other)
        _ = bench.answer(sent.id, from: worker)
        #expect(bench.transmitted().count == 1)
    }

    @Test("a call that was put aside waits for a worker that may run it only so long")
    func patience() throws {
        var bench = Self.bench()
        let slow = try bench.client(1)
        let worker = try bench.worker(1)
        bench.request(1, from: slow)
        bench.request(2, from: slow)
        _ = bench.transmitted()
        #expect(bench.reads(Self.limit, slow) == .isHeldUp)
        bench.machine.goodbyeReceived(from: worker, reason: .leaving, at: bench.now, actions: &bench.actions)
        bench.actions = []
        bench.now = bench.now.advanced(byNanoseconds: 11_000_000_000)
        bench.machine.ticked(at: bench.now, actions: &bench.actions)
        #expect(bench.actions.contains { if case .finish(_, _, 2, .noWorker) = $0 { true } else { false } })
    }

    @Test("many clients that don't read together leave no more than twice what all may")
    func shares() {
        for count in [1, 4, 100, 4096] {
            let limit = UnreadLimit(perClient: 64 << 20)
            var unread = [Int](repeating: 0, count: count)
            var total = 0
            // Each is sent as long as it isn't held up.
            var isGrowing = true
            while isGrowing {
                isGrowing = false
                for client in unread.indices
                where !limit.mustWait(unread: unread[client], total: total, clients: count, isHeldUp: false) {
                    unread[client] += 16 << 10
                    total += 16 << 10
                    isGrowing = true
                }
            }
            #expect(total <= 2 * limit.inAll + count * 16 << 10)
        }
    }

    @Test("requests take half of the room of one client at most, and others find room though it is full")
    func bytes() throws {
        var bench = Self.bench(maxQueuedBytes: 6400)
        let (first, second, third) = (try bench.client(1), try bench.client(2), try bench.client(3))
        func isFull(_ verdict: BrokerVerdict) -> Bool {
            if case .tooManyBytes(_, let milliseconds) = verdict { milliseconds > 0 } else { false }
        }
        for id in 1...32 as ClosedRange<UInt64> { #expect(!isFull(bench.request(id, from: first, byteCount: 100))) }
        #expect(isFull(bench.request(33, from: first, byteCount: 100)))
        for id in 1...32 as ClosedRange<UInt64> { #expect(!isFull(bench.request(id, from: second, byteCount: 100))) }
        #expect(bench.machine.keptBytes == 6400)
        // A share of its own: a 64th.
        #expect(!isFull(bench.request(1, from: third, byteCount: 100)))
        #expect(isFull(bench.request(2, from: third, byteCount: 100)))
        // Sent or not, it is kept until it has ended.
        let worker = try bench.worker(1, concurrency: 2)
        #expect(bench.machine.keptBytes == 6500)
        for sent in bench.transmitted() { _ = bench.answer(sent.id, from: worker) }
        #expect(bench.machine.keptBytes == 6300)
        bench.machine.clientLeft(second, at: bench.now, actions: &bench.actions)
        bench.machine.clientLeft(third, at: bench.now, actions: &bench.actions)
        bench.machine.clientLeft(first, at: bench.now, actions: &bench.actions)
        // What the worker has is kept until it says what became of it.
        for sent in bench.transmitted() { _ = bench.answer(sent.id, from: worker) }
        #expect(bench.machine.keptBytes == 0 && bench.machine.callCount == 0)
    }
}

extension BrokerBench {
    /// A worker answers all that it is sent, call by call.
    fileprivate mutating func answersAll(from worker: Int) -> [UInt64] {
        var calls: [UInt64] = []
        while true {
            let sent = self.transmitted()
            guard !sent.isEmpty else { return calls }
            for call in sent {
                calls.append(call.call)
                _ = self.answer(call.id, from: worker)
            }
        }
    }

    /// A client has so much unread, and all together that.
    @discardableResult
    mutating func reads(_ unread: Int, _ client: Int) -> BrokerMachine.Reading {
        self.machine.hasUnread(unread, of: client, inAll: unread, at: self.now, actions: &self.actions)
    }
}
