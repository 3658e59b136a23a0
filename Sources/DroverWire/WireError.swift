// SPDX-License-Identifier: Apache-2.0

/// Bytes that are not a valid frame or message.
package struct WireError: Error, Equatable, Sendable {
    /// What is wrong with the bytes; for logs, as only `tooLarge` is also a code on the wire.
    package enum Code: String, Sendable {
        /// Fewer bytes than the header or the payload length promise.
        case truncated
        /// The first byte is not Drover's.
        case notDrover
        /// The peer speaks another major version.
        case unsupportedVersion
        /// A payload or a frame is over the limit.
        case tooLarge
        /// The frame structure is broken: a missing, surplus or misplaced frame.
        case badFraming
        /// A payload can't be understood.
        case badPayload
    }

    package var code: Code
    package var message: String

    package init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    @usableFromInline
    package static func badFirstByte(_ byte: UInt8) -> WireError {
        let hexadecimal = "0x" + String(byte, radix: 16, uppercase: true)
        guard byte & 0xF0 == ProtocolVersion.magic else {
            return WireError(.notDrover, "the first byte is \(hexadecimal): the peer does not speak Drover's protocol")
        }
        return WireError(
            .unsupportedVersion,
            "the peer speaks version \(byte & 0x0F), this side version \(ProtocolVersion.major): update the older one"
        )
    }
}

extension WireError: CustomStringConvertible {
    package var description: String { self.message }
}
