// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import DroverCodec

@Suite("Pack reader")
struct PackReaderTests {
    private func code<Value>(
        _ bytes: [UInt8],
        limits: CodecLimits = .standard,
        _ body: (inout PackReader) throws(CodecError) -> Value
    ) -> CodecError.Code? {
        do {
            _ = try withPackReader(over: bytes, limits: limits, body)
            return nil
        } catch {
            return error.code
        }
    }

    private func code<Value: Decodable>(_ bytes: [UInt8], as type: Value.Type) -> CodecError.Code? {
        self.code(bytes) { reader throws(CodecError) in try unpackValue(type, from: &reader) }
    }

    @Test(
        "of a text the beginning can be read, cut between scalars, and what comes next is behind its whole",
        arguments: 0...12
    )
    func cutText(limit: Int) throws {
        let text = "aé€😀z"
        let bytes = [0xA0 | UInt8(text.utf8.count)] + Array(text.utf8) + [42]
        let (cut, next) = try withPackReader(over: bytes, limits: .standard) { reader throws(CodecError) in
            #expect(try reader.textByteCount() == 11)
            return (try reader.readString(cutAt: limit), try reader.readInt64())
        }
        var expected = ""
        for scalar in text.unicodeScalars {
            guard expected.utf8.count + UTF8.width(scalar) <= limit else { break }
            expected.unicodeScalars.append(scalar)
        }
        #expect(cut == expected && next == 42)
    }

    @Test("integers are read from any encoding that fits")
    func anyInteger() throws {
        for bytes: [UInt8] in [[5], [0xCC, 5], [0xCD, 0, 5], [0xCE, 0, 0, 0, 5], [0xCF, 0, 0, 0, 0, 0, 0, 0, 5]] {
            #expect(try unpacked(UInt8.self, bytes) == 5)
            #expect(try unpacked(Int8.self, bytes) == 5)
            #expect(try unpacked(Int.self, bytes) == 5)
            #expect(try unpacked(Double.self, bytes) == 5)
        }
        for bytes: [UInt8] in [[0xD0, 5], [0xD1, 0, 5], [0xD2, 0, 0, 0, 5], [0xD3, 0, 0, 0, 0, 0, 0, 0, 5]] {
            #expect(try unpacked(UInt8.self, bytes) == 5)
            #expect(try unpacked(UInt64.self, bytes) == 5)
        }
        #expect(try unpacked(Int16.self, [0xD3, 255, 255, 255, 255, 255, 255, 255, 0xFE]) == -2)
    }

    @Test("integers that don't fit are refused with the number and the type")
    func overflow() throws {
        #expect(self.code([0xCC, 128], as: Int8.self) == .overflow)
        #expect(self.code([0xCD, 1, 0], as: UInt8.self) == .overflow)
        #expect(self.code([0xFF], as: UInt8.self) == .overflow)
        #expect(self.code([0xFF], as: UInt64.self) == .overflow)
        #expect(self.code([0xD0, 0x80], as: UInt.self) == .overflow)
        let error = try #require(throws: CodecError.self) { try unpacked(Int8.self, [0xCD, 1, 0]) }
        #expect("\(error)" == "256 doesn't fit Int8; use a wider type")
    }

    @Test("numbers are read as floating point if nothing is lost")
    func numbers() throws {
        #expect(try unpacked(Double.self, [0xCA, 0x3F, 0x80, 0, 0]) == 1)
        #expect(try unpacked(Double.self, packed(Int64(1) << 53)) == 0x1p53)
        #expect(self.code([0xCF, 0, 0x20, 0, 0, 0, 0, 0, 1], as: Double.self) == .overflow)
        #expect(try unpacked(Float.self, packed(0.5)) == 0.5)
        #expect(try unpacked(Float.self, [7]) == 7)
        #expect(self.code(try packed(0.1), as: Float.self) == .overflow)
        #expect(try unpacked(Float.self, packed(Double.nan)).isNaN)
        #expect(self.code([0xA0], as: Double.self) == .typeMismatch)
    }

    @Test("each kind is told from the others")
    func kinds() throws {
        let samples: [(PackKind, [UInt8])] = [
            (.nil, [0xC0]), (.bool, [0xC2]), (.integer, [0x01]), (.integer, [0xE0]), (.float, [0xCA, 0, 0, 0, 0]),
            (.string, [0xA0]), (.binary, [0xC4, 0]), (.array, [0x90]), (.map, [0x80]), (.extended, [0xD4, 1, 2]),
        ]
        for (kind, bytes) in samples {
            try withPackReader(over: bytes) { reader throws(CodecError) in
                let (found, atStart) = (reader.peekKind, reader.isAtEnd)
                #expect(found == kind && !atStart)
                try reader.skip()
                let (nothing, atEnd) = (reader.peekKind, reader.isAtEnd)
                #expect(nothing == nil && atEnd)
            }
            #expect((self.code(bytes, as: Bool.self) == nil) == (kind == .bool))
            #expect((self.code(bytes, as: String.self) == nil) == (kind == .string))
            #expect((self.code(bytes, as: [Int].self) == nil) == (kind == .array))
            #expect((self.code(bytes, as: [Int: Int].self) == nil) == (kind == .map))
            #expect((self.code(bytes, as: [UInt8].self) == nil) == (kind == .binary))
            #expect((self.code(bytes, as: Nothing.self) == nil) == (kind == .nil))
            #expect((self.code(bytes, as: Int.self) == nil) == (kind == .integer))
            #expect(
                (self.code(bytes) { reader throws(CodecError) in try reader.readExtended() } == nil)
                    == (kind == .extended)
            )
        }
    }

    @Test("a read of the wrong kind leaves the reader before the value")
    func staysBefore() throws {
        try withPackReader(over: [0xA1, 0x78, 0x01]) { reader throws(CodecError) in
            #expect(throws: CodecError.self) { try reader.readInt64() }
            #expect(throws: CodecError.self) { try reader.readBytes() }
            #expect(throws: CodecError.self) { try reader.readMapHeader() }
            let offset = reader.offset
            #expect(offset == 0)
            #expect(try reader.readString() == "x")
            #expect(try reader.readNil() == false)
            #expect(try reader.readBinaryOrInteger() == 1)
        }
    }

    @Test("the unused byte is malformed")
    func unusedByte() {
        #expect(self.code([0xC1], as: Int.self) == .malformed)
        #expect(self.code([0xC1], as: PackValue.self) == .malformed)
        #expect(self.code([0x91, 0xC1]) { reader throws(CodecError) in try reader.skip() } == .malformed)
    }

    @Test(
        "texts that aren't UTF-8 are refused",
        arguments: [
            [0xFF], [0x80], [0xC3], [0xC0, 0xAF], [0xE2, 0x82], [0xED, 0xA0, 0x80], [0xF4, 0x90, 0x80, 0x80],
            [0x61, 0xFE],
            [0xF0, 0x80, 0x80, 0xAF],
        ] as [[UInt8]]
    )
    func invalidText(text: [UInt8]) {
        #expect(self.code([0xA0 | UInt8(text.count)] + text, as: String.self) == .invalidUTF8)
        let padded = [UInt8](repeating: 0x61, count: 100) + text
        #expect(self.code([0xD9, UInt8(padded.count)] + padded, as: String.self) == .invalidUTF8)
        #expect(self.code([0x81, 0xA0 | UInt8(text.count)] + text + [1], as: [String: Int].self) == .invalidUTF8)
    }

    @Test("the replacement character itself is text")
    func replacementCharacter() throws {
        #expect(try unpacked(String.self, [0xA3, 0xEF, 0xBF, 0xBD]) == "\u{FFFD}")
    }

    @Test("counts that the bytes can't hold are refused before memory is reserved")
    func countBombs() {
        let bombs: [[UInt8]] = [
            [0xDD, 255, 255, 255, 255], [0xDC, 255, 255, 1], [0x9F, 1], [0xDF, 255, 255, 255, 255],
            [0xDE, 0, 2, 1, 1, 1],
            [0x81, 1], [0xDB, 255, 255, 255, 255, 1], [0xC6, 255, 255, 255, 255, 1], [0xC9, 255, 255, 255, 255, 1, 1],
            [0xDF, 0x80, 0, 0, 0, 1],
        ]
        for bomb in bombs {
            let decoded = self.code(bomb, as: PackValue.self)
            #expect(decoded == .truncated || decoded == .tooLarge)
            let skipped = self.code(bomb) { reader throws(CodecError) in try reader.skip() }
            #expect(skipped == .truncated || skipped == .tooLarge)
        }
        let many = [0xDC, 0, 17] + [UInt8](repeating: 0xC0, count: 17)
        let limits = CodecLimits(maxCount: 16)
        #expect(
            self.code(many, limits: limits) { reader throws(CodecError) in try reader.readArrayHeader() } == .tooLarge
        )
    }

    @Test("a document over the limit is too large, whatever is read of it, and isn't told as truncated")
    func overTheLimit() {
        let limits = CodecLimits(maxBytes: 2)
        let beyond: [UInt8] = [0xCD, 1, 2]
        func code(_ body: (inout PackReader) throws(CodecError) -> Void) -> CodecError.Code? {
            self.code(beyond, limits: limits, body)
        }
        #expect(code { reader throws(CodecError) in _ = try reader.readInt64() } == .tooLarge)
        #expect(code { reader throws(CodecError) in _ = try reader.readString() } == .tooLarge)
        #expect(code { reader throws(CodecError) in _ = try reader.readDouble() } == .tooLarge)
        #expect(code { reader throws(CodecError) in _ = try reader.readBytes() } == .tooLarge)
        #expect(code { reader throws(CodecError) in _ = try reader.readArrayHeader() } == .tooLarge)
        #expect(code { reader throws(CodecError) in _ = try reader.readMapHeader() } == .tooLarge)
        #expect(code { reader throws(CodecError) in _ = try reader.readExtended() } == .tooLarge)
        #expect(code { reader throws(CodecError) in _ = try reader.readNil() } == .tooLarge)
        #expect(code { reader throws(CodecError) in try reader.skip() } == .tooLarge)
        #expect(code { reader throws(CodecError) in try reader.expectEnd() } == .tooLarge)
        #expect(code { reader throws(CodecError) in _ = try unpackValue([Int].self, from: &reader) } == .tooLarge)
        #expect(
            code { reader throws(CodecError) in _ = try unpackValue([String: [Int?]].self, from: &reader) } == .tooLarge
        )
        let short = self.code([0xCD, 1], limits: limits) { reader throws(CodecError) in _ = try reader.readInt64() }
        #expect(short == .truncated)
    }

    @Test("what a peer sent is one value and nothing else")
    func receivedValues() throws {
        #expect(try unpackReceived(Int.self, from: [7]) == 7)
        let trailing = #expect(throws: CodecError.self) { try unpackReceived(Int.self, from: [7, 0]) }
        #expect(trailing?.code == .trailingBytes)
        let arguments = self.code([0x91, 1, 2]) { reader throws(CodecError) in
            _ = try unpackAllArguments(Int.self, from: &reader)
        }
        #expect(arguments == .trailingBytes)
    }

    @Test("deep nesting is refused by types and values and passed over by skip")
    func depthBomb() throws {
        let bomb = [UInt8](repeating: 0x91, count: 1_000_000) + [0xC0]
        #expect(self.code(bomb, as: PackValue.self) == .tooDeep)
        try withPackReader(over: bomb) { reader throws(CodecError) in
            try reader.skip()
            let isAtEnd = reader.isAtEnd
            #expect(isAtEnd)
        }
        #expect(try unpacked([[Int]].self, [0x91, 0x91, 1], limits: CodecLimits(maxDepth: 2)) == [[1]])
        #expect(throws: CodecError.self) {
            try unpacked([[Int]].self, [0x91, 0x91, 1], limits: CodecLimits(maxDepth: 1))
        }
        let sideBySide = [0xDC, 0, 200] + [UInt8](repeating: 0x90, count: 200)
        #expect(try unpacked([[Int]].self, sideBySide).count == 200)
    }

    @Test("bytes behind the value are noticed")
    func trailingBytes() {
        let error = #expect(throws: CodecError.self) { try unpacked(Int.self, [1, 2, 3]) }
        #expect(error?.code == .trailingBytes)
    }

    @Test("the empty document is truncated, whatever is read")
    func empty() {
        #expect(self.code([], as: Int.self) == .truncated)
        #expect(self.code([], as: Int8.self) == .truncated)
        #expect(self.code([], as: UInt64.self) == .truncated)
        #expect(self.code([], as: Bool.self) == .truncated)
        #expect(self.code([], as: Double.self) == .truncated)
        #expect(self.code([], as: Float.self) == .truncated)
        #expect(self.code([], as: String.self) == .truncated)
        #expect(self.code([], as: [UInt8].self) == .truncated)
        #expect(self.code([], as: [Int].self) == .truncated)
        #expect(self.code([], as: [Int: Int].self) == .truncated)
        #expect(self.code([], as: Int?.self) == .truncated)
        #expect(self.code([], as: PackValue.self) == .truncated)
        #expect(self.code([]) { reader throws(CodecError) in try reader.skip() } == .truncated)
        #expect(self.code([]) { reader throws(CodecError) in try reader.readExtended() } == .truncated)
    }

    @Test("bytes are read without a copy")
    func binarySlice() throws {
        try withPackReader(over: [0xC4, 3, 1, 2, 3]) { reader throws(CodecError) in
            let sum = try reader.readBinarySlice { bytes in bytes.reduce(0) { $0 + Int($1) } }
            #expect(sum == 6)
            let isAtEnd = reader.isAtEnd
            #expect(isAtEnd)
        }
    }
}

extension PackReader {
    /// Reads an integer after a failed attempt to read bytes, as a caller with two formats does.
    fileprivate mutating func readBinaryOrInteger() throws(CodecError) -> Int64 {
        do {
            return Int64(try self.readBytes().count)
        } catch {
            return try self.readInt64()
        }
    }
}
