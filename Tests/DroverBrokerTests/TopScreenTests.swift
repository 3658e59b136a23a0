// SPDX-License-Identifier: Apache-2.0

import DroverBroker
import Testing

@testable import DroverTool

@Suite("The screen of drover top")
struct TopScreenTests {
    private func snapshot(uptime: Double, answered: Int, workers count: Int = 2, queues: Int = 1) -> TopSnapshot {
        var status = BrokerStatus()
        status.broker = "tested"
        status.uptime = uptime
        (status.workers, status.slots, status.clients) = (count, 4 * count, 3)
        (status.queued, status.sent) = (12_345, 6)
        (status.received, status.answered) = (answered + 100, answered)
        let workers = (0..<count)
            .map { number in
                var worker = BrokerWorkerStatus()
                (worker.name, worker.id, worker.state) = ("worker \(number)", "\(number)", .ready)
                (worker.concurrency, worker.calls, worker.credit, worker.answered) = (4, 3, 16, answered / count)
                return worker
            }
        let routes = (0..<queues)
            .map { number in
                var queue = BrokerQueueStatus()
                (queue.function, queue.waiting, queue.workers) = ("function \(number)", number, count)
                return queue
            }
        return TopSnapshot(status: status, workers: workers, queues: routes)
    }

    @Test("rates are what was counted between two looks, and are unknown before and after a restart")
    func rates() {
        var screen = TopScreen(address: "tcp://broker:5570")
        screen.take(self.snapshot(uptime: 10, answered: 1000), after: 0)
        #expect(screen.lines(width: 80, height: 24)[2].contains("in -/s   out -/s"))
        screen.take(self.snapshot(uptime: 12, answered: 5000), after: 2)
        let lines = screen.lines(width: 80, height: 24)
        #expect(lines[0].hasPrefix("drover top: tested at tcp://broker:5570") && lines[0].hasSuffix("up 12 s"))
        #expect(lines[1].contains("slots    6 of 8 [##################......]"))
        #expect(lines[2].contains("12,345 waiting") && lines[2].contains("out 2,000/s"))
        #expect(lines.contains { $0.hasPrefix("worker 0") && $0.contains("[########..]") && $0.hasSuffix("1,000") })
        screen.take(self.snapshot(uptime: 1, answered: 10), after: 2)
        #expect(screen.lines(width: 80, height: 24)[2].contains("in -/s   out -/s"))
    }

    @Test(
        "everything fits the window, whatever its size, and says how much it leaves out",
        arguments: [
            (80, 24), (40, 12), (20, 8), (200, 60),
        ]
    )
    func size(width: Int, height: Int) {
        var screen = TopScreen(address: "tcp://broker:5570")
        #expect(screen.lines(width: width, height: height).count <= height)
        screen.take(self.snapshot(uptime: 10, answered: 1000, workers: 100, queues: 100), after: 0)
        screen.problem = "no answer within 5 s"
        let lines = screen.lines(width: width, height: height)
        #expect(lines.count <= height)
        #expect(lines.allSatisfy { $0.count <= width })
        guard height >= 12 else { return }
        #expect(lines.contains { $0.contains("no answer") })
        let left = lines.filter { $0.hasPrefix("and ") && $0.hasSuffix(" more") }
        #expect(left.count == 2, "\(lines)")
        let shown = lines.filter { $0.hasPrefix("worker ") }.count
        #expect(left.first == "and \(100 - shown) more")
    }

    @Test("an idle broker has a screen too")
    func idle() {
        var screen = TopScreen(address: "tcp://broker:5570")
        screen.take(self.snapshot(uptime: 10, answered: 0, workers: 0, queues: 0), after: 0)
        let lines = screen.lines(width: 80, height: 24)
        #expect(lines.contains("no workers") && lines.contains("nothing was called yet"))
        #expect(lines[1].contains("0 of 0 [........................]"))
    }

    @Test("numbers have their thousands apart")
    func numbers() {
        #expect(TopScreen.number(0) == "0" && TopScreen.number(999) == "999" && TopScreen.number(1000) == "1,000")
        #expect(TopScreen.number(1_234_567) == "1,234,567")
        #expect(TopScreen.number(0.5) == "0.5" && TopScreen.number(3.0) == "3" && TopScreen.number(1234.4) == "1,234")
    }

    @Test("no number of a peer's ends the tool")
    func anyNumbers() {
        for number in [Double.infinity, -.infinity, .nan, .greatestFiniteMagnitude, -1, 0] {
            #expect(!StatusCommand.span(number).isEmpty)
            #expect(!TopScreen.number(number).isEmpty)
        }
        for number in [Int.max, .min, -1, 0, 1] {
            #expect(!StatusCommand.size(number).isEmpty)
            #expect(TopScreen.bar(number, of: .max, width: 10).count == 12)
            #expect(TopScreen.bar(.max, of: number, width: 10).count == 12)
        }
    }
}
