// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Drover
import DroverBroker
import Foundation

/// `drover why`: explains what a call is waiting for.
struct WhyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "why",
        abstract: "Tell where calls are and what they wait for.",
        discussion: """
            CALL is the call's correlation id, such as 42 or "#42", as it stands in errors, in logs and in a handle. Ids are \
            unique for each client; if several have such a call, all are shown.

            Without CALL the calls are listed that wait longest, then those that workers have had longest, with their ids.
            """
    )

    @OptionGroup var options: AskOptions

    @Argument(help: "The correlation id.", transform: CallID.init(reading:))
    var call: CallID?

    @Option(help: "Only the calls of the client of this name.")
    var client: String?

    @Option(name: [.long, .short], help: "Without CALL, how many to list of those that wait, and of those at workers.")
    var count = 10

    func validate() throws {
        guard (1...1000).contains(self.count) else { throw ValidationError("count must be 1 to 1000") }
    }

    func run() async throws {
        guard let id = self.call?.number else { return try await self.list() }
        let all = try await self.options.ask { client in
            let expiry = CallOptions(expiry: .seconds(self.options.timeout))
            return try await client.function(.brokerWhy, options: expiry)(id)
        }
        let calls = all.filter { self.client == nil || $0.client == self.client }
        if self.options.json { return try printJSON(calls) }
        guard !calls.isEmpty else {
            throw Failure("the broker has no call #\(id): it has ended, or went to another broker")
        }
        print(calls.map(self.text).joined(separator: "\n\n"))
    }

    /// Lists the calls that have been at the broker longest.
    private func list() async throws {
        let all = try await self.options.ask { client in
            let expiry = CallOptions(expiry: .seconds(self.options.timeout))
            // Only here can it be decided which of them are the client's.
            let count = self.client == nil ? UInt64(self.count) : 1000
            return try await client.function(.brokerCalls, options: expiry)(count)
        }
        let own = all.filter { self.client == nil || $0.client == self.client }
        let (waiting, sent) = (own.filter { $0.state != .sent }, own.filter { $0.state == .sent })
        let calls = waiting.prefix(self.count) + sent.prefix(self.count)
        if self.options.json { return try printJSON(Array(calls)) }
        guard !calls.isEmpty else { return print("the broker has no calls") }
        var table = Table([
            .init(title: "CALL", isNumber: true), .init(title: "CLIENT"), .init(title: "FUNCTION"),
            .init(title: "FOR", isNumber: true), .init(title: "STATE"), .init(title: "WHY"),
        ])
        for call in calls {
            table.add([
                "#\(call.call)", call.client, call.function, call.secondsHere.map { StatusCommand.span($0) } ?? "-",
                call.state.rawValue, call.reason,
            ])
        }
        print(table.lines.joined(separator: "\n"))
    }

    private func text(_ call: BrokerCallStatus) -> String {
        var table = Table([.init(title: "#\(call.call)"), .init(title: "\(call.function) of \(call.client)")])
        table.add(["state", call.state.rawValue])
        table.add(["why", call.reason])
        table.add(["queue", call.queue.isEmpty ? "-" : call.queue])
        table.add(["asks for", listed(call.labels, call.resources)])
        table.add(["priority", "\(call.priority)"])
        if let key = call.orderingKey { table.add(["ordering key", key]) }
        if let here = call.secondsHere { table.add(["here for", StatusCommand.span(here)]) }
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
