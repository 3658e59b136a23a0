// SPDX-License-Identifier: Apache-2.0

import DroverCodec
import DroverWire
import DroverZMQ
import Foundation
import Testing

@testable import Drover

extension ServingTests {
    /// Wrong input of every kind gives an error that names cause and remedy, and harms nobody else.
    @Suite(.serialized)
    struct BadInputTests {}
}

extension ServingTests.BadInputTests {
    @Test("a function that no worker knows is named, beside those it knows", .timeLimit(.minutes(1)))
    func noSuchFunction() throws {
        try Self.withPair { client in
            let error = #expect(throws: RemoteError.self) {
                try client.function(Function<Int, Int>("ecko")).blocking(1)
            }
            #expect(error?.code == .unknownFunction)
            Self.expect(error?.message, says: "\"ecko\"", "register it", "echo")
        }
        let (rig, client) = try Self.pair()
        let error = #expect(throws: UsageError.self) { try client.function("", ((Int) -> Int).self) }
        #expect(error?.code == .notCallable)
        Self.expect(error?.message, says: "1 to 255 bytes")
        client.closeBlocking()
        rig.stop()
    }

    @Test("arguments of other types or of another number are refused", .timeLimit(.minutes(1)))
    func wrongArguments() throws {
        try Self.withPair { client in
            let text = #expect(throws: RemoteError.self) {
                try client.function(Function<String, Int>("echo")).blocking("five")
            }
            #expect(text?.code == .badArguments)
            Self.expect(text?.message, says: "echo can't take these arguments", "same types on both sides")
            let more = #expect(throws: RemoteError.self) {
                try client.function(Function<Int, Int, Int>("echo")).blocking(1, 2)
            }
            #expect(more?.code == .badArguments)
            let fewer = #expect(throws: RemoteError.self) { try client.function(Function<Int>("echo")).blocking() }
            #expect(fewer?.code == .badArguments)
            // The other way round: the reply has another type.
            let result = try client.function(Function<Int, String>("echo")).async(1)
            let reply = #expect(throws: RemoteError.self) { try result.get() }
            // The connection is sound, and the handler ran.
            #expect(reply?.code == .badResult && reply?.execution == .ran && reply?.isRetryable == false)
            #expect(result.isReady && result.hasError && client.statistics.losses == 0)
            Self.expect(reply?.message, says: "the handler ran", "String", "declare the function")
        }
    }

    @Test("a payload over the limit is refused before or behind the wire", .timeLimit(.minutes(1)))
    func tooLarge() throws {
        let rig = try Rig { $0.maxPayloadBytes = 100_000 }
        let client = try rig.client()
        let narrow = try rig.client { $0.maxPayloadBytes = 2048 }
        let there = #expect(throws: RemoteError.self) {
            try client.function(Job.bytes).blocking([UInt8](repeating: 0, count: 120_000))
        }
        #expect(there?.code == .tooLarge)
        Self.expect(there?.message, says: "97.66 KiB")
        let calls = narrow.statistics.calls
        let here = #expect(throws: CodecError.self) {
            try narrow.function(Job.bytes).async([UInt8](repeating: 0, count: 4000))
        }
        Self.expect(here.map { "\($0)" }, says: "bytes")
        #expect(narrow.statistics.calls == calls)
        // What comes back may be too large as well.
        let growing = Function<Int, [UInt8]>("growing")
        rig.worker.register(growing) { (count: Int) in [UInt8](repeating: 0, count: count) }
        let second = try rig.worker.start(.bind("tcp://127.0.0.1:*"))
        let asking = try Client.forTest(second.endpoint)
        let back = #expect(throws: RemoteError.self) { try asking.function(growing).blocking(200_000) }
        #expect(back?.code == .tooLarge)
        Self.expect(back?.message, says: "result", "limit")
        for one in [client, asking] { #expect(try one.function(Job.echo).blocking(1) == 1) }
        #expect(try narrow.function(Job.echo).blocking(1) == 1)
        for one in [client, asking, narrow] { one.closeBlocking() }
        second.stopBlocking(grace: .zero)
        rig.stop()
    }

    @Test("a call far over the worker's limit fails, and costs no connection", .timeLimit(.minutes(1)))
    func farTooLarge() throws {
        let rig = try Rig { $0.maxPayloadBytes = 100_000 }
        let client = try rig.client()
        let large = try rig.client()
        let early = try large.function(Job.bytes).async([UInt8](repeating: 0, count: 1 << 20))
        let result = try large.function(Job.echo).async(5)
        for call in [early, try large.function(Job.bytes).async([UInt8](repeating: 0, count: 1 << 20))] {
            eventually("the call ends", within: .seconds(10)) { call.isTerminal }
            let error = #expect(throws: RemoteError.self) { try call.get() }
            #expect(error?.code == .tooLarge)
            Self.expect(error?.message, says: "97.66 KiB", "maxPayloadBytes")
        }
        #expect(try result.get() == 5)
        #expect(large.statistics.sessions == 1)
        #expect(try client.function(Job.echo).blocking(1) == 1)
        #expect(try large.function(Job.echo).blocking(1) == 1)
        large.closeBlocking()
        client.closeBlocking()
        rig.stop()
    }

    @Test("a reply over the client's limit ends that one call, and costs no connection", .timeLimit(.minutes(1)))
    func replyTooLarge() throws {
        let rig = try Rig()
        let worker = rig.worker
        let growing = Function<Int, [UInt8]>("growing")
        worker.register(growing) { (count: Int) in [UInt8](repeating: 0, count: count) }
        let complaining = Function<Int, Nothing>("complaining")
        worker.register(complaining) { (count: Int) -> Nothing in
            throw FixtureError(message: String(repeating: "a", count: count))
        }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        let client = try Client.forTest(running.endpoint) { $0.maxPayloadBytes = 2048 }
        let waiting = try client.function(growing).async(1)
        // Small enough to run beside the loop once the handler has proved quick, to be coalesced, to be sent by itself.
        for count in [2100, 2100, 2100, 40_000, 3_000_000] {
            let error = #expect(throws: RemoteError.self) { try client.function(growing).blocking(count) }
            #expect(error?.code == .tooLarge)
            Self.expect(error?.message, says: "the result takes", "2 KiB", "client", "maxPayloadBytes")
            let failed = #expect(throws: RemoteError.self) { try client.function(complaining).blocking(count) }
            #expect(failed?.code == .failed && failed?.type == "FixtureError")
            #expect(try client.function(growing).blocking(2000).count == 2000)
        }
        #expect(try waiting.get() == [0])
        #expect(client.statistics.sessions == 1 && client.statistics.malformedMessages == 0)
        client.closeBlocking()
        running.stopBlocking(grace: .zero)
        rig.stop()
    }

    @Test("an event over the client's limit is missed by the client, a question fails", .timeLimit(.minutes(1)))
    func eventTooLarge() throws {
        let rig = try Rig()
        let worker = rig.worker
        let telling = Function<Callback<[UInt8], Int>, Int, String>("telling")
        worker.register(telling) { (callback: Callback<[UInt8], Int>, count: Int) in
            let bytes = [UInt8](repeating: 0, count: count)
            try callback.emit(bytes)
            defer { _ = try? callback.emit([1]) }
            do { return "\(try callback.blocking(bytes))" } catch let error as RemoteError { return "\(error.code)" }
        }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        let client = try Client.forTest(running.endpoint) { $0.maxPayloadBytes = 2048 }
        let counts = Gathered<Int>()
        let callback = client.callback(.init(lifetime: .untilCancelled)) { (bytes: [UInt8]) -> Int in
            counts.add(bytes.count)
            return bytes.count
        }
        for count in [3000, 300_000] {
            #expect(try client.function(telling).blocking(callback, count) == "\(RemoteError.Code.tooLarge)")
        }
        eventually("the small ones came") { counts.values == [1, 1] }
        #expect(client.statistics(of: callback)?.missing == 2)
        #expect(client.statistics.sessions == 1 && client.statistics.malformedMessages == 0)
        client.closeBlocking()
        running.stopBlocking(grace: .zero)
        rig.stop()
    }

    @Test("a name over 255 bytes is refused where it is given, and by the worker", .timeLimit(.minutes(1)))
    func longNames() throws {
        let (rig, client) = try Self.pair()
        for name in [String(repeating: "a", count: 256), ""] {
            let called = #expect(throws: UsageError.self) { _ = try client.function(Function<Int, Int>(name)).async(1) }
            #expect(called?.code == .notCallable)
            Self.expect(called?.message, says: "1 to 255 bytes")
            let worker = Worker(concurrency: 1)
            worker.register(Function<Int, Int>(name)) { $0 }
            let started = #expect(throws: UsageError.self) { _ = try worker.start(.bind("tcp://127.0.0.1:*")) }
            Self.expect(started?.message, says: "1 to 255 bytes")
        }
        #expect(client.statistics.outstandingNow == 0)
        let raw = try RawClient(rig.endpoint)
        raw.introduce(functions: String(repeating: "b", count: 300))
        raw.send(RawMessage(.define, number: 4096, payload: Array("echo".utf8)))
        raw.request(1, function: 0, Packed.arguments(1))
        raw.request(2, function: 4096, Packed.arguments(1))
        for (id, words) in [(1, "no function"), (2, "more than 4096 function names")] as [(UInt64, String)] {
            let error = try #require(raw.messages { $0.kind == .error && $0.id == id }.first).error()
            Self.expect(error.message, says: words)
        }
        raw.stop()
        client.closeBlocking()
        rig.stop()
    }

    @Test("a message of exactly the limit passes, one byte more is refused where it is made", .timeLimit(.minutes(1)))
    func exactLimit() throws {
        let limit = 1 << 20
        let rig = try Rig { $0.maxPayloadBytes = limit }
        let worker = rig.worker
        let outcome = Gathered<String>()
        // An array of one element and the head of long bytes take six bytes, a value alone takes five.
        let room = (arguments: limit - 6, value: limit - 5)
        let telling = Function<Callback<[UInt8], Int>, Int, Nothing>("telling")
        worker.register(telling) { (callback: Callback<[UInt8], Int>, count: Int) -> Void in
            let bytes = [UInt8](repeating: 0, count: count)
            do { _ = try callback.emit(bytes) } catch {
                outcome.add("emit \((error as? CodecError)?.code.description ?? "-")")
            }
            do { _ = try callback.blocking(bytes) } catch {
                outcome.add("ask \((error as? CodecError)?.code.description ?? "-")")
            }
        }
        let reporting = Function<Int, Int>("reporting")
        worker.register(reporting) { (context: JobContext, count: Int) throws -> Int in
            do { try context.report([UInt8](repeating: 0, count: count)) } catch {
                outcome.add("report \((error as? CodecError)?.code.description ?? "-")")
            }
            return count
        }
        let growing = Function<Int, [UInt8]>("growing")
        worker.register(growing) { (count: Int) in [UInt8](repeating: 0, count: count) }
        let running = try worker.start(.bind("tcp://127.0.0.1:*"))
        let client = try Client.forTest(running.endpoint) { $0.maxPayloadBytes = limit }
        #expect(try client.function(Job.bytes).blocking([UInt8](repeating: 0, count: room.arguments)).count > 0)
        let here = #expect(throws: CodecError.self) {
            try client.function(Job.bytes).async([UInt8](repeating: 0, count: room.arguments + 1))
        }
        #expect(here?.code == .tooLarge)
        #expect(try client.function(growing).blocking(room.value).count == room.value)
        let there = #expect(throws: RemoteError.self) { try client.function(growing).blocking(room.value + 1) }
        #expect(there?.code == .tooLarge)
        let callback = client.callback(.init(lifetime: .untilCancelled)) { (bytes: [UInt8]) -> Int in bytes.count }
        _ = try client.function(telling).blocking(callback, room.arguments)
        _ = try client.function(reporting).blocking(room.value)
        #expect(outcome.values == [])
        _ = try client.function(telling).blocking(callback, room.arguments + 1)
        _ = try client.function(reporting).blocking(room.value + 1)
        #expect(outcome.values == ["emit tooLarge", "ask tooLarge", "report tooLarge"])
        #expect(client.statistics.sessions == 1 && client.statistics.malformedMessages == 0)
        client.closeBlocking()
        running.stopBlocking(grace: .zero)
        rig.stop()
    }

    @Test("bytes behind an event's arguments or a report are an error, not passed over", .timeLimit(.minutes(1)))
    func bytesBehind() throws {
        let raw = try RawWorker { message in
            guard message.kind == .request else { return [] }
            let value = Packed.value(7) + [0xC0]
            return [
                RawMessage(.event, id: 0, number: 1, payload: Packed.arguments(7) + [0xC0]),
                RawMessage(.progress, id: message.id, number: 0, payload: value),
                RawMessage(.reply, id: message.id, payload: Packed.value(1)),
            ]
        }
        let failures = Gathered<String>()
        let client = try Client.forTest(raw.endpoint) {
            $0.onCallbackError = { error, _ in failures.add((error as? CodecError)?.code.description ?? "\(error)") }
        }
        let taken = Gathered<Int>()
        let callback = client.callback(.init(lifetime: .untilCancelled)) { (number: Int) in taken.add(number) }
        let result = try client.function(Function<Callback<Int, Nothing>, Int>("x")).async(callback)
        let channel = result.channel()
        #expect(try result.get() == 1)
        eventually("the event was refused") { failures.values == ["trailingBytes"] }
        #expect(taken.values == [])
        let seen = Gathered<String>()
        let done = ReadySignal<Bool>()
        Task {
            for await event in channel.stream {
                do { seen.add("\(try event.value(as: Int.self))") } catch {
                    seen.add((error as? CodecError)?.code.description ?? "\(error)")
                }
            }
            done.set(true)
        }
        _ = done.wait()
        #expect(seen.values == ["trailingBytes"])
        client.closeBlocking()
        raw.stop()
    }

    private struct Unencodable: Codable, Sendable {
        init() {}
        init(from decoder: any Decoder) throws {}
        func encode(to encoder: any Encoder) throws { throw FixtureError(message: "can't be written") }
    }

    @Test("S3 an argument that can't be encoded throws at the call, with nothing sent", .timeLimit(.minutes(1)))
    func unencodable() throws {
        try Self.withPair { client in
            let error = #expect(throws: (any Error).self) {
                _ = try client.function(Function<Unencodable, Int>("echo")).async(Unencodable())
            }
            Self.expect(error.map { "\($0)" }, says: "can't be written")
            #expect(client.statistics.calls == 0)
            #expect(client.statistics.outstandingNow == 0)
        }
    }

    @Test("malformed and truncated frames are counted by the worker", .timeLimit(.minutes(1)))
    func malformed() throws {
        try Self.withPair { client, rig in
            let raw = try RawClient(rig.endpoint)
            raw.introduce(functions: "echo")
            let request = RawMessage(.request, id: 1, time: Header.noTimeLimit, payload: Packed.arguments(1)).bytes
            raw.send(frames: [Array(request.dropLast())])
            let error = try #require(raw.messages { $0.kind == .error && $0.id == 1 }.first).error()
            Self.expect(error.message, says: "a payload of 2 bytes has only 1")
            for frames in [[[]], [[0xD1]], [Array(request.prefix(23))], [request, [], []], [request, [1, 2]]]
                as [[[UInt8]]]
            {
                raw.send(frames: frames)
            }
            raw.request(2, Packed.arguments(2))
            #expect(raw.messages { $0.kind == .reply && $0.id == 2 }.count == 1)
            raw.stop()
        }
    }

    @Test("another version of the protocol is named as such", .timeLimit(.minutes(1)))
    func version() async throws {
        let rig = try Rig()
        let raw = try RawClient(rig.endpoint)
        var bytes = RawMessage(.hello, id: 1, payload: Packed.hello(client: raw.identity)).bytes
        bytes[0] = 0xD2
        raw.send(frames: [bytes])
        // The same connection may still introduce itself properly.
        raw.introduce(functions: "echo")
        raw.request(1, Packed.arguments(1))
        #expect(raw.messages { $0.kind == .reply }.count == 1)
        raw.stop()
        rig.stop()

        let router = try RawPeer(.router, bind: "tcp://127.0.0.1:*") { frames in
            guard let frames else { return [] }
            var welcome = RawMessage(.welcome, id: 1, payload: Packed.welcome(window: 1, isResumed: false)).bytes
            welcome[0] = 0xD2
            return [[frames[0], welcome]]
        }
        let client = try Client.forTest(router.endpoint)
        let error = await #expect(throws: ConnectionError.self) {
            try await client.connect(timeout: .milliseconds(500))
        }
        Self.expect(error?.message, says: "version 2", "version 1", "update")
        await client.close()
        router.stop()
    }

    @Test(
        "endpoints that can't be right are refused with the right form",
        arguments: [
            ("127.0.0.1:5555", "tcp://127.0.0.1:5555"), ("tcp://127.0.0.1", "no port"), ("tcp://:5555", "no host"),
            ("tcp://127.0.0.1:http", "a port is a number"), ("tcp://127.0.0.1:70000", "65535"),
            ("udp://127.0.0.1:1", "tcp and ipc"),
            ("ipc://", "path"), ("inproc://name", "can't be watched; within a process, too, use ipc://PATH"),
            ("", "tcp://HOST:PORT"),
            ("ipc:///" + String(repeating: "x", count: 120), "107"),
        ]
    )
    func endpointSyntax(address: String, hint: String) {
        for error in [
            #expect(throws: UsageError.self, performing: { _ = try Client(address) }),
            #expect(throws: UsageError.self, performing: { _ = try Worker().start(.bind(address)) }),
        ] {
            #expect(error?.code == .badConfiguration)
            Self.expect(error?.message, says: hint)
        }
    }

    @Test("an address that is in use is named, with what to do", .timeLimit(.minutes(1)))
    func addressInUse() throws {
        try Self.withPair { _, rig in
            let error = #expect(throws: ConnectionError.self) { try Worker().start(.bind(rig.endpoint)) }
            Self.expect(error?.message, says: rig.endpoint, "in use", "choose another port")
            #expect(error?.code == .unavailable)
            #expect(error.map { "\($0)".components(separatedBy: "choose another port").count } == 2, "it is said once")
        }
    }

    @Test("a priority that doesn't exist is refused, with those that do")
    func badPriority() throws {
        try Self.withPair { client, _ in
            let echo = client.function(Job.echo).with(CallOptions(priority: 8))
            let error = #expect(throws: UsageError.self) { try echo.async(1) }
            Self.expect(error?.message, says: "8", "0 to 7")
        }
    }

    @Test("a folder where no socket can be made is named, with what to do", .timeLimit(.minutes(1)))
    func noPermission() throws {
        // Nobody may write there, root neither.
        let error = #expect(throws: ConnectionError.self) { try Worker().start(.bind("ipc:///proc/drover.sock")) }
        Self.expect(error?.message, says: "/proc/drover.sock")
        #expect(
            ["permission", "directory"].contains { error?.message.contains($0) == true },
            "\(error?.message ?? "")"
        )
        let missing = #expect(throws: ConnectionError.self) {
            try Worker().start(.bind("ipc:///nonexistent-drover/worker.sock"))
        }
        Self.expect(missing?.message, says: "create the directory")
        // Root passes over permissions, so this shows only for others.
        guard geteuid() != 0 else { return }
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("drover-\(getpid())").path
        try FileManager.default.createDirectory(
            atPath: folder,
            withIntermediateDirectories: true,
            attributes: [.posixPermissions: 0o500]
        )
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let denied = #expect(throws: ConnectionError.self) { try Worker().start(.bind("ipc://\(folder)/w.sock")) }
        Self.expect(denied?.message, says: "permission")
    }

    @Test("a name that does not resolve is told by connect", .timeLimit(.minutes(1)))
    func unresolvable() async throws {
        let client = try Client.forTest("tcp://no-such-host.invalid:5555") { $0.allowsUnencryptedNetwork = true }
        let error = await #expect(throws: ConnectionError.self) { try await client.connect(timeout: .seconds(20)) }
        #expect(error?.code == .unavailable)
        Self.expect(error?.message, says: "no-such-host.invalid", "can't be looked up")
        await client.close()
        let binding = #expect(throws: (any Error).self) {
            var configuration = WorkerConfiguration()
            configuration.allowsUnencryptedNetwork = true
            _ = try Worker(configuration: configuration).start(.bind("tcp://no-such-host.invalid:5555"))
        }
        Self.expect(binding.map { "\($0)" }, says: "no-such-host.invalid", "host")
    }

    @Test("a peer that speaks HTTP is told apart from one that is not there", .timeLimit(.minutes(1)))
    func otherProtocol() async throws {
        let server = try HTTPServer()
        let client = try Client.forTest(server.endpoint)
        let error = await #expect(throws: ConnectionError.self) { try await client.connect(timeout: .seconds(3)) }
        Self.expect(error?.message, says: server.endpoint)
        #expect(
            ["ZeroMQ", "can't be talked to"].contains { error?.message.contains($0) == true },
            "\(error?.message ?? "")"
        )
        await client.close()
        server.stop()
    }

    @Test("the limit of descriptors is named, and harms no other client", .timeLimit(.minutes(1)))
    func descriptors() throws {
        let rig = try Rig()
        let child = try WorkerProcess(arguments: ["descriptors", rig.endpoint, "48"])
        let end = child.waitForExit()
        #expect(end.status == 0 && !end.wasSignalled)
        eventually("its last words came") { child.printed.count >= 2 }
        let first = child.printed.first ?? ""
        #expect(first.hasPrefix("error"), "\(child.printed)")
        Self.expect(first, says: "open files")
        #expect(child.printed.last == "echo 2", "\(child.printed)")
        rig.stop()
    }

    @Test(
        "S86 a connection that can't be made for want of descriptors is made when there are some",
        .timeLimit(.minutes(1))
    )
    func passingShortage() throws {
        let rig = try Rig()
        let child = try WorkerProcess(arguments: ["shortage", rig.endpoint])
        let end = child.waitForExit()
        #expect(end.status == 0 && !end.wasSignalled)
        eventually("its last words came") { child.printed.count >= 4 }
        Self.expect(child.printed.dropFirst().first, says: "queued locally", "ulimit -n")
        Self.expect(child.printed.dropFirst(2).first, says: "waits", "queued locally", "ulimit -n")
        #expect(child.printed.last == "echo 1", "\(child.printed)")
        rig.stop()
    }

    @Test(
        "S88 hundreds of clients of one process all work, and all come back with their worker",
        .timeLimit(.minutes(2))
    )
    func manyClients() throws {
        // Each has threads of its own, which a sanitizer makes dear.
        let count = isSanitized ? 60 : 400
        let first = try WorkerProcess()
        let child = try WorkerProcess(arguments: ["clients", first.endpoint, "\(count)"])
        eventually("all were answered", within: .seconds(60)) { child.printed.contains("answered \(count)") }
        first.end()
        let second = try WorkerProcess(at: first.endpoint)
        eventually("all were answered again", within: .seconds(30)) {
            child.printed.contains("answered again \(count)")
        }
        child.end()
        second.end()
    }

    @Test("S4 a client that was closed refuses calls at once", .timeLimit(.minutes(1)))
    func closed() async throws {
        let rig = try Rig()
        let client = try rig.client()
        let done = try client.function(Job.echo).async(1)
        #expect(try await done.value == 1)
        await client.close()
        func expectClosed(_ body: () async throws -> Void) async {
            let error = await #expect(throws: ConnectionError.self) { try await body() }
            #expect(error?.code == .closed)
            Self.expect(error?.message, says: "closed", "make a new one")
        }
        await expectClosed { _ = try client.function(Job.echo).async(1) }
        await expectClosed { _ = try await client.function(Job.echo)(1) }
        await expectClosed { _ = try await client.ping() }
        await expectClosed { _ = try await client.connect() }
        await expectClosed { _ = try BackgroundPoller(serving: client) }
        #expect(try await done.value == 1)
        let other = try rig.client()
        #expect(try await other.function(Job.echo)(2) == 2)
        await other.close()
        rig.stop()
    }

    @Test("settings that can't work are refused with their name and range")
    func settings() {
        func expectRefused(_ words: String..., configure: (inout ClientConfiguration) -> Void) {
            let error = #expect(throws: UsageError.self) {
                _ = try Client.forTest("tcp://127.0.0.1:1", configure: configure)
            }
            #expect(error?.code == .badConfiguration)
            for word in words { Self.expect(error?.message, says: word) }
        }
        expectRefused("maxOutstandingCalls", "at least 1") { $0.maxOutstandingCalls = 0 }
        expectRefused("maxPayloadBytes", "1 KiB") { $0.maxPayloadBytes = 1 }
        expectRefused("silenceLimit", "heartbeatInterval") { $0.silenceLimit = .milliseconds(1) }
        expectRefused("maxAttempts", "1 to 255") { $0.maxAttempts = 0 }
        var configuration = WorkerConfiguration()
        configuration.concurrency = 0
        let error = #expect(throws: UsageError.self) {
            try Worker(configuration: configuration).start(.bind("tcp://127.0.0.1:*"))
        }
        Self.expect(error?.message, says: "concurrency")
        #expect(throws: UsageError.self) { _ = try Client([]) }
    }

    private static let longName = String(repeating: "n", count: 256)
    private static func many() -> [String] { (0...1024).map { "n\($0)" } }
    private static func amounts<Value>(_ names: [String], _ value: Value) -> [String: Value] {
        Dictionary(uniqueKeysWithValues: names.map { ($0, value) })
    }

    @Test("what no broker would take of a worker is refused when it starts, with the limit")
    func brokerTerms() {
        let changes: [(String, (inout WorkerConfiguration) -> Void)] = [
            ("255", { $0.queues = [Self.longName] }), ("1024", { $0.queues = Set(Self.many()) }),
            ("255", { $0.labels = [Self.longName: ""] }), ("255", { $0.labels = ["a": Self.longName] }),
            ("1024", { $0.labels = Self.amounts(Self.many(), "") }),
            ("255", { $0.resources = [Self.longName: 1] }), ("1024", { $0.resources = Self.amounts(Self.many(), 1) }),
        ]
        for (limit, change) in changes {
            let error = #expect(throws: UsageError.self) { _ = try Rig(change) }
            #expect(error?.code == .badConfiguration)
            Self.expect(error?.message, says: "\(limit) is the limit")
        }
        for limit in [0, -1] {
            let worker = Worker()
            worker.register(Job.echo, limit: limit) { (number: Int) in number }
            let error = #expect(throws: UsageError.self) { try worker.start(.bind("tcp://127.0.0.1:*")) }
            Self.expect(error?.message, says: "echo", "limit: \(limit)", "at least 1")
        }
    }

    @Test("options that no worker would take are refused at the call, with the limit", .timeLimit(.minutes(1)))
    func callTerms() throws {
        try Self.withPair { client in
            let all: [(String, CallOptions)] = [
                ("255", CallOptions(queue: Self.longName)),
                ("4096", CallOptions(orderingKey: String(repeating: "k", count: 4097))),
                ("255", CallOptions(labels: [Self.longName: ""])), ("255", CallOptions(labels: ["a": Self.longName])),
                ("1024", CallOptions(labels: Self.amounts(Self.many(), ""))),
                ("255", CallOptions(resources: [Self.longName: 1])),
                ("1024", CallOptions(resources: Self.amounts(Self.many(), 1))),
            ]
            for (limit, options) in all {
                let error = #expect(throws: UsageError.self) {
                    try client.function(Job.echo, options: options).async(1)
                }
                #expect(error?.code == .badConfiguration)
                Self.expect(error?.message, says: "a call's", "\(limit) is the limit")
            }
            let most = CallOptions(orderingKey: String(repeating: "k", count: 4096))
            let value = try client.function(Job.echo, options: most).blocking(1)
            #expect(value == 1 && client.statistics.calls == 1)
        }
    }

    @Test(
        "a thrown error that is too large for the client keeps its code and type, and the beginning of its message",
        .timeLimit(.minutes(1))
    )
    func largeError() throws {
        let rig = try Rig()
        let client = try rig.client { $0.maxPayloadBytes = 2048 }
        rig.worker.register(Function<Int, Int>("long")) { (count: Int) -> Int in
            throw FixtureError(message: String(repeating: "é", count: count))
        }
        for count in [600, 100_000] {
            let error = #expect(throws: RemoteError.self) {
                try client.function(Function<Int, Int>("long")).blocking(count)
            }
            #expect(error?.code == .failed && error?.type == "FixtureError")
            #expect(error?.message.hasPrefix(String(repeating: "é", count: 100)) == true)
        }
        client.closeBlocking()
        rig.stop()
    }

    // MARK: Helpers

    private static func pair() throws -> (Rig, Client) {
        let rig = try Rig()
        return (rig, try rig.client())
    }

    /// Runs `body`, then shows that worker, client and another client still work.
    private static func withPair(_ body: (Client) throws -> Void) throws {
        try self.withPair { client, _ in try body(client) }
    }

    private static func withPair(_ body: (Client, Rig) throws -> Void) throws {
        let (rig, client) = try self.pair()
        let other = try rig.client()
        try body(client, rig)
        #expect(try client.function(Job.echo).blocking(1) == 1)
        #expect(try other.function(Job.echo).blocking(2) == 2)
        #expect(client.statistics.disconnections == 0 && other.statistics.disconnections == 0)
        client.closeBlocking()
        other.closeBlocking()
        rig.stop()
    }

    private static func expect(
        _ text: String?,
        says words: String...,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        for word in words {
            #expect(
                text?.lowercased().contains(word.lowercased()) == true,
                "\"\(text ?? "nothing")\" does not say \"\(word)\"",
                sourceLocation: sourceLocation
            )
        }
    }
}

/// A plain TCP listener that answers everything as a web server would.
private final class HTTPServer: Sendable {
    let endpoint: String
    private let listener: CInt
    private let flag = Flag()
    private let thread: LoopThread

    init() throws {
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                #expect(bind(listener, address, length) == 0)
                #expect(listen(listener, 16) == 0)
                #expect(getsockname(listener, address, &length) == 0)
            }
        }
        self.listener = listener
        self.endpoint = "tcp://127.0.0.1:\(UInt16(bigEndian: address.sin_port))"
        let flag = self.flag
        self.thread = try LoopThread.start(named: "http") {
            let answer = Array("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".utf8)
            while !flag.isSet {
                var item = pollfd(fd: listener, events: Int16(POLLIN), revents: 0)
                guard poll(&item, 1, 20) > 0 else { continue }
                let connection = accept(listener, nil, nil)
                var bytes = [UInt8](repeating: 0, count: 512)
                _ = recv(connection, &bytes, bytes.count, 0)
                _ = send(connection, answer, answer.count, Int32(MSG_NOSIGNAL))
                Glibc.close(connection)
            }
        }
    }

    func stop() {
        self.flag.set()
        self.thread.join()
        Glibc.close(self.listener)
    }
}
