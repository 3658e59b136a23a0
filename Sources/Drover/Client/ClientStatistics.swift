// SPDX-License-Identifier: Apache-2.0

internal import DroverRuntime
internal import Synchronization

/// What a client has done and seen so far.
///
/// All counts only rise, save those named `...Now`.
public struct ClientStatistics: Hashable, Sendable {
    /// Calls made.
    public var calls = 0
    /// Calls that ended in a value.
    public var values = 0
    /// Calls that ended in a remote error.
    public var failures = 0
    /// Calls that expired.
    public var expiries = 0
    /// Calls that were cancelled.
    public var cancellations = 0
    /// Calls that were lost.
    public var losses = 0
    /// Calls that were refused for want of room.
    public var refusals = 0
    /// Requests that were sent again after a loss or a reconnection.
    public var resends = 0
    /// Replies that came after their call had ended without them.
    public var lateReplies = 0
    /// Second replies to one call.
    public var duplicateReplies = 0
    /// Replies to unknown calls.
    public var unknownReplies = 0
    /// Frames or messages that could not be understood.
    public var malformedMessages = 0
    /// Messages of a kind that this version does not know.
    public var unknownMessages = 0
    /// Events that came.
    public var events = 0
    /// Events for subscriptions that were over.
    public var strayEvents = 0
    /// Answers of callbacks that were no longer awaited: the worker gave its question up, or its session ended.
    public var strayAnswers = 0
    /// Parts of large messages that came and were not wanted.
    public var partsRefused = 0
    /// Large messages that were announced with more bytes than this client takes.
    public var oversizedMessages = 0
    /// Large messages that were under way in parts when their connection ended, or that their addressee did not take.
    public var abandonedMessages = 0
    /// Sessions with workers that began.
    public var sessions = 0
    /// Workers lost.
    public var disconnections = 0
    /// Calls that have not ended.
    public var outstandingNow = 0
    /// Calls in the poller's table.
    public var tableEntriesNow = 0
    /// Timers in the poller's wheel.
    public var timersNow = 0
    /// Callbacks that workers can reach.
    public var subscriptionsNow = 0
    /// Wrappers made by `async` that are still referenced.
    public var wrappersNow = 0
}

/// The counters behind the statistics.
struct ClientCounters: ~Copyable, Sendable {
    let values = Atomic<Int>(0)
    let failures = Atomic<Int>(0)
    let expiries = Atomic<Int>(0)
    let cancellations = Atomic<Int>(0)
    let losses = Atomic<Int>(0)
    let refusals = Atomic<Int>(0)
    let resends = Atomic<Int>(0)
    let lateReplies = Atomic<Int>(0)
    let duplicateReplies = Atomic<Int>(0)
    let unknownReplies = Atomic<Int>(0)
    let malformedMessages = Atomic<Int>(0)
    let unknownMessages = Atomic<Int>(0)
    let events = Atomic<Int>(0)
    let strayEvents = Atomic<Int>(0)
    let strayAnswers = Atomic<Int>(0)
    let sessions = Atomic<Int>(0)
    let disconnections = Atomic<Int>(0)
    /// Requests that their callers sent while the poller slept.
    let sentByCallers = Atomic<Int>(0)
    let tableEntries = Atomic<Int>(0)
    let timers = Atomic<Int>(0)
    let parts = PartCounters()
}

/// How calls ended since the last count.
struct EndCounts {
    private(set) var values = 0
    private(set) var failures = 0
    private(set) var expiries = 0
    private(set) var cancellations = 0
    private(set) var losses = 0

    var total: Int { self.values + self.failures + self.expiries + self.cancellations + self.losses }

    mutating func count(_ end: AnyAsyncResult.Status) {
        switch end {
        case .pending: break
        case .value: self.values += 1
        case .failed: self.failures += 1
        case .expired: self.expiries += 1
        case .cancelled: self.cancellations += 1
        case .lost: self.losses += 1
        }
    }
}

extension Atomic where Value == Int {
    /// Counts one; the order with other memory doesn't matter to a counter.
    @inline(__always)
    borrowing func count(_ amount: Int = 1) {
        self.add(amount, ordering: .relaxed)
    }

    var current: Int { self.load(ordering: .relaxed) }
}
