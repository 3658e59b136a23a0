// SPDX-License-Identifier: Apache-2.0
import Drover

extension Function {
    /// How many steps it takes to come to one: an even number is halved, an odd one is tripled, and one is added.
    static var steps: Function<Int, Int> { .init("steps", isIdempotent: true) }
}

struct NotPositive: Error, CustomStringConvertible {
    let number: Int
    var description: String { "\(self.number) never comes to one" }
}

@main
struct Map {
    static func main() async throws {
        let worker = Worker(concurrency: 2)
        worker.register(.steps) { (number: Int) in
            guard number > 0 else { throw NotPositive(number: number) }
            var (current, count) = (number, 0)
            while current != 1 {
                current = current % 2 == 0 ? current / 2 : 3 * current + 1
                count += 1
            }
            return count
        }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        let client = try Client(running.endpoint)

        try await self.findLongest(client)
        try await self.showProgress(client)
        try await self.collect(client)
        try await self.lookAtEach(client)
        try await self.readAsynchronously(client)

        await client.close()
        await running.stop()
    }

    private static func findLongest(_ client: Client) async throws {
        var longest = (number: 1, steps: 0)
        for try await (number, steps) in client.map(.steps, over: 1...10_000) where steps > longest.steps {
            longest = (number, steps)
        }
        print("longest:  \(longest.number), \(longest.steps) steps")
    }

    private static func showProgress(_ client: Client) async throws {
        let batch = client.map(.steps, over: 1...10_000)
        let handle = batch.handle
        let display = Task {
            while !handle.progress.isOver {
                let progress = handle.progress
                let left = progress.remaining.map { "\($0) left" } ?? "just begun"
                print("progress: \(progress.done) of \(progress.total ?? 0), \(left)")
                try await Task.sleep(for: .milliseconds(50))
            }
        }
        for try await _ in batch {}
        try await display.value
        print("progress: \(handle.progress.done) of \(handle.progress.done)")
    }

    private static func collect(_ client: Client) async throws {
        let steps = try await client.map(.steps, over: 1...10).collect()
        print("in order: \(steps)")
    }

    private static func lookAtEach(_ client: Client) async throws {
        let options = MapOptions(window: 64, order: .asGiven, onFailure: .goOn)
        for try await item in client.map(.steps, over: [27, -5, 97], options).items {
            switch item.result {
            case .success(let steps): print("item \(item.index):   \(item.input) takes \(steps) steps")
            case .failure(let error as RemoteError): print("item \(item.index):   failed, \(error.message)")
            case .failure(let error): print("item \(item.index):   failed, \(error)")
            }
        }
    }

    private static func readAsynchronously(_ client: Client) async throws {
        let (numbers, continuation) = AsyncStream<Int>.makeStream()
        continuation.yield(6)
        for try await (number, steps) in client.map(.steps, over: numbers) {
            print("stream:   \(number) takes \(steps) steps")
            // The next input may come as late as it likes: no result waits for it.
            if number < 8 { continuation.yield(number + 1) } else { continuation.finish() }
        }
    }
}
