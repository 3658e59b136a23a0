// SPDX-License-Identifier: Apache-2.0

import DroverBroker
import DroverCore
import Foundation

/// A broker's state at one moment, as `drover top` saw it.
struct TopSnapshot: Codable, Sendable {
    var status: BrokerStatus
    var workers: [BrokerWorkerStatus]
    var queues: [BrokerQueueStatus]
}

/// What `drover top` shows: lines of text that fit a screen, made from two snapshots and the time between them.
struct TopScreen {
    let address: String
    private(set) var current: TopSnapshot?
    private var previous: TopSnapshot?
    private var seconds = 0.0
    /// What went wrong at the last query; nil if nothing did.
    var problem: String?

    init(address: String) { self.address = address }

    /// Takes a snapshot made `seconds` after the previous one.
    mutating func take(_ snapshot: TopSnapshot, after seconds: Double) {
        // After a restart all counts start over, so there is nothing to compare with.
        let isSuccessor = (self.current?.status.uptime ?? 0) <= snapshot.status.uptime
        self.previous = isSuccessor ? self.current : nil
        self.current = snapshot
        self.seconds = seconds
        self.problem = nil
    }

    /// The lines, at most `height` of at most `width` characters.
    func lines(width: Int, height: Int) -> [String] {
        guard let current else {
            return [self.title(uptime: nil, width), "", self.problem.map { PeerText.legible($0) } ?? "asking ..."]
                .map { self.cut($0, width) }
        }
        var lines = [self.title(uptime: current.status.uptime, width)]
        lines += self.summary(current.status)
        if let problem { lines.append("! \(PeerText.legible(problem))") }
        // Two headings and two blank lines stand between the lists, which share the remaining lines.
        let room = max(2, height - lines.count - 4)
        let queues = current.queues.sorted { ($0.waiting, $1.function) > ($1.waiting, $0.function) }
        let workerRows = min(current.workers.count, max(room - queues.count, room - room / 2))
        lines += [""] + self.workerTable(current.workers, rows: max(1, workerRows))
        lines += [""] + self.queueTable(queues, rows: max(1, room - max(1, workerRows)))
        return lines.prefix(height).map { self.cut($0, width) }
    }

    /// The rate per second of a count that only grows; nil before there are two snapshots.
    private func rate(_ count: (TopSnapshot) -> Int?) -> Double? {
        guard self.seconds > 0, let current, let previous, let now = count(current), let then = count(previous) else {
            return nil
        }
        return max(0, (Double(now) - Double(then)) / self.seconds)
    }

    private func title(uptime: Double?, _ width: Int) -> String {
        let name = self.current.map { "\(PeerText.legible($0.status.broker)) at \(self.address)" } ?? self.address
        let state = self.current.map { $0.status.isDraining ? "draining" : "up" } ?? ""
        let right = uptime.map { "\(state) \(StatusCommand.span($0))" } ?? ""
        let left = "drover top: \(name)"
        return left + String(repeating: " ", count: max(2, width - left.count - right.count)) + right
    }

    private func summary(_ status: BrokerStatus) -> [String] {
        let busy = min(status.sent, status.slots)
        let incoming = self.rate { $0.status.received }.map { Self.number($0) } ?? "-"
        let outgoing = self.rate { $0.status.answered }.map { Self.number($0) } ?? "-"
        return [
            "slots    \(busy) of \(status.slots) \(Self.bar(busy, of: status.slots, width: 24))"
                + "   workers \(status.workers)   clients \(status.clients)",
            "calls    \(Self.number(status.queued)) waiting   \(Self.number(status.sent)) at workers"
                + "   in \(incoming)/s   out \(outgoing)/s",
            "trouble  \(status.resent) re-sent   \(status.lost) lost   \(status.refused) refused"
                + "   \(status.malformed) malformed   \(status.starved) starved",
        ]
    }

    private func workerTable(_ workers: [BrokerWorkerStatus], rows: Int) -> [String] {
        var table = Table([
            .init(title: "WORKER"), .init(title: "STATE"), .init(title: "BUSY"), .init(title: "CALLS", isNumber: true),
            .init(title: "CREDIT", isNumber: true), .init(title: "SLOTS", isNumber: true),
            .init(title: "DONE/s", isNumber: true),
        ])
        let shown = workers.count > rows ? max(0, rows - 1) : workers.count
        for worker in workers.prefix(shown) {
            let rate = self.rate { snapshot in snapshot.workers.first { $0.id == worker.id }?.answered }
            let busy = min(worker.calls, worker.concurrency)
            table.add([
                String(PeerText.legible(worker.name).prefix(24)), worker.state.rawValue,
                Self.bar(busy, of: worker.concurrency, width: 10),
                Self.number(worker.calls), Self.number(worker.credit), "\(worker.concurrency)",
                rate.map { Self.number($0) } ?? "-",
            ])
        }
        if workers.isEmpty { return [table.lines[0], "no workers"] }
        return table.lines + (shown < workers.count ? ["and \(workers.count - shown) more"] : [])
    }

    private func queueTable(_ queues: [BrokerQueueStatus], rows: Int) -> [String] {
        var table = Table([
            .init(title: "FUNCTION"), .init(title: "QUEUE"), .init(title: "ASKS FOR"),
            .init(title: "WAITING", isNumber: true), .init(title: "WORKERS", isNumber: true),
        ])
        let shown = queues.count > rows ? max(0, rows - 1) : queues.count
        for queue in queues.prefix(shown) {
            table.add([
                String(PeerText.legible(queue.function).prefix(32)), queue.queue.isEmpty ? "-" : queue.queue,
                queue.demands,
                Self.number(queue.waiting), "\(queue.workers)",
            ])
        }
        if queues.isEmpty { return [table.lines[0], "nothing was called yet"] }
        return table.lines + (shown < queues.count ? ["and \(queues.count - shown) more"] : [])
    }

    private func cut(_ line: String, _ width: Int) -> String { String(line.prefix(width)) }

    static func bar(_ part: Int, of whole: Int, width: Int) -> String {
        // A peer may send any number.
        let (part, whole) = (max(0, min(part, 1 << 40)), min(whole, 1 << 40))
        let filled = whole > 0 ? min(width, (part * width + whole - 1) / whole) : 0
        return "[" + String(repeating: "#", count: filled) + String(repeating: ".", count: width - filled) + "]"
    }

    /// A number with its thousands separated; small fractions keep one digit.
    static func number(_ value: Double) -> String {
        value < 10 && value != value.rounded() ? String(format: "%.1f", value) : Self.number(whole(value.rounded()))
    }

    static func number(_ value: Int) -> String {
        var digits = String(value)
        var index = digits.count - 3
        while index > 0 {
            digits.insert(",", at: digits.index(digits.startIndex, offsetBy: index))
            index -= 3
        }
        return digits
    }
}
