// SPDX-License-Identifier: Apache-2.0

import Foundation

/// What to measure and how often.
///
/// - `ROWS="a b"` or arguments: these rows only.
/// - `RUNS=n`: pairs of runs per row, 5 unless told.
/// - `BEFORE=path`: the `Benchmarks` of an earlier build, which `order-calls` is compared with.
/// - `--baselines`: every baseline, without Drover.
/// - `IDLE_SECONDS=n`: how long idle processes are watched, 30 unless told.
/// - `QUICK=1`: a twentieth of the work and one run, to see that everything still works. Its figures mean nothing.
struct Options {
    var rows: [String]
    var runs: Int
    var measuresOnlyBaselines: Bool

    init(arguments: [String], environment: [String: String]) throws {
        self.measuresOnlyBaselines = arguments.contains("--baselines")
        self.rows = arguments.filter { $0 != "--baselines" }
        if self.rows.isEmpty, let names = environment["ROWS"] {
            self.rows = names.split(separator: " ").map(String.init)
        }
        let known = Set(Row.all.map(\.name))
        if let stranger = self.rows.first(where: { !known.contains($0) }) {
            throw Failure("no row is called '\(stranger)'; there are \(Row.all.map(\.name).joined(separator: ", "))")
        }
        self.runs = Workload.isQuick ? 1 : 5
        if let text = environment["RUNS"], !text.isEmpty {
            guard let runs = Int(text), runs > 0 else { throw Failure("RUNS must be a positive number, not '\(text)'") }
            self.runs = runs
        }
    }
}

/// How much work a run is, the same for both sides.
enum Workload {
    private static let environment = ProcessInfo.processInfo.environment
    static let isQuick = environment["QUICK"].map { !$0.isEmpty && $0 != "0" } ?? false

    static let payloadBytes = 64
    static let bulkBytes = 1 << 20
    static let window = 1000
    static let bulkWindow = 8

    static let blockingCalls = scaled(20_000)
    static let pipelinedCalls = scaled(2_000_000)
    static let events = scaled(3_000_000)
    static let bulkCalls = scaled(2000)
    static let codecOrders = scaled(200_000)
    static let codecPointArrays = scaled(2000)
    static let orderCalls = scaled(500_000)
    static let latencyCalls = scaled(2000)
    static let queuedCalls = scaled(1_000_000)
    static let idleWorkers = isQuick ? 20 : 200
    /// Between two calls whose latency is measured, so that everybody sleeps when the next one comes.
    static let latencyPauseMicroseconds = 200
    static let idleSeconds =
        isQuick ? 2 : environment["IDLE_SECONDS"].flatMap { Double($0) }.map { max($0, 1) } ?? 30

    // Python gets fewer, so that a run takes about as long.
    static let pythonBlockingCalls = scaled(5000)
    static let pythonPipelinedCalls = scaled(20_000)
    static let pythonCallbackCalls = scaled(2000)
    static let pythonEvents = scaled(10_000)
    static let pythonPausedCalls = scaled(20)

    // So do the brokers of others.
    static let natsCalls = scaled(1_000_000)
    static let gearmanCalls = scaled(40_000)
    static let schedulerCalls = scaled(2000)
    static let mappedItems = scaled(100_000)

    private static func scaled(_ count: Int) -> Int {
        isQuick ? max(count / 20, 5) : count
    }
}

/// Something that ends the run, or the row.
struct Failure: Error, CustomStringConvertible {
    var description: String

    init(_ description: String) {
        self.description = description
    }
}
