// SPDX-License-Identifier: Apache-2.0
import Drover

// Declared once, used by both sides; the last type is the result's.
extension Function {
    static var greet: Function<String, String> { .init("greet") }
}

@main
struct Hello {
    static func main() async throws {
        let worker = Worker()
        worker.register(.greet) { name in "Hello, \(name)!" }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))

        let client = try Client(running.endpoint)
        print(try await client.call(.greet, "world"))

        let greet = async(client.function(.greet))  // calls return a handle at once
        let result = try greet("handle")
        result.setExpiry(.seconds(5))
        result.addCallback { print("called back:", $0.outcome as Any) }
        print("awaited:", try await result.value)

        await client.drainCallbacks()
        await client.close()
        await running.stop()
    }
}
