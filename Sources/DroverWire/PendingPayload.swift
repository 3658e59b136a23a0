// SPDX-License-Identifier: Apache-2.0

/// The payload of a PENDING: the ids of invocations, eight bytes each.
package enum PendingPayload {
    private static var idBytes: Int { MemoryLayout<UInt64>.size }

    /// So many fit into a payload.
    package static func most(in byteCount: Int) -> Int { byteCount / Self.idBytes }

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

    package static func ids(in payload: UnsafeRawBufferPointer) throws(WireError) -> Set<UInt64> {
        guard payload.count.isMultiple(of: Self.idBytes) else {
            throw WireError(.badPayload, "a list of invocations has eight bytes for each, not \(payload.count) in all")
        }
        var ids = Set<UInt64>(minimumCapacity: payload.count / Self.idBytes)
        for offset in stride(from: 0, to: payload.count, by: Self.idBytes) {
            ids.insert(UInt64(littleEndian: unsafe payload.loadUnaligned(fromByteOffset: offset, as: UInt64.self)))
        }
        return ids
    }
}
