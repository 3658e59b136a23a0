// SPDX-License-Identifier: Apache-2.0

// What a type's own `init(from:)` sees.

struct PackDecoder: Decoder {
    let link: DecodingLink

    var codingPath: [any CodingKey] { self.link.frame.codingPath }
    var userInfo: [CodingUserInfoKey: Any] { [:] }

    func container<Key: CodingKey>(keyedBy type: Key.Type) throws -> KeyedDecodingContainer<Key> {
        let frame = try self.link.open()
        try frame.open(.map)
        return frame.container(keyedBy: type)
    }

    func unkeyedContainer() throws -> any UnkeyedDecodingContainer {
        let frame = try self.link.open()
        try frame.open(.array)
        return ArrayReader(link: self.link)
    }

    func singleValueContainer() throws -> any SingleValueDecodingContainer {
        SingleReader(link: self.link)
    }
}

extension DecodingLink {
    /// The frame, if its document is still being read.
    @inline(__always)
    func open() throws(CodecError) -> DecodingFrame {
        guard self.isValid else { throw CodecError.decoderKept() }
        return self.frame
    }
}

extension CodecError {
    @inline(never)
    static func decoderKept() -> CodecError {
        CodecError(.notDecodable, message: "a decoder was used after its decoding ended; don't keep it")
    }
}

struct MapReader<Key: CodingKey>: KeyedDecodingContainerProtocol {
    let ticket: FrameTicket

    /// Empty once the document ended.
    var codingPath: [any CodingKey] {
        do { return try self.ticket.open().codingPath } catch { return [] }
    }

    /// The keys that `Key` knows; none if the bytes are invalid, because this can't throw.
    var allKeys: [Key] {
        do {
            return try self.ticket.open().allKeys(Key.self)
        } catch {
            // Reading the rest of the map meets the same error and throws it.
            return []
        }
    }

    func contains(_ key: Key) -> Bool {
        do {
            return try self.ticket.open().locate(key) >= 0
        } catch {
            // Reading the rest of the map meets the same error and throws it.
            return false
        }
    }

    /// Reads the value of a field; nil if the field is missing, or if its value is nil and may be.
    @inline(__always)
    private func readIfPresent<Value: WireCodable>(_ type: Value.Type, forKey key: Key) throws -> Value? {
        try self.ticket.withFrame { frame in
            let index = try frame.locate(key)
            if index < 0 { return nil }
            do throws(CodecError) {
                if try unsafe frame.reader.pointee.readNil() {
                    frame.passed(index)
                    return nil
                }
                let value = try unsafe type.unpack(from: &frame.reader.pointee)
                frame.passed(index)
                return value
            } catch {
                throw error.under(key)
            }
        }
    }

    @inline(__always)
    private func read<Value: WireCodable>(_ type: Value.Type, forKey key: Key) throws -> Value {
        try self.ticket.withFrame { frame in
            let index = try frame.locate(key)
            if index < 0 { throw frame.missing(key) }
            do throws(CodecError) {
                let value = try unsafe type.unpack(from: &frame.reader.pointee)
                frame.passed(index)
                return value
            } catch {
                throw error.under(key)
            }
        }
    }

    func decodeNil(forKey key: Key) throws -> Bool {
        let frame = try self.ticket.open()
        if try frame.locate(key) < 0 { throw frame.missing(key) }
        return try unsafe frame.reader.pointee.readNil()
    }

    func decode<Value: Decodable>(_ type: Value.Type, forKey key: Key) throws -> Value {
        let frame = try self.ticket.open()
        let index = try frame.locate(key)
        if index < 0 { throw frame.missing(key) }
        return try self.decode(type, at: index, of: key, in: frame)
    }

    func decodeIfPresent<Value: Decodable>(_ type: Value.Type, forKey key: Key) throws -> Value? {
        let frame = try self.ticket.open()
        let index = try frame.locate(key)
        if index < 0 { return nil }
        if try unsafe frame.reader.pointee.readNil() {
            frame.passed(index)
            return nil
        }
        return try self.decode(type, at: index, of: key, in: frame)
    }

    /// Decodes the value before which the reader stands.
    @inline(__always)
    private func decode<Value: Decodable>(
        _ type: Value.Type,
        at index: Int,
        of key: Key,
        in frame: DecodingFrame
    ) throws -> Value {
        try unsafe withUnsafePointer(to: key) { place in
            let step = unsafe PathStep(to: place, outOf: .container(Unmanaged.passUnretained(frame)))
            return try unsafe withUnsafePointer(to: step) { step in
                do {
                    let value = try unsafe frame.decode(type, at: step)
                    frame.passed(index)
                    return value
                } catch {
                    throw unsafe CodecError(decoding: error, below: PathStep.count(to: step)).under(key)
                }
            }
        }
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

    private func apart(_ key: some CodingKey) throws(CodecError) -> PackDecoder {
        let frame = try self.ticket.open()
        let index = try frame.locate(key)
        if index < 0 { throw frame.missing(key) }
        let place = DecodingFrame.Place(index: index, offset: unsafe frame.reader.pointee.position)
        return PackDecoder(link: frame.apart(at: place, key: key, keyIndex: frame.lastKeyIndex).link)
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

    func decodeIfPresent(_ type: Bool.Type, forKey key: Key) throws -> Bool? {
        try self.readIfPresent(type, forKey: key)
    }
    func decodeIfPresent(_ type: String.Type, forKey key: Key) throws -> String? {
        try self.readIfPresent(type, forKey: key)
    }
    func decodeIfPresent(_ type: Double.Type, forKey key: Key) throws -> Double? {
        try self.readIfPresent(type, forKey: key)
    }
    func decodeIfPresent(_ type: Float.Type, forKey key: Key) throws -> Float? {
        try self.readIfPresent(type, forKey: key)
    }
    func decodeIfPresent(_ type: Int.Type, forKey key: Key) throws -> Int? {
        try self.readIfPresent(type, forKey: key)
    }
    func decodeIfPresent(_ type: Int8.Type, forKey key: Key) throws -> Int8? {
        try self.readIfPresent(type, forKey: key)
    }
    func decodeIfPresent(_ type: Int16.Type, forKey key: Key) throws -> Int16? {
        try self.readIfPresent(type, forKey: key)
    }
    func decodeIfPresent(_ type: Int32.Type, forKey key: Key) throws -> Int32? {
        try self.readIfPresent(type, forKey: key)
    }
    func decodeIfPresent(_ type: Int64.Type, forKey key: Key) throws -> Int64? {
        try self.readIfPresent(type, forKey: key)
    }
    func decodeIfPresent(_ type: UInt.Type, forKey key: Key) throws -> UInt? {
        try self.readIfPresent(type, forKey: key)
    }
    func decodeIfPresent(_ type: UInt8.Type, forKey key: Key) throws -> UInt8? {
        try self.readIfPresent(type, forKey: key)
    }
    func decodeIfPresent(_ type: UInt16.Type, forKey key: Key) throws -> UInt16? {
        try self.readIfPresent(type, forKey: key)
    }
    func decodeIfPresent(_ type: UInt32.Type, forKey key: Key) throws -> UInt32? {
        try self.readIfPresent(type, forKey: key)
    }
    func decodeIfPresent(_ type: UInt64.Type, forKey key: Key) throws -> UInt64? {
        try self.readIfPresent(type, forKey: key)
    }
}

private struct ArrayReader: UnkeyedDecodingContainer {
    let link: DecodingLink
    private var place: DecodingFrame.Place
    /// A nested container whose end isn't known yet.
    private var pending: DecodingLink?

    init(link: DecodingLink) {
        self.link = link
        self.place = link.frame.first
    }

    var codingPath: [any CodingKey] { self.link.frame.codingPath }
    var count: Int? { self.link.frame.count }
    var isAtEnd: Bool { self.place.index >= self.link.frame.count }
    var currentIndex: Int { self.place.index }

    /// The frame, its reader before the next element.
    private mutating func open() throws(CodecError) -> DecodingFrame {
        let frame = try self.link.open()
        if self.isAtEnd {
            throw CodecError(.countMismatch, message: "the array has only \(frame.count) elements")
        }
        if let pending = self.pending {
            self.place.offset = try pending.frame.end()
            self.pending = nil
            frame.passed(self.place)
        }
        _ = unsafe frame.reader(at: self.place.offset)
        return frame
    }

    private mutating func passed(in frame: DecodingFrame) {
        frame.passed(self.place.index)
        self.place = frame.next
    }

    private mutating func read<Value: WireCodable>(_ type: Value.Type) throws -> Value {
        let frame = try self.open()
        do {
            let value = try unsafe type.unpack(from: &frame.reader.pointee)
            self.passed(in: frame)
            return value
        } catch {
            throw error.under(index: self.place.index)
        }
    }

    mutating func decodeNil() throws -> Bool {
        let frame = try self.open()
        if try unsafe !frame.reader.pointee.readNil() { return false }
        self.passed(in: frame)
        return true
    }

    mutating func decode<Value: Decodable>(_ type: Value.Type) throws -> Value {
        let frame = try self.open()
        let index = self.place.index
        let step = PathStep(toElement: index, outOf: frame)
        let value = try unsafe withUnsafePointer(to: step) { step in
            do {
                return try unsafe frame.decode(type, at: step)
            } catch {
                throw unsafe CodecError(decoding: error, below: PathStep.count(to: step)).under(index: index)
            }
        }
        self.passed(in: frame)
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
        let frame = try self.open()
        let child = frame.apart(at: self.place, key: IndexKey(self.place.index), keyIndex: -1).link
        self.pending = child
        self.place.index += 1
        return PackDecoder(link: child)
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
    let link: DecodingLink
    var codingPath: [any CodingKey] { self.link.frame.codingPath }

    @inline(__always)
    private func read<Value: WireCodable>(_ type: Value.Type) throws -> Value {
        try self.link.open().single { reader throws(CodecError) in try type.unpack(from: &reader) }
    }

    func decodeNil() -> Bool {
        do {
            return try unsafe self.link.open().readerBefore().pointee.readNil()
        } catch {
            // There is no way to throw here; the decoding that follows meets the same error.
            return false
        }
    }

    func decode<Value: Decodable>(_ type: Value.Type) throws -> Value {
        try self.link.open().decodeInside(type)
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
