// SPDX-License-Identifier: Apache-2.0

package import DroverCodec

/// Payload of a ``MessageKind/caller``: the caller that a broker vouches for.
package struct CallerPayload: Equatable, Sendable {
    /// The caller's name in the broker's allow-list.
    package var principal = ""
    /// The public key that the caller proved to the broker, in Z85.
    package var key = ""

    package init(principal: String, key: String) {
        self.principal = principal
        self.key = key
    }

    /// Writes the payload.
    package func pack(into writer: inout PackWriter) throws(CodecError) {
        try writer.packMapHeader(2)
        try writer.pack("principal")
        try writer.pack(self.principal)
        try writer.pack("key")
        try writer.pack(self.key)
    }

    /// Reads a payload; fields that this version doesn't know are skipped.
    package init(reading payload: UnsafeRawBufferPointer) throws(WireError) {
        var (principal, key) = ("", "")
        try unsafe readPayloadMap(payload, of: "caller") { field, reader throws(CodecError) in
            switch field {
            case "principal": principal = try reader.readTerm("a principal")
            case "key": key = try reader.readTerm("a key")
            default: try reader.skip()
            }
        }
        guard !principal.isEmpty, !key.isEmpty else {
            throw WireError(.badPayload, "a caller needs \"principal\" and \"key\"")
        }
        self.init(principal: principal, key: key)
    }
}
