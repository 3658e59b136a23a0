// SPDX-License-Identifier: Apache-2.0

/// Drover's side of each row, and the processes that play it.
enum DroverRows {
    /// Drover's side of each row that has one, by the name in `Row.measures`.
    ///
    /// A row that isn't here is measured only if it is asked for by name, and then only its baseline.
    static let sides: [String: Side] = [
        "blocking-call": pair(client: "blocking-call", [Workload.blockingCalls, Workload.payloadBytes], key: "p50_us"),
        "await-call": pair(client: "await-call", [Workload.blockingCalls, Workload.payloadBytes], key: "p50_us"),
        "pipelined": pair(
            worker: "plain-worker",
            client: "pipelined",
            [Workload.pipelinedCalls, Workload.payloadBytes, Workload.window],
            key: "calls_per_s"
        ),
        "pipelined-coalesced": pair(
            client: "pipelined-coalesced",
            [Workload.pipelinedCalls, Workload.payloadBytes, Workload.window],
            key: "calls_per_s"
        ),
        "tasks-awaiting": pair(
            client: "tasks-awaiting",
            [Workload.pipelinedCalls, Workload.payloadBytes, Workload.window],
            key: "calls_per_s"
        ),
        "events": pair(client: "events", [Workload.events, Workload.payloadBytes], key: "events_per_s"),
        "bulk": pair(
            client: "bulk",
            [Workload.bulkCalls, Workload.bulkBytes, Workload.bulkWindow],
            key: "mib_per_s"
        ),
        "codec": .value("Drover") { try CodecRole.nanosecondsPerCall() },
        "codec-order": StructRole.order,
        "codec-points": StructRole.points,
        "order-calls": OrderCalls.drover,
        "callback-latency": pair(
            client: "callback-latency",
            [Workload.latencyCalls, Workload.payloadBytes, Workload.latencyPauseMicroseconds],
            key: "p50_us"
        ),
        "idle-cpu": idlePair(client: "idle"),
        "bytes-per-call": .value("Drover") {
            // In a process of its own: what an earlier run has freed would hide what this one takes.
            let child = try Child(Command(Executable.path, ["--role", "bytes-per-call"]))
            guard let bytes = try child.words()["bytes"].flatMap(Double.init) else { throw Failure("no figure came") }
            try child.finish()
            return bytes
        },
        "broker-pipelined": DroverBrokerSides.pipelined,
        "broker-ping": DroverBrokerSides.ping,
        "broker-cpu": DroverBrokerSides.cpu,
        "map-processpool": DroverBrokerSides.map,
        "broker-idle": DroverBrokerSides.idle,
        "broker-bytes-per-call": DroverBrokerSides.bytesPerCall,
    ]

    /// What `--role NAME ...` runs.
    static let roles: [String: Role] = [
        "worker": DroverRoles.worker(coalesces: true),
        "plain-worker": DroverRoles.worker(coalesces: false),
        "blocking-call": DroverRoles.blockingCall,
        "await-call": DroverRoles.awaitCall,
        "pipelined": DroverRoles.pipelined(coalesces: false),
        "pipelined-coalesced": DroverRoles.pipelined(coalesces: true),
        "tasks-awaiting": DroverRoles.tasksAwaiting,
        "events": DroverRoles.events,
        "bulk": DroverRoles.bulk,
        "callback-latency": DroverRoles.callbackLatency,
        "idle": DroverRoles.idle,
        "order-calls": OrderCalls.role,
        "pool-worker": BrokerRoles.worker,
        "pool-workers": BrokerRoles.manyWorkers,
        "holding-worker": BrokerRoles.holdingWorker,
        "broker-queue": BrokerRoles.queue,
        "map": BrokerRoles.map,
        "bytes-per-call": .blocking { _ in Console.write("bytes=\(try DroverRoles.bytesPerCall())") },
    ]

    /// A worker and a client that measures, each played by this executable.
    ///
    /// The worker's role prints `endpoint=...` once it can be reached; the client's role gets that endpoint as its first
    /// argument and prints one line of `key=value` words.
    static func pair(
        _ name: String = "Drover",
        executable: String = Executable.path,
        worker: String = "worker",
        client: String,
        _ arguments: [Int],
        key: String
    ) -> Side {
        .pair(
            name,
            ProcessPair(
                server: Command(executable, ["--role", worker]),
                client: { Command(executable, ["--role", client, $0] + arguments.map { String($0) }) },
                key: key
            )
        )
    }

    /// A worker and a client that are both left alone; the client's role prints `ready=1` once it is connected.
    static func idlePair(worker: String = "worker", client: String) -> Side {
        Side("Drover") {
            let pair = IdlePair(
                server: Command(Executable.path, ["--role", worker]),
                client: { Command(Executable.path, ["--role", client, $0]) }
            )
            return try pair.measure()
        }
    }
}
