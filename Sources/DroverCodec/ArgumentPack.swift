// SPDX-License-Identifier: Apache-2.0

/// Writes a value: by its own ``WireCodable`` conformance if it has one, else by `Encodable`.
///
/// - Parameters:
///   - value: The value.
///   - writer: Where to.
/// - Throws: ``CodecError`` if the value can't be encoded or exceeds a limit.
@inlinable
@inline(__always)
public func packValue<Value: Encodable>(_ value: Value, into writer: inout PackWriter) throws(CodecError) {
    // The commonest types are recognized by their metadata's address, which costs almost nothing if the type is generic
    // and nothing if it is known. The optimizer resolves argument packs too late to fold a cast.
    if Value.self == String.self {
        try writer.pack(unsafe unsafeBitCast(value, to: String.self))
    } else if Value.self == Int.self {
        try writer.pack(Int64(unsafe unsafeBitCast(value, to: Int.self)))
    } else if Value.self == Double.self {
        try writer.pack(unsafe unsafeBitCast(value, to: Double.self))
    } else if Value.self == Bool.self {
        try writer.pack(unsafe unsafeBitCast(value, to: Bool.self))
    } else if Value.self == [UInt8].self {
        try writer.pack(unsafe unsafeBitCast(value, to: [UInt8].self))
    } else {
        try packOther(value, into: &writer)
    }
}

/// Whether ``packValue(_:into:)`` and ``unpackValue(_:from:)`` need no look-up for the type.
@inlinable
public func isCommon<Value>(_ type: Value.Type) -> Bool {
    type == String.self || type == Int.self || type == Double.self || type == Bool.self || type == [UInt8].self
}

/// Writes a value whose packer has to be looked up, in a cache of the thread; a cast would ask the runtime each time.
@inlinable
func packOther<Value: Encodable>(_ value: Value, into writer: inout PackWriter) throws(CodecError) {
    try encodeValue(value, into: &writer)
}

/// Reads a value: by its own ``WireCodable`` conformance if it has one, else by `Decodable`.
///
/// - Parameters:
///   - type: The type to read.
///   - reader: Where from.
/// - Returns: The value.
/// - Throws: ``CodecError`` if the next bytes aren't such a value.
@inlinable
@inline(__always)
public func unpackValue<Value: Decodable>(
    _ type: Value.Type,
    from reader: inout PackReader
) throws(CodecError) -> Value {
    if Value.self == String.self {
        unsafe unsafeBitCast(try reader.readString(), to: Value.self)
    } else if Value.self == Int.self {
        unsafe unsafeBitCast(Int(truncatingIfNeeded: try reader.readInt64()), to: Value.self)
    } else if Value.self == Double.self {
        unsafe unsafeBitCast(try reader.readDouble(), to: Value.self)
    } else if Value.self == Bool.self {
        unsafe unsafeBitCast(try reader.readBool(), to: Value.self)
    } else if Value.self == [UInt8].self {
        unsafe unsafeBitCast(try reader.readBytes(), to: Value.self)
    } else {
        try unpackOther(type, from: &reader)
    }
}

/// Reads a value whose unpacker has to be looked up, as in ``packOther(_:into:)``.
@inlinable
func unpackOther<Value: Decodable>(_ type: Value.Type, from reader: inout PackReader) throws(CodecError) -> Value {
    try decodeValue(type, from: &reader)
}

/// Reads a `Wire`, which is known to be the same type as `Value`.
func unpackWire<Wire: WireCodable, Value>(
    _ wire: Wire.Type,
    as type: Value.Type,
    from reader: inout PackReader
) throws(CodecError) -> Value {
    let value = try wire.unpack(from: &reader)
    return unsafe unsafeBitCast(value, to: Value.self)
}

/// Writes the arguments of a call as one array.
///
/// - Parameters:
///   - arguments: The arguments.
///   - writer: Where to.
/// - Throws: ``CodecError``, which names the argument, if one can't be encoded or exceeds a limit.
@inlinable
@inline(__always)
public func packArguments<each Argument: Encodable>(
    _ arguments: repeat each Argument,
    into writer: inout PackWriter
) throws(CodecError) {
    var count = 0
    for _ in repeat (each Argument).self { count &+= 1 }
    try writer.packArrayHeader(count)
    var number = 0
    repeat try packArgument(each arguments, into: &writer, number: &number)
}

/// Writes one argument and counts it.
@inlinable
@inline(__always)
func packArgument<Value: Encodable>(
    _ value: Value,
    into writer: inout PackWriter,
    number: inout Int
) throws(CodecError) {
    number &+= 1
    do {
        try packValue(value, into: &writer)
    } catch {
        throw error.under(argument: number)
    }
}

/// Reads the arguments of a call.
///
/// - Parameters:
///   - types: The types to read.
///   - reader: Where from.
/// - Returns: The arguments.
/// - Throws: ``CodecError``, which names the argument, if their types or their number differ.
@inlinable
@inline(__always)
public func unpackArguments<each Argument: Decodable>(
    _ types: repeat (each Argument).Type,
    from reader: inout PackReader
) throws(CodecError) -> (repeat each Argument) {
    var count = 0
    for _ in repeat (each Argument).self { count &+= 1 }
    let found = try reader.readArrayHeader()
    if found != count { throw CodecError.wrongArguments(expected: count, found: found) }
    var number = 0
    return (repeat try unpackArgument(each types, from: &reader, number: &number))
}

/// Reads the arguments of a call, after which nothing may follow.
///
/// - Parameters:
///   - types: The types to read.
///   - reader: Where from.
/// - Returns: The arguments.
/// - Throws: ``CodecError``, as `unpackArguments`, and ``CodecError/Code/trailingBytes``.
@inlinable
@inline(__always)
public func unpackAllArguments<each Argument: Decodable>(
    _ types: repeat (each Argument).Type,
    from reader: inout PackReader
) throws(CodecError) -> (repeat each Argument) {
    let arguments = try unpackArguments(repeat each types, from: &reader)
    try reader.expectEnd()
    return arguments
}

/// Reads a value that a peer sent, after which nothing may follow.
///
/// - Parameters:
///   - type: The type to read.
///   - bytes: The payload.
/// - Returns: The value.
/// - Throws: ``CodecError`` if the bytes aren't such a value, or not just that.
package func unpackReceived<Value: Decodable>(_ type: Value.Type, from bytes: [UInt8]) throws(CodecError) -> Value {
    try withPackReader(over: bytes, limits: .received) { reader throws(CodecError) in
        let value = try unpackValue(type, from: &reader)
        try reader.expectEnd()
        return value
    }
}

/// Reads one argument and counts it.
@inlinable
@inline(__always)
func unpackArgument<Value: Decodable>(
    _ type: Value.Type,
    from reader: inout PackReader,
    number: inout Int
) throws(CodecError) -> Value {
    number &+= 1
    do {
        return try unpackValue(type, from: &reader)
    } catch {
        throw error.under(argument: number)
    }
}

extension CodecError {
    @usableFromInline
    @inline(never)
    static func wrongArguments(expected: Int, found: Int) -> CodecError {
        CodecError(
            .countMismatch,
            message:
                "the function takes \(expected) argument\(expected == 1 ? "" : "s"), the call has \(found); declare it alike on both sides"
        )
    }
}
