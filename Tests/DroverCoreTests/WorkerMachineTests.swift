// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire
import Testing

@Suite struct WorkerMachineTests {
    private static let client = PeerID(high: 1, low: 2)

    private static func at(_ milliseconds: UInt64) -> Instant { Instant(nanoseconds: milliseconds * 1_000_000) }

    private static func machine(window: Int = 8, limits: [Int?] = [nil, 1]) -> WorkerMachine {
        var configuration = WorkerMachine.Configuration(seed: 7)
        configuration.window = window
        configuration.functionLimits = limits
        return WorkerMachine(configuration: configuration)
    }

    @discardableResult
    private static func hello(
        _ machine: inout WorkerMachine,
        client: PeerID = client,
        epoch: UInt64 = 1,
        route: UInt64 = 1,
        actions: inout [WorkerAction]
    ) throws -> Int {
        let introduction = machine.helloReceived(
            client: client,
            epoch: epoch,
            name: "",
            route: route,
            at: Self.at(1),
            actions: &actions
        )
        guard case .welcome(let session, let isResumed) = introduction else {
            throw CancellationError()
        }
        if !isResumed {
            for number in 0..<2 {
                _ = machine.defined(UInt32(number), name: "f\(number)", handler: Int32(number), in: session)
            }
        }
        return session
    }

    private static func request(
        _ machine: inout WorkerMachine,
        _ id: UInt64,
        flags: Header.Flags = [],
        time: UInt32 = Header.noTimeLimit,
        number: UInt32 = 0,
        key: String? = nil,
        session: Int = 0
    ) -> WorkerMachine.RequestVerdict {
        let header = Header(.request, flags: flags, id: id, time: time, number: number)
        return machine.requestReceived(header, key: key, from: session, at: Self.at(2))
    }

    private static func remember(_ machine: inout WorkerMachine, _ id: UInt64, bytes: Int = 24) {
        let message = [UInt8](repeating: 7, count: bytes)
        unsafe message.withUnsafeBytes { bytes in unsafe machine.remember(id, message: bytes, of: 0) }
    }

    @Test("S97 a request that is sent again is known while it runs and answered again afterwards")
    func resent() throws {
        var machine = Self.machine()
        var actions: [WorkerAction] = []
        try Self.hello(&machine, actions: &actions)
        #expect(Self.request(&machine, 1) == .run(slot: 0, handler: 0))
        #expect(Self.request(&machine, 1) == .duplicateID)
        #expect(Self.request(&machine, 1, flags: .resent) == .known(slot: 0))
        let addressee = machine.finished(0, actions: &actions)
        #expect(addressee?.session == 0)
        #expect(addressee?.id == 1)
        Self.remember(&machine, 1)
        #expect(Self.request(&machine, 1, flags: .resent) == .answerAgain)
        #expect(Self.request(&machine, 2, flags: .resent) == .run(slot: 0, handler: 0))
    }

    @Test("S97 if the answer is held no more, only an idempotent request runs again")
    func forgotten() throws {
        var machine = Self.machine()
        var actions: [WorkerAction] = []
        try Self.hello(&machine, actions: &actions)
        _ = Self.request(&machine, 5)
        _ = machine.finished(0, actions: &actions)
        machine.forgetResult(5, of: 0)
        #expect(Self.request(&machine, 5, flags: .resent) == .indeterminate)
        #expect(Self.request(&machine, 5, flags: [.resent, .idempotent]) == .run(slot: 0, handler: 0))
    }

    @Test("S40 a request that lapses while it waits never starts")
    func lapsed() throws {
        var machine = Self.machine()
        var actions: [WorkerAction] = []
        try Self.hello(&machine, actions: &actions)
        #expect(Self.request(&machine, 1, number: 1) == .run(slot: 0, handler: 1))
        #expect(Self.request(&machine, 2, time: 5, number: 1) == .hold(slot: 1, handler: 1))
        machine.ticked(at: Self.at(6), actions: &actions)
        #expect(!actions.contains(.lapsed(slot: 1, session: 0, id: 2)))
        machine.ticked(at: Self.at(8), actions: &actions)
        #expect(actions.contains(.lapsed(slot: 1, session: 0, id: 2)))
        actions = []
        _ = machine.finished(0, actions: &actions)
        #expect(actions.isEmpty)
        #expect(machine.requestCount == 0)
        #expect(machine.timerCount == 0)
    }

    @Test("S40 one that lapses when it may run already is to be stopped")
    func lapsedRunning() throws {
        var machine = Self.machine()
        var actions: [WorkerAction] = []
        try Self.hello(&machine, actions: &actions)
        _ = Self.request(&machine, 1, time: 5)
        machine.ticked(at: Self.at(8), actions: &actions)
        #expect(actions.contains(.stop(slot: 0)))
        #expect(machine.requestCount == 1)
    }

    @Test("S9 requests of one key run one at a time, in the order they came, whatever their functions")
    func keys() throws {
        var machine = Self.machine()
        var actions: [WorkerAction] = []
        try Self.hello(&machine, actions: &actions)
        #expect(Self.request(&machine, 1, key: "k") == .run(slot: 0, handler: 0))
        #expect(Self.request(&machine, 2, number: 1, key: "k") == .hold(slot: 1, handler: 1))
        #expect(Self.request(&machine, 3, key: "k") == .hold(slot: 2, handler: 0))
        #expect(Self.request(&machine, 4, key: "other") == .run(slot: 3, handler: 0))
        _ = machine.finished(0, actions: &actions)
        #expect(actions == [.run(slot: 1, handler: 1)])
        _ = machine.finished(1, actions: &actions)
        #expect(actions.last == .run(slot: 2, handler: 0))
        #expect(machine.heldCount == 0)
    }

    @Test("S98 a cancelled request that waits is gone, one that may run is stopped, a stranger is unknown")
    func cancel() throws {
        var machine = Self.machine()
        var actions: [WorkerAction] = []
        try Self.hello(&machine, actions: &actions)
        _ = Self.request(&machine, 1, number: 1)
        _ = Self.request(&machine, 2, number: 1)
        #expect(machine.cancelReceived(2, from: 0, actions: &actions) == .removed(slot: 1))
        #expect(machine.cancelReceived(1, from: 0, actions: &actions) == .stop(slot: 0))
        #expect(machine.cancelReceived(9, from: 0, actions: &actions) == .unknown)
        _ = machine.finished(0, actions: &actions)
        #expect(actions.isEmpty)
    }

    @Test("S27 S28 a request that waits lapses at the deadline that was said last, by itself or sent again")
    func movedDeadline() throws {
        var machine = Self.machine()
        var actions: [WorkerAction] = []
        try Self.hello(&machine, actions: &actions)
        _ = Self.request(&machine, 1, number: 1)
        for id in UInt64(2)...5 { _ = Self.request(&machine, id, time: 50, number: 1) }
        #expect(machine.deadlineReceived(2, time: 200, from: 0, at: Self.at(10)) == 1)
        #expect(machine.deadlineReceived(3, time: Header.noTimeLimit, from: 0, at: Self.at(10)) == 2)
        #expect(machine.deadlineReceived(4, time: 5, from: 0, at: Self.at(10)) == 3)
        #expect(machine.deadlineReceived(9, time: 5, from: 0, at: Self.at(10)) == nil)
        #expect(Self.request(&machine, 5, flags: .resent, time: 300, number: 1) == .known(slot: 4))
        #expect(machine.request(in: 2)?.deadline == .distantFuture)
        func lapsed(at time: UInt64) -> [UInt64] {
            actions = []
            machine.ticked(at: Self.at(time), actions: &actions)
            return actions.compactMap { if case .lapsed(_, _, let id) = $0 { id } else { nil } }
        }
        #expect(lapsed(at: 14) == [])
        #expect(lapsed(at: 16) == [4])
        #expect(lapsed(at: 209) == [])
        #expect(lapsed(at: 211) == [2])
        #expect(lapsed(at: 303) == [5])
        #expect(machine.timerCount == 0)
        #expect(machine.requestCount == 2)
    }

    @Test("S97 an introduction under the same epoch goes on with the session, S87 another epoch ends it")
    func introductions() throws {
        var machine = Self.machine()
        var actions: [WorkerAction] = []
        let first = try Self.hello(&machine, actions: &actions)
        let number = machine.sessions[first].number
        _ = Self.request(&machine, 1)
        #expect(try Self.hello(&machine, route: 2, actions: &actions) == first)
        #expect(machine.sessions[first].number == number)
        #expect(machine.session(route: 1) == nil)
        #expect(machine.session(route: 2) == first)
        actions = []
        let second = try Self.hello(&machine, epoch: 2, route: 3, actions: &actions)
        #expect(actions == [.stop(slot: 0), .sessionLost(session: first, client: Self.client)])
        #expect(machine.sessions[second].number != number)
        let addressee = machine.finished(0, actions: &actions)
        #expect(addressee?.id == 1)
        #expect(addressee?.session == nil)
    }

    @Test("S97 no session begins for a client that wants to go on with one that is gone")
    func claims() throws {
        var machine = Self.machine()
        var actions: [WorkerAction] = []
        let session = try Self.hello(&machine, actions: &actions)
        let number = machine.sessions[session].number
        func introduce(_ claimed: UInt32) -> WorkerMachine.Introduction {
            machine.helloReceived(
                client: Self.client,
                epoch: 1,
                claimed: claimed,
                name: "",
                route: 4,
                at: Self.at(2),
                actions: &actions
            )
        }
        #expect(introduce(number) == .welcome(session: session, isResumed: true))
        #expect(introduce(number + 1) == .forgotten)
        machine.goodbyeReceived(from: session, at: Self.at(3), actions: &actions)
        #expect(introduce(number) == .forgotten)
        #expect(machine.sessionCount == 0)
        #expect(introduce(0) == .welcome(session: session, isResumed: false))
    }

    @Test("when a client goes, its key passes to another client's request, never to one that goes as well")
    func lostWithKey() throws {
        var machine = Self.machine()
        var actions: [WorkerAction] = []
        try Self.hello(&machine, actions: &actions)
        let other = try Self.hello(&machine, client: PeerID(high: 9, low: 9), route: 2, actions: &actions)
        #expect(Self.request(&machine, 1, number: 1, session: other) == .run(slot: 0, handler: 1))
        // Has the key, and waits for the function's limit.
        #expect(Self.request(&machine, 1, number: 1, key: "k") == .hold(slot: 1, handler: 1))
        #expect(Self.request(&machine, 2, number: 0, key: "k") == .hold(slot: 2, handler: 0))
        #expect(Self.request(&machine, 2, number: 0, key: "k", session: other) == .hold(slot: 3, handler: 0))
        actions = []
        machine.goodbyeReceived(from: 0, at: Self.at(3), actions: &actions)
        #expect(actions.filter { if case .run = $0 { true } else { false } } == [.run(slot: 3, handler: 0)])
        #expect(actions.contains(.dropped(slot: 1)) && actions.contains(.dropped(slot: 2)))
        #expect(machine.requestCount == 2)
        #expect(machine.heldCount == 0)
    }

    @Test(
        "S104 requests that wait when their function or queue is taken from their client end; others, and what runs, go on"
    )
    func restricted() throws {
        var machine = Self.machine()
        var actions: [WorkerAction] = []
        try Self.hello(&machine, actions: &actions)
        let other = try Self.hello(&machine, client: PeerID(high: 9, low: 9), route: 2, actions: &actions)
        func request(_ id: UInt64, _ number: UInt32, key: String? = nil, queue: String = "", session: Int = 0) {
            let header = Header(.request, id: id, time: Header.noTimeLimit, number: number)
            _ = machine.requestReceived(header, key: key, queue: queue, from: session, at: Self.at(2))
        }
        request(1, 1, session: other)  // takes the limit of function 1
        request(2, 1)  // held for it: 1
        request(3, 0, key: "k", queue: "mail")  // runs, or is about to: 2
        request(4, 0, key: "k", queue: "mail")  // behind its key: 3
        request(5, 0, key: "k", queue: "paint")  // behind that: 4
        request(6, 0, key: "k", session: other)  // behind that: 5
        request(7, 0, queue: "mail")  // runs, or is about to: 6
        actions = []
        machine.restrict(0, actions: &actions) { handler, queue in handler == 0 && queue != "mail" }
        let expected: [WorkerAction] = [
            .forbidden(slot: 3, session: 0, id: 4, handler: 0, queue: "mail"),
            .forbidden(slot: 1, session: 0, id: 2, handler: 1, queue: ""),
            .withdraw(slot: 2, queue: "mail"), .withdraw(slot: 6, queue: "mail"),
        ]
        #expect(actions == expected)
        #expect(machine.requestCount == 5 && machine.heldCount == 2)
        // What is withdrawn is ended by the loop: the key goes to those that may still be called.
        actions = []
        _ = machine.finished(2, actions: &actions)
        #expect(actions == [.run(slot: 4, handler: 0)])
        _ = machine.finished(6, actions: &actions)
        actions = []
        machine.restrict(0, actions: &actions) { _, _ in true }
        #expect(actions.isEmpty && machine.requestCount == 3)
    }

    @Test("S87 a client that is silent for the limit is gone, and its requests are stopped")
    func silence() throws {
        var machine = Self.machine()
        var actions: [WorkerAction] = []
        try Self.hello(&machine, actions: &actions)
        _ = Self.request(&machine, 1)
        for time in stride(from: UInt64(1000), through: 12_000, by: 500) {
            machine.ticked(at: Self.at(time), actions: &actions)
        }
        #expect(actions.count { $0 == .sessionLost(session: 0, client: Self.client) } == 1)
        #expect(actions.contains(.stop(slot: 0)))
        #expect(machine.sessionCount == 0)
    }

    @Test("S100 more than the window, S91 anything while draining, and unknown functions are refused")
    func refusals() throws {
        var machine = Self.machine(window: 1)
        var actions: [WorkerAction] = []
        try Self.hello(&machine, actions: &actions)
        _ = machine.defined(2, name: "gone", handler: nil, in: 0)
        #expect(Self.request(&machine, 1, number: 2) == .unknownFunction(name: "gone"))
        #expect(Self.request(&machine, 1, number: 3) == .undefinedFunction)
        _ = Self.request(&machine, 1)
        #expect(Self.request(&machine, 2) == .busy(window: 1))
        machine.drain()
        #expect(Self.request(&machine, 3) == .draining)
        #expect(Self.request(&machine, 1, flags: .resent) == .known(slot: 0))
    }

    @Test("S99 a request that takes long is reported once, one that has ended never")
    func reports() throws {
        var machine = Self.machine()
        var actions: [WorkerAction] = []
        try Self.hello(&machine, actions: &actions)
        _ = Self.request(&machine, 1)
        _ = Self.request(&machine, 2)
        _ = machine.finished(0, actions: &actions)
        machine.ticked(at: Self.at(10), actions: &actions)
        machine.ticked(at: Self.at(20), actions: &actions)
        #expect(actions == [.report(slot: 1, session: 0, id: 2)])
    }
}
