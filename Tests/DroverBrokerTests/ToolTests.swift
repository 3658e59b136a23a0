// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@Suite("The drover tool", .serialized, .timeLimit(.minutes(2)))
struct ToolTests {
    /// What a run of the tool came to.
    private struct Run {
        let status: Int32
        let output: String
        let errors: String
    }

    private static var tool: URL {
        URL(filePath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent().appending(path: "drover")
    }

    private func run(_ arguments: String..., broker: String? = nil) throws -> Run {
        let process = Process()
        let (output, errors) = (Pipe(), Pipe())
        process.executableURL = Self.tool
        process.arguments = arguments
        process.standardOutput = output
        process.standardError = errors
        if let broker {
            process.environment = ProcessInfo.processInfo.environment.merging(["DROVER_BROKER": broker]) { $1 }
        }
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        let problems = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return Run(status: process.terminationStatus, output: text, errors: problems)
    }

    @Test("drover broker prints where it listens, is asked by the other verbs, and leaves when it is told to")
    func broker() throws {
        let broker = try BrokerProcess(at: "tcp://127.0.0.1:*", "--name", "tested")
        let endpoint = broker.endpoint
        #expect(endpoint.hasPrefix("tcp://127.0.0.1:"))

        let status = try self.run("status", broker: endpoint)
        #expect(status.status == 0, "\(status.errors)")
        #expect(status.output.hasPrefix("tested"))
        let json = try self.run("status", "--json", "--broker", endpoint)
        let object = try #require(try JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [String: Any])
        #expect(object["broker"] as? String == "tested")
        #expect(object["workers"] as? Int == 0)
        #expect(try self.run("workers", broker: endpoint).output == "no workers\n")
        #expect(try self.run("workers", "--json", broker: endpoint).output.filter { !$0.isWhitespace } == "[]")
        #expect(try self.run("queues", broker: endpoint).output == "nothing was called yet\n")
        let pings = try self.run("ping", "--count", "2", broker: endpoint)
        #expect(pings.output.split(separator: "\n").count == 2)
        #expect(pings.output.hasPrefix("tested at \(endpoint): "))

        let top = try self.run("top", "--count", "2", "--interval", "0.1", broker: endpoint)
        #expect(top.output.components(separatedBy: "drover top: tested at \(endpoint)").count == 3)
        let line = try self.run("top", "--count", "1", "--json", broker: endpoint).output
        let looked = try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
        #expect(Set(looked.keys) == ["status", "workers", "queues"])

        let second = try self.run("broker", "--listen", endpoint)
        #expect(second.status == 1)
        #expect(second.errors.contains("Address already in use"))

        #expect(broker.terminate() == 0)
    }

    @Test("what can't be done ends with a status that isn't zero, and says the cause and the remedy")
    func problems() throws {
        let nobody = try self.run("status", "--broker", "tcp://127.0.0.1:1", "--timeout", "0.3")
        #expect(nobody.status == 1)
        #expect(nobody.errors.contains("is a broker there?"))
        let open = try self.run("broker", "--listen", "tcp://0.0.0.0:*")
        #expect(open.status == 1)
        #expect(open.errors.contains("can be reached from other machines"))
        let level = try self.run("broker", "--log-level", "loud")
        #expect(level.status == 64)
        #expect(level.errors.contains("no log level"))
        #expect(try self.run("frobnicate").status == 64)
        let help = try self.run("--help")
        #expect(help.status == 0)
        #expect(help.output.contains("SUBCOMMANDS"))
    }
}
