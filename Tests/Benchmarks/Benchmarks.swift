// SPDX-License-Identifier: Apache-2.0

import Foundation

/// Measures Drover beside plain libzmq in C and beside RPyC, and writes what it found to `bench.jsonl` and `bench.md`.
///
/// Rows are named by arguments or in `ROWS`; see ``Options`` for the rest. The processes that are measured are started
/// from this same executable, with a hidden `--role NAME ...`.
@main
struct Benchmarks {
    static func main() async {
        let arguments = Array(CommandLine.arguments.dropFirst())
        do {
            if let name = arguments.dropFirst().first, arguments.first == "--role" {
                try await Role.play(name, arguments: Array(arguments.dropFirst(2)))
            } else {
                let options = try Options(arguments: arguments, environment: ProcessInfo.processInfo.environment)
                try Harness(options: options).run()
            }
        } catch {
            Console.complain("Benchmarks: \(error)")
            exit(EXIT_FAILURE)
        }
    }
}
