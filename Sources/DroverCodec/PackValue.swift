// SPDX-License-Identifier: Apache-2.0

/// Any MessagePack value, for documents whose type isn't known in advance.
public enum PackValue: Hashable, Sendable {
    /// A key and a value of a map.
    public struct Entry: Hashable, Sendable {
        /// The key, of any kind.
        public var key: PackValue
        /// The value.
        public var value: PackValue

        /// Creates an entry.
        ///
        /// - Parameters:
        ///   - key: The key, of any kind.
        ///   - value: The value.
        public init(key: PackValue, value: PackValue) {
            self.key = key
            self.value = value
        }
    }

    /// No value.
    case `nil`
    /// A truth value.
    case bool(Bool)
    /// An integer that fits 64 bits with a sign.
    case int(Int64)
    /// An integer above `Int64.max`; smaller ones are read as ``int(_:)``.
    case uint(UInt64)
    /// A number with 32 bits of floating point.
    case float(Float)
    /// A number with 64 bits of floating point.
    case double(Double)
    /// Text.
    case string(String)
    /// Bytes.
    case binary([UInt8])
    /// A sequence of values.
    case array([PackValue])
    /// A sequence of entries, in the order of the document.
    case map([Entry])
    /// Bytes with an application's own type number.
    case extended(type: Int8, [UInt8])

    /// The value of the first entry whose key is `name`, if this is a map that has one.
    public subscript(name: String) -> PackValue? {
        guard case .map(let entries) = self else { return nil }
        return entries.first { entry in entry.key == .string(name) }?.value
    }
}

extension PackValue: WireCodable {
    /// Writes the value in its smallest encoding.
    ///
    /// - Parameter writer: The writer to write to.
    /// - Throws: ``CodecError`` if a limit is exceeded.
    public func pack(into writer: inout PackWriter) throws(CodecError) {
        switch self {
        case .nil: try writer.packNil()
        case .bool(let value): try writer.pack(value)
        case .int(let value): try writer.pack(value)
        case .uint(let value): try writer.pack(value)
        case .float(let value): try writer.pack(value)
        case .double(let value): try writer.pack(value)
        case .string(let value): try writer.pack(value)
        case .binary(let value): try writer.pack(value)
        case .extended(let type, let value): try writer.pack(extended: value, type: type)
        case .array(let elements):
            try writer.enter()
            try writer.packArrayHeader(elements.count)
            for element in elements { try element.pack(into: &writer) }
            writer.leave()
        case .map(let entries):
            try writer.enter()
            try writer.packMapHeader(entries.count)
            for entry in entries {
                try entry.key.pack(into: &writer)
                try entry.value.pack(into: &writer)
            }
            writer.leave()
        }
    }

    /// Reads any value.
    ///
    /// - Parameter reader: The reader to read from.
    /// - Returns: The value.
    /// - Throws: ``CodecError`` if the bytes aren't MessagePack or exceed a limit.
    public static func unpack(from reader: inout PackReader) throws(CodecError) -> PackValue {
        switch reader.peekKind {
        case .nil:
            _ = try reader.readNil()
            return .nil
        case .bool: return .bool(try reader.readBool())
        case .integer:
            let (bits, isNegative, size) = try reader.wideInteger()
            reader.offset += size
            return isNegative || bits <= UInt64(Int64.max) ? .int(Int64(bitPattern: bits)) : .uint(bits)
        case .float: return try reader.readAnyFloat()
        case .string: return .string(try reader.readString())
        case .binary: return .binary(try reader.readBytes())
        case .extended:
            let (type, bytes) = try reader.readExtended()
            return .extended(type: type, bytes)
        case .array: return try self.unpackElements(from: &reader)
        case .map: return try self.unpackEntries(from: &reader)
        case .invalid: throw reader.malformed()
        case nil: throw reader.truncated()
        }
    }

    private static func unpackElements(from reader: inout PackReader) throws(CodecError) -> PackValue {
        let count = try reader.readArrayHeader()
        try reader.enter()
        var elements: [PackValue] = []
        elements.reserveCapacity(PackReader.firstReservation(count))
        for _ in 0..<count { elements.append(try self.unpack(from: &reader)) }
        reader.leave()
        return .array(elements)
    }

    private static func unpackEntries(from reader: inout PackReader) throws(CodecError) -> PackValue {
        let count = try reader.readMapHeader()
        try reader.enter()
        var entries: [Entry] = []
        entries.reserveCapacity(PackReader.firstReservation(count))
        for _ in 0..<count {
            let key = try self.unpack(from: &reader)
            entries.append(Entry(key: key, value: try self.unpack(from: &reader)))
        }
        reader.leave()
        return .map(entries)
    }
}

extension PackReader {
    /// Reads floating point in the width it has.
    fileprivate mutating func readAnyFloat() throws(CodecError) -> PackValue {
        self.byte(at: self.position) == 0xCA ? .float(try self.readFloat()) : .double(try self.readDouble())
    }
}

extension PackValue: Codable {
    /// Reads a value from any decoder: scalars, arrays, and maps with names as keys.
    ///
    /// Drover's own decoder never gets here; others, such as JSON's, can't tell bytes or extension values from arrays.
    ///
    /// - Parameter decoder: The decoder to read from.
    /// - Throws: The decoder's errors.
    public init(from decoder: any Decoder) throws {
        if let container = try? decoder.container(keyedBy: NamedKey.self) {
            // Tried first and allowed to fail: only trying shows the kind of a decoder's value.
            self = .map(
                try container.allKeys.map { key in
                    Entry(key: .string(key.stringValue), value: try container.decode(PackValue.self, forKey: key))
                }
            )
        } else if var container = try? decoder.unkeyedContainer() {
            // As above.
            var elements: [PackValue] = []
            while !container.isAtEnd { elements.append(try container.decode(PackValue.self)) }
            self = .array(elements)
        } else {
            self = try PackValue(scalar: try decoder.singleValueContainer())
        }
    }

    private init(scalar container: any SingleValueDecodingContainer) throws {
        // Each attempt may fail: only trying shows the kind of a decoder's value.
        if container.decodeNil() {
            self = .nil
        } else if let value = try? container.decode(Bool.self) {
            self = .bool(value)
        } else if let value = try? container.decode(Int64.self) {
            self = .int(value)
        } else if let value = try? container.decode(UInt64.self) {
            self = .uint(value)
        } else if let value = try? container.decode(Double.self) {
            self = .double(value)
        } else {
            self = .string(try container.decode(String.self))
        }
    }

    /// Writes the value to any encoder; maps must have text as keys.
    ///
    /// - Parameter encoder: The encoder to write to.
    /// - Throws: The encoder's errors, and `EncodingError` for a key that isn't text or an extension value.
    public func encode(to encoder: any Encoder) throws {
        switch self {
        case .map(let entries):
            var container = encoder.container(keyedBy: NamedKey.self)
            for entry in entries {
                guard case .string(let name) = entry.key else { throw self.notEncodable(container.codingPath) }
                try container.encode(entry.value, forKey: NamedKey(name))
            }
        case .array(let elements): try elements.encode(to: encoder)
        case .binary(let bytes): try bytes.encode(to: encoder)
        case .nil: try Self?.none.encode(to: encoder)
        case .bool(let value): try value.encode(to: encoder)
        case .int(let value): try value.encode(to: encoder)
        case .uint(let value): try value.encode(to: encoder)
        case .float(let value): try value.encode(to: encoder)
        case .double(let value): try value.encode(to: encoder)
        case .string(let value): try value.encode(to: encoder)
        case .extended: throw self.notEncodable(encoder.codingPath)
        }
    }

    private func notEncodable(_ path: [any CodingKey]) -> EncodingError {
        let text = "keys other than text and extension values exist in MessagePack only"
        return EncodingError.invalidValue(self, EncodingError.Context(codingPath: path, debugDescription: text))
    }
}
