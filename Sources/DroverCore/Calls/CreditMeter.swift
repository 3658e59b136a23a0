// SPDX-License-Identifier: Apache-2.0

/// Measures how long a worker's calls run, and says how many it should have unanswered.
///
/// Workers say with an answer how long the handler ran. Of one that doesn't it is inferred: a call that found a free handler
/// took its run time and the round trip; those that waited behind others say nothing by themselves, there the pace of the
/// answers counts, times the handlers. That takes a machine's load for slow handlers, so that credit sinks when it would be
/// needed most; what is said is better.
struct CreditMeter: Equatable, Sendable {
    private var run = RunMean()
    private var lastAnswer = Instant(nanoseconds: 0)
    /// Answers that came at the same reading of the clock.
    private var answersAtOnce: UInt64 = 0

    /// The run time of a call, on average; nil before the first answer.
    var runNanoseconds: UInt64? { self.run.nanoseconds }

    /// A call was answered, and the worker said how long its handler ran.
    mutating func answered(ranNanoseconds: UInt64) { self.run.add(max(1, ranNanoseconds)) }

    /// A call was answered without a word about its run time.
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

    /// Nothing was answered for so long though calls wait.
    mutating func stalled(nanoseconds: UInt64) {
        self.run.raise(to: nanoseconds)
    }

    /// How many calls cover `coverage`, one per handler included.
    func credit(concurrency: Int, coverageNanoseconds: UInt64) -> Int {
        guard let run = self.run.nanoseconds else { return concurrency }
        return concurrency + Int(clamping: coverageNanoseconds / max(1, run / UInt64(concurrency)))
    }
}

/// How long calls run, on average: slower ones count at once by half, faster ones bit by bit.
///
/// Too long makes workers wait, which costs
/// some speed; too short makes calls wait behind others.
struct RunMean: Equatable, Sendable {
    /// nil before the first.
    private(set) var nanoseconds: UInt64?

    mutating func add(_ sample: UInt64) {
        guard let mean = self.nanoseconds else { return self.nanoseconds = sample }
        self.nanoseconds = sample > mean ? mean + (sample - mean) / 2 : mean - (mean - sample) / 8
    }

    /// It is at least so long.
    mutating func raise(to nanoseconds: UInt64) { self.nanoseconds = max(self.nanoseconds ?? 0, nanoseconds) }
}
