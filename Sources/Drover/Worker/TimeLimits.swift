// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverZMQ

/// How long a handler may run; what its call waited before doesn't count.
///
/// What is nil sets no limit. Limits are kept to the millisecond; a handler that is usually done in microseconds may be some
/// five milliseconds over its limit before anybody looks.
public struct TimeLimits: Hashable, Sendable {
    /// A handler that runs so long is cancelled, as if its caller had asked for it: its context is cancelled, its task if it
    /// is asynchronous, its process if it is isolated.
    ///
    /// If it ends with a `CancellationError` then, its caller gets a `RemoteError` with
    /// `RemoteError.Code.timeLimitExceeded`; a value that it returns nevertheless counts.
    public var soft: Duration?
    /// When a handler has run so long, its caller gets that error whatever the handler does.
    ///
    /// An isolated handler's process is killed. Any other handler keeps its thread until it returns, and nobody gets its
    /// result; `WorkerStatus.stuck` counts those.
    public var hard: Duration?

    /// No limits.
    public static let unlimited = TimeLimits()

    /// Creates limits.
    ///
    /// - Parameters:
    ///   - soft: When the handler is cancelled; at most as long as the hard limit.
    ///   - hard: When its call is answered without it.
    public init(soft: Duration? = nil, hard: Duration? = nil) {
        self.soft = soft
        self.hard = hard
    }

    var isUnlimited: Bool { self == .unlimited }

    var limits: RunLimits {
        RunLimits(
            softNanoseconds: self.soft?.clampedNanoseconds,
            hardNanoseconds: self.hard?.clampedNanoseconds
        )
    }

    /// Why these can't be limits; nil if they can.
    var problem: String? {
        if let soft, soft <= .zero {
            return "the soft limit is \(soft): make it longer than zero, or nil for no limit"
        }
        if let hard, hard <= .zero {
            return "the hard limit is \(hard): make it longer than zero, or nil for no limit"
        }
        if let soft, let hard, soft > hard {
            return "the soft limit (\(soft)) is longer than the hard one (\(hard)) and would never come: shorten it"
        }
        return nil
    }
}
