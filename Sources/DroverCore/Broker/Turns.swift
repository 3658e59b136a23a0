// SPDX-License-Identifier: Apache-2.0

/// How much each tenant has had of one worker, among the calls of one level: start-time fair queueing.
///
/// Each tenant has a number here, its pass, that rises with each of its calls that is sent to the worker, and with the
/// time that its calls run there. The tenant with the lowest pass goes next. What happens at other workers has no
/// effect: a tenant owes nothing here for what it had there, and its debts here aren't forgotten because others were
/// served there.
struct Turns: Sendable {
    /// The highest pass served so far: no tenant that begins to wait counts as having had less.
    private var virtualTime: UInt64 = 0
    /// By the tenants' places.
    private var passes: [UInt64] = []

    /// A tenant that could not be served for a long time has a claim to only this many of the turns it missed.
    private static var slack: UInt64 { 16 }

    /// A call costs one turn for this many microseconds that it ran; no call costs more turns than those of a second.
    private static var microsecondsPerTurn: UInt64 { 100 }
    private static var mostTurns: UInt64 { 10_000 }

    func pass(of tenant: Int) -> UInt64 {
        let own = tenant < self.passes.count ? self.passes[tenant] : 0
        return max(own, self.virtualTime - min(self.virtualTime, Self.slack))
    }

    /// A tenant's call is sent to the worker.
    ///
    /// - Parameters:
    ///   - tenant: The tenant's place.
    ///   - isLowest: Whether no tenant that waits for the worker has a lower pass; if not all were compared, the others
    ///     keep their claim to what they missed, within bounds.
    mutating func serve(_ tenant: Int, isLowest: Bool = true) {
        let pass = self.pass(of: tenant)
        self.virtualTime = max(self.virtualTime, isLowest ? pass : pass - min(pass, Self.mostTurns))
        self.makeRoom(for: tenant)
        self.passes[tenant] = pass + 1
    }

    /// A tenant's call ran for this long.
    mutating func ran(microseconds: UInt64, of tenant: Int) {
        let turns = min(microseconds / Self.microsecondsPerTurn, Self.mostTurns)
        guard turns > 0 else { return }
        self.makeRoom(for: tenant)
        self.passes[tenant] += turns
    }

    /// The places belong to other tenants from now on.
    mutating func forget(_ tenants: [Int]) {
        guard !self.passes.isEmpty else { return }
        for tenant in tenants where tenant < self.passes.count { self.passes[tenant] = 0 }
    }

    private mutating func makeRoom(for tenant: Int) {
        guard tenant >= self.passes.count else { return }
        self.passes.append(contentsOf: repeatElement(0, count: tenant + 1 - self.passes.count))
    }
}

extension BrokerMachine {
    /// A named tenant's call is sent to a worker without having had to wait.
    mutating func takeTurn(_ tenant: Int, at worker: Int, level: Int) {
        guard self.tenants[tenant].isNamed else { return }
        self.turns[worker << 3 | level].serve(tenant)
    }

    /// A worker has had a tenant's call for this long.
    ///
    /// It has no effect without keys: there clients take turns by calls.
    mutating func ran(_ call: BrokerCall, at worker: Int, microseconds: UInt64) {
        guard self.tenants[Int(call.tenant)].isNamed else { return }
        self.turns[worker << 3 | Int(call.level)].ran(microseconds: microseconds, of: Int(call.tenant))
    }

    /// Frees the places of tenants that have had nothing for a while.
    mutating func sweepTenants(at now: Instant) {
        let tenants = self.tenants.sweep(at: now)
        guard !tenants.isEmpty else { return }
        for index in self.turns.indices { self.turns[index].forget(tenants) }
    }

    /// A worker is new, or gone: no tenant has had anything of it.
    mutating func resetTurns(at worker: Int) {
        for level in 0..<8 {
            let index = worker << 3 | level
            if index < self.turns.count { self.turns[index] = Turns() } else { self.turns.append(Turns()) }
        }
    }
}
