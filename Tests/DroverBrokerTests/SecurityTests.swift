// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import DroverZMQ
import Foundation
import Synchronization
import Testing

@Suite("Security", .serialized, .timeLimit(.minutes(2)))
struct SecurityTests {
    private let ring: Keyring

    init() throws { self.ring = try Keyring() }

    /// Asks until it is answered otherwise than before.
    private func error(of client: Client) async -> ConnectionError? {
        await #expect(throws: ConnectionError.self) {
            _ = try await client.function(Job.add, options: CallOptions(expiry: .seconds(20)))(1, 2)
        }
    }

    @Test("S104 with keys on all sides, calls, events, callbacks and large payloads cross a broker")
    func works() async throws {
        let keys = try KeyPair()
        try self.ring.allow(keys, "web submit")
        let pool = try self.ring.pool()
        let client = try pool.client { $0.keys = self.ring.connection(keys) }
        #expect(try await client.function(Job.add)(20, 22) == 42)
        let payload = (0..<(6 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        #expect(try await client.function(Job.echo)(payload) == payload)
        let seen = Mutex<[Int]>([])
        let callback = client.callback { (number: Int) in seen.withLock { $0.append(number) } }
        #expect(try await client.function(Job.tick)(callback, 50) == 50)
        try await becomesTrue("all events came") { seen.withLock { $0.count == 50 } }
        #expect(seen.withLock { $0 } == Array(0..<50))
        let handles = try (0..<2000).map { try client.function(Job.add).async($0, 1) }
        for (number, handle) in handles.enumerated() { #expect(try await handle.value == number + 1) }
        await pool.close()
    }

    @Test("S104 a key that isn't allowed is refused: the client's error and the broker's log say which and why")
    func unknownKey() async throws {
        let keys = try KeyPair()
        let pool = try self.ring.pool()
        let client = try pool.client { $0.keys = self.ring.connection(keys) }
        let error = await self.error(of: client)
        #expect(error?.code == .authentication)
        #expect(error?.message.contains(pool.endpoint) == true)
        #expect(error?.message.contains("drover keys allow") == true)
        #expect(error?.message.contains(keys.publicKey.text) == true)
        try await becomesTrue("the log tells of it") {
            self.ring.log.has("refused", keys.publicKey.text, "127.0.0.1", "isn't on the allow-list")
        }
        // Once it is allowed the same client gets in.
        try self.ring.allow(keys, "web submit")
        let deadline = ContinuousClock.now + .seconds(20)
        var sum: Int?
        while sum == nil, ContinuousClock.now < deadline { sum = try? await client.function(Job.add)(1, 2) }
        #expect(sum == 3)
        await pool.close()
    }

    @Test("a client without keys is told that the broker wants some, one with keys that the broker has none")
    func noKeys() async throws {
        let pool = try self.ring.pool(workers: 0)
        let bare = await self.error(of: try pool.client())
        #expect(bare?.code == .authentication)
        #expect(bare?.message.contains("wants keys") == true, "\(String(describing: bare))")
        try await becomesTrue("the broker's log says so too") { self.ring.log.has("refused", "it has no keys") }
        #expect(!ProcessMemory.mayBeDumped)
        await pool.close()
        let open = try Pool { $0.logger = self.ring.log.logger }
        let keyed = await self.error(of: try open.client { $0.keys = try? self.ring.connection(KeyPair()) })
        #expect(keyed?.code == .authentication)
        #expect(keyed?.message.contains("has no keys") == true, "\(String(describing: keyed))")
        try await becomesTrue("the broker's log says so too") { self.ring.log.has("refused", "this broker has none") }
        await open.close()
    }

    @Test("a broker that can't prove the key that the client was given is not talked to")
    func wrongServer() async throws {
        let keys = try KeyPair()
        try self.ring.allow(keys, "web submit")
        let pool = try self.ring.pool()
        let other = try KeyPair().publicKey
        let client = try pool.client { $0.keys = ConnectionKeys(own: keys, server: other) }
        // A proxy with nobody behind it does the same: calls wait, and their timeouts tell what it may be.
        let call = try client.function(Job.add, options: CallOptions(expiry: .seconds(2))).async(1, 2)
        let error = await #expect(throws: ConnectionError.self) { try await client.connect(timeout: .seconds(20)) }
        #expect(error?.code == .authentication)
        #expect(
            error?.message.contains("another key than this client was given") == true,
            "\(String(describing: error))"
        )
        let timeout = await #expect(throws: AsyncResultTimeout.self) { try await call.value }
        #expect(
            timeout?.problem?.contains("another key than this client was given") == true,
            "\(String(describing: timeout))"
        )
        #expect(pool.broker.status.clients == 0)
        await pool.close()
    }

    @Test(
        "S86 calls wait while a proxy has nobody to connect them to, and closes each connection",
        .timeLimit(.minutes(1)),
        arguments: [false, true]
    )
    func emptyProxy(hasKeys: Bool) async throws {
        let keys = try KeyPair()
        try self.ring.allow(keys, "web submit")
        let pool = hasKeys ? try self.ring.pool() : try Pool()
        let link = try FlakyLink(to: pool.endpoint)
        link.cut(for: .seconds(2))
        let client = try pool.client([link.endpoint]) { if hasKeys { $0.keys = self.ring.connection(keys) } }
        let call = try client.function(Job.add).async(1, 2)
        // Only who is impatient is told what it may be.
        let error = await #expect(throws: ConnectionError.self) { try await client.connect() }
        #expect(
            error?.message.contains(hasKeys ? "another key than this client was given" : "does not speak ZeroMQ")
                == true
        )
        #expect(!call.isTerminal)
        #expect(try await call.value == 3)
        try await client.connect()
        await client.close()
        link.close()
        await pool.close()
    }

    @Test("S104 a revocation counts within seconds though the list is touched all the time")
    func restlessList() async throws {
        let keys = try KeyPair()
        try self.ring.allow(keys, "web submit")
        let pool = try self.ring.pool()
        let client = try pool.client { $0.keys = self.ring.connection(keys) }
        #expect(try await client.function(Job.add)(1, 2) == 3)
        try self.ring.revoke(keys)
        // Each touch comes before the list has stood for a whole round.
        let touching = Task { [path = self.ring.allowList] in
            while !Task.isCancelled {
                try FileManager.default.setAttributes([.modificationDate: Date()], ofItemAtPath: path)
                try await Task.sleep(for: .milliseconds(100))
            }
        }
        defer { touching.cancel() }
        let deadline = ContinuousClock.now + .seconds(10)
        var error: (any Error)?
        while error == nil, ContinuousClock.now < deadline {
            do { _ = try await client.call(Job.add, 1, 2, timeout: .seconds(5)) } catch let problem { error = problem }
        }
        #expect((error as? ConnectionError)?.code == .authentication, "\(String(describing: error))")
        await pool.close()
    }

    @Test("rights: calls take submit, lists of others' work admin, cancelling others' calls cancel, the status none")
    func rights() async throws {
        let (watcher, admin) = (try KeyPair(), try KeyPair())
        try self.ring.allow(watcher, "watcher cancel")
        try self.ring.allow(admin, "root admin,submit")
        let pool = try self.ring.pool()
        let client = try pool.client { $0.keys = self.ring.connection(watcher) }
        #expect(try await client.function(.brokerStatus)().broker == "broker")
        let call = await #expect(throws: RemoteError.self) { try await client.function(Job.add)(1, 2) }
        #expect(call?.code == .forbidden)
        #expect(call?.message.contains("watcher may not make calls") == true)
        let list = await #expect(throws: RemoteError.self) { try await client.function(.brokerWorkers)() }
        #expect(list?.code == .forbidden)
        #expect(list?.message.contains("right admin") == true)
        #expect(
            self.ring.log.has("refused", "drover.principal=watcher", watcher.publicKey.text, "drover.action=submit")
        )
        #expect(self.ring.log.has("refused", "drover.principal=watcher", "drover.action=drover.workers"))
        // Its key may cancel others' calls; that of the administrator may not.
        #expect(try await client.function(.brokerCancel)(77, nil) == [])
        #expect(self.ring.log.has("operator acted", "principal=watcher", "action=cancel", "target=#77", "no such call"))
        let root = try pool.client { $0.keys = self.ring.connection(admin) }
        let refused = await #expect(throws: RemoteError.self) { try await root.function(.brokerCancel)(77, nil) }
        #expect(refused?.code == .forbidden && refused?.message.contains("right cancel") == true)
        #expect(try await root.function(Job.add)(1, 2) == 3)
        #expect(try await root.function(.brokerWorkers)().count == 1)
        #expect(self.ring.log.has("operator looked", "principal=root", "action=drover.workers"))
        await pool.close()
    }

    @Test("each act stands in the log, with target and outcome, however much is looked at meanwhile")
    func acts() async throws {
        let admin = try KeyPair()
        try self.ring.allow(admin, "root admin,submit,cancel")
        let pool = try self.ring.pool()
        let client = try pool.client { $0.keys = self.ring.connection(admin) }
        // Far more than there are lines for.
        for _ in 0..<200 { _ = try await client.function(.brokerWorkers)() }
        let held = try client.function(Job.hold).async("gate")
        try await becomesTrue("it runs") { pool.gates.entered == ["gate"] }
        for id in UInt64(1000)..<1099 { #expect(try await client.function(.brokerCancel)(id, nil) == []) }
        let cancelled = try await client.function(.brokerCancel)(held.correlationID.rawValue, nil)
        #expect(cancelled.count == 1)
        for number in 0..<9 { _ = try await client.function(.brokerOrder)("nobody \(number)", .stop, 1) }
        #expect(try await client.function(.brokerOrder)("worker 0", .quiet, 0).count == 1)
        let acts = self.ring.log.lines.filter { $0.contains("operator acted") && $0.contains("principal=root") }
        #expect(acts.count == 110)
        #expect(acts.filter { $0.contains("action=cancel") && $0.contains("there is no such call") }.count == 99)
        let target = "target=#\(held.correlationID.rawValue) of"
        #expect(self.ring.log.has(target, Job.hold.name, "worker 0 was asked to stop it"))
        #expect(self.ring.log.has("action=stop", "target=nobody 8", "no worker is called that"))
        #expect(self.ring.log.has("action=quiet", "target=worker 0 ", "outcome=told"))
        #expect(self.ring.log.lines.count { $0.contains("operator looked") } < 100)
        pool.gates.open("gate")
        await pool.close()
    }

    @Test("S104 no text of a peer reaches the log as the peer wrote it")
    func forgedLines() async throws {
        let pool = try Pool(workers: 0) { $0.logger = self.ring.log.logger }
        try pool.addWorker("evil\u{1B}[2J\ninfo a broker listens") { $0.logger = self.ring.log.logger }
        try await becomesTrue("it is there") { pool.broker.status.workers == 1 }
        let client = try pool.client { $0.name = "\u{202E}\u{1B}]0;title\u{7}" }
        #expect(try await client.function(.brokerOrder)("evil\u{1B}[2J\ninfo a broker listens", .quiet, 0).count == 1)
        #expect(self.ring.log.has("action=quiet", #"target=evil\u{1B}[2J\ninfo a broker listens"#))
        await pool.close()
        for line in self.ring.log.lines {
            #expect(line.unicodeScalars.allSatisfy { $0.value >= 32 && $0 != "\u{202E}" }, "\(line)")
        }
    }

    @Test("rights may be limited to queues, of clients and of workers")
    func queues() async throws {
        let (keys, narrow) = (try KeyPair(), try KeyPair())
        try self.ring.allow(keys, "web submit queues=mail")
        try self.ring.allow(narrow, "mailer work queues=mail")
        let pool = try self.ring.pool(workers: 0)
        try pool.addWorker("too much") {
            $0.keys = self.ring.connection(narrow)
            $0.queues = ["", "mail"]
        }
        try await becomesTrue("it is refused") {
            self.ring.log.has("refused", "drover.principal=mailer", "drover.action=work", "the unnamed queue")
        }
        #expect(pool.broker.status.workers == 0)
        try pool.addWorker("mail only") {
            $0.keys = self.ring.connection(narrow)
            $0.queues = ["mail"]
        }
        let client = try pool.client { $0.keys = self.ring.connection(keys) }
        var options = CallOptions()
        options.queue = "mail"
        #expect(try await client.function(Job.whoAmI, options: options)() == "mail only")
        let error = await #expect(throws: RemoteError.self) { try await client.function(Job.whoAmI)() }
        #expect(error?.code == .forbidden)
        #expect(error?.message.contains("the unnamed queue") == true)
        await pool.close()
    }

    @Test("calls that wait in a queue that is taken from their key end as forbidden; one that runs there runs on")
    func takenQueue() async throws {
        let keys = try KeyPair()
        try self.ring.allow(keys, "web submit queues=mail,paint")
        let pool = try self.ring.pool(workers: 0)
        try pool.addWorker("mailer", concurrency: 1) {
            $0.keys = self.ring.connection(self.ring.worker)
            $0.queues = ["mail"]
        }
        let client = try pool.client { $0.keys = self.ring.connection(keys) }
        let hold = client.function(Job.hold)
        let running = try hold.with(CallOptions(queue: "mail")).async("running")
        try await becomesTrue("it runs") { pool.gates.entered == ["running"] }
        // More than the worker's credit.
        let waiting = try (0..<200).map { _ in try hold.with(CallOptions(queue: "mail")).async("waiting") }
        let painting = try hold.with(CallOptions(queue: "paint")).async("painting")
        try await becomesTrue("they wait") { pool.broker.status.queued > 100 }
        try self.ring.allow(keys, "web submit queues=paint")
        // A few are at the worker, and run on.
        try await becomesTrue("they ended") { waiting.count { $0.isReady } > 100 }
        try await becomesTrue("the one that may still wait") { pool.broker.status.queued == 1 }
        let ended = waiting.filter { $0.isReady }
        for call in ended {
            let error = await #expect(throws: RemoteError.self) { try await call.value }
            #expect(error?.code == .forbidden && error?.message.contains("may not use the queue mail") == true)
        }
        #expect(self.ring.log.has("refused", "drover.action=submit", "drover.principal=web"))
        for gate in ["running", "waiting"] { pool.gates.open(gate) }
        #expect(try await running.value == "mailer")
        painting.cancel()
        await pool.close()
    }

    @Test("a worker without the right to work is refused, and its own log says so")
    func workerWithoutRight() async throws {
        let keys = try KeyPair()
        try self.ring.allow(keys, "web submit")
        let pool = try self.ring.pool(workers: 0)
        let log = CapturedLog()
        try pool.addWorker("web") {
            $0.keys = self.ring.connection(keys)
            $0.logger = log.logger
        }
        try await becomesTrue("both logs say so") {
            self.ring.log.has("refused", "drover.principal=web", "drover.action=work", "lacks the right work")
                && log.has("refuses this worker", "lacks the right work")
        }
        #expect(pool.broker.status.workers == 0)
        await pool.close()
    }

    @Test("a worker whose key isn't allowed says so in its own log, and serves once it is")
    func unknownWorker() async throws {
        let keys = try KeyPair()
        let pool = try self.ring.pool(workers: 0)
        let log = CapturedLog()
        try pool.addWorker("stranger") {
            $0.keys = self.ring.connection(keys)
            $0.logger = log.logger
        }
        try await becomesTrue("both logs say so") {
            self.ring.log.has("refused", keys.publicKey.text, "isn't on the allow-list")
                && log.has("error a broker refuses this worker", pool.endpoint, keys.publicKey.text, "keys allow")
        }
        #expect(pool.broker.status.workers == 0)
        try self.ring.allow(keys, "pool2 work")
        try await becomesTrue("it is let in") { pool.broker.status.workers == 1 }
        #expect(log.lines.filter { $0.contains("refuses this worker") }.count == 1, "\(log.lines)")
        await pool.close()
    }

    @Test("a worker without keys, or with the wrong one for its broker, says so in its own log")
    func mismatchedWorker() async throws {
        let pool = try self.ring.pool(workers: 0)
        let (bare, misled) = (CapturedLog(), CapturedLog())
        try pool.addWorker("bare") { $0.logger = bare.logger }
        try pool.addWorker("misled") {
            $0.keys = try? ConnectionKeys(own: self.ring.worker, server: KeyPair().publicKey)
            $0.logger = misled.logger
        }
        try await becomesTrue("both say so") {
            bare.has("refuses this worker", "wants keys") && misled.has("refuses this worker", "another key than this")
        }
        #expect(pool.broker.status.workers == 0)
        await pool.close()
    }

    @Test("whose key is revoked is cut off within two seconds, and can't come back")
    func revocation() async throws {
        let (keys, stays) = (try KeyPair(), try KeyPair())
        try self.ring.allow(keys, "web submit")
        try self.ring.allow(stays, "other submit")
        let pool = try self.ring.pool()
        let client = try pool.client { $0.keys = self.ring.connection(keys) }
        let other = try pool.client { $0.keys = self.ring.connection(stays) }
        let held = try client.function(Job.hold).async("gate")
        try await becomesTrue("it runs") { pool.gates.entered == ["gate"] }
        let start = ContinuousClock.now
        try self.ring.revoke(keys)
        let error = await #expect(throws: ConnectionError.self) { try await held.value }
        #expect(ContinuousClock.now - start < .seconds(2))
        #expect(error?.code == .authentication)
        #expect(error?.message.contains("revoked") == true, "\(String(describing: error))")
        let later = await self.error(of: client)
        #expect(later?.code == .authentication)
        #expect(self.ring.log.has("refused", "drover.principal=web", keys.publicKey.text, "revoked"))
        #expect(try await other.function(Job.add)(1, 2) == 3)
        try self.ring.revoke(self.ring.worker)
        try await becomesTrue("the worker is cut off") { pool.broker.status.workers == 0 }
        #expect(self.ring.log.has("refused", "drover.principal=pool", "revoked"))
        await pool.close()
    }

    @Test("rights that change hold at once; an edit that can't be understood changes nothing and is logged")
    func edits() async throws {
        let keys = try KeyPair()
        try self.ring.allow(keys, "web submit")
        let pool = try self.ring.pool()
        let client = try pool.client { $0.keys = self.ring.connection(keys) }
        let add = client.function(Job.add)
        #expect(try await add(1, 2) == 3)
        let good = try String(contentsOfFile: self.ring.allowList, encoding: .utf8)
        try self.ring.write(good + "\nweb nonsense\n")
        try await becomesTrue("it is logged") { self.ring.log.has("error", "the former one stays in force", ":3: ") }
        #expect(try await add(2, 2) == 4)
        try self.ring.allow(keys, "web cancel")
        try await becomesTrue("it is in force") { self.ring.log.has("another allow-list is in force") }
        let deadline = ContinuousClock.now + .seconds(5)
        var code: RemoteError.Code?
        while code == nil, ContinuousClock.now < deadline {
            do { _ = try await add(1, 1) } catch let error as RemoteError { code = error.code }
        }
        #expect(code == .forbidden)
        try FileManager.default.removeItem(atPath: self.ring.allowList)
        try await becomesTrue("its loss is logged") { self.ring.log.has("error", "can't read") }
        #expect(try await client.function(.brokerStatus)().clients == 1)
        await pool.close()
    }

    @Test("a client's key is rotated without a break: the new one is allowed beside the old, which then goes")
    func rotation() async throws {
        let (old, new) = (try KeyPair(), try KeyPair())
        try self.ring.allow(old, "web submit")
        let pool = try self.ring.pool()
        let before = try pool.client { $0.keys = self.ring.connection(old) }
        #expect(try await before.function(Job.add)(1, 2) == 3)
        try self.ring.allow(new, "web submit")
        try await becomesTrue("the list is in force") { self.ring.log.has("another allow-list is in force") }
        let after = try pool.client { $0.keys = self.ring.connection(new) }
        #expect(try await after.function(Job.add)(3, 4) == 7)
        #expect(try await before.function(Job.add)(5, 6) == 11)
        await before.close()
        try self.ring.revoke(old)
        #expect(try await after.function(Job.add)(7, 8) == 15)
        await pool.close()
    }

    @Test("a session can't be taken over by another key, by its route or by its identity")
    func takeOver() async throws {
        let (victim, thief) = (try KeyPair(), try KeyPair())
        try self.ring.allow(victim, "victim submit")
        try self.ring.allow(thief, "thief submit")
        let pool = try self.ring.pool(workers: 0) { $0.silenceLimit = .seconds(20) }
        try self.takeOver(pool.endpoint, victim, thief)
        #expect(self.ring.log.has("refused", "drover.principal=thief", "belongs to another key"))
        await pool.close()
    }

    @Test("a worker that listens with keys lets in who may call, and cuts off whose key is revoked")
    func boundWorker() async throws {
        let (keys, other) = (try KeyPair(), try KeyPair())
        try self.ring.allow(keys, "web submit")
        try self.ring.allow(other, "watcher admin")
        let limited = try KeyPair()
        try self.ring.allow(limited, "mailer submit queues=mail")
        var configuration = WorkerConfiguration()
        configuration.logger = self.ring.log.logger
        configuration.listenerKeys = ListenerKeys(own: self.ring.broker, allowList: self.ring.allowList)
        let worker = Worker(configuration: configuration)
        worker.register(Job.add) { $0 + $1 }
        worker.register(Job.echo) { $0 }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        func client(_ own: KeyPair) throws -> Client {
            var configuration = ClientConfiguration()
            configuration.keys = self.ring.connection(own)
            configuration.logger = self.ring.log.logger
            return try Client(running.endpoint, configuration: configuration)
        }
        let (web, watcher, stranger) = (try client(keys), try client(other), try client(KeyPair()))
        #expect(try await web.function(Job.add)(1, 2) == 3)
        let large = [UInt8](repeating: 7, count: 1 << 20)
        #expect(try await web.function(Job.echo)(large) == large)
        let mailer = try client(limited)
        #expect(try await mailer.function(Job.add).with(CallOptions(queue: "mail"))(1, 2) == 3)
        let forbidden = await #expect(throws: RemoteError.self) { try await mailer.function(Job.add)(1, 2) }
        #expect(forbidden?.code == .forbidden && forbidden?.message.contains("may not use the unnamed queue") == true)
        #expect(self.ring.log.has("refused", "drover.principal=mailer"))
        await mailer.close()
        let refused = await self.error(of: watcher)
        #expect(refused?.code == .authentication)
        #expect(refused?.message.contains("watcher may not make calls") == true)
        #expect(await self.error(of: stranger)?.code == .authentication)
        try self.ring.revoke(keys)
        try await becomesTrue("it is cut off") { self.ring.log.has("refused", "drover.principal=web", "revoked") }
        #expect(await self.error(of: web)?.code == .authentication)
        for client in [web, watcher, stranger] { await client.close() }
        await running.stop(grace: .zero)
    }

    private func takeOver(_ endpoint: String, _ victim: KeyPair, _ thief: KeyPair) throws {
        do {
            var first = try RawClient(endpoint, self.ring.connection(victim), routingID: "route")
            try first.send(RawClient.hello(identity: 7))
            #expect(try first.nextKind() == 2)
            try first.send(RawClient.header(kind: 6))
            #expect(try first.nextKind() == 7)
            // The same identity from elsewhere, with another key.
            var second = try RawClient(endpoint, self.ring.connection(thief), routingID: "elsewhere")
            try second.send(RawClient.hello(identity: 7))
            #expect(try second.nextKind() == 8)
            try second.send(RawClient.hello(identity: 7, epoch: 10))
            #expect(try second.nextKind() == 8)
        }
        // The route of the connection that is gone, with another key: a stranger, who isn't answered a ping.
        var third = try RawClient(endpoint, self.ring.connection(thief), routingID: "route")
        try third.send(RawClient.header(kind: 6))
        #expect(try third.nextKind() == 3)
    }

    @Test("ten thousand connections that never finish their handshake don't keep an honest client out")
    func halfOpen() async throws {
        let keys = try KeyPair()
        try self.ring.allow(keys, "web submit")
        let pool = try self.ring.pool { $0.handshakeLimit = .seconds(2) }
        let port = try #require(UInt16(pool.endpoint.split(separator: ":").last ?? ""))
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        // Each takes a descriptor here and one at the broker, which is in this process.
        let portion = max(100, min(2500, (Int(clamping: limit.rlim_cur) - 400) / 3))
        var opened = 0
        while opened < 10_000 {
            let descriptors = (0..<min(portion, 10_000 - opened)).compactMap { _ in connectPlainly(to: port) }
            opened += descriptors.count
            try #require(!descriptors.isEmpty)
            let client = try pool.client { $0.keys = self.ring.connection(keys) }
            #expect(
                try await client.function(Job.add, options: CallOptions(expiry: .seconds(20)))(opened, 1) == opened + 1
            )
            await client.close()
            for descriptor in descriptors { close(descriptor) }
        }
        await pool.close()
    }

    @Test(
        "off loopback a broker starts only with keys, or if the network is trusted"
    )
    func addresses() throws {
        let error = #expect(throws: UsageError.self) { try Broker().start("tcp://0.0.0.0:*") }
        #expect(error?.message.contains("keys") == true)
        #expect(error?.message.contains("allowsUnencryptedNetwork") == true)
        var configuration = BrokerConfiguration()
        configuration.logger = self.ring.log.logger
        configuration.keys = ListenerKeys(own: self.ring.broker, allowList: self.ring.allowList)
        let running = try Broker(configuration: configuration).start("tcp://0.0.0.0:*")
        running.stopBlocking(grace: .zero)
        let dialled = #expect(throws: UsageError.self) { try Client("tcp://192.0.2.1:5570") }
        #expect(dialled?.message.contains("leaves this machine unencrypted") == true)
        configuration.keys?.allowList = self.ring.allowList + "-absent"
        let absent = #expect(throws: UsageError.self) {
            try Broker(configuration: configuration).start("tcp://127.0.0.1:*")
        }
        #expect(absent?.message.contains("allow-absent") == true)
    }

    @Test(
        "S104 the socket of an ipc path has the mode that was asked for, not the mask's; an abstract one is warned of"
    )
    func sockets() async throws {
        let path = self.ring.folder.appending(path: "socket").path
        for (mode, shown) in [(nil, 0o600), (0o660, 0o660)] as [(UInt32?, Int)] {
            let pool = try Pool(address: "ipc://\(path)", workers: 1) { if let mode { $0.socketMode = mode } }
            #expect(try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int == shown)
            #expect(try await pool.client().function(Job.add)(1, 2) == 3)
            let worker = try pool.addWorker("bound", binding: "ipc://\(path)-2") {
                if let mode { $0.socketMode = mode }
            }
            #expect(try FileManager.default.attributesOfItem(atPath: path + "-2")[.posixPermissions] as? Int == shown)
            #expect(worker.endpoint == "ipc://\(path)-2")
            await pool.close()
        }
        let open = try Pool(address: "ipc://@drover-\(UUID())", workers: 0) { $0.logger = self.ring.log.logger }
        #expect(self.ring.log.has("warning the broker is open", "every user of this machine"))
        await open.close()
        // Who connects by a path is known by the kernel's word.
        let keyed = try Pool(address: "ipc://\(path)-3", workers: 0) {
            $0.keys = ListenerKeys(own: self.ring.broker, allowList: self.ring.allowList)
            $0.logger = self.ring.log.logger
        }
        let stranger = try self.ring.connection(KeyPair())
        let call = try keyed.client { $0.keys = stranger }.function(Job.add).async(1, 2)
        try await becomesTrue("it is refused") {
            self.ring.log.has("refused", "drover.peer=", ":\(getuid()):\(getgid()):\(getpid())")
        }
        call.cancel()
        await keyed.close()
        let error = #expect(throws: UsageError.self) { try Pool(workers: 0) { $0.socketMode = 0o1777 } }
        #expect(error?.message.contains("0o660") == true)
    }

    @Test("key files: nobody else may read them, and what is wrong is said without showing a secret")
    func keyFiles() throws {
        let path = self.ring.folder.appending(path: "web.key").path
        let keys = try KeyPair()
        try keys.write(to: path)
        #expect(try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int == 0o600)
        #expect(try KeyPair(contentsOf: path) == keys)
        #expect(try PublicKey(contentsOf: path + ".pub") == keys.publicKey)
        #expect(throws: UsageError.self) { try keys.write(to: path) }
        for mode in [0o640, 0o604, 0o644, 0o660] {
            try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
            let error = #expect(throws: UsageError.self) { try KeyPair(contentsOf: path) }
            #expect(error?.message.contains("chmod 600 \(path)") == true)
        }
        let public_ = #expect(throws: UsageError.self) {
            try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path + ".pub")
            _ = try KeyPair(contentsOf: path + ".pub")
        }
        #expect(public_?.message.contains("no line secret-key") == true)
        let text = try String(contentsOfFile: path, encoding: .utf8)
        let secret = try #require(text.split(separator: "\n").last?.split(separator: " ").last)
        var dumped = ""
        dump(keys, to: &dumped)
        dump(ConnectionKeys(own: keys, server: keys.publicKey), to: &dumped)
        for shown in ["\(keys)", String(reflecting: keys), dumped, "\(self.ring.connection(keys))"] {
            #expect(!shown.contains(secret))
            #expect(shown.contains(keys.publicKey.text))
        }
        try FileManager.default.setAttributes([.posixPermissions: 0o666], ofItemAtPath: self.ring.allowList)
        var configuration = BrokerConfiguration()
        configuration.keys = ListenerKeys(own: self.ring.broker, allowList: self.ring.allowList)
        let open = #expect(throws: UsageError.self) {
            try Broker(configuration: configuration).start("tcp://127.0.0.1:*")
        }
        #expect(open?.message.contains("chmod go-w") == true)
    }
}

/// A TCP connection that says nothing.
private func connectPlainly(to port: UInt16) -> CInt? {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    guard descriptor >= 0 else { return nil }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    let size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let isConnected = withUnsafePointer(to: &address) { pointer in
        pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, size) == 0 }
    }
    if isConnected { return descriptor }
    close(descriptor)
    return nil
}
