// SPDX-License-Identifier: Apache-2.0

internal import DequeModule

/// An ordering key, and whose it is: equal keys of different tenants have nothing to do with each other.
struct OrderingKey: Hashable, Sendable {
    /// The tenant; empty where nobody has to prove a key.
    let scope: String
    let name: String
}

/// Lets jobs of one key start in the order they came, one at a time (contract S9).
///
/// A key exists as long as a job of it runs or waits.
package struct OrderingKeys<Key: Hashable & Sendable>: Sendable {
    /// Whether a job may start.
    package enum Admission: Equatable, Sendable {
        case start
        case queued
    }

    /// Keys in use, each with the jobs that wait behind the one that runs.
    private var waiting: [Key: Deque<UInt32>] = [:]

    /// Keys in use.
    package var count: Int { self.waiting.count }

    package init() {}

    /// A job of the key came.
    package mutating func admit(_ key: Key, _ job: UInt32) -> Admission {
        if self.waiting[key]?.append(job) != nil { return .queued }
        self.waiting[key] = []
        return .start
    }

    /// The job of the key that ran has ended.
    ///
    /// Returns the one that runs now.
    package mutating func finished(_ key: Key) -> UInt32? {
        if let next = self.waiting[key]?.popFirst() { return next }
        self.waiting[key] = nil
        return nil
    }

    /// A job that waits is wanted no longer.
    ///
    /// Returns whether it waited.
    @discardableResult
    package mutating func remove(_ key: Key, _ job: UInt32) -> Bool {
        guard let index = self.waiting[key]?.firstIndex(of: job) else { return false }
        self.waiting[key]?.remove(at: index)
        return true
    }
}
