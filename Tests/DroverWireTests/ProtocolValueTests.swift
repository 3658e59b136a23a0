// SPDX-License-Identifier: Apache-2.0

import DroverCodec
import DroverWire
import Foundation
import Testing

/// Section 16 of `docs/protocol.md`: how values look must be how they look.
@Suite("The specification's values")
struct ProtocolValueTests {
    private struct Point: Codable {
        var x: Int
        var y: Int?
    }

    private enum Colour: String, Codable { case red }

    private enum Word: String, Codable, CodingKeyRepresentable { case one }

    private enum Shape: Codable {
        case dot
        case circle(radius: Int)
        case square(Int)
    }

    /// The rows of the table: how the type is called, and the value's bytes.
    private func rows() throws -> [(name: String, bytes: [UInt8])] {
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let document = try String(contentsOf: root.appending(path: "docs/protocol.md"), encoding: .utf8)
        let section = try #require(document.range(of: "## 16 Values"))
        return document[section.upperBound...].split(separator: "\n").filter { $0.hasPrefix("| ") }.dropFirst()
            .map { line in
                let cells = line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
                let bytes = (cells.last ?? "").filter { $0 != "`" }.split(separator: " ")
                return (cells[0], bytes.compactMap { UInt8($0, radix: 16) })
            }
    }

    private func packed(_ value: some Encodable) throws -> [UInt8] {
        try payload { writer throws(CodecError) in try packValue(value, into: &writer) }
    }

    @Test("each row shows what this side writes, and reads back")
    func values() throws {
        let client: [UInt8] = Array(0x10...0x1F)
        let callback = try payload { writer throws(CodecError) in
            try writer.packArrayHeader(3)
            try writer.pack(client)
            try writer.pack(UInt64(1))
            try writer.pack(UInt64(0))
        }
        let written: [(String, [UInt8])] = [
            ("`Int`, `UInt8` and all other integers", try self.packed(300)),
            ("`Double`", try self.packed(0.5)), ("`Float`", try self.packed(Float(0.5))),
            ("`Bool`", try self.packed(true)),
            ("`String`", try self.packed("hi")), ("`[UInt8]`, `Data`", try self.packed([UInt8]([1, 2]))),
            ("`[Int]`, and arrays and sets of anything else", try self.packed([1, 2])),
            ("`[String: Int]`", try self.packed(["a": 1])),
            ("`[Int: String]`, and maps by other numbers or `Bool`", try self.packed([1: "a"])),
            ("maps by any other type", try self.packed([Colour.red: 1])), ("`Int?`", try self.packed(Int?.none)),
            ("`Int??`", try self.packed(Int??.some(7))), ("a structure", try self.packed(Point(x: 1, y: nil))),
            ("an enumeration with raw values", try self.packed(Colour.red)),
            ("an enumeration", try self.packed(Shape.dot)),
            ("the same with labels", try self.packed(Shape.circle(radius: 1))),
            ("the same without labels", try self.packed(Shape.square(2))),
            ("`Date`", try self.packed(Date(timeIntervalSinceReferenceDate: 1))),
            ("`Duration`", try self.packed(Duration.seconds(2))),
            ("`UUID`", try self.packed(UUID(uuid: (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)))),
            ("`Range<Int>`, `ClosedRange<Int>`", try self.packed(1..<3)),
            ("`URL`", try self.packed(#require(URL(string: "http://a/b")))),
            ("`Decimal`", try self.packed(#require(Decimal(string: "1.5")))),
            ("`Nothing`, and no result", [0xC0]), ("`Callback<Int, Int>`", callback),
        ]
        let rows = try self.rows()
        #expect(rows.map { $0.name } == written.map { $0.0 })
        for (row, (name, bytes)) in zip(rows, written) { #expect(row.bytes == bytes, "\(name)") }
        #expect(try self.packed(Data([1, 2])) == [0xC4, 2, 1, 2])
    }

    private func read<Value: Decodable & Sendable>(_ type: Value.Type, _ bytes: [UInt8]) throws -> Value {
        try withPackReader(over: [0x91] + bytes) { reader throws(CodecError) in
            try unpackAllArguments(type, from: &reader)
        }
    }

    @Test("maps look by the types of their keys, and Foundation's types as they write themselves; both read back")
    func otherMaps() throws {
        let (names, colours, words) = ([1: "a"], [Colour.red: 1], [Word.one: 1])
        #expect(try self.read([Int: String].self, self.packed(names)) == names)
        #expect(try self.read([Colour: Int].self, self.packed(colours)) == colours)
        #expect(try self.packed(words) == [0x81, 0xA3, 0x6F, 0x6E, 0x65, 0x01])
        #expect(try self.read([Word: Int].self, self.packed(words)) == words)
        #expect(try self.packed([true: 1]) == [0x81, 0xC3, 0x01])
        let price = try #require(Decimal(string: "1.5"))
        #expect(try self.read(Decimal.self, self.packed(price)) == price)
        let url = try #require(URL(string: "http://a/b"))
        #expect(try self.read(URL.self, self.packed(url)) == url)
        #expect(try self.read(Range<Int>.self, self.packed(1..<3)) == 1..<3)
        #expect(try self.packed(Float16(0.5)) == self.packed(Float(0.5)))
        #expect(try self.packed(CGFloat(0.5)) == self.packed(0.5))
        #expect(throws: (any Error).self) { try self.packed(Int128(7)) }
        #expect(throws: (any Error).self) { try self.packed(UInt128(7)) }
    }

    @Test("a nil inside an optional is refused, where it would arrive as no value")
    func nestedNil() throws {
        let error = #expect(throws: CodecError.self) { try self.packed(Int??.some(nil)) }
        #expect(error?.code == .notEncodable && error?.message.contains("one layer of optionals") == true)
        #expect(throws: CodecError.self) { try self.packed([Int??.some(nil)]) }
        #expect(try self.packed(Int??.none) == [0xC0])
    }
}
