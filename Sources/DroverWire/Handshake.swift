// SPDX-License-Identifier: Apache-2.0

package import DroverCodec

/// What a client says about itself: the payload of ``MessageKind/hello``.
///
/// Its epoch is the header's id.
package struct Hello: Equatable, Sendable {
    package var minor: UInt32 = ProtocolVersion.minor
    package var client: PeerID
    package var name: String
    package var beatMilliseconds: Int
    /// After how much silence the sender gives up the other side; 0 if it doesn't say.
    package var silenceMilliseconds = 0
    package var maxPayloadBytes: Int
    /// Whether the sender acts for others, whose callbacks go through it.
    package var isBroker: Bool
    /// Whether the sender accepts large messages in parts.
    package var takesParts = false

    package init(
        client: PeerID,
        name: String,
        beatMilliseconds: Int,
        maxPayloadBytes: Int,
        isBroker: Bool = false
    ) {
        self.client = client
        self.name = name
        self.beatMilliseconds = beatMilliseconds
        self.maxPayloadBytes = maxPayloadBytes
        self.isBroker = isBroker
    }

    /// Writes the payload.
    package func pack(into writer: inout PackWriter) throws(CodecError) {
        try writer.packMapHeader(
            5 + (self.isBroker ? 1 : 0) + (self.takesParts ? 1 : 0) + (self.silenceMilliseconds > 0 ? 1 : 0)
        )
        try writer.pack("minor")
        try writer.pack(UInt64(self.minor))
        try writer.pack("client")
        try writer.pack(self.client.bytes)
        try writer.pack("name")
        try writer.pack(self.name)
        try writer.pack("beat")
        try writer.pack(Int64(self.beatMilliseconds))
        try writer.pack("maxPayload")
        try writer.pack(Int64(self.maxPayloadBytes))
        if self.silenceMilliseconds > 0 {
            try writer.pack("silence")
            try writer.pack(Int64(self.silenceMilliseconds))
        }
        if self.isBroker {
            try writer.pack("broker")
            try writer.pack(true)
        }
        if self.takesParts {
            try writer.pack("parts")
            try writer.pack(true)
        }
    }

    /// Reads a payload; fields that this version doesn't know are skipped.
    package init(reading payload: UnsafeRawBufferPointer) throws(WireError) {
        var minor: UInt32 = 0
        var isBroker = false
        var takesParts = false
        var client: PeerID?
        var name = ""
        var beat = 0
        var silence = 0
        var maxPayload = 0
        try unsafe readPayloadMap(payload, of: "hello") { key, reader throws(CodecError) in
            switch key {
            case "minor": minor = UInt32(clamping: try reader.readUInt64())
            case "client": client = try reader.readPeerID()
            case "name": name = try reader.readPeerName()
            case "beat": beat = try reader.readCount()
            case "silence": silence = try reader.readCount()
            case "maxPayload": maxPayload = try reader.readCount()
            case "broker": isBroker = try reader.readBool()
            case "parts": takesParts = try reader.readBool()
            default: try reader.skip()
            }
        }
        guard let client else {
            throw WireError(.badPayload, "a hello needs \"client\": 16 bytes that name the client")
        }
        self.client = client
        self.name = name
        self.beatMilliseconds = beat
        self.silenceMilliseconds = silence
        self.maxPayloadBytes = maxPayload
        self.isBroker = isBroker
        self.takesParts = takesParts
        self.minor = minor
    }
}

/// What a worker says about itself: the payload of ``MessageKind/welcome``.
///
/// Its epoch is the header's id.
package struct Welcome: Equatable, Sendable {
    package var minor: UInt32 = ProtocolVersion.minor
    package var worker: PeerID
    package var name: String
    /// How many requests the client may have here at once.
    package var window: Int
    package var beatMilliseconds: Int
    package var silenceMilliseconds: Int
    package var maxPayloadBytes: Int
    package var concurrency: Int
    /// Whether the worker still knows the client's earlier session.
    package var isResumed: Bool
    /// Whether the sender passes requests on to others.
    package var isBroker = false
    /// Whether the sender accepts large messages in parts.
    package var takesParts = false
    /// The epoch of the HELLO that this answers; nil if it isn't stated.
    package var answeredEpoch: UInt64?
    /// Whether the sender wants to know which callers a broker's requests are from.
    package var takesCallers = false

    package init(
        worker: PeerID,
        name: String,
        window: Int,
        beatMilliseconds: Int,
        silenceMilliseconds: Int,
        maxPayloadBytes: Int,
        concurrency: Int,
        isResumed: Bool
    ) {
        self.worker = worker
        self.name = name
        self.window = window
        self.beatMilliseconds = beatMilliseconds
        self.silenceMilliseconds = silenceMilliseconds
        self.maxPayloadBytes = maxPayloadBytes
        self.concurrency = concurrency
        self.isResumed = isResumed
    }

    /// Writes the payload.
    package func pack(into writer: inout PackWriter) throws(CodecError) {
        try writer.packMapHeader(
            9 + (self.isBroker ? 1 : 0) + (self.takesParts ? 1 : 0) + (self.answeredEpoch == nil ? 0 : 1)
                + (self.takesCallers ? 1 : 0)
        )
        try writer.pack("minor")
        try writer.pack(UInt64(self.minor))
        try writer.pack("worker")
        try writer.pack(self.worker.bytes)
        try writer.pack("name")
        try writer.pack(self.name)
        try writer.pack("window")
        try writer.pack(Int64(self.window))
        try writer.pack("beat")
        try writer.pack(Int64(self.beatMilliseconds))
        try writer.pack("silence")
        try writer.pack(Int64(self.silenceMilliseconds))
        try writer.pack("maxPayload")
        try writer.pack(Int64(self.maxPayloadBytes))
        try writer.pack("concurrency")
        try writer.pack(Int64(self.concurrency))
        try writer.pack("resumed")
        try writer.pack(self.isResumed)
        if self.isBroker {
            try writer.pack("broker")
            try writer.pack(true)
        }
        if self.takesParts {
            try writer.pack("parts")
            try writer.pack(true)
        }
        if let answeredEpoch {
            try writer.pack("answers")
            try writer.pack(answeredEpoch)
        }
        if self.takesCallers {
            try writer.pack("callers")
            try writer.pack(true)
        }
    }

    /// Reads a payload; fields that this version doesn't know are skipped.
    package init(reading payload: UnsafeRawBufferPointer) throws(WireError) {
        var welcome = Welcome(
            worker: PeerID(high: 0, low: 0),
            name: "",
            window: 1,
            beatMilliseconds: 0,
            silenceMilliseconds: 0,
            maxPayloadBytes: 0,
            concurrency: 1,
            isResumed: false
        )
        var hasWorker = false
        try unsafe readPayloadMap(payload, of: "welcome") { key, reader throws(CodecError) in
            switch key {
            case "minor": welcome.minor = UInt32(clamping: try reader.readUInt64())
            case "worker":
                if let id = try reader.readPeerID() {
                    welcome.worker = id
                    hasWorker = true
                }
            case "name": welcome.name = try reader.readPeerName()
            case "window": welcome.window = try reader.readCount()
            case "beat": welcome.beatMilliseconds = try reader.readCount()
            case "silence": welcome.silenceMilliseconds = try reader.readCount()
            case "maxPayload": welcome.maxPayloadBytes = try reader.readCount()
            case "concurrency": welcome.concurrency = try reader.readCount()
            case "resumed": welcome.isResumed = try reader.readBool()
            case "broker": welcome.isBroker = try reader.readBool()
            case "parts": welcome.takesParts = try reader.readBool()
            case "answers": welcome.answeredEpoch = try reader.readUInt64()
            case "callers": welcome.takesCallers = try reader.readBool()
            default: try reader.skip()
            }
        }
        guard hasWorker, welcome.window > 0 else {
            throw WireError(.badPayload, "a welcome needs \"worker\" (16 bytes) and a positive \"window\"")
        }
        self = welcome
    }
}

/// Reads a payload that is a map with text keys, with nothing after it.
package func readPayloadMap(
    _ payload: UnsafeRawBufferPointer,
    of kind: String,
    most: Int = WireLimits.maxMapBytes,
    _ field: (String, inout PackReader) throws(CodecError) -> Void
) throws(WireError) {
    // The size is checked before anything is built from the map.
    guard payload.count <= most else {
        throw WireError(.tooLarge, "the payload of \(kind) has \(payload.count) bytes; \(most) is the limit")
    }
    do throws(CodecError) {
        try unsafe withPackReader(over: payload, limits: .received) { reader throws(CodecError) in
            for _ in 0..<(try reader.readMapHeader()) {
                let key = try reader.readFieldName()
                try field(key, &reader)
            }
            try reader.expectEnd()
        }
    } catch {
        throw WireError(.badPayload, "the payload of \(kind) can't be read: \(error)")
    }
}

extension Hello {
    /// ``silenceMilliseconds`` in nanoseconds.
    package var silenceNanoseconds: UInt64 { nanoseconds(ofMilliseconds: self.silenceMilliseconds) }
}

extension Welcome {
    /// ``silenceMilliseconds`` in nanoseconds.
    package var silenceNanoseconds: UInt64 { nanoseconds(ofMilliseconds: self.silenceMilliseconds) }
}

/// A peer may send any number.
private func nanoseconds(ofMilliseconds milliseconds: Int) -> UInt64 {
    let (nanoseconds, overflow) = UInt64(max(0, milliseconds)).multipliedReportingOverflow(by: 1_000_000)
    return overflow ? .max : nanoseconds
}
