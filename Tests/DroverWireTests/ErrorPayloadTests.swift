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

    @Test(
        "an error is cut to what its reader takes, with its code and type, between two scalars",
        arguments: [1024, 1025, 2048, 1 << 20]
    )
    func shortened(limit: Int) throws {
        var error = ErrorPayload()
        error.code = "failed"
        error.type = "LongError"
        error.message = String(repeating: "€", count: 1 << 20)
        error.trace = String(repeating: "hop\n", count: 1 << 20)
        error.worker = String(repeating: "w", count: 255)
        error.attempts = 3
        error.workers = Array(repeating: error.worker, count: 1000)
        error.details = [UInt8](repeating: 1, count: 1 << 20)
        let short = error.shortened(toFit: limit)
        var writer = PackWriter(capacity: 64)
        try short.pack(into: &writer)
        #expect(writer.count <= limit)
        #expect(short.code == "failed" && short.type == "LongError" && short.attempts == 3)
        #expect(
            short.message.hasPrefix("€€€€") && short.message.hasSuffix("bytes more)")
                && !short.message.contains("\u{FFFD}")
        )
        var brief = ErrorPayload()
        brief.message = "short"
        #expect(brief.shortened(toFit: limit) == brief)
    }
}
