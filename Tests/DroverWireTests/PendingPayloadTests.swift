// SPDX-License-Identifier: Apache-2.0

import DroverWire
import Testing

@Suite("PendingPayload")
struct PendingPayloadTests {
    @Test("ids come back as they were, whatever they are")
    func roundTrip() throws {
        let ids: [UInt64] = [0, 1, 0x0102_0304_0506_0708, .max]
        let bytes = PendingPayload.bytes(of: ids)
        #expect(bytes.count == 32 && Array(bytes[16..<24]) == [8, 7, 6, 5, 4, 3, 2, 1])
        #expect(try Self.ids(in: bytes) == ids)
    }

    @Test("a list that breaks off, or is too long, is refused")
    func broken() {
        for count in [9, 8 * PendingPayload.mostIDs + 8] {
            #expect(throws: WireError.self) { try Self.ids(in: [UInt8](repeating: 0, count: count)) }
        }
    }

    @Test("many ids go in several lists, of which all but the last say that others follow", arguments: [0, 1, 4, 5, 9])
    func several(count: Int) throws {
        let ids = (0..<count).map { UInt64($0) }
        let lists = PendingPayload.lists(of: ids, forPayloadsOf: 33)
        #expect(try lists.flatMap { try Self.ids(in: $0.bytes) } == ids)
        #expect(lists.map { $0.hasMore } == (1...max(1, (count + 3) / 4)).map { $0 * 4 < count })
    }

    private static func ids(in bytes: [UInt8]) throws -> [UInt64] {
        var ids: [UInt64] = []
        try unsafe bytes.withUnsafeBytes { try unsafe PendingPayload.read($0) { ids.append($0) } }
        return ids
    }
}
