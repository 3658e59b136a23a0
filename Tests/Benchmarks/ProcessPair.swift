// SPDX-License-Identifier: Apache-2.0

import Foundation

/// A server, and a client that measures against it.
struct ProcessPair: Sendable {
    /// Prints `endpoint=...` once it can be reached, and ends on SIGTERM.
    var server: Command
    /// Measures, prints one line of words and ends.
    var client: @Sendable (_ endpoint: String) -> Command
    /// The word with the figure.
    var key: String

    func measure() throws -> Measurement {
        let server = try Child(self.server)
        let client = try Child(self.client(try server.endpoint()))
        let words = try client.words()
        guard let value = words[self.key].flatMap({ Double($0) }) else {
            throw Failure("the client printed no '\(self.key)'")
        }
        let cpuSeconds = try client.finish() + server.end()
        return Measurement(value, p99: words["p99_us"].flatMap { Double($0) }, cpuSeconds: cpuSeconds)
    }
}

/// A server and a client that are connected and have nothing to do.
struct IdlePair: Sendable {
    /// Prints `endpoint=...` once it can be reached, and ends on SIGTERM.
    var server: Command
    /// Connects, prints a line and ends on SIGTERM.
    var client: @Sendable (_ endpoint: String) -> Command

    /// What both use together, in percent of one core.
    func measure() throws -> Measurement {
        let server = try Child(self.server)
        let client = try Child(self.client(try server.endpoint()))
        _ = try client.words()
        // What starting has left to do isn't idling.
        Thread.sleep(forTimeInterval: 1)
        let started = ContinuousClock.now
        let before = try server.cpuSeconds() + client.cpuSeconds()
        Thread.sleep(forTimeInterval: Workload.idleSeconds)
        let used = try server.cpuSeconds() + client.cpuSeconds() - before
        let elapsed = (ContinuousClock.now - started) / .seconds(1)
        _ = client.end()
        _ = server.end()
        return Measurement(used / elapsed * 100, cpuSeconds: used)
    }
}

extension Child {
    fileprivate func endpoint() throws -> String {
        guard let endpoint = try self.words(within: 30)["endpoint"] else {
            throw Failure("the server printed no endpoint")
        }
        return endpoint
    }
}
