// SPDX-License-Identifier: Apache-2.0

import DroverCodec
import Testing

@testable import DroverWire

@Suite struct ChunkPayloadTests {
    private static func request(_ items: [[UInt8]]) throws(CodecError) -> [UInt8] {
        var writer = PackWriter(capacity: 64)
        try writer.packArrayHeader(items.count + ChunkRequest.leadCount)
        try ChunkRequest.packLead(answerBytes: 65_536, microseconds: 10_000, into: &writer)
        for item in items { try writer.pack(item) }
        return unsafe writer.withBytes { bytes in unsafe [UInt8](bytes) }
    }

    private static func read(_ bytes: [UInt8]) throws(CodecError) -> ChunkRequest {
        try withPackReader(over: bytes) { reader throws(CodecError) in try ChunkRequest(reading: &reader) }
    }

    @Test("a chunk's items are found where they stand")
    func items() throws {
        let items: [[UInt8]] = [[0x91, 0x01], [], Array(repeating: 7, count: 300)]
        let bytes = try Self.request(items)
        let request = try Self.read(bytes)
        #expect(request.answerBytes == 65_536)
        #expect(request.microseconds == 10_000)
        #expect(request.items.map { Array(bytes[$0]) } == items)
    }

    @Test("what is not a chunk is refused: too short, cut off, with something else for an item, with more behind it")
    func malformed() throws {
        let good = try Self.request([[0x91, 0x01], [0x91, 0x02]])
        for end in 0..<good.count {
            #expect(throws: CodecError.self) { try Self.read(Array(good[..<end])) }
        }
        #expect(throws: CodecError.self) { try Self.read(good + [0xC0]) }
        // An array of nothing; without items it is a chunk of none.
        #expect(throws: CodecError.self) { try Self.read([0x90]) }
        #expect(try Self.read([0x92, 0x01, 0x01]).items.isEmpty)
        #expect(throws: CodecError.self) { try Self.read([0x93, 0x01, 0x01, 0x91, 0x01]) }
        // A count that the bytes can't justify reserves nothing.
        #expect(throws: CodecError.self) { try Self.read([0xDD, 0xFF, 0xFF, 0xFF, 0xFF, 0x01, 0x01]) }
    }

    @Test("an answer tells values, errors and what didn't run apart")
    func answer() throws {
        let answer: [UInt8] = [0x93, 0xC4, 0x01, 0x2A, 0x81, 0xA4, 0x63, 0x6F, 0x64, 0x65, 0xA1, 0x78, 0xC0]
        #expect(try chunkItems(in: answer, count: 3) == [.value(3..<4), .error(4..<12), .notRun])
    }

    @Test("an answer to another chunk, or to none, is refused")
    func otherAnswers() {
        for bytes: [UInt8] in [[], [0x2A], [0x91, 0xC0], [0x92, 0xC0, 0x01], [0x92, 0xC0, 0xC4, 0x05, 0x01]] {
            #expect(throws: WireError.self) { try chunkItems(in: bytes, count: 2) }
        }
        #expect(throws: WireError.self) { try chunkItems(in: [0x92, 0xC0, 0xC0, 0xC0], count: 2) }
    }
}
