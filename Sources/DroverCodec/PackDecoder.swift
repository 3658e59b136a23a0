// SPDX-License-Identifier: Apache-2.0

internal import Glibc

/// Reads a value by its `Decodable` conformance.
///
/// Fields may come in any order and unknown ones are passed over. Fields in the order of their declaration, which is
/// how our encoder writes them, are read in one pass.
@usableFromInline
func decodeValue<Value: Decodable>(_ type: Value.Type, from reader: inout PackReader) throws(CodecError) -> Value {
    let session = DecodingSession()
    // Whoever keeps a decoder beyond this call must not get at the bytes.
    defer { session.isOpen = false }
    do {
        let frame = DecodingFrame(session: session, path: nil, level: 0, reader: reader)
        let value = try frame.decodeWhole(type)
        reader.offset = try frame.end()
        return value
    } catch {
        throw CodecError(decoding: error, below: 0)
    }
}

private final class DecodingSession {
    var isOpen = true
}

/// The way to a value.
///
/// Frames hold these instead of their parents: a parent may hold its child, and a circle would never be freed.
private final class DecodingPath {
    let outer: DecodingPath?
    let key: any CodingKey

    init(outer: DecodingPath?, key: any CodingKey) {
        self.outer = outer
        self.key = key
    }
}

/// One value of the document and how far it was read.
private final class DecodingFrame {
    /// A place among the elements of an array or the entries of a map.
    struct Place {
        var index: Int
        var offset: Int
    }

    enum Kind {
        case untouched, single, array, map
    }

    let session: DecodingSession
    private let path: DecodingPath?
    /// Where the value begins.
    private let start: ReaderPlace
    private let level: Int
    private var kind = Kind.untouched
    /// The elements or entries of a container.
    private(set) var count = 0
    private var first = Place(index: 0, offset: 0)
    /// Where the next field is looked for first.
    private var next = Place(index: 0, offset: 0)
    /// What is known to be the farthest place.
    private var farthest = Place(index: 0, offset: 0)
    /// A value before `farthest` whose own end isn't known yet.
    private var pending: DecodingFrame?

    init(session: DecodingSession, path: DecodingPath?, level: Int, reader: borrowing PackReader) {
        self.session = session
        self.path = path
        self.start = reader.place
        self.level = level
    }

    var codingPath: [any CodingKey] {
        var keys: [any CodingKey] = []
        var place = self.path
        while let key = place?.key {
            keys.append(key)
            place = place?.outer
        }
        return keys.reversed()
    }

    /// A reader that stands before the value.
    func reader() throws(CodecError) -> PackReader {
        guard self.session.isOpen else {
            throw CodecError(.notDecodable, message: "a decoder was used after its decoding ended; don't keep it")
        }
        return PackReader(at: self.start)
    }

    /// A reader within this container.
    private func reader(at offset: Int) throws(CodecError) -> PackReader {
        var reader = try self.reader()
        reader.offset = offset
        try reader.enter()
        return reader
    }

    // MARK: Values

    /// Decodes the value itself as `type`.
    func decodeWhole<Value: Decodable>(_ type: Value.Type) throws -> Value {
        if let route = decodingRoutes.route(of: type) { return try route.decode(type, from: self) }
        if self.level >= 4 * self.start.limits.maxDepth + 4 { throw CodecError.tooDeep(self.start.limits.maxDepth) }
        return try Value(from: PackDecoder(frame: self))
    }

    /// Reads the value by `body`.
    func single<Value>(_ body: (inout PackReader) throws(CodecError) -> Value) throws(CodecError) -> Value {
        var reader = try self.reader()
        let value = try body(&reader)
        if self.kind == .untouched {
            self.kind = .single
            self.farthest.offset = reader.offset
        }
        return value
    }

    /// Decodes the value as another type, in a frame of its own.
    func decodeInside<Value: Decodable>(_ type: Value.Type) throws -> Value {
        let frame = DecodingFrame(
            session: self.session,
            path: self.path,
            level: self.level + 1,
            reader: try self.reader()
        )
        let value = try frame.decodeWhole(type)
        let end = try frame.end()
        if self.kind == .untouched {
            self.kind = .single
            self.farthest.offset = end
        }
        return value
    }

    // MARK: Containers

    /// Makes the value a container, or finds it to be one already: superclasses share the container.
    func open(_ kind: Kind) throws(CodecError) {
        if self.kind == kind { return }
        var reader = try self.reader()
        let count = kind == .map ? try reader.readMapHeader() : try reader.readArrayHeader()
        try reader.enter()
        self.kind = kind
        self.count = count
        self.first = Place(index: 0, offset: reader.offset)
        self.next = self.first
        self.farthest = self.first
        self.pending = nil
    }

    /// The first element's place.
    var firstPlace: Place { self.first }

    /// Where the value ends.
    func end() throws(CodecError) -> Int {
        switch self.kind {
        case .single:
            return self.farthest.offset
        case .untouched:
            var reader = try self.reader()
            try reader.skip()
            return reader.offset
        case .array, .map:
            try self.settle()
            var reader = try self.reader(at: self.farthest.offset)
            for _ in self.farthest.index..<self.count {
                if self.kind == .map { try reader.skip() }
                try reader.skip()
            }
            self.farthest = Place(index: self.count, offset: reader.offset)
            return reader.offset
        }
    }

    /// Finds the end of the value that was handed out last.
    private func settle() throws(CodecError) {
        guard let pending = self.pending else { return }
        let end = try pending.end()
        self.pending = nil
        if self.farthest.offset < end { self.farthest.offset = end }
        self.next = self.farthest
    }

    /// Notes that everything before `place` was read.
    func passed(_ place: Place) {
        self.next = place
        if place.index > self.farthest.index { self.farthest = place }
    }

    /// The frame of the value at `place`, whose end is asked for when it is needed.
    func child(at place: Place, key: any CodingKey) throws(CodecError) -> DecodingFrame {
        DecodingFrame(
            session: self.session,
            path: DecodingPath(outer: self.path, key: key),
            level: self.level + 1,
            reader: try self.reader(at: place.offset)
        )
    }

    /// Hands out the value at `place` for a nested container.
    func apart(at place: Place, key: any CodingKey) throws(CodecError) -> DecodingFrame {
        let child = try self.child(at: place, key: key)
        if place.index >= self.farthest.index {
            self.farthest = Place(index: place.index + 1, offset: place.offset)
            self.pending = child
        }
        return child
    }

    /// The value of `key`; its place has the entry's index and the value's offset.
    func find(_ key: any CodingKey) throws(CodecError) -> Place? {
        try self.settle()
        let name = key.stringValue
        let number = key.intValue
        let from = self.next
        if let found = try self.scan(from: from, to: self.count, name: name, number: number) { return found }
        return try self.scan(from: self.first, to: from.index, name: name, number: number)
    }

    private func scan(from: Place, to end: Int, name: String, number: Int?) throws(CodecError) -> Place? {
        if from.index >= end { return nil }
        var reader = try self.reader(at: from.offset)
        for index in from.index..<end {
            let isWanted = try reader.matchKey(name: name, number: number)
            if isWanted { return Place(index: index, offset: reader.offset) }
            try reader.skip()
            let after = Place(index: index + 1, offset: reader.offset)
            if after.index > self.farthest.index { self.farthest = after }
        }
        return nil
    }

    /// All keys, in the order of the document.
    func allKeys<Key: CodingKey>(_ type: Key.Type) throws(CodecError) -> [Key] {
        var reader = try self.reader(at: self.first.offset)
        var keys: [Key] = []
        for _ in 0..<self.count {
            switch reader.peekKind {
            case .string:
                if let key = Key(stringValue: try reader.readString()) { keys.append(key) }
            case .integer:
                if let number = Int(exactly: try reader.readInt64()), let key = Key(intValue: number) {
                    keys.append(key)
                }
            default:
                try reader.skip()
            }
            try reader.skip()
        }
        return keys
    }

    /// Reads the value at `place` by `body`, and notes that it was passed.
    func value<Value>(
        at place: Place,
        key: any CodingKey,
        _ body: (inout PackReader) throws(CodecError) -> Value
    ) throws(CodecError) -> Value {
        var reader = try self.reader(at: place.offset)
        do {
            let value = try body(&reader)
            self.passed(Place(index: place.index + 1, offset: reader.offset))
            return value
        } catch {
            throw error.under(key)
        }
    }

    /// Decodes the value at `place`, and notes that it was passed.
    func decode<Value: Decodable>(_ type: Value.Type, at place: Place, key: any CodingKey) throws -> Value {
        let child = try self.child(at: place, key: key)
        do {
            let value = try child.decodeWhole(type)
            self.passed(Place(index: place.index + 1, offset: try child.end()))
            return value
        } catch {
            throw CodecError(decoding: error, below: child.codingPath.count).under(key)
        }
    }
}

// MARK: - Shorter ways than Codable's

/// Reads values of one type without their `init(from:)`.
private protocol DecodingRoute: Sendable {
    /// Reads a value of the route's type, which must be `type`.
    func decode<Value>(_ type: Value.Type, from frame: DecodingFrame) throws -> Value
}

/// The route of each type; nil if there is only `init(from:)`.
private let decodingRoutes = RouteCache<(any DecodingRoute)?> { type in
    func wire<Wire: WireCodable>(_ type: Wire.Type) -> any DecodingRoute { WireRoute<Wire>() }
    func bytes<Bytes: RangeReplaceableCollection<UInt8>>(_ type: Bytes.Type) -> any DecodingRoute {
        BytesRoute<Bytes>()
    }
    func elements<List: DecodableElements>(_ type: List.Type) -> any DecodingRoute { ElementsRoute<List>() }
    if let type = type as? any WireCodable.Type { return wire(type) }
    if let type = type as? any RangeReplaceableCollection<UInt8>.Type { return bytes(type) }
    if let type = type as? any DecodableElements.Type { return elements(type) }
    return nil
}

private struct WireRoute<Wire: WireCodable>: DecodingRoute {
    func decode<Value>(_ type: Value.Type, from frame: DecodingFrame) throws -> Value {
        try frame.single { reader throws(CodecError) in try unpackWire(Wire.self, as: type, from: &reader) }
    }
}

private struct BytesRoute<Bytes: RangeReplaceableCollection<UInt8>>: DecodingRoute {
    func decode<Value>(_ type: Value.Type, from frame: DecodingFrame) throws -> Value {
        try frame.single { reader throws(CodecError) in
            let bytes = try unsafe reader.readBinarySlice { raw in unsafe Bytes(raw) }
            return unsafe unsafeBitCast(bytes, to: type)
        }
    }
}

private struct ElementsRoute<List: DecodableElements>: DecodingRoute {
    func decode<Value>(_ type: Value.Type, from frame: DecodingFrame) throws -> Value {
        let list = try List.decodeElements(from: frame)
        return unsafe unsafeBitCast(list, to: type)
    }
}

/// Arrays and dictionaries of values that aren't all ``WireCodable``.
private protocol DecodableElements {
    static func decodeElements(from frame: DecodingFrame) throws -> Self
}

extension Array: DecodableElements where Element: Decodable {
    fileprivate static func decodeElements(from frame: DecodingFrame) throws -> [Element] {
        try frame.open(.array)
        var elements: [Element] = []
        elements.reserveCapacity(PackReader.firstReservation(frame.count))
        var place = frame.firstPlace
        for index in 0..<frame.count {
            elements.append(try frame.decode(Element.self, at: place, key: IndexKey(index)))
            place = frame.nextPlace
        }
        return elements
    }
}

extension Dictionary: DecodableElements where Key: WireCodable, Value: Decodable {
    fileprivate static func decodeElements(from frame: DecodingFrame) throws -> [Key: Value] {
        try frame.open(.map)
        var entries: [Key: Value] = [:]
        entries.reserveCapacity(PackReader.firstReservation(frame.count))
        var place = frame.firstPlace
        for index in 0..<frame.count {
            let (key, offset) = try frame.readKey(Key.self, at: place)
            place = DecodingFrame.Place(index: index, offset: offset)
            entries[key] = try frame.decode(Value.self, at: place, key: EntryKey(key))
            place = frame.nextPlace
        }
        return entries
    }
}

extension DecodingFrame {
    /// The place behind the value that was read last.
    var nextPlace: Place { self.next }

    /// Reads a key at `place`; returns it and where its value begins.
    func readKey<Key: WireCodable>(_ type: Key.Type, at place: Place) throws(CodecError) -> (key: Key, value: Int) {
        var reader = try self.reader(at: place.offset)
        let key = try Key.unpack(from: &reader)
        return (key, reader.offset)
    }
}

extension PackReader {
    /// Reads a map's key; says whether it is `name` or `number`.
    fileprivate mutating func matchKey(name: String, number: Int?) throws(CodecError) -> Bool {
        switch self.peekKind {
        case .string:
            let range = try self.stringRange()
            self.offset = range.upperBound
            if range.count != name.utf8.count { return false }
            var name = name
            let base = unsafe self.base
            return name.withUTF8 { text in
                guard let text = text.baseAddress, let base = unsafe base else { return range.isEmpty }
                return unsafe memcmp(text, base + range.lowerBound, range.count) == 0
            }
        case .integer where number != nil:
            let (bits, isNegative, size) = try self.wideInteger()
            self.offset += size
            return isNegative ? Int(Int64(bitPattern: bits)) == number : Int(exactly: bits) == number
        default:
            try self.skip()
            return false
        }
    }
}

// MARK: - What Codable sees

private struct PackDecoder: Decoder {
    let frame: DecodingFrame
    var codingPath: [any CodingKey] { self.frame.codingPath }
    var userInfo: [CodingUserInfoKey: Any] { [:] }

    func container<Key: CodingKey>(keyedBy type: Key.Type) throws -> KeyedDecodingContainer<Key> {
        try self.frame.open(.map)
        return KeyedDecodingContainer(MapReader(frame: self.frame))
    }

    func unkeyedContainer() throws -> any UnkeyedDecodingContainer {
        try self.frame.open(.array)
        return ArrayReader(frame: self.frame)
    }

    func singleValueContainer() throws -> any SingleValueDecodingContainer {
        SingleReader(frame: self.frame)
    }
}

private struct MapReader<Key: CodingKey>: KeyedDecodingContainerProtocol {
    let frame: DecodingFrame
    var codingPath: [any CodingKey] { self.frame.codingPath }

    /// The keys that `Key` knows; none if the bytes are at fault, as there is no way to throw here.
    var allKeys: [Key] {
        do {
            return try self.frame.allKeys(Key.self)
        } catch {
            // Reading the rest of the map meets the same error and throws it.
            return []
        }
    }

    func contains(_ key: Key) -> Bool {
        do {
            return try self.frame.find(key) != nil
        } catch {
            // Reading the rest of the map meets the same error and throws it.
            return false
        }
    }

    private func place(of key: any CodingKey) throws(CodecError) -> DecodingFrame.Place {
        guard let place = try self.frame.find(key) else {
            throw CodecError(
                .missingField,
                message:
                    "the field \"\(key.stringValue)\" is missing; make it optional or use the same type on both sides"
            )
        }
        return place
    }

    private func read<Value: WireCodable>(_ type: Value.Type, forKey key: Key) throws -> Value {
        try self.frame.value(at: try self.place(of: key), key: key) { reader throws(CodecError) in
            try type.unpack(from: &reader)
        }
    }

    func decodeNil(forKey key: Key) throws -> Bool {
        let place = try self.place(of: key)
        let frame = try self.frame.child(at: place, key: key)
        var reader = try frame.reader()
        return try reader.readNil()
    }

    func decode<Value: Decodable>(_ type: Value.Type, forKey key: Key) throws -> Value {
        try self.frame.decode(type, at: try self.place(of: key), key: key)
    }

    func nestedContainer<Nested: CodingKey>(
        keyedBy type: Nested.Type,
        forKey key: Key
    ) throws -> KeyedDecodingContainer<Nested> {
        try self.apart(key).container(keyedBy: type)
    }

    func nestedUnkeyedContainer(forKey key: Key) throws -> any UnkeyedDecodingContainer {
        try self.apart(key).unkeyedContainer()
    }

    func superDecoder() throws -> any Decoder { try self.apart(NamedKey("super")) }
    func superDecoder(forKey key: Key) throws -> any Decoder { try self.apart(key) }

    private func apart(_ key: any CodingKey) throws(CodecError) -> PackDecoder {
        PackDecoder(frame: try self.frame.apart(at: try self.place(of: key), key: key))
    }

    func decode(_ type: Bool.Type, forKey key: Key) throws -> Bool { try self.read(type, forKey: key) }
    func decode(_ type: String.Type, forKey key: Key) throws -> String { try self.read(type, forKey: key) }
    func decode(_ type: Double.Type, forKey key: Key) throws -> Double { try self.read(type, forKey: key) }
    func decode(_ type: Float.Type, forKey key: Key) throws -> Float { try self.read(type, forKey: key) }
    func decode(_ type: Int.Type, forKey key: Key) throws -> Int { try self.read(type, forKey: key) }
    func decode(_ type: Int8.Type, forKey key: Key) throws -> Int8 { try self.read(type, forKey: key) }
    func decode(_ type: Int16.Type, forKey key: Key) throws -> Int16 { try self.read(type, forKey: key) }
    func decode(_ type: Int32.Type, forKey key: Key) throws -> Int32 { try self.read(type, forKey: key) }
    func decode(_ type: Int64.Type, forKey key: Key) throws -> Int64 { try self.read(type, forKey: key) }
    func decode(_ type: UInt.Type, forKey key: Key) throws -> UInt { try self.read(type, forKey: key) }
    func decode(_ type: UInt8.Type, forKey key: Key) throws -> UInt8 { try self.read(type, forKey: key) }
    func decode(_ type: UInt16.Type, forKey key: Key) throws -> UInt16 { try self.read(type, forKey: key) }
    func decode(_ type: UInt32.Type, forKey key: Key) throws -> UInt32 { try self.read(type, forKey: key) }
    func decode(_ type: UInt64.Type, forKey key: Key) throws -> UInt64 { try self.read(type, forKey: key) }
}

private struct ArrayReader: UnkeyedDecodingContainer {
    let frame: DecodingFrame
    private var place: DecodingFrame.Place
    private var pending: DecodingFrame?

    init(frame: DecodingFrame) {
        self.frame = frame
        self.place = frame.firstPlace
    }

    var codingPath: [any CodingKey] { self.frame.codingPath }
    var count: Int? { self.frame.count }
    var isAtEnd: Bool { self.place.index >= self.frame.count }
    var currentIndex: Int { self.place.index }

    /// Where the next element begins.
    private mutating func nextPlace() throws(CodecError) -> DecodingFrame.Place {
        if self.isAtEnd {
            throw CodecError(.countMismatch, message: "the array has only \(self.frame.count) elements")
        }
        if let pending = self.pending {
            self.place.offset = try pending.end()
            self.pending = nil
            self.frame.passed(self.place)
        }
        return self.place
    }

    private mutating func read<Value: WireCodable>(_ type: Value.Type) throws -> Value {
        let place = try self.nextPlace()
        let key = IndexKey(place.index)
        let value = try self.frame.value(at: place, key: key) { reader throws(CodecError) in
            try type.unpack(from: &reader)
        }
        self.place = self.frame.nextPlace
        return value
    }

    mutating func decodeNil() throws -> Bool {
        let place = try self.nextPlace()
        var reader = try self.frame.child(at: place, key: IndexKey(place.index)).reader()
        if try !reader.readNil() { return false }
        self.place = DecodingFrame.Place(index: place.index + 1, offset: reader.offset)
        self.frame.passed(self.place)
        return true
    }

    mutating func decode<Value: Decodable>(_ type: Value.Type) throws -> Value {
        let place = try self.nextPlace()
        let value = try self.frame.decode(type, at: place, key: IndexKey(place.index))
        self.place = self.frame.nextPlace
        return value
    }

    mutating func nestedContainer<Nested: CodingKey>(
        keyedBy type: Nested.Type
    ) throws -> KeyedDecodingContainer<Nested> {
        try self.apart().container(keyedBy: type)
    }

    mutating func nestedUnkeyedContainer() throws -> any UnkeyedDecodingContainer {
        try self.apart().unkeyedContainer()
    }

    mutating func superDecoder() throws -> any Decoder { try self.apart() }

    private mutating func apart() throws(CodecError) -> PackDecoder {
        let place = try self.nextPlace()
        let child = try self.frame.apart(at: place, key: IndexKey(place.index))
        self.pending = child
        self.place.index += 1
        return PackDecoder(frame: child)
    }

    mutating func decode(_ type: Bool.Type) throws -> Bool { try self.read(type) }
    mutating func decode(_ type: String.Type) throws -> String { try self.read(type) }
    mutating func decode(_ type: Double.Type) throws -> Double { try self.read(type) }
    mutating func decode(_ type: Float.Type) throws -> Float { try self.read(type) }
    mutating func decode(_ type: Int.Type) throws -> Int { try self.read(type) }
    mutating func decode(_ type: Int8.Type) throws -> Int8 { try self.read(type) }
    mutating func decode(_ type: Int16.Type) throws -> Int16 { try self.read(type) }
    mutating func decode(_ type: Int32.Type) throws -> Int32 { try self.read(type) }
    mutating func decode(_ type: Int64.Type) throws -> Int64 { try self.read(type) }
    mutating func decode(_ type: UInt.Type) throws -> UInt { try self.read(type) }
    mutating func decode(_ type: UInt8.Type) throws -> UInt8 { try self.read(type) }
    mutating func decode(_ type: UInt16.Type) throws -> UInt16 { try self.read(type) }
    mutating func decode(_ type: UInt32.Type) throws -> UInt32 { try self.read(type) }
    mutating func decode(_ type: UInt64.Type) throws -> UInt64 { try self.read(type) }
}

private struct SingleReader: SingleValueDecodingContainer {
    let frame: DecodingFrame
    var codingPath: [any CodingKey] { self.frame.codingPath }

    private func read<Value: WireCodable>(_ type: Value.Type) throws -> Value {
        try self.frame.single { reader throws(CodecError) in try type.unpack(from: &reader) }
    }

    func decodeNil() -> Bool {
        do {
            var reader = try self.frame.reader()
            return try reader.readNil()
        } catch {
            // There is no way to throw here; the decoding that follows meets the same error.
            return false
        }
    }

    func decode<Value: Decodable>(_ type: Value.Type) throws -> Value {
        try self.frame.decodeInside(type)
    }

    func decode(_ type: Bool.Type) throws -> Bool { try self.read(type) }
    func decode(_ type: String.Type) throws -> String { try self.read(type) }
    func decode(_ type: Double.Type) throws -> Double { try self.read(type) }
    func decode(_ type: Float.Type) throws -> Float { try self.read(type) }
    func decode(_ type: Int.Type) throws -> Int { try self.read(type) }
    func decode(_ type: Int8.Type) throws -> Int8 { try self.read(type) }
    func decode(_ type: Int16.Type) throws -> Int16 { try self.read(type) }
    func decode(_ type: Int32.Type) throws -> Int32 { try self.read(type) }
    func decode(_ type: Int64.Type) throws -> Int64 { try self.read(type) }
    func decode(_ type: UInt.Type) throws -> UInt { try self.read(type) }
    func decode(_ type: UInt8.Type) throws -> UInt8 { try self.read(type) }
    func decode(_ type: UInt16.Type) throws -> UInt16 { try self.read(type) }
    func decode(_ type: UInt32.Type) throws -> UInt32 { try self.read(type) }
    func decode(_ type: UInt64.Type) throws -> UInt64 { try self.read(type) }
}
