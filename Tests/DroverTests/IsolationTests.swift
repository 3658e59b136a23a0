// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverZMQ
import Foundation
import Testing

extension ServingTests {
    /// Handlers that run in child processes of a worker, which is a process itself.
    @Suite(.serialized)
    struct IsolationTests {}
}

extension ServingTests.IsolationTests {
    private static let pid = Function<Int32>("isolatedPid")
    private static let bytes = Function<[UInt8], [UInt8]>("isolatedBytes")
    private static let sleep = Function<Double, String, String>("isolatedSleep")
    private static let fail = Function<String, Nothing>("isolatedFail")
    private static let crash = Function<String, Nothing>("isolatedCrash")
    private static let sureCrash = Function<String, Nothing>("isolatedSureCrash", isIdempotent: true)
    private static let family = Function<String, Nothing>("isolatedFamily")

    private struct IsolatedError: Error, Codable {
        let reason: String
    }

    /// Runs `body` with a worker in a process of its own and a client of it, and ends both.
    private func withWorker(_ body: (WorkerProcess, Client) throws -> Void) throws {
        // A crashed handler's stack is of no interest.
        let environment = ["SWIFT_BACKTRACE": "enable=no"]
        let worker = try WorkerProcess(
            arguments: ["serve", "tcp://127.0.0.1:*"],
            environment: environment,
            isWorker: true
        )
        defer { worker.end() }
        let client = try Client.forTest(worker.endpoint)
        defer { client.closeBlocking() }
        try body(worker, client)
    }

    /// Whether a process is over, be it that nobody has reaped it.
    private func isGone(_ pid: pid_t) -> Bool {
        guard kill(pid, 0) == 0 else { return true }
        let stat = (try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8)) ?? ""
        return stat.isEmpty || stat.contains(") Z ")
    }

    /// Lets a handler raise a child of its own, and tells both their pids.
    private func raiseFamily(
        _ client: Client,
        as name: String = "usual",
        by function: Function<String, Nothing> = family
    ) throws -> (AsyncResult<Nothing>, [pid_t]) {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("family-\(UUID()).\(name)").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        let result = try client.function(function).async(path)
        var pids: [pid_t] = []
        eventually("the handler has a child") {
            pids = ((try? String(contentsOfFile: path, encoding: .utf8)) ?? "").split(separator: " ")
                .compactMap { pid_t($0) }
            return pids.count == 2 || result.isTerminal
        }
        try #require(pids.count == 2, "\(result)")
        for pid in pids { #expect(!self.isGone(pid)) }
        return (result, pids)
    }

    /// The most memory that a process had, in bytes.
    private func peakMemory(of pid: pid_t) throws -> Int {
        let status = try String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)
        let line = try #require(status.split(separator: "\n").first { $0.hasPrefix("VmHWM:") })
        return try #require(line.split(separator: " ").dropFirst().first.flatMap { Int($0) }) * 1024
    }

    @Test("S104 a child that announces gigabytes makes the worker set aside nothing", .timeLimit(.minutes(1)))
    func forgedFrames() throws {
        try self.withWorker { worker, client in
            let forge = client.function(Function<String, Nothing>("isolatedForge"))
            let error = #expect(throws: RemoteError.self) { try forge.blocking("error") }
            #expect(error?.code == .crashed)
            #expect(
                error?.message.contains("announced an error of 4294967000 bytes") == true,
                "\(String(describing: error))"
            )
            #expect(throws: RemoteError.self) { try forge.blocking("value") }
            let peak = try self.peakMemory(of: worker.pid)
            #expect(peak < 1 << 30)
            #expect(try client.function(Self.bytes).blocking([1, 2]) == [1, 2])
        }
    }

    @Test("handlers run in a child that serves call after call", .timeLimit(.minutes(1)))
    func reuse() throws {
        try self.withWorker { worker, client in
            let pid = client.function(Self.pid)
            let first = try pid.blocking()
            #expect(first != worker.pid)
            for _ in 0..<20 { #expect(try pid.blocking() == first) }
            let asynchronous = client.function(Function<Double, Int32>("isolatedAsync"))
            #expect(try asynchronous.blocking(0.01) == first)
            #expect(try client.function(Function<Int32>("pid")).blocking() == worker.pid)
            #expect(try client.function(Function<Int, Int>("isolatedReply")).blocking(7) == 7)
            #expect(try client.function(Job.echo).blocking(7) == 7)
        }
    }

    @Test("no more children than handlers that run at once", .timeLimit(.minutes(1)))
    func bound() throws {
        try self.withWorker { worker, client in
            let sleep = client.function(Self.sleep)
            let results = try (0..<12).map { try sleep.async(0.05, "\($0)") }
            for (index, result) in results.enumerated() { #expect(try result.get() == "\(index)") }
            let children = try FileManager.default.contentsOfDirectory(atPath: "/proc")
                .filter { entry in
                    let stat = (try? String(contentsOfFile: "/proc/\(entry)/stat", encoding: .utf8)) ?? ""
                    let fields = stat.split(separator: ")").last?.split(separator: " ") ?? []
                    return pid_t(entry) != nil && fields.count > 1 && pid_t(fields[1]) == worker.pid
                }
            #expect((1...4).contains(children.count), "\(children)")
        }
    }

    @Test("large arguments and results cross", .timeLimit(.minutes(1)))
    func large() throws {
        try self.withWorker { _, client in
            let bytes = client.function(Self.bytes)
            for count in [0, 1, 4096, 70_000, 5 << 20] {
                let sent = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) }
                // Compared by hand: a failed expectation would print them all.
                let isEqual = try bytes.blocking(sent) == sent
                #expect(isEqual, "\(count) bytes")
            }
        }
    }

    @Test("what a handler throws crosses whole, and its child goes on", .timeLimit(.minutes(1)))
    func thrown() throws {
        try self.withWorker { _, client in
            let pid = try client.function(Self.pid).blocking()
            let fail = client.function(Self.fail)
            let error = try #require(throws: RemoteError.self) { _ = try fail.blocking("as asked") }
            #expect(error.code == .failed)
            #expect(error.type == "IsolatedError")
            #expect(error.decode(as: IsolatedError.self)?.reason == "as asked")
            #expect(error.worker.hasPrefix("fault-worker-"))
            #expect(!error.worker.hasSuffix("-\(pid)"))
            let strange = client.function(Function<String, [UInt8]>("isolatedBytes"))
            let refusal = try #require(throws: RemoteError.self) { _ = try strange.blocking("no bytes") }
            #expect(refusal.code == .badArguments)
            #expect(try client.function(Self.pid).blocking() == pid)
        }
    }

    @Test(
        "a handler that crashes takes its own call and nothing else",
        .timeLimit(.minutes(1)),
        arguments: [("segv", "signal 11"), ("abort", "signal 6"), ("exit", "status 3"), ("kill", "signal 9")]
    )
    func crash(_ way: String, cause: String) throws {
        try self.withWorker { worker, client in
            let other = try client.function(Self.sleep).async(0.5, "other")
            let before = try client.function(Self.pid).blocking()
            let error = try #require(throws: RemoteError.self) { _ = try client.function(Self.crash).blocking(way) }
            #expect(error.code == .crashed)
            #expect(error.message.contains(cause), "\(error)")
            #expect(!error.isRetryable)
            #expect(error.worker == "fault-worker-\(worker.pid)")
            let sure = try #require(throws: RemoteError.self) { _ = try client.function(Self.sureCrash).blocking(way) }
            #expect(sure.code == .crashed && sure.isRetryable)
            #expect(try other.get() == "other")
            // The next call has a child, and the worker is the one it was.
            #expect(try client.function(Self.pid).blocking() != worker.pid)
            #expect(self.isGone(before))
            #expect(try client.function(Function<Int32>("pid")).blocking() == worker.pid)
        }
    }

    @Test(
        "a cancelled call ends its child and what that has started",
        .timeLimit(.minutes(1)),
        arguments: ["usual", "stubborn"]
    )
    func cancellation(_ name: String) throws {
        try self.withWorker { worker, client in
            let (result, pids) = try self.raiseFamily(client, as: name)
            let started = MonotonicClock.now()
            result.cancel()
            eventually("child and grandchild are gone") { pids.allSatisfy { self.isGone($0) } }
            let time = MonotonicClock.now() - started
            // What listens to SIGTERM is not waited for until the grace is over.
            if name == "usual" { #expect(time < 1_500_000_000) } else { #expect(time > 1_000_000_000) }
            #expect(try client.function(Self.pid).blocking() != pids[0])
            #expect(try client.function(Function<Int32>("pid")).blocking() == worker.pid)
        }
    }

    @Test(
        "a handler that ignores everything ends at its time limit, with what it has started",
        .timeLimit(.minutes(1)),
        arguments: [
            ("isolatedHard", "stubborn", "hard"), ("isolatedSoft", "usual", "soft"),
            ("isolatedBoth", "stubborn", "hard"),
        ]
    )
    func timeLimit(_ function: String, _ name: String, _ limit: String) throws {
        try self.withWorker { worker, client in
            // The start of a child counts; the family is to be there in time.
            #expect(try client.function(Self.pid).blocking() != worker.pid)
            let (result, pids) = try self.raiseFamily(client, as: name, by: Function(function))
            let error = #expect(throws: RemoteError.self) { try result.get() }
            #expect(error?.code == .timeLimitExceeded)
            #expect(
                error?.message.contains("its \(limit) time limit of 2.0 seconds") == true,
                "\(error?.message ?? "")"
            )
            // In the grace of the soft limit the caller is answered all the same.
            if function == "isolatedBoth" { #expect(!self.isGone(pids[1])) }
            let started = MonotonicClock.now()
            eventually("child and grandchild are gone") { pids.allSatisfy { self.isGone($0) } }
            // There is a grace of two seconds for what doesn't listen, after the soft limit only.
            if function != "isolatedBoth" { #expect(MonotonicClock.now() - started < 1_500_000_000) }
            #expect(try client.function(Self.pid).blocking() != pids[0])
            let render = client.function(Function<String, [UInt8]>("isolatedRender"))
            #expect(try render.blocking("abc") == Array("abc".utf8))
        }
    }

    @Test("a killed worker leaves neither children nor grandchildren", .timeLimit(.minutes(1)))
    func killedWorker() throws {
        try self.withWorker { worker, client in
            let (_, pids) = try self.raiseFamily(client, as: "stubborn")
            let idle = try client.function(Self.pid).blocking()
            #expect(!pids.contains(idle))
            worker.end()
            eventually("all are gone") { (pids + [idle]).allSatisfy { self.isGone($0) } }
        }
    }

    @Test("a worker that leaves ends its children", .timeLimit(.minutes(1)))
    func leavingWorker() throws {
        try self.withWorker { worker, client in
            let idle = try client.function(Self.pid).blocking()
            worker.signal(SIGTERM)
            worker.waitForExit()
            eventually("the child is gone") { self.isGone(idle) }
            #expect(worker.printed.last == "left")
        }
    }

    @Test("a child has its socket and the standard streams open", .timeLimit(.minutes(1)))
    func descriptors() throws {
        try self.withWorker { _, client in
            let open = try client.function(Function<[String]>("isolatedDescriptors")).blocking()
            let sockets = open.filter { $0.contains("socket:") }
            #expect(sockets.count == 1 && sockets.first?.hasPrefix("3 ") == true, "\(open)")
            #expect(open.contains("0 /dev/null"), "\(open)")
            #expect(!open.contains { $0.contains("eventfd") || $0.contains("eventpoll") }, "\(open)")
        }
    }

    @Test("a function that takes a callback is refused when the worker starts")
    func callback() throws {
        let worker = Worker()
        let function = Function<Int, Callback<Int, Nothing>, Nothing>("watched")
        worker.register(function, isolation: .process) { (_: Int, _: Callback<Int, Nothing>) in }
        let error = #expect(throws: UsageError.self) { _ = try worker.start(.bind("tcp://127.0.0.1:*")) }
        #expect(error?.code == .badConfiguration)
        #expect(error?.message.contains("watched") == true)
    }
}
