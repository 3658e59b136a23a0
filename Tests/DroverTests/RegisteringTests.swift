// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverWire
import DroverZMQ
import Foundation
import Logging
import Testing

extension ServingTests {
    /// When and how often functions may be registered, and where a worker may listen.
    @Suite(.serialized)
    struct RegisteringTests {}
}

extension ServingTests.RegisteringTests {
    private static let late = Function<Int, Int>("late")

    @Test("a function that is registered after the start is served at once", .timeLimit(.minutes(1)))
    func lateFunctions() throws {
        try withRig { rig, client in
            for number in 0..<50 {
                let function = Function<Int, Int>("late \(number)")
                rig.worker.register(function) { $0 + number }
                let sum = try client.function(function).blocking(1)
                #expect(sum == 1 + number)
            }
            #expect(rig.worker.registrationProblem == nil)
        }
    }

    @Test("a function that was unknown to its caller is served once it is registered", .timeLimit(.minutes(1)))
    func unknownBefore() throws {
        try withRig { rig, client in
            let error = #expect(throws: RemoteError.self) { try client.function(Self.late).blocking(1) }
            #expect(error?.code == .unknownFunction)
            rig.worker.register(Self.late, limit: 1) { $0 * 2 }
            #expect(try client.function(Self.late).blocking(21) == 42)
            let results = try (0..<100).map { try client.function(Self.late).async($0) }
            #expect(try results.map { try $0.get() } == (0..<100).map { $0 * 2 })
        }
    }

    @Test("functions that many threads register while calls run are all served", .timeLimit(.minutes(1)))
    func manyThreads() throws {
        try withRig { rig, client in
            try onThreads(8) { thread in
                for number in 0..<20 {
                    let function = Function<Int, Int>("late \(thread) \(number)")
                    rig.worker.register(function) { $0 + number }
                    #expect((try? client.function(function).blocking(thread)) == thread + number)
                }
            }
        }
    }

    @Test("a function registered between two starts is served by both workers", .timeLimit(.minutes(1)))
    func severalStarts() throws {
        try withRig { rig, client in
            rig.worker.register(Self.late) { -$0 }
            let other = try rig.worker.start(.bind("tcp://127.0.0.1:*"))
            let second = try Client.forTest(other.endpoint)
            #expect(try [client, second].map { try $0.function(Self.late).blocking(3) } == [-3, -3])
            second.closeBlocking()
            other.stopBlocking(grace: .zero)
        }
    }

    @Test("a name that is registered twice is refused when the worker starts")
    func twice() throws {
        var configuration = WorkerConfiguration()
        configuration.logger = .quiet
        let worker = Worker(configuration: configuration)
        worker.register(Self.late) { $0 }
        #expect(worker.registrationProblem == nil)
        worker.register(Self.late) { -$0 }
        let error = #expect(throws: UsageError.self) { try worker.start(.bind("tcp://127.0.0.1:*")) }
        #expect(error?.code == .badConfiguration)
        #expect(error?.message.contains("\"late\" is registered twice") == true)
        #expect(worker.registrationProblem == error)
    }

    @Test(
        "a name that is registered again while the worker runs is refused, and the log says so",
        .timeLimit(.minutes(1))
    )
    func twiceAfterStart() throws {
        let lines = Gathered<String>()
        let rig = try Rig { configuration in
            configuration.logger = .calling { level, line in if level == .error { lines.add(line) } }
        }
        let client = try rig.client()
        rig.worker.register(Job.echo) { -$0 }
        #expect(try client.function(Job.echo).blocking(7) == 7)
        #expect(rig.worker.registrationProblem?.message.contains("\"echo\" is registered twice") == true)
        #expect(lines.values.count == 1)
        #expect(lines.values.first?.contains("\"echo\" is registered twice") == true)
        client.closeBlocking()
        rig.stop()
    }

    @Test(
        "what can't be served any more is refused: limits without sense, a process of its own",
        .timeLimit(.minutes(1))
    )
    func unservable() throws {
        try withRig { rig, client in
            rig.worker.register(Self.late, timeLimits: TimeLimits(soft: .seconds(-1))) { $0 }
            #expect(rig.worker.registrationProblem?.message.contains("late, timeLimits") == true)
            let error = #expect(throws: RemoteError.self) { try client.function(Self.late).blocking(1) }
            #expect(error?.code == .unknownFunction)
        }
        try withRig { rig, client in
            rig.worker.register(Self.late, isolation: .process) { $0 }
            #expect(rig.worker.registrationProblem?.message.contains("register it before") == true)
            #expect(throws: RemoteError.self) { try client.function(Self.late).blocking(1) }
        }
    }

    // MARK: Where a worker listens

    private static func withPath(_ body: (String) throws -> Void) rethrows {
        let path = FileManager.default.temporaryDirectory
            .appendingPathComponent("drover-\(UInt64.random(in: 0 ... .max)).sock").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        try body(path)
    }

    @Test("a second worker at one ipc path is refused while the first listens there", .timeLimit(.minutes(1)))
    func onePath() throws {
        try Self.withPath { path in
            let rig = try Rig(at: "ipc://\(path)")
            let error = #expect(throws: ConnectionError.self) { try Rig(at: "ipc://\(path)") }
            #expect(error?.message.contains(path) == true)
            #expect(error?.message.contains("in use") == true)
            let client = try Client.forTest("ipc://\(path)")
            #expect(try client.function(Job.echo).blocking(1) == 1)
            client.closeBlocking()
            rig.stop()
            // Where one has stopped the next may begin.
            for number in 0..<5 {
                let next = try Rig(at: "ipc://\(path)")
                let client = try Client.forTest("ipc://\(path)")
                #expect(try client.function(Job.echo).blocking(number) == number)
                client.closeBlocking()
                next.stop()
            }
        }
    }

    @Test("a worker takes the path of one that was killed, and deletes no other file", .timeLimit(.minutes(1)))
    func leftPath() throws {
        try Self.withPath { path in
            let killed = try WorkerProcess(at: "ipc://\(path)")
            killed.end()
            #expect(FileManager.default.fileExists(atPath: path))
            let rig = try Rig(at: "ipc://\(path)")
            let client = try Client.forTest("ipc://\(path)")
            #expect(try client.function(Job.echo).blocking(1) == 1)
            client.closeBlocking()
            rig.stop()
        }
        try Self.withPath { path in
            try Data("kept".utf8).write(to: URL(fileURLWithPath: path))
            let error = #expect(throws: ConnectionError.self) { try Rig(at: "ipc://\(path)") }
            #expect(error?.message.contains("no socket") == true)
            #expect(try String(contentsOfFile: path, encoding: .utf8) == "kept")
        }
    }
}
