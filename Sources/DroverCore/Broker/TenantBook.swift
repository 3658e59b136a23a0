// SPDX-License-Identifier: Apache-2.0

/// Something that a tenant may have only so much of.
package enum QuotaKind: String, Equatable, Sendable, CaseIterable {
    case clients, workers, calls, bytes, routes, rate
}

/// Whose a session is, and how much they may use.
package struct TenantClaim: Equatable, Sendable {
    package var name: String
    package var quotas: Quotas

    package init(name: String, quotas: Quotas = Quotas()) {
        self.name = name
        self.quotas = quotas
    }
}

/// Who uses how much of a broker.
///
/// Sessions of one tenant share quotas, ordering keys and one fair share of the workers. With keys a tenant is the key's
/// principal, or a group that the allow-list names. Without keys nobody can tell who belongs together: each client's session is a
/// tenant of its own, and ordering keys and priorities hold between all.
///
/// Tenants are known by their places here, so that no call looks a name up.
package struct TenantBook: Sendable {
    /// What all tenants together may have, and what one may unless it says otherwise itself.
    package struct Limits: Equatable, Sendable {
        package var clients = 4096
        package var workers = 4096
        package var calls = Int.max
        package var bytes = 2 << 30
        package var routes = 1 << 14
        /// What the routes' demands may take; a quarter of it those of one tenant.
        package var routeBytes = 64 << 20
        package var names = 1 << 16
        /// So many sessions, routes and names a tenant may have though others have filled the table.
        package var share = 16
        /// What one tenant may have of all that; nil for the usual part.
        package var each = Quotas()

        package init() {}
    }

    /// What a tenant has.
    package struct Usage: Equatable, Sendable {
        package var clients = 0
        package var workers = 0
        package var calls = 0
        package var bytes = 0
        package var routes = 0
        package var routeBytes = 0
        package var names = 0
        /// Places in the heaps of calls that wait.
        var bands = 0

        package init() {}

        fileprivate var isNothing: Bool { self == Usage() }
    }

    struct Tenant: Sendable {
        /// Empty for a client's session without keys.
        let name: String
        /// Others know it by a name; if not, it is a client's session without keys.
        let isNamed: Bool
        var quotas: Resolved
        var used = Usage()
        /// Rises with each call that was sent for it out of a queue.
        ///
        /// Only without keys: named ones take turns at each worker (``Turns``).
        var pass: UInt64
        /// The pass of its client that was served last.
        var virtualTime: UInt64 = 0
        /// Its bands by route and level.
        var bands: [Int: Int] = [:]
        var allowance: Allowance?
        /// How often it was refused for a quota.
        var refusals = 0
        /// It has nothing left, and is kept for a moment.
        var isResting = false
        /// Since when, as far as that was seen.
        var restsSince: Instant?
    }

    /// A tenant's quotas, with nothing left to look up.
    struct Resolved: Equatable, Sendable {
        var clients: Int
        var workers: Int
        var calls: Int
        var bytes: Int
        var routes: Int
        var rate: Int
        var level: UInt8
    }

    package let limits: Limits
    private(set) var tenants: [Tenant] = []
    private var free: [Int] = []
    private var places: [String: Int] = [:]
    /// Tenants without anything, in the order in which they lost it.
    private var resting: [Int] = []
    /// How many of them have a time since when.
    private var datedCount = 0
    package private(set) var total = Usage()

    package init(limits: Limits) { self.limits = limits }

    /// How many tenants there are that have something.
    package var count: Int { self.tenants.count - self.free.count - self.resting.count }

    /// How many have a place, those included that rest.
    package var placeCount: Int { self.tenants.count - self.free.count }

    package subscript(used tenant: Int) -> Usage { self.tenants[tenant].used }
    package func name(of tenant: Int) -> String { self.tenants[tenant].name }
    package func refusals(of tenant: Int) -> Int { self.tenants[tenant].refusals }

    subscript(tenant: Int) -> Tenant {
        _read { yield self.tenants[tenant] }
        _modify { yield &self.tenants[tenant] }
    }

    /// The place of a tenant; it keeps it while it has something.
    ///
    /// - Parameters:
    ///   - claim: Whose session it is; nil makes a tenant of the session alone.
    ///   - virtualTime: Where its turns begin.
    ///   - now: The time.
    /// - Returns: The place.
    package mutating func place(of claim: TenantClaim?, virtualTime: UInt64 = 0, at now: Instant) -> Int {
        if let claim, let place = self.places[claim.name] {
            self.wake(place)
            self.change(place, to: claim.quotas, at: now)
            return place
        }
        let quotas = self.resolved(claim)
        let tenant = Tenant(
            name: claim?.name ?? "",
            isNamed: claim.map { !$0.name.isEmpty } ?? false,
            quotas: quotas,
            pass: virtualTime,
            allowance: quotas.rate > 0 ? Allowance(perSecond: quotas.rate, at: now) : nil
        )
        let place = self.free.popLast() ?? self.tenants.count
        if place == self.tenants.count { self.tenants.append(tenant) } else { self.tenants[place] = tenant }
        if let claim { self.places[claim.name] = place }
        return place
    }

    /// Another allow-list is in force.
    package mutating func change(_ place: Int, to quotas: Quotas, at now: Instant) {
        let former = self.tenants[place].quotas
        let resolved = self.resolved(TenantClaim(name: self.tenants[place].name, quotas: quotas))
        guard resolved != former else { return }
        self.tenants[place].quotas = resolved
        guard resolved.rate != former.rate else { return }
        if resolved.rate > 0, self.tenants[place].allowance != nil {
            // What is used up stays so: keys of one tenant may say different rates.
            self.tenants[place].allowance?.change(perSecond: resolved.rate, at: now)
        } else {
            self.tenants[place].allowance = resolved.rate > 0 ? Allowance(perSecond: resolved.rate, at: now) : nil
        }
    }

    private func resolved(_ claim: TenantClaim?) -> Resolved {
        let limits = self.limits
        let highest = Int(FairQueue.highestPriority)
        // A session has the broker's limits for one client; nobody else could take a larger share.
        let quotas = claim.map { $0.quotas.filled(from: limits.each) } ?? Quotas()
        let priority = claim == nil ? highest : quotas.priority ?? Int(FairQueue.standardPriority)
        return Resolved(
            clients: quotas.clients ?? Self.half(limits.clients),
            workers: quotas.workers ?? Self.half(limits.workers),
            calls: quotas.calls ?? limits.calls,
            bytes: quotas.bytes ?? limits.bytes / 2,
            routes: quotas.routes ?? max(limits.share, limits.routes / 4),
            rate: quotas.rate ?? 0,
            level: UInt8(clamping: min(max(0, priority), highest))
        )
    }

    /// Half of a table, unless that is too small to be shared.
    private static func half(_ limit: Int) -> Int { limit < 64 ? limit : limit / 2 }

    /// What a tenant has in any case of a table of sessions.
    func share(of limit: Int) -> Int { min(self.limits.share, max(1, limit / 64)) }

    /// A tenant that has nothing left is forgotten: one with a name not before it has rested, or a session that ends and begins
    /// again would have all of its rate again, and owe no turns.
    private mutating func forgetIfIdle(_ place: Int) {
        guard self.tenants[place].used.isNothing, !self.tenants[place].isResting else { return }
        guard self.tenants[place].isNamed else { return self.forget(place) }
        self.tenants[place].isResting = true
        self.resting.append(place)
    }

    private mutating func forget(_ place: Int) {
        let name = self.tenants[place].name
        if !name.isEmpty { self.places[name] = nil }
        self.tenants[place].bands = [:]
        self.free.append(place)
    }

    /// After so long without anything a tenant's allowance is full again, and others have had the turns that it owed: a call is
    /// worth those of a second at most.
    private static var restNanoseconds: UInt64 { 3_000_000_000 }
    /// How many rest at most.
    private static var maxResting: Int { 4096 }

    /// Forgets the tenants that have rested for long enough.
    ///
    /// - Returns: Their places.
    mutating func sweep(at now: Instant) -> [Int] {
        while self.datedCount < self.resting.count {
            self.tenants[self.resting[self.datedCount]].restsSince = now
            self.datedCount += 1
        }
        var count = max(0, self.resting.count - Self.maxResting)
        while count < self.resting.count,
            let since = self.tenants[self.resting[count]].restsSince,
            now.nanoseconds(since: since) >= Self.restNanoseconds
        {
            count += 1
        }
        guard count > 0 else { return [] }
        let forgotten = Array(self.resting.prefix(count))
        self.resting.removeFirst(count)
        self.datedCount -= count
        for place in forgotten {
            self.tenants[place].isResting = false
            self.forget(place)
        }
        return forgotten
    }

    /// A tenant that rested has something again.
    private mutating func wake(_ place: Int) {
        guard self.tenants[place].isResting, let index = self.resting.firstIndex(of: place) else { return }
        self.tenants[place].isResting = false
        self.resting.remove(at: index)
        if index < self.datedCount { self.datedCount -= 1 }
    }

    // MARK: What may be

    /// Why a tenant may not have one more session of a client; nil if it may.
    package func refusal(ofClientFor place: Int) -> Refusal? {
        let tenant = self.tenants[place]
        // Sessions are all that there is without keys: they have the whole table.
        let own = tenant.name.isEmpty ? 0 : tenant.used.clients
        if own >= tenant.quotas.clients { return Refusal(.clients, own: own, limit: tenant.quotas.clients) }
        let isFull = self.total.clients >= self.limits.clients
        guard isFull, tenant.name.isEmpty || own >= self.share(of: self.limits.clients) else { return nil }
        return Refusal(nil, own: own, limit: self.limits.clients)
    }

    /// Why a tenant may not have one more session of a worker; nil if it may.
    package func refusal(ofWorkerFor place: Int) -> Refusal? {
        let (own, quota) = (self.tenants[place].used.workers, self.tenants[place].quotas.workers)
        if own >= quota { return Refusal(.workers, own: own, limit: quota) }
        let isFull = self.total.workers >= self.limits.workers
        guard isFull, own >= self.share(of: self.limits.workers) else { return nil }
        return Refusal(nil, own: own, limit: self.limits.workers)
    }

    /// Whether a tenant may have one more route, whose demands take so many bytes.
    func mayAddRoute(_ byteCount: Int, for place: Int) -> Bool {
        let (own, quotas) = (self.tenants[place].used, self.tenants[place].quotas)
        guard own.routes < quotas.routes else { return false }
        // A share is for routes of usual size.
        let fits =
            own.routeBytes + byteCount <= self.limits.routeBytes / 4
            && self.total.routeBytes + byteCount <= self.limits.routeBytes
        let isSmall = own.routeBytes + byteCount <= self.limits.share * Self.usualRouteBytes
        guard fits || isSmall else { return false }
        return own.routes < self.limits.share || self.total.routes < self.limits.routes
    }

    /// What the demands of a usual route take at most; larger ones are forgotten with their last call.
    static var usualRouteBytes: Int { 4096 }

    /// Whether a request's bytes fit: what others have filled keeps nobody out who has little there, which can stretch the table by a
    /// quarter.
    func hasRoom(for count: Int, of place: Int) -> Bool {
        let own = self.tenants[place].used.bytes + count
        guard own <= self.tenants[place].quotas.bytes else { return false }
        return self.total.bytes + count <= self.limits.bytes || own <= self.limits.bytes / (4 * max(16, self.count))
    }

    /// Why a tenant may not make one more call; nil if it may.
    mutating func refusal(ofCallFor place: Int, at now: Instant) -> Refusal? {
        let (own, limit) = (self.tenants[place].used.calls, self.tenants[place].quotas.calls)
        if own >= limit { return Refusal(.calls, own: own, limit: limit) }
        guard self.tenants[place].allowance?.take(at: now) == false else { return nil }
        let wait = self.tenants[place].allowance?.wait ?? 0
        return Refusal(.rate, own: 0, limit: self.tenants[place].quotas.rate, retryAfterMilliseconds: wait)
    }

    // MARK: What is

    /// A tenant has more of something, or less.
    mutating func add(_ count: Int = 1, _ what: WritableKeyPath<Usage, Int>, of place: Int) {
        self.tenants[place].used[keyPath: what] += count
        self.total[keyPath: what] += count
        if count < 0 { self.forgetIfIdle(place) }
    }

    /// A call came, or has ended; on the way of every call.
    mutating func callCame(_ byteCount: Int, of place: Int) {
        self.tenants[place].used.calls &+= 1
        self.tenants[place].used.bytes &+= byteCount
        self.total.calls &+= 1
        self.total.bytes &+= byteCount
    }

    mutating func callEnded(_ byteCount: Int, of place: Int) {
        self.tenants[place].used.calls &-= 1
        self.tenants[place].used.bytes &-= byteCount
        self.total.calls &-= 1
        self.total.bytes &-= byteCount
        if self.tenants[place].used.clients == 0 { self.forgetIfIdle(place) }
    }

    /// Calls of the tenant wait in one more heap, or in one fewer.
    mutating func band(_ band: Int?, at key: Int, of place: Int) {
        self.tenants[place].bands[key] = band
        self.tenants[place].used.bands += band == nil ? -1 : 1
        if band == nil, self.tenants[place].used.clients == 0 { self.forgetIfIdle(place) }
    }

    /// A session that had a tenant's place was not taken.
    package mutating func letGo(_ place: Int) { self.forgetIfIdle(place) }

    /// Something was refused.
    mutating func refused(_ place: Int) { self.tenants[place].refusals &+= 1 }
}

/// What a tenant, or all of them, may not have more of.
package struct Refusal: Equatable, Sendable {
    /// It isn't a setting that says so, but how many descriptors there are.
    package var isForDescriptors = false
    /// The quota that is used up; nil if it is the table for all.
    package var quota: QuotaKind?
    package var own: Int
    package var limit: Int
    package var retryAfterMilliseconds: UInt32

    init(_ quota: QuotaKind?, own: Int, limit: Int, retryAfterMilliseconds: UInt32 = 1000) {
        self.quota = quota
        self.own = own
        self.limit = limit
        self.retryAfterMilliseconds = retryAfterMilliseconds
    }
}
