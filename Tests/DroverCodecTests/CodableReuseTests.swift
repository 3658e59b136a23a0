// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import DroverCodec

/// Has a value encode and decode itself in a way that knows nothing of the codec's shorter ones.
private struct Longer<Value: Codable>: Codable {
    var value: Value

    init(_ value: Value) { self.value = value }
    init(from decoder: any Decoder) throws { self.value = try Value(from: decoder) }
    func encode(to encoder: any Encoder) throws { try self.value.encode(to: encoder) }
}

/// Draws values; the same for each seed.
private struct Draw: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { self.state = seed &+ 0x9E37_79B9_7F4A_7C15 }

    mutating func next() -> UInt64 {
        self.state ^= self.state << 13
        self.state ^= self.state >> 7
        self.state ^= self.state << 17
        return self.state
    }

    mutating func maybe<Value>(_ value: @autoclosure () -> Value) -> Value? { self.next() & 1 == 0 ? value() : nil }
    mutating func text() -> String {
        String(repeating: "aé", count: Int(self.next() % 20)) + String(self.next() % 1000)
    }
}

@Suite("What the codec uses again")
struct CodableReuseTests {
    struct Point: Codable, Hashable, Sendable {
        var x: Double
        var y: Double?
    }

    enum Shape: Codable, Hashable, Sendable {
        case none
        case circle(radius: Double)
        case line(Point, Point)
        indirect case pair(Shape, Shape)
    }

    enum Colour: String, Codable, Hashable, Sendable { case red, green }

    struct Record: Codable, Hashable, Sendable {
        var number: Int
        var small: UInt8?
        var name: String
        var note: String?
        var shape: Shape
        var other: Shape?
        var colour: Colour?
        var points: [Point]
        var holes: [Point?]
        var set: Set<Point>
        var table: [String: Point]
        var aFieldWithANameThatIsLongerThanThirtyOneBytes: Bool?
        var children: [Record]

        fileprivate init(_ draw: inout Draw, depth: Int) {
            func point() -> Point { Point(x: Double(draw.next() % 9), y: draw.maybe(1.5)) }
            func shape(_ depth: Int) -> Shape {
                switch draw.next() % (depth > 0 ? 4 : 3) {
                case 0: .none
                case 1: .circle(radius: 2)
                case 2: .line(point(), point())
                default: .pair(shape(depth - 1), shape(depth - 1))
                }
            }
            self.number = Int(truncatingIfNeeded: draw.next() >> (draw.next() % 64))
            self.small = draw.maybe(7)
            self.name = draw.text()
            self.note = draw.maybe("note")
            self.shape = shape(2)
            self.other = draw.maybe(.none)
            self.colour = draw.maybe(.green)
            self.points = (0..<draw.next() % 20).map { _ in point() }
            self.holes = (0..<draw.next() % 3).map { _ in draw.maybe(Point(x: 1, y: nil)) }
            self.set = draw.next() & 1 == 0 ? [] : [point()]
            self.table = draw.next() & 1 == 0 ? [:] : [draw.text(): point()]
            self.aFieldWithANameThatIsLongerThanThirtyOneBytes = draw.maybe(true)
            self.children = depth == 0 ? [] : (0..<draw.next() % 3).map { _ in Record(&draw, depth: depth - 1) }
        }
    }

    private func agrees<Value: Codable & Hashable>(_ value: Value) throws {
        let bytes = try packed(value)
        #expect(try packed(Longer(value)) == bytes)
        #expect(try unpacked(Value.self, bytes) == value)
        #expect(try unpacked(Longer<Value>.self, bytes).value == value)
    }

    @Test("the short ways and Codable's own write the same bytes and read the same values", arguments: 0..<100)
    func waysAgree(seed: UInt64) throws {
        var draw = Draw(seed: seed)
        let record = Record(&draw, depth: 3)
        try self.agrees(record)
        try self.agrees(record.points)
        try self.agrees(record.holes)
        try self.agrees(ContiguousArray(record.children))
        try self.agrees(record.set)
        try self.agrees(record.table)
        try self.agrees(record.other)
        try self.agrees(record.colour)
        try self.agrees([record.colour])
        try self.agrees(record.points.map { point in point.x })
        try self.agrees(record.points.map { point in Float(point.x) })
        try self.agrees(record.points.map { point in point.y })
        try self.agrees(record.points.map { point in Int32(point.x) &- 3 })
        try self.agrees(record.points.map { point in UInt16(point.x) &* 999 })
        try self.agrees(record.points.map { point in record.number >> Int(point.x) })
        try self.agrees(record.points.map { point in point.y == nil })
    }

    @Test("fields in any order and of any number are found", arguments: 0..<100)
    func anyOrder(seed: UInt64) throws {
        var draw = Draw(seed: seed)
        let record = Record(&draw, depth: 1)
        guard case .map(var entries) = try unpacked(PackValue.self, packed(record)) else { throw CancellationError() }
        for number in 0..<(draw.next() % 100) {
            let value: PackValue = draw.next() & 1 == 0 ? .array([.nil, .string("x")]) : .int(1)
            entries.append(.init(key: draw.next() & 7 == 0 ? .int(Int64(number)) : .string("u\(number)"), value: value))
        }
        entries.shuffle(using: &draw)
        #expect(try unpacked(Record.self, packed(PackValue.map(entries))) == record)
        #expect(
            try unpacked([Record].self, packed(PackValue.array([.map(entries), .map(entries)]))) == [record, record]
        )
    }

    @Test("names are found in whatever form a peer writes them")
    func longForms() throws {
        let bytes: [UInt8] = [0x82, 0xD9, 1, 0x79, 0xC0, 0xDA, 0, 1, 0x78, 0xCB, 0x3F, 0xF0, 0, 0, 0, 0, 0, 0]
        #expect(try unpacked(Point.self, bytes) == Point(x: 1, y: nil))
    }

    /// Keeps its decoder, for its owner to decide what it is.
    private struct Undecided: Decodable {
        var decoder: any Decoder
        init(from decoder: any Decoder) { self.decoder = decoder }
    }

    private struct Decider: Decodable, Equatable {
        var points: [Point]
        var names: [String]
        enum CodingKeys: CodingKey { case first, second, third }

        init(from decoder: any Decoder) throws {
            let container = try decoder.container(keyedBy: CodingKeys.self)
            let first = try container.decode(Undecided.self, forKey: .first)
            let second = try container.decode(Undecided.self, forKey: .second)
            let third = try container.decode([Undecided].self, forKey: .third)
            self.points = [try Point(from: first.decoder), try Point(from: second.decoder)]
            self.points += try third.map { undecided in try Point(from: undecided.decoder) }
            self.names = third.map { undecided in undecided.decoder.codingPath.map(\.stringValue).joined(separator: " ")
            }
        }
    }

    @Test("a decoder that a value keeps serves until its document ends")
    func heldDecoders() throws {
        struct Source: Codable {
            var first = Point(x: 1, y: nil)
            var second = Point(x: 2, y: 2)
            var third = [Point(x: 3, y: nil), Point(x: 4, y: nil)]
        }
        let bytes = try packed([Source(), Source()])
        let values = try unpacked([Decider].self, bytes)
        #expect(values.map { value in value.points.map(\.x) } == [[1, 2, 3, 4], [1, 2, 3, 4]])
        #expect(values.map(\.names) == [["[0] third [0]", "[0] third [1]"], ["[1] third [0]", "[1] third [1]"]])
    }

    /// Keeps what it was given, and tries it at the next value.
    private final class Thief: Encodable {
        nonisolated(unsafe) static var stolen: [KeyedEncodingContainer<NamedKey>] = []
        nonisolated(unsafe) static var encoders: [any Encoder] = []
        var number = 1
        enum CodingKeys: CodingKey { case number }

        func encode(to encoder: any Encoder) throws {
            for index in Self.stolen.indices {
                #expect(throws: CodecError.self) { try Self.stolen[index].encode(2, forKey: NamedKey("late")) }
            }
            for encoder in Self.encoders {
                var container = encoder.container(keyedBy: NamedKey.self)
                #expect(throws: CodecError.self) { try container.encode(2, forKey: NamedKey("late")) }
                var single = encoder.singleValueContainer()
                #expect(throws: CodecError.self) { try single.encode(2) }
            }
            var container = encoder.container(keyedBy: NamedKey.self)
            Self.stolen.append(container)
            Self.encoders.append(encoder)
            try container.encode(self.number, forKey: NamedKey("number"))
        }
    }

    @Test("a container that somebody keeps can't write to the next value of its type")
    func stolenContainers() throws {
        defer {
            Thief.stolen = []
            Thief.encoders = []
        }
        #expect(
            try packed([Thief(), Thief(), Thief()]) == [0x93]
                + [[UInt8]](repeating: [0x81, 0xA6] + Array("number".utf8) + [1], count: 3).joined()
        )
    }

    /// Writes into a nested container whose own container is gone, after a sibling.
    private struct Interleaved: Encodable {
        enum CodingKeys: CodingKey { case a, b, c }

        func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            var inner = Self.inner(&container)
            try container.encode(1, forKey: .b)
            try inner.encode("late")
            var list = container.nestedUnkeyedContainer(forKey: .c)
            try list.encode(Point(x: 1, y: nil))
            try inner.encode("later")
        }

        private static func inner(_ container: inout KeyedEncodingContainer<CodingKeys>) -> any UnkeyedEncodingContainer
        {
            var outer = container.nestedContainer(keyedBy: NamedKey.self, forKey: .a)
            return outer.nestedUnkeyedContainer(forKey: NamedKey("x"))
        }
    }

    @Test("a nested container may be written to as long as its value isn't complete")
    func lateNested() throws {
        let expected = PackValue.map([
            .init(
                key: .string("a"),
                value: .map([
                    .init(key: .string("x"), value: .array([.string("late"), .string("later")]))
                ])
            ),
            .init(key: .string("b"), value: .int(1)),
            .init(key: .string("c"), value: .array([.map([.init(key: .string("x"), value: .double(1))])])),
        ])
        for _ in 0..<3 { #expect(try unpacked(PackValue.self, packed(Interleaved())) == expected) }
        #expect(try unpacked([PackValue].self, packed([Interleaved(), Interleaved()])) == [expected, expected])
    }

    /// Encodes another value with a writer of its own, on the way.
    private struct Envelope: Codable, Equatable {
        var record: Record
        enum CodingKeys: CodingKey { case bytes }

        init(_ record: Record) { self.record = record }

        init(from decoder: any Decoder) throws {
            let container = try decoder.container(keyedBy: CodingKeys.self)
            self.record = try unpacked(Record.self, try container.decode([UInt8].self, forKey: .bytes))
        }

        func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(try packed(self.record), forKey: .bytes)
        }
    }

    @Test("a value may be encoded and decoded within another's own code")
    func nestedSessions() throws {
        var draw = Draw(seed: 3)
        let envelopes = (0..<10).map { _ in Envelope(Record(&draw, depth: 1)) }
        #expect(try unpacked([Envelope].self, packed(envelopes)) == envelopes)
    }

    @Test("threads encode and decode one type at once", .timeLimit(.minutes(5)))
    func threads() async throws {
        var draw = Draw(seed: 4)
        let record = Record(&draw, depth: 2)
        let bytes = try packed(Longer(record))
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    let back = try (0..<50).map { _ in try unpacked(Record.self, packed(record)) }
                    let count = try packed(record).count
                    #expect(back.allSatisfy { other in other == record })
                    #expect(count == bytes.count)
                }
            }
            try await group.waitForAll()
        }
    }
}
