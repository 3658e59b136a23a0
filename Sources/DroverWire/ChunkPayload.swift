// SPDX-License-Identifier: Apache-2.0

package import DroverCodec

/// The content of a request that carries many calls (docs/protocol.md, 8.4).
///
/// Limits on how far the worker goes come first, then the items, each the argument array of one call as a binary
/// value.
package struct ChunkRequest: Sendable {
    /// The limits before the items.
    package static var leadCount: Int { 2 }

    /// Once the answers have this many bytes, no further item is begun.
    package var answerBytes: UInt64
    /// After this time, no further item is begun.
    package var microseconds: UInt64
    /// Where each item's arguments are in the content.
    package private(set) var items: [Range<Int>]

    /// Reads a request's whole content.
    package init(reading reader: inout PackReader) throws(CodecError) {
        let count = try reader.readArrayHeader()
        self.answerBytes = try reader.readUInt64()
        self.microseconds = try reader.readUInt64()
        self.items = []
        // The array's count was checked against the bytes that are there.
        self.items.reserveCapacity(max(0, count - Self.leadCount))
        for _ in 0..<max(0, count - Self.leadCount) { self.items.append(try reader.readBinaryRange()) }
        try reader.expectEnd()
    }

    /// Writes the limits before the items.
    package static func packLead(
        answerBytes: UInt64,
        microseconds: UInt64,
        into writer: inout PackWriter
    ) throws(CodecError) {
        try writer.pack(answerBytes)
        try writer.pack(microseconds)
    }
}

/// The outcome of one item of a chunk.
package enum ChunkItem: Equatable, Sendable {
    /// The item returned a value, encoded at this place.
    case value(Range<Int>)
    /// The item failed; its error map is at this place.
    case error(Range<Int>)
    /// The item didn't run: the worker had reached a limit.
    case notRun
}

/// Finds the items in the answer to a chunk.
///
/// - Parameters:
///   - payload: The whole answer.
///   - count: How many items the chunk had.
/// - Returns: The outcome of each item, in their order.
/// - Throws: `WireError` if the answer doesn't fit such a chunk.
package func chunkItems(in payload: [UInt8], count: Int) throws(WireError) -> [ChunkItem] {
    do throws(CodecError) {
        return try withPackReader(over: payload, limits: .received) { reader throws(CodecError) in
            let found = try reader.readArrayHeader()
            guard found == count else {
                throw CodecError(.countMismatch, message: "\(found) answers to a chunk of \(count) items")
            }
            var items: [ChunkItem] = []
            items.reserveCapacity(count)
            for _ in 0..<count {
                switch reader.peekKind {
                case .some(.nil):
                    try reader.skip()
                    items.append(.notRun)
                case .map?:
                    let start = reader.offset
                    try reader.skip()
                    items.append(.error(start..<reader.offset))
                default: items.append(.value(try reader.readBinaryRange()))
                }
            }
            try reader.expectEnd()
            return items
        }
    } catch {
        throw WireError(.badPayload, "the answer to a chunk can't be read: \(error)")
    }
}

extension PackReader {
    /// Reads a binary value; returns where it is.
    fileprivate mutating func readBinaryRange() throws(CodecError) -> Range<Int> {
        let count = try unsafe self.readBinarySlice { bytes throws(CodecError) in bytes.count }
        return self.offset - count..<self.offset
    }
}
