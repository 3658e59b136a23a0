// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire
import Simulator
import Testing

@Suite struct MachinePropertyTests {
    /// What the client's model knows of one call.
    private struct Known {
        var slot: UInt32
        var endpoint: Int?
        var deadline: Instant
        var isIdempotent: Bool
    }

    @Test("S94 S97 S100 S102 the client's machine agrees with dictionaries, whatever happens to it")
    func client() throws {
        try withSeeds(10_000) { random in
            var machine = ClientMachine(endpointCount: 2)
            var open: [UInt64: Known] = [:]
            /// What each worker has that has not been answered for.
            var held: [Set<UInt64>] = [[], []]
            var sent: [UInt64: Int] = [:]
            var ended: Set<UInt64> = []
            var session: [UInt32] = [0, 0]
            var now = Instant(nanoseconds: 1)
            var actions: [ClientAction] = []
            var id: UInt64 = 0

            func finish(_ id: UInt64) throws {
                try check(open.removeValue(forKey: id) != nil, "call \(id) ended and was not open")
                try check(ended.insert(id).inserted, "call \(id) ended twice")
            }
            func perform() throws {
                for action in actions {
                    switch action {
                    case .transmit(let slot, let endpoint, let isResent, _):
                        guard let (id, known) = open.first(where: { $0.value.slot == slot }) else {
                            throw Violation("an empty slot was sent")
                        }
                        open[id]?.endpoint = endpoint
                        held[endpoint].insert(id)
                        if !isResent { sent[id, default: 0] += 1 }
                        try check(known.isIdempotent || sent[id] == 1, "call \(id) was sent anew")
                    case .finish(let slot, let id, let ending):
                        try check(open[id]?.slot == slot, "another call was in slot \(slot)")
                        if ending == .expired {
                            try check((open[id]?.deadline ?? now) <= now, "call \(id) expired too soon")
                        }
                        try finish(id)
                    case .lost(let endpoint, _):
                        held[endpoint] = []
                        for id in open.keys where open[id]?.endpoint == endpoint { open[id]?.endpoint = nil }
                    default: break
                    }
                }
                actions = []
            }

            for _ in 0..<25 {
                now = now.advanced(byNanoseconds: UInt64(random.below(3_000_000)))
                let endpoint = random.below(2)
                switch random.below(12) {
                case 0, 1, 2:
                    id += 1
                    let deadline = random.oneIn(2) ? .distantFuture : now.advanced(byNanoseconds: 9_000_000)
                    let isIdempotent = random.oneIn(2)
                    let affinity = UInt64(random.below(3))
                    let call = Call(id: id, isIdempotent: isIdempotent, affinity: affinity, deadline: deadline)
                    guard let place = machine.submitted(call, at: now) else { throw Violation("\(id) was refused") }
                    try check(!open.values.contains { $0.slot == place.slot }, "slot \(place.slot) is taken")
                    open[id] = Known(
                        slot: place.slot,
                        endpoint: place.endpoint,
                        deadline: deadline,
                        isIdempotent: isIdempotent
                    )
                    if let endpoint = place.endpoint {
                        held[endpoint].insert(id)
                        sent[id, default: 0] += 1
                    }
                case 3, 4, 5:
                    guard let id = held[endpoint].min() else { continue }
                    held[endpoint].remove(id)
                    let verdict = machine.replied(id, from: endpoint, at: now)
                    if let known = open[id] {
                        // One that comes at or after the deadline, but before the tick, comes too late.
                        if known.deadline <= now {
                            guard case .expire(known.slot, _, _) = verdict else {
                                throw Violation("the late answer to \(id) is \(verdict)")
                            }
                        } else {
                            try check(verdict == .deliver(slot: known.slot), "the answer to \(id) is \(verdict)")
                        }
                        try finish(id)
                    } else {
                        guard case .late = verdict else { throw Violation("the answer to \(id) is \(verdict)") }
                    }
                    try check(machine.replied(id, from: endpoint, at: now) == .duplicate, "\(id) is no duplicate")
                case 6:
                    guard let id = open.keys.max() else { continue }
                    let slot = machine.abandoned(id, as: .requested, at: now, actions: &actions)
                    try check(slot == open[id]?.slot, "call \(id) was in another slot")
                    try finish(id)
                case 7:
                    guard let id = held[endpoint].first(where: { open[$0] == nil }) else { continue }
                    held[endpoint].remove(id)
                    let stage = CancelledStage.beforeStart
                    machine.cancellationConfirmed(id, stage: stage, from: endpoint, at: now, actions: &actions)
                case 8: machine.disconnected(endpoint, at: now, actions: &actions)
                case 9, 10:
                    machine.connected(endpoint, at: now, actions: &actions)
                    if session[endpoint] == 0 || random.oneIn(4) { session[endpoint] += 1 }
                    machine.welcomed(
                        by: endpoint,
                        epoch: UInt64(session[endpoint] / 2),
                        session: session[endpoint],
                        window: 3,
                        isResumed: true,
                        at: now,
                        actions: &actions
                    )
                default: machine.ticked(at: now, actions: &actions)
                }
                try perform()
                machine.dispatch(actions: &actions)
                try perform()
                try check(machine.callCount == open.count, "\(machine.callCount) calls, \(open.count) are open")
                for index in 0..<2 {
                    let endpoint = machine.endpoints[index]
                    try check(endpoint.outstanding <= 3, "the window of 3 holds \(endpoint.outstanding)")
                    try check(endpoint.outstanding == held[index].count, "\(endpoint.outstanding) are outstanding")
                }
            }
            for (slot, id) in machine.closed() {
                try check(open[id]?.slot == slot, "call \(id) was in another slot at the end")
                try finish(id)
            }
            try check(open.isEmpty && machine.callCount == 0 && machine.timerCount == 0, "something was left")
            try check(ended.count == Int(id), "not all calls ended")
        }
    }

    /// What the worker's model knows of one request.
    private struct Request {
        var id: UInt64
        var session: Int?
        var handler: Int
        var key: String?
        var isRunning: Bool
        /// When its handler began, if the machine was told.
        var beganAt: Instant?
        var isInterrupted = false
        var isAbandoned = false
    }

    @Test("S9 S40 S97 S98 S102 the worker's machine agrees with dictionaries, whatever happens to it")
    func worker() throws {
        try withSeeds(10_000) { random in
            let limits: [Int?] = [nil, 1, 2]
            var configuration = WorkerMachine.Configuration(seed: 7)
            configuration.window = 6
            configuration.functionLimits = limits
            let runLimits = [
                RunLimits(), RunLimits(softNanoseconds: 2_000_000, hardNanoseconds: 5_000_000),
                RunLimits(hardNanoseconds: 3_000_000),
            ]
            configuration.runLimits = runLimits
            var machine = WorkerMachine(configuration: configuration)
            var requests: [UInt32: Request] = [:]
            var sessions: [Int: UInt64] = [:]
            var answered: [Int: Set<UInt64>] = [:]
            var now = Instant(nanoseconds: 1)
            var actions: [WorkerAction] = []
            var epoch: UInt64 = 0
            var id: UInt64 = 0

            func drop(_ slot: UInt32) throws {
                guard let request = requests.removeValue(forKey: slot) else { throw Violation("slot \(slot) is empty") }
                try check(!request.isRunning, "request \(request.id) may have started and was dropped")
            }
            func checkLimit(_ slot: UInt32, _ nanoseconds: (RunLimits) -> UInt64?) throws {
                guard let request = requests[slot], let beganAt = request.beganAt,
                    let limit = nanoseconds(runLimits[request.handler])
                else { throw Violation("slot \(slot) has no limit that could pass") }
                try check(now.nanoseconds(since: beganAt) >= limit, "a limit passed too soon")
                try check(!request.isAbandoned, "a limit passed that another had made void")
            }
            func remember(_ id: UInt64, of session: Int) {
                let message: [UInt8] = [1]
                unsafe message.withUnsafeBytes { bytes in unsafe machine.remember(id, message: bytes, of: session) }
                answered[session, default: []].insert(id)
            }
            func perform() throws {
                for action in actions {
                    switch action {
                    case .interrupt(let slot):
                        try checkLimit(slot, \.softNanoseconds)
                        try check(requests[slot]?.isInterrupted == false, "slot \(slot) was interrupted before")
                        requests[slot]?.isInterrupted = true
                    case .abandon(let slot, let session, let id):
                        try checkLimit(slot, \.hardNanoseconds)
                        try check(requests[slot]?.id == id, "another request is abandoned")
                        try check(requests[slot]?.session == session, "another client is told")
                        requests[slot]?.isAbandoned = true
                        requests[slot]?.session = nil
                        if let session { remember(id, of: session) }
                    case .giveUp(let slot, _, _):
                        throw Violation("slot \(slot) is given up, and nobody asked it to stop")
                    case .run(let slot, let handler):
                        guard requests[slot]?.isRunning == false, requests[slot]?.handler == Int(handler) else {
                            throw Violation("slot \(slot) can't run")
                        }
                        requests[slot]?.isRunning = true
                    case .stop(let slot): try check(requests[slot]?.isRunning == true, "slot \(slot) does not run")
                    case .lapsed(let slot, _, let id):
                        try check(requests[slot]?.id == id, "another request lapsed")
                        try drop(slot)
                    case .forbidden(let slot, let session, let id, let handler, let queue):
                        try check(requests[slot]?.id == id, "another request is forbidden")
                        try check(requests[slot]?.session == session, "another client is told")
                        try check(handler == 0 && queue.isEmpty, "a request is forbidden that isn't")
                        try drop(slot)
                    case .withdraw(let slot, _):
                        try check(requests[slot]?.isRunning == true, "slot \(slot) was held")
                        try check(requests[slot]?.handler == 0, "a request is withdrawn that isn't forbidden")
                    case .dropped(let slot): try drop(slot)
                    case .sessionLost(let session, _):
                        sessions[session] = nil
                        answered[session] = nil
                        for slot in requests.keys where requests[slot]?.session == session {
                            requests[slot]?.session = nil
                        }
                    case .report, .sendBeat: break
                    }
                }
                actions = []
            }

            for _ in 0..<25 {
                now = now.advanced(byNanoseconds: UInt64(random.below(2_000_000)))
                let session = sessions.keys.sorted().first { _ in random.oneIn(2) }
                switch random.below(15) {
                case 14:
                    if let session { machine.restrict(session, actions: &actions) { handler, _ in handler != 0 } }
                case 0:
                    let client = PeerID(high: 0, low: UInt64(random.below(3)))
                    let isNew = random.oneIn(3)
                    if isNew { epoch += 1 }
                    let introduction = machine.helloReceived(
                        client: client,
                        epoch: epoch,
                        name: "",
                        route: UInt64(random.below(5)),
                        at: now,
                        actions: &actions
                    )
                    try perform()
                    guard case .welcome(let session, let isResumed) = introduction else { throw Violation("refused") }
                    try check(isResumed == (sessions[session] != nil), "a session can't begin where another is")
                    sessions[session] = client.low
                    for number in limits.indices {
                        _ = machine.defined(UInt32(number), name: "f", handler: Int32(number), in: session)
                    }
                case 1, 2, 3, 4, 5:
                    guard let session else { continue }
                    id += 1
                    let handler = random.below(3)
                    let key = random.oneIn(2) ? ["a", "b"][random.below(2)] : nil
                    let time = random.oneIn(2) ? Header.noTimeLimit : UInt32(1 + random.below(8))
                    let header = Header(.request, id: id, time: time, number: UInt32(handler))
                    let count = requests.values.count { $0.session == session }
                    switch machine.requestReceived(header, key: key, from: session, at: now) {
                    case .run(let slot, _):
                        try check(requests[slot] == nil, "slot \(slot) is taken")
                        requests[slot] =
                            Request(id: id, session: session, handler: handler, key: key, isRunning: true)
                    case .hold(let slot, _):
                        try check(requests[slot] == nil, "slot \(slot) is taken")
                        requests[slot] =
                            Request(id: id, session: session, handler: handler, key: key, isRunning: false)
                    case .busy: try check(count == 6, "busy with \(count)")
                    case let verdict: throw Violation("\(verdict)")
                    }
                case 6:
                    guard let session, let done = answered[session]?.max() else { continue }
                    let header = Header(.request, flags: .resent, id: done)
                    let verdict = machine.requestReceived(header, key: nil, from: session, at: now)
                    try check(verdict == .answerAgain, "request \(done) was answered, and is \(verdict)")
                case 7, 8:
                    guard let (slot, request) = requests.first(where: { $0.value.isRunning }) else { continue }
                    requests[slot] = nil
                    let addressee = machine.finished(slot, actions: &actions)
                    try check(addressee?.id == request.id, "the answer goes to another request")
                    try check(addressee?.session == request.session, "the answer goes to another client")
                    try check(addressee?.isLate == request.isAbandoned, "the answer is late, or is not")
                    if let session = request.session { remember(request.id, of: session) }
                case 9:
                    guard let (slot, request) = requests.first(where: { $0.value.session != nil }),
                        let session = request.session
                    else { continue }
                    switch machine.cancelReceived(request.id, from: session, actions: &actions) {
                    case .removed(let removed):
                        try check(removed == slot, "another request was removed")
                        try drop(slot)
                    case .stop(let stopped):
                        try check(stopped == slot && request.isRunning, "another request is to be stopped")
                    case .unknown: throw Violation("request \(request.id) is not known")
                    }
                case 10:
                    if let session, random.oneIn(3) {
                        machine.goodbyeReceived(from: session, at: now, actions: &actions)
                    }
                case 11, 12:
                    let next = requests.first { $0.value.isRunning && $0.value.beganAt == nil }
                    guard let slot = next?.key else { continue }
                    requests[slot]?.beganAt = now
                    _ = machine.began(slot, at: now)
                default: machine.ticked(at: now, actions: &actions)
                }
                try perform()
                try check(machine.requestCount == requests.count, "\(machine.requestCount) requests")
                try check(machine.heldCount == requests.values.count { !$0.isRunning }, "\(machine.heldCount) held")
                let abandoned = requests.values.count { $0.isAbandoned }
                try check(machine.abandonedCount == abandoned, "\(machine.abandonedCount) are abandoned")
                for (handler, limit) in limits.enumerated() {
                    let active = requests.values.count { $0.isRunning && $0.handler == handler }
                    try check(active <= limit ?? .max, "\(active) of function \(handler) run")
                }
                for key in ["a", "b"] {
                    let active = requests.values.count { $0.isRunning && $0.key == key }
                    try check(active <= 1, "\(active) of key \(key) run")
                }
            }
            while let slot = requests.keys.first(where: { requests[$0]?.isRunning == true }) {
                requests[slot] = nil
                _ = machine.finished(slot, actions: &actions)
                try perform()
            }
            try check(requests.isEmpty && machine.requestCount == 0, "requests wait that nothing holds up")
            try check(machine.timerCount == 0, "\(machine.timerCount) timers are left")
        }
    }
}
