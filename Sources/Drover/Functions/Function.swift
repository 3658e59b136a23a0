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

    @usableFromInline let packArguments: @Sendable (inout PackWriter, repeat each Argument) throws(CodecError) -> Void
    let unpackArguments: @Sendable (inout PackReader) throws(CodecError) -> (repeat each Argument)
    let packResult: @Sendable (Result, inout PackWriter) throws(CodecError) -> Void
    @usableFromInline let unpackResult: @Sendable (inout PackReader) throws(CodecError) -> Result

    /// Declares a function.
    ///
    /// - Parameters:
    ///   - name: What both sides call it, at most 255 bytes of UTF-8.
    ///   - isIdempotent: Whether it may run more than once without harm; such calls survive the loss of a worker.
    @inlinable
    public init(_ name: String, isIdempotent: Bool = false) {
        // How each type is written and read is looked up here, once, and not in each call.
        let packers = (repeat valuePacker(of: (each Argument).self))
        let unpackers = (repeat valueUnpacker(of: (each Argument).self))
        let count = argumentCount(repeat (each Argument).self)
        self.init(
            name: name,
            isIdempotent: isIdempotent,
            packArguments: { (writer: inout PackWriter, argument: repeat each Argument) throws(CodecError) in
                try DroverCodec.packArguments(
                    repeat each argument,
                    by: (repeat each packers),
                    count: count,
                    into: &writer
                )
            },
            unpackArguments: { (reader: inout PackReader) throws(CodecError) -> (repeat each Argument) in
                try DroverCodec.unpackArguments(by: (repeat each unpackers), count: count, from: &reader)
            },
            packResult: valuePacker(of: Result.self),
            unpackResult: valueUnpacker(of: Result.self)
        )
    }

    @usableFromInline
    init(
        name: String,
        isIdempotent: Bool,
        packArguments: @escaping @Sendable (inout PackWriter, repeat each Argument) throws(CodecError) -> Void,
        unpackArguments: @escaping @Sendable (inout PackReader) throws(CodecError) -> (repeat each Argument),
        packResult: @escaping @Sendable (Result, inout PackWriter) throws(CodecError) -> Void,
        unpackResult: @escaping @Sendable (inout PackReader) throws(CodecError) -> Result
    ) {
        self.name = name
        self.isIdempotent = isIdempotent
        self.packArguments = packArguments
        self.unpackArguments = unpackArguments
        self.packResult = packResult
        self.unpackResult = unpackResult
    }
}

/// A function as one client knows it: its name and its number on the wire.
@usableFromInline
final class FunctionInfo: Sendable {
    let name: String
    let number: UInt32

    init(name: String, number: UInt32) {
        self.name = name
        self.number = number
    }
}
