// SPDX-License-Identifier: Apache-2.0

/// Plain libzmq in C: `Tests/PlainZMQ/plain_zmq.c`, built beside this executable.
enum PlainBaseline {
    private static let name = "plain libzmq"

    static let blocking = side("blocking", [Workload.blockingCalls, Workload.payloadBytes], key: "p50_us")
    static let pipelined = side(
        "pipelined",
        [Workload.pipelinedCalls, Workload.payloadBytes, Workload.window],
        key: "calls_per_s"
    )
    static let events = side("events", [Workload.events, Workload.payloadBytes], key: "events_per_s")
    static let bulk = side("bulk", [Workload.bulkCalls, Workload.bulkBytes, Workload.bulkWindow], key: "mib_per_s")
    static let latency = side(
        "latency",
        [Workload.latencyCalls, Workload.payloadBytes, Workload.latencyPauseMicroseconds],
        key: "p50_us"
    )
    static let idle = Side(name) {
        try IdlePair(server: server, client: { Command(executable, ["idle", $0]) }).measure()
    }

    /// The version of libzmq that it is linked with.
    static func version() throws -> String {
        let child = try Child(Command(executable, ["version"]))
        let words = try child.words()
        try child.finish()
        return words["libzmq"] ?? "unknown"
    }

    /// A program of somebody else's that ends when the harness does.
    static func withParent(_ program: String, _ arguments: [String]) -> Command {
        Command(executable, ["with-parent", program] + arguments)
    }

    static let executable = Executable.sibling("PlainZMQ")
    private static let server = Command(executable, ["server", "tcp://127.0.0.1:*"])

    private static func side(_ role: String, _ numbers: [Int], key: String) -> Side {
        .pair(
            name,
            ProcessPair(
                server: server,
                client: { Command(executable, [role, $0] + numbers.map(String.init)) },
                key: key
            )
        )
    }
}
