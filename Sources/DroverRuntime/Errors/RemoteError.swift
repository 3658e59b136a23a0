// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
public import DroverWire

/// The worker answered with an error: the handler threw, the function is unknown, or the request was refused.
///
/// Every read of a failed handle throws a fresh value of equal content (contract S18).
public struct RemoteError: Error, Hashable, Sendable {
    /// What went wrong on the worker.
    ///
    /// A minor release may add codes: keep a `default` branch.
    public struct Code: Hashable, Sendable, CustomStringConvertible {
        /// The code's name on the wire.
        public let name: String

        package init(name: String) { self.name = name }

        /// The handler threw an error.
        public static let failed = Code(name: "failed")
        /// No handler is registered under the function's name.
        public static let unknownFunction = Code(name: "unknownFunction")
        /// The arguments are not those that the handler takes.
        public static let badArguments = Code(name: "badArguments")
        /// What the handler returned is not of the type that the function is declared with here.
        public static let badResult = Code(name: "badResult")
        /// The arguments, or the result, are over a limit.
        public static let tooLarge = Code(name: "tooLarge")
        /// The worker has as many requests as it takes.
        public static let busy = Code(name: "busy")
        /// The worker shuts down and takes no more requests.
        public static let draining = Code(name: "draining")
        /// The handler was cancelled.
        public static let cancelled = Code(name: "cancelled")
        /// The handler ran until one of its time limits: it was cancelled, or is waited for no more.
        ///
        /// See `TimeLimits`.
        public static let timeLimitExceeded = Code(name: "timeLimitExceeded")
        /// The process that the handler ran in ended before it had an answer: it crashed, exited or was killed.
        public static let crashed = Code(name: "crashed")
        /// Workers died as often as may be while the call was running there: it isn't made again.
        ///
        /// ``RemoteError/attempts`` says how often, ``RemoteError/workers`` where. Only calls that may run more than once end
        /// so; see `ClientConfiguration.maxAttempts`.
        public static let poison = Code(name: "poison")
        /// The request was sent again, may have run, and its answer is held no more.
        public static let indeterminate = Code(name: "indeterminate")
        /// The callback's subscription is over, or its client gone.
        public static let subscriberGone = Code(name: "subscriberGone")
        /// The caller's key doesn't give it the right to do this.
        public static let forbidden = Code(name: "forbidden")
        /// The peer can't do what was asked in this version of the protocol.
        public static let unsupported = Code(name: "unsupported")
        /// A broker reports that the worker with the call was lost; it is unknown whether the call ran.
        ///
        /// Clients see it as a ``ConnectionError``.
        package static let lost = Code(name: "lost")
        /// The worker itself failed.
        public static let `internal` = Code(name: "internal")

        /// The code's name.
        public var description: String { self.name }
    }

    /// The kind of failure, to decide by.
    public var code: Code
    /// The error's type on the worker, such as `ChecksumError`.
    public var type: String
    /// What the error said.
    public var message: String
    /// What the worker added to find the cause: the way the error took, one line each.
    public var trace: String
    /// Whether the same call may succeed if made again, here or on another worker.
    public var isRetryable: Bool
    /// Whether the handler ran.
    public var execution: Execution
    /// How long to wait before the same call is made again, if who answered knows: a broker whose queue is full does.
    public var retryAfter: Duration?
    /// The worker's name.
    public var worker: String
    /// The function that was called.
    public var function: String
    /// The call.
    public var correlationID: CorrelationID

    /// With `poison`: in how many deaths of workers the call may have been running; otherwise 0.
    public var attempts = 0
    /// With `poison`: the names of those workers, the last one last, as far as they are known.
    public var workers: [String] = []

    /// The thrown error itself in MessagePack, if its type is `Codable`; see ``decode(as:)``.
    package var details: [UInt8]?

    /// Creates an error as a worker would answer it.
    ///
    /// - Parameters:
    ///   - code: The kind of failure.
    ///   - type: The error's type on the worker.
    ///   - message: What the error said.
    ///   - trace: The way the error took.
    ///   - isRetryable: Whether the same call may succeed if made again.
    ///   - execution: Whether the handler ran; nil takes what the code says.
    ///   - retryAfter: How long to wait before.
    ///   - worker: The worker's name.
    ///   - function: The function that was called.
    ///   - correlationID: The call.
    public init(
        _ code: Code,
        type: String = "",
        message: String,
        trace: String = "",
        isRetryable: Bool = false,
        execution: Execution? = nil,
        retryAfter: Duration? = nil,
        worker: String = "",
        function: String = "",
        correlationID: CorrelationID = CorrelationID(0)
    ) {
        self.code = code
        self.type = type
        self.message = message
        self.trace = trace
        self.isRetryable = isRetryable
        self.execution = execution ?? code.execution
        self.retryAfter = retryAfter
        self.worker = worker
        self.function = function
        self.correlationID = correlationID
    }

    /// The error that the handler threw, if it is of type `E` and `E` is `Codable` on both sides (contract S21).
    ///
    /// - Parameter type: The error's type.
    /// - Returns: The error, or nil if the handler threw another type.
    public func decode<E: Error & Decodable>(as type: E.Type) -> E? {
        guard self.type == String(describing: E.self), let details else { return nil }
        // A value of another shape under the same name is "not that error", no failure of its own.
        return try? unpackReceived(E.self, from: details)
    }
}

extension RemoteError: CustomStringConvertible {
    /// Type, message, place and code, in one line.
    public var description: String {
        let type = self.type.isEmpty ? "" : "\(self.type): "
        let place = self.worker.isEmpty ? "" : "\(self.function) \(self.correlationID) on \(self.worker): "
        let advice = self.retryAfter.map { "; try again in \(PeopleText.time($0))" } ?? ""
        return "\(type)\(self.message)\(advice) (\(place)\(self.code))"
    }
}
