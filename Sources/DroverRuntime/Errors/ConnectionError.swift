// SPDX-License-Identifier: Apache-2.0

/// The connection failed; ``execution`` says what is known of the work.
public struct ConnectionError: Error, Sendable {
    /// What went wrong.
    ///
    /// A minor release may add codes: keep a `default` branch.
    public struct Code: Hashable, Sendable, CustomStringConvertible {
        private enum Name: String, Sendable {
            case authentication, backpressure, closed, lost, `protocol`, unavailable
        }

        private let name: Name

        /// The peer refused this client's key.
        public static let authentication = Code(name: .authentication)
        /// Too many requests are outstanding.
        public static let backpressure = Code(name: .backpressure)
        /// The client was closed by its own program.
        public static let closed = Code(name: .closed)
        /// The peer fell silent or restarted.
        public static let lost = Code(name: .lost)
        /// The peer sent something that can't be understood.
        public static let `protocol` = Code(name: .protocol)
        /// The address can't be bound or dialed: another process listens there, or it isn't one of this machine's.
        public static let unavailable = Code(name: .unavailable)

        /// The code's name.
        public var description: String { self.name.rawValue }
    }

    /// The kind of failure, to decide by.
    public var code: Code
    /// What happened and what to do about it, for a person.
    public var message: String
    /// The error that caused this one, if any.
    public var cause: (any Error)?
    /// Whether the call's handler ran.
    public var execution: Execution

    /// Creates an error.
    ///
    /// - Parameters:
    ///   - code: The kind of failure.
    ///   - message: What happened and what to do about it.
    ///   - cause: The error that caused this one.
    ///   - execution: Whether the call's handler ran; nil takes what the code says.
    public init(_ code: Code, message: String, cause: (any Error)? = nil, execution: Execution? = nil) {
        self.code = code
        self.message = message
        self.cause = cause
        self.execution = execution ?? (code == .backpressure || code == .unavailable ? .didNotRun : .mayHaveRun)
    }

    /// The same error, of a call that came so far.
    package func of(callIn phase: CallProgress) -> ConnectionError {
        var error = self
        // What never left this process can't have run.
        if phase == .local { error.execution = .didNotRun }
        return error
    }
}

extension ConnectionError: CustomStringConvertible {
    /// The message and the cause, unless the message names it, in one line.
    public var description: String {
        guard let cause = self.cause.map({ "\($0)" }), !self.message.contains(cause) else { return self.message }
        return "\(self.message) (\(cause))"
    }
}
