// SPDX-License-Identifier: Apache-2.0
import Foundation
import Synchronization

/// How far the work has come: one line that is redrawn on a terminal, a line now and then elsewhere.
struct Progress {
    private let total: Int
    private let started = ContinuousClock.now
    private let isTerminal: Bool
    private let usesColor: Bool
    private var lastShown: ContinuousClock.Instant?

    init(total: Int) {
        let environment = ProcessInfo.processInfo.environment
        self.total = total
        self.isTerminal = isatty(STDOUT_FILENO) == 1 && environment["TERM"] != "dumb"
        self.usesColor = self.isTerminal && environment["NO_COLOR", default: ""].isEmpty
    }

    var elapsed: Double { seconds(ContinuousClock.now - self.started) }

    mutating func show(done: Int, bytes: Int) {
        let now = ContinuousClock.now
        let interval: Duration = self.isTerminal ? .milliseconds(100) : .seconds(2)
        guard now - (self.lastShown ?? self.started) >= interval else { return }
        self.lastShown = now
        let rate = Double(done) / max(self.elapsed, 0.001)
        let left = rate > 0 ? "\(Int((Double(self.total - done) / rate).rounded(.up))) s left" : "starting"
        let text = "\(done)/\(self.total) files, \(size(bytes)), \(Int(rate)) files/s, \(left)"
        if self.isTerminal {
            let filled = self.total == 0 ? 0 : 24 * done / self.total
            let bar = String(repeating: "#", count: filled) + String(repeating: ".", count: 24 - filled)
            let painted = self.usesColor ? "\u{1B}[32m\(bar)\u{1B}[0m" : bar
            self.write("\r\u{1B}[K[\(painted)] \(text)")
        } else {
            self.write("\(text)\n")
        }
    }

    /// A line that stays, above the bar.
    func note(_ line: String) {
        self.clear()
        self.write("\(line)\n")
    }

    /// Takes the bar away.
    func clear() {
        if self.isTerminal { self.write("\r\u{1B}[K") }
    }

    private func write(_ text: String) { FileHandle.standardOutput.write(Data(text.utf8)) }
}

/// Lines that other threads want to be shown above the bar.
final class Notes: Sendable {
    private let lines = Mutex<[String]>([])

    func add(_ line: String) { self.lines.withLock { $0.append(line) } }

    /// The lines since the last time.
    func take() -> [String] {
        self.lines.withLock { lines in
            defer { lines = [] }
            return lines
        }
    }
}

func seconds(_ duration: Duration) -> Double {
    duration / .seconds(1)
}

/// Bytes for people.
func size(_ bytes: Int) -> String {
    bytes < 1_000_000 ? "\(bytes) bytes" : String(format: "%.1f MB", Double(bytes) / 1e6)
}
