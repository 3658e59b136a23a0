// SPDX-License-Identifier: Apache-2.0

import Foundation

/// A field that stands in every record: null where there is nothing to say.
@propertyWrapper
struct Stated<Value: Encodable>: Encodable {
    var wrappedValue: Value?

    func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        if let value = self.wrappedValue { try container.encode(value) } else { try container.encodeNil() }
    }
}

/// A row as it was measured: one object of `bench.jsonl`.
struct Record: Encodable {
    var row: String
    var unit: String
    var better: Row.Better
    var runs: Int
    /// Medians over the runs.
    @Stated var drover: Double?
    @Stated var baseline: String?
    @Stated var baselineValue: Double?
    /// Drover's figure over the baseline's.
    @Stated var ratio: Double?
    /// The median of the ratios of runs that followed each other.
    var ratioPaired: Double?
    /// From the smallest to the largest, as a part of the median.
    @Stated var spread: Double?
    var baselineSpread: Double?
    var ratioSpread: Double?
    var p99: Double?
    var baselineP99: Double?
    var cpuSeconds: Double?
    var baselineCpuSeconds: Double?
    var mebibytes: Double?
    var growth: Double?
    /// Measured once, for the record.
    var alternative: String?
    var alternativeValue: Double?
    var goal: String
    /// Nothing where it can't be said.
    var met: Bool?
    /// Why nothing was measured, and what helps.
    var missing: String?
    /// Too little work for its figures to mean anything.
    var quick = Workload.isQuick
    /// Load average of the machine when the row began.
    var load: Double
    var machine: String
    var cpu: String
    var cores: Int
    var versions: [String: String]
    var date: String

    init(row: Row, baselines: [Measurement], drovers: [Measurement], machine: Machine, load: Double) {
        self.row = row.name
        self.unit = row.unit
        self.better = row.better
        self.runs = max(baselines.count, drovers.count)
        let drover = Sample(drovers.map(\.value))
        let baseline = Sample(baselines.map(\.value))
        self.drover = drover?.median
        self.spread = drover?.spread
        self.baseline = row.baseline?.name
        self.baselineValue = baseline?.median
        self.baselineSpread = baseline?.spread
        if let drover, let baseline, baseline.median > 0 { self.ratio = drover.median / baseline.median }
        let pairs = Sample(zip(drovers, baselines).filter { $1.value > 0 }.map { $0.value / $1.value })
        self.ratioPaired = pairs?.median
        self.ratioSpread = pairs?.spread
        self.p99 = Sample(drovers.compactMap(\.p99))?.median
        self.baselineP99 = Sample(baselines.compactMap(\.p99))?.median
        self.cpuSeconds = Sample(drovers.compactMap(\.cpuSeconds))?.median
        self.baselineCpuSeconds = Sample(baselines.compactMap(\.cpuSeconds))?.median
        self.goal = row.goals.map(\.description).joined(separator: ", ")
        self.load = load
        self.machine = machine.system
        self.cpu = machine.cpu
        self.cores = machine.cores
        self.versions = machine.versions
        self.date = machine.date

        self.mebibytes = Sample(drovers.compactMap(\.mebibytes))?.median
        self.growth = Sample(drovers.compactMap(\.growth))?.median

        let figures: [Goal.Subject: Double?] = [
            .ratio: self.ratio, .value: self.drover, .p99: self.p99, .mebibytes: self.mebibytes, .growth: self.growth,
        ]
        let verdicts = row.goals.map { goal in figures[goal.subject]?.map { goal.isMet(by: $0) } }
        if !verdicts.isEmpty, !verdicts.contains(nil) { self.met = verdicts.allSatisfy { $0 == true } }
    }

    /// A row whose peer isn't installed.
    init(missing row: Row, peer: Peer, machine: Machine, load: Double) {
        self.init(row: row, baselines: [], drovers: [], machine: machine, load: load)
        self.missing = "\(peer.name) is not installed; \(peer.remedy)"
    }

    /// Its columns, as ``Report/columns`` names them.
    fileprivate var cells: [String] {
        let verdict = self.met.map { $0 ? "met" : "missed" }
        return [
            self.row,
            self.unit,
            Format.plain(self.drover) + self.others,
            Format.plain(self.baselineValue) + (self.baselineP99.map { " (p99 \(Format.plain($0)))" } ?? ""),
            self.baseline ?? "-",
            Format.ratio(self.ratio),
            self.goal,
            self.missing == nil ? verdict ?? "-" : "missing",
            Format.percent(self.spread),
            Format.percent(self.ratioSpread),
            "\(self.runs)",
        ]
    }

    /// What else was measured of Drover.
    private var others: String {
        let figures = [
            self.p99.map { "p99 \(Format.plain($0))" }, self.mebibytes.map { "\(Format.plain($0)) MiB" },
            self.growth.map { "growth \(Format.plain($0))x" },
        ]
        let text = figures.compactMap(\.self).joined(separator: ", ")
        return text.isEmpty ? "" : " (\(text))"
    }

    /// One line for whoever watches.
    var summary: String {
        let verdict = self.met.map { $0 ? ": met" : ": missed" } ?? ""
        let figures = "Drover \(Format.plain(self.drover))\(self.others), baseline \(Format.plain(self.baselineValue))"
        let goal = self.goal.isEmpty ? "" : "; goal \(self.goal)\(verdict)"
        return "median \(figures), ratio \(Format.ratio(self.ratio))\(goal)"
    }
}

/// All that was measured, on paper.
struct Report {
    fileprivate static let columns = [
        "Row", "Unit", "Drover", "Baseline", "Of", "Ratio", "Goal", "Goal is", "Spread", "Spread of ratio", "Runs",
    ]

    var machine: Machine
    var records: [Record] = []

    init(machine: Machine) {
        self.machine = machine
    }

    /// Writes `bench.jsonl` and `bench.md`.
    func save(in directory: URL) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        encoder.keyEncodingStrategy = .convertToSnakeCase
        let lines = try self.records.map { String(decoding: try encoder.encode($0), as: UTF8.self) + "\n" }
        try Data(lines.joined().utf8).write(to: directory.appending(path: "bench.jsonl"))
        try Data(self.markdown.utf8).write(to: directory.appending(path: "bench.md"))
    }

    /// The table for a terminal.
    var text: String {
        let rows = [Self.columns] + self.records.map(\.cells)
        let widths = Self.columns.indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        let lines = rows.map { cells in
            zip(cells, widths)
                .map { $0.padding(toLength: $1, withPad: " ", startingAt: 0) }
                .joined(separator: "  ")
        }
        return (lines + self.missing).joined(separator: "\n")
    }

    /// A line for each row that could not be measured.
    private var missing: [String] {
        self.records.compactMap { record in record.missing.map { "missing: \(record.row): \($0)" } }
    }

    private var markdown: String {
        let rows = [Self.columns, Self.columns.map { _ in "---" }] + self.records.map(\.cells)
        let table = rows.map { "| " + $0.joined(separator: " | ") + " |" }.joined(separator: "\n")
        return """
            # Benchmarks

            \(self.machine.summary)

            \(table)
            \(self.missing.map { "\n- " + $0 + "\n" }.joined())
            Unless a row says otherwise: 64 bytes of payload over tcp on the loopback, two processes, 1000 outstanding
            where calls are pipelined. Figures are medians; runs of the baseline and of Drover alternate. The ratio is
            Drover's figure over the baseline's; a spread is from the smallest to the largest run, as a part of the
            median. `bulk` counts each byte once, although it goes there and back. `broker-` rows go through a broker with
            two workers, each a process of its own. `make bench` prints this table.

            """
    }
}

/// Numbers as people read them.
enum Format {
    static func plain(_ figure: Double?) -> String {
        guard let figure else { return "-" }
        let size = abs(figure)
        if figure == figure.rounded(), size < 1e15 { return String(Int(figure)) }
        if size >= 1000 { return String(format: "%.0f", figure) }
        // Three significant digits, without the zeros behind them.
        return String(format: "%.3g", figure)
    }

    static func ratio(_ ratio: Double?) -> String {
        ratio.map { String(format: "%.2fx", $0) } ?? "-"
    }

    static func percent(_ part: Double?) -> String {
        part.map { String(format: "%.0f%%", $0 * 100) } ?? "-"
    }
}

/// Lines for whoever watches, at once even into a pipe.
enum Console {
    static func write(_ line: String) {
        FileHandle.standardOutput.write(Data((line + "\n").utf8))
    }

    static func complain(_ line: String) {
        FileHandle.standardError.write(Data((line + "\n").utf8))
    }
}
