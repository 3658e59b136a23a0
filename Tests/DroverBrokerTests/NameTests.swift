// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import DroverZMQ
import Foundation
import Logging
import Synchronization
import Testing

/// Names in addresses, looked up by the test.
@Suite("Names", .serialized, .timeLimit(.minutes(2)))
struct NameTests {
    /// A name server that answers when, and what, the test wants.
    private final class NameServer: Sendable {
        private let hosts = Mutex<[String: String]>([:])
        private let count = Mutex(0)

        var asked: Int { self.count.withLock { $0 } }

        func set(_ name: String, _ address: String) { self.hosts.withLock { $0[name] = address } }

        /// One that never answers for names it doesn't know.
        func resolver() -> NameResolver {
            NameResolver { name in
                self.count.withLock { $0 += 1 }
                while true {
                    if let address = self.hosts.withLock({ $0[name] }) { return .success([address]) }
                    usleep(1000)
                }
            }
        }
    }

    private func port(of endpoint: String) throws -> String {
        String(try #require(endpoint.split(separator: ":").last))
    }

    @Test("a client's calls flow while the name of another endpoint can't be looked up; it is used once it can")
    func slowName() async throws {
        let pool = try Pool(workers: 0)
        let good = try pool.addWorker("good", binding: "tcp://127.0.0.1:*")
        let late = try pool.addWorker("late", binding: "tcp://127.0.0.1:*")
        let names = NameServer()
        let slow = "tcp://slow.test:\(try self.port(of: late.endpoint))"
        let client = try pool.client([good.endpoint, slow]) {
            $0.allowsUnencryptedNetwork = true
            $0.resolver = names.resolver()
        }
        let add = client.function(Job.add)
        try await becomesTrue("the name is being looked up") { names.asked == 1 }
        let started = ContinuousClock.now
        for number in 0..<500 { #expect(try await add(number, 1) == number + 1) }
        #expect(ContinuousClock.now - started < .seconds(5))
        #expect(names.asked == 1)
        let error = await #expect(throws: AsyncResultTimeout.self) {
            try await client.ping(endpoint: 1, timeout: .milliseconds(50))
        }
        #expect(error?.problem?.contains("slow.test is being looked up") == true)
        names.set("slow.test", "127.0.0.1")
        #expect(try await client.ping(endpoint: 1, timeout: .seconds(10)).worker.worker == "late")
        await pool.close()
    }

    @Test("a name that can't be found is looked up again, and calls say what is wrong meanwhile")
    func unknownName() async throws {
        let pool = try Pool(workers: 0)
        let worker = try pool.addWorker("w", binding: "tcp://127.0.0.1:*")
        let isKnown = Atomic<Bool>(false)
        let resolver = NameResolver { _ in
            isKnown.load(ordering: .relaxed) ? .success(["127.0.0.1"]) : .failure(.init("no such name"))
        }
        let client = try pool.client(["tcp://w.test:\(try self.port(of: worker.endpoint))"]) {
            $0.allowsUnencryptedNetwork = true
            $0.resolver = resolver
        }
        let call = try client.function(Job.add).async(1, 2)
        try await becomesTrue("it says what is wrong") {
            "\(call)".contains("the name w.test can't be looked up: no such name")
        }
        isKnown.store(true, ordering: .relaxed)
        #expect(try await call.value == 3)
        await pool.close()
    }

    @Test("S88 a worker whose host moved is found at its new address")
    func moved() async throws {
        let names = NameServer()
        names.set("w.test", "127.0.0.1")
        let pool = try Pool(workers: 0)
        let former = try pool.addWorker("former", binding: "tcp://127.0.0.1:*")
        let port = try self.port(of: former.endpoint)
        let client = try pool.client(["tcp://w.test:\(port)"]) {
            $0.allowsUnencryptedNetwork = true
            $0.resolver = names.resolver()
        }
        #expect(try await client.function(Job.whoAmI)() == "former")
        // The name server learns it when the client has asked for the first time, and some time later.
        await former.stop(grace: .zero)
        try pool.addWorker("next", binding: "tcp://127.0.0.2:\(port)")
        let asked = names.asked
        try await becomesTrue("the name was looked up again") { names.asked > asked }
        names.set("w.test", "127.0.0.2")
        let started = ContinuousClock.now
        #expect(try await client.function(Job.whoAmI)() == "next")
        #expect(ContinuousClock.now - started < .seconds(5))
        await pool.close()
    }

    @Test("a worker serves one broker while the name of another can't be looked up, and that one once it can")
    func slowBroker() async throws {
        let (pool, other) = (try Pool(workers: 0), try Pool(workers: 0))
        let names = NameServer()
        let slow = "tcp://slow.test:\(try self.port(of: other.endpoint))"
        let worker = try pool.addWorker("w", brokers: [pool.endpoint, slow]) {
            $0.allowsUnencryptedNetwork = true
            $0.resolver = names.resolver()
        }
        let client = try pool.client()
        try await becomesTrue("the worker is there") { pool.broker.status.workers == 1 }
        let started = ContinuousClock.now
        // Longer than the broker's silence limit.
        var calls = 0
        while ContinuousClock.now - started < .seconds(2) {
            let asked = ContinuousClock.now
            #expect(try await client.function(Job.add)(calls, 1) == calls + 1)
            #expect(ContinuousClock.now - asked < .seconds(1))
            calls += 1
        }
        #expect(calls > 100)
        #expect(worker.brokerCount == 1)
        names.set("slow.test", "127.0.0.1")
        try await becomesTrue("the other broker has it too") { other.broker.status.workers == 1 }
        #expect(try await other.client().function(Job.add)(1, 2) == 3)
        #expect(pool.broker.status.workers == 1)
        await pool.close()
        await other.close()
    }

    @Test("a broker whose host moved is found by its workers at its new address")
    func movedBroker() async throws {
        let names = NameServer()
        names.set("b.test", "127.0.0.1")
        let former = try Pool(workers: 0)
        let port = try self.port(of: former.endpoint)
        let worker = try former.addWorker("w", brokers: ["tcp://b.test:\(port)"]) {
            $0.allowsUnencryptedNetwork = true
            $0.resolver = names.resolver()
        }
        try await becomesTrue("the worker is there") { former.broker.status.workers == 1 }
        await former.broker.stop(grace: .zero)
        let next = try Pool(address: "tcp://127.0.0.2:\(port)", workers: 0)
        names.set("b.test", "127.0.0.2")
        try await becomesTrue("the worker is there again", within: .seconds(5)) { next.broker.status.workers == 1 }
        await worker.stop(grace: .zero)
        await next.close()
        await former.close()
    }

    @Test(
        "a port or a host that stand for any can't be connected to",
        arguments: ["tcp://127.0.0.1:*", "tcp://*:5555"]
    )
    func noPlace(address: String) {
        let error = #expect(throws: UsageError.self) { try Client(address) }
        #expect(error?.code == .badConfiguration)
        #expect("\(error as Any)".contains("tcp://HOST:PORT"))
    }
}
