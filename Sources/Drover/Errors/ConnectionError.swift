// SPDX-License-Identifier: Apache-2.0

/// The connection failed; whether the work was done is unknown.
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
        /// The address can't be listened at or dialled: another process listens there, or it isn't one of this machine.
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

    /// Creates an error.
    ///
    /// - Parameters:
    ///   - code: The kind of failure.
    ///   - message: What happened and what to do about it.
    ///   - cause: The error that caused this one.
    public init(_ code: Code, message: String, cause: (any Error)? = nil) {
        self.code = code
        self.message = message
        self.cause = cause
    }
}

extension ConnectionError: CustomStringConvertible {
    /// The code, the message and the cause, unless the message names it, in one line.
    public var description: String {
        let text = "connection \(self.code): \(self.message)"
        guard let cause = self.cause.map({ "\($0)" }), !self.message.contains(cause) else { return text }
        return "\(text) (\(cause))"
    }
}
