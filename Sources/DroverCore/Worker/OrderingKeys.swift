// SPDX-License-Identifier: Apache-2.0

internal import DequeModule

/// An ordering key and the tenant it belongs to: equal keys of different tenants are unrelated.
struct OrderingKey: Hashable, Sendable {
    /// The tenant; empty where no peer has to prove an access key.
    let scope: String
    let name: String
}

/// Lets jobs of one key start in the order they arrived, one at a time (contract S9).
///
/// A key exists as long as one of its jobs runs or waits.
package struct OrderingKeys<Key: Hashable & Sendable>: Sendable {
    /// Whether a job may start.
    package enum Admission: Equatable, Sendable {
        case start
        case queued
    }

    /// The keys in use, each with the jobs that wait behind the running one.
    private var waiting: [Key: Deque<UInt32>] = [:]

    /// How many keys are in use.
    package var count: Int { self.waiting.count }

    package init() {}

    /// A job of the key arrived.
    package mutating func admit(_ key: Key, _ job: UInt32) -> Admission {
        if self.waiting[key]?.append(job) != nil { return .queued }
        self.waiting[key] = []
        return .start
    }

    /// The key's running job has ended.
    ///
    /// Returns the job that runs now.
    package mutating func finished(_ key: Key) -> UInt32? {
        if let next = self.waiting[key]?.popFirst() { return next }
        self.waiting[key] = nil
        return nil
    }

    /// A waiting job is no longer wanted.
    ///
    /// Returns whether it was waiting.
    @discardableResult
    package mutating func remove(_ key: Key, _ job: UInt32) -> Bool {
        guard let index = self.waiting[key]?.firstIndex(of: job) else { return false }
        self.waiting[key]?.remove(at: index)
        return true
    }
}
