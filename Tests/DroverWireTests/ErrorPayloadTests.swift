// SPDX-License-Identifier: Apache-2.0

import DroverCodec
import DroverWire
import Testing

@Suite("ErrorPayload")
struct ErrorPayloadTests {
    private static var full: ErrorPayload {
        var error = ErrorPayload.sample
        error.isRetryable = true
        error.details = [0x81, 0xA1, 0x61, 0x01]
        return error
    }

    @Test("an error comes back as it was, with and without details")
    func roundTrip() throws {
        #expect(try readError(payload(Self.full.pack)) == Self.full)
        #expect(try readError(payload(ErrorPayload.sample.pack)) == ErrorPayload.sample)
        #expect(try readError(payload(ErrorPayload().pack)) == ErrorPayload())
    }

    @Test("S73 every truncation is an error with a text")
    func truncations() throws {
        for bytes in try payload(Self.full.pack).truncations {
            let error = #expect(throws: WireError.self) { try readError(bytes) }
            #expect(error?.code == .badPayload)
            #expect(error?.message.hasPrefix("the payload of error can't be read: ") == true)
        }
    }

    @Test("S73 a flipped bit gives another value or an error, never a crash")
    func flips() throws {
        for bytes in try payload(Self.full.pack).withOneBitFlipped { _ = try? readError(bytes) }
    }

    @Test("missing keys have defaults, unknown ones are skipped")
    func otherVersions() throws {
        let bytes = try payload { writer throws(CodecError) in
            try writer.packMapHeader(2)
            try writer.pack("hint")
            try writer.pack("later")
            try writer.pack("code")
            try writer.pack("newCode")
        }
        var expected = ErrorPayload()
        expected.code = "newCode"
        #expect(try readError(bytes) == expected)
    }

    @Test("bytes behind the map are an error")
    func trailing() throws {
        let error = #expect(throws: WireError.self) { try readError(payload(Self.full.pack) + [0xC0]) }
        #expect(error?.code == .badPayload)
    }

    @Test("a value of another type is an error")
    func wrongType() throws {
        let bytes = try payload { writer throws(CodecError) in
            try writer.packMapHeader(1)
            try writer.pack("code")
            try writer.pack(Int64(4))
        }
        #expect(throws: WireError.self) { try readError(bytes) }
    }
}
