// SPDX-License-Identifier: Apache-2.0

// What a type's own `encode(to:)` sees.

struct PackEncoder: Encoder {
    let link: EncodingLink

    var codingPath: [any CodingKey] { self.link.codingPath }
    var userInfo: [CodingUserInfoKey: Any] { [:] }

    func container<Key: CodingKey>(keyedBy type: Key.Type) -> KeyedEncodingContainer<Key> {
        // An encoder that was kept is useless: every write to it throws.
        guard self.link.isValid else { return KeyedEncodingContainer(MapWriter(link: self.link)) }
        self.link.frame.open(.map)
        return self.link.frame.container(keyedBy: type)
    }

    func unkeyedContainer() -> any UnkeyedEncodingContainer {
        if self.link.isValid { self.link.frame.open(.array) }
        return ArrayWriter(link: self.link)
    }

    func singleValueContainer() -> any SingleValueEncodingContainer {
        SingleWriter(link: self.link)
    }
}

extension EncodingLink {
    /// The frame, if the value isn't complete.
    @inline(__always)
    func open() throws(CodecError) -> EncodingFrame {
        guard self.isValid else { throw CodecError.encoderMisused() }
        return self.frame
    }

    var codingPath: [any CodingKey] { self.isValid ? self.frame.codingPath : [] }

    /// A nested container; the result is useless if the value is complete.
    func openNested(at key: any CodingKey, hasKey: Bool) -> EncodingLink {
        self.isValid ? self.frame.openNested(at: key, hasKey: hasKey) : self
    }
}

struct MapWriter<Key: CodingKey>: KeyedEncodingContainerProtocol {
    let link: EncodingLink
    var codingPath: [any CodingKey] { self.link.codingPath }

    @inline(__always)
    private func write<Value: WireCodable>(_ value: Value, forKey key: Key) throws {
        try self.link.withFrame { frame in
            let mark = try frame.begin(key.stringValue)
            do throws(CodecError) {
                try unsafe value.pack(into: &frame.writer.pointee)
            } catch {
                frame.rollBack(to: mark)
                throw error.under(key)
            }
            frame.passed()
        }
    }

    mutating func encodeNil(forKey key: Key) throws {
        try self.write(Nothing(), forKey: key)
    }

    mutating func encode<Value: Encodable>(_ value: Value, forKey key: Key) throws {
        let frame = try self.link.open()
        let mark = try frame.begin(key.stringValue)
        try unsafe withUnsafePointer(to: key) { place in
            let step = unsafe PathStep(to: place, outOf: .container(Unmanaged.passUnretained(frame)))
            try unsafe withUnsafePointer(to: step) { step in
                do {
                    try unsafe frame.encode(value, at: step)
                } catch {
                    frame.rollBack(to: mark)
                    throw unsafe CodecError(encoding: error, below: PathStep.count(to: step)).under(key)
                }
            }
        }
        frame.passed()
    }

    mutating func nestedContainer<Nested: CodingKey>(
        keyedBy keyType: Nested.Type,
        forKey key: Key
    ) -> KeyedEncodingContainer<Nested> {
        self.apart(key).container(keyedBy: keyType)
    }

    mutating func nestedUnkeyedContainer(forKey key: Key) -> any UnkeyedEncodingContainer {
        self.apart(key).unkeyedContainer()
    }

    mutating func superEncoder() -> any Encoder { self.apart(NamedKey("super")) }
    mutating func superEncoder(forKey key: Key) -> any Encoder { self.apart(key) }

    private func apart(_ key: any CodingKey) -> PackEncoder {
        PackEncoder(link: self.link.openNested(at: key, hasKey: true))
    }

    mutating func encode(_ value: Bool, forKey key: Key) throws { try self.write(value, forKey: key) }
    mutating func encode(_ value: String, forKey key: Key) throws { try self.write(value, forKey: key) }
    mutating func encode(_ value: Double, forKey key: Key) throws { try self.write(value, forKey: key) }
    mutating func encode(_ value: Float, forKey key: Key) throws { try self.write(value, forKey: key) }
    mutating func encode(_ value: Int, forKey key: Key) throws { try self.write(value, forKey: key) }
    mutating func encode(_ value: Int8, forKey key: Key) throws { try self.write(value, forKey: key) }
    mutating func encode(_ value: Int16, forKey key: Key) throws { try self.write(value, forKey: key) }
    mutating func encode(_ value: Int32, forKey key: Key) throws { try self.write(value, forKey: key) }
    mutating func encode(_ value: Int64, forKey key: Key) throws { try self.write(value, forKey: key) }
    mutating func encode(_ value: UInt, forKey key: Key) throws { try self.write(value, forKey: key) }
    mutating func encode(_ value: UInt8, forKey key: Key) throws { try self.write(value, forKey: key) }
    mutating func encode(_ value: UInt16, forKey key: Key) throws { try self.write(value, forKey: key) }
    mutating func encode(_ value: UInt32, forKey key: Key) throws { try self.write(value, forKey: key) }
    mutating func encode(_ value: UInt64, forKey key: Key) throws { try self.write(value, forKey: key) }
}

private struct ArrayWriter: UnkeyedEncodingContainer {
    let link: EncodingLink
    var codingPath: [any CodingKey] { self.link.codingPath }
    var count: Int { self.link.isValid ? self.link.frame.count : 0 }

    /// Writes an element with `body`, or nothing if that fails.
    @inline(__always)
    private func element(_ body: (EncodingFrame) throws -> Void) throws {
        let frame = try self.link.open()
        try frame.check(.array)
        let mark = unsafe frame.writer.pointee.used
        do {
            try body(frame)
        } catch {
            frame.rollBack(to: mark)
            throw error
        }
        frame.passed()
    }

    @inline(__always)
    private func write<Value: WireCodable>(_ value: Value) throws {
        try self.element { frame in try unsafe value.pack(into: &frame.writer.pointee) }
    }

    mutating func encodeNil() throws { try self.write(Nothing()) }

    mutating func encode<Value: Encodable>(_ value: Value) throws {
        try self.element { frame in
            let step = PathStep(toElement: frame.count, outOf: frame)
            try unsafe withUnsafePointer(to: step) { step in
                do {
                    try unsafe frame.encode(value, at: step)
                } catch {
                    throw unsafe CodecError(encoding: error, below: PathStep.count(to: step)).under(index: frame.count)
                }
            }
        }
    }

    mutating func nestedContainer<Nested: CodingKey>(keyedBy keyType: Nested.Type) -> KeyedEncodingContainer<Nested> {
        self.apart().container(keyedBy: keyType)
    }

    mutating func nestedUnkeyedContainer() -> any UnkeyedEncodingContainer { self.apart().unkeyedContainer() }
    mutating func superEncoder() -> any Encoder { self.apart() }

    private func apart() -> PackEncoder {
        PackEncoder(link: self.link.openNested(at: IndexKey(self.count), hasKey: false))
    }

    mutating func encode(_ value: Bool) throws { try self.write(value) }
    mutating func encode(_ value: String) throws { try self.write(value) }
    mutating func encode(_ value: Double) throws { try self.write(value) }
    mutating func encode(_ value: Float) throws { try self.write(value) }
    mutating func encode(_ value: Int) throws { try self.write(value) }
    mutating func encode(_ value: Int8) throws { try self.write(value) }
    mutating func encode(_ value: Int16) throws { try self.write(value) }
    mutating func encode(_ value: Int32) throws { try self.write(value) }
    mutating func encode(_ value: Int64) throws { try self.write(value) }
    mutating func encode(_ value: UInt) throws { try self.write(value) }
    mutating func encode(_ value: UInt8) throws { try self.write(value) }
    mutating func encode(_ value: UInt16) throws { try self.write(value) }
    mutating func encode(_ value: UInt32) throws { try self.write(value) }
    mutating func encode(_ value: UInt64) throws { try self.write(value) }
}

private struct SingleWriter: SingleValueEncodingContainer {
    let link: EncodingLink
    var codingPath: [any CodingKey] { self.link.codingPath }

    @inline(__always)
    private func write<Value: WireCodable>(_ value: Value) throws {
        try self.link.open().write { writer throws(CodecError) in try value.pack(into: &writer) }
    }

    mutating func encodeNil() throws { try self.write(Nothing()) }

    mutating func encode<Value: Encodable>(_ value: Value) throws {
        try self.link.open().encodeSingle(value)
    }

    mutating func encode(_ value: Bool) throws { try self.write(value) }
    mutating func encode(_ value: String) throws { try self.write(value) }
    mutating func encode(_ value: Double) throws { try self.write(value) }
    mutating func encode(_ value: Float) throws { try self.write(value) }
    mutating func encode(_ value: Int) throws { try self.write(value) }
    mutating func encode(_ value: Int8) throws { try self.write(value) }
    mutating func encode(_ value: Int16) throws { try self.write(value) }
    mutating func encode(_ value: Int32) throws { try self.write(value) }
    mutating func encode(_ value: Int64) throws { try self.write(value) }
    mutating func encode(_ value: UInt) throws { try self.write(value) }
    mutating func encode(_ value: UInt8) throws { try self.write(value) }
    mutating func encode(_ value: UInt16) throws { try self.write(value) }
    mutating func encode(_ value: UInt32) throws { try self.write(value) }
    mutating func encode(_ value: UInt64) throws { try self.write(value) }
}
