// SPDX-License-Identifier: Apache-2.0

internal import DroverWire

/// The program used Drover in a way that can't work; thrown to the caller, never a call's outcome.
public struct UsageError: Error, Hashable, Sendable {
    /// What was wrong.
    ///
    /// A minor release may add codes: keep a `default` branch.
    public struct Code: Hashable, Sendable, CustomStringConvertible {
        private enum Name: String, Sendable {
            case wouldDeadlock, notRunning, notCallable, badConfiguration, outsideHandler, alreadyIterated
            case callbackEnded
        }

        private let name: Name

        /// A blocking wait on the thread that would have to end it.
        public static let wouldDeadlock = Code(name: .wouldDeadlock)
        /// The client's poller is stopped, so nothing can end the wait.
        public static let notRunning = Code(name: .notRunning)
        /// The target is not a remote function.
        public static let notCallable = Code(name: .notCallable)
        /// A setting or an address that can't be used.
        public static let badConfiguration = Code(name: .badConfiguration)
        /// A callback was used where there is no worker that could reach its client.
        public static let outsideHandler = Code(name: .outsideHandler)
        /// A callback that has ended was passed to a call.
        public static let callbackEnded = Code(name: .callbackEnded)
        /// A batch was iterated a second time.
        public static let alreadyIterated = Code(name: .alreadyIterated)

        /// The code's name.
        public var description: String { self.name.rawValue }
    }

    /// The kind of misuse, to decide by.
    public var code: Code
    /// What was wrong and what to do instead.
    public var message: String

    package init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
}

extension UsageError {
    /// A text that can't be a function's name; a long one is cut.
    package static func badName(_ name: String) -> UsageError {
        let shown = name.utf8.count > 80 ? String(name.prefix(60)) + "..." : name
        return UsageError(
            .notCallable,
            "\"\(shown)\" is no function: a name has 1 to \(WireLimits.standard.maxNameBytes) bytes of UTF-8"
        )
    }
}

extension UsageError: CustomStringConvertible {
    /// The message.
    public var description: String { self.message }
}
