// SPDX-License-Identifier: Apache-2.0

/// One line of the table: what is measured, against what, and what it ought to be.
struct Row: Sendable {
    enum Better: String, Encodable {
        case lower, higher
    }

    var name: String
    var unit: String
    var better: Better
    var goals: [Goal]
    /// Whose figure is the yardstick, if there is one.
    var baseline: Side?
    /// Measured once beside the baseline, for the record.
    var alternative: Side?
    /// Whose program the baseline needs, if it isn't ours.
    var needs: Peer?
    /// The entry of ``DroverRows`` that is measured; rows that differ only in the baseline share one.
    var measures: String
    /// Rows that take long are run no more often than this.
    var maxRuns: Int

    init(
        _ name: String,
        unit: String,
        better: Better,
        goals: [Goal],
        baseline: Side? = nil,
        alternative: Side? = nil,
        needs: Peer? = nil,
        measures: String? = nil,
        maxRuns: Int = .max
    ) {
        self.name = name
        self.unit = unit
        self.better = better
        self.goals = goals
        self.baseline = baseline
        self.alternative = alternative
        self.needs = needs
        self.measures = measures ?? name
        self.maxRuns = maxRuns
    }

    /// Drover's side, once it is there.
    var drover: Side? {
        DroverRows.sides[self.measures]
    }
}

/// What one run came to.
struct Measurement: ExpressibleByFloatLiteral {
    var value: Double
    var p99: Double?
    /// What all processes of the run used, starting and warming up included.
    var cpuSeconds: Double?
    /// What the process that matters had of the memory at the end.
    var mebibytes: Double?
    /// How much longer the last part took than the first.
    var growth: Double?

    init(
        _ value: Double,
        p99: Double? = nil,
        cpuSeconds: Double? = nil,
        mebibytes: Double? = nil,
        growth: Double? = nil
    ) {
        self.value = value
        self.p99 = p99
        self.cpuSeconds = cpuSeconds
        self.mebibytes = mebibytes
        self.growth = growth
    }

    init(floatLiteral value: Double) {
        self.init(value)
    }
}

/// Somebody who can be measured; each call of `measure` is one run.
struct Side: Sendable {
    var name: String
    var measure: @Sendable () throws -> Measurement

    init(_ name: String, measure: @escaping @Sendable () throws -> Measurement) {
        self.name = name
        self.measure = measure
    }

    /// A side with one figure.
    static func value(_ name: String, _ run: @escaping @Sendable () throws -> Double) -> Side {
        Side(name) { Measurement(try run()) }
    }

    /// A server and a client that measures against it, fresh processes in each run.
    static func pair(_ name: String, _ pair: ProcessPair) -> Side {
        Side(name) { try pair.measure() }
    }
}

/// What a figure ought to be.
struct Goal: Sendable, CustomStringConvertible {
    enum Subject: String {
        case ratio, value, p99, growth
        case mebibytes = "MiB"
    }

    enum Comparison: String {
        case atMost = "<="
        case atLeast = ">="
        case below = "<"
        case above = ">"
    }

    var subject: Subject
    var comparison: Comparison
    var limit: Double

    init(_ subject: Subject, _ comparison: Comparison, _ limit: Double) {
        self.subject = subject
        self.comparison = comparison
        self.limit = limit
    }

    var description: String {
        let limit = Format.plain(self.limit)
        return
            "\(self.subject.rawValue) \(self.comparison.rawValue) \(limit)\(self.subject == .ratio || self.subject == .growth ? "x" : "")"
    }

    func isMet(by figure: Double) -> Bool {
        switch self.comparison {
        case .atMost: figure <= self.limit
        case .atLeast: figure >= self.limit
        case .below: figure < self.limit
        case .above: figure > self.limit
        }
    }
}
