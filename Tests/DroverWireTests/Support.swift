// SPDX-License-Identifier: Apache-2.0

import DroverCodec
import DroverWire

/// The bytes of a payload that `pack` writes.
func payload(_ pack: (inout PackWriter) throws(CodecError) -> Void) throws -> [UInt8] {
    var writer = PackWriter(capacity: 64)
    try pack(&writer)
    return unsafe writer.withBytes { unsafe [UInt8]($0) }
}

/// A message as it goes over the wire.
func message(_ header: Header, _ payload: [UInt8] = []) -> [UInt8] {
    var header = header
    header.payloadLength = UInt32(payload.count)
    var bytes = [UInt8](repeating: 0, count: Header.byteCount)
    unsafe bytes.withUnsafeMutableBytes { buffer in
        if let base = buffer.baseAddress { unsafe header.write(to: base) }
    }
    return bytes + payload
}

/// A message that was read, with its payload.
struct ReadMessage: Equatable {
    var header: Header
    var payload: [UInt8]
}

/// The messages of a frame, up to its end or the first error.
func read(
    _ frame: [UInt8],
    attached: [UInt8]? = nil,
    limits: WireLimits = .standard
) -> (messages: [ReadMessage], error: WireError?, lastHeader: Header?) {
    unsafe frame.withUnsafeBytes { bytes in
        var reader = unsafe FrameReader(bytes, attachedByteCount: attached?.count, limits: limits)
        var messages: [ReadMessage] = []
        do throws(WireError) {
            while let part = try reader.next() {
                let payload = part.isAttached ? attached ?? [] : [UInt8](frame[part.payload])
                messages.append(ReadMessage(header: part.header, payload: payload))
            }
            return (messages, nil, reader.lastHeader)
        } catch {
            return (messages, error, reader.lastHeader)
        }
    }
}

func readHello(_ bytes: [UInt8]) throws -> Hello {
    try unsafe bytes.withUnsafeBytes { bytes in try unsafe Hello(reading: bytes) }
}

func readWelcome(_ bytes: [UInt8]) throws -> Welcome {
    try unsafe bytes.withUnsafeBytes { bytes in try unsafe Welcome(reading: bytes) }
}

func readError(_ bytes: [UInt8]) throws -> ErrorPayload {
    try unsafe bytes.withUnsafeBytes { bytes in try unsafe ErrorPayload(reading: bytes) }
}

func readStatus(_ bytes: [UInt8]) throws -> WorkerStatus {
    try withPackReader(over: bytes) { reader throws(CodecError) in try WorkerStatus.unpack(from: &reader) }
}

extension Hello {
    static let sample = Hello(
        client: PeerID(high: 0x1011_1213_1415_1617, low: 0x1819_1A1B_1C1D_1E1F),
        name: "demo",
        beatMilliseconds: 2000,
        maxPayloadBytes: 64 << 20
    )
}

extension Welcome {
    static let sample = Welcome(
        worker: PeerID(high: 0xA0A1_A2A3_A4A5_A6A7, low: 0xA8A9_AAAB_ACAD_AEAF),
        name: "w1",
        window: 1024,
        beatMilliseconds: 2000,
        silenceMilliseconds: 6000,
        maxPayloadBytes: 64 << 20,
        concurrency: 4,
        isResumed: false
    )
}

extension ErrorPayload {
    static var sample: ErrorPayload {
        var error = ErrorPayload()
        error.code = "failed"
        error.type = "E"
        error.message = "boom"
        error.trace = "echo on w1"
        error.worker = "w1"
        return error
    }
}

extension [UInt8] {
    /// Each copy of the bytes that differs in one bit.
    var withOneBitFlipped: some Sequence<[UInt8]> {
        (0..<self.count * 8).lazy
            .map { bit in
                var copy = self
                copy[bit / 8] ^= 1 << (bit % 8)
                return copy
            }
    }

    /// Each beginning of the bytes, the whole left out.
    var truncations: some Sequence<[UInt8]> { (0..<self.count).lazy.map { [UInt8](self[..<$0]) } }
}
