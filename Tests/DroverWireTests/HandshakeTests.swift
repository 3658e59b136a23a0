// SPDX-License-Identifier: Apache-2.0

import DroverCodec
import DroverWire
import Testing

@Suite("Handshake")
struct HandshakeTests {
    private static let hello = Hello.sample
    private static let welcome = Welcome.sample

    @Test("a hello and a welcome come back as they were")
    func roundTrip() throws {
        var hello = Self.hello
        hello.minor = 7
        hello.silenceMilliseconds = 1500
        #expect(try readHello(payload(hello.pack)) == hello)
        var welcome = Self.welcome
        welcome.minor = 7
        welcome.isResumed = true
        welcome.answeredEpoch = .max
        welcome.takesCallers = true
        #expect(try readWelcome(payload(welcome.pack)) == welcome)
    }

    @Test("S73 every truncation is an error with a text")
    func truncations() throws {
        for bytes in try payload(Self.hello.pack).truncations {
            let error = #expect(throws: WireError.self) { try readHello(bytes) }
            #expect(error?.code == .badPayload)
            #expect(error?.message.contains("hello") == true)
        }
        for bytes in try payload(Self.welcome.pack).truncations {
            let error = #expect(throws: WireError.self) { try readWelcome(bytes) }
            #expect(error?.code == .badPayload)
            #expect(error?.message.contains("welcome") == true)
        }
    }

    @Test("S73 a flipped bit gives another value or an error, never a crash")
    func flips() throws {
        for bytes in try payload(Self.hello.pack).withOneBitFlipped { _ = try? readHello(bytes) }
        for bytes in try payload(Self.welcome.pack).withOneBitFlipped {
            guard let welcome = try? readWelcome(bytes) else { continue }
            #expect(welcome.window > 0)
        }
    }

    @Test("keys may come in any order, and those that this version doesn't know are skipped")
    func unknownKeys() throws {
        let bytes = try payload { writer throws(CodecError) in
            try writer.packMapHeader(4)
            try writer.pack("later")
            try writer.packArrayHeader(2)
            try writer.pack("nested")
            try writer.packMapHeader(1)
            try writer.packNil()
            try writer.pack(1.5)
            try writer.pack("name")
            try writer.pack("n")
            try writer.pack("client")
            try writer.pack(Self.hello.client.bytes)
            try writer.pack("another")
            try writer.pack(true)
        }
        let hello = try readHello(bytes)
        #expect(hello.client == Self.hello.client)
        #expect(hello.name == "n")
        #expect(hello.minor == 0)
        #expect(hello.maxPayloadBytes == 0)
    }

    @Test("what identifies a peer must be there, with 16 bytes")
    func identity() throws {
        for count in [0, 15, 17] {
            let bytes = try payload { writer throws(CodecError) in
                try writer.packMapHeader(1)
                try writer.pack("client")
                try writer.pack([UInt8](repeating: 1, count: count))
            }
            let error = #expect(throws: WireError.self) { try readHello(bytes) }
            #expect(error?.message == "a hello needs \"client\": 16 bytes that name the client")
        }
        let empty = try payload { writer throws(CodecError) in try writer.packMapHeader(0) }
        #expect(throws: WireError.self) { try readHello(empty) }
        #expect(throws: WireError.self) { try readWelcome(empty) }
    }

    @Test("a welcome without room for a request is refused", arguments: [0, -1, Int.min])
    func window(_ window: Int) throws {
        var welcome = Self.welcome
        welcome.window = window
        let bytes = try payload(welcome.pack)
        let error = #expect(throws: WireError.self) { try readWelcome(bytes) }
        #expect(error?.message == "a welcome needs \"worker\" (16 bytes) and a positive \"window\"")
    }

    @Test("a long name is cut, large numbers are kept within their types")
    func clamping() throws {
        var hello = Self.hello
        hello.name = String(repeating: "é", count: 300)
        #expect(try readHello(payload(hello.pack)).name == String(repeating: "é", count: 127))
        // One character for people, 60 kB for a table.
        hello.name = "e" + String(repeating: "\u{301}", count: 30_000)
        #expect(try readHello(payload(hello.pack)).name.utf8.count == 255)
        var welcome = Self.welcome
        welcome.name = String(repeating: "n", count: 300)
        #expect(try readWelcome(payload(welcome.pack)).name.count == 255)
        let bytes = try payload { writer throws(CodecError) in
            try writer.packMapHeader(4)
            try writer.pack("minor")
            try writer.pack(UInt64.max)
            try writer.pack("silence")
            try writer.pack(UInt64.max)
            try writer.pack("maxPayload")
            try writer.pack(UInt64.max)
            try writer.pack("client")
            try writer.pack(Self.hello.client.bytes)
        }
        #expect(try readHello(bytes).minor == UInt32.max)
        #expect(try readHello(bytes).silenceMilliseconds == Int.max)
        #expect(try readHello(bytes).silenceNanoseconds == UInt64.max)
        #expect(try readHello(bytes).maxPayloadBytes == Int.max)
    }

    @Test("a payload that is no map is refused")
    func notAMap() throws {
        let bytes = try payload { writer throws(CodecError) in try writer.pack("hello") }
        #expect(throws: WireError.self) { try readHello(bytes) }
        #expect(throws: WireError.self) { try readWelcome(bytes) }
    }

    @Test("a map that announces more entries than there are bytes costs nothing")
    func hugeMap() throws {
        #expect(throws: WireError.self) { try readHello([0xDF, 0xFF, 0xFF, 0xFF, 0xFF]) }
    }

    @Test("the agreed minor version is this one's until there is another")
    func version() {
        #expect(ProtocolVersion.major == 1)
        #expect(ProtocolVersion.firstByte == 0xD1)
        #expect(Self.hello.minor == ProtocolVersion.minor)
    }
}
