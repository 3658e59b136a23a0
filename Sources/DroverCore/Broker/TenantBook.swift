// SPDX-License-Identifier: Apache-2.0

/// Something that a tenant may have only a limited amount of.
package enum QuotaKind: String, Equatable, Sendable, CaseIterable {
    case clients, workers, calls, bytes, routes, rate
}

/// How much of a broker each tenant uses.
///
/// Sessions of one tenant share quotas, ordering keys and one fair share of the workers. With access keys, a tenant is
/// the key's principal, or a group that the allow-list names. Without them the broker can't tell which sessions belong
/// together: each client's session is a tenant of its own, and ordering keys and priorities hold across all of them.
///
/// A tenant is referred to by its place in this table, so that no call has to look up a name.
package struct TenantBook: Sendable {
    /// What all tenants may have together, and what each may have unless its own quotas say otherwise.
    package struct Limits: Equatable, Sendable {
        package var clients = 4096
        package var workers = 4096
        package var calls = Int.max
        package var bytes = 2 << 30
        package var routes = 1 << 14
        /// How many bytes the routes' demands may take; those of one tenant may take a quarter of that.
        package var routeBytes = 64 << 20
        package var names = 1 << 16
        /// How many sessions, routes and names a tenant may always have, even when others have filled the table.
        package var share = 16
        /// How much of all that one tenant may have; nil for the usual part.
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
        /// How many places it has in the heaps of waiting calls.
        var bands = 0

        package init() {}

        fileprivate var isNothing: Bool { self == Usage() }
    }

    struct Tenant: Sendable {
        /// Empty for a client's session without keys.
        let name: String
        /// Whether the tenant has a name that others know; if not, it is a client's session without keys.
        let isNamed: Bool
        var quotas: Resolved
        var used = Usage()
        /// Rises with each call of the tenant that is sent from a queue.
        ///
        /// Used only without keys: named tenants take turns at each worker (``Turns``).
        var pass: UInt64
        /// The pass of its most recently served client.
        var virtualTime: UInt64 = 0
        /// Its bands by route and level.
        var bands: [Int: Int] = [:]
        var allowance: Allowance?
        /// How often something was refused because a quota was used up.
        var refusals = 0
        /// Whether it has nothing left, but is kept for a moment.
        var isResting = false
        /// Since when it has been resting, as far as a sweep has noted it.
        var restsSince: Instant?
    }

    /// A tenant's quotas with every default filled in.
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
    /// Tenants that have nothing, in the order in which they came to rest.
    private var resting: [Int] = []
    /// How many of them a sweep has dated.
    private var datedCount = 0
    package private(set) var total = Usage()

    package init(limits: Limits) { self.limits = limits }

    /// How many tenants have something.
    package var count: Int { self.tenants.count - self.free.count - self.resting.count }

    /// How many tenants have a place, resting ones included.
    package var placeCount: Int { self.tenants.count - self.free.count }

    package subscript(used tenant: Int) -> Usage { self.tenants[tenant].used }
    package func name(of tenant: Int) -> String { self.tenants[tenant].name }
    package func refusals(of tenant: Int) -> Int { self.tenants[tenant].refusals }

    subscript(tenant: Int) -> Tenant {
        _read { yield self.tenants[tenant] }
        _modify { yield &self.tenants[tenant] }
    }

    /// The place of a tenant, which keeps it as long as it has something.
    ///
    /// - Parameters:
    ///   - claim: The tenant that the session claims; nil makes the session a tenant of its own.
    ///   - virtualTime: Where the tenant's turns begin.
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

    /// Applies the quotas of a new allow-list to a tenant.
    package mutating func change(_ place: Int, to quotas: Quotas, at now: Instant) {
        let former = self.tenants[place].quotas
        let resolved = self.resolved(TenantClaim(name: self.tenants[place].name, quotas: quotas))
        guard resolved != former else { return }
        self.tenants[place].quotas = resolved
        guard resolved.rate != former.rate else { return }
        if resolved.rate > 0, self.tenants[place].allowance != nil {
            // The allowance that is used up stays used up: keys of one tenant may have different rates.
            self.tenants[place].allowance?.change(perSecond: resolved.rate, at: now)
        } else {
            self.tenants[place].allowance = resolved.rate > 0 ? Allowance(perSecond: resolved.rate, at: now) : nil
        }
    }

    private func resolved(_ claim: TenantClaim?) -> Resolved {
        let limits = self.limits
        let highest = Int(FairQueue.highestPriority)
        // A session without keys has the broker's limits for one client; no other could take a larger share.
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

    /// How many places in a table of sessions a tenant has in any case.
    func share(of limit: Int) -> Int { min(self.limits.share, max(1, limit / 64)) }

    /// Forgets a tenant that has nothing left; a named one only after it has rested, since otherwise a session that
    /// ends and begins again would have its full rate back, and owe no turns.
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

    /// How long a tenant rests: after this long its allowance is full again, and others have had the turns that it
    /// owed, because a call costs the turns of one second at most.
    private static var restNanoseconds: UInt64 { 3_000_000_000 }
    /// How many tenants may rest.
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

    /// Ends the rest of a tenant that has something again.
    private mutating func wake(_ place: Int) {
        guard self.tenants[place].isResting, let index = self.resting.firstIndex(of: place) else { return }
        self.tenants[place].isResting = false
        self.resting.remove(at: index)
        if index < self.datedCount { self.datedCount -= 1 }
    }

    // MARK: Admission

    /// Why a tenant may not have one more session of a client; nil if it may.
    package func refusal(ofClientFor place: Int) -> Refusal? {
        let tenant = self.tenants[place]
        // Without keys there are only single sessions: they share the whole table.
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

    /// Whether a tenant may have one more route, with demands of this many bytes.
    func mayAddRoute(_ byteCount: Int, for place: Int) -> Bool {
        let (own, quotas) = (self.tenants[place].used, self.tenants[place].quotas)
        guard own.routes < quotas.routes else { return false }
        // The share covers routes of usual size.
        let fits =
            own.routeBytes + byteCount <= self.limits.routeBytes / 4
            && self.total.routeBytes + byteCount <= self.limits.routeBytes
        let isSmall = own.routeBytes + byteCount <= self.limits.share * Self.usualRouteBytes
        guard fits || isSmall else { return false }
        return own.routes < self.limits.share || self.total.routes < self.limits.routes
    }

    /// How many bytes the demands of a usual route take at most; larger ones are forgotten with their last call.
    static var usualRouteBytes: Int { 4096 }

    /// Whether a request's bytes fit: a table that others have filled keeps out no tenant that has little in it, which
    /// can stretch the table by a quarter.
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

    // MARK: Accounting

    /// A tenant has more of something, or less.
    mutating func add(_ count: Int = 1, _ what: WritableKeyPath<Usage, Int>, of place: Int) {
        self.tenants[place].used[keyPath: what] += count
        self.total[keyPath: what] += count
        if count < 0 { self.forgetIfIdle(place) }
    }

    /// Counts a call that arrived; like its counterpart, it is on every call's path.
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

    /// Calls of the tenant wait in one more heap, or, with a nil band, in one fewer.
    mutating func band(_ band: Int?, at key: Int, of place: Int) {
        self.tenants[place].bands[key] = band
        self.tenants[place].used.bands += band == nil ? -1 : 1
        if band == nil, self.tenants[place].used.clients == 0 { self.forgetIfIdle(place) }
    }

    /// A session for which a tenant's place was taken was refused.
    package mutating func letGo(_ place: Int) { self.forgetIfIdle(place) }

    /// Counts a refusal.
    mutating func refused(_ place: Int) { self.tenants[place].refusals &+= 1 }
}

/// A limit that a tenant, or all tenants together, have reached.
package struct Refusal: Equatable, Sendable {
    /// Whether the limit is the number of descriptors, not a setting.
    package var isForDescriptors = false
    /// The quota that is used up; nil if the table that all share is full.
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
