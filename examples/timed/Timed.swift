// SPDX-License-Identifier: Apache-2.0
import Drover

extension Function {
    /// Takes so many milliseconds, then returns them.
    static var nap: Function<Int, Int> { .init("nap") }
}

@main
struct Timed {
    static func main() async throws {
        let worker = Worker(concurrency: 4)
        worker.register(.nap) { (milliseconds: Int) async throws -> Int in
            // A cancelled or expired call cancels this task, which ends the sleep.
            try await Task.sleep(for: .milliseconds(milliseconds))
            return milliseconds
        }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        let client = try Client(running.endpoint)

        // async(): the handle is there at once; without an expiry it waits as long as it takes.
        let nap = async(client.function(.nap))
        let patient = try nap(300)
        print("async:     ready at once? \(patient.isReady)")
        print("async:     \(try await patient.value) ms later")

        // timed(): the same, and each call has its own limit.
        let timedNap = timed(nap, .milliseconds(200))
        print("timed:     \(try await timedNap(50).value) ms are within the limit")
        let late = try timedNap(10_000)
        do {
            _ = try await late.value
        } catch let error as AsyncResultTimeout {
            print("timed:     \(error.function) expired, its limit was \(error.limit)")
            print("timed:     hasExpired \(late.hasExpired), isReady \(late.isReady), hasError \(late.hasError)")
        }

        // setExpiry(): the limit of one handle, counted from now; it replaces what was set before.
        let limited = try nap(10_000)
        limited.setExpiry(.seconds(60))
        limited.setExpiry(.milliseconds(100))
        do {
            _ = try await limited.value
        } catch let error as AsyncResultTimeout {
            print("setExpiry: \(error.function) expired, its limit was \(error.limit)")
        }
        print("setExpiry: changes an ended call? \(limited.setExpiry(.seconds(60)))")

        // cancel(): the handle ends at once; the handler is asked to stop.
        let unwanted = try nap(10_000)
        unwanted.addCallback { print("cancel:    called back with \($0.outcome.map { "\($0)" } ?? "nothing")") }
        print("cancel:    ended it? \(unwanted.cancel()), a second time? \(unwanted.cancel())")

        await client.drainCallbacks()
        await client.close()
        await running.stop()
    }
}
