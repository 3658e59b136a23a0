// SPDX-License-Identifier: Apache-2.0

internal import DroverCore

/// How much of a broker with keys one tenant may use: the keys of a principal, or of a group that the allow-list names
/// with `tenant=`.
///
/// Only the tenant that exceeds a quota is refused, with an error that names the quota. The same words in a key's line
/// of the allow-list take precedence over these; `docs/operating/security.md` lists them all. A broker without keys
/// can't tell which clients belong together: there, each client has the broker's per-client limits.
public struct KeyQuotas: Hashable, Sendable {
    /// Clients with a session; nil for half of `maxClients`, all of it below 64, and no more than half of the sessions
    /// that the descriptors allow, or 16.
    public var clients: Int?
    /// Workers with a session; nil for half of `maxWorkers`, all of it below 64, and no more than half of the sessions
    /// that the descriptors allow, or 16.
    public var workers: Int?
    /// Unfinished calls; nil for no limit but those of its clients (`window`) and of all (`maxQueuedCalls`).
    public var calls: Int?
    /// Bytes of the requests of those calls; nil for half of `maxQueuedBytes`.
    public var bytes: Int?
    /// Combinations of function, queue, labels and resources among waiting or running calls; nil for 4,096.
    public var routes: Int?
    /// Calls per second, sustained, with bursts of twice as many; nil for no limit.
    public var rate: Int?
    /// The highest priority, 0 to 7, that goes ahead of other tenants' calls; nil for 4, the default.
    ///
    /// Higher priorities only go ahead of lower ones of the same tenant.
    public var priority: Int?

    /// Creates the default quotas.
    public init() {}

    var known: Quotas {
        var quotas = Quotas()
        quotas.clients = self.clients
        quotas.workers = self.workers
        quotas.calls = self.calls
        quotas.bytes = self.bytes
        quotas.routes = self.routes
        quotas.rate = self.rate
        quotas.priority = self.priority
        return quotas
    }

    /// What is wrong with the quotas.
    var problem: String? {
        let known = self.known
        for quota in Quotas.columns {
            guard let number = known[keyPath: quota.path] else { continue }
            if number < quota.least { return "quotas.\(quota.name) is \(number); it must be at least \(quota.least)" }
        }
        guard let priority, priority > 7 else { return nil }
        return "quotas.priority is \(priority); it must be 0 to 7"
    }
}
