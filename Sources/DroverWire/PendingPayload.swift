// SPDX-License-Identifier: Apache-2.0

/// The payload of a PENDING: the ids of invocations, eight bytes each.
package enum PendingPayload {
    private static var idBytes: Int { MemoryLayout<UInt64>.size }

    /// One payload holds at most this many ids; for more, several are sent.
    package static var mostIDs: Int { 8192 }

    /// How many ids go into one payload for a peer that accepts payloads of this many bytes.
    package static func most(in byteCount: Int) -> Int { max(1, min(Self.mostIDs, byteCount / Self.idBytes)) }

    package static func bytes(of ids: some Collection<UInt64>) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(ids.count * Self.idBytes)
        for id in ids {
            for shift in stride(from: 0, to: UInt64.bitWidth, by: 8) {
                bytes.append(UInt8(truncatingIfNeeded: id >> UInt64(shift)))
            }
        }
        return bytes
    }

    /// Gives each id to `body`.
    package static func read(
        _ payload: UnsafeRawBufferPointer,
        _ body: (UInt64) -> Void
    ) throws(WireError) {
        guard payload.count.isMultiple(of: Self.idBytes), payload.count <= Self.mostIDs * Self.idBytes else {
            throw WireError(
                .badPayload,
                "a list of invocations has eight bytes for each of \(Self.mostIDs) at most, not \(payload.count) in all"
            )
        }
        for offset in stride(from: 0, to: payload.count, by: Self.idBytes) {
            body(UInt64(littleEndian: unsafe payload.loadUnaligned(fromByteOffset: offset, as: UInt64.self)))
        }
    }

    /// The lists that together hold all ids, each with whether others follow.
    package static func lists(of ids: [UInt64], forPayloadsOf byteCount: Int) -> [(bytes: [UInt8], hasMore: Bool)] {
        let most = Self.most(in: byteCount)
        guard ids.count > most else { return [(Self.bytes(of: ids), false)] }
        return stride(from: 0, to: ids.count, by: most)
            .map { start in
                let end = min(start + most, ids.count)
                return (Self.bytes(of: ids[start..<end]), end < ids.count)
            }
    }
}
