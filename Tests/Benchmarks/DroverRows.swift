// SPDX-License-Identifier: Apache-2.0

/// Drover's side of each row, and the processes that play it.
enum DroverRows {
    /// Drover's side of each row that has one, by the name in `Row.measures`.
    ///
    /// A row that isn't here is measured only if it is asked for by name, and then only its baseline.
    static let sides: [String: Side] = [:]

    /// What `--role NAME ...` runs.
    static let roles: [String: Role] = [:]

    /// A worker and a client that measures, each played by this executable.
    ///
    /// The worker's role prints `endpoint=...` once it can be reached; the client's role gets that endpoint as its first
    /// argument and prints one line of `key=value` words.
    static func pair(worker: String = "worker", client: String, _ arguments: [String], key: String) -> Side {
        .pair(
            "Drover",
            ProcessPair(
                server: Command(Executable.path, ["--role", worker]),
                client: { Command(Executable.path, ["--role", client, $0] + arguments) },
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
