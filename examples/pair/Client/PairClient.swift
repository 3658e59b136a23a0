// SPDX-License-Identifier: Apache-2.0
import Drover
import Thumbnails

/// Calls the worker, or the broker, at the address that it is given.
@main
struct PairClient {
    static func main() async throws {
        let client = try Client(CommandLine.arguments.dropFirst().first ?? "tcp://127.0.0.1:5555")
        // A wrong address shows at once; a worker that is yet to start is waited for.
        try await client.connect(timeout: .seconds(10), patiently: true)
        let picture = Picture(name: "lake.png", width: 4000, height: 3000)
        let small = try await client.call(.shrink, picture, 400, timeout: .seconds(10))
        print("\(small.name): \(small.width) x \(small.height)")
        let statistics = client.statistics
        print("\(statistics.calls) calls, \(statistics.values) values")
        await client.close()
    }
}
