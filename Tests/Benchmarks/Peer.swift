// SPDX-License-Identifier: Apache-2.0

import Foundation

/// Somebody else's program that rows compare with, and how to get it.
struct Peer: Sendable {
    var name: String
    /// What to do where it is missing.
    var remedy: String
    /// Its version, or nothing where it is missing.
    var version: @Sendable () -> String?

    static let rpyc = Peer(
        name: "rpyc",
        remedy: "run deploy/setup.sh, or install rpyc for the Python that DROVER_PYTHON names",
        version: { RPyCBaseline.version }
    )
    static let msgpack = Peer(
        name: "msgpack",
        remedy: "run deploy/setup.sh, or install msgpack for the Python that DROVER_PYTHON names",
        version: { msgpackVersion }
    )
    static let nats = Peer(
        name: "nats",
        remedy: "apt-get install nats-server libnats-dev, then run deploy/setup-bench.sh",
        version: { natsVersion }
    )
    static let gearman = Peer(
        name: "gearman",
        remedy: "apt-get install gearman-job-server libgearman-dev, then run deploy/setup-bench.sh",
        version: { gearmanVersion }
    )
    static let ipyparallel = Peer(
        name: "ipyparallel",
        remedy: "run deploy/setup-bench.sh, which installs it from PyPI into .build/bench-peers/venv",
        version: { ipyparallelVersion }
    )
    static let python = Peer(name: "python", remedy: "apt-get install python3", version: { pythonVersion })
    static let dask = Peer(
        name: "dask",
        remedy: "run deploy/setup-bench.sh, which installs distributed from PyPI into .build/bench-peers/venv",
        version: { daskVersion }
    )

    // Looked up once: Python takes its time.
    private static let msgpackVersion = word(
        of: RPyCBaseline.python,
        ["-c", "import msgpack; print('version', '.'.join(map(str, msgpack.version)))"],
        after: "version"
    )
    private static let natsVersion =
        has("nats_peer") ? word(of: "nats-server", ["--version"], after: "nats-server:") : nil
    private static let gearmanVersion =
        has("gearman_peer") ? word(of: "gearmand", ["--version"], after: "gearmand") : nil
    private static let pythonVersion = word(of: "python3", ["--version"], after: "Python")
    private static let ipyparallelVersion = pythonVersion(of: "ipyparallel")
    private static let daskVersion = pythonVersion(of: "distributed")

    /// Where `deploy/setup-bench.sh` puts what it builds.
    static let directory = Repository.root.appending(path: ".build/bench-peers").path

    private static func has(_ program: String) -> Bool {
        FileManager.default.isExecutableFile(atPath: "\(self.directory)/\(program)")
    }

    private static func pythonVersion(of module: String) -> String? {
        let script = "import \(module); print('version ' + \(module).__version__)"
        return self.word(of: "\(self.directory)/venv/bin/python", ["-c", script], after: "version")
    }

    /// The word that follows `mark` in the first lines of what a program prints; nothing if it isn't there.
    private static func word(of program: String, _ arguments: [String], after mark: String) -> String? {
        do {
            let child = try Child(Command(program, arguments))
            // Some print an empty line first.
            for _ in 1...3 {
                let words = try child.line(within: 60).split(separator: " ")
                if let index = words.firstIndex(where: { $0 == mark }), index + 1 < words.count {
                    return String(words[index + 1])
                }
            }
            return nil
        } catch {
            // Not installed, or not so that it works: its rows say so.
            return nil
        }
    }
}

/// The brokers of others.
enum PeerSides {
    static let nats = Side("NATS") {
        try throughput(
            BrokerPool(
                broker: .listens { port in
                    PlainBaseline.withParent("nats-server", ["-a", "127.0.0.1", "-p", "\(port)", "-l", "/dev/null"])
                },
                worker: { Command("\(Peer.directory)/nats_peer", ["worker", "nats://127.0.0.1:\($0.workers)"]) },
                client: { address in
                    let numbers = [Workload.natsCalls, Workload.payloadBytes, Workload.window].map { String($0) }
                    let url = "nats://127.0.0.1:\(address.clients)"
                    return Command("\(Peer.directory)/nats_peer", ["pipelined", url] + numbers)
                }
            )
        )
    }

    static let gearman = Side("gearmand") {
        try throughput(
            BrokerPool(
                broker: .listens { port in
                    PlainBaseline.withParent("gearmand", ["-L", "127.0.0.1", "-p", "\(port)", "--log-file=none"])
                },
                worker: { Command("\(Peer.directory)/gearman_peer", ["worker", $0.workers]) },
                client: { address in
                    let numbers = [Workload.gearmanCalls, Workload.payloadBytes, Workload.window].map { String($0) }
                    return Command("\(Peer.directory)/gearman_peer", ["pipelined", address.clients] + numbers)
                }
            )
        )
    }

    static let ipyparallel = python("ipyparallel")
    static let dask = python("dask")
    static let processPool = Side("ProcessPoolExecutor") {
        let script = Repository.root.appending(path: "Tests/BenchmarkPeers/processpool_peer.py").path
        let child = try Child(Command("python3", [script, "\(Workload.mappedItems)"]))
        guard let rate = try child.words()["items_per_s"].flatMap({ Double($0) }) else {
            throw Failure("the script printed no figure")
        }
        return Measurement(rate, cpuSeconds: try child.finish(within: 60))
    }

    /// A script that starts its own scheduler and workers.
    private static func python(_ name: String) -> Side {
        Side(name) {
            let numbers = [Workload.schedulerCalls, Workload.payloadBytes, Workload.window].map { String($0) }
            let script = Repository.root.appending(path: "Tests/BenchmarkPeers/\(name)_peer.py").path
            let child = try Child(Command("\(Peer.directory)/venv/bin/python", [script] + numbers))
            guard let rate = try child.words()["calls_per_s"].flatMap({ Double($0) }) else {
                throw Failure("the script printed no figure")
            }
            return Measurement(rate, cpuSeconds: try child.finish(within: 60))
        }
    }

    private static func throughput(_ pool: BrokerPool) throws -> Measurement {
        let run = try pool.run()
        return Measurement(try run.figure("calls_per_s"), cpuSeconds: run.cpuSeconds)
    }
}
