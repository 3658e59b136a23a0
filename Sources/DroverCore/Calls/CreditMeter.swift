// SPDX-License-Identifier: Apache-2.0

/// Measures how long a worker's calls run, and says how many unanswered calls it should have.
///
/// Workers say with an answer how long the handler ran. If one doesn't, the run time is inferred: a call that found a
/// free handler took its run time plus the round trip; a call that waited behind others says nothing by itself, so the
/// interval between answers is used, times the number of handlers. That mistakes a loaded machine for slow handlers, so
/// that the credit falls just when it is needed most; a time that the worker reports is better.
struct CreditMeter: Equatable, Sendable {
    private var run = RunMean()
    private var lastAnswer = Instant(nanoseconds: 0)
    /// How many answers arrived at the same clock reading.
    private var answersAtOnce: UInt64 = 0

    /// The average run time of a call; nil before the first answer.
    var runNanoseconds: UInt64? { self.run.nanoseconds }

    /// A call was answered, and the worker said how long its handler ran.
    mutating func answered(ranNanoseconds: UInt64) { self.run.add(max(1, ranNanoseconds)) }

    /// A call was answered, but the worker didn't say how long its handler ran.
    mutating func answered(sentAt: Instant, wasBehind: Bool, concurrency: Int, at now: Instant) {
        let whole = max(1, now.nanoseconds(since: sentAt))
        if !wasBehind {
            self.run.add(whole)
            self.lastAnswer = now
            self.answersAtOnce = 1
        } else if now == self.lastAnswer {
            self.answersAtOnce += 1
        } else {
            let interval = now.nanoseconds(since: self.lastAnswer) / max(1, self.answersAtOnce)
            self.run.add(min(whole, max(1, interval.multipliedReportingOverflow(by: UInt64(concurrency)).partialValue)))
            self.lastAnswer = now
            self.answersAtOnce = 1
        }
    }

    /// Nothing was answered for this long although calls wait.
    mutating func stalled(nanoseconds: UInt64) {
        self.run.raise(to: nanoseconds)
    }

    /// How many calls keep the worker busy for the coverage time, including one per handler.
    func credit(concurrency: Int, coverageNanoseconds: UInt64) -> Int {
        guard let run = self.run.nanoseconds else { return concurrency }
        return concurrency + Int(clamping: coverageNanoseconds / max(1, run / UInt64(concurrency)))
    }
}

/// The average run time of calls, which follows slower calls quickly, by half, and faster ones gradually.
///
/// If it is too long, workers wait, which costs some speed; if it is too short, calls wait behind others.
struct RunMean: Equatable, Sendable {
    /// The average; nil before the first sample.
    private(set) var nanoseconds: UInt64?

    mutating func add(_ sample: UInt64) {
        guard let mean = self.nanoseconds else { return self.nanoseconds = sample }
        self.nanoseconds = sample > mean ? mean + (sample - mean) / 2 : mean - (mean - sample) / 8
    }

    /// Raises the average to at least this long.
    mutating func raise(to nanoseconds: UInt64) { self.nanoseconds = max(self.nanoseconds ?? 0, nanoseconds) }
}
