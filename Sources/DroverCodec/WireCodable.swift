// SPDX-License-Identifier: Apache-2.0

public protocol WireCodable: Sendable {
    func pack(into writer: inout PackWriter) throws(CodecError)
    static func unpack(from reader: inout PackReader) throws(CodecError) -> Self
}
extension String: WireCodable {
    @inlinable public func pack(into w: inout PackWriter) throws(CodecError) { try w.pack(self) }
    @inlinable public static func unpack(from r: inout PackReader) throws(CodecError) -> String { try r.readString() }
}
extension Bool: WireCodable {
    @inlinable public func pack(into w: inout PackWriter) throws(CodecError) { try w.pack(self) }
    @inlinable public static func unpack(from r: inout PackReader) throws(CodecError) -> Bool { try r.readBool() }
}
extension Double: WireCodable {
    @inlinable public func pack(into w: inout PackWriter) throws(CodecError) { try w.pack(self) }
    @inlinable public static func unpack(from r: inout PackReader) throws(CodecError) -> Double { try r.readDouble() }
}
extension Int: WireCodable {
    @inlinable public func pack(into w: inout PackWriter) throws(CodecError) { try w.pack(Int64(self)) }
    @inlinable public static func unpack(from r: inout PackReader) throws(CodecError) -> Int { Int(try r.readInt64()) }
}
extension Array: WireCodable where Element: WireCodable {
    @inlinable public func pack(into w: inout PackWriter) throws(CodecError) {
        if let b = self as? [UInt8] { return try w.pack(b) }
        try w.packArrayHeader(self.count)
        for e in self { try e.pack(into: &w) }
    }
    @inlinable public static func unpack(from r: inout PackReader) throws(CodecError) -> [Element] {
        if Element.self == UInt8.self { return try r.readBytes() as! [Element] }
        let n = try r.readArrayHeader(); var a: [Element] = []
        for _ in 0..<n { a.append(try Element.unpack(from: &r)) }
        return a
    }
}
extension UInt8: WireCodable {
    @inlinable public func pack(into w: inout PackWriter) throws(CodecError) { try w.pack(UInt64(self)) }
    @inlinable public static func unpack(from r: inout PackReader) throws(CodecError) -> UInt8 { UInt8(clamping: try r.readInt64()) }
}
public struct Nothing: Codable, Hashable, Sendable, WireCodable {
    @inlinable public init() {}
    @inlinable public func pack(into w: inout PackWriter) throws(CodecError) { try w.packNil() }
    @inlinable public static func unpack(from r: inout PackReader) throws(CodecError) -> Nothing { _ = r.readNil(); return Nothing() }
}
@inlinable public func packValue<T: Encodable>(_ v: T, into w: inout PackWriter) throws(CodecError) {
    if let f = v as? any WireCodable { try f.pack(into: &w) } else { throw CodecError(.notEncodable, "\(T.self)") }
}
@inlinable public func unpackValue<T: Decodable>(_ t: T.Type, from r: inout PackReader) throws(CodecError) -> T {
    if let f = t as? any WireCodable.Type { return try f.unpack(from: &r) as! T }
    throw CodecError(.notEncodable, "\(T.self)")
}
@inlinable public func packArguments<each A: Encodable>(_ a: repeat each A, into w: inout PackWriter) throws(CodecError) {
    var n = 0
    for _ in repeat (each A).self { n += 1 }
    try w.packArrayHeader(n)
    for x in repeat each a { try packValue(x, into: &w) }
}
@inlinable public func unpackArguments<each A: Decodable>(_ t: repeat (each A).Type, from r: inout PackReader) throws(CodecError) -> (repeat each A) {
    var n = 0
    for _ in repeat (each A).self { n += 1 }
    let c = try r.readArrayHeader()
    guard c == n else { throw CodecError(.countMismatch, "expected \(n) arguments, found \(c)") }
    return (repeat try unpackValue((each A).self, from: &r))
}
