// SPDX-License-Identifier: Apache-2.0

/// How far a batch has come, at one moment.
public struct BatchProgress: Hashable, Sendable {
    /// How many items have ended, failed ones included.
    public internal(set) var done = 0
    /// How many of them failed.
    public internal(set) var failed = 0
    /// How many items there are: what the options or the input said, exactly once the input is at its end; nil if nobody
    /// knows.
    public internal(set) var total: Int?
    /// The time since the batch began; zero before.
    public internal(set) var elapsed: Duration = .zero
    /// How many items end in a second, of late; nil if it is too early to say.
    public internal(set) var rate: Double?
    /// How long the rest will take at this rate; nil if that is unknown.
    public internal(set) var remaining: Duration?
    /// Whether the batch is over, in whatever way.
    public internal(set) var isOver = false

    /// The part that is done, from 0 to 1; nil if the total isn't known.
    public var fraction: Double? {
        self.total.map { $0 > 0 ? Double(self.done) / Double($0) : 1 }
    }
}

/// A batch as others see it while it runs: to show its progress, to cancel it.
public final class BatchHandle: Sendable {
    let inbox: BatchInbox

    init(inbox: BatchInbox) { self.inbox = inbox }

    /// How far the batch has come; costs no I/O.
    public var progress: BatchProgress { self.inbox.progress }

    /// Ends the batch: calls under way are cancelled, and the consumer gets a `CancellationError`.
    public func cancel() { self.inbox.cancel() }
}
