// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Drover
import DroverBroker
import DroverCore
import Foundation
import Logging

/// What all verbs share that ask a broker something.
struct AskOptions: ParsableArguments {
    @Option(name: [.long, .short], help: "The broker's address. [default: $DROVER_BROKER, or tcp://127.0.0.1:5570]")
    var broker: String?

    @OptionGroup var keys: KeyOptions

    @Option(help: "How many seconds to wait for the answer.")
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
        configuration.keys = try self.keys.connection()
        try self.keys.check(configuration.keys, self.address)
        configuration.allowsUnencryptedNetwork = self.keys.allowUnencryptedNetwork
        configuration.logger = Logger(label: "drover") { _ in SwiftLogNoOpLogHandler() }
        let client = try Client([self.address], configuration: configuration)
        do {
            let answer = try await body(client)
            await client.close(grace: .zero)
            return answer
        } catch let timeout as AsyncResultTimeout {
            await client.close(grace: .zero)
            throw Failure("no answer from \(self.address) within \(self.timeout) s: is a broker there? \(timeout)")
        } catch let error as RemoteError {
            await client.close(grace: .zero)
            // Its text is the peer's.
            throw Failure("\(error)")
        } catch {
            await client.close(grace: .zero)
            throw error
        }
    }

    /// Asks for the value of one of the broker's own functions.
    func value<Answer: Codable & Sendable>(of function: Function<Answer>) async throws -> Answer {
        try await self.ask { client in
            try await client.function(function, options: CallOptions(expiry: .seconds(self.timeout)))()
        }
    }
}

/// What can't be done, in words for people.
struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = PeerText.legible(description, maxBytes: 4096) }
}

/// Prints a line for people, in which names and texts of peers may stand.
func printLine(_ line: String) { print(PeerText.legible(line, maxBytes: 4096)) }

/// Prints a value as JSON with sorted keys.
func printJSON(_ value: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    print(String(decoding: try encoder.encode(value), as: UTF8.self))
}

/// Columns for people: numbers to the right, words to the left.
struct Table {
    struct Column {
        let title: String
        var isNumber = false
    }

    let columns: [Column]
    private(set) var rows: [[String]] = []

    init(_ columns: [Column]) {
        self.columns = columns.map { Column(title: PeerText.legible($0.title), isNumber: $0.isNumber) }
    }

    /// Adds a row; of texts of peers, which may stand in all cells, only what prints is shown.
    mutating func add(_ row: [String]) { self.rows.append(row.map { PeerText.legible($0) }) }

    var lines: [String] {
        let widths = self.columns.indices.map { index in
            max(self.columns[index].title.count, self.rows.map { $0[index].count }.max() ?? 0)
        }
        func line(_ cells: [String]) -> String {
            let padded = cells.indices.map { index in
                let padding = String(repeating: " ", count: widths[index] - cells[index].count)
                return self.columns[index].isNumber ? padding + cells[index] : cells[index] + padding
            }
            let text = padded.joined(separator: "  ")
            return String(text.reversed().drop { $0 == " " }.reversed())
        }
        return [line(self.columns.map { $0.title })] + self.rows.map(line)
    }
}
