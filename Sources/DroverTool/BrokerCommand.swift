// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Drover
import DroverBroker
import Foundation
import Logging

/// `drover broker`: runs a broker until it is told to stop.
struct BrokerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "broker",
        abstract: "Run a broker.",
        discussion: """
            Prints the address that it listens at, then logs to standard error. SIGTERM and SIGINT ask it to drain: it takes
            no more calls, waits until those that it has are answered, and leaves; a second one ends the wait.

            It speaks unencrypted, so it listens only where other machines can't reach it unless
            --allow-unencrypted-network says that the network is trusted.
            """
    )

    @Option(help: "Where to listen: tcp://HOST:PORT, with * for any port, or ipc://PATH.")
    var listen = "tcp://127.0.0.1:5570"

    @Option(help: "The broker's name, in answers, errors and logs.")
    var name = "broker"

    @Option(help: "How many calls may wait in all; beyond it clients are told to come back later.")
    var maxQueued = 4 << 20

    @Option(help: "How many bytes a request or a reply may take.")
    var maxPayload = 64 << 20

    @Option(help: "How many seconds a call waits for a worker that may run it, if there is none.")
    var patience = 10.0

    @Option(help: "How many seconds between two signs of life.")
    var heartbeat = 2.0

    @Option(help: "After how many seconds of silence a client or a worker is lost.")
    var silenceLimit = 6.0

    @Option(help: "How many seconds calls may take when the broker is told to stop.")
    var grace = 30.0

    @Option(help: "What to log: trace, debug, info, notice, warning, error or critical.")
    var logLevel = "info"

    @Flag(help: "Listen where other machines can reach it, without encryption.")
    var allowUnencryptedNetwork = false

    func validate() throws {
        guard Logger.Level(rawValue: self.logLevel) != nil else {
            throw ValidationError("\"\(self.logLevel)\" is no log level; try info or debug")
        }
        guard self.patience > 0, self.grace >= 0, self.heartbeat > 0, self.silenceLimit > self.heartbeat else {
            throw ValidationError("times must be positive, and the silence limit longer than the heartbeat")
        }
    }

    func run() async throws {
        var configuration = BrokerConfiguration()
        configuration.name = self.name
        configuration.maxQueuedCalls = self.maxQueued
        configuration.maxPayloadBytes = self.maxPayload
        configuration.noWorkerPatience = .seconds(self.patience)
        configuration.heartbeatInterval = .seconds(self.heartbeat)
        configuration.silenceLimit = .seconds(self.silenceLimit)
        configuration.drainGrace = .seconds(self.grace)
        configuration.allowsUnencryptedNetwork = self.allowUnencryptedNetwork
        configuration.logger = Logger(label: "drover.broker") { StreamLogHandler.standardError(label: $0) }
        configuration.logger.logLevel = Logger.Level(rawValue: self.logLevel) ?? .info
        let running = try Broker(configuration: configuration).start(self.listen)
        try FileHandle.standardOutput.write(contentsOf: Data("\(running.endpoint)\n".utf8))
        await running.runUntilAsked()
    }
}
