// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import DroverZMQ

@Suite("CURVE keys")
struct CurveKeyTests {
    @Test("pairs differ, and the public key follows from the secret one")
    func pairs() throws {
        let (first, second) = (try CurveKeyPair.generate(), try CurveKeyPair.generate())
        #expect(first != second)
        #expect(first.publicKey.count == 32)
        #expect(first.secretKey.count == 32)
        #expect(try CurveKeyPair(secretKey: first.secretKey) == first)
        #expect(try CurveKeyPair.publicKey(fromSecret: second.secretKey) == second.publicKey)
    }

    @Test("a pair never shows its secret")
    func secretStaysSecret() throws {
        let pair = try CurveKeyPair.generate()
        let secret = try Z85.encode(pair.secretKey)
        var dumped = ""
        dump(pair, to: &dumped)
        for text in ["\(pair)", String(reflecting: pair), dumped] {
            #expect(!text.contains(secret))
            #expect(!text.contains(pair.secretKey.map(String.init).joined(separator: ", ")))
        }
        #expect("\(pair)".contains(try Z85.encode(pair.publicKey)))
    }

    @Test("a secret of the wrong size is refused", arguments: [0, 31, 33, 40])
    func wrongSize(count: Int) {
        let error = thrown { () throws(ZMQError) in _ = try CurveKeyPair(secretKey: Array(repeating: 1, count: count)) }
        #expect(error?.operation == .readKey)
    }

    @Test("Z85 writes the specification's example")
    func example() throws {
        let bytes: [UInt8] = [0x86, 0x4F, 0xD2, 0x6F, 0xB5, 0x59, 0xF7, 0x5B]
        #expect(try Z85.encode(bytes) == "HelloWorld")
        #expect(try Z85.decode("HelloWorld") == bytes)
    }

    @Test("Z85 comes back", arguments: [[], [0, 0, 0, 0], [255, 255, 255, 255], Array(UInt8(0)...255)] as [[UInt8]])
    func roundTrip(bytes: [UInt8]) throws {
        #expect(try Z85.decode(Z85.encode(bytes)) == bytes)
    }

    @Test("Z85 refuses what isn't Z85", arguments: ["abc", "abcd~", "#####", "ab\u{e9}d", "%nSc1", "a bcd"])
    func refuses(text: String) {
        let error = thrown { () throws(ZMQError) in _ = try Z85.decode(text) }
        #expect(error?.operation == .readKey)
        #expect(error?.description.contains(text) == false)
    }

    @Test("Z85 refuses an odd number of bytes")
    func refusesOddCount() {
        #expect(thrown { () throws(ZMQError) in _ = try Z85.encode([1, 2, 3]) } != nil)
    }
}
