// SPDX-License-Identifier: Apache-2.0

public struct CodecLimits: Sendable {
    public var maxBytes = 64 << 20
    public var maxDepth = 64
    public static let standard = CodecLimits()
    public init(maxBytes: Int = 64 << 20) { self.maxBytes = maxBytes }
}
public struct CodecError: Error, Sendable, CustomStringConvertible {
    public enum Code: String, Sendable { case tooLarge, tooDeep, truncated, typeMismatch, invalidUTF8, countMismatch, overflow, notEncodable, trailingBytes }
    public var code: Code
    public var message: String
    public init(_ code: Code, _ message: String) { self.code = code; self.message = message }
    public var description: String { self.message }
    package static func trailingBytes(at offset: Int) -> CodecError { CodecError(.trailingBytes, "bytes are left at \(offset)") }
}
