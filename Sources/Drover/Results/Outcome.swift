// SPDX-License-Identifier: Apache-2.0

internal import DroverRuntime

/// The outcome of a call: one of five ends, never changed again.
public enum Outcome<Value: Sendable>: Sendable {
    /// The handler returned this value.
    case value(Value)
    /// The worker answered with an error.
    case failed(RemoteError)
    /// The caller's deadline passed first.
    case expired(AsyncResultTimeout)
    /// The call was cancelled.
    case cancelled
    /// The connection was lost or closed, or the answer can't be understood.
    case lost(ConnectionError)

    /// Returns the value.
    ///
    /// - Returns: The value of ``value(_:)``.
    /// - Throws: The error of any other outcome; `CancellationError` for ``cancelled``.
    public func get() throws -> Value {
        switch self {
        case .value(let value): return value
        case .failed(let error): throw error
        case .expired(let error): throw error
        case .cancelled: throw CancellationError()
        case .lost(let error): throw error
        }
    }
}

extension Outcome: Equatable where Value: Equatable {
    /// Whether both are the same end with equal content; connection errors are compared by code and message.
    public static func == (lhs: Self, rhs: Self) -> Bool {
        switch (lhs, rhs) {
        case (.value(let one), .value(let other)): one == other
        case (.failed(let one), .failed(let other)): one == other
        case (.expired(let one), .expired(let other)): one == other
        case (.cancelled, .cancelled): true
        case (.lost(let one), .lost(let other)): one.code == other.code && one.message == other.message
        default: false
        }
    }
}
