// SPDX-License-Identifier: Apache-2.0

// MARK: - Integers

extension Int: WireCodable {
    /// Writes the smallest encoding.
    @inlinable
    public func pack(into writer: inout PackWriter) throws(CodecError) { try writer.pack(Int64(self)) }

    /// Reads any integer encoding that fits.
    @inlinable
    public static func unpack(from reader: inout PackReader) throws(CodecError) -> Int {
        Int(truncatingIfNeeded: try reader.readInt64())
    }
}

extension Int8: WireCodable {
    /// Writes the smallest encoding.
    @inlinable
    public func pack(into writer: inout PackWriter) throws(CodecError) { try writer.pack(Int64(self)) }

    /// Reads any integer encoding that fits.
    @inlinable
    public static func unpack(from reader: inout PackReader) throws(CodecError) -> Int8 {
        try reader.readInteger(as: Int8.self)
    }
}

extension Int16: WireCodable {
    /// Writes the smallest encoding.
    @inlinable
    public func pack(into writer: inout PackWriter) throws(CodecError) { try writer.pack(Int64(self)) }

    /// Reads any integer encoding that fits.
    @inlinable
    public static func unpack(from reader: inout PackReader) throws(CodecError) -> Int16 {
        try reader.readInteger(as: Int16.self)
    }
}

extension Int32: WireCodable {
    /// Writes the smallest encoding.
    @inlinable
    public func pack(into writer: inout PackWriter) throws(CodecError) { try writer.pack(Int64(self)) }

    /// Reads any integer encoding that fits.
    @inlinable
    public static func unpack(from reader: inout PackReader) throws(CodecError) -> Int32 {
        try reader.readInteger(as: Int32.self)
    }
}

extension Int64: WireCodable {
    /// Writes the smallest encoding.
    @inlinable
    public func pack(into writer: inout PackWriter) throws(CodecError) { try writer.pack(self) }

    /// Reads any integer encoding that fits.
    @inlinable
    public static func unpack(from reader: inout PackReader) throws(CodecError) -> Int64 {
        try reader.readInt64()
    }
}

extension UInt: WireCodable {
    /// Writes the smallest encoding.
    @inlinable
    public func pack(into writer: inout PackWriter) throws(CodecError) { try writer.pack(UInt64(self)) }

    /// Reads any integer encoding that fits.
    @inlinable
    public static func unpack(from reader: inout PackReader) throws(CodecError) -> UInt {
        try reader.readInteger(as: UInt.self)
    }
}

extension UInt8: WireCodable {
    /// Writes the smallest encoding.
    @inlinable
    public func pack(into writer: inout PackWriter) throws(CodecError) { try writer.pack(UInt64(self)) }

    /// Reads any integer encoding that fits.
    @inlinable
    public static func unpack(from reader: inout PackReader) throws(CodecError) -> UInt8 {
        try reader.readInteger(as: UInt8.self)
    }
}

extension UInt16: WireCodable {
    /// Writes the smallest encoding.
    @inlinable
    public func pack(into writer: inout PackWriter) throws(CodecError) { try writer.pack(UInt64(self)) }

    /// Reads any integer encoding that fits.
    @inlinable
    public static func unpack(from reader: inout PackReader) throws(CodecError) -> UInt16 {
        try reader.readInteger(as: UInt16.self)
    }
}

extension UInt32: WireCodable {
    /// Writes the smallest encoding.
    @inlinable
    public func pack(into writer: inout PackWriter) throws(CodecError) { try writer.pack(UInt64(self)) }

    /// Reads any integer encoding that fits.
    @inlinable
    public static func unpack(from reader: inout PackReader) throws(CodecError) -> UInt32 {
        try reader.readInteger(as: UInt32.self)
    }
}

extension UInt64: WireCodable {
    /// Writes the smallest encoding.
    @inlinable
    public func pack(into writer: inout PackWriter) throws(CodecError) { try writer.pack(self) }

    /// Reads any integer encoding that fits.
    @inlinable
    public static func unpack(from reader: inout PackReader) throws(CodecError) -> UInt64 {
        try reader.readUInt64()
    }
}

// MARK: - Other scalars

extension Bool: WireCodable {
    /// Writes a truth value.
    @inlinable
    public func pack(into writer: inout PackWriter) throws(CodecError) { try writer.pack(self) }

    /// Reads a truth value.
    @inlinable
    public static func unpack(from reader: inout PackReader) throws(CodecError) -> Bool {
        try reader.readBool()
    }
}

extension Double: WireCodable {
    /// Writes 64 bits of floating point.
    @inlinable
    public func pack(into writer: inout PackWriter) throws(CodecError) { try writer.pack(self) }

    /// Reads 64 bits of floating point.
    @inlinable
    public static func unpack(from reader: inout PackReader) throws(CodecError) -> Double {
        try reader.readDouble()
    }
}

extension Float: WireCodable {
    /// Writes 32 bits of floating point.
    @inlinable
    public func pack(into writer: inout PackWriter) throws(CodecError) { try writer.pack(self) }

    /// Reads 32 bits of floating point.
    @inlinable
    public static func unpack(from reader: inout PackReader) throws(CodecError) -> Float {
        try reader.readFloat()
    }
}

extension String: WireCodable {
    /// Writes UTF-8 text.
    @inlinable
    public func pack(into writer: inout PackWriter) throws(CodecError) { try writer.pack(self) }

    /// Reads UTF-8 text.
    @inlinable
    public static func unpack(from reader: inout PackReader) throws(CodecError) -> String {
        try reader.readString()
    }
}

extension Duration: WireCodable {
    /// Writes an array of seconds and attoseconds.
    public func pack(into writer: inout PackWriter) throws(CodecError) {
        // Beyond that the seconds don't fit, and reading them would trap.
        guard self >= Duration(secondsComponent: .min, attosecondsComponent: 0),
            self <= Duration(secondsComponent: .max, attosecondsComponent: 0)
        else {
            throw CodecError(.overflow, message: "a duration of 2^63 seconds or more can't be encoded: shorten it")
        }
        let (seconds, attoseconds) = self.components
        try writer.packArrayHeader(2)
        try writer.pack(seconds)
        try writer.pack(attoseconds)
    }

    /// Reads an array of seconds and attoseconds; the attoseconds are less than a second and of the same sign.
    public static func unpack(from reader: inout PackReader) throws(CodecError) -> Duration {
        try reader.expectArray(of: 2)
        let seconds = try reader.readInt64()
        let attoseconds = try reader.readInt64()
        // With more attoseconds, the duration might be one that can't be taken apart, and using it would trap.
        guard attoseconds.magnitude < 1_000_000_000_000_000_000,
            attoseconds == 0 || seconds == 0
                || (seconds != .min && seconds != .max && (seconds < 0) == (attoseconds < 0))
        else {
            throw CodecError(
                .overflow,
                message: "[\(seconds), \(attoseconds)] is no duration: less than 10^18 attoseconds, of the same sign"
            )
        }
        return Duration(secondsComponent: seconds, attosecondsComponent: attoseconds)
    }
}

// MARK: - Containers

extension Optional: WireCodable where Wrapped: WireCodable {
    /// Writes nil or the value.
    ///
    /// - Throws: An error for a value that itself looks like nil, such as an optional's: it would arrive as no value.
    @inlinable
    public func pack(into writer: inout PackWriter) throws(CodecError) {
        if let value = self {
            let start = writer.count
            try value.pack(into: &writer)
            if writer.wroteNil(from: start) { throw CodecError.nilInOptional(Wrapped.self) }
        } else {
            try writer.packNil()
        }
    }

    /// Reads nil or a value.
    @inlinable
    public static func unpack(from reader: inout PackReader) throws(CodecError) -> Wrapped? {
        if try reader.readNil() { return nil }
        return try Wrapped.unpack(from: &reader)
    }
}

extension Array: WireCodable where Element: WireCodable {
    /// Writes an array, or bytes if the elements are `UInt8`.
    @inlinable
    public func pack(into writer: inout PackWriter) throws(CodecError) {
        if Element.self == UInt8.self {
            try unsafe self.withUnsafeBufferPointer { buffer throws(CodecError) in
                try unsafe writer.pack(UnsafeRawBufferPointer(buffer))
            }
            return
        }
        try writer.enter()
        try writer.packArrayHeader(self.count)
        if try !writer.packCommon(elements: self) {
            for element in self { try element.pack(into: &writer) }
        }
        writer.leave()
    }

    /// Reads an array, or bytes if the elements are `UInt8`.
    @inlinable
    public static func unpack(from reader: inout PackReader) throws(CodecError) -> [Element] {
        if Element.self == UInt8.self {
            let bytes = try reader.readBytes()
            return unsafe unsafeBitCast(bytes, to: [Element].self)
        }
        if let common = try reader.readCommonElements(Element.self) { return common }
        return try reader.readElements(Element.self)
    }
}

extension PackReader {
    /// Reads an array.
    @inlinable
    mutating func readElements<Element: WireCodable>(_ type: Element.Type) throws(CodecError) -> [Element] {
        let count = try self.readArrayHeader()
        try self.enter()
        var elements: [Element] = []
        elements.reserveCapacity(PackReader.firstReservation(count))
        for index in 0..<count {
            do {
                elements.append(try Element.unpack(from: &self))
            } catch {
                throw error.under(index: index)
            }
        }
        self.leave()
        return elements
    }
}

extension Set: WireCodable where Element: WireCodable {
    /// Writes an array, in no particular order.
    @inlinable
    public func pack(into writer: inout PackWriter) throws(CodecError) {
        try writer.enter()
        try writer.packArrayHeader(self.count)
        if try !writer.packCommon(members: self) {
            for element in self { try element.pack(into: &writer) }
        }
        writer.leave()
    }

    /// Reads an array; elements that occur twice are taken once.
    @inlinable
    public static func unpack(from reader: inout PackReader) throws(CodecError) -> Set<Element> {
        if let common = try reader.readCommonMembers(Element.self) { return common }
        return try reader.readMembers(Element.self)
    }
}

extension Dictionary: WireCodable where Key: WireCodable, Value: WireCodable {
    /// Writes a map, in no particular order.
    @inlinable
    public func pack(into writer: inout PackWriter) throws(CodecError) {
        try writer.enter()
        try writer.packMapHeader(self.count)
        if try !writer.packCommon(entries: self) { try self.packEntries(into: &writer) }
        writer.leave()
    }

    /// Apart, since its loop looks types up where it isn't specialised, even for an empty dictionary.
    @inlinable
    @inline(never)
    func packEntries(into writer: inout PackWriter) throws(CodecError) {
        for (key, value) in self {
            try key.pack(into: &writer)
            try value.pack(into: &writer)
        }
    }

    /// Reads a map; of a key that occurs twice, the last value counts.
    @inlinable
    public static func unpack(from reader: inout PackReader) throws(CodecError) -> [Key: Value] {
        if let common = try reader.readCommonEntries(Key.self, Value.self) { return common }
        return try reader.readEntries(Key.self, Value.self)
    }
}

extension PackReader {
    /// Reads an array into a set.
    @inlinable
    mutating func readMembers<Element: WireCodable & Hashable>(
        _ type: Element.Type
    ) throws(CodecError) -> Set<Element> {
        let count = try self.readArrayHeader()
        try self.enter()
        var elements = Set<Element>(minimumCapacity: PackReader.firstReservation(count))
        for index in 0..<count {
            do {
                elements.insert(try Element.unpack(from: &self))
            } catch {
                throw error.under(index: index)
            }
        }
        self.leave()
        return elements
    }

    /// Reads a map.
    @inlinable
    mutating func readEntries<Key: WireCodable & Hashable, Value: WireCodable>(
        _ key: Key.Type,
        _ value: Value.Type
    ) throws(CodecError) -> [Key: Value] {
        let count = try self.readMapHeader()
        try self.enter()
        var entries = [Key: Value](minimumCapacity: PackReader.firstReservation(count))
        for index in 0..<count {
            do {
                let key = try Key.unpack(from: &self)
                entries[key] = try Value.unpack(from: &self)
            } catch {
                throw error.under(index: index)
            }
        }
        self.leave()
        return entries
    }
}

extension PackReader {
    /// How many of `count` announced elements to make room for at once.
    ///
    /// An element may take one byte on the wire and many in memory, so a large count is only believed as it arrives.
    @inlinable
    static func firstReservation(_ count: Int) -> Int {
        Swift.min(count, 1024)
    }
}
