// SPDX-License-Identifier: Apache-2.0

package import DroverCodec

/// The content of a request that carries many calls (docs/protocol.md, 8.4).
///
/// First it says how far the worker is to go with it; then come its items, each the argument array of one call as a binary
/// value.
package struct ChunkRequest: Sendable {
    /// What stands before the items.
    package static var leadCount: Int { 2 }

    /// With so many bytes of answers no further item is begun.
    package var answerBytes: UInt64
    /// After so long no further item is begun.
    package var microseconds: UInt64
    /// Where each item's arguments stand in the content.
    package private(set) var items: [Range<Int>]

    /// Reads a request's content, all of it.
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

    /// Writes what stands before the items.
    package static func packLead(
        answerBytes: UInt64,
        microseconds: UInt64,
        into writer: inout PackWriter
    ) throws(CodecError) {
        try writer.pack(answerBytes)
        try writer.pack(microseconds)
    }
}

/// What came of one item of a chunk.
package enum ChunkItem: Equatable, Sendable {
    /// Its value is encoded there.
    case value(Range<Int>)
    /// It failed; an error map stands there.
    case error(Range<Int>)
    /// It didn't run: the worker had gone far enough.
    case notRun
}

/// Finds the items in the answer to a chunk.
///
/// - Parameters:
///   - payload: The answer, all of it.
///   - count: How many items the chunk had.
/// - Returns: What came of each, in their order.
/// - Throws: `WireError` if the answer is not one to such a chunk.
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
    /// Reads a binary value; returns where it stands.
    fileprivate mutating func readBinaryRange() throws(CodecError) -> Range<Int> {
        let count = try unsafe self.readBinarySlice { bytes throws(CodecError) in bytes.count }
        return self.offset - count..<self.offset
    }
}
