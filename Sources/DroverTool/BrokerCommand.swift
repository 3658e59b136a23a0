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
            Prints the address that it listens at, then logs to standard error. SIGTERM and SIGINT ask it to drain: it takes \
            no more calls, waits until those that it has are answered, and leaves; a second one ends the wait.

            With --key and --allow-list it lets in only the keys on that list, and all that is said is encrypted; drover keys \
            makes both. Without, it listens only where other machines can't reach it, unless --allow-unencrypted-network says \
            that the network is trusted.
            """
    )

    @Option(help: "Where to listen: tcp://HOST:PORT, with * for any port, or ipc://PATH.")
    var listen = "tcp://127.0.0.1:5570"

    @Option(help: "Who may connect to the socket of ipc://PATH, as chmod writes it; 660 lets its group in.")
    var socketMode = "600"

    @Option(help: "The broker's name, in answers, errors and logs.")
    var name = "broker"

    @Option(help: "The file with the broker's own keys.")
    var key: String?

    @Option(help: "The file that says whose keys are let in; changes are noticed while the broker runs.")
    var allowList: String?

    @Option(help: "How many clients there may be.")
    var maxClients = 4096

    @Option(help: "How many workers there may be.")
    var maxWorkers = 4096

    @Option(help: "How many calls one client may have here at once.")
    var maxCallsPerClient = 1 << 21

    @Option(parsing: .unconditional, help: "How many seconds a connection may take to prove its key.")
    var handshakeLimit = 5.0

    @Option(help: "How many calls may wait in all; beyond it clients are told to come back later.")
    var maxQueued = 4 << 20

    @Option(
        help: "How many bytes requests may take here, half of it of one client; beyond it clients are told to wait."
    )
    var maxQueuedBytes = 2 << 30

    @Option(help: "How many bytes a client may leave unread; beyond it its calls wait until it has read half.")
    var maxUnread = 64 << 20

    @Option(help: "How many bytes a request or a reply may take.")
    var maxPayload = 64 << 20

    @Option(
        help: """
            How many bytes a peer may send in one frame, 2097152 at least; as many as a payload may have unless it is given. \
            Give it where clients don't trust each other: all that Drover sends is in smaller frames.
            """
    )
    var maxFrame: Int?

    @Option(
        parsing: .unconditional,
        help: "How many seconds a call waits for a worker that may run it, if there is none."
    )
    var patience = 10.0

    @Option(help: "In how many deaths of workers an idempotent call may be running; then it fails as poison.")
    var maxAttempts = 3

    @Option(parsing: .unconditional, help: "How many seconds between two signs of life.")
    var heartbeat = 2.0

    @Option(parsing: .unconditional, help: "After how many seconds of silence a client or a worker is lost.")
    var silenceLimit = 6.0

    @Option(parsing: .unconditional, help: "How many seconds calls may take when the broker is told to stop.")
    var grace = 30.0

    @Option(help: "What to log: trace, debug, info, notice, warning, error or critical.")
    var logLevel = "info"

    @Flag(help: "Listen where other machines can reach it, without keys: they can do everything, and read all.")
    var allowUnencryptedNetwork = false

    func validate() throws {
        guard Logger.Level(rawValue: self.logLevel) != nil else {
            throw ValidationError("\"\(self.logLevel)\" is no log level; try info or debug")
        }
        guard (self.key == nil) == (self.allowList == nil) else {
            throw ValidationError("--key and --allow-list belong together: the broker's keys, and whose it lets in")
        }
        let times = [
            ("--patience", self.patience), ("--grace", self.grace), ("--heartbeat", self.heartbeat),
            ("--silence-limit", self.silenceLimit), ("--handshake-limit", self.handshakeLimit),
        ]
        for (option, seconds) in times { try checkSeconds(seconds, option) }
        guard let mode = UInt32(self.socketMode, radix: 8), mode <= 0o777 else {
            throw ValidationError("\"\(self.socketMode)\" is no mode; write it as chmod does, such as 660")
        }
        guard self.patience > 0, self.grace >= 0, self.heartbeat > 0, self.silenceLimit > self.heartbeat else {
            throw ValidationError("times must be positive, and the silence limit longer than the heartbeat")
        }
    }

    func run() async throws {
        outliveReaders()
        var configuration = BrokerConfiguration()
        configuration.name = self.name
        configuration.maxQueuedCalls = self.maxQueued
        configuration.maxQueuedBytes = self.maxQueuedBytes
        configuration.maxUnreadBytes = self.maxUnread
        configuration.maxPayloadBytes = self.maxPayload
        configuration.maxFrameBytes = self.maxFrame
        configuration.maxAttempts = self.maxAttempts
        configuration.noWorkerPatience = .seconds(self.patience)
        configuration.heartbeatInterval = .seconds(self.heartbeat)
        configuration.silenceLimit = .seconds(self.silenceLimit)
        configuration.drainGrace = .seconds(self.grace)
        configuration.allowsUnencryptedNetwork = self.allowUnencryptedNetwork
        configuration.socketMode = UInt32(self.socketMode, radix: 8) ?? 0o600
        configuration.maxClients = self.maxClients
        configuration.maxWorkers = self.maxWorkers
        configuration.window = self.maxCallsPerClient
        configuration.handshakeLimit = .seconds(self.handshakeLimit)
        if let key, let allowList {
            guard FileManager.default.fileExists(atPath: allowList) else {
                throw Failure(
                    "there is no allow-list at \(allowList): make it with `drover keys allow NAME KEY --allow-list \(allowList)`"
                )
            }
            configuration.keys = try ListenerKeys(own: ownKeys(key), allowList: allowList)
        } else if !self.allowUnencryptedNetwork, try !Endpoint(self.listen).isLocalToBind {
            throw Failure(
                "\(self.listen) can be reached from other machines, unencrypted and by anybody: bind 127.0.0.1, or give keys by "
                    + "--key and --allow-list, or --allow-unencrypted-network if the network is trusted"
            )
        }
        configuration.logger = Logger(label: "drover.broker") { StreamLogHandler.standardError(label: $0) }
        configuration.logger.logLevel = Logger.Level(rawValue: self.logLevel) ?? .info
        self.raiseDescriptorLimit(configuration.logger)
        let running = try Broker(configuration: configuration).start(self.listen)
        do {
            try FileHandle.standardOutput.write(contentsOf: Data("\(running.endpoint)\n".utf8))
        } catch {
            // The broker runs anyway.
            configuration.logger.warning(
                "the address can't be printed",
                metadata: ["drover.endpoint": "\(running.endpoint)", "drover.error": "\(error.localizedDescription)"]
            )
        }
        await BrokerService(broker: running).run()
    }

    /// Raises the limit: every connection takes a descriptor, and without a free one no peer can connect.
    private func raiseDescriptorLimit(_ logger: Logger) {
        var limit = rlimit()
        let kind = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        guard getrlimit(kind, &limit) == 0 else { return }
        limit.rlim_cur = limit.rlim_max
        _ = setrlimit(kind, &limit)
        let wanted = min(self.maxClients, 1 << 32) + min(self.maxWorkers, 1 << 32) + 256
        guard getrlimit(kind, &limit) == 0, limit.rlim_cur < rlim_t(clamping: wanted) else { return }
        logger.warning(
            "fewer open files are allowed than there may be clients and workers: raise the limit (ulimit -n)",
            metadata: ["drover.limit": "\(limit.rlim_cur)", "drover.wanted": "\(wanted)"]
        )
    }
}
