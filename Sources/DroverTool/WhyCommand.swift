// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Drover
import DroverBroker
import Foundation

/// `drover why`: what a call waits for.
struct WhyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "why",
        abstract: "Tell where a call is and what it waits for.",
        discussion: """
            CALL is the call's correlation id, such as 42 or "#42", as it stands in errors, in logs and in a handle. Ids are
            unique for each client; if several have such a call, all are shown.
            """
    )

    @OptionGroup var options: AskOptions

    @Argument(help: "The correlation id.")
    var call: CallID

    @Option(help: "Only the calls of the client of this name.")
    var client: String?

    func run() async throws {
        let all = try await self.options.ask { client in
            let expiry = CallOptions(expiry: .seconds(self.options.timeout))
            return try await client.function(.brokerWhy, options: expiry)(self.call.number)
        }
        let calls = all.filter { self.client == nil || $0.client == self.client }
        if self.options.json { return try printJSON(calls) }
        guard !calls.isEmpty else {
            throw Failure("the broker has no call #\(self.call.number): it has ended, or went to another broker")
        }
        print(calls.map(self.text).joined(separator: "\n\n"))
    }

    private func text(_ call: BrokerCallStatus) -> String {
        var table = Table([.init(title: "#\(call.call)"), .init(title: "\(call.function) of \(call.client)")])
        table.add(["state", call.state.rawValue])
        table.add(["why", call.reason])
        table.add(["queue", call.queue.isEmpty ? "-" : call.queue])
        table.add(["asks for", listed(call.labels, call.resources)])
        table.add(["priority", "\(call.priority)"])
        if let key = call.orderingKey { table.add(["ordering key", key]) }
        table.add(["attempts", "\(call.attempts)"])
        if let left = call.secondsLeft { table.add(["time left", String(format: "%.1f s", left)]) }
        guard !call.candidates.isEmpty else { return table.lines.joined(separator: "\n") }
        var workers = Table([.init(title: "WORKER"), .init(title: "WHAT KEEPS IT")])
        for candidate in call.candidates {
            workers.add([candidate.worker, candidate.obstacle.isEmpty ? "nothing" : candidate.obstacle])
        }
        return (table.lines + [""] + workers.lines).joined(separator: "\n")
    }
}
