// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Drover
import DroverBroker
import Foundation

/// `drover workers`: shows a broker's workers, and gives them orders.
struct WorkersCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "workers",
        abstract: "List a broker's workers, or tell them to be quiet, to resume or to stop.",
        discussion: """
            A worker is named by its name, which several may share, or by its identity, which --json shows:

              drover workers
              drover workers quiet alpha beta
              drover workers stop alpha --grace 60
            """,
        subcommands: [
            WorkersListCommand.self, WorkersQuietCommand.self, WorkersResumeCommand.self, WorkersStopCommand.self,
        ],
        defaultSubcommand: WorkersListCommand.self
    )
}

/// `drover workers list`.
struct WorkersListCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "List the workers: state, calls, credit, and what they serve.",
        discussion: """
            SEEN says how long ago the worker was heard. One that is heard no more keeps its state until the broker has given it \
            up, six seconds after that unless it was told another time.
            """
    )

    @OptionGroup var options: AskOptions

    func run() async throws {
        let workers = try await self.options.value(of: .brokerWorkers)
        if self.options.json { return try printJSON(workers) }
        guard !workers.isEmpty else { return print("no workers") }
        var table = Table([
            .init(title: "NAME"), .init(title: "STATE"), .init(title: "SEEN", isNumber: true),
            .init(title: "CALLS", isNumber: true),
            .init(title: "CREDIT", isNumber: true), .init(title: "SLOTS", isNumber: true), .init(title: "QUEUES"),
            .init(title: "LABELS"), .init(title: "FUNCTIONS"),
        ])
        for worker in workers {
            let labels = listed(worker.labels, worker.resources)
            table.add([
                worker.name, Self.state(of: worker), worker.secondsSilent.map { Self.ago($0) } ?? "-",
                "\(worker.calls)", "\(worker.credit)", "\(worker.concurrency)",
                worker.queues.map { $0.isEmpty ? "-" : $0 }.joined(separator: ","),
                labels, shortened(worker.functions),
            ])
        }
        print(table.lines.joined(separator: "\n"))
        if let leftOut = workers.last?.leftOut { print("and \(leftOut) more") }
    }

    private static func state(of worker: BrokerWorkerStatus) -> String {
        guard let stuck = worker.stuck, stuck > 0 else { return worker.state.rawValue }
        return "\(worker.state.rawValue), \(stuck) stuck"
    }

    /// How long ago something was.
    private static func ago(_ seconds: Double) -> String {
        seconds < 60 ? String(format: "%.1f s ago", seconds) : "\(StatusCommand.span(seconds)) ago"
    }

    private func shortened(_ names: [String]) -> String {
        names.count <= 4
            ? names.joined(separator: ",") : names.prefix(3).joined(separator: ",") + " and \(names.count - 3) more"
    }
}

/// The options shared by all orders.
struct OrderOptions: ParsableArguments {
    @OptionGroup var options: AskOptions

    @Argument(help: "Names or identities of workers.")
    var workers: [String]

    /// An order and the workers that were given it, as written in JSON.
    private struct Line: Encodable {
        let worker: String
        let order: WorkerOrder
        let told: [String]
    }

    /// Gives the workers an order, and fails if there is none with one of the names.
    func tell(_ order: WorkerOrder, grace: Double = 0) async throws {
        var lines: [Line] = []
        try await self.options.ask { client in
            let expiry = CallOptions(expiry: .seconds(self.options.timeout))
            for worker in self.workers {
                let told = try await client.function(.brokerOrder, options: expiry)(worker, order, grace)
                lines.append(Line(worker: worker, order: order, told: told))
            }
        }
        if self.options.json { try printJSON(lines) }
        let unknown = lines.filter { $0.told.isEmpty }.map { $0.worker }
        if !self.options.json {
            for line in lines where !line.told.isEmpty {
                let count = line.told.count == 1 ? "" : " (\(line.told.count) workers)"
                printLine("\(line.worker) was told to \(order == .quiet ? "be quiet" : order.rawValue)\(count)")
            }
        }
        guard unknown.isEmpty else {
            throw Failure("no worker is called \(unknown.joined(separator: ", ")): `drover workers` lists them")
        }
    }
}

/// `drover workers quiet`.
struct WorkersQuietCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "quiet",
        abstract: "Tell workers to take no new calls, and finish those that they have."
    )

    @OptionGroup var order: OrderOptions

    func run() async throws { try await self.order.tell(.quiet) }
}

/// `drover workers resume`.
struct WorkersResumeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "resume",
        abstract: "Tell workers that were quiet to take calls again."
    )

    @OptionGroup var order: OrderOptions

    func run() async throws { try await self.order.tell(.resume) }
}

/// `drover workers stop`.
struct WorkersStopCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stop",
        abstract: "Tell workers to finish what they have, and leave."
    )

    @OptionGroup var order: OrderOptions

    @Option(parsing: .unconditional, help: "How many seconds what they have may take; then it is cancelled.")
    var grace = 30.0

    func validate() throws {
        try checkSeconds(self.grace, "--grace")
        guard self.grace >= 0 else { throw ValidationError("grace can't be negative") }
    }

    func run() async throws { try await self.order.tell(.stop, grace: self.grace) }
}
