// SPDX-License-Identifier: Apache-2.0

import DroverCodec
import DroverWire

/// libFuzzer's entry: walks the bytes as a frame and decodes each payload as every map there is.
///
/// The first byte says how much of the end is an attached frame.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzWire(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    guard let start = unsafe start, count > 0 else { return 0 }
    let input = unsafe UnsafeRawBufferPointer(start: start, count: count)
    let attachedCount = unsafe Int(input[0])
    let bytes = unsafe UnsafeRawBufferPointer(rebasing: input[1...])
    if attachedCount > 0, attachedCount <= bytes.count {
        let split = bytes.count - attachedCount
        unsafe walk(
            UnsafeRawBufferPointer(rebasing: bytes[..<split]),
            attached: UnsafeRawBufferPointer(rebasing: bytes[split...])
        )
    } else {
        unsafe walk(bytes, attached: nil)
    }
    unsafe decode(bytes)
    return 0
}

private func walk(_ frame: UnsafeRawBufferPointer, attached: UnsafeRawBufferPointer?) {
    var reader = unsafe FrameReader(frame, attachedByteCount: attached?.count)
    var used = 0
    do throws(WireError) {
        while let part = try reader.next() {
            // What a receiver relies on: payloads lie inside the frame, in order, and are as long as announced.
            precondition(part.payload.lowerBound >= used + Header.byteCount)
            precondition(part.payload.upperBound <= frame.count)
            used = part.payload.upperBound
            if part.isAttached, let attached = unsafe attached {
                precondition(Int(part.header.payloadLength) == attached.count)
                unsafe decode(attached)
            } else {
                precondition(part.payload.count == Int(part.header.payloadLength))
                unsafe decode(UnsafeRawBufferPointer(rebasing: frame[part.payload]))
            }
        }
        precondition(used == frame.count)
    } catch {
        precondition(!error.message.isEmpty)
    }
}

/// Decodes a payload as each map; what can be read must come back the same when it is written again.
private func decode(_ payload: UnsafeRawBufferPointer) {
    if let hello = try? unsafe Hello(reading: payload) {
        unsafe rewrite(hello.pack) { bytes in precondition((try? unsafe Hello(reading: bytes)) == hello) }
    }
    if let welcome = try? unsafe Welcome(reading: payload) {
        unsafe rewrite(welcome.pack) { bytes in precondition((try? unsafe Welcome(reading: bytes)) == welcome) }
    }
    if let error = try? unsafe ErrorPayload(reading: payload) {
        unsafe rewrite(error.pack) { bytes in precondition((try? unsafe ErrorPayload(reading: bytes)) == error) }
    }
    if let found = try? unsafe status(payload) {
        unsafe rewrite(found.pack) { bytes in precondition((try? unsafe status(bytes)) == found) }
    }
}

private func status(_ payload: UnsafeRawBufferPointer) throws(CodecError) -> WorkerStatus {
    try unsafe withPackReader(over: payload) { reader throws(CodecError) in
        try WorkerStatus.unpack(from: &reader)
    }
}

private func rewrite(
    _ pack: (inout PackWriter) throws(CodecError) -> Void,
    _ check: (UnsafeRawBufferPointer) -> Void
) {
    var writer = PackWriter(capacity: 256)
    guard (try? pack(&writer)) != nil else { preconditionFailure("what was read can't be written") }
    unsafe writer.withBytes { bytes in unsafe check(bytes) }
}
