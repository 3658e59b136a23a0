// SPDX-License-Identifier: Apache-2.0

import DroverCodec
import DroverWire
import Testing

@Suite("What brokers read")
struct BrokerPayloadTests {
    private static let offer: Offer = {
        var offer = Offer(worker: PeerID(high: 7, low: 9))
        offer.notices = true
        offer.name = "worker 1"
        offer.concurrency = 8
        offer.functions = ["echo", "add"]
        offer.queues = ["", "pictures"]
        offer.labels = ["zone": "eu", "disk": "fast"]
        offer.resources = ["gpu": 2, "memory": .max]
        return offer
    }()

    private static let metadata: RequestMetadata = {
        var metadata = RequestMetadata()
        metadata.orderingKey = "key"
        metadata.queue = "pictures"
        metadata.priority = 7
        metadata.labels = ["zone": "eu"]
        metadata.resources = ["gpu": 1]
        return metadata
    }()

    private func readOffer(_ bytes: [UInt8]) throws(WireError) -> Offer {
        // Typed throws do not pass through the pointer's closure.
        let result = bytes.withUnsafeBytes { pointer -> Result<Offer, WireError> in
            do throws(WireError) { return .success(try Offer(reading: pointer)) } catch { return .failure(error) }
        }
        return try result.get()
    }

    private func readMetadata(_ bytes: [UInt8]) throws(WireError) -> (RequestMetadata, Int) {
        let result = bytes.withUnsafeBytes { pointer -> Result<(RequestMetadata, Int), WireError> in
            do throws(WireError) { return .success(try RequestMetadata.read(from: pointer)) } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    @Test("S73 metadata and maps of peers are measured before they are read, and long names of fields count as unknown")
    func measured() throws {
        let long = String(repeating: "n", count: 100_000)
        let fields = try payload { writer throws(CodecError) in
            try writer.packMapHeader(2)
            try writer.pack(String(repeating: "q", count: 40))
            try writer.packNil()
            try writer.pack("queue")
            try writer.pack("mail")
        }
        #expect(try self.readMetadata(fields).0.queue == "mail")
        // What stands behind it doesn't count.
        #expect(try self.readMetadata(fields + [UInt8](repeating: 0, count: 100_000)).1 == fields.count)
        let large = try payload { writer throws(CodecError) in
            try writer.packMapHeader(2)
            try writer.pack("later")
            try writer.pack(long)
            try writer.pack("queue")
            try writer.pack("mail")
        }
        let error = #expect(throws: WireError.self) { try self.readMetadata(large) }
        #expect(error?.code == .tooLarge && error?.message.contains("65536 bytes") == true)
        var offer = Self.offer
        offer.functions = (0..<4096).map { "f\($0)" + String(repeating: "x", count: 240) }
        #expect(try self.readOffer(payload(offer.pack)).functions.count == 4096)
        var hello = Hello.sample
        hello.name = long
        let bytes = try payload(hello.pack)
        let refused = #expect(throws: WireError.self) { _ = try bytes.withUnsafeBytes { try Hello(reading: $0) } }
        #expect(refused?.code == .tooLarge)
    }

    @Test("of an error its code is read alone, and of many workers' names some")
    func errors() throws {
        var error = ErrorPayload()
        error.code = "poison"
        error.attempts = 9
        error.workers = (0..<1000).map { "w\($0)" }
        let bytes = try payload(error.pack)
        #expect(bytes.withUnsafeBytes { ErrorPayload.code(in: $0) } == "poison")
        #expect([UInt8]().withUnsafeBytes { ErrorPayload.code(in: $0) } == nil)
        #expect(try bytes.withUnsafeBytes { try ErrorPayload(reading: $0) }.workers == (0..<255).map { "w\($0)" })
    }

    @Test("a caller comes back as it was; one without a principal or a key is none")
    func callers() throws {
        func read(_ bytes: [UInt8]) throws -> CallerPayload {
            try bytes.withUnsafeBytes { try CallerPayload(reading: $0) }
        }
        let caller = CallerPayload(principal: "web", key: String(repeating: "k", count: 40))
        let bytes = try payload(caller.pack)
        #expect(try read(bytes) == caller)
        for truncated in bytes.truncations { #expect(throws: WireError.self) { try read(truncated) } }
        let empty = try payload(CallerPayload(principal: "", key: "k").pack)
        #expect(throws: WireError.self) { try read(empty) }
        let long = try payload(CallerPayload(principal: String(repeating: "p", count: 300), key: "k").pack)
        #expect(throws: WireError.self) { try read(long) }
    }

    @Test("an origin comes back as it was; one without an id is none")
    func origins() throws {
        func read(_ bytes: [UInt8]) throws -> OriginPayload {
            try bytes.withUnsafeBytes { try OriginPayload(reading: $0) }
        }
        let origin = OriginPayload(id: 1 << 40, client: "web")
        let bytes = try payload(origin.pack)
        #expect(try read(bytes) == origin)
        for truncated in bytes.truncations { #expect(throws: WireError.self) { try read(truncated) } }
        let none = try payload(OriginPayload(id: 0, client: "web").pack)
        #expect(throws: WireError.self) { try read(none) }
        let long = try payload(OriginPayload(id: 1, client: String(repeating: "c", count: 300)).pack)
        #expect(throws: WireError.self) { try read(long) }
    }

    @Test("an offer comes back as it was, and names what it can't do without")
    func offers() throws {
        #expect(try self.readOffer(payload(Self.offer.pack)) == Self.offer)
        let empty = try payload { writer throws(CodecError) in try writer.packMapHeader(0) }
        let error = #expect(throws: WireError.self) { try self.readOffer(empty) }
        #expect(error?.message.contains("worker") == true)
        let least = try payload { writer throws(CodecError) in
            try writer.packMapHeader(1)
            try writer.pack("worker")
            try writer.pack(PeerID(high: 7, low: 9).bytes)
        }
        #expect(try self.readOffer(least).queues == [""])
        #expect(try self.readOffer(least).concurrency == 1)
    }

    @Test("metadata come back as they were, with their length; what is usual is not written")
    func metadata() throws {
        let bytes = try payload(Self.metadata.pack)
        let (read, count) = try self.readMetadata(bytes + [1, 2, 3])
        #expect(read == Self.metadata)
        #expect(count == bytes.count)
        #expect(try payload(RequestMetadata().pack) == [0x80])
        #expect(RequestMetadata().isEmpty)
        #expect(!Self.metadata.isEmpty)
    }

    @Test("a priority beyond the highest is the highest")
    func priority() throws {
        let bytes = try payload { writer throws(CodecError) in
            try writer.packMapHeader(1)
            try writer.pack("priority")
            try writer.pack(UInt64(200))
        }
        #expect(try self.readMetadata(bytes).0.priority == RequestMetadata.highestPriority)
    }

    @Test("S73 what is cut short or has a flipped bit is an error or another value, never a crash")
    func damage() throws {
        for bytes in try payload(Self.offer.pack).truncations {
            #expect(throws: WireError.self) { try self.readOffer(bytes) }
        }
        for bytes in try payload(Self.offer.pack).withOneBitFlipped { _ = try? self.readOffer(bytes) }
        for bytes in try payload(Self.metadata.pack).truncations {
            #expect(throws: WireError.self) { try self.readMetadata(bytes) }
        }
        for bytes in try payload(Self.metadata.pack).withOneBitFlipped { _ = try? self.readMetadata(bytes) }
    }

    @Test("hello and welcome say whether a broker sends them, and only then")
    func brokers() throws {
        var hello = Hello.sample
        let plain = try payload(hello.pack)
        hello.isBroker = true
        let bytes = try payload(hello.pack)
        #expect(bytes.count > plain.count)
        let read = bytes.withUnsafeBytes { try? Hello(reading: $0) }
        #expect(read == hello)
        var welcome = Welcome.sample
        welcome.isBroker = true
        let other = try payload(welcome.pack)
        #expect(other.withUnsafeBytes { try? Welcome(reading: $0) } == welcome)
    }

    @Test("busy says when to try again")
    func retryAfter() throws {
        var error = ErrorPayload()
        error.code = "busy"
        error.retryAfterMilliseconds = 250
        let bytes = try payload(error.pack)
        #expect(bytes.withUnsafeBytes { try? ErrorPayload(reading: $0) } == error)
    }
}
