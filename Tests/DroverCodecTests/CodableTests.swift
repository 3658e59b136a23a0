// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import DroverCodec

/// Packs a value in a writer of its own.
func packed<Value: Encodable>(_ value: Value, limits: CodecLimits = .standard) throws(CodecError) -> [UInt8] {
    var writer = PackWriter(capacity: 16, limits: limits)
    try packValue(value, into: &writer)
    return writer.withBytes { bytes in [UInt8](bytes) }
}

/// Reads one value that must take all the bytes.
func unpacked<Value: Decodable>(
    _ type: Value.Type,
    _ bytes: [UInt8],
    limits: CodecLimits = .standard
) throws(CodecError) -> Value {
    try withPackReader(over: bytes, limits: limits) { reader throws(CodecError) in
        let value = try unpackValue(type, from: &reader)
        try reader.expectEnd()
        return value
    }
}

/// A list of weak references.
private final class WeakReferences {
    private struct Reference {
        weak var object: AnyObject?
    }

    private var references: [Reference] = []

    func add(_ object: AnyObject) { self.references.append(Reference(object: object)) }
    var living: Int { self.references.count { $0.object != nil } }
}

@Suite("Codable")
struct CodableTests {
    struct Inner: Codable, Equatable {
        var x: Double
        var y: Double?
    }

    struct User: Codable, Equatable {
        var name: String
        var age: Int
        var tags: [String]
        var inner: Inner
        var others: [Inner?]
        var table: [String: Inner]
        var numbered: [Int: Inner]
        var data: Data
    }

    enum Shape: Codable, Equatable {
        case point
        case circle(radius: Double)
        case segment(Inner, Inner)
        indirect case both(Shape, Shape)
    }

    enum Colour: String, Codable { case red, green }

    class Animal: Codable {
        var name: String
        init(name: String) { self.name = name }
    }

    /// Shares its container with its superclass.
    final class Dog: Animal {
        var age: Int
        private enum CodingKeys: CodingKey { case age }

        init(name: String, age: Int) {
            self.age = age
            super.init(name: name)
        }

        required init(from decoder: any Decoder) throws {
            self.age = try decoder.container(keyedBy: CodingKeys.self).decode(Int.self, forKey: .age)
            try super.init(from: decoder)
        }

        override func encode(to encoder: any Encoder) throws {
            try super.encode(to: encoder)
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(self.age, forKey: .age)
        }
    }

    /// Gives its superclass an encoder of its own.
    final class Cat: Animal {
        var lives: Int
        private enum CodingKeys: CodingKey { case lives }

        init(name: String, lives: Int) {
            self.lives = lives
            super.init(name: name)
        }

        required init(from decoder: any Decoder) throws {
            let container = try decoder.container(keyedBy: CodingKeys.self)
            self.lives = try container.decode(Int.self, forKey: .lives)
            try super.init(from: container.superDecoder())
        }

        override func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try super.encode(to: container.superEncoder())
            try container.encode(self.lives, forKey: .lives)
        }
    }

    private let user = User(
        name: "Ada",
        age: 36,
        tags: ["a", "b"],
        inner: Inner(x: 1, y: nil),
        others: [nil, Inner(x: 2, y: 3)],
        table: ["k": Inner(x: 4, y: 5)],
        numbered: [-7: Inner(x: 6, y: nil)],
        data: Data([1, 2, 3])
    )

    @Test("what goes to a super encoder after the container's own fields stands in its place")
    func superEncoderKept() throws {
        struct Kept: Encodable {
            private enum CodingKeys: CodingKey { case a, b }

            func encode(to encoder: any Encoder) throws {
                var container = encoder.container(keyedBy: CodingKeys.self)
                let kept = container.superEncoder(forKey: .a)
                try container.encode(1, forKey: .b)
                try 2.encode(to: kept)
            }
        }
        #expect(try packed(Kept()) == [0x82, 0xA1, 0x61, 2, 0xA1, 0x62, 1])
    }

    @Test("limits may be the largest numbers there are")
    func largestLimits() throws {
        let limits = CodecLimits(maxBytes: .max, maxDepth: .max, maxCount: .max)
        #expect(try unpacked(User.self, packed(self.user, limits: limits), limits: limits) == self.user)
        var writer = PackWriter(capacity: 16, headerBytes: 16, limits: limits)
        try packValue(String(repeating: "x", count: 1000), into: &writer)
        let count = writer.withBytes { $0.count }
        #expect(count >= 1003)
    }

    @Test("a structure is refused if nothing may be nested")
    func noDepth() {
        #expect(throws: CodecError.self) { try packed(self.user, limits: CodecLimits(maxDepth: 0)) }
    }

    private func roundTrip<Value: Codable & Equatable>(_ value: Value) throws {
        #expect(try unpacked(Value.self, packed(value)) == value)
    }

    @Test("structures come back as they went")
    func structures() throws {
        try self.roundTrip(self.user)
        try self.roundTrip([self.user, self.user])
        try self.roundTrip([1: self.user])
    }

    @Test("a structure is a map by field name in the smallest encoding")
    func structureIsMap() throws {
        #expect(try packed(Inner(x: 0.5, y: nil)) == [0x81, 0xA1, 0x78, 0xCB, 0x3F, 0xE0, 0, 0, 0, 0, 0, 0])
    }

    @Test("fields may come in any order, and unknown ones are passed over")
    func anyOrder() throws {
        struct Wide: Encodable {
            var unknown = [1, 2]
            var y = 2
            var also = "x"
            var x = 1
            var last: [String: [Int]] = ["a": [1]]
        }
        #expect(try unpacked(Inner.self, packed(Wide())) == Inner(x: 1, y: 2))
        #expect(try unpacked([Inner].self, packed([Wide(), Wide()])) == [Inner(x: 1, y: 2), Inner(x: 1, y: 2)])
    }

    @Test("a missing field is named with its path")
    func missingField() throws {
        struct Outer<Item: Codable>: Codable { var list: [Item] }
        struct OnlyY: Codable { var y = 1.0 }
        let bytes = try packed(Outer(list: [OnlyY()]))
        let error = #expect(throws: CodecError.self) { try unpacked(Outer<Inner>.self, bytes) }
        #expect(error?.code == .missingField)
        #expect(error?.path == ["list", "[0]"])
        #expect(error.map { "\($0)" }?.contains("list[0]: the field \"x\" of Inner is missing") == true)
    }

    @Test("a wrong kind is named with its path")
    func wrongKind() throws {
        struct Other: Codable { var x = "text" }
        let error = try #require(throws: CodecError.self) { try unpacked([String: Inner].self, packed(["k": Other()])) }
        #expect(error.code == .typeMismatch)
        #expect("\(error)" == "k.x: expected a floating-point number, found a string")
    }

    @Test("enumerations come back as they went")
    func enumerations() throws {
        try self.roundTrip(Shape.point)
        try self.roundTrip(Shape.circle(radius: 2))
        try self.roundTrip(Shape.segment(Inner(x: 1, y: 2), Inner(x: 3, y: nil)))
        try self.roundTrip(Shape.both(.both(.point, .circle(radius: 1)), .point))
        try self.roundTrip([Colour.red, .green])
        try self.roundTrip(["a": Colour.red])
        #expect(throws: CodecError.self) { try unpacked(Colour.self, packed("blue")) }
    }

    @Test("superclasses share the container or have their own")
    func inheritance() throws {
        let dog = try unpacked(Dog.self, packed(Dog(name: "Rex", age: 3)))
        #expect(dog.name == "Rex")
        #expect(dog.age == 3)
        let cat = try unpacked(Cat.self, packed(Cat(name: "Tom", lives: 9)))
        #expect(cat.name == "Tom")
        #expect(cat.lives == 9)
    }

    @Test("optionals come back as they went")
    func optionals() throws {
        try self.roundTrip([Inner?.none, Inner(x: 1, y: nil)])
        try self.roundTrip(Inner?.none)
        try self.roundTrip([Int?.none, 4])
        try self.roundTrip(["a": Int?.none])
    }

    @Test("collections of bytes travel as bin, without Foundation in the codec")
    func byteCollections() throws {
        #expect(try packed(Data([1, 2])) == [0xC4, 2, 1, 2])
        try self.roundTrip(Data([1, 2, 3]))
        try self.roundTrip(Data())
        try self.roundTrip(Data(repeating: 7, count: 70_000))
        try self.roundTrip(ContiguousArray<UInt8>([1, 2]))
        try self.roundTrip([UInt8]())
        struct Holder: Codable, Equatable {
            var data: Data?
            var list: [Data]
        }
        try self.roundTrip(Holder(data: Data([9]), list: [Data(), Data([1])]))
        #expect(throws: CodecError.self) { try unpacked(Data.self, [0x92, 1, 2]) }
    }

    @Test("dictionaries keep the kind of their keys", arguments: [1, 15, 16, 300])
    func dictionaries(count: Int) throws {
        let pairs = (0..<count).map { ($0 * 100 - 5, Inner(x: Double($0), y: nil)) }
        let numbered = Dictionary(uniqueKeysWithValues: pairs)
        try self.roundTrip(numbered)
        try self.roundTrip(Dictionary(uniqueKeysWithValues: pairs.map { ("\($0.0)", $0.1) }))
        #expect(try packed([1: Inner(x: 0, y: nil)]).starts(with: [0x81, 0x01, 0x81]))
        #expect(try packed(["1": Inner(x: 0, y: nil)]).starts(with: [0x81, 0xA1, 0x31, 0x81]))
        try self.roundTrip([Colour.red: 1])
    }

    @Test("Foundation's types that are Codable come back as they went")
    func foundationTypes() throws {
        try self.roundTrip(Date(timeIntervalSince1970: 1.5))
        try self.roundTrip(UUID())
        try self.roundTrip(try #require(URL(string: "https://example.org/a?b")))
        try self.roundTrip(Decimal(string: "12.75"))
        try self.roundTrip(DateComponents(year: 2026, month: 2))
    }

    /// Writes in an order that only Codable allows: into a nested container after its siblings.
    struct Interleaved: Codable, Equatable {
        var a = 1
        var b = [1, 2]
        var c = ["x": 3]
        enum CodingKeys: CodingKey { case a, b, c, late }

        init() {}

        init(from decoder: any Decoder) throws {
            let container = try decoder.container(keyedBy: CodingKeys.self)
            var list = try container.nestedUnkeyedContainer(forKey: .b)
            let map = try container.nestedContainer(keyedBy: NamedKey.self, forKey: .c)
            self.a = try container.decode(Int.self, forKey: .a)
            self.c = ["x": try map.decode(Int.self, forKey: NamedKey("x"))]
            self.b = []
            while !list.isAtEnd { self.b.append(try list.decode(Int.self)) }
            var late = try container.nestedUnkeyedContainer(forKey: .late)
            var inner = try late.nestedUnkeyedContainer()
            _ = try late.decode(String.self)
            _ = try inner.decode(Int.self)
        }

        func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            var list = container.nestedUnkeyedContainer(forKey: .b)
            var map = container.nestedContainer(keyedBy: NamedKey.self, forKey: .c)
            try container.encode(self.a, forKey: .a)
            for number in self.b { try list.encode(number) }
            try map.encode(3, forKey: NamedKey("x"))
            var late = container.nestedUnkeyedContainer(forKey: .late)
            var inner = late.nestedUnkeyedContainer()
            try late.encode("end")
            try inner.encode(1)
        }
    }

    @Test("nested containers may be written and read in between")
    func interleaved() throws {
        let bytes = try packed(Interleaved())
        let expected: [UInt8] =
            [0x84, 0xA1, 0x62, 0x92, 1, 2, 0xA1, 0x63, 0x81, 0xA1, 0x78, 3, 0xA1, 0x61, 1]
            + [0xA4, 0x6C, 0x61, 0x74, 0x65, 0x92, 0x91, 1, 0xA3, 0x65, 0x6E, 0x64]
        #expect(bytes == expected)
        try self.roundTrip(Interleaved())
        try self.roundTrip([Interleaved(), Interleaved()])
    }

    @Test("containers that grow get the longer heads", arguments: [0, 1, 15, 16, 17, 65_535, 65_536])
    func growingContainers(count: Int) throws {
        struct List: Codable, Equatable {
            var count: Int
            init(count: Int) { self.count = count }
            init(from decoder: any Decoder) throws {
                var container = try decoder.unkeyedContainer()
                self.count = 0
                while !container.isAtEnd {
                    #expect(try container.decode(Int.self) == self.count % 3)
                    self.count += 1
                }
            }
            func encode(to encoder: any Encoder) throws {
                var container = encoder.unkeyedContainer()
                for index in 0..<self.count { try container.encode(index % 3) }
            }
        }
        let bytes = try packed([List(count: count), List(count: 1)])
        let head: [UInt8] =
            switch count {
            case 0...15: [0x90 | UInt8(count)]
            case 16...65_535: [0xDC, UInt8(count >> 8), UInt8(count & 0xFF)]
            default: [0xDD, 0, 1, 0, 0]
            }
        #expect(bytes.dropFirst().starts(with: head))
        #expect(bytes.count == 1 + head.count + count + 2)
        try self.roundTrip([List(count: count), List(count: 1)])
    }

    @Test("a type without fields is an empty map")
    func noFields() throws {
        struct Empty: Codable, Equatable {}
        #expect(try packed(Empty()) == [0x80])
        try self.roundTrip([Empty(), Empty()])
    }

    @Test("a value that fails and is caught leaves no trace")
    func caughtFailure() throws {
        struct Failing: Encodable {
            struct Failure: Error {}
            func encode(to encoder: any Encoder) throws {
                var container = encoder.unkeyedContainer()
                try container.encode("begun")
                var nested = container.nestedUnkeyedContainer()
                try nested.encode(1)
                throw Failure()
            }
        }
        struct Careful: Encodable {
            enum CodingKeys: CodingKey { case a, b }
            func encode(to encoder: any Encoder) throws {
                var container = encoder.container(keyedBy: CodingKeys.self)
                #expect(throws: CodecError.self) { try container.encode(Failing(), forKey: .a) }
                #expect(throws: CodecError.self) { try container.encode([Failing()], forKey: .a) }
                try container.encode(1, forKey: .b)
            }
        }
        #expect(try packed(Careful()) == [0x81, 0xA1, 0x62, 1])
        let error = #expect(throws: CodecError.self) { try packed(["k": [Failing()]]) }
        #expect(error?.code == .notEncodable)
        #expect(error?.path == ["k", "[0]"])
        #expect(error?.cause is Failing.Failure)
    }

    @Test("nesting is limited both ways, also without containers")
    func depth() throws {
        final class Node: Codable {
            var next: Node?
            init(next: Node?) { self.next = next }
        }
        struct Wrapped: Codable {
            var depth: Int
            init(depth: Int) { self.depth = depth }
            init(from decoder: any Decoder) throws {
                self = try decoder.singleValueContainer().decode(Wrapped.self)
            }
            func encode(to encoder: any Encoder) throws {
                var container = encoder.singleValueContainer()
                if self.depth == 0 {
                    try container.encodeNil()
                } else {
                    try container.encode(Wrapped(depth: self.depth - 1))
                }
            }
        }
        func chain(_ length: Int) -> Node { (1..<length).reduce(Node(next: nil)) { node, _ in Node(next: node) } }
        let fits = try packed(chain(64))
        _ = try unpacked(Node.self, fits)
        #expect(throws: CodecError.self) { try packed(chain(65)) }
        #expect(throws: CodecError.self) { try packed(chain(5000)) }
        let bomb = [UInt8]((0..<5000).flatMap { _ in [0x81, 0xA4] + Array("next".utf8) }) + [0xC0]
        let error = #expect(throws: CodecError.self) { try unpacked(Node.self, bomb) }
        #expect(error?.code == .tooDeep)
        #expect(throws: CodecError.self) { try packed(Wrapped(depth: 100_000)) }
        #expect(throws: CodecError.self) { try unpacked(Wrapped.self, [0xC0]) }
    }

    @Test("a decoder that is kept gives nothing away")
    func keptDecoder() throws {
        struct Thief: Decodable {
            let decoder: any Decoder
            init(from decoder: any Decoder) { self.decoder = decoder }
        }
        let thief = try unpacked(Thief.self, packed(["a": Inner(x: 1, y: nil)]))
        #expect(throws: CodecError.self) { try thief.decoder.container(keyedBy: NamedKey.self) }
        #expect(throws: CodecError.self) { try thief.decoder.singleValueContainer().decode(Int.self) }
    }

    /// Holds what a decoder is made of, without keeping it alive.
    final class Traces: @unchecked Sendable {
        private(set) var count = 0
        // Used by one thread at a time.
        private let objects = WeakReferences()

        func note(_ decoder: any Decoder) {
            guard let link = Mirror(reflecting: decoder).descendant("link") else { return }
            self.count += 1
            self.objects.add(link as AnyObject)
        }

        var living: Int { self.objects.living }
    }

    /// Runs `body` on a thread of its own, and returns when that is gone with all that it had.
    private func onOwnThread(_ body: @escaping @Sendable () -> Void) {
        final class Box: Sendable {
            let body: @Sendable () -> Void
            init(_ body: @escaping @Sendable () -> Void) { self.body = body }
        }
        var thread = pthread_t()
        let box = Unmanaged.passRetained(Box(body)).toOpaque()
        let failed = pthread_create(
            &thread,
            nil,
            { box in
                guard let box else { return nil }
                Unmanaged<Box>.fromOpaque(box).takeRetainedValue().body()
                return nil
            },
            box
        )
        #expect(failed == 0)
        pthread_join(thread, nil)
    }

    struct Leaver: Codable {
        static let traces = Traces()

        init() {}

        init(from decoder: any Decoder) throws {
            Self.traces.note(decoder)
            let container = try decoder.container(keyedBy: NamedKey.self)
            var list = try container.nestedUnkeyedContainer(forKey: NamedKey("list"))
            let inner = try list.nestedContainer(keyedBy: NamedKey.self)
            _ = try inner.nestedContainer(keyedBy: NamedKey.self, forKey: NamedKey("deep"))
            throw CancellationError()
        }
    }

    @Test("a thread that ends leaves nothing of its decoding in memory, even if that failed between nested containers")
    func failureFreesEverything() throws {
        let bytes = try packed(["list": [["deep": ["x": 1]]]])
        self.onOwnThread {
            #expect(throws: CodecError.self) { try unpacked(Leaver.self, bytes) }
            #expect(throws: CodecError.self) { try unpacked([Leaver].self, [0x91] + bytes) }
        }
        #expect(Leaver.traces.count == 2)
        #expect(Leaver.traces.living == 0)
    }

    @Test("misused encoders are errors")
    func misuse() throws {
        struct Twice: Encodable {
            func encode(to encoder: any Encoder) throws {
                var container = encoder.singleValueContainer()
                try container.encode(1)
                try container.encode(2)
            }
        }
        struct Mixed: Encodable {
            func encode(to encoder: any Encoder) throws {
                _ = encoder.unkeyedContainer()
                _ = encoder.container(keyedBy: NamedKey.self)
            }
        }
        #expect(throws: CodecError.self) { try packed(Twice()) }
        #expect(throws: CodecError.self) { try packed(Mixed()) }
    }

    @Test("errors of a type's own decoding keep message and path")
    func ownErrors() throws {
        struct Even: Codable {
            var number: Int
            init(number: Int) { self.number = number }
            init(from decoder: any Decoder) throws {
                let container = try decoder.singleValueContainer()
                self.number = try container.decode(Int.self)
                if self.number % 2 != 0 {
                    throw DecodingError.dataCorruptedError(in: container, debugDescription: "odd")
                }
            }
            func encode(to encoder: any Encoder) throws {
                var container = encoder.singleValueContainer()
                try container.encode(self.number)
            }
        }
        let error = try #require(throws: CodecError.self) {
            try unpacked([String: [Even]].self, packed(["k": [2, 3]]))
        }
        #expect("\(error)" == "k[1]: odd")
        #expect(error.cause is DecodingError)
    }

    @Test("structures survive every truncation and every flipped bit", .timeLimit(.minutes(1)))
    func damagedStructures() throws {
        let bytes = try packed(self.user)
        for length in 0..<bytes.count {
            #expect(throws: CodecError.self) { try unpacked(User.self, Array(bytes[..<length])) }
        }
        var decoded = 0
        for bit in 0..<(bytes.count * 8) {
            var damaged = bytes
            damaged[bit / 8] ^= 1 << UInt8(bit % 8)
            do {
                _ = try unpacked(User.self, damaged)
                decoded += 1
            } catch let error {
                #expect(!error.message.isEmpty)
            }
        }
        #expect(decoded > 0)
    }
}
