// SPDX-License-Identifier: Apache-2.0

package import DroverCodec

/// An error as it travels: the payload of ``MessageKind/error`` and ``MessageKind/refused``.
package struct ErrorPayload: Equatable, Sendable {
    /// The code's name; see `docs/protocol.md`, section 9.
    package var code = ""
    /// The error's type where it was thrown.
    package var type = ""
    package var message = ""
    /// The path that the error took, one line per hop.
    package var trace = ""
    package var isRetryable = false
    /// The name of the worker that answers.
    package var worker = ""
    /// With `busy`: when to try again, in milliseconds; 0 if it isn't stated.
    package var retryAfterMilliseconds: UInt32 = 0
    /// With `poison`: in how many deaths of workers the call may have been running.
    package var attempts: UInt32 = 0
    /// With `poison`: the names of those workers.
    package var workers: [String] = []
    /// The error itself in MessagePack, if it can be encoded.
    package var details: [UInt8]?
    /// Whether the handler ran: 0 no, 1 perhaps, 2 yes; nil if the code says so already.
    package var ran: UInt8?

    package init() {}

    /// Bounds an error's size, whatever its texts are.
    package static var maxTextBytes: Int { 64 << 10 }

    /// A text as it is sent and kept: anything beyond 64 KiB is cut off, and the cut is marked.
    ///
    /// `slack` is how many more bytes are kept as they are: the mark of a sender that has cut the text.
    private static func cut(_ text: String, slack: Int = 0) -> String {
        let count = text.utf8.count
        guard count > Self.maxTextBytes + slack else { return text }
        // A character that is cut in two is dropped whole.
        var kept = text.utf8.prefix(Self.maxTextBytes)
        while let byte = text.utf8[kept.endIndex...].first, byte & 0xC0 == 0x80 { kept = kept.dropLast() }
        return "\(String(decoding: kept, as: UTF8.self))… (\(count - kept.count) bytes more)"
    }

    /// Writes the payload.
    package func pack(into writer: inout PackWriter) throws(CodecError) {
        let fieldCount =
            6 + (self.details == nil ? 0 : 1) + (self.retryAfterMilliseconds == 0 ? 0 : 1)
            + (self.attempts == 0 ? 0 : 2) + (self.ran == nil ? 0 : 1)
        try writer.packMapHeader(fieldCount)
        try writer.pack("code")
        try writer.pack(self.code)
        try writer.pack("type")
        try writer.pack(Self.cut(self.type))
        try writer.pack("message")
        try writer.pack(Self.cut(self.message))
        try writer.pack("trace")
        try writer.pack(Self.cut(self.trace))
        try writer.pack("retryable")
        try writer.pack(self.isRetryable)
        try writer.pack("worker")
        try writer.pack(self.worker)
        if self.retryAfterMilliseconds > 0 {
            try writer.pack("retryAfter")
            try writer.pack(UInt64(self.retryAfterMilliseconds))
        }
        if self.attempts > 0 {
            try writer.pack("attempts")
            try writer.pack(UInt64(self.attempts))
            try writer.pack("workers")
            try writer.packArrayHeader(self.workers.count)
            for worker in self.workers { try writer.pack(worker) }
        }
        if let ran {
            try writer.pack("ran")
            try writer.pack(UInt64(ran))
        }
        if let details {
            try writer.pack("details")
            try writer.pack(details)
        }
    }

    /// At most this many names of workers are read; ``attempts`` says how many there were.
    private static var mostWorkers: Int { 255 }

    /// Reads only an error's code; nil if it can't be read.
    package static func code(in payload: UnsafeRawBufferPointer) -> String? {
        try? unsafe withPackReader(over: payload, limits: .received) { reader throws(CodecError) -> String? in
            for _ in 0..<(try reader.readMapHeader()) {
                if try reader.readFieldName() == "code" { return try reader.readPeerName() }
                try reader.skip()
            }
            return nil
        }
    }

    /// Reads a payload; fields that this version doesn't know are skipped.
    ///
    /// - Parameters:
    ///   - payload: The payload's bytes.
    ///   - most: How many bytes there may be; an error that a handler threw may have as many as any answer.
    /// - Throws: `WireError` if the bytes can't be read, or there are more than `most`.
    package init(reading payload: UnsafeRawBufferPointer, most: Int = .max) throws(WireError) {
        var read = ErrorPayload()
        try unsafe readPayloadMap(payload, of: "error", most: most) { key, reader throws(CodecError) in
            switch key {
            case "code": read.code = try reader.readPeerName()
            case "type": read.type = Self.cut(try reader.readString(), slack: 64)
            case "message": read.message = Self.cut(try reader.readString(), slack: 64)
            case "trace": read.trace = Self.cut(try reader.readString(), slack: 64)
            case "retryable": read.isRetryable = try reader.readBool()
            case "worker": read.worker = try reader.readPeerName()
            case "retryAfter": read.retryAfterMilliseconds = UInt32(clamping: try reader.readUInt64())
            case "attempts": read.attempts = UInt32(clamping: try reader.readUInt64())
            case "workers":
                for _ in 0..<(try reader.readArrayHeader()) {
                    let name = try reader.readPeerName()
                    if read.workers.count < Self.mostWorkers { read.workers.append(name) }
                }
            case "ran": read.ran = UInt8(clamping: try reader.readUInt64())
            case "details": read.details = try reader.readBytes()
            default: try reader.skip()
            }
        }
        self = read
    }

    /// The error shortened for a peer that accepts no more than this many bytes: without details, with long texts cut.
    ///
    /// It fits into any limit of 1 KiB or more.
    package func shortened(toFit limit: Int) -> ErrorPayload {
        let most = max(0, min(16_384, limit))
        var short = self
        short.code = self.code.cut(to: most / 16)
        short.type = self.type.cut(to: most / 8)
        short.worker = self.worker.cut(to: most / 8)
        short.trace = self.trace.cut(to: most / 8)
        short.workers = []
        short.details = nil
        let message = self.message.cut(to: most / 4)
        let left = self.message.utf8.count - message.utf8.count
        short.message = left > 0 ? "\(message)… (\(left) bytes more)" : message
        return short
    }
}

extension String {
    /// As much of the text as fits into this many bytes of UTF-8.
    fileprivate func cut(to limit: Int) -> String {
        guard self.utf8.count > limit else { return self }
        var end = self.utf8.index(self.startIndex, offsetBy: limit)
        while end.samePosition(in: self.unicodeScalars) == nil { end = self.utf8.index(before: end) }
        return String(self.unicodeScalars[..<end])
    }
}
