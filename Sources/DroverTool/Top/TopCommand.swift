// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Drover
import DroverBroker
import Foundation

/// `drover top`: shows a broker, live.
struct TopCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "top",
        abstract: "Watch a broker: slots, workers, rates, and what waits.",
        discussion: """
            Fills the terminal and keeps to its size. Keys: q quits, space looks at once, + and - change the interval.

            Without a terminal it prints plain text, one view after the other; with --json one object a line.
            """
    )

    @OptionGroup var options: AskOptions

    @Option(name: [.long, .short], help: "How many seconds between two looks.")
    var interval = 1.0

    @Option(name: [.long, .short], help: "How many looks; without it, until told to stop.")
    var count: Int?

    func validate() throws {
        guard (0.1...3600).contains(self.interval) else {
            throw ValidationError("interval must be 0.1 to 3600 seconds")
        }
        guard self.count ?? 1 > 0 else { throw ValidationError("count must be at least 1") }
    }

    func run() async throws {
        try await self.options.ask { client in
            if !self.options.json, let terminal = Terminal() {
                defer { terminal.close() }
                await self.watch(client, on: terminal)
            } else {
                try await self.print(client)
            }
        }
    }

    private func look(_ client: Client) async throws -> TopSnapshot {
        let expiry = CallOptions(expiry: .seconds(self.options.timeout))
        async let status = client.function(.brokerStatus, options: expiry)()
        async let workers = client.function(.brokerWorkers, options: expiry)()
        async let queues = client.function(.brokerQueues, options: expiry)()
        return try await TopSnapshot(status: status, workers: workers, queues: queues)
    }

    // MARK: On a terminal

    private enum Step: Sendable {
        case terminal(Terminal.Event)
        case looked(Result<TopSnapshot, any Error>, at: ContinuousClock.Instant)
    }

    private func watch(_ client: Client, on terminal: Terminal) async {
        var screen = TopScreen(address: self.options.address)
        var (interval, looks) = (self.interval, 0)
        var lastLook: ContinuousClock.Instant?
        let (steps, continuation) = AsyncStream<Step>.makeStream()
        let events = terminal.events
        let forwarding = Task {
            for await event in events { continuation.yield(.terminal(event)) }
        }
        var looking: Task<Void, Never>?
        func look(after seconds: Double) {
            looking?.cancel()
            looking = Task {
                do { try await Task.sleep(for: .seconds(seconds)) } catch { return }
                let result: Result<TopSnapshot, any Error>
                do { result = .success(try await self.look(client)) } catch {
                    result = .failure(self.options.failure(error, of: client))
                }
                if !Task.isCancelled { continuation.yield(.looked(result, at: .now)) }
            }
        }
        func draw() {
            let (width, height) = terminal.size
            var lines = screen.lines(width: width, height: height - 1)
            lines += Array(repeating: "", count: max(0, height - 1 - lines.count))
            let keys = "q quit   space look now   +/- interval \(String(format: "%g", interval)) s"
            terminal.show(lines + [String(keys.prefix(width - 1))])
        }
        draw()
        look(after: 0)
        defer {
            looking?.cancel()
            forwarding.cancel()
        }
        for await step in steps {
            switch step {
            case .terminal(.quit), .terminal(.key(UInt8(ascii: "q"))), .terminal(.key(0x1B)): return
            case .terminal(.key(UInt8(ascii: " "))): look(after: 0)
            case .terminal(.key(UInt8(ascii: "+"))): interval = min(60, interval * 2)
            case .terminal(.key(UInt8(ascii: "-"))): interval = max(0.125, interval / 2)
            case .terminal: break
            case .looked(.success(let snapshot), let instant):
                screen.take(snapshot, after: lastLook.map { (instant - $0) / .seconds(1) } ?? 0)
                lastLook = instant
                looks += 1
                if looks == self.count { return }
                look(after: interval)
            case .looked(.failure(let error), _):
                screen.problem = "\(error)"
                look(after: interval)
            }
            draw()
        }
    }

    // MARK: Without a terminal

    private func print(_ client: Client) async throws {
        var screen = TopScreen(address: self.options.address)
        var lastLook: ContinuousClock.Instant?
        var looks = 0
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        while true {
            let snapshot = try await self.look(client)
            let instant = ContinuousClock.now
            screen.take(snapshot, after: lastLook.map { (instant - $0) / .seconds(1) } ?? 0)
            lastLook = instant
            let text =
                self.options.json
                ? String(decoding: try encoder.encode(snapshot), as: UTF8.self)
                : screen.lines(width: 120, height: 200).joined(separator: "\n") + "\n"
            try FileHandle.standardOutput.write(contentsOf: Data("\(text)\n".utf8))
            looks += 1
            if looks == self.count { return }
            try await Task.sleep(for: .seconds(self.interval))
        }
    }
}
