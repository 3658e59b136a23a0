// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Foundation
import Testing

/// Listens, and says a line to each who connects, as servers do that know nothing of Drover.
private final class GreetingServer: Sendable {
    let endpoint: String
    private let listener: CInt

    init(_ greeting: String) {
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                #expect(bind(listener, address, length) == 0 && listen(listener, 16) == 0)
                #expect(getsockname(listener, address, &length) == 0)
            }
        }
        self.listener = listener
        self.endpoint = "tcp://127.0.0.1:\(UInt16(bigEndian: address.sin_port))"
        Thread.detachNewThread {
            while true {
                let connection = accept(listener, nil, nil)
                guard connection >= 0 else { break }
                _ = send(connection, Array(greeting.utf8), greeting.utf8.count, Int32(MSG_NOSIGNAL))
                usleep(10_000)
                Glibc.close(connection)
            }
            Glibc.close(listener)
        }
    }

    func stop() { shutdown(self.listener, Int32(SHUT_RDWR)) }
}

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
        try self.run(arguments, broker: broker)
    }

    private func run(_ arguments: [String], broker: String? = nil) throws -> Run {
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

        let why = try self.run("why", "#7", broker: endpoint)
        #expect(why.status == 1 && why.errors.contains("the broker has no call #7"))
        #expect(try self.run("why", "seven", broker: endpoint).status == 64)
        let cancel = try self.run("cancel", "#7", "--client", "web", broker: endpoint)
        #expect(cancel.status == 1 && cancel.errors.contains("the broker has no call #7 of web"))
        #expect(try self.run("cancel", "seven", broker: endpoint).status == 64)
        let worker = try WorkerProcess(dialling: endpoint)
        while try self.run("workers", broker: endpoint).output == "no workers\n" { usleep(20_000) }
        let listed = try self.run("workers", "--json", broker: endpoint).output
        let workers = try #require(try JSONSerialization.jsonObject(with: Data(listed.utf8)) as? [[String: Any]])
        let name = try #require(workers.first?["name"] as? String)
        #expect(try self.run("workers", "quiet", name, broker: endpoint).output == "\(name) was told to be quiet\n")
        #expect(try self.run("workers", "resume", name, "--json", broker: endpoint).output.contains("\"resume\""))
        let nobody = try self.run("workers", "stop", "nobody", broker: endpoint)
        #expect(nobody.status == 1 && nobody.errors.contains("no worker is called nobody"))
        #expect(try self.run("workers", "stop", name, broker: endpoint).status == 0)
        while worker.isRunning { usleep(20_000) }

        let second = try self.run("broker", "--listen", endpoint)
        #expect(second.status == 1)
        #expect(second.errors.contains("Address already in use"))

        #expect(broker.terminate() == 0)
    }

    @Test("S104 an allow-list that 20 processes change at once says what the last command of each of them said")
    func hammered() throws {
        let folder = URL(filePath: NSTemporaryDirectory()).appending(path: "drover-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let list = folder.appending(path: "allow").path
        var expected: Set<String> = []
        var processes: [(process: Process, errors: Pipe)] = []
        for number in 0..<20 {
            let key = try KeyPair().publicKey.text
            let allow = "allow p\(number) \"$KEY\" --rights"
            // What each says last differs: two that are let in, with different rights, and one that isn't.
            let commands = [
                ["\(allow) submit", "revoke p\(number)", "\(allow) work --functions f\(number)"],
                ["\(allow) submit", "revoke \"$KEY\"", "\(allow) submit,cancel", "revoke p\(number)"],
                ["\(allow) work", "list", "revoke p\(number)", "\(allow) submit --queues q\(number),-"],
            ][number % 3]
            switch number % 3 {
            case 0: expected.insert("p\(number)  \(key)  work  functions=f\(number)")
            case 2: expected.insert("p\(number)  \(key)  submit  queues=-,q\(number)")
            default: break
            }
            let process = Process()
            let errors = Pipe()
            process.executableURL = URL(filePath: "/bin/sh")
            process.arguments = ["-ec", commands.map { "\"$TOOL\" keys \($0)" }.joined(separator: "; ")]
            process.environment = ["KEY": key, "TOOL": Self.tool.path(), "DROVER_ALLOW_LIST": list]
            process.standardOutput = FileHandle.nullDevice
            process.standardError = errors
            processes.append((process, errors))
        }
        for (process, _) in processes { try process.run() }
        for (process, errors) in processes {
            let text = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
            process.waitUntilExit()
            #expect(process.terminationStatus == 0 && text.isEmpty, "\(text)")
        }
        let lines = try String(contentsOfFile: list, encoding: .utf8).split(separator: "\n").map { String($0) }
        #expect(Set(lines) == expected && lines.count == expected.count)
        // Nothing is left beside it.
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["allow"])
    }

    @Test("what can't be done ends with a status that isn't zero, and says the cause and the remedy")
    func problems() throws {
        let nobody = try self.run("status", "--broker", "tcp://127.0.0.1:1", "--timeout", "0.3")
        #expect(nobody.status == 1)
        #expect(nobody.errors.contains("nobody listens there"))
        let open = try self.run("broker", "--listen", "tcp://0.0.0.0:*")
        #expect(open.status == 1)
        #expect(open.errors.contains("can be reached from other machines"))
        #expect(open.errors.contains("--allow-unencrypted-network"))
        #expect(open.errors.contains("--key and --allow-list"))
        let away = try self.run("status", "--broker", "tcp://192.0.2.1:5570")
        #expect(away.status == 1)
        #expect(away.errors.contains("--allow-unencrypted-network"))
        #expect(try self.run("broker", "--key", "absent.key").status == 64)
        let level = try self.run("broker", "--log-level", "loud")
        #expect(level.status == 64)
        #expect(level.errors.contains("no log level"))
        #expect(try self.run("frobnicate").status == 64)
        let unknown = try self.run(
            "status",
            "--allow-unencrypted-network",
            "--broker",
            "tcp://no-such-host.invalid:5570"
        )
        #expect(unknown.status == 1)
        #expect(unknown.errors.contains("no-such-host.invalid can't be looked up"))
        let folder = URL(filePath: NSTemporaryDirectory()).appending(path: "drover-\(UUID().uuidString)").path()
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let file = folder + "/key"
        #expect(try self.run("keys", "new", file).status == 0)
        let noKey = try self.run("status", "--key", file, "--server-key", "bogus")
        #expect(
            noKey.status == 1 && noKey.errors.contains("bogus is no public key, which has 40 characters"),
            "\(noKey.errors)"
        )
        let publicOne = try self.run("status", "--key", file + ".pub", "--server-key", file + ".pub")
        #expect(publicOne.status == 1 && publicOne.errors.contains("holds a public key"), "\(publicOne.errors)")
        let noList = try self.run("broker", "--key", file, "--allow-list", folder + "/absent")
        #expect(noList.status == 1 && noList.errors.contains("drover keys allow"), "\(noList.errors)")
        let help = try self.run("--help")
        #expect(help.status == 0)
        #expect(help.output.contains("SUBCOMMANDS"))
    }

    @Test("at a closed port every verb that asks says so in one sentence, at once")
    func closedPort() throws {
        // The program's start is part of it; the first one reads it from the disk.
        _ = try self.run("--version")
        let verbs = [
            ["status"], ["workers"], ["queues"], ["ping"], ["top"], ["why"], ["why", "1"], ["cancel", "1"],
            ["workers", "stop", "a"],
        ]
        var quickest = Duration.seconds(60)
        for verb in verbs {
            let started = ContinuousClock.now
            let run = try self.run(verb, broker: "tcp://127.0.0.1:1")
            quickest = min(quickest, .now - started)
            #expect(run.status == 1)
            #expect(run.output == "")
            let expected =
                "Error: no broker can be reached: tcp://127.0.0.1:1: nobody listens there; start one there (drover broker), or "
                + "name another by --broker\n"
            #expect(run.errors == expected, "\(verb)")
        }
        // Five seconds it was; a machine under load takes some time to start a program.
        let isSanitized = ProcessInfo.processInfo.environment["DROVER_SANITIZED"] != nil
        #expect(quickest < .seconds(isSanitized ? 4 : 1), "\(quickest)")
    }

    @Test("what speaks another protocol is told as that, at once")
    func otherProtocol() throws {
        let server = GreetingServer("SSH-2.0-OpenSSH_9.2\r\n")
        defer { server.stop() }
        let started = ContinuousClock.now
        let run = try self.run("status", broker: server.endpoint)
        #expect(run.status == 1)
        #expect(run.errors.contains("does not speak ZeroMQ"), "\(run.errors)")
        #expect(.now - started < .seconds(3))
    }

    @Test("a broker that is stopped, or isn't given the time to answer, is told as that")
    func stoppedBroker() throws {
        let broker = try BrokerProcess(at: "tcp://127.0.0.1:*", "--log-level", "critical")
        defer { broker.kill() }
        #expect(kill(broker.pid, SIGSTOP) == 0)
        let stopped = try self.run("status", "--timeout", "0.5", broker: broker.endpoint)
        #expect(stopped.status == 1)
        #expect(stopped.errors.contains("has accepted the connection and says nothing"), "\(stopped.errors)")
        #expect(stopped.errors.contains("it may be stopped"), "\(stopped.errors)")
        let hasty = try self.run("status", "--timeout", "0.000001", broker: broker.endpoint)
        #expect(hasty.status == 1)
        #expect(hasty.errors.contains("more --timeout"), "\(hasty.errors)")
    }

    @Test("a broker that drains is asked as before, and says what is left")
    func drainingBroker() async throws {
        let pool = try Pool()
        let client = try pool.client()
        let held = try client.function(Job.hold).async("gate")
        try await becomesTrue("the handler runs") { pool.gates.entered == ["gate"] }
        pool.broker.drain(grace: .seconds(20))
        try await becomesTrue("it drains") { pool.broker.status.isDraining }
        let status = try self.run("status", "--json", broker: pool.endpoint)
        let object = try #require(try JSONSerialization.jsonObject(with: Data(status.output.utf8)) as? [String: Any])
        #expect(object["isDraining"] as? Bool == true)
        let workers = try self.run("workers", broker: pool.endpoint)
        #expect(workers.status == 0 && workers.output.contains("worker 0"), "\(workers)")
        pool.gates.open("gate")
        #expect(try await held.value == "worker 0")
        await pool.close()
    }

    @Test("who only looks isn't counted as a client")
    func onlookers() async throws {
        let broker = try BrokerProcess(at: "tcp://127.0.0.1:*", "--log-level", "critical")
        func clients() throws -> Int? {
            let json = try self.run("status", "--json", broker: broker.endpoint).output
            let object = try JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any]
            return object?["clients"] as? Int
        }
        let top = Process()
        top.executableURL = Self.tool
        top.arguments = ["top", "--broker", broker.endpoint, "--interval", "0.1"]
        let shown = Pipe()
        top.standardOutput = shown
        try top.run()
        defer {
            top.terminate()
            top.waitUntilExit()
        }
        #expect(!shown.fileHandleForReading.availableData.isEmpty)
        #expect(try clients() == 0)
        let client = try Client(broker.endpoint)
        try await client.connect()
        #expect(try clients() == 1)
        // Who asks and calls is one, too.
        _ = try await client.call(.brokerStatus)
        let call = try client.function(Function<Int>("nobody")).async()
        while try clients() != 1 { usleep(10_000) }
        call.cancel()
        await client.close()
    }

    @Test("the ids that why and cancel want are shown, with the calls that have waited longest first")
    func ids() async throws {
        let broker = try BrokerProcess(at: "tcp://127.0.0.1:*", "--patience", "60", "--log-level", "critical")
        var configuration = ClientConfiguration()
        configuration.name = "web"
        let client = try Client(broker.endpoint, configuration: configuration)
        try await client.connect()
        #expect(try self.run("why", broker: broker.endpoint).output == "the broker has no calls\n")
        let first = try client.function(Function<Int>("render")).async()
        try await Task.sleep(for: .milliseconds(20))
        let second = try client.function(Function<Int>("render")).async()
        while !(try self.run("queues", broker: broker.endpoint).output.contains(" 2 ")) { usleep(10_000) }
        let queues = try self.run("queues", broker: broker.endpoint).output
        #expect(queues.contains("OLDEST") && queues.contains(" \(first.correlationID) "), "\(queues)")
        let listed = try self.run("why", broker: broker.endpoint).output.split(separator: "\n")
        #expect(listed.count == 3, "\(listed)")
        #expect(
            listed[1].hasPrefix("  \(first.correlationID)  web") || listed[1].contains("\(first.correlationID)  web")
        )
        #expect(listed[2].contains("\(second.correlationID)  web"))
        #expect(listed[1].contains("no worker has offered itself"))
        #expect(try self.run("why", "--client", "mail", broker: broker.endpoint).output == "the broker has no calls\n")
        let limited = try self.run("why", "--count", "1", "--json", broker: broker.endpoint).output
        let calls = try #require(try JSONSerialization.jsonObject(with: Data(limited.utf8)) as? [[String: Any]])
        #expect(calls.count == 1 && calls[0]["secondsHere"] is Double)
        #expect(try self.run("cancel", "\(first.correlationID)", broker: broker.endpoint).status == 0)
        await #expect(throws: RemoteError.self) { try await first.value }
        second.cancel()
        await client.close()
    }

    @Test(
        "help texts are wrapped once, by who shows them",
        arguments: [
            [], ["broker"], ["status"], ["workers"], ["workers", "list"], ["workers", "quiet"], ["workers", "stop"],
            ["queues"],
            ["top"], ["why"], ["cancel"], ["ping"], ["keys"], ["keys", "new"], ["keys", "list"], ["keys", "allow"],
            ["keys", "revoke"],
        ]
    )
    func wrapping(verb: [String]) throws {
        let help = try self.run(verb + ["--help"])
        #expect(help.status == 0)
        let lines = help.output.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        let end = lines.firstIndex { $0.hasPrefix("USAGE:") } ?? lines.count
        #expect(lines[..<end].allSatisfy { $0.count <= 80 })
        for (line, next) in zip(lines[..<end], lines[..<end].dropFirst()) {
            // A line that goes on in the next one had no room for its first word.
            guard let word = next.split(separator: " ").first, !next.hasPrefix(" "), !line.hasPrefix(" "), !line.isEmpty
            else { continue }
            #expect(line.count + 1 + word.count > 79, "\(line)\n\(next)")
        }
    }

    @Test("keys are made, allowed, listed, used and revoked by the tool alone")
    func keys() throws {
        let folder = URL(filePath: NSTemporaryDirectory()).appending(path: "drover-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        func path(_ name: String) -> String { folder.appending(path: name).path }
        for name in ["broker.key", "web.key", "root.key"] {
            let made = try self.run("keys", "new", path(name))
            #expect(made.status == 0, "\(made.errors)")
            #expect(made.output.count == 41)
        }
        let again = try self.run("keys", "new", path("web.key"))
        #expect(again.status == 1)
        #expect(again.errors.contains("is there already"))
        let json = try self.run("keys", "new", "--json", path("spare.key"))
        #expect(json.output.contains("\"publicFile\""))

        let list = ["--allow-list", path("allow")]
        func allow(_ arguments: String...) throws -> Run { try self.run(["keys", "allow"] + arguments + list) }
        #expect(try allow("web", path("web.key.pub"), "--queues", "mail,-").status == 0)
        #expect(try allow("root", path("root.key.pub"), "--rights", "submit,admin").status == 0)
        #expect(try allow("web", path("web.key.pub")).errors.contains("already"))
        #expect(try allow("web", path("spare.key.pub"), "--rights", "fly").errors.contains("rights are"))
        #expect(try allow("web", path("absent.pub")).errors.contains("absent.pub"))
        #expect(try allow("two words", path("spare.key.pub")).errors.contains("without spaces"))
        let shown = try self.run(["keys", "list"] + list)
        #expect(shown.output.contains("PRINCIPAL") && shown.output.contains("-,mail") && shown.output.contains("all"))
        let data = Data(try self.run(["keys", "list", "--json"] + list).output.utf8)
        let entries = try #require(try JSONSerialization.jsonObject(with: data) as? [[String: Any]])
        #expect(entries.count == 2)
        #expect(entries.last?["rights"] as? [String] == ["submit", "admin"])

        let process = Process()
        let output = Pipe()
        process.executableURL = Self.tool
        process.arguments =
            ["broker", "--listen", "tcp://127.0.0.1:*", "--log-level", "critical", "--key", path("broker.key")] + list
        process.standardOutput = output
        try process.run()
        defer { if process.isRunning { kill(process.processIdentifier, SIGKILL) } }
        let line = String(decoding: output.fileHandleForReading.availableData, as: UTF8.self)
        let endpoint = line.trimmingCharacters(in: .newlines)
        func ask(_ verb: String, _ key: String) throws -> Run {
            try self.run([verb, "--broker", endpoint, "--key", path(key), "--server-key", path("broker.key.pub")])
        }
        #expect(try ask("status", "web.key").status == 0)
        #expect(try ask("ping", "web.key").status == 0)
        #expect(try ask("workers", "root.key").output == "no workers\n")
        let forbidden = try ask("workers", "web.key")
        #expect(forbidden.status == 1)
        #expect(forbidden.errors.contains("right admin"))
        let unknown = try ask("status", "spare.key")
        #expect(unknown.status == 1)
        #expect(unknown.errors.contains("drover keys allow"))
        let half = try self.run("status", "--broker", endpoint, "--key", path("web.key"))
        #expect(half.errors.contains("--server-key"))

        #expect(try self.run(["keys", "revoke", "web"] + list).output == "revoked 1 key\n")
        #expect(try self.run(["keys", "revoke", "web"] + list).status == 1)
        let deadline = ContinuousClock.now + .seconds(10)
        while try ask("status", "web.key").status == 0, ContinuousClock.now < deadline {}
        let revoked = try ask("status", "web.key")
        #expect(revoked.status == 1)
        #expect(revoked.errors.contains("drover keys allow"))
        #expect(try ask("status", "root.key").status == 0)
        try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: path("root.key"))
        #expect(try ask("status", "root.key").errors.contains("chmod 600"))
        process.terminate()
        process.waitUntilExit()
        #expect(process.terminationStatus == 0)
    }

    @Test("keys that are allowed and revoked by twenty processes at once all count")
    func keysAtOnce() throws {
        let folder = URL(filePath: NSTemporaryDirectory()).appending(path: "drover-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let list = folder.appending(path: "allow").path
        let keys = try (0..<20).map { _ in try KeyPair().publicKey.text }
        let lines = keys.prefix(10).enumerated().map { "present-\($0.offset) \($0.element) submit\n" }
        // The list doesn't exist at first in the last round: all twenty make it.
        for round in 0..<4 {
            let present = round < 3 ? keys.prefix(10) : []
            if round < 3 {
                try Data("# ours\n\(lines.joined())".utf8).write(to: URL(filePath: list))
            } else {
                try FileManager.default.removeItem(atPath: list)
            }
            let processes = try keys.enumerated()
                .map { index, key in
                    let process = Process()
                    process.executableURL = Self.tool
                    process.arguments =
                        present.contains(key)
                        ? ["keys", "revoke", "present-\(index)", "--allow-list", list]
                        : ["keys", "allow", "new-\(index)", key, "--allow-list", list]
                    process.standardOutput = FileHandle.nullDevice
                    try process.run()
                    return process
                }
            for process in processes {
                process.waitUntilExit()
                #expect(process.terminationStatus == 0)
            }
            let text = try String(contentsOfFile: list, encoding: .utf8)
            let entries = text.split(separator: "\n").filter { !$0.hasPrefix("#") }
            let left = Set(entries.map { $0.split(separator: " ")[1] })
            #expect(left == Set(keys.filter { !present.contains($0) }.map { Substring($0) }))
            #expect(text.hasPrefix("# ours") == (round < 3))
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["allow"])
        }
        // A key of another tool may look like an option.
        let dashed = "-" + keys[0].dropFirst()
        #expect(try self.run("keys", "allow", "--allow-list", list, "--", "dash", dashed).status == 0)
        #expect(try self.run("keys", "revoke", "--allow-list", list, "--", dashed).output == "revoked 1 key\n")
        // What is refused leaves no file behind.
        try FileManager.default.removeItem(atPath: list)
        let refused = try self.run("keys", "allow", "web", keys[0], "--rights", "fly", "--allow-list", list)
        #expect(refused.status == 1 && !FileManager.default.fileExists(atPath: list))
        #expect(try self.run("keys", "revoke", "web", "--allow-list", list).status == 1)
        #expect(!FileManager.default.fileExists(atPath: list))
    }

    @Test("what peers call themselves and their functions can't write to the terminal of who looks")
    func escapes() async throws {
        let broker = try BrokerProcess(at: "tcp://127.0.0.1:*", "--name", "b\u{1B}[31m", "--log-level", "critical")
        let endpoint = broker.endpoint
        var configuration = WorkerConfiguration()
        // The broker gives workers up that are silent for longer.
        configuration.heartbeatInterval = .milliseconds(300)
        configuration.name = "evil\u{1B}[2J\nroot  ready"
        configuration.labels = ["zone\u{9B}": "\u{202E}a"]
        let worker = Worker(configuration: configuration)
        let function = Function<Int, Int>("f\u{1B}]0;title\u{7}")
        worker.register(function) { (number: Int) in number }
        let running = try worker.start(.connect(endpoint))
        let client = try Client(endpoint)
        #expect(try await client.call(function, 1, timeout: .seconds(20)) == 1)
        await client.close()
        let verbs = [
            ["status"], ["workers"], ["queues"], ["ping"], ["top", "--count", "1"], ["why", "#1"],
            ["workers", "quiet", configuration.name], ["workers", "quiet", "\u{1B}[2J"],
        ]
        for verb in verbs {
            let run = try self.run(verb, broker: endpoint)
            for scalar in (run.output + run.errors).unicodeScalars where scalar != "\n" {
                let isPlain =
                    scalar.properties.generalCategory != .control && scalar.properties.generalCategory != .format
                #expect(isPlain, "\(verb): \(run.output.debugDescription)")
            }
        }
        #expect(try self.run("workers", broker: endpoint).output.contains(#"evil\u{1B}[2J\nroot"#))
        // For programs it is what it is.
        let data = Data(try self.run("workers", "--json", broker: endpoint).output.utf8)
        let workers = try #require(try JSONSerialization.jsonObject(with: data) as? [[String: Any]])
        #expect(workers.first?["name"] as? String == configuration.name)
        await running.stop()
    }

    @Test("times that aren't numbers of seconds, or that no clock holds, are refused")
    func times() throws {
        for (option, others) in [
            ("--patience", []), ("--grace", []), ("--handshake-limit", []), ("--silence-limit", []),
            ("--heartbeat", ["--silence-limit", "1e31"]),
        ] {
            for value in ["inf", "nan", "1e30"] {
                let run = try self.run(["broker", "--listen", "tcp://127.0.0.1:*", option, value] + others)
                #expect(run.status == 64 && run.errors.contains("must be a number of seconds"), "\(option) \(value)")
            }
        }
        #expect(try self.run("status", "--timeout", "inf").status == 64)
        #expect(try self.run("workers", "stop", "w", "--grace", "inf").status == 64)
    }

    @Test("a verb that was mistyped is named with the one that was probably meant")
    func mistyped() throws {
        for (typed, meant) in [
            (["statsu"], "status"), (["workers", "stpo", "w1"], "workers stop"), (["stop", "w1"], "workers stop"),
            (["keys", "alow"], "keys allow"), (["pign", "--json"], "ping"),
        ] {
            let run = try self.run(typed)
            #expect(run.status == 64 && run.output.isEmpty)
            #expect(run.errors.contains("did you mean \"drover \(meant)\"?"), "\(run.errors)")
        }
        let strange = try self.run("frobnicate")
        #expect(strange.status == 64 && !strange.errors.contains("mean"))
        #expect(strange.errors.contains("\"drover --help\" lists what there is"))
    }

    @Test("a call's id that is no number, and a time below zero, are told as that")
    func numbers() throws {
        for verb in ["why", "cancel"] {
            let run = try self.run(verb, "abc")
            #expect(run.status == 64 && run.errors.contains("named by its correlation id, such as 42"), "\(run.errors)")
        }
        let early = try self.run("status", "--timeout", "-1")
        #expect(early.status == 64 && early.errors.contains("--timeout must be positive"), "\(early.errors)")
        let grace = try self.run("workers", "stop", "w", "--grace", "-1")
        #expect(grace.status == 64 && grace.errors.contains("grace can't be negative"), "\(grace.errors)")
    }

    /// A broker in a shell, which redirects its streams, and its log.
    private func broker(_ redirection: String) throws -> (process: Process, log: FileHandle) {
        let (process, log) = (Process(), Pipe())
        process.executableURL = URL(filePath: "/bin/sh")
        process.arguments = ["-c", "exec '\(Self.tool.path())' broker --listen 'tcp://127.0.0.1:*' \(redirection)"]
        process.standardError = log
        process.standardOutput = FileHandle.nullDevice
        try process.run()
        return (process, log.fileHandleForReading)
    }

    /// The endpoint that the log names.
    private func endpoint(in log: FileHandle) -> String {
        var text = ""
        while !text.contains("drover.endpoint=tcp://127.0.0.1:") || !text.hasSuffix("\n") {
            let more = log.availableData
            guard !more.isEmpty else { break }
            text += String(decoding: more, as: UTF8.self)
        }
        return text.split(separator: "drover.endpoint=").last.map { String($0.prefix { !$0.isWhitespace }) } ?? ""
    }

    @Test(
        "a broker outlives who reads its log, and needs nobody to read its address",
        arguments: [
            "", ">/dev/full", ">&- <&-", "--max-clients \(Int.max) --max-workers \(Int.max) --max-unread \(Int.max)",
        ]
    )
    func readers(redirection: String) throws {
        let (process, log) = try self.broker(redirection)
        defer { process.terminate() }
        let endpoint = self.endpoint(in: log)
        #expect(endpoint.hasPrefix("tcp://127.0.0.1:"))
        try log.close()
        // It logs that a worker has come.
        let worker = try WorkerProcess(dialling: endpoint)
        while process.isRunning, try self.run("workers", broker: endpoint).output == "no workers\n" { usleep(20_000) }
        worker.kill()
        while process.isRunning, try self.run("workers", broker: endpoint).output != "no workers\n" { usleep(20_000) }
        #expect(process.isRunning)
        process.terminate()
        process.waitUntilExit()
        #expect(process.terminationStatus == 0 && process.terminationReason == .exit)
    }
}
