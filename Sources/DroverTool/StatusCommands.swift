// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Drover
import DroverBroker
import Foundation

/// `drover status`: shows a broker's state.
struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Show how a broker is: peers, calls that wait and run, what was lost and refused."
    )

    @OptionGroup var options: AskOptions

    func run() async throws {
        let status = try await self.options.value(of: .brokerStatus)
        if self.options.json { return try printJSON(status) }
        var table = Table([.init(title: status.broker), .init(title: self.options.address)])
        let state = status.isDraining ? "draining" : "running"
        table.add(["state", "\(state) for \(Self.span(status.uptime))"])
        table.add(["workers", "\(status.workers) with \(status.slots) slots"])
        table.add(["clients", "\(status.clients)"])
        table.add(["calls", "\(status.queued) waiting, \(status.sent) at workers"])
        if let bytes = status.queuedBytes { table.add(["their requests", Self.size(bytes)]) }
        if let heldUp = status.heldUp, let bytes = status.unreadBytes {
            table.add(["unread", Self.size(bytes) + (heldUp > 0 ? "; calls of \(heldUp) clients wait for that" : "")])
        }
        table.add(["answered", "\(status.answered) of \(status.received)"])
        table.add(["re-sent", "\(status.resent)"])
        table.add(["lost", "\(status.lost)"])
        let overQuota = status.overQuota.map { $0 > 0 ? "; \($0) for a key's quota" : "" } ?? ""
        table.add(["refused", "\(status.refused)\(overQuota)"])
        if let closed = status.closedNewcomers, closed > 0 {
            table.add(["closed", "\(closed) connections that said nothing, for want of descriptors"])
        }
        table.add(["malformed", "\(status.malformed) messages"])
        table.add(["undeliverable", "\(status.undeliverable) messages"])
        if let abandoned = status.abandoned { table.add(["abandoned", "\(abandoned) large messages"]) }
        if let oversized = status.oversized { table.add(["oversized", "\(oversized) messages"]) }
        if let forgotten = status.forgottenNews {
            let answers = status.forgottenAnswers.map { ", \($0) large answers" } ?? ""
            table.add(["forgotten", "\(forgotten) news of callbacks\(answers)"])
        }
        if let refused = status.partsRefused { table.add(["parts refused", "\(refused)"]) }
        table.add(["starved", "\(status.starved) reports"])
        print(table.lines.joined(separator: "\n"))
    }

    /// A number of bytes for people.
    static func size(_ bytes: Int) -> String {
        let bytes = max(0, min(bytes, 1 << 60))
        return bytes < 1 << 20 ? "\((bytes + 1023) >> 10) KiB" : "\((bytes + (1 << 19)) >> 20) MiB"
    }

    /// A time for people.
    static func span(_ seconds: Double) -> String {
        let total = whole(max(0, seconds))
        let (days, hours, minutes) = (total / 86_400, total / 3600 % 24, total / 60 % 60)
        if days > 0 { return "\(days) d \(hours) h" }
        if hours > 0 { return "\(hours) h \(minutes) min" }
        return minutes > 0 ? "\(minutes) min \(total % 60) s" : "\(total) s"
    }
}

/// A number from a peer, which may be anything, without its fraction: the nearest that fits.
func whole(_ number: Double) -> Int {
    guard !number.isNaN else { return 0 }
    return Int(max(-1e15, min(number.rounded(.towardZero), 1e15)))
}

/// `drover queues`: shows what is waiting.
struct QueuesCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "queues",
        abstract: "List what waits at a broker, by function and demands, and how many workers may run it.",
        discussion: """
            OLDEST says for how long the first of the calls has waited; drover why tells what ITS CALL waits for.
            """
    )

    @OptionGroup var options: AskOptions

    func run() async throws {
        let queues = try await self.options.value(of: .brokerQueues)
        if self.options.json { return try printJSON(queues) }
        guard !queues.isEmpty else { return print("nothing was called yet") }
        var table = Table([
            .init(title: "FUNCTION"), .init(title: "QUEUE"), .init(title: "ASKS FOR"),
            .init(title: "WAITING", isNumber: true), .init(title: "OLDEST", isNumber: true),
            .init(title: "ITS CALL", isNumber: true), .init(title: "WORKERS", isNumber: true),
        ])
        for queue in queues {
            table.add([
                queue.function, queue.queue.isEmpty ? "-" : queue.queue, queue.demands, "\(queue.waiting)",
                queue.oldestSeconds.map { StatusCommand.span($0) } ?? "-", queue.oldestCall.map { "#\($0)" } ?? "-",
                "\(queue.workers)",
            ])
        }
        print(table.lines.joined(separator: "\n"))
        if let leftOut = queues.last?.leftOut { print("and \(leftOut) more") }
    }
}

/// `drover ping`: measures the round trip to a broker or a worker.
struct PingCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ping",
        abstract: "Measure the round trip to a broker, or to a worker that listens."
    )

    @OptionGroup var options: AskOptions

    @Option(name: [.long, .short], help: "How many pings.")
    var count = 1

    /// A ping as written in JSON.
    private struct Line: Encodable {
        let address: String
        let name: String
        let milliseconds: Double
    }

    func validate() throws {
        guard self.count > 0 else { throw ValidationError("count must be at least 1") }
    }

    func run() async throws {
        try await self.options.ask { client in
            for _ in 0..<self.count {
                let ping = try await client.ping(timeout: .seconds(self.options.timeout))
                let status = ping.worker
                let time = ping.roundTrip / .milliseconds(1)
                if self.options.json {
                    try printJSON(Line(address: self.options.address, name: status.worker, milliseconds: time))
                } else {
                    printLine("\(status.worker) at \(self.options.address): \(String(format: "%.2f", time)) ms")
                }
            }
        }
    }
}

/// Labels and resources in the form used to ask for them; "-" for none.
func listed(_ labels: [String: String], _ resources: [String: UInt64]) -> String {
    let all =
        labels.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
        + resources.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
    return all.isEmpty ? "-" : all.joined(separator: ",")
}

extension BrokerQueueStatus {
    /// What its calls demand of a worker, in the form used to ask for it.
    var demands: String { listed(self.labels, self.resources) }
}
