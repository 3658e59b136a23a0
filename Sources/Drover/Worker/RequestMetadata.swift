// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverWire

/// The metadata map in front of a request's arguments.
struct RequestMetadata {
    /// Requests of one key run one at a time, in order.
    var orderingKey: String?
    /// How many bytes the map takes.
    var byteCount = 0

    init(reading payload: UnsafeRawBufferPointer) throws(WireError) {
        do throws(CodecError) {
            let (key, count) = try unsafe withPackReader(over: payload) {
                reader throws(CodecError) -> (String?, Int) in
                var key: String?
                for _ in 0..<(try reader.readMapHeader()) {
                    switch try reader.readString() {
                    case "key": key = try reader.readString()
                    default: try reader.skip()
                    }
                }
                return (key, reader.offset)
            }
            self.orderingKey = key
            self.byteCount = count
        } catch {
            throw WireError(.badPayload, "the request's metadata can't be read: \(error)")
        }
    }
}
