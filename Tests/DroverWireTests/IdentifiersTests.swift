// SPDX-License-Identifier: Apache-2.0

import DroverWire
import Testing

@Suite("Identifiers")
struct IdentifiersTests {
    @Test("a peer's identity is 16 bytes, most significant first")
    func peerBytes() {
        let bytes = [UInt8](0x10...0x1F)
        let id = PeerID(bytes: bytes)
        #expect(id == PeerID(high: 0x1011_1213_1415_1617, low: 0x1819_1A1B_1C1D_1E1F))
        #expect(id?.bytes == bytes)
        #expect(id?.description == "101112131415161718191a1b1c1d1e1f")
        #expect(PeerID(high: 0, low: 1).description == String(repeating: "0", count: 31) + "1")
        for count in [0, 1, 15, 17, 32] { #expect(PeerID(bytes: [UInt8](repeating: 0, count: count)) == nil) }
    }

    @Test("identities at the ends of their range survive the wire", arguments: [UInt64.min, 1, 1 << 63, .max])
    func peerEnds(_ half: UInt64) {
        for id in [PeerID(high: half, low: 0), PeerID(high: 0, low: half), PeerID(high: half, low: half)] {
            #expect(PeerID(bytes: id.bytes) == id)
        }
    }

    @Test("correlation ids compare by when they were given out")
    func correlation() {
        #expect(CorrelationID(1) < CorrelationID(2))
        #expect(CorrelationID(.max) > CorrelationID(1))
        #expect("\(CorrelationID(12))" == "#12")
        #expect("\(SubscriptionID(7))" == "7")
    }
}
