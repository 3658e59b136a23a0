// SPDX-License-Identifier: Apache-2.0

import Foundation

/// RPyC: `rpyc_baseline.py`, run by `DROVER_PYTHON` or else `python3`.
enum RPyCBaseline {
    private static let name = "RPyC"

    static let blocking = side(name, "blocking", [Workload.pythonBlockingCalls, Workload.payloadBytes], key: "p50_us")
    static let pipelined = side(
        name,
        "pipelined",
        [Workload.pythonPipelinedCalls, Workload.payloadBytes],
        options: ["--window", "\(Workload.window)"],
        key: "calls_per_s"
    )

    // The background thread of RPyC pauses for 100 ms after each message unless it is told not to: without the pause it
    // is a yardstick, with it a curiosity.
    static let callback = side(
        "RPyC, no pause",
        "callback",
        [Workload.pythonCallbackCalls, Workload.payloadBytes],
        options: ["--pause", "0"],
        key: "p50_us"
    )
    static let pausingCallback = side(
        "RPyC as it comes",
        "callback",
        [Workload.pythonPausedCalls, Workload.payloadBytes],
        key: "p50_us"
    )
    static let events = side(
        "RPyC, no pause",
        "events",
        [Workload.pythonEvents, Workload.payloadBytes],
        options: ["--pause", "0", "--window", "\(Workload.window)"],
        key: "events_per_s"
    )
    static let pausingEvents = side(
        "RPyC as it comes",
        "events",
        [Workload.pythonPausedCalls, Workload.payloadBytes],
        key: "events_per_s"
    )

    /// The version of RPyC, or nothing where there is none.
    static let version: String? = {
        do {
            let child = try Child(Command(python, ["-c", "import rpyc; print('rpyc=' + rpyc.__version__)"]))
            let words = try child.words()
            try child.finish()
            return words["rpyc"]
        } catch {
            // No Python or no RPyC: its rows are then left out.
            return nil
        }
    }()

    /// The Python that measures, and has what it measures.
    static let python: String = {
        let chosen = ProcessInfo.processInfo.environment["DROVER_PYTHON"] ?? ""
        return chosen.isEmpty ? "python3" : chosen
    }()

    private static let script = Repository.root.appending(path: "Tests/Benchmarks/rpyc_baseline.py").path

    private static func side(
        _ name: String,
        _ role: String,
        _ numbers: [Int],
        options: [String] = [],
        key: String
    ) -> Side {
        Side(name) {
            guard version != nil else { throw Failure("'\(python)' has no RPyC; deploy/setup.sh installs it") }
            let pair = ProcessPair(
                server: Command(python, [script, "server"]),
                client: { Command(python, [script, role, $0] + numbers.map(String.init) + options) },
                key: key
            )
            return try pair.measure()
        }
    }
}
