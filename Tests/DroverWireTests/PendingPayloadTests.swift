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
        #expect(try unsafe bytes.withUnsafeBytes { try unsafe PendingPayload.ids(in: $0) } == Set(ids))
        #expect(PendingPayload.most(in: 33) == 4)
    }

    @Test("a list that breaks off is refused")
    func broken() {
        #expect(throws: WireError.self) {
            try unsafe [UInt8](repeating: 0, count: 9).withUnsafeBytes { try unsafe PendingPayload.ids(in: $0) }
        }
    }
}
