// SPDX-License-Identifier: Apache-2.0

/// Writes a value by its `Encodable` conformance.
///
/// Structures become maps by field name; the bytes go straight into the writer. `Codable` doesn't tell how many fields
/// come, so each container's head is written when the container is complete.
@usableFromInline
func encodeValue<Value: Encodable>(_ value: Value, into writer: inout PackWriter) throws(CodecError) {
    let session = EncodingSession(limits: writer.limits)
    swap(&session.writer, &writer)
    defer { swap(&session.writer, &writer) }
    do {
        try session.encode(value)
    } catch {
        throw CodecError(encoding: error, below: 0)
    }
}

/// One writer and the values that are being written to it, the outermost first.
private final class EncodingSession {
    /// A value in the making.
    struct Frame {
        enum Kind {
            case untouched, single, array, map
        }

        /// Tells a frame from a later one on the same level.
        let serial: Int
        /// Where the value begins.
        let start: Int
        /// How many keys of the path lead to the value.
        let pathCount: Int
        var kind = Kind.untouched
        var count = 0
        /// Values that are written apart, and where they belong.
        var children: [(offset: Int, session: EncodingSession)] = []
    }

    var writer: PackWriter
    var frames: [Frame] = []
    var path: [any CodingKey]
    /// The first misuse of an encoder in a place that can't throw.
    var misuse: CodecError?
    private var lastSerial = 0
    private let outerFrames: Int

    init(limits: CodecLimits) {
        self.writer = PackWriter(placeholderWith: limits)
        self.path = []
        self.outerFrames = 0
    }

    /// A session for a value that is written apart, because `Codable` lets it be written in between its siblings.
    init(inside parent: EncodingSession, at key: any CodingKey) {
        self.writer = PackWriter(placeholderWith: parent.writer.limits)
        self.writer.depth = parent.writer.depth
        self.path = parent.path + [key]
        self.outerFrames = parent.outerFrames + parent.frames.count
    }

    // MARK: Values

    func encode<Value: Encodable>(_ value: Value) throws {
        if let route = encodingRoutes.route(of: Value.self) {
            try route.encode(value, into: self)
            return
        }
        let serial = try self.openFrame()
        try value.encode(to: PackEncoder(session: self, level: self.frames.count - 1, serial: serial))
        try self.closeFrame(serial: serial)
    }

    /// Encodes `value` at `key`; if that fails, everything is as before, and the error says where it was.
    func encode<Value: Encodable>(_ value: Value, at key: any CodingKey) throws {
        let level = self.frames.count
        let mark = self.writer.count
        let depth = self.writer.depth
        self.path.append(key)
        do {
            try self.encode(value)
            self.path.removeLast()
        } catch {
            let located = CodecError(encoding: error, below: self.path.count).under(key)
            self.path.removeLast()
            self.frames.removeLast(self.frames.count - level)
            self.writer.rollBack(to: mark, depth: depth)
            throw located
        }
    }

    // MARK: Frames

    /// Begins a value; returns its serial number.
    func openFrame() throws(CodecError) -> Int {
        // Values that wrap values in single-value containers nest without nesting containers.
        if self.outerFrames + self.frames.count >= 4 * self.writer.limits.maxDepth + 4 {
            throw CodecError.tooDeep(self.writer.limits.maxDepth)
        }
        self.lastSerial += 1
        self.frames.append(Frame(serial: self.lastSerial, start: self.writer.count, pathCount: self.path.count))
        return self.lastSerial
    }

    /// Completes the innermost value.
    func closeFrame(serial: Int) throws(CodecError) {
        guard let frame = self.frames.popLast(), frame.serial == serial else { throw CodecError.encoderMisused() }
        if let misuse = self.misuse {
            self.misuse = nil
            throw misuse
        }
        if frame.kind == .untouched {
            // A type without fields.
            try self.writer.packMapHeader(0)
            return
        }
        for child in frame.children.reversed() {
            try child.session.finishApart()
            try self.writer.insert(child.session.writer, at: child.offset)
        }
        switch frame.kind {
        case .map: try self.writer.patchHeader(at: frame.start, count: frame.count, short: 0x80, code16: 0xDE)
        case .array: try self.writer.patchHeader(at: frame.start, count: frame.count, short: 0x90, code16: 0xDC)
        case .untouched, .single: return
        }
        self.writer.leave()
    }

    /// Completes the one value of a session that is written apart.
    private func finishApart() throws(CodecError) {
        guard self.frames.count == 1, let root = self.frames.first else { throw CodecError.encoderMisused() }
        try self.closeFrame(serial: root.serial)
    }

    /// Throws unless the frame is the innermost one.
    func check(level: Int, serial: Int) throws(CodecError) {
        guard self.frames.count == level + 1, self.frames[level].serial == serial else {
            throw CodecError.encoderMisused()
        }
    }

    /// Makes the frame a container, or finds it to be one already: superclasses share the container.
    func open(_ kind: Frame.Kind, level: Int, serial: Int) {
        do {
            try self.check(level: level, serial: serial)
            if self.frames[level].kind == kind { return }
            guard self.frames[level].kind == .untouched else { throw CodecError.encoderMisused() }
            try self.writer.enter()
            // The head's place; its value comes when the count is known.
            try self.writer.append(zeros: 1)
            self.frames[level].kind = kind
        } catch {
            self.misuse = self.misuse ?? CodecError(encoding: error, below: 0)
        }
    }

    /// Begins a value that is written apart from this frame; returns its session.
    func openApart(level: Int, serial: Int, at key: any CodingKey, before: () throws -> Void) -> EncodingSession {
        let child = EncodingSession(inside: self, at: key)
        do {
            try self.check(level: level, serial: serial)
            try before()
            self.frames[level].count += 1
            self.frames[level].children.append((self.writer.count, child))
            _ = try child.openFrame()
        } catch {
            self.misuse = self.misuse ?? CodecError(encoding: error, below: 0)
        }
        return child
    }

    func codingPath(level: Int, serial: Int) -> [any CodingKey] {
        guard level < self.frames.count, self.frames[level].serial == serial else { return [] }
        return Array(self.path.prefix(self.frames[level].pathCount))
    }
}

// MARK: - Shorter ways than Codable's

/// Writes values of one type without their `encode(to:)`.
private protocol EncodingRoute: Sendable {
    /// Writes a value, which must be of the route's type.
    func encode<Value>(_ value: Value, into session: EncodingSession) throws
}

/// The route of each type; nil if there is only `encode(to:)`.
private let encodingRoutes = RouteCache<(any EncodingRoute)?> { type in
    func wire<Wire: WireCodable>(_ type: Wire.Type) -> any EncodingRoute { WireRoute<Wire>() }
    func bytes<Bytes: RangeReplaceableCollection<UInt8>>(_ type: Bytes.Type) -> any EncodingRoute {
        BytesRoute<Bytes>()
    }
    func elements<List: EncodableElements>(_ type: List.Type) -> any EncodingRoute { ElementsRoute<List>() }
    if let type = type as? any WireCodable.Type { return wire(type) }
    if let type = type as? any RangeReplaceableCollection<UInt8>.Type { return bytes(type) }
    if let type = type as? any EncodableElements.Type { return elements(type) }
    return nil
}

private struct WireRoute<Wire: WireCodable>: EncodingRoute {
    func encode<Value>(_ value: Value, into session: EncodingSession) throws {
        try unsafe unsafeBitCast(value, to: Wire.self).pack(into: &session.writer)
    }
}

/// Collections of bytes, such as Foundation's `Data`, are written as bytes.
private struct BytesRoute<Bytes: RangeReplaceableCollection<UInt8>>: EncodingRoute {
    func encode<Value>(_ value: Value, into session: EncodingSession) throws {
        let bytes = unsafe unsafeBitCast(value, to: Bytes.self)
        let done: Void? = try bytes.withContiguousStorageIfAvailable { buffer in
            try unsafe session.writer.pack(UnsafeRawBufferPointer(buffer))
        }
        if done == nil { try session.writer.pack([UInt8](bytes)) }
    }
}

private struct ElementsRoute<List: EncodableElements>: EncodingRoute {
    func encode<Value>(_ value: Value, into session: EncodingSession) throws {
        try session.writer.enter()
        try unsafe unsafeBitCast(value, to: List.self).encodeElements(into: session)
        session.writer.leave()
    }
}

/// Arrays and dictionaries of values that aren't all ``WireCodable``: their count is known beforehand.
private protocol EncodableElements {
    func encodeElements(into session: EncodingSession) throws
}

extension Array: EncodableElements where Element: Encodable {
    fileprivate func encodeElements(into session: EncodingSession) throws {
        try session.writer.packArrayHeader(self.count)
        for (index, element) in self.enumerated() { try session.encode(element, at: IndexKey(index)) }
    }
}

/// A dictionary whose keys are ``WireCodable`` keeps them as they are, where `Codable` makes texts of integers.
extension Dictionary: EncodableElements where Key: WireCodable, Value: Encodable {
    fileprivate func encodeElements(into session: EncodingSession) throws {
        try session.writer.packMapHeader(self.count)
        for (key, value) in self {
            try key.pack(into: &session.writer)
            try session.encode(value, at: EntryKey(key))
        }
    }
}

// MARK: - What Codable sees

private struct PackEncoder: Encoder {
    let session: EncodingSession
    let level: Int
    let serial: Int

    var codingPath: [any CodingKey] { self.session.codingPath(level: self.level, serial: self.serial) }
    var userInfo: [CodingUserInfoKey: Any] { [:] }

    /// The encoder of a value that is written apart.
    init(apart session: EncodingSession) {
        self.session = session
        self.level = 0
        self.serial = session.frames.first?.serial ?? 0
    }

    init(session: EncodingSession, level: Int, serial: Int) {
        self.session = session
        self.level = level
        self.serial = serial
    }

    func container<Key: CodingKey>(keyedBy type: Key.Type) -> KeyedEncodingContainer<Key> {
        self.session.open(.map, level: self.level, serial: self.serial)
        return KeyedEncodingContainer(MapWriter(encoder: self))
    }

    func unkeyedContainer() -> any UnkeyedEncodingContainer {
        self.session.open(.array, level: self.level, serial: self.serial)
        return ArrayWriter(encoder: self)
    }

    func singleValueContainer() -> any SingleValueEncodingContainer {
        SingleWriter(encoder: self)
    }
}

private struct MapWriter<Key: CodingKey>: KeyedEncodingContainerProtocol {
    let encoder: PackEncoder
    var session: EncodingSession { self.encoder.session }
    var codingPath: [any CodingKey] { self.encoder.codingPath }

    /// Writes a key and its value by `body`, or nothing if that fails.
    private func entry(_ key: any CodingKey, _ body: () throws -> Void) throws {
        let (session, level) = (self.session, self.encoder.level)
        try session.check(level: level, serial: self.encoder.serial)
        guard session.frames[level].kind == .map else { throw CodecError.encoderMisused() }
        let mark = session.writer.count
        do {
            try session.writer.pack(key.stringValue)
            try body()
        } catch {
            session.writer.rollBack(to: mark, depth: session.writer.depth)
            throw error
        }
        session.frames[level].count += 1
    }

    private func write<Value: WireCodable>(_ value: Value, forKey key: Key) throws {
        try self.entry(key) {
            do {
                try value.pack(into: &self.session.writer)
            } catch let error as CodecError {
                throw error.under(key)
            }
        }
    }

    mutating func encodeNil(forKey key: Key) throws {
        try self.entry(key) { try self.session.writer.packNil() }
    }

    mutating func encode<Value: Encodable>(_ value: Value, forKey key: Key) throws {
        try self.entry(key) { try self.session.encode(value, at: key) }
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
        let session = self.session
        return PackEncoder(
            apart: session.openApart(level: self.encoder.level, serial: self.encoder.serial, at: key) {
                try session.writer.pack(key.stringValue)
            }
        )
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
    let encoder: PackEncoder
    var session: EncodingSession { self.encoder.session }
    var codingPath: [any CodingKey] { self.encoder.codingPath }

    var count: Int {
        let (session, level) = (self.session, self.encoder.level)
        guard level < session.frames.count, session.frames[level].serial == self.encoder.serial else { return 0 }
        return session.frames[level].count
    }

    /// Writes an element by `body`, or nothing if that fails.
    private func element(_ body: () throws -> Void) throws {
        let (session, level) = (self.session, self.encoder.level)
        try session.check(level: level, serial: self.encoder.serial)
        guard session.frames[level].kind == .array else { throw CodecError.encoderMisused() }
        let mark = session.writer.count
        do {
            try body()
        } catch {
            session.writer.rollBack(to: mark, depth: session.writer.depth)
            throw error
        }
        session.frames[level].count += 1
    }

    private func write<Value: WireCodable>(_ value: Value) throws {
        try self.element { try value.pack(into: &self.session.writer) }
    }

    mutating func encodeNil() throws {
        try self.element { try self.session.writer.packNil() }
    }

    mutating func encode<Value: Encodable>(_ value: Value) throws {
        let key = IndexKey(self.count)
        try self.element { try self.session.encode(value, at: key) }
    }

    mutating func nestedContainer<Nested: CodingKey>(keyedBy keyType: Nested.Type) -> KeyedEncodingContainer<Nested> {
        self.apart().container(keyedBy: keyType)
    }

    mutating func nestedUnkeyedContainer() -> any UnkeyedEncodingContainer { self.apart().unkeyedContainer() }
    mutating func superEncoder() -> any Encoder { self.apart() }

    private func apart() -> PackEncoder {
        let key = IndexKey(self.count)
        return PackEncoder(
            apart: self.session.openApart(level: self.encoder.level, serial: self.encoder.serial, at: key) {}
        )
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
    let encoder: PackEncoder
    var session: EncodingSession { self.encoder.session }
    var codingPath: [any CodingKey] { self.encoder.codingPath }

    /// Writes the one value by `body`.
    private func single(_ body: () throws -> Void) throws {
        let (session, level) = (self.session, self.encoder.level)
        try session.check(level: level, serial: self.encoder.serial)
        guard session.frames[level].kind == .untouched else { throw CodecError.encoderMisused() }
        let mark = session.writer.count
        let depth = session.writer.depth
        let pathCount = session.path.count
        do {
            try body()
        } catch {
            session.frames.removeLast(session.frames.count - level - 1)
            session.path.removeLast(session.path.count - pathCount)
            session.writer.rollBack(to: mark, depth: depth)
            throw error
        }
        session.frames[level].kind = .single
    }

    private func write<Value: WireCodable>(_ value: Value) throws {
        try self.single { try value.pack(into: &self.session.writer) }
    }

    mutating func encodeNil() throws {
        try self.single { try self.session.writer.packNil() }
    }

    mutating func encode<Value: Encodable>(_ value: Value) throws {
        try self.single { try self.session.encode(value) }
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

// MARK: - Writing backwards

extension PackWriter {
    /// Writes the head of a container whose place is the byte at `offset` and whose elements follow it.
    fileprivate mutating func patchHeader(at offset: Int, count: Int, short: UInt8, code16: UInt8) throws(CodecError) {
        if count > self.limits.maxCount { throw CodecError.tooMany(count, self.limits.maxCount) }
        let extra = count <= 15 ? 0 : count <= 0xFFFF ? 2 : 4
        try self.openGap(of: extra, at: offset + 1)
        unsafe self.withMutableBytes(in: offset..<(offset + 1 + extra)) { head in
            switch extra {
            case 0:
                unsafe head[0] = short | UInt8(count)
            case 2:
                unsafe head[0] = code16
                unsafe head.storeBytes(of: UInt16(count).bigEndian, toByteOffset: 1, as: UInt16.self)
            default:
                unsafe head[0] = code16 + 1
                unsafe head.storeBytes(of: UInt32(count).bigEndian, toByteOffset: 1, as: UInt32.self)
            }
        }
    }

    /// Puts what `other` holds at `offset`, before what is there.
    fileprivate mutating func insert(_ other: borrowing PackWriter, at offset: Int) throws(CodecError) {
        try self.openGap(of: other.count, at: offset)
        let range = offset..<(offset + other.count)
        unsafe other.withBytes { source in
            unsafe self.withMutableBytes(in: range) { target in unsafe target.copyMemory(from: source) }
        }
    }

    /// Moves the bytes from `offset` on up by `bytes`.
    private mutating func openGap(of bytes: Int, at offset: Int) throws(CodecError) {
        if bytes == 0 { return }
        let tail = self.count - offset
        try self.append(zeros: bytes)
        unsafe self.withMutableBytes(in: offset..<self.count) { all in
            guard let start = all.baseAddress else { return }
            unsafe (start + bytes).copyMemory(from: start, byteCount: tail)
        }
    }

    /// Appends zeroed bytes.
    fileprivate mutating func append(zeros bytes: Int) throws(CodecError) {
        _ = try self.appendZeros(bytes)
    }
}
