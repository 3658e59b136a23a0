// SPDX-License-Identifier: Apache-2.0

package import DroverCodec

/// Payload of a ``MessageKind/origin``: the id that a broker's client gave a request.
package struct OriginPayload: Equatable, Sendable {
    /// The client's correlation id.
    package var id: UInt64 = 0
    /// The client's name.
    package var client = ""

    package init(id: UInt64, client: String) {
        self.id = id
        self.client = client
    }

    /// Writes the payload.
    package func pack(into writer: inout PackWriter) throws(CodecError) {
        try writer.packMapHeader(2)
        try writer.pack("id")
        try writer.pack(self.id)
        try writer.pack("client")
        try writer.pack(self.client)
    }

    /// Reads a payload; fields that this version doesn't know are skipped.
    package init(reading payload: UnsafeRawBufferPointer) throws(WireError) {
        var (id, client) = (UInt64(0), "")
        try unsafe readPayloadMap(payload, of: "origin") { field, reader throws(CodecError) in
            switch field {
            case "id": id = try reader.readUInt64()
            case "client": client = try reader.readTerm("a client's name")
            default: try reader.skip()
            }
        }
        guard id != 0 else { throw WireError(.badPayload, "an origin needs an \"id\"") }
        self.init(id: id, client: client)
    }
}
