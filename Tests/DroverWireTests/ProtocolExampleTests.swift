// SPDX-License-Identifier: Apache-2.0

import DroverCodec
import DroverWire
import Foundation
import Testing

/// The exchange in `docs/protocol.md`, section 13: what it shows must be what is sent.
@Suite("The specification's example")
struct ProtocolExampleTests {
    private let blocks: [String: [UInt8]]

    init() throws {
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let document = try String(contentsOf: root.appending(path: "docs/protocol.md"), encoding: .utf8)
        var blocks: [String: [UInt8]] = [:]
        var open: String?
        for line in document.split(separator: "\n", omittingEmptySubsequences: false) {
            if line.hasPrefix("```hex ") {
                open = String(line.dropFirst(7))
            } else if line.hasPrefix("```") {
                open = nil
            } else if let name = open {
                blocks[name, default: []] += line.split(separator: " ").compactMap { UInt8($0, radix: 16) }
            }
        }
        self.blocks = blocks
    }

    private func frame(_ name: String) throws -> [UInt8] {
        try #require(self.blocks[name], "docs/protocol.md has no block \"hex \(name)\"")
    }

    private func messages(_ name: String) throws -> [ReadMessage] {
        let found = read(try self.frame(name))
        #expect(found.error == nil)
        return found.messages
    }

    @Test("every block is a frame without an error, and none is left untested")
    func allBlocks() throws {
        #expect(
            Set(self.blocks.keys) == [
                "hello", "welcome", "define-request", "reply", "keyed-request", "error", "callback-request", "events",
                "answer", "cancel", "deadline", "cancelled", "beat", "stamped-request", "goodbye", "attached-request",
                "queued-request", "chunk", "chunk-reply", "ping", "pong", "ended", "reset", "refused", "offer",
                "broker-hello",
                "ready", "credit", "bind", "origin", "control", "recall", "part", "part-taken", "last-part",
                "last-taken", "part-ended", "started", "welcome-now", "question", "answered", "pending", "caller",
                "caller-request", "scoped-request",
            ]
        )
        for name in self.blocks.keys where name != "attached-request" { #expect(try !self.messages(name).isEmpty) }
        let attached = read(try self.frame("attached-request"), attached: [0x91, 0xA2, 0x68, 0x69])
        #expect(attached.error == nil && attached.messages.first?.header.id == 1)
    }

    @Test("the handshake is what this side reads and writes")
    func handshake() throws {
        let hello = try #require(try self.messages("hello").first)
        #expect(hello.header.kind == .hello)
        #expect(hello.header.id == 0x1122_3344_5566_7788)
        #expect(try readHello(hello.payload) == .sample)
        #expect(
            try message(Header(.hello, id: 0x1122_3344_5566_7788), payload(Hello.sample.pack)) == self.frame("hello")
        )

        let welcome = try #require(try self.messages("welcome").first)
        #expect(welcome.header.kind == .welcome)
        #expect(welcome.header.id == 0x8877_6655_4433_2211)
        #expect(welcome.header.number == 1)
        #expect(try readWelcome(welcome.payload) == .sample)
        #expect(
            try message(Header(.welcome, id: 0x8877_6655_4433_2211, number: 1), payload(Welcome.sample.pack))
                == self.frame("welcome")
        )
    }

    @Test("a welcome as workers send it now is what this side writes, with the keys of today")
    func welcomeNow() throws {
        var welcome = Welcome.sample
        welcome.takesParts = true
        welcome.answeredEpoch = 0x1122_3344_5566_7788
        let header = Header(.welcome, id: 0x8877_6655_4433_2211, time: 1, number: 1)
        #expect(try self.frame("welcome-now") == message(header, payload(welcome.pack)))
        let read = try #require(try self.messages("welcome-now").first)
        #expect(try readWelcome(read.payload) == welcome)
    }

    @Test("the invocations that a client works on, and whom a broker vouches for, are what this side writes")
    func pendingAndCallers() throws {
        #expect(try self.frame("pending") == message(Header(.pending, number: 2), PendingPayload.bytes(of: [1, 5])))
        let key = String(repeating: "0123456789", count: 4)
        let caller = CallerPayload(principal: "web", key: key)
        #expect(try self.frame("caller") == message(Header(.caller, number: 1), payload(caller.pack)))
        let request = Header(.request, id: 103, time: 5000, number: 1 << WireLimits.callerShift)
        #expect(try self.frame("caller-request") == message(request, [0x91, 0xA2, 0x68, 0x69]))
        var metadata = RequestMetadata()
        metadata.orderingKey = "k"
        metadata.scope = "web"
        let scoped = Header(.request, flags: [.metadata], id: 104, time: 5000, number: 1 << WireLimits.callerShift)
        #expect(try self.frame("scoped-request") == message(scoped, payload(metadata.pack) + [0x91, 0x07]))
        #expect(try self.frame("question") == message(Header(.ping, id: 8)))
        var status = WorkerStatus()
        status.worker = "w1"
        let answered = try #require(try self.messages("answered").first)
        #expect(answered.header.kind == .pong && answered.header.id == 8)
        let told = try readStatus(answered.payload)
        #expect(told.worker == "w1" && told.running == 1 && told.queued == 2 && told.concurrency == 4)
    }

    @Test("requests and their answers are what this side writes")
    func requests() throws {
        let arguments = try payload { writer throws(CodecError) in try packArguments("hi", into: &writer) }
        #expect(
            try self.frame("define-request") == message(Header(.define, number: 0), Array("echo".utf8))
                + message(Header(.request, id: 1, time: 5000, number: 0), arguments)
        )
        let hi = try payload { writer throws(CodecError) in try packValue("hi", into: &writer) }
        #expect(try self.frame("reply") == message(Header(.reply, id: 1), hi))

        let keyed = try payload { writer throws(CodecError) in
            try writer.packMapHeader(1)
            try writer.pack("key")
            try writer.pack("k")
            try packArguments(7, into: &writer)
        }
        let header = Header(.request, flags: [.metadata, .resent], id: 2, time: Header.noTimeLimit, number: 0)
        #expect(try self.frame("keyed-request") == message(header, keyed))

        let error = try #require(try self.messages("error").first)
        #expect(try readError(error.payload) == .sample)
        #expect(try self.frame("error") == message(Header(.error, id: 2), payload(ErrorPayload.sample.pack)))
        #expect(
            try self.frame("cancel") == message(Header(.cancel, id: 3, number: CancelReason.expired.rawValue))
        )
        #expect(try self.frame("deadline") == message(Header(.deadline, id: 2, time: Header.noTimeLimit)))
        #expect(try self.frame("cancelled") == message(Header(.cancelled, id: 3)))
    }

    @Test("callbacks and events are what this side writes")
    func events() throws {
        let reference = try payload { writer throws(CodecError) in
            try writer.packArrayHeader(2)
            try writer.packArrayHeader(3)
            try writer.pack(Hello.sample.client.bytes)
            try writer.pack(UInt64(1))
            try writer.pack(UInt64(0))
            try writer.pack(Int64(2))
        }
        #expect(
            try self.frame("callback-request") == message(Header(.define, number: 1), Array("tick".utf8))
                + message(Header(.request, id: 3, time: Header.noTimeLimit, number: 1), reference)
        )
        let progress = try payload { writer throws(CodecError) in try packValue(0.5, into: &writer) }
        #expect(
            try self.frame("events") == message(Header(.event, id: 0, number: 1), [0x91, 0])
                + message(Header(.event, id: 1, number: 1), [0x91, 1])
                + message(Header(.invoke, id: 1, time: Header.noTimeLimit, number: 1), [0x91, 2])
                + message(Header(.progress, id: 3, time: 0), progress)
        )
        #expect(
            try self.frame("answer") == message(Header(.reply, id: 1), [4]) + message(Header(.flow, id: 0, number: 1))
        )
    }

    @Test("what brokers and their workers say is what this side reads and writes")
    func brokers() throws {
        let epoch: UInt64 = 0x8877_6655_4433_2211
        let offer = try #require(try self.messages("offer").first)
        #expect(offer.header.kind == .offer && offer.header.id == epoch)
        let offered = try unsafe offer.payload.withUnsafeBytes { try unsafe Offer(reading: $0) }
        #expect(offered.name == "w1" && offered.concurrency == 4)
        #expect(offered.functions == ["echo"] && offered.queues == [""])
        let hello = try #require(try self.messages("broker-hello").first)
        #expect(try readHello(hello.payload).isBroker)
        #expect(
            try self.frame("ready") == message(Header(.ready, id: epoch, time: 3, number: ReadyState.quiet.rawValue))
        )
        #expect(try self.frame("credit") == message(Header(.credit, time: 7, number: 4)))
        #expect(try self.frame("bind") == message(Header(.bind, id: 1, number: 0), Array(0x10...0x1F)))
        #expect(
            try self.frame("origin")
                == message(Header(.origin, id: 103), try payload(OriginPayload(id: 1, client: "web").pack))
        )
        #expect(
            try self.frame("control") == message(Header(.control, time: 30_000, number: ControlOrder.stop.rawValue))
        )
        #expect(try self.frame("recall") == message(Header(.cancel, id: 3, number: CancelReason.recalled.rawValue)))
        let queued = try #require(try self.messages("queued-request").first)
        let metadata = try unsafe queued.payload.withUnsafeBytes { try unsafe RequestMetadata.read(from: $0) }
        #expect(metadata.metadata.queue == "q" && metadata.metadata.priority == 7)
    }

    @Test("what else is shown is what this side writes")
    func others() throws {
        #expect(
            try self.frame("ping")
                == message(
                    Header(.ping, id: 7, time: QuestionSubject.events.rawValue, number: 1),
                    QuestionSubject.payload(2)
                )
        )
        #expect(try self.frame("pong") == message(Header(.pong, id: 7)))
        #expect(try self.frame("ended") == message(Header(.ended, number: 1)))
        #expect(try self.frame("reset") == message(Header(.reset)))
        let refused = try #require(try self.messages("refused").first)
        #expect(refused.header.kind == .refused)
        #expect(try readError(refused.payload).code == "busy")
        #expect(try self.messages("chunk").first?.header.contentType == ContentType.chunk.rawValue)
        #expect(try self.messages("chunk-reply").first?.header.time == 265)
    }

    @Test("signs of life and goodbyes are what this side writes")
    func session() throws {
        #expect(try self.frame("beat") == message(Header(.beat, id: 0x8877_6655_4433_2211)))
        #expect(
            try self.frame("stamped-request") == message(Header(.beat, id: 0x8877_6655_4433_2211, time: 5000))
                + message(Header(.request, id: 1, time: 300), [0x91, 0xA2, 0x68, 0x69])
        )
        #expect(try self.frame("goodbye") == message(Header(.goodbye, number: GoodbyeReason.leaving.rawValue)))
    }

    @Test("a message in parts, and a report of a broker")
    func parts() throws {
        let payload: [UInt8] = [0x91, 0xA3, 0x68, 0x65, 0x79]
        let whole = message(Header(.request, id: 1, time: .max), payload)
        #expect(try self.frame("part") == message(Header(.part, id: 1), Array(whole.prefix(Header.byteCount))))
        #expect(try self.frame("part-taken") == message(Header(.partTaken, id: 1, time: 24)))
        #expect(try self.frame("last-part") == message(Header(.part, id: 1, time: 24), payload))
        #expect(try self.frame("last-taken") == message(Header(.partTaken, id: 1, time: 29)))
        #expect(try self.frame("part-ended") == message(Header(.partEnded, id: 2)))
        #expect(try self.frame("started") == message(Header(.started, id: 1), [0xA2, 0x6D, 0x32]))
    }
}
