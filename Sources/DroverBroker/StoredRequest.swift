// SPDX-License-Identifier: Apache-2.0

internal import DroverWire
internal import DroverZMQ
internal import Glibc

/// A request as its client sent it, kept until it is answered because it may have to be sent again.
///
/// Small requests are copied into a block of their own, large ones stay in the frame they arrived in. The code that
/// takes a request out of the table frees it, once.
@safe
enum StoredRequest {
    /// Header and payload.
    case small(UnsafeMutableRawPointer, count: Int)
    case large(LargePayload)

    init?(_ header: Header, payload: UnsafeRawBufferPointer) {
        let count = Header.byteCount + payload.count
        guard let block = unsafe malloc(count) else { return nil }
        unsafe header.write(to: block)
        if let base = payload.baseAddress {
            unsafe (block + Header.byteCount).copyMemory(from: base, byteCount: payload.count)
        }
        self = unsafe .small(block, count: count)
    }

    var payloadCount: Int {
        switch self {
        case .small(_, let count): count - Header.byteCount
        case .large(let payload): payload.range.count
        }
    }

    /// Whether there may be events for its caller, which its answer must not overtake.
    var hasCallbacks: Bool {
        switch self {
        case .small(let block, let count):
            let header = unsafe try? Header(reading: UnsafeRawBufferPointer(start: block, count: count))
            return header?.flags.contains(.callbacks) == true
        case .large(let payload): return payload.header.flags.contains(.callbacks)
        }
    }

    func free() {
        if case .small(let block, _) = self { unsafe Glibc.free(block) }
    }
}

/// A payload that is sent on from the frame it arrived in.
final class LargePayload {
    let header: Header
    let box: MessageBox
    let range: Range<Int>

    init(_ header: Header, in box: MessageBox, at range: Range<Int>) {
        self.header = header
        self.box = box
        self.range = range
    }
}

/// Keeps a frame alive while a message is sent from within it.
extension MessageBox {
    /// A message holding a part of the frame, without a copy.
    func part(_ range: Range<Int>) -> Message {
        unsafe self.withUnsafeBytes { bytes in
            guard let base = bytes.baseAddress, !range.isEmpty else { return Message() }
            // libzmq only reads what it sends.
            let start = unsafe UnsafeMutableRawPointer(mutating: base + range.lowerBound)
            return unsafe Message(adopting: start, count: range.count, owner: self)
        }
    }
}
