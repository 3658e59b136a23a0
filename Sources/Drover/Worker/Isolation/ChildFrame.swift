// SPDX-License-Identifier: Apache-2.0

internal import DroverZMQ

/// What goes between a worker and its child: a head of twelve bytes, and a payload.
///
/// Both are the same program on the same machine, so there are neither versions nor byte orders.
struct ChildFrame {
    enum Kind: UInt32 {
        /// To the child: the worker's name.
        case begin = 1
        /// From the child: it serves.
        case ready
        /// To the child: a function's number and its arguments.
        case call
        /// From the child: the encoded result.
        case value
        /// From the child: the encoded error.
        case error
    }

    let kind: Kind
    /// The function's place among the isolated ones, by name.
    var function: UInt32 = 0
    let payloadCount: Int

    private static let byteCount = 12

    init(_ kind: Kind, function: Int = 0, payloadCount: Int = 0) {
        self.kind = kind
        self.function = UInt32(function)
        self.payloadCount = payloadCount
    }

    /// Reads a head.
    ///
    /// - Throws: What the link throws; `ended` for what no worker nor child of ours writes.
    @available(*, noasync)
    init(from link: ByteLink, until waker: Waker?, deadline: UInt64 = MonotonicClock.never) throws(ByteLink.Failure) {
        let (kind, function, count) = try Self.readWords(from: link, waker, deadline)
        guard let kind = Kind(rawValue: kind) else { throw .ended }
        self.kind = kind
        self.function = function
        self.payloadCount = Int(count)
    }

    private static func readWords(
        from link: ByteLink,
        _ waker: Waker?,
        _ deadline: UInt64
    ) throws(ByteLink.Failure) -> (UInt32, UInt32, UInt32) {
        var words: (UInt32, UInt32, UInt32) = (0, 0, 0)
        try unsafe withUnsafeMutableBytes(of: &words) { bytes throws(ByteLink.Failure) in
            try unsafe link.read(into: bytes, until: waker, deadline: deadline)
        }
        return words
    }

    /// Writes the frame.
    @available(*, noasync)
    func write(to link: ByteLink, _ payload: UnsafeRawBufferPointer, until waker: Waker?) throws(ByteLink.Failure) {
        let words = (self.kind.rawValue, self.function, UInt32(payload.count))
        try unsafe withUnsafeBytes(of: words) { bytes throws(ByteLink.Failure) in
            try unsafe link.write(bytes, until: waker)
        }
        try unsafe link.write(payload, until: waker)
    }

    /// Reads the payload into an array.
    ///
    /// - Parameters:
    ///   - link: Where from.
    ///   - waker: Ends the wait when it is woken.
    ///   - limit: How many bytes it may have: they are set aside before the first one comes.
    /// - Returns: The bytes.
    /// - Throws: What the link throws; `tooLong` beyond the limit.
    @available(*, noasync)
    func readPayload(
        from link: ByteLink,
        until waker: Waker?,
        limit: Int = .max
    ) throws(ByteLink.Failure) -> [UInt8] {
        guard self.payloadCount <= limit else { throw .tooLong(byteCount: self.payloadCount) }
        var bytes = [UInt8](repeating: 0, count: self.payloadCount)
        try unsafe bytes.withUnsafeMutableBufferPointer { buffer throws(ByteLink.Failure) in
            try unsafe link.read(into: UnsafeMutableRawBufferPointer(buffer), until: waker)
        }
        return bytes
    }
}
