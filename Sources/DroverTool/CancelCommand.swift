// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Drover
import DroverBroker

/// `drover cancel`: cancels a client's call.
struct CancelCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cancel",
        abstract: "Cancel a call, whoever made it.",
        discussion: """
            CALL is the call's correlation id, such as 42 or "#42"; see drover why --help. A call that waits ends at \
            once. One that a worker has is asked to stop, and ends when its handler does; a handler that takes no \
            notice runs on to its end.

            The caller gets an error with the code "cancelled". With keys this takes the right "cancel".
            """
    )

    @OptionGroup var options: AskOptions

    @Argument(help: "The correlation id.", transform: CallID.init(reading:))
    var call: CallID

    @Option(help: "The name or identity of the client that made the call; needed if several have one of this id.")
    var client: String?

    func run() async throws {
        let cancelled = try await self.options.ask { client in
            let expiry = CallOptions(expiry: .seconds(self.options.timeout))
            return try await client.function(.brokerCancel, options: expiry)(self.call.number, self.client)
        }
        guard let call = cancelled.first else {
            let owner = self.client.map { " of \($0)" } ?? ""
            let name = "#\(self.call.number)\(owner)"
            throw Failure("the broker has no call \(name): it has ended, or went to another broker")
        }
        if self.options.json { return try printJSON(call) }
        let end = call.worker.map { "\($0) was asked to stop it" } ?? "it waited, and is over"
        printLine("#\(call.call), \(call.function) of \(call.client), is cancelled: \(end)")
    }
}

/// A correlation id as people write it: 42, or #42 as in errors and logs.
struct CallID {
    let number: UInt64

    /// - Throws: `ValidationError` if it isn't a number.
    init(reading argument: String) throws {
        guard let number = UInt64(argument.hasPrefix("#") ? String(argument.dropFirst()) : argument) else {
            throw ValidationError(
                "a call is named by its correlation id, such as 42 or \"#42\": \"drover why\" lists them"
            )
        }
        self.number = number
    }
}
