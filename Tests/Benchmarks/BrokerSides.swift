// SPDX-License-Identifier: Apache-2.0

/// Drover's broker, `drover broker`, with workers and clients played by this executable.
enum DroverBrokerSides {
    private static let name = "Drover"

    static let pipelined = Side(name) {
        let run = try makePool(client: "pipelined-coalesced", numbers: pipelinedNumbers).run()
        return Measurement(try run.figure("calls_per_s"), cpuSeconds: run.cpuSeconds)
    }

    static let ping = Side(name) {
        let run = try makePool(client: "blocking-call", numbers: [Workload.blockingCalls, Workload.payloadBytes]).run()
        return Measurement(try run.figure("p50_us"), p99: try run.figure("p99_us"), cpuSeconds: run.cpuSeconds)
    }

    static let cpu = Side(name) {
        let run = try makePool(client: "pipelined-coalesced", numbers: pipelinedNumbers).run()
        return Measurement(run.brokerCpuSeconds / (try run.figure("all")) * 1e6, cpuSeconds: run.cpuSeconds)
    }

    static let idle = Side(name) {
        var pool = makePool(client: "", numbers: [])
        pool.worker = { role("pool-workers", [$0.workers, "\(Workload.idleWorkers)"]) }
        pool.workerCount = 1
        return try pool.idle()
    }

    static let bytesPerCall = Side(name) {
        var pool = makePool(client: "", numbers: [])
        pool.worker = { role("holding-worker", [$0.workers]) }
        pool.workerCount = 1
        pool.client = { role("broker-queue", [$0.clients, "\($0.pid)", "\(Workload.queuedCalls)"]) }
        let run = try pool.run()
        return Measurement(try run.figure("bytes"), cpuSeconds: run.cpuSeconds, growth: try run.figure("growth"))
    }

    static let map = Side(name) {
        let run = try makePool(client: "map", numbers: [Workload.mappedItems]).run()
        return Measurement(try run.figure("items_per_s"), cpuSeconds: run.cpuSeconds)
    }

    private static let pipelinedNumbers = [Workload.pipelinedCalls, Workload.payloadBytes, Workload.window]

    private static func makePool(client: String, numbers: [Int]) -> BrokerPool {
        let arguments = ["broker", "--listen", "tcp://127.0.0.1:*", "--log-level", "error"]
        return BrokerPool(
            broker: .announces(PlainBaseline.withParent(Executable.sibling("drover"), arguments)),
            worker: { role("pool-worker", [$0.workers]) },
            client: { role(client, [$0.clients] + numbers.map { String($0) }) }
        )
    }

    private static func role(_ name: String, _ arguments: [String]) -> Command {
        Command(Executable.path, ["--role", name] + arguments)
    }
}

/// The brokers of plain libzmq in `Tests/PlainZMQ/broker.c`.
enum PlainBrokerSides {
    static let pipelined = throughput("C broker", "broker")
    static let proxy = throughput("zmq_proxy", "proxy")

    static let ping = Side("C broker") {
        let run = try pool("broker", client: "blocking", [Workload.blockingCalls, messageBytes]).run()
        return Measurement(try run.figure("p50_us"), p99: try run.figure("p99_us"), cpuSeconds: run.cpuSeconds)
    }

    static let cpu = Side("C broker") {
        let run = try pool("broker", client: "pipelined", pipelinedNumbers).run()
        return Measurement(run.brokerCpuSeconds / (try run.figure("all")) * 1e6, cpuSeconds: run.cpuSeconds)
    }

    /// The payload, and the eight bytes by which the broker knows who asked.
    private static let messageBytes = Workload.payloadBytes + 8
    private static let pipelinedNumbers = [Workload.pipelinedCalls, messageBytes, Workload.window]

    private static func throughput(_ name: String, _ kind: String) -> Side {
        Side(name) {
            let run = try pool(kind, client: "pipelined", pipelinedNumbers).run()
            return Measurement(try run.figure("calls_per_s"), cpuSeconds: run.cpuSeconds)
        }
    }

    private static func pool(_ kind: String, client: String, _ numbers: [Int]) -> BrokerPool {
        BrokerPool(
            broker: .announces(Command(PlainBaseline.executable, [kind])),
            worker: { Command(PlainBaseline.executable, ["\(kind)-worker", $0.workers]) },
            client: { Command(PlainBaseline.executable, [client, $0.clients] + numbers.map { String($0) }) }
        )
    }
}
