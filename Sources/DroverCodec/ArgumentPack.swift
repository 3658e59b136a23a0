// SPDX-License-Identifier: Apache-2.0

/// Writes a value: by its own ``WireCodable`` conformance if it has one, else by `Encodable`.
///
/// - Parameters:
///   - value: The value.
///   - writer: Where to.
/// - Throws: ``CodecError`` if the value can't be encoded or passes a limit.
@inlinable
public func packValue<Value: Encodable>(_ value: Value, into writer: inout PackWriter) throws(CodecError) {
    if let wire = value as? any WireCodable {
        try wire.pack(into: &writer)
    } else {
        try encodeValue(value, into: &writer)
    }
}

/// Reads a value: by its own ``WireCodable`` conformance if it has one, else by `Decodable`.
///
/// - Parameters:
///   - type: The type to read.
///   - reader: Where from.
/// - Returns: The value.
/// - Throws: ``CodecError`` if the next bytes aren't such a value.
@inlinable
public func unpackValue<Value: Decodable>(
    _ type: Value.Type,
    from reader: inout PackReader
) throws(CodecError) -> Value {
    if let wire = type as? any WireCodable.Type {
        return try unpackWire(wire, as: type, from: &reader)
    }
    return try decodeValue(type, from: &reader)
}

/// Reads a `Wire`, which is known to be the same type as `Value`.
@inlinable
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
/// - Throws: ``CodecError``, which names the argument, if one can't be encoded or passes a limit.
@inlinable
public func packArguments<each Argument: Encodable>(
    _ arguments: repeat each Argument,
    into writer: inout PackWriter
) throws(CodecError) {
    var count = 0
    for _ in repeat (each Argument).self { count &+= 1 }
    try writer.packArrayHeader(count)
    var number = 0
    for argument in repeat each arguments {
        number &+= 1
        do {
            try packValue(argument, into: &writer)
        } catch {
            throw error.under(argument: number)
        }
    }
}

/// Reads the arguments of a call.
///
/// - Parameters:
///   - types: The types to read.
///   - reader: Where from.
/// - Returns: The arguments.
/// - Throws: ``CodecError``, which names the argument, if they aren't of these types or not as many.
@inlinable
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

/// Reads one argument and counts it.
@inlinable
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
            message: "the function takes \(expected) arguments, the call has \(found); "
                + "declare it alike on both sides"
        )
    }
}
