// SPDX-License-Identifier: Apache-2.0

import DroverCodec

/// A structure that takes most ways through the decoder for `Codable`.
private struct Record: Codable {
    enum Shape: Codable {
        case point
        case circle(radius: Double)
        indirect case both(Shape, Shape?)
    }

    var a: Int
    var b: String?
    var c: [Record]?
    var d: [String: Shape]?
    var e: [Int: [UInt8]]?
    var f: ContiguousArray<UInt8>?
    var g: Shape?
}

/// Small enough for the fuzzer to reach each limit.
private let limits = CodecLimits(maxBytes: 1 << 16, maxDepth: 16, maxCount: 1 << 10)

/// Must decode or throw, never trap; what decodes must encode, and decode again to the same bytes.
private func check<Value: Codable>(_ type: Value.Type, _ bytes: [UInt8], isOrdered: Bool = true) {
    guard
        let value = attempt({ () throws(CodecError) in
            try withPackReader(over: bytes, limits: limits) { reader throws(CodecError) in
                try unpackValue(type, from: &reader)
            }
        }),
        // An integer that was read as floating point takes more bytes, so the limit may be passed now.
        let first = attempt({ () throws(CodecError) in try encode(value) })
    else { return }
    let second = attempt { () throws(CodecError) in
        try withPackReader(over: first, limits: limits) { reader throws(CodecError) in
            let again = try unpackValue(type, from: &reader)
            try reader.expectEnd()
            return try encode(again)
        }
    }
    guard let second else { preconditionFailure("\(type): what was encoded doesn't decode: \(first)") }
    // Dictionaries and sets have no order, so only the length is the same each time.
    let isSame = isOrdered ? first == second : first.count == second.count
    precondition(isSame, "\(type): encoding isn't stable: \(first) became \(second)")
}

private func encode<Value: Encodable>(_ value: Value) throws(CodecError) -> [UInt8] {
    var writer = PackWriter(capacity: 64, limits: limits)
    try packValue(value, into: &writer)
    return writer.withBytes { bytes in [UInt8](bytes) }
}

private func attempt<Value>(_ body: () throws(CodecError) -> Value) -> Value? {
    do throws(CodecError) {
        return try body()
    } catch {
        precondition(!error.description.isEmpty)
        return nil
    }
}

/// `skip` must end where decoding ends.
private func checkSkip(_ bytes: [UInt8]) {
    let decoded = attempt { () throws(CodecError) in
        try withPackReader(over: bytes, limits: limits) { reader throws(CodecError) in
            _ = try PackValue.unpack(from: &reader)
            return reader.offset
        }
    }
    let skipped = attempt { () throws(CodecError) in
        try withPackReader(over: bytes, limits: limits) { reader throws(CodecError) in
            try reader.skip()
            return reader.offset
        }
    }
    if let decoded { precondition(decoded == skipped, "skip ended at \(skipped ?? -1), decoding at \(decoded)") }
}

/// What libFuzzer calls.
///
/// - Parameters:
///   - start: The first byte.
///   - count: The number of bytes.
/// - Returns: Always zero.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = [UInt8](UnsafeBufferPointer(start: start, count: count))
    checkSkip(bytes)
    check(PackValue.self, bytes)
    check(Record.self, bytes, isOrdered: false)
    check([Record].self, bytes, isOrdered: false)
    check([String: Record].self, bytes, isOrdered: false)
    check([Set<Int8>].self, bytes, isOrdered: false)
    check([Double].self, bytes)
    check([Float?].self, bytes)
    check([Duration].self, bytes)
    check([ContiguousArray<UInt8>].self, bytes)
    _ = attempt { () throws(CodecError) in
        try withPackReader(over: bytes, limits: limits) { reader throws(CodecError) in
            let arguments = try unpackArguments(String.self, Int.self, Record?.self, from: &reader)
            return arguments.0.utf8.count
        }
    }
    return 0
}
