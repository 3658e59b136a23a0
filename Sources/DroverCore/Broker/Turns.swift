// SPDX-License-Identifier: Apache-2.0

/// How much each tenant has had of one worker, among the calls of one level: start-time fair queueing.
///
/// Each tenant has a number here, its pass, that rises with each call that the worker is sent for it, and with the time that its
/// calls ran there. The one with the lowest goes next. What goes on at other workers changes nothing: a tenant neither owes for
/// what it had there, nor are debts forgotten since others were served there.
struct Turns: Sendable {
    /// The highest pass that was served: nobody who begins to wait has had less.
    private var virtualTime: UInt64 = 0
    /// By the tenants' places.
    private var passes: [UInt64] = []

    /// Who could not be served for long has no claim on all that they missed, but on so many turns.
    private static var slack: UInt64 { 16 }

    /// A call that ran for so many microseconds is worth a turn for each; a call takes no more turns than those of a second.
    private static var microsecondsPerTurn: UInt64 { 100 }
    private static var mostTurns: UInt64 { 10_000 }

    func pass(of tenant: Int) -> UInt64 {
        let own = tenant < self.passes.count ? self.passes[tenant] : 0
        return max(own, self.virtualTime - min(self.virtualTime, Self.slack))
    }

    /// The worker is sent a call of the tenant.
    ///
    /// - Parameters:
    ///   - tenant: Its place.
    ///   - isLowest: Whether nobody who waits for it has a lower pass; if not all were compared, those who weren't keep what they
    ///     are behind, within bounds.
    mutating func serve(_ tenant: Int, isLowest: Bool = true) {
        let pass = self.pass(of: tenant)
        self.virtualTime = max(self.virtualTime, isLowest ? pass : pass - min(pass, Self.mostTurns))
        self.makeRoom(for: tenant)
        self.passes[tenant] = pass + 1
    }

    /// A tenant's call ran for so long.
    mutating func ran(microseconds: UInt64, of tenant: Int) {
        let turns = min(microseconds / Self.microsecondsPerTurn, Self.mostTurns)
        guard turns > 0 else { return }
        self.makeRoom(for: tenant)
        self.passes[tenant] += turns
    }

    /// The places are other tenants' from now on.
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
    /// A worker is sent a call of a tenant with a name, though nobody waited.
    mutating func takeTurn(_ tenant: Int, at worker: Int, level: Int) {
        guard self.tenants[tenant].isNamed else { return }
        self.turns[worker << 3 | level].serve(tenant)
    }

    /// A worker has had a tenant's call for so long.
    ///
    /// Not without keys: there clients take turns by calls.
    mutating func ran(_ call: BrokerCall, at worker: Int, microseconds: UInt64) {
        guard self.tenants[Int(call.tenant)].isNamed else { return }
        self.turns[worker << 3 | Int(call.level)].ran(microseconds: microseconds, of: Int(call.tenant))
    }

    /// Others may get the places of tenants that have had nothing for long.
    mutating func sweepTenants(at now: Instant) {
        let tenants = self.tenants.sweep(at: now)
        guard !tenants.isEmpty else { return }
        for index in self.turns.indices { self.turns[index].forget(tenants) }
    }

    /// A worker is new, or gone: nobody has had anything of it.
    mutating func resetTurns(at worker: Int) {
        for level in 0..<8 {
            let index = worker << 3 | level
            if index < self.turns.count { self.turns[index] = Turns() } else { self.turns.append(Turns()) }
        }
    }
}
