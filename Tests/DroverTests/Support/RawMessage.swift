// SPDX-License-Identifier: Apache-2.0

import DroverCodec
import DroverWire

/// A message of the wire as a raw peer sees it: a header and its payload.
struct RawMessage: Sendable {
    var header: Header
    var payload: [UInt8]

    var kind: MessageKind? { self.header.kind }
    var id: UInt64 { self.header.id }

    init(
        _ kind: MessageKind,
        id: UInt64 = 0,
        number: UInt32 = 0,
        time: UInt32 = 0,
        flags: Header.Flags = [],
        payload: [UInt8] = []
    ) {
        self.header = Header(
            kind,
            flags: flags,
            payloadLength: UInt32(payload.count),
            id: id,
            time: time,
            number: number
        )
        self.payload = payload
    }

    init(header: Header, payload: [UInt8]) {
        self.header = header
        self.payload = payload
    }

    /// The message as it travels.
    var bytes: [UInt8] {
        var head = [UInt8](repeating: 0, count: Header.byteCount)
        head.withUnsafeMutableBytes { buffer in
            if let base = buffer.baseAddress { self.header.write(to: base) }
        }
        return head + self.payload
    }

    /// The payload as one value.
    func value<Value: Decodable>(as type: Value.Type) throws -> Value {
        try self.payload.withUnsafeBytes { bytes in
            try withPackReader(over: bytes) { reader in try unpackValue(Value.self, from: &reader) }
        }
    }

    /// The payload as an error.
    func error() throws -> ErrorPayload {
        try self.payload.withUnsafeBytes { try ErrorPayload(reading: $0) }
    }

    /// The messages of a received ZeroMQ message, without the routing id; nothing of a broken one.
    static func all(in frames: [[UInt8]]) -> [RawMessage] {
        guard let first = frames.first else { return [] }
        var found: [RawMessage] = []
        first.withUnsafeBytes { bytes in
            var reader = FrameReader(bytes, attachedByteCount: frames.count > 1 ? frames[1].count : nil)
            while let part = try? reader.next() {
                found.append(
                    RawMessage(header: part.header, payload: part.isAttached ? frames[1] : [UInt8](bytes[part.payload]))
                )
            }
        }
        return found
    }
}

/// Values in MessagePack.
enum Packed {
    /// One value, as a reply has it.
    static func value(_ value: some Encodable) -> [UInt8] {
        var writer = PackWriter(capacity: 64)
        try? packValue(value, into: &writer)
        return writer.withBytes { [UInt8]($0) }
    }

    /// Arguments, as a request has them.
    static func arguments<each Argument: Encodable>(_ argument: repeat each Argument) -> [UInt8] {
        var writer = PackWriter(capacity: 64)
        try? packArguments(repeat each argument, into: &writer)
        return writer.withBytes { [UInt8]($0) }
    }

    /// A worker's error.
    static func error(_ code: String, _ message: String) -> [UInt8] {
        var payload = ErrorPayload()
        payload.code = code
        payload.message = message
        var writer = PackWriter(capacity: 64)
        try? payload.pack(into: &writer)
        return writer.withBytes { [UInt8]($0) }
    }

    /// What a worker says of itself.
    static func welcome(
        window: Int,
        isResumed: Bool,
        name: String = "raw",
        maxPayloadBytes: Int = 1 << 20,
        takesParts: Bool = false,
        answers epoch: UInt64? = nil
    ) -> [UInt8] {
        var welcome = Welcome(
            worker: PeerID(high: 1, low: 2),
            name: name,
            window: window,
            beatMilliseconds: 100,
            silenceMilliseconds: 1000,
            maxPayloadBytes: maxPayloadBytes,
            concurrency: 4,
            isResumed: isResumed
        )
        welcome.takesParts = takesParts
        welcome.answeredEpoch = epoch
        var writer = PackWriter(capacity: 64)
        try? welcome.pack(into: &writer)
        return writer.withBytes { [UInt8]($0) }
    }

    /// What a client says of itself.
    static func hello(client: PeerID, takesParts: Bool = false) -> [UInt8] {
        let limit = takesParts ? 64 << 20 : 1 << 20
        var hello = Hello(client: client, name: "raw", beatMilliseconds: 100, maxPayloadBytes: limit)
        hello.takesParts = takesParts
        var writer = PackWriter(capacity: 64)
        try? hello.pack(into: &writer)
        return writer.withBytes { [UInt8]($0) }
    }
}
