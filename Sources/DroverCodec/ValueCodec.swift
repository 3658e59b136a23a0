// SPDX-License-Identifier: Apache-2.0

/// Writes a value of one type.
public typealias ValuePacker<Value> = @Sendable (Value, inout PackWriter) throws(CodecError) -> Void
/// Reads a value of one type.
public typealias ValueUnpacker<Value> = @Sendable (inout PackReader) throws(CodecError) -> Value

/// How values of a type are written: by their own conformance or as `Encodable`, decided once.
///
/// - Parameter type: The type.
/// - Returns: The function that writes it.
public func valuePacker<Value: Encodable & Sendable>(of type: Value.Type) -> ValuePacker<Value> {
    guard let wire = type as? any WireCodable.Type else {
        return { (value: Value, writer: inout PackWriter) throws(CodecError) in try encodeValue(value, into: &writer) }
    }
    return wirePacker(wire, as: type)
}

/// How values of a type are read: by their own conformance or as `Decodable`, decided once.
///
/// - Parameter type: The type.
/// - Returns: The function that reads it.
public func valueUnpacker<Value: Decodable & Sendable>(of type: Value.Type) -> ValueUnpacker<Value> {
    guard let wire = type as? any WireCodable.Type else {
        return { (reader: inout PackReader) throws(CodecError) -> Value in try decodeValue(Value.self, from: &reader) }
    }
    return wireUnpacker(wire, as: type)
}

/// For a `Wire` that is known to be the same type as `Value`.
private func wirePacker<Wire: WireCodable, Value: Sendable>(_ wire: Wire.Type, as type: Value.Type) -> ValuePacker<
    Value
> {
    { (value: Value, writer: inout PackWriter) throws(CodecError) in
        try unsafe unsafeBitCast(value, to: Wire.self).pack(into: &writer)
    }
}

private func wireUnpacker<Wire: WireCodable, Value: Sendable>(_ wire: Wire.Type, as type: Value.Type) -> ValueUnpacker<
    Value
> {
    { (reader: inout PackReader) throws(CodecError) -> Value in
        let value = try Wire.unpack(from: &reader)
        return unsafe unsafeBitCast(value, to: Value.self)
    }
}

/// Whether all of the types are common ones, which are written and read without a look-up.
@inlinable
public func areCommon<each Argument>(_ type: repeat (each Argument).Type) -> Bool {
    for type in repeat each type {
        if !isCommon(type) { return false }
    }
    return true
}

/// How many types there are.
@inlinable
public func argumentCount<each Argument>(_ type: repeat (each Argument).Type) -> Int {
    var count = 0
    for _ in repeat each type { count &+= 1 }
    return count
}

/// Writes the arguments of a call as one array, each by its packer.
///
/// - Parameters:
///   - argument: The arguments.
///   - packer: The function that writes each.
///   - count: How many there are.
///   - writer: Where to.
/// - Throws: ``CodecError``, which names the argument, if one can't be encoded or exceeds a limit.
@inlinable
public func packArguments<each Argument>(
    _ argument: repeat each Argument,
    by packer: (repeat ValuePacker<each Argument>),
    count: Int,
    into writer: inout PackWriter
) throws(CodecError) {
    try writer.packArrayHeader(count)
    var number = 0
    repeat try packOne(each argument, by: each packer, number: &number, into: &writer)
}

@inlinable
func packOne<Value>(
    _ value: Value,
    by packer: ValuePacker<Value>,
    number: inout Int,
    into writer: inout PackWriter
) throws(CodecError) {
    number &+= 1
    do { try packer(value, &writer) } catch { throw error.under(argument: number) }
}

/// Reads the arguments of a call, each by its unpacker.
///
/// - Parameters:
///   - unpacker: The function that reads each.
///   - count: How many there must be.
///   - reader: Where from.
/// - Returns: The arguments.
/// - Throws: ``CodecError``, which names the argument, if their types or their number differ.
@inlinable
public func unpackArguments<each Argument>(
    by unpacker: (repeat ValueUnpacker<each Argument>),
    count: Int,
    from reader: inout PackReader
) throws(CodecError) -> (repeat each Argument) {
    let found = try reader.readArrayHeader()
    if found != count { throw CodecError.wrongArguments(expected: count, found: found) }
    var number = 0
    return (repeat try unpackOne(by: each unpacker, number: &number, from: &reader))
}

@inlinable
func unpackOne<Value>(
    by unpacker: ValueUnpacker<Value>,
    number: inout Int,
    from reader: inout PackReader
) throws(CodecError) -> Value {
    number &+= 1
    do { return try unpacker(&reader) } catch { throw error.under(argument: number) }
}
