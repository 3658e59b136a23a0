// SPDX-License-Identifier: Apache-2.0

/// How loaded a worker is: the payload of its answer to a ping (contract S92).
public struct WorkerStatus: Hashable, Codable, Sendable {
    /// The worker's name.
    public var worker = ""
    /// Handlers that run.
    public var running = 0
    /// Requests that wait.
    public var queued = 0
    /// How many handlers may run at once.
    public var concurrency = 0
    /// Clients with a session.
    public var clients = 0
    /// Requests that came.
    public var received = 0
    /// Requests that were answered, with a value or an error.
    public var completed = 0
    /// Requests answered with an error.
    public var failed = 0
    /// Requests that were dropped before they started, since nobody wanted them any more.
    public var dropped = 0
    /// Whether the worker takes no new requests.
    public var isDraining = false

    /// Creates the status of an idle worker.
    public init() {}
}
