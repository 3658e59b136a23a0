// SPDX-License-Identifier: Apache-2.0

public import DroverCodec

/// A declared function: a name, the types of its arguments and of its result.
///
/// Declared once, used by both sides.
///
/// ```swift
/// extension Function {
///     static var checksum: Function<String, String> { .init("checksum") }   // the last type is the result
/// }
/// ```
///
/// Arguments and results travel by value, as `Codable`; standard types take a faster way. A function without a result
/// returns `Nothing`.
public struct Function<each Argument: Codable & Sendable, Result: Codable & Sendable>: Sendable {
    /// The name that both sides know the function by.
    public let name: String
    /// Whether a call may run more than once without harm, so that it may be sent again when a worker is lost.
    public let isIdempotent: Bool

    @usableFromInline
    package typealias ArgumentPacker = @Sendable (inout PackWriter, repeat each Argument) throws(CodecError) -> Void
    @usableFromInline
    package typealias ArgumentUnpacker = @Sendable (inout PackReader) throws(CodecError) -> (repeat each Argument)
    @usableFromInline
    package typealias ResultPacker = @Sendable (Result, inout PackWriter) throws(CodecError) -> Void
    @usableFromInline
    package typealias ResultUnpacker = @Sendable (inout PackReader) throws(CodecError) -> Result

    /// How arguments and results travel.
    @usableFromInline package let codec: FunctionCodec<repeat each Argument, Result>

    /// Declares a function.
    ///
    /// - Parameters:
    ///   - name: What both sides call it, at most 255 bytes of UTF-8.
    ///   - isIdempotent: Whether it may run more than once without harm; such calls survive the loss of a worker.
    @inlinable
    public init(_ name: String, isIdempotent: Bool = false) {
        self.name = name
        self.isIdempotent = isIdempotent
        // Declarations are computed at each mention, as `static var` has it; the codec isn't.
        self.codec = FunctionCodec.shared {
            let (pack, unpack) = Self.argumentCodec()
            let (packResult, readResult, unpackResult) = Self.resultCodec()
            return FunctionCodec(
                packArguments: pack,
                unpackArguments: unpack,
                packResult: packResult,
                readResult: readResult,
                unpackResult: unpackResult
            )
        }
    }

    /// How arguments are written and read: decided here, once for each signature, and not in each call.
    @inlinable
    static func argumentCodec() -> (pack: ArgumentPacker, unpack: ArgumentUnpacker) {
        if areCommon(repeat (each Argument).self) {
            return (
                { (writer: inout PackWriter, argument: repeat each Argument) throws(CodecError) in
                    try DroverCodec.packArguments(repeat each argument, into: &writer)
                },
                { (reader: inout PackReader) throws(CodecError) -> (repeat each Argument) in
                    try DroverCodec.unpackArguments(repeat (each Argument).self, from: &reader)
                }
            )
        }
        let packers = (repeat valuePacker(of: (each Argument).self))
        let unpackers = (repeat valueUnpacker(of: (each Argument).self))
        let count = argumentCount(repeat (each Argument).self)
        return (
            { (writer: inout PackWriter, argument: repeat each Argument) throws(CodecError) in
                try DroverCodec.packArguments(
                    repeat each argument,
                    by: (repeat each packers),
                    count: count,
                    into: &writer
                )
            },
            { (reader: inout PackReader) throws(CodecError) -> (repeat each Argument) in
                try DroverCodec.unpackArguments(by: (repeat each unpackers), count: count, from: &reader)
            }
        )
    }

    @inlinable
    static func resultCodec() -> (pack: ResultPacker, read: ResultReader, unpack: ResultUnpacker) {
        if isCommon(Result.self) {
            return (
                { (value: Result, writer: inout PackWriter) throws(CodecError) in
                    try packValue(value, into: &writer)
                },
                { (words: inout ValueWords, reader: inout PackReader) throws(CodecError) in
                    let value = try unpackValue(Result.self, from: &reader)
                    try reader.expectEnd()
                    words.store(value)
                },
                { (reader: inout PackReader) throws(CodecError) -> Result in
                    try unpackValue(Result.self, from: &reader)
                }
            )
        }
        let unpack = valueUnpacker(of: Result.self)
        return (
            valuePacker(of: Result.self),
            { (words: inout ValueWords, reader: inout PackReader) throws(CodecError) in
                let value = try unpack(&reader)
                try reader.expectEnd()
                words.store(value)
            },
            unpack
        )
    }
}

extension Function {
    @inlinable package var packArguments: ArgumentPacker { self.codec.packArguments }
    @inlinable package var unpackArguments: ArgumentUnpacker { self.codec.unpackArguments }
    @inlinable package var packResult: ResultPacker { self.codec.packResult }
    @inlinable package var readResult: ResultReader { self.codec.readResult }
    /// Reads a result that is not all of its payload.
    @inlinable package var unpackResult: ResultUnpacker { self.codec.unpackResult }
}

/// Reads a reply's payload, all of it, and stores the value.
@usableFromInline
package typealias ResultReader = @Sendable (inout ValueWords, inout PackReader) throws(CodecError) -> Void

/// How the arguments and results of all functions with one signature are written and read.
@usableFromInline
package final class FunctionCodec<each Argument: Codable & Sendable, Result: Codable & Sendable>: Sendable {
    @usableFromInline package let packArguments: Function<repeat each Argument, Result>.ArgumentPacker
    @usableFromInline package let unpackArguments: Function<repeat each Argument, Result>.ArgumentUnpacker
    @usableFromInline package let packResult: Function<repeat each Argument, Result>.ResultPacker
    @usableFromInline package let readResult: ResultReader
    @usableFromInline package let unpackResult: Function<repeat each Argument, Result>.ResultUnpacker

    @usableFromInline
    package init(
        packArguments: @escaping Function<repeat each Argument, Result>.ArgumentPacker,
        unpackArguments: @escaping Function<repeat each Argument, Result>.ArgumentUnpacker,
        packResult: @escaping Function<repeat each Argument, Result>.ResultPacker,
        readResult: @escaping ResultReader,
        unpackResult: @escaping Function<repeat each Argument, Result>.ResultUnpacker
    ) {
        self.packArguments = packArguments
        self.unpackArguments = unpackArguments
        self.packResult = packResult
        self.readResult = readResult
        self.unpackResult = unpackResult
    }

    /// The one codec of this signature; `make` builds it at the first mention.
    @usableFromInline
    package static func shared(
        _ make: () -> FunctionCodec<repeat each Argument, Result>
    ) -> FunctionCodec<repeat each Argument, Result> {
        functionCodecs.entry(of: Self.self, make)
    }
}

/// The codecs of all signatures.
private let functionCodecs = SharedTypeTable()
