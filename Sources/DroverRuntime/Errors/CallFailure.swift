// SPDX-License-Identifier: Apache-2.0

public import DroverCodec

/// What is known about the work of a call that ended without a result.
public enum Execution: Hashable, Sendable {
    /// Its handler was never started, and will not be.
    case didNotRun
    /// It is unknown whether its handler was started.
    case mayHaveRun
    /// Its handler was started.
    case ran
}

/// An error that a call can end in, with answers to what its caller asks next: whether it ran, and whether to try again.
///
/// ```swift
/// } catch let error as any CallFailure where error.isRetryable && error.execution == .didNotRun {
///     // Making the call again repeats nothing.
/// }
/// ```
///
/// All errors of calls are such: ``RemoteError``, ``AsyncResultTimeout``, ``ConnectionError``, `CancellationError`; and so are
/// ``UsageError`` and `CodecError`, with which nothing was sent, unless a call that is under way couldn't be waited for.
public protocol CallFailure: Error {
    /// Whether the handler ran.
    ///
    /// A call that may run twice can be made again whatever this says; of others only one that did not run.
    var execution: Execution { get }
    /// Whether the same call may succeed if it is made again.
    var isRetryable: Bool { get }
}

extension RemoteError: CallFailure {}

extension ConnectionError: CallFailure {
    /// True for what passes: a peer that is lost or out of reach, too many calls at once.
    public var isRetryable: Bool {
        switch self.code {
        case .lost, .backpressure, .unavailable: true
        default: false
        }
    }
}

extension AsyncResultTimeout: CallFailure {
    /// By how far the call had come, and whether it had been at a worker that is lost since.
    public var execution: Execution {
        switch self.phase {
        case .local: self.mayHaveRun ? .mayHaveRun : .didNotRun
        case .running: .ran
        case .sent, .accepted, .terminal: .mayHaveRun
        }
    }
    /// True: there may be more time, or less to do, the next time.
    public var isRetryable: Bool { true }
}

extension CancellationError: CallFailure {
    /// Unknown: a handler that ran was asked to stop.
    public var execution: Execution { .mayHaveRun }
    /// False: who cancelled a call doesn't want it.
    public var isRetryable: Bool { false }
}

extension UsageError: CallFailure {
    /// Nothing was sent, unless it was the wait for a call that couldn't be: that goes on.
    public var execution: Execution {
        self.code == .notRunning || self.code == .wouldDeadlock ? .mayHaveRun : .didNotRun
    }
    /// False: the program must change.
    public var isRetryable: Bool { false }
}

extension CodecError: CallFailure {
    /// The arguments can't be encoded: nothing was sent.
    public var execution: Execution { .didNotRun }
    /// False: the same arguments can't be encoded the next time either.
    public var isRetryable: Bool { false }
}

extension Execution {
    /// As it travels; see `docs/protocol.md`, section 9.
    package init?(wire number: UInt8?) {
        switch number {
        case 0: self = .didNotRun
        case 1: self = .mayHaveRun
        case 2: self = .ran
        default: return nil
        }
    }

    package var wireNumber: UInt8 {
        switch self {
        case .didNotRun: 0
        case .mayHaveRun: 1
        case .ran: 2
        }
    }
}

extension RemoteError.Code {
    /// What the code alone says of the work.
    package var execution: Execution {
        switch self {
        case .unknownFunction, .badArguments, .busy, .draining, .forbidden, .unsupported: .didNotRun
        case .failed, .timeLimitExceeded, .crashed, .badResult: .ran
        default: .mayHaveRun
        }
    }
}

extension CodecError {
    /// Whether the bytes are MessagePack, and only not of the type that was asked for.
    package var isOfType: Bool {
        switch self.code {
        case .typeMismatch, .missingField, .overflow, .countMismatch, .notDecodable, .unknownCase: true
        default: false
        }
    }
}
