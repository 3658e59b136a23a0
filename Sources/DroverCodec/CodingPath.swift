// SPDX-License-Identifier: Apache-2.0

/// The place of an element in an array.
struct IndexKey: CodingKey {
    let index: Int

    init(_ index: Int) { self.index = index }
    init?(intValue: Int) { self.index = intValue }
    init?(stringValue: String) { return nil }

    var intValue: Int? { self.index }
    var stringValue: String { "[\(self.index)]" }
}

/// A key that no type of the program declares.
struct NamedKey: CodingKey {
    let stringValue: String

    init(_ name: String) { self.stringValue = name }
    init?(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { return nil }

    var intValue: Int? { nil }
}

/// A dictionary's key of any type, which becomes text only on request.
struct EntryKey<Key: Sendable>: CodingKey {
    private let key: Key?

    init(_ key: Key) { self.key = key }
    init?(stringValue: String) { return nil }
    init?(intValue: Int) { return nil }

    var intValue: Int? { nil }
    var stringValue: String { self.key.map { "\($0)" } ?? "" }
}

extension CodecError {
    /// The same error, about something inside the field or element that `key` names.
    func under(_ key: any CodingKey) -> CodecError {
        self.under(key.stringValue)
    }

    /// An encoder was used in a way that `Codable` doesn't allow.
    static func encoderMisused() -> CodecError {
        CodecError(
            .notEncodable,
            message: "a type's encode(to:) wrote to a container that was closed or of another kind; "
                + "write each value with one container, and only while encode(to:) runs"
        )
    }

    /// An error out of a type's own encoding; the first `count` keys of its path are known to the caller.
    init(encoding error: any Error, below count: Int) {
        switch error {
        case let error as CodecError:
            self = error
        case EncodingError.invalidValue(_, let context):
            self.init(.notEncodable, context: context.debugDescription, path: context.codingPath, count, cause: error)
        default:
            self.init(.notEncodable, message: "a type's encode(to:) failed: \(error)", cause: error)
        }
    }

    /// An error out of a type's own decoding; the first `count` keys of its path are known to the caller.
    init(decoding error: any Error, below count: Int) {
        switch error {
        case let error as CodecError:
            self = error
        case DecodingError.typeMismatch(_, let context):
            self.init(.typeMismatch, context: context.debugDescription, path: context.codingPath, count, cause: error)
        case DecodingError.valueNotFound(_, let context), DecodingError.dataCorrupted(let context):
            self.init(.notDecodable, context: context.debugDescription, path: context.codingPath, count, cause: error)
        case DecodingError.keyNotFound(let key, let context):
            self.init(
                .missingField,
                context: "the field \"\(key.stringValue)\" is missing",
                path: context.codingPath,
                count,
                cause: error
            )
        default:
            self.init(.notDecodable, message: "a type's init(from:) failed: \(error)", cause: error)
        }
    }

    private init(_ code: Code, context: String, path: [any CodingKey], _ count: Int, cause: any Error) {
        let below = path.dropFirst(count).map { key in key.stringValue }
        self.init(code, message: context, path: below, cause: cause)
    }
}
