// SPDX-License-Identifier: Apache-2.0
import Foundation

/// Compares what the workers found with what `sha256sum` finds, and says what was done.
struct Report {
    private let outcome: WorkOutcome
    private let files: FileList
    private let resends: Int
    /// Files on which the two disagree, or that have no digest for a reason other than being unreadable.
    private let wrong: [String]

    init(_ outcome: WorkOutcome, of files: FileList, resends: Int) throws {
        self.outcome = outcome
        self.files = files
        self.resends = resends
        let expected = try systemDigests(of: files.paths)
        self.wrong = files.paths.compactMap { path in
            if let failure = outcome.failures[path] { return "\(path): \(failure)" }
            if let reason = outcome.unreadable[path] {
                return expected[path] == nil ? nil : "\(reason); but sha256sum can read it"
            }
            let (ours, theirs) = (outcome.digests[path]?.hex, expected[path])
            return ours == theirs ? nil : "\(path): \(ours ?? "no digest"), but sha256sum says \(theirs ?? "nothing")"
        }
    }

    var isGood: Bool { self.wrong.isEmpty && self.outcome.ended == self.files.paths.count }

    func show() {
        let outcome = self.outcome
        for line in self.wrong.prefix(20) { say("wrong: \(line)") }
        for reason in outcome.unreadable.values.sorted().prefix(5) { say("unreadable: \(reason)") }
        for line in self.files.skipped.prefix(5) { say("skipped: \(line)") }

        let rate = Double(outcome.digests.count) / max(outcome.seconds, 0.001)
        say(
            "hashed    \(outcome.digests.count) files, \(size(outcome.bytes)) in "
                + String(format: "%.2f s (%.0f files/s)", outcome.seconds, rate)
        )
        let shares = Dictionary(grouping: outcome.digests.values, by: \.worker).sorted { $0.key < $1.key }
        for (worker, digests) in shares {
            let fate = worker == outcome.killedWorker ? ", then killed" : ""
            say("worker    \(worker): \(digests.count) calls\(fate)")
        }
        // In a pool the broker gives a dead worker's calls to others; the client sends again what a dead broker had.
        let fate =
            outcome.killedBroker.map { "since broker \($0) was killed" }
            ?? outcome.killedWorker.map { "since worker \($0) was killed" } ?? "no worker was killed"
        say("sent again \(self.resends) calls, \(fate)")
        let left = outcome.unreadable.count + self.files.skipped.count
        if left > 0 {
            say("left out  \(outcome.unreadable.count) unreadable files, \(self.files.skipped.count) other entries")
        }
        say("sha256sum \(self.isGood ? "agrees on every file" : "disagrees: \(self.wrong.count) files are wrong")")
    }
}
