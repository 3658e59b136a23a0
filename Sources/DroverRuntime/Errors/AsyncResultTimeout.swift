// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
public import DroverWire

/// The caller's deadline passed before an answer came (contract S62).
///
/// It says nothing about the work itself: a request that the worker has not started is dropped there, a running one is
/// asked to stop.
public struct AsyncResultTimeout: Error, Hashable, Sendable {
    /// The function that was called.
    public let function: String
    /// The call.
    public let correlationID: CorrelationID
    /// The limit that was set, counted from where it was set.
    public let limit: Duration
    /// The time from the call to its expiry.
    public let elapsed: Duration
    /// How far the call had come.
    public let phase: CallProgress
    /// What keeps the client from its workers, if the call was still in the client: nobody listens there, or no descriptor is
    /// left for a connection.
    public let problem: String?
    /// Whether a worker that is lost since may have started it.
    package var mayHaveRun = false

    package init(
        function: String,
        correlationID: CorrelationID,
        limit: Duration,
        elapsed: Duration,
        phase: CallProgress,
        problem: String? = nil
    ) {
        self.function = function
        self.correlationID = correlationID
        self.limit = limit
        self.elapsed = elapsed
        self.phase = phase
        self.problem = problem
    }
}

extension AsyncResultTimeout: CustomStringConvertible {
    /// Function, limit, phase and problem, in one line.
    public var description: String {
        "\(self.function) \(self.correlationID) expired after \(PeopleText.time(self.elapsed)) (limit "
            + "\(PeopleText.time(self.limit))); it was \(self.phase)"
            + (self.problem.map { ": \($0)" } ?? "")
    }
}

/// How far a call has come, as far as its client knows (contract S99).
public enum CallProgress: Hashable, Sendable, CustomStringConvertible {
    /// Queued in the client: no worker can take it yet.
    case local
    /// Handed to a connection; the worker has not said that it has it.
    case sent
    /// The named worker has it, and it waits there.
    case accepted(worker: String)
    /// The named worker runs it.
    case running(worker: String)
    /// It has ended.
    case terminal

    /// The phase in words.
    public var description: String {
        switch self {
        case .local: "queued locally, not accepted by any worker"
        case .sent: "sent, not accepted by a worker"
        case .accepted(let worker): "accepted by \(worker)"
        case .running(let worker): "running on \(worker)"
        case .terminal: "ended"
        }
    }
}
