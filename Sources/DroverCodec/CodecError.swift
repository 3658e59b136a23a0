// SPDX-License-Identifier: Apache-2.0

/// A value can't be encoded, or bytes can't be decoded as the requested type.
public struct CodecError: Error, Sendable {
    /// What went wrong.
    ///
    /// A minor release may add codes: keep a `default` branch.
    public struct Code: Hashable, Sendable, CustomStringConvertible {
        private enum Name: String, Sendable {
            case countMismatch, invalidUTF8, malformed, missingField, notDecodable, notEncodable, outOfMemory, overflow
            case tooDeep, tooLarge, trailingBytes, truncated, typeMismatch, unknownCase
        }

        private let name: Name

        /// An array has a different number of elements than its type.
        public static let countMismatch = Code(name: .countMismatch)
        /// A string isn't UTF-8.
        public static let invalidUTF8 = Code(name: .invalidUTF8)
        /// A byte that doesn't begin any MessagePack value.
        public static let malformed = Code(name: .malformed)
        /// A structure lacks a field that isn't optional.
        public static let missingField = Code(name: .missingField)
        /// A type's own decoding refused the value.
        public static let notDecodable = Code(name: .notDecodable)
        /// A type's own encoding failed, or used its encoder wrongly.
        public static let notEncodable = Code(name: .notEncodable)
        /// The system has no memory for the encoded bytes.
        public static let outOfMemory = Code(name: .outOfMemory)
        /// A number doesn't fit the requested type.
        public static let overflow = Code(name: .overflow)
        /// Containers are nested deeper than ``CodecLimits/maxDepth``.
        public static let tooDeep = Code(name: .tooDeep)
        /// More bytes or elements than ``CodecLimits`` allow.
        public static let tooLarge = Code(name: .tooLarge)
        /// Bytes follow the value.
        public static let trailingBytes = Code(name: .trailingBytes)
        /// The bytes end within a value, or a count promises more elements than there are bytes left.
        public static let truncated = Code(name: .truncated)
        /// A value of a different kind than requested.
        public static let typeMismatch = Code(name: .typeMismatch)
        /// An enumeration has no such case, though the other side's has.
        public static let unknownCase = Code(name: .unknownCase)

        /// The code's name.
        public var description: String { self.name.rawValue }
    }

    /// Lets the error be one word, so that functions that may throw it stay cheap when they don't.
    private final class Storage: Sendable {
        let code: Code
        let message: String
        let argument: Int?
        let path: [String]
        let cause: (any Error)?

        init(code: Code, message: String, argument: Int?, path: [String], cause: (any Error)?) {
            self.code = code
            self.message = message
            self.argument = argument
            self.path = path
            self.cause = cause
        }
    }

    private let storage: Storage

    /// The kind of failure, to decide by.
    public var code: Code { self.storage.code }
    /// What happened and what to do about it, for a person.
    public var message: String { self.storage.message }
    /// The argument of a call that the error is about; the first one is 1.
    public var argument: Int? { self.storage.argument }
    /// The path to the value, from the outside in: field names, and indices such as `[3]`.
    public var path: [String] { self.storage.path }
    /// The error that caused this one, if any.
    public var cause: (any Error)? { self.storage.cause }

    /// Creates an error.
    ///
    /// - Parameters:
    ///   - code: The kind of failure.
    ///   - message: What happened and what to do about it.
    ///   - argument: The argument of a call that the error is about, counted from 1.
    ///   - path: The path to the value, from the outside in.
    ///   - cause: The error that caused this one.
    public init(
        _ code: Code,
        message: String,
        argument: Int? = nil,
        path: [String] = [],
        cause: (any Error)? = nil
    ) {
        self.storage = Storage(code: code, message: message, argument: argument, path: path, cause: cause)
    }

    /// The same error, about something inside the field or element `component`.
    @inline(never)
    public func under(_ component: String) -> CodecError {
        CodecError(
            self.code,
            message: self.message,
            argument: self.argument,
            path: [component] + self.path,
            cause: self.cause
        )
    }

    /// The same error, about something inside the element at `index`.
    @inline(never)
    public func under(index: Int) -> CodecError {
        self.under("[\(index)]")
    }

    /// The same error, about the argument `number`, counted from 1.
    @inline(never)
    public func under(argument number: Int) -> CodecError {
        CodecError(self.code, message: self.message, argument: number, path: self.path, cause: self.cause)
    }
}

extension CodecError {
    /// A value inside an optional would be taken for the optional's nil.
    @usableFromInline
    static func nilInOptional(_ type: Any.Type) -> CodecError {
        CodecError(
            .notEncodable,
            message:
                "a \(type) that is nil, inside an optional, would arrive as no value at all; use one layer of optionals, or an "
                + "enumeration"
        )
    }
}

extension CodecError: CustomStringConvertible {
    /// The place and the message in one line, such as
    /// `argument 2, user.tags[3]: expected an integer, found a string`.
    public var description: String {
        var place: [String] = []
        if let argument = self.argument { place.append("argument \(argument)") }
        if !self.path.isEmpty { place.append(Self.text(of: self.path)) }
        let head = place.isEmpty ? "" : place.joined(separator: ", ") + ": "
        return head + self.message
    }

    /// `["user", "tags", "[3]"]` as `user.tags[3]`.
    private static func text(of path: [String]) -> String {
        var text = ""
        for component in path {
            if !text.isEmpty && !component.hasPrefix("[") { text += "." }
            text += component
        }
        return text
    }
}
