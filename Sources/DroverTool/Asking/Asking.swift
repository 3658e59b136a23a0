// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Drover
import DroverBroker
import DroverCore
import Foundation
import Logging

/// The options shared by all verbs that ask a broker something.
struct AskOptions: ParsableArguments {
    @Option(name: [.long, .short], help: "The broker's address. [default: $DROVER_BROKER, or tcp://127.0.0.1:5570]")
    var broker: String?

    @OptionGroup var keys: KeyOptions

    @Option(parsing: .unconditional, help: "How many seconds to wait for the answer.")
    var timeout = 5.0

    @Flag(help: "Print JSON, for programs.")
    var json = false

    func validate() throws {
        try checkSeconds(self.timeout, "--timeout")
        guard self.timeout > 0 else { throw ValidationError("--timeout must be positive") }
    }

    var address: String {
        self.broker ?? ProcessInfo.processInfo.environment["DROVER_BROKER"] ?? "tcp://127.0.0.1:5570"
    }

    /// Connects to the broker, asks, and leaves.
    func ask<Answer>(_ body: (Client) async throws -> Answer) async throws -> Answer {
        var configuration = ClientConfiguration()
        configuration.name = "drover"
        configuration.asksWhoDrains = true
        configuration.keys = try self.keys.connection()
        try self.keys.check(configuration.keys, self.address)
        configuration.allowsUnencryptedNetwork = self.keys.allowUnencryptedNetwork
        configuration.logger = Logger(label: "drover") { _ in SwiftLogNoOpLogHandler() }
        let client = try Client([self.address], configuration: configuration)
        let result: Result<Answer, any Error>
        do {
            try await client.connect(timeout: .seconds(self.timeout))
            result = .success(try await body(client))
        } catch {
            result = .failure(self.failure(error, of: client))
        }
        await client.close(grace: .zero)
        return try result.get()
    }

    private func remedy(_ problem: String) -> String {
        if problem.contains("nobody listens") { return "start one there (drover broker), or name another by --broker" }
        return problem.contains("says nothing") || problem.contains("hasn't answered as")
            ? "it may be stopped, or overloaded: try again, or give it more --timeout" : "check --broker"
    }

    private var unanswered: Failure {
        Failure(
            "\(self.address) has not answered within \(seconds(self.timeout)): try again, or give it more --timeout"
        )
    }

    /// Rewords an error for a user who asked a broker something.
    func failure(_ error: any Error, of client: Client) -> any Error {
        let problems = client.connectionProblems
        return switch error {
        case let error as ConnectionError where error.code == .unavailable && !problems.isEmpty:
            Failure("no broker can be reached: \(problems); \(self.remedy(problems))")
        case is AsyncResultTimeout: self.unanswered
        // There was no time to learn the reason.
        case let error as ConnectionError where error.code == .unavailable: self.unanswered
        case let error as ConnectionError: Failure(error.message)
        // The text comes from the peer.
        case let error as RemoteError: Failure(error.message)
        default: error
        }
    }

    /// Asks for the value of one of the broker's own functions.
    func value<Answer: Codable & Sendable>(of function: Function<Answer>) async throws -> Answer {
        try await self.ask { client in
            try await client.function(function, options: CallOptions(expiry: .seconds(self.timeout)))()
        }
    }
}

/// A time that the user gave, written as they would write it.
func seconds(_ seconds: Double) -> String { "\(String(format: "%g", seconds)) s" }

/// An error in words for people.
struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = PeerText.legible(description, maxBytes: 4096) }
}

/// Prints a line for people, which may contain names and texts from peers.
func printLine(_ line: String) { print(PeerText.legible(line, maxBytes: 4096)) }

/// Prints a value as JSON with sorted keys.
func printJSON(_ value: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    print(String(decoding: try encoder.encode(value), as: UTF8.self))
}
