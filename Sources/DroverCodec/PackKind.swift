// SPDX-License-Identifier: Apache-2.0

/// The family of a MessagePack value, determined by its first byte.
public enum PackKind: Hashable, Sendable {
    /// No value.
    case `nil`
    /// A truth value.
    case bool
    /// An integer of any width and sign.
    case integer
    /// A number with 32 or 64 bits of floating point.
    case float
    /// UTF-8 text.
    case string
    /// Bytes.
    case binary
    /// A sequence of values.
    case array
    /// A sequence of pairs of key and value.
    case map
    /// Bytes with an application's own type number.
    case extended
    /// The one byte that doesn't begin any value (0xC1).
    case invalid

    /// The family of the value that begins with `byte`.
    @inlinable
    public init(firstByte byte: UInt8) {
        switch byte {
        case 0x00...0x7F, 0xE0...0xFF, 0xCC...0xD3: self = .integer
        case 0x80...0x8F, 0xDE, 0xDF: self = .map
        case 0x90...0x9F, 0xDC, 0xDD: self = .array
        case 0xA0...0xBF, 0xD9...0xDB: self = .string
        case 0xC0: self = .nil
        case 0xC2, 0xC3: self = .bool
        case 0xC4...0xC6: self = .binary
        case 0xCA, 0xCB: self = .float
        case 0xC7...0xC9, 0xD4...0xD8: self = .extended
        default: self = .invalid
        }
    }
}

extension PackKind: CustomStringConvertible {
    /// The kind with its article, for messages: "an integer".
    public var description: String {
        switch self {
        case .nil: "nil"
        case .bool: "a boolean"
        case .integer: "an integer"
        case .float: "a floating-point number"
        case .string: "a string"
        case .binary: "bytes"
        case .array: "an array"
        case .map: "a map"
        case .extended: "an extension value"
        case .invalid: "the unused byte 0xC1"
        }
    }
}
