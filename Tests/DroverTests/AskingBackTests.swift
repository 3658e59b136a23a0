// SPDX-License-Identifier: Apache-2.0

import Drover
import Foundation
import Synchronization
import Testing

extension ServingTests {
    /// Callbacks that block their thread for calls whose handlers call callbacks.
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct AskingBackTests {}
}

extension ServingTests.AskingBackTests {
    private static let answer = 21

    private struct Aside: CallbackExecutor {
        func run(_ work: @escaping @Sendable () -> Void) { DispatchQueue.global().async(execute: work) }
    }

    /// The code of the error that a blocking call in a callback throws.
    private func code(_ body: () throws -> Int) -> String {
        do { return "\(try body())" } catch let error as UsageError { return "\(error.code)" } catch {
            return "\(error)"
        }
    }

    @Test(
        "S52 a callback that blocks for a call whose handler calls a callback of the same thread is told, and all goes on"
    )
    func resultCallback() throws {
        let rig = try Rig()
        let client = try rig.client()
        let seen = Gathered<String>()
        let result = try client.function(Job.echo).async(1)
        result.addCallback { _ in
            seen.add(self.code { try client.function(Job.ask).blocking(client.callback { $0 + 1 }, Self.answer) })
        }
        eventually("it was told") { seen.values == ["wouldDeadlock"] }
        // The callback is free again, and serves the handler.
        eventually("the call has ended") { client.statistics.outstandingNow == 0 }
        #expect(try client.function(Job.ask).blocking(client.callback { $0 + 1 }, Self.answer) == 22)
        client.closeBlocking()
        rig.stop()
    }

    @Test("S52 so is a callback that a handler calls")
    func calledCallback() throws {
        let rig = try Rig()
        let client = try rig.client()
        let outer = client.callback { (number: Int) -> Int in
            try client.function(Job.ask).blocking(client.callback { $0 + 1 }, number)
        }
        let error = #expect(throws: RemoteError.self) { try client.function(Job.ask).blocking(outer, Self.answer) }
        #expect(error?.message.contains("calls a callback back that waits for this thread") ?? false)
        client.closeBlocking()
        rig.stop()
    }

    @Test("S52 so is one that awaits such a call")
    func awaitingCallback() throws {
        let rig = try Rig()
        let client = try rig.client()
        let outer = client.asyncCallback { (number: Int) async throws -> Int in
            try await client.call(Job.ask, client.callback { $0 + 1 }, number)
        }
        let error = #expect(throws: RemoteError.self) { try client.function(Job.ask).blocking(outer, Self.answer) }
        #expect(error?.message.contains("calls a callback back that waits for this thread") ?? false)
        client.closeBlocking()
        rig.stop()
    }

    @Test("S62 if others might call it as well, the expiry says that the two may wait for each other")
    func uncertain() throws {
        let rig = try Rig()
        let lines = Gathered<String>()
        let client = try rig.client { configuration in configuration.logger = .calling { _, line in lines.add(line) } }
        let seen = Gathered<String>()
        let lasting = client.callback(CallbackOptions(lifetime: .untilCancelled)) { (number: Int) -> Int in number + 1 }
        let result = try client.function(Job.echo).async(1)
        result.addCallback { _ in
            let options = CallOptions(expiry: .milliseconds(300))
            do {
                _ = try client.function(Job.ask, options: options).blocking(lasting, Self.answer)
            } catch let error as AsyncResultTimeout { seen.add("\(error)") }
        }
        eventually("it expired") { seen.values.count == 1 }
        #expect(seen.values.first?.contains("may wait for a callback that waits for the thread") ?? false)
        #expect(lines.values.contains { $0.contains("waits for the thread of another") })
        client.closeBlocking()
        rig.stop()
    }

    @Test("a callback with an executor of its own is called while another blocks")
    func ownExecutor() throws {
        let rig = try Rig()
        let client = try rig.client()
        let seen = Gathered<String>()
        let result = try client.function(Job.echo).async(1)
        result.addCallback { _ in
            let aside = client.callback(CallbackOptions(executor: Aside())) { (number: Int) -> Int in number + 1 }
            seen.add(self.code { try client.function(Job.ask).blocking(aside, Self.answer) })
        }
        eventually("it was answered") { seen.values == ["22"] }
        client.closeBlocking()
        rig.stop()
    }
}
