// SPDX-License-Identifier: Apache-2.0

/// SHA-256 (FIPS 180-4), fed in pieces.
///
/// Written out to keep the example free of dependencies; a real program takes a cryptography library's.
struct SHA256 {
    private var state: InlineArray<8, UInt32> = [
        0x6A09_E667, 0xBB67_AE85, 0x3C6E_F372, 0xA54F_F53A, 0x510E_527F, 0x9B05_688C, 0x1F83_D9AB, 0x5BE0_CD19,
    ]
    /// The bytes of an unfinished block.
    private var pending: [UInt8] = []
    private var byteCount: UInt64 = 0

    mutating func update(_ bytes: UnsafeRawBufferPointer) {
        self.byteCount += UInt64(bytes.count)
        var rest = bytes[...]
        if !self.pending.isEmpty {
            let missing = rest.prefix(64 - self.pending.count)
            self.pending.append(contentsOf: missing)
            rest = rest.dropFirst(missing.count)
            guard self.pending.count == 64 else { return }
            let block = self.pending
            block.withUnsafeBytes { self.mix($0) }
            self.pending.removeAll(keepingCapacity: true)
        }
        while rest.count >= 64 {
            self.mix(UnsafeRawBufferPointer(rebasing: rest.prefix(64)))
            rest = rest.dropFirst(64)
        }
        self.pending.append(contentsOf: rest)
    }

    /// Ends the message; the digest in hexadecimal.
    mutating func finish() -> String {
        let bitCount = self.byteCount * 8
        let zeros = (119 - Int(self.byteCount % 64)) % 64
        var tail: [UInt8] = [0x80] + [UInt8](repeating: 0, count: zeros)
        for shift in stride(from: 56, through: 0, by: -8) { tail.append(UInt8(truncatingIfNeeded: bitCount >> shift)) }
        tail.withUnsafeBytes { self.update($0) }
        var hex = ""
        for index in self.state.indices {
            let digits = String(self.state[index], radix: 16)
            hex += String(repeating: "0", count: 8 - digits.count) + digits
        }
        return hex
    }

    private mutating func mix(_ block: UnsafeRawBufferPointer) {
        var words = InlineArray<64, UInt32>(repeating: 0)
        for index in 0..<16 {
            words[index] = UInt32(bigEndian: block.loadUnaligned(fromByteOffset: index * 4, as: UInt32.self))
        }
        for index in 16..<64 {
            let early = words[index - 15]
            let late = words[index - 2]
            let mixedEarly = Self.rotate(early, 7) ^ Self.rotate(early, 18) ^ (early >> 3)
            let mixedLate = Self.rotate(late, 17) ^ Self.rotate(late, 19) ^ (late >> 10)
            words[index] = words[index - 16] &+ mixedEarly &+ words[index - 7] &+ mixedLate
        }
        var (a, b, c, d) = (self.state[0], self.state[1], self.state[2], self.state[3])
        var (e, f, g, h) = (self.state[4], self.state[5], self.state[6], self.state[7])
        Self.roundConstants.withUnsafeBufferPointer { constants in
            for round in 0..<64 {
                let sumE = Self.rotate(e, 6) ^ Self.rotate(e, 11) ^ Self.rotate(e, 25)
                let first = h &+ sumE &+ ((e & f) ^ (~e & g)) &+ constants[round] &+ words[round]
                let sumA = Self.rotate(a, 2) ^ Self.rotate(a, 13) ^ Self.rotate(a, 22)
                let second = sumA &+ ((a & b) ^ (a & c) ^ (b & c))
                (h, g, f, e) = (g, f, e, d &+ first)
                (d, c, b, a) = (c, b, a, first &+ second)
            }
        }
        self.state[0] &+= a
        self.state[1] &+= b
        self.state[2] &+= c
        self.state[3] &+= d
        self.state[4] &+= e
        self.state[5] &+= f
        self.state[6] &+= g
        self.state[7] &+= h
    }

    private static func rotate(_ word: UInt32, _ count: UInt32) -> UInt32 {
        (word >> count) | (word << (32 - count))
    }

    private static let roundConstants: [UInt32] = [
        0x428A_2F98, 0x7137_4491, 0xB5C0_FBCF, 0xE9B5_DBA5, 0x3956_C25B, 0x59F1_11F1, 0x923F_82A4, 0xAB1C_5ED5,
        0xD807_AA98, 0x1283_5B01, 0x2431_85BE, 0x550C_7DC3, 0x72BE_5D74, 0x80DE_B1FE, 0x9BDC_06A7, 0xC19B_F174,
        0xE49B_69C1, 0xEFBE_4786, 0x0FC1_9DC6, 0x240C_A1CC, 0x2DE9_2C6F, 0x4A74_84AA, 0x5CB0_A9DC, 0x76F9_88DA,
        0x983E_5152, 0xA831_C66D, 0xB003_27C8, 0xBF59_7FC7, 0xC6E0_0BF3, 0xD5A7_9147, 0x06CA_6351, 0x1429_2967,
        0x27B7_0A85, 0x2E1B_2138, 0x4D2C_6DFC, 0x5338_0D13, 0x650A_7354, 0x766A_0ABB, 0x81C2_C92E, 0x9272_2C85,
        0xA2BF_E8A1, 0xA81A_664B, 0xC24B_8B70, 0xC76C_51A3, 0xD192_E819, 0xD699_0624, 0xF40E_3585, 0x106A_A070,
        0x19A4_C116, 0x1E37_6C08, 0x2748_774C, 0x34B0_BCB5, 0x391C_0CB3, 0x4ED8_AA4A, 0x5B9C_CA4F, 0x682E_6FF3,
        0x748F_82EE, 0x78A5_636F, 0x84C8_7814, 0x8CC7_0208, 0x90BE_FFFA, 0xA450_6CEB, 0xBEF9_A3F7, 0xC671_78F2,
    ]

    /// Digests that the standard and its companions publish.
    static let knownDigests: [(message: String, digest: String)] = [
        ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        ),
    ]

    /// Whether the published digests come out, whole and fed byte by byte.
    static var isCorrect: Bool {
        self.knownDigests.allSatisfy { message, digest in
            var whole = SHA256()
            var piecemeal = SHA256()
            Array(message.utf8)
                .withUnsafeBytes { bytes in
                    whole.update(bytes)
                    for index in bytes.indices {
                        piecemeal.update(UnsafeRawBufferPointer(rebasing: bytes[index...index]))
                    }
                }
            return whole.finish() == digest && piecemeal.finish() == digest
        }
    }
}
