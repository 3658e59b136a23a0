// SPDX-License-Identifier: Apache-2.0

/// A type that writes itself to MessagePack and reads itself back, without the detour through `Codable`.
///
/// The standard types conform. Conform your own only if they are hot; `Codable` is enough otherwise. A conforming type
/// writes exactly one value:
///
/// ```swift
/// struct Point: Codable, WireCodable {
///     var x: Double
///     var y: Double
///
///     func pack(into writer: inout PackWriter) throws(CodecError) {
///         try writer.packArrayHeader(2)
///         try writer.pack(self.x)
///         try writer.pack(self.y)
///     }
///
///     static func unpack(from reader: inout PackReader) throws(CodecError) -> Point {
///         try reader.expectArray(of: 2)
///         return Point(x: try reader.readDouble(), y: try reader.readDouble())
///     }
/// }
/// ```
public protocol WireCodable: Sendable {
    /// Writes the value.
    ///
    /// - Parameter writer: The writer to write to.
    /// - Throws: ``CodecError`` if a limit is exceeded.
    func pack(into writer: inout PackWriter) throws(CodecError)

    /// Reads a value.
    ///
    /// - Parameter reader: The reader to read from.
    /// - Returns: The value.
    /// - Throws: ``CodecError`` if the next bytes aren't such a value.
    static func unpack(from reader: inout PackReader) throws(CodecError) -> Self
}

extension PackReader {
    /// Reads the header of an array that must have `count` elements.
    @inlinable
    public mutating func expectArray(of count: Int) throws(CodecError) {
        let start = self.position
        let found = try self.readArrayHeader()
        if found != count {
            self.position = start
            throw CodecError.wrongCount(expected: count, found: found)
        }
    }
}

extension CodecError {
    @usableFromInline
    @inline(never)
    static func wrongCount(expected: Int, found: Int) -> CodecError {
        CodecError(.countMismatch, message: "expected an array of \(expected) elements, found \(found)")
    }
}

/// The result type of a function without a result, encoded as nil.
public struct Nothing: Hashable, Sendable, Codable, WireCodable {
    /// The only value.
    @inlinable
    public init() {}

    /// Reads nil from any decoder.
    ///
    /// - Parameter decoder: The decoder to read from.
    /// - Throws: The decoder's errors, or `DecodingError` if the value isn't nil.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if !container.decodeNil() {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "expected nil")
        }
    }

    /// Writes nil to any encoder.
    ///
    /// - Parameter encoder: The encoder to write to.
    /// - Throws: The encoder's errors.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encodeNil()
    }

    /// Writes nil.
    @inlinable
    public func pack(into writer: inout PackWriter) throws(CodecError) {
        try writer.packNil()
    }

    /// Reads nil.
    @inlinable
    public static func unpack(from reader: inout PackReader) throws(CodecError) -> Nothing {
        if try !reader.readNil() { throw reader.mismatch(.nil) }
        return Nothing()
    }
}
