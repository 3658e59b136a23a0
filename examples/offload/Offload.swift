// SPDX-License-Identifier: Apache-2.0
import Dispatch
import Drover
import Foundation
import Logging

@main
enum Offload {
    static func main() {
        do {
            let arguments = Array(CommandLine.arguments.dropFirst())
            if arguments.first == "worker", arguments.count == 2 {
                try runWorker(at: .bind(arguments[1]))
            } else if arguments.first == "dial", arguments.count == 2 {
                try runWorker(at: .connect(arguments[1]))
            } else if arguments.first == "broker", arguments.count == 2 {
                try runBroker(at: arguments[1])
            } else if let options = try Options(arguments) {
                exit(try run(options) ? 0 : 1)
            }
        } catch {
            FileHandle.standardError.write(Data("offload: \(error)\n".utf8))
            exit(error is UsageFailure ? 2 : 1)
        }
    }

    /// Hashes and checks; true if every digest is right.
    private static func run(_ options: Options) throws -> Bool {
        let files = try FileList(below: options.folder)
        guard !files.paths.isEmpty else { throw Failure("there are no files below \(options.folder)") }
        let workers = WorkerProcesses()
        defer { workers.endAll(politely: true) }
        let interrupts = [SIGINT, SIGTERM].map { endOnSignal($0, workers) }
        defer { for source in interrupts { source.cancel() } }

        let broker = options.isPool ? try workers.start(.broker("tcp://127.0.0.1:*")) : nil
        let pool = try (0..<options.workers)
            .map { _ in
                try workers.start(broker.map { .dialling($0.endpoint) } ?? .worker)
            }
        say(
            "\(files.paths.count) files below \(options.folder); workers: "
                + pool.map { "\($0.pid)" }.joined(separator: ", ")
                + (broker.map { "; broker: \($0.pid)" } ?? "")
        )

        let notes = Notes()
        let endpoints = broker.map { [$0.endpoint] } ?? pool.map { $0.endpoint }
        let client = try Client(endpoints, configuration: configuration(notes, isPool: options.isPool))
        defer { client.closeBlocking() }
        let work = Work(files: files, client: client, notes: notes)
        let incidents = options.kills ? Incident.all(of: pool, broker, workers, files: files.paths.count) : []
        let outcome = try work.run(incidents)
        let report = try Report(outcome, of: files, resends: client.statistics.resends)
        report.show()
        return report.isGood
    }

    private static func configuration(_ notes: Notes, isPool: Bool) -> ClientConfiguration {
        var configuration = ClientConfiguration()
        // Silence decides that a worker is lost; by default after 6 s, which is long to watch.
        configuration.heartbeatInterval = .milliseconds(500)
        configuration.silenceLimit = .seconds(2)
        // It is told below instead, without tearing the progress line apart.
        configuration.logger.logLevel = .error
        configuration.onDisconnect = { lost in
            notes.add(
                isPool
                    ? "lost the broker at \(lost.endpoint): its calls wait for the next"
                    : "lost the worker at \(lost.endpoint): its calls go to the others"
            )
        }
        return configuration
    }

    /// Ends the workers, then this program, when the signal comes.
    private static func endOnSignal(_ number: Int32, _ workers: WorkerProcesses) -> any DispatchSourceSignal {
        signal(number, SIG_IGN)
        let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
        source.setEventHandler {
            workers.endAll(politely: false)
            say("\noffload: interrupted; the workers are ended")
            // Not exit: other threads still use what it would tear down.
            _exit(128 + number)
        }
        source.resume()
        return source
    }
}

/// The command line.
struct Options {
    var folder = "/usr/share/doc"
    var workers = 2
    var kills = true
    /// With a broker between client and workers.
    var isPool = false

    static let help = """
        Usage: offload [--pool] [--workers N] [--no-kill] [FOLDER]

        Hashes every regular file below FOLDER (/usr/share/doc) in worker processes of its own, kills one of them half
        way, finishes anyway, and compares every digest with sha256sum.

          --pool        with a broker in between, which is killed as well; worker and broker are started again
          --workers N   how many worker processes (2, or 4 in a pool)
          --no-kill     let them all live
          --help        this text
        """

    /// Nil if the help was all that was wanted.
    init?(_ arguments: [String]) throws {
        var rest = arguments[...]
        var folders: [String] = []
        var count: Int?
        while let argument = rest.popFirst() {
            switch argument {
            case "--help", "-h":
                say(Self.help)
                return nil
            case "--no-kill": self.kills = false
            case "--pool": self.isPool = true
            case "--workers":
                guard let number = rest.popFirst().flatMap({ Int($0) }), (1...64).contains(number) else {
                    throw UsageFailure("--workers wants a number from 1 to 64")
                }
                count = number
            case _ where argument.hasPrefix("-"):
                throw UsageFailure("there is no option \(argument); see --help")
            default: folders.append(argument)
            }
        }
        guard folders.count <= 1 else { throw UsageFailure("one folder, please; see --help") }
        if let folder = folders.first { self.folder = folder }
        self.workers = count ?? (self.isPool ? 4 : 2)
        // With nobody left to finish the work there would be nothing to see.
        if self.workers == 1, !self.isPool { self.kills = false }
    }
}

/// A command line that can't be understood.
struct UsageFailure: Error, CustomStringConvertible {
    var description: String

    init(_ description: String) { self.description = description }
}
