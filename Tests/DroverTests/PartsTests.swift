// SPDX-License-Identifier: Apache-2.0

import Drover
import Testing

/// Large arguments and results between a client and a worker, which go in parts.
@Suite("Parts", .timeLimit(.minutes(1))) struct PartsTests {
    private static let bytes = Function<[UInt8], [UInt8]>("bytes", isIdempotent: true)
    private static let sizes = [1 << 20, (1 << 20) + 1, 3_000_000, 20_000_000]

    @Test("large arguments and results come whole, many at once, and a cancelled one doesn't stop the others")
    func whole() async throws {
        let worker = Worker()
        worker.register(Self.bytes) { (bytes: [UInt8]) in bytes }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        let client = try Client("\(running.endpoint)")
        let echo = client.function(Self.bytes)
        let results = try (0..<12)
            .map { number in
                let size = Self.sizes[number % Self.sizes.count]
                return (size, number, try echo.async([UInt8](repeating: UInt8(number), count: size)))
            }
        for (_, number, result) in results where number % 5 == 3 { result.cancel() }
        for (size, number, result) in results where number % 5 != 3 {
            let value = try await result.value
            #expect(value.count == size && value.allSatisfy { $0 == UInt8(number) })
        }
        #expect(client.statistics.resends == 0)
        await client.close(grace: .zero)
        await running.stop(grace: .zero)
    }
}
