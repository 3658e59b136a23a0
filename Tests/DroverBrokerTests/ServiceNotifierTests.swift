// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Foundation
import Synchronization
import Testing

@testable import DroverTool

@Suite("What the tool tells a service manager", .timeLimit(.minutes(1)))
struct ServiceNotifierTests {
    /// A manager that listens for datagrams.
    private final class Manager {
        let path: String
        private let descriptor: CInt

        init(isAbstract: Bool) throws {
            let name = "drover-\(UInt64.random(in: 0 ... .max))"
            self.path =
                isAbstract ? "@" + name : FileManager.default.temporaryDirectory.appending(path: name).path
            self.descriptor = socket(AF_UNIX, CInt(SOCK_DGRAM.rawValue), 0)
            var address = sockaddr_un()
            address.sun_family = sa_family_t(AF_UNIX)
            var bytes = Array(self.path.utf8)
            if isAbstract { bytes[0] = 0 }
            withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
            let length = socklen_t(2 + bytes.count + (isAbstract ? 0 : 1))
            let error = withUnsafePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(self.descriptor, $0, length) }
            }
            try #require(error == 0)
        }

        deinit {
            close(self.descriptor)
            if self.path.hasPrefix("/") { unlink(self.path) }
        }

        /// The next message, or nothing within the limit.
        func next(within limit: Duration = .seconds(20)) -> String? {
            var waiting = pollfd(fd: self.descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&waiting, 1, CInt(limit / .milliseconds(1))) == 1 else { return nil }
            var buffer = [UInt8](repeating: 0, count: 4096)
            let count = recv(self.descriptor, &buffer, buffer.count, 0)
            return count < 0 ? nil : String(decoding: buffer[..<count], as: UTF8.self)
        }

        var environment: [String: String] { ["NOTIFY_SOCKET": self.path] }
    }

    @Test("a message arrives at a socket in a folder and at an abstract one", arguments: [false, true])
    func arrives(isAbstract: Bool) throws {
        let manager = try Manager(isAbstract: isAbstract)
        let notifier = try #require(ServiceNotifier(environment: manager.environment))
        #expect(notifier.send("READY=1"))
        #expect(manager.next() == "READY=1")
        notifier.ready("listens")
        #expect(manager.next() == "READY=1\nSTATUS=listens")
        notifier.stopping()
        #expect(manager.next()?.hasPrefix("STOPPING=1") == true)
    }

    @Test("without a manager there is no notifier, and one that is gone or too long hurts nobody")
    func absent() {
        #expect(ServiceNotifier(environment: [:]) == nil)
        #expect(ServiceNotifier(environment: ["NOTIFY_SOCKET": ""]) == nil)
        #expect(ServiceNotifier(environment: ["NOTIFY_SOCKET": "relative"]) == nil)
        #expect(ServiceNotifier(environment: ["NOTIFY_SOCKET": "/nowhere/at/all"])?.send("READY=1") == false)
        let long = "/" + String(repeating: "x", count: 200)
        #expect(ServiceNotifier(environment: ["NOTIFY_SOCKET": long])?.send("READY=1") == false)
    }

    @Test("the watchdog's time is taken if this process is meant")
    func watchdog() {
        func time(_ more: [String: String]) -> Duration? {
            let environment = ["NOTIFY_SOCKET": "/run/notify"].merging(more) { $1 }
            return ServiceNotifier(environment: environment, process: 7)?.watchdog
        }
        #expect(time([:]) == nil)
        #expect(time(["WATCHDOG_USEC": "30000000"]) == .seconds(30))
        #expect(time(["WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"]) == .seconds(30))
        #expect(time(["WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"]) == nil)
        #expect(time(["WATCHDOG_USEC": "0"]) == nil)
        #expect(time(["WATCHDOG_USEC": "soon"]) == nil)
    }

    @Test("life is reported while there is an answer, and no longer")
    func reporting() async throws {
        let manager = try Manager(isAbstract: true)
        let environment = manager.environment.merging(["WATCHDOG_USEC": "40000"]) { $1 }
        let notifier = try #require(ServiceNotifier(environment: environment))
        let looks = Atomic<Int>(0)
        let reporting = Task {
            await notifier.keepReporting { _ in looks.add(1, ordering: .relaxed).newValue <= 3 }
        }
        try await becomesTrue("it has looked ten times") { looks.load(ordering: .relaxed) >= 10 }
        reporting.cancel()
        await reporting.value
        for _ in 1...3 { #expect(manager.next(within: .zero) == "WATCHDOG=1") }
        #expect(manager.next(within: .zero) == nil)
    }

    @Test("a broker whose loop turns responds; one whose loop has ended doesn't")
    func responds() async throws {
        let pool = try Pool(workers: 0)
        #expect(await pool.broker.responds(within: .seconds(20)))
        #expect(await pool.broker.responds(within: .seconds(20)))
        await pool.close()
        #expect(await !pool.broker.responds(within: .milliseconds(100)))
    }

    @Test("drover broker says when it is ready, that it lives, and when it stops")
    func broker() throws {
        let manager = try Manager(isAbstract: true)
        let process = Process()
        process.executableURL = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
            .appending(path: "drover")
        process.arguments = ["broker", "--listen", "tcp://127.0.0.1:*", "--log-level", "critical"]
        process.standardOutput = FileHandle.nullDevice
        process.environment = ProcessInfo.processInfo.environment.merging(manager.environment) { $1 }
            .merging(["WATCHDOG_USEC": "2000000"]) { $1 }
        try process.run()
        defer { if process.isRunning { kill(process.processIdentifier, SIGKILL) } }
        #expect(manager.next()?.hasPrefix("READY=1\nSTATUS=listens at tcp://127.0.0.1:") == true)
        #expect(manager.next() == "WATCHDOG=1")
        #expect(manager.next() == "WATCHDOG=1")
        process.terminate()
        var last = manager.next()
        while last == "WATCHDOG=1" { last = manager.next() }
        #expect(last == "STOPPING=1\nSTATUS=draining")
        process.waitUntilExit()
        #expect(process.terminationStatus == 0)
    }
}
