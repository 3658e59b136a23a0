// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Foundation
import Testing

@testable import Attackers

/// What a key may do, function by function, and what handlers learn of whose it is.
@Suite("Rights by function", .serialized, .timeLimit(.minutes(2)))
struct RightsTests {
    private let ring: Keyring

    init() throws { self.ring = try Keyring() }

    private func forbidden(_ call: () async throws -> some Sendable) async -> String {
        let error = await #expect(throws: RemoteError.self) { _ = try await call() }
        #expect(error?.code == .forbidden)
        return error?.message ?? ""
    }

    /// A worker that is called directly, with one thread.
    private func worker(_ gates: Gates) throws -> RunningWorker {
        var configuration = WorkerConfiguration()
        configuration.concurrency = 1
        configuration.logger = self.ring.log.logger
        configuration.listenerKeys = ListenerKeys(own: self.ring.broker, allowList: self.ring.allowList)
        let worker = Worker(configuration: configuration)
        worker.register(Job.add) { $0 + $1 }
        worker.register(Job.caller) { context, _ in Job.words(for: context.caller) }
        @Sendable func hold(_ name: String) -> String {
            gates.enter(name)
            while !gates.isOpen(name) { usleep(1000) }
            return name
        }
        worker.register(Job.hold) { name in hold(name) }
        worker.register(Job.hang, limit: 1) { name in hold(name) }
        worker.register(Job.refund) { context, amount in
            guard let caller = context.caller, caller.principal == "billing" || amount < 100 else {
                throw Refusal(text: "only billing refunds so much")
            }
            return amount
        }
        return try worker.start(.bind("tcp://127.0.0.1:*"))
    }

    private func client(_ endpoint: String, _ keys: KeyPair) throws -> Client {
        var configuration = ClientConfiguration()
        configuration.keys = self.ring.connection(keys)
        configuration.logger = self.ring.log.logger
        return try Client(endpoint, configuration: configuration)
    }

    @Test("S104 a broker lets a key call, offer and cancel only the functions that its line names")
    func broker() async throws {
        let (web, narrow, guardian) = (try KeyPair(), try KeyPair(), try KeyPair())
        try self.ring.allow(web, "web submit functions=add,ho*")
        try self.ring.allow(narrow, "narrow work functions=echo,a*")
        try self.ring.allow(guardian, "guardian cancel functions=echo")
        let pool = try self.ring.pool()
        try pool.addWorker("too much") { $0.keys = self.ring.connection(narrow) }
        let client = try pool.client { $0.keys = self.ring.connection(web) }
        #expect(try await client.function(Job.add)(1, 2) == 3)
        let held = try client.function(Job.hold).async("gate")
        let message = await self.forbidden { try await client.function(Job.whoAmI)() }
        #expect(message.contains("web may not call whoAmI") && message.contains("limits the right submit"))
        #expect(self.ring.log.has("refused", "drover.principal=web", "drover.action=submit", "whoAmI"))
        try await becomesTrue("the worker is refused") {
            self.ring.log.has("refused", "drover.principal=narrow", "drover.action=work", "may not offer")
        }
        #expect(pool.broker.status.workers == 1)
        // The right to cancel is limited too, and what it doesn't reach isn't shown.
        let watcher = try pool.client { $0.keys = self.ring.connection(guardian) }
        try await becomesTrue("it runs") { pool.gates.entered == ["gate"] }
        let id = held.correlationID.rawValue
        let refused = await self.forbidden { try await watcher.function(.brokerCancel)(id, nil) }
        #expect(refused.contains("guardian may not cancel calls of hold") && refused.contains("right cancel"))
        #expect(!held.isReady)
        try self.ring.allow(guardian, "guardian cancel functions=hold queues=mail")
        try await becomesTrue("another list is in force") {
            self.ring.log.lines.count { $0.contains("another allow-list is in force") } > 0
        }
        let queue = await self.forbidden { try await watcher.function(.brokerCancel)(id, nil) }
        #expect(queue.contains("may not cancel calls in the unnamed queue"))
        pool.gates.open("gate")
        #expect(try await held.value == "worker 0")
        await pool.close()
    }

    @Test("calls that wait at a broker for a function that is taken from their key end as forbidden")
    func takenFunction() async throws {
        let keys = try KeyPair()
        try self.ring.allow(keys, "web submit")
        let pool = try self.ring.pool(workers: 0)
        let client = try pool.client { $0.keys = self.ring.connection(keys) }
        let (add, hold) = (try client.function(Job.add).async(1, 2), try client.function(Job.hold).async("gate"))
        try await becomesTrue("both wait") { pool.broker.status.queued == 2 }
        try self.ring.allow(keys, "web submit functions=add")
        let message = await self.forbidden { try await hold.value }
        #expect(message.contains("web may not call hold"))
        try pool.addWorker("late") { $0.keys = self.ring.connection(self.ring.worker) }
        #expect(try await add.value == 3)
        await pool.close()
    }

    @Test("S104 a worker that is called directly keeps to the functions of a line too, and doesn't name the others")
    func direct() async throws {
        let keys = try KeyPair()
        try self.ring.allow(keys, "web submit functions=add,absent")
        let worker = try self.worker(Gates())
        let client = try self.client(worker.endpoint, keys)
        #expect(try await client.function(Job.add)(1, 2) == 3)
        let message = await self.forbidden { try await client.function(Job.hold)("gate") }
        #expect(message.contains("web may not call hold") && message.contains("limits the right submit"))
        let absent = Function<Int, Int>("absent")
        let unknown = await #expect(throws: RemoteError.self) { try await client.function(absent)(1) }
        #expect(unknown?.code == .unknownFunction && unknown?.message.contains("call one of: add") == true)
        #expect(unknown?.message.contains("hold") == false)
        await client.close(grace: .zero)
        await worker.stop(grace: .zero)
    }

    @Test("calls that wait at a worker that is called directly end as forbidden when their queue or function is taken")
    func taken() async throws {
        let keys = PlainPeer.Keys(server: self.ring.broker.publicKey.text)
        try self.ring.allow(keys.own, "web submit")
        let gates = Gates()
        let worker = try self.worker(gates)
        // One that sends more than there are slots.
        let client = try PlainPeer(worker.endpoint, keys: keys)
        client.send(Plain.hello(client: 7))
        #expect(client.awaits(Plain.welcome))
        for (number, name) in ["hold", "add", "hang"].enumerated() {
            client.send(Plain.message(Plain.define, number: UInt32(number), Array(name.utf8)))
        }
        let sum: [UInt8] = [0x92, 20, 22]
        func name(_ name: String) -> [UInt8] { [0x91] + Plain.text(name) }
        // One runs; others wait for its thread, one of them behind an ordering key, and one for its function's limit.
        let calls: [(number: UInt32, queue: String, key: String, arguments: [UInt8])] = [
            (0, "mail", "", name("running")), (0, "mail", "", name("waiting")), (1, "", "key", sum),
            (1, "mail", "key", sum), (2, "", "", name("hanging")), (2, "", "", name("limited")), (1, "", "", sum),
        ]
        for (index, call) in calls.enumerated() {
            let metadata = [0x82] + Plain.text("queue") + Plain.text(call.queue)
            let key = call.key.isEmpty ? Plain.text("later") + Plain.yes : Plain.text("key") + Plain.text(call.key)
            client.send(
                Plain.message(
                    Plain.request,
                    flags: 4,
                    id: UInt64(index + 1),
                    time: .max,
                    number: call.number,
                    metadata + key + call.arguments
                )
            )
        }
        try await becomesTrue("all are there") { worker.status.received >= 7 && gates.entered == ["running"] }
        try self.ring.allow(keys.own, "web submit functions=add,hold queues=-")
        let ended = try client.answers(4)
        #expect(ended.mapValues { $0.kind } == [2: 19, 4: 19, 5: 19, 6: 19])
        for (id, part) in [(2, "use the queue mail"), (4, "use the queue mail"), (5, "call hang"), (6, "call hang")] {
            let text = ended[UInt64(id)]?.text ?? ""
            #expect(text.contains("forbidden") && text.contains("web may not \(part)") && text.contains("right submit"))
        }
        gates.open("running")
        #expect(try client.answers(3).mapValues { $0.kind } == [1: 18, 3: 18, 7: 18])
        #expect(gates.entered == ["running"])
        #expect(self.ring.log.has("refused", "drover.action=submit", "drover.principal=web"))
        await worker.stop(grace: .zero)
    }

    @Test(
        "S104 a handler learns whose key a call was made with, directly and by the broker's word, and of nobody without keys"
    )
    func callers() async throws {
        let (web, mail, third) = (try KeyPair(), try KeyPair(), try KeyPair())
        try self.ring.allow(web, "web submit")
        try self.ring.allow(mail, "mail submit")
        try self.ring.allow(third, "third submit")
        let worker = try self.worker(Gates())
        let direct = try self.client(worker.endpoint, web)
        #expect(try await direct.function(Job.caller)(1) == "web \(web.publicKey) -")
        #expect(try await direct.function(Job.refund)(99) == 99)
        let much = await #expect(throws: RemoteError.self) { try await direct.function(Job.refund)(100) }
        #expect(much?.decode(as: Refusal.self)?.text == "only billing refunds so much")
        let pool = try self.ring.pool()
        let clients = try [web, mail].map { keys in try pool.client { $0.keys = self.ring.connection(keys) } }
        for _ in 0..<3 {
            #expect(try await clients[0].function(Job.caller)(1) == "web \(web.publicKey) \(pool.endpoint)")
            #expect(try await clients[1].function(Job.caller)(1) == "mail \(mail.publicKey) \(pool.endpoint)")
        }
        // Its place at the broker is another's next.
        await clients[0].close(grace: .zero)
        try self.ring.allow(mail, "renamed submit")
        let late = try pool.client { $0.keys = self.ring.connection(third) }
        #expect(try await late.function(Job.caller)(1) == "third \(third.publicKey) \(pool.endpoint)")
        // A session that stands has its key's new name too.
        let deadline = ContinuousClock.now + .seconds(10)
        var name = ""
        while !name.hasPrefix("renamed "), ContinuousClock.now < deadline {
            name = try await clients[1].function(Job.caller)(1)
        }
        #expect(name == "renamed \(mail.publicKey) \(pool.endpoint)")
        await pool.close()
        let open = try Pool()
        #expect(try await open.client().function(Job.caller)(1) == "nobody")
        await open.close()
        await direct.close(grace: .zero)
        await worker.stop(grace: .zero)
    }

    @Test("S104 requests that a worker of a broker is given again, or in parts, are still from whom they were from")
    func callersStay() async throws {
        let web = try KeyPair()
        try self.ring.allow(web, "web submit")
        let pool = try self.ring.pool(workers: 0)
        let weigh = Function<[UInt8], String>("whose")
        var configuration = WorkerConfiguration()
        configuration.keys = self.ring.connection(self.ring.worker)
        configuration.logger = self.ring.log.logger
        let worker = Worker(configuration: configuration)
        worker.register(weigh) { context, bytes in "\(context.caller?.principal ?? "nobody") \(bytes.count)" }
        let running = try worker.start(.connect(pool.endpoint))
        let client = try pool.client { $0.keys = self.ring.connection(web) }
        // Whole, attached, and in parts.
        for count in [10, 100_000, 4 << 20] {
            #expect(try await client.function(weigh)([UInt8](repeating: 1, count: count)) == "web \(count)")
        }
        await running.stop(grace: .zero)
        await pool.close()
    }
}
