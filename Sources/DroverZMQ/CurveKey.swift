// SPDX-License-Identifier: Apache-2.0

import CDroverZMQ
import Glibc

/// A CURVE identity: a public key to hand out, and the secret key that proves it.
package struct CurveKeyPair: Hashable, Sendable {
    /// The size of a key.
    package static let keyByteCount = 32

    /// The public key, 32 bytes.
    package let publicKey: [UInt8]
    /// The secret key, 32 bytes; never logged.
    package let secretKey: [UInt8]

    /// Makes the pair that belongs to a secret key.
    ///
    /// - Throws: ``ZMQError`` if the key isn't 32 bytes long.
    package init(secretKey: [UInt8]) throws(ZMQError) {
        self.publicKey = try Self.publicKey(fromSecret: secretKey)
        self.secretKey = secretKey
    }

    private init(publicKey: [UInt8], secretKey: [UInt8]) {
        self.publicKey = publicKey
        self.secretKey = secretKey
    }

    /// Makes a new identity from the kernel's random numbers.
    package static func generate() throws(ZMQError) -> CurveKeyPair {
        var publicText: [CChar] = Array(repeating: 0, count: 41)
        var secretText: [CChar] = Array(repeating: 0, count: 41)
        guard unsafe zmq_curve_keypair(&publicText, &secretText) == 0 else { throw .last(.makeKeys) }
        return CurveKeyPair(
            publicKey: try Z85.decode(Self.text(of: publicText)),
            secretKey: try Z85.decode(Self.text(of: secretText))
        )
    }

    /// Computes the public key that belongs to a secret one.
    package static func publicKey(fromSecret secretKey: [UInt8]) throws(ZMQError) -> [UInt8] {
        guard secretKey.count == Self.keyByteCount else {
            throw ZMQError(errno: EINVAL, .readKey, "of \(secretKey.count) bytes")
        }
        var publicText: [CChar] = Array(repeating: 0, count: 41)
        let code = unsafe zmq_curve_public(&publicText, try Z85.encode(secretKey)) == 0 ? 0 : zmq_errno()
        guard code == 0 else { throw ZMQError(errno: code, .makeKeys) }
        return try Z85.decode(Self.text(of: publicText))
    }

    private static func text(of characters: [CChar]) -> String {
        String(decoding: characters.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

extension CurveKeyPair: CustomStringConvertible, CustomReflectable {
    /// The public key only.
    package var description: String {
        // A key is 32 bytes long, which Z85 can always write.
        "CurveKeyPair(\((try? Z85.encode(self.publicKey)) ?? "?"))"
    }

    /// An empty mirror, so that a dump shows nothing of the secret key.
    package var customMirror: Mirror { Mirror(self, children: []) }
}

/// ZeroMQ's text encoding of bytes: five printable characters for every four bytes (RFC 32).
package enum Z85 {
    private static let alphabet = Array(
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#".utf8
    )

    private static let digits: [UInt8: UInt32] = Dictionary(
        uniqueKeysWithValues: alphabet.enumerated().map { ($1, UInt32($0)) }
    )

    /// Writes bytes as text.
    ///
    /// - Throws: ``ZMQError`` if the count isn't a multiple of four.
    package static func encode(_ bytes: [UInt8]) throws(ZMQError) -> String {
        guard bytes.count.isMultiple(of: 4) else { throw ZMQError(errno: EINVAL, .readKey, "of \(bytes.count) bytes") }
        var text: [UInt8] = []
        text.reserveCapacity(bytes.count / 4 * 5)
        for start in stride(from: 0, to: bytes.count, by: 4) {
            let word = bytes[start..<start + 4].reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
            for divisor: UInt32 in [52_200_625, 614_125, 7_225, 85, 1] {
                text.append(Self.alphabet[Int(word / divisor % 85)])
            }
        }
        return String(decoding: text, as: UTF8.self)
    }

    /// Reads bytes from text.
    ///
    /// - Throws: ``ZMQError`` if the count isn't a multiple of five or a character isn't in the alphabet. The error
    ///   doesn't contain the text, which may be a secret.
    package static func decode(_ text: String) throws(ZMQError) -> [UInt8] {
        let characters = Array(text.utf8)
        guard characters.count.isMultiple(of: 5) else {
            throw ZMQError(errno: EINVAL, .readKey, "of \(characters.count) characters")
        }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(characters.count / 5 * 4)
        for start in stride(from: 0, to: characters.count, by: 5) {
            var word: UInt64 = 0
            for offset in start..<start + 5 {
                guard let digit = Self.digits[characters[offset]] else {
                    throw ZMQError(errno: EINVAL, .readKey, "whose character \(offset + 1) isn't Z85")
                }
                word = word * 85 + UInt64(digit)
            }
            guard let word = UInt32(exactly: word) else {
                throw ZMQError(errno: EINVAL, .readKey, "whose characters from \(start + 1) on are too large")
            }
            for shift: UInt32 in [24, 16, 8, 0] {
                bytes.append(UInt8(truncatingIfNeeded: word >> shift))
            }
        }
        return bytes
    }
}
