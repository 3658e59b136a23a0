// SPDX-License-Identifier: Apache-2.0

import Foundation

/// Runs rows, baseline and Drover in turn, and reports.
struct Harness {
    var options: Options

    func run() throws {
        #if DEBUG
        Console.complain("Benchmarks: this is a debug build, its figures mean nothing; use `swift build -c release`")
        #endif
        let rows = self.selectedRows()
        if rows.isEmpty { throw Failure("there is nothing to measure; --baselines measures the baselines alone") }
        let machine = try Machine.current(with: rows.compactMap(\.needs))
        Console.write(machine.summary)
        var report = Report(machine: machine)
        var failedRows: [String] = []
        for row in rows {
            if let peer = row.needs, peer.version() == nil {
                Console.complain("\n\(row.name): missing: \(peer.name); \(peer.remedy)")
                report.records.append(Record(missing: row, peer: peer, machine: machine, load: Machine.load()))
                try report.save(in: Repository.root)
                if !self.options.rows.isEmpty { failedRows.append(row.name) }
                continue
            }
            do {
                report.records.append(try self.measure(row, on: machine))
                try report.save(in: Repository.root)
            } catch {
                Console.complain("  \(row.name): \(error)")
                failedRows.append(row.name)
            }
        }
        Console.write("\n" + report.text)
        if !failedRows.isEmpty { throw Failure("not measured: \(failedRows.joined(separator: ", "))") }
    }

    /// The rows that were asked for, or all; those whose peer isn't installed are reported as missing.
    private func selectedRows() -> [Row] {
        if !self.options.rows.isEmpty {
            return Row.all.filter { self.options.rows.contains($0.name) }
        }
        return Row.all.filter { self.options.measuresOnlyBaselines ? $0.baseline != nil : $0.drover != nil }
    }

    private func measure(_ row: Row, on machine: Machine) throws -> Record {
        let drover = self.options.measuresOnlyBaselines ? nil : row.drover
        if drover == nil, row.baseline == nil { throw Failure("neither side can be measured") }
        let runs = min(self.options.runs, row.maxRuns)
        let load = Machine.load()
        Console.write("\n\(row.name), \(row.unit), \(row.better.rawValue) is better")
        var baselines: [Measurement] = []
        var drovers: [Measurement] = []
        for run in 1...runs {
            var line = "  \(run)/\(runs)"
            if let baseline = row.baseline {
                let measured = try baseline.measure()
                baselines.append(measured)
                line += "  \(baseline.name) \(Format.plain(measured.value))"
            }
            if let drover {
                let measured = try drover.measure()
                drovers.append(measured)
                line += "  \(drover.name) \(Format.plain(measured.value))"
                if let baseline = baselines.last?.value, baseline > 0 {
                    line += "  \(Format.ratio(measured.value / baseline))"
                }
            }
            Console.write(line)
        }
        var record = Record(row: row, baselines: baselines, drovers: drovers, machine: machine, load: load)
        if let alternative = row.alternative {
            let value = try alternative.measure().value
            record.alternative = alternative.name
            record.alternativeValue = value
            Console.write("  once  \(alternative.name) \(Format.plain(value))")
        }
        Console.write("  \(record.summary)")
        return record
    }
}
