// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Foundation
import Synchronization
import Testing

/// Tells another task that the test has seen enough.
private final class Flag: Sendable {
    private let state = Atomic<Bool>(false)
    var isSet: Bool { self.state.load(ordering: .relaxed) }
    func set() { self.state.store(true, ordering: .relaxed) }
}

/// A broker, two workers and a client, each on a host of its own, with the usual beats: 2 s, lost after 6 s.
private final class Field {
    static let echo = Function<Int, Int>("echo", isIdempotent: true)
    static let bytes = Function<[UInt8], [UInt8]>("bytes", isIdempotent: true)
    static let pour = Function<Callback<[UInt8], Nothing>, [Int], Int>("pour")
    static let pid = Function<Int32>("pid", isIdempotent: true)
    static let sleep = Function<Double, String, String>("sleep", isIdempotent: true)

    let hosts: Hosts
    let broker: BrokerProcess
    /// By link: 2 and 3.
    var workers: [Int: WorkerProcess] = [:]
    let client: Client
    let address: String

    init() async throws {
        self.hosts = try Hosts(2)
        self.broker = try BrokerProcess(on: self.hosts.middle)
        for link in [2, 3] {
            let address = "tcp://\(self.hosts.address(by: link)):5570"
            self.workers[link] = try WorkerProcess(on: self.hosts.name(link), dialling: address)
        }
        self.address = "tcp://\(self.hosts.address(by: 1)):5570"
        var configuration = ClientConfiguration()
        configuration.allowsUnencryptedNetwork = true
        self.client = try Client(self.address, configuration: configuration)
        try await self.workersAre(2, within: .seconds(20))
    }

    func status() async -> BrokerStatus? {
        try? await timed(self.client.function(.brokerStatus), .seconds(1))().value
    }

    /// How many workers take calls, as the broker sees it.
    func ready() async -> Int? {
        let workers = try? await timed(self.client.function(.brokerWorkers), .seconds(1))().value
        return workers?.count { $0.state == .ready }
    }

    /// - Returns: How long it took.
    @discardableResult
    func workersAre(
        _ count: Int,
        within limit: Duration,
        since started: ContinuousClock.Instant = .now
    ) async throws -> Duration {
        while await self.ready() != count {
            guard ContinuousClock.now - started < limit else {
                Issue.record("after \(limit) the broker has \(await self.ready() ?? -1) ready workers, not \(count)")
                break
            }
            try await Task.sleep(for: .milliseconds(20))
        }
        return ContinuousClock.now - started
    }

    /// Calls until one is answered.
    ///
    /// - Returns: How long it took.
    func answers(within limit: Duration, since started: ContinuousClock.Instant = .now) async throws -> Duration {
        while true {
            if let value = try? await timed(self.client.function(Self.echo), .milliseconds(300))(7).value {
                #expect(value == 7)
                return ContinuousClock.now - started
            }
            guard ContinuousClock.now - started < limit else {
                Issue.record("no answer within \(limit)")
                return limit
            }
        }
    }

    func close() async {
        await self.client.close(grace: .zero)
        for worker in self.workers.values { worker.kill() }
        self.broker.kill()
    }
}

/// Faults of the network between hosts.
///
/// They need root, iproute2 and nftables; where these are missing they are skipped, and say so.
@Suite(
    "Many hosts",
    .serialized,
    .timeLimit(.minutes(3)),
    .enabled(if: Hosts.obstacle == nil, "NOT TESTED, no network namespaces: \(Hosts.obstacle ?? "")")
)
struct NetworkTests {
    /// Beats and connections are looked after a little later than they are due.
    private static let notice = Duration.seconds(6.5)
    private static let heal = Duration.seconds(5)

    private func tell(_ fault: String, noticed: Duration, healed: Duration) {
        func text(_ time: Duration) -> String { String(format: "%.2f s", time / .seconds(1)) }
        print("\(fault): noticed after \(text(noticed)), healed after \(text(healed))")
    }

    @Test("a worker's host is cut off for ten seconds: its calls run elsewhere within six, it is back within five")
    func partition() async throws {
        let field = try await Field()
        let naps = try (0..<8).map { try field.client.function(Field.sleep).async(3, "\($0)") }
        try await Task.sleep(for: .milliseconds(300))
        let struck = ContinuousClock.now
        try field.hosts.cut(2)
        var noticed = Duration.zero
        while noticed < .seconds(15) {
            noticed = ContinuousClock.now - struck
            if await field.status()?.resent ?? 0 > 0 { break }
        }
        #expect(noticed < Self.notice)
        for (number, nap) in naps.enumerated() { #expect(try await nap.value == "\(number)") }
        try await Task.sleep(until: struck + .seconds(10), clock: .continuous)
        let mended = ContinuousClock.now
        try field.hosts.heal()
        let healed = try await field.workersAre(2, within: .seconds(15), since: mended)
        #expect(healed < Self.heal)
        self.tell("partition", noticed: noticed, healed: healed)
        await field.close()
    }

    @Test(
        "what a worker says is lost, what it is told arrives: it is noticed, and it is back when its words are",
        arguments: [
            Hosts.Direction.toMiddle, .fromMiddle,
        ]
    )
    func oneWay(_ direction: Hosts.Direction) async throws {
        let field = try await Field()
        let struck = ContinuousClock.now
        try field.hosts.cut(2, direction)
        let noticed = try await field.workersAre(1, within: .seconds(15), since: struck)
        #expect(noticed < Self.notice)
        let mended = ContinuousClock.now
        try field.hosts.heal()
        let healed = try await field.workersAre(2, within: .seconds(15), since: mended)
        #expect(healed < Self.heal)
        self.tell("one-way cut (\(direction))", noticed: noticed, healed: healed)
        await field.close()
    }

    @Test("the client's host is cut off: its calls end by their expiry, and go on when it is back")
    func clientPartition() async throws {
        let field = try await Field()
        try field.hosts.cut(1)
        let call = try timed(field.client.function(Field.echo), .seconds(4))(1)
        await #expect(throws: AsyncResultTimeout.self) { try await call.value }
        let kept = try field.client.function(Field.echo).async(2)
        try await Task.sleep(for: .seconds(6))
        let mended = ContinuousClock.now
        try field.hosts.heal()
        let healed = try await field.answers(within: .seconds(15), since: mended)
        #expect(healed < Self.heal)
        #expect(try await kept.value == 2)
        self.tell("client cut off", noticed: .seconds(4), healed: healed)
        await field.close()
    }

    @Test("a translator forgets idle connections: both sides notice, and connect anew")
    func forgetfulTranslator() async throws {
        let field = try await Field()
        try field.hosts.forgetConnections(by: 2)
        try field.hosts.forgetConnections(by: 1)
        // New connections get through at once: what is lost is found out by silence alone.
        let noticedAndHealed = try await field.answers(within: .seconds(20))
        #expect(noticedAndHealed < Self.notice + Self.heal)
        let all = try await field.workersAre(2, within: .seconds(20))
        self.tell("forgotten connections", noticed: noticedAndHealed, healed: all)
        await field.close()
    }

    @Test("a link that comes and goes each second harms no call")
    func flapping() async throws {
        let field = try await Field()
        let echo = field.client.function(Field.echo)
        let isOver = Flag()
        let load = Task {
            var answers = 0
            while !isOver.isSet {
                let number = Int.random(in: 0..<1_000_000)
                let echoed = try await echo(number)
                #expect(echoed == number)
                answers += 1
            }
            return answers
        }
        for _ in 0..<5 {
            try field.hosts.cut(2)
            try await Task.sleep(for: .seconds(1))
            try field.hosts.heal()
            try await Task.sleep(for: .seconds(1))
        }
        isOver.set()
        let answers = try await load.value
        #expect(answers > 10)
        try await field.workersAre(2, within: .seconds(10))
        await field.close()
    }

    @Test("two hundred milliseconds away, with one packet of twenty lost, calls are answered and nobody is lost")
    func farAway() async throws {
        let field = try await Field()
        let forwarder = try Forwarder(to: field.hosts.address(by: 1), port: 5570, delay: .milliseconds(100))
        try field.hosts.lose(percent: 5, of: 1)
        let far = try Client("tcp://127.0.0.1:\(forwarder.port)")
        let handles = try (0..<2000).map { try far.function(Field.echo).async($0) }
        for (number, handle) in handles.enumerated() { #expect(try await handle.value == number) }
        let status = try #require(await field.status())
        #expect(status.lost == 0)
        #expect(far.statistics.disconnections == 0)
        await far.close(grace: .zero)
        forwarder.close()
        await field.close()
    }

    @Test("by a narrow link large calls take their time, and no beat, no small call and no session is lost behind them")
    func narrow() async throws {
        let field = try await Field()
        try field.hosts.throttle(kilobits: 4000, of: 1)
        let started = ContinuousClock.now
        let payload = [UInt8](repeating: 7, count: 200_000)
        let handles = try (0..<20).map { _ in try field.client.function(Field.bytes).async(payload) }
        let small = try (0..<100).map { try field.client.function(Field.echo).async($0) }
        for (number, handle) in small.enumerated() { #expect(try await handle.value == number) }
        for handle in handles { #expect(try await handle.value.count == payload.count) }
        // Four million bytes at half a million a second: longer than the silence limit, and so is the way back.
        #expect(ContinuousClock.now - started > .seconds(7))
        #expect(field.client.statistics.disconnections == 0)
        #expect(field.client.statistics.resends == 0)
        let status = try #require(await field.status())
        #expect(status.lost == 0 && status.resent == 0)
        await field.close()
    }

    /// Megabytes of the large value; 20 take longer than the silence limit already.
    private static let megabytes = ProcessInfo.processInfo.environment["DROVER_LARGE_MEGABYTES"].flatMap(Int.init) ?? 20

    @Test("by a line of 20 Mbit/s a large value arrives in the line's time, through a broker, and small calls pass it")
    func largeThroughBroker() async throws {
        let field = try await Field()
        try field.hosts.throttle(kilobits: 20_000, of: 1)
        try await self.echoLarge(by: field.client)
        try await self.pourLarge(by: field.client)
        let status = try #require(await field.status())
        #expect(status.lost == 0 && status.resent == 0)
        await field.close()
    }

    @Test("by a line of 20 Mbit/s a large value arrives in the line's time, and small calls pass it")
    func largeDirectly() async throws {
        let hosts = try Hosts(0)
        let worker = try WorkerProcess(listeningOn: hosts.middle)
        defer { worker.kill() }
        var configuration = ClientConfiguration()
        configuration.allowsUnencryptedNetwork = true
        let client = try Client("tcp://\(hosts.address(by: 1)):5571", configuration: configuration)
        #expect(try await client.function(Field.echo)(1) == 1)
        try hosts.throttle(kilobits: 20_000, of: 1)
        try await self.echoLarge(by: client)
        try await self.pourLarge(by: client)
        await client.close(grace: .zero)
    }

    /// Has large events sent, one of which takes longer than the silence limit, and makes small calls meanwhile.
    private func pourLarge(by client: Client) async throws {
        let sizes = [1, Self.megabytes * 1_000_000, 2, 3_000_000, 3]
        let seen = Mutex<[Int]>([])
        let callback = client.callback { (bytes: [UInt8]) in
            seen.withLock { $0.append(bytes.count) }
            return Nothing()
        }
        let clock = ContinuousClock()
        let started = clock.now
        let call = try client.function(Field.pour).async(callback, sizes)
        var slowest = Duration.zero
        while !call.isReady, clock.now - started < .seconds(60) {
            let asked = clock.now
            #expect(try await client.function(Field.echo)(7) == 7)
            slowest = max(slowest, clock.now - asked)
            try await Task.sleep(for: .milliseconds(50))
        }
        #expect(try await call.value == sizes.count)
        let took = clock.now - started
        print("events of \(Self.megabytes) MB and 3 MB at 20 Mbit/s: \(took), the slowest small call \(slowest)")
        while seen.withLock({ $0.count }) < sizes.count, clock.now - started < .seconds(60) {
            try await Task.sleep(for: .milliseconds(10))
        }
        #expect(seen.withLock { $0 } == sizes)
        #expect(took < .seconds(Double(sizes.reduce(0, +)) * 8 / 20_000_000) * 1.3)
        #expect(slowest < .seconds(1))
        #expect(client.statistics.strayEvents == 0)
        #expect(client.statistics.disconnections == 0)
    }

    /// Sends a large value there and back, and makes small calls meanwhile.
    private func echoLarge(by client: Client) async throws {
        let payload = [UInt8](repeating: 7, count: Self.megabytes * 1_000_000)
        let clock = ContinuousClock()
        let started = clock.now
        let large = try client.function(Field.bytes).async(payload)
        var slowest = Duration.zero
        while !large.isReady, clock.now - started < .seconds(60) {
            let asked = clock.now
            #expect(try await client.function(Field.echo)(7) == 7)
            slowest = max(slowest, clock.now - asked)
            try await Task.sleep(for: .milliseconds(50))
        }
        let value = try await large.value
        let took = clock.now - started
        print("\(Self.megabytes) MB each way at 20 Mbit/s: \(took), the slowest small call \(slowest)")
        #expect(value.count == payload.count && value.allSatisfy { $0 == 7 })
        let line = Duration.seconds(Double(payload.count) * 8 / 20_000_000)
        #expect(took < line * 2.6, "1.3 times the line's time, each way")
        #expect(slowest < .seconds(1))
        #expect(client.statistics.resends == 0)
        #expect(client.statistics.disconnections == 0)
    }
}
