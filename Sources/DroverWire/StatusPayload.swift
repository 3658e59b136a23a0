// SPDX-License-Identifier: Apache-2.0

public import DroverCodec

/// How loaded a worker is: the payload of its answer to a ping (contract S92).
public struct WorkerStatus: Hashable, Codable, Sendable {
    /// The worker's name.
    public var worker = ""
    /// Handlers that are running.
    public var running = 0
    /// Requests that wait.
    public var queued = 0
    /// How many handlers may run at once.
    public var concurrency = 0
    /// Clients with a session.
    public var clients = 0
    /// Requests that arrived.
    public var received = 0
    /// Requests that were answered, with a value or an error.
    public var completed = 0
    /// Requests answered with an error.
    public var failed = 0
    /// Requests that were dropped before they started, because no client wanted them any more.
    public var dropped = 0
    /// Handlers that are still running after their hard time limits, and keep their slots.
    public var stuck = 0
    /// How often the requests of a client had to wait because it had left too much unread; from a broker, how many
    /// clients' requests have to wait.
    public var heldUp = 0
    /// Parts of large messages that arrived and were not wanted.
    public var partsRefused = 0
    /// Large messages that were announced with more bytes than the worker accepts.
    public var oversizedMessages = 0
    /// Large messages whose transfer in parts was cut short by the end of the connection or by the receiver.
    public var abandonedMessages = 0
    /// Reports that unknown callbacks had ended or were to pause, forgotten because there were too many.
    public var forgottenNews = 0
    /// Large answers that were discarded although their clients may not have read them.
    public var forgottenAnswers = 0
    /// How many workers a broker has; nil from a worker.
    public var workers: Int?
    /// Whether the worker takes no new requests.
    public var isDraining = false

    /// Creates the status of an idle worker.
    public init() {}
}

extension WorkerStatus: WireCodable {
    /// Writes the status as a map.
    ///
    /// - Parameter writer: Where to.
    /// - Throws: An error of encoding.
    public func pack(into writer: inout PackWriter) throws(CodecError) {
        var counts: [(String, Int)] = [
            ("running", self.running), ("queued", self.queued), ("concurrency", self.concurrency),
            ("clients", self.clients), ("received", self.received), ("completed", self.completed),
            ("failed", self.failed), ("dropped", self.dropped),
            ("stuck", self.stuck), ("heldUp", self.heldUp), ("partsRefused", self.partsRefused),
            ("oversized", self.oversizedMessages), ("abandoned", self.abandonedMessages),
            ("forgottenNews", self.forgottenNews), ("forgottenAnswers", self.forgottenAnswers),
        ]
        if let workers = self.workers { counts.append(("workers", workers)) }
        try writer.packMapHeader(counts.count + 2)
        try writer.pack("worker")
        try writer.pack(self.worker)
        for (name, count) in counts {
            try writer.pack(name)
            try writer.pack(Int64(count))
        }
        try writer.pack("draining")
        try writer.pack(self.isDraining)
    }

    /// Reads a status; fields that this version doesn't know are skipped.
    ///
    /// - Parameter reader: Where from.
    /// - Returns: The status.
    /// - Throws: An error of decoding.
    public static func unpack(from reader: inout PackReader) throws(CodecError) -> WorkerStatus {
        var status = WorkerStatus()
        for _ in 0..<(try reader.readMapHeader()) {
            switch try reader.readFieldName() {
            case "worker": status.worker = try reader.readPeerName()
            case "running": status.running = try reader.readCount()
            case "queued": status.queued = try reader.readCount()
            case "concurrency": status.concurrency = try reader.readCount()
            case "clients": status.clients = try reader.readCount()
            case "received": status.received = try reader.readCount()
            case "completed": status.completed = try reader.readCount()
            case "failed": status.failed = try reader.readCount()
            case "dropped": status.dropped = try reader.readCount()
            case "stuck": status.stuck = try reader.readCount()
            case "heldUp": status.heldUp = try reader.readCount()
            case "partsRefused": status.partsRefused = try reader.readCount()
            case "oversized": status.oversizedMessages = try reader.readCount()
            case "abandoned": status.abandonedMessages = try reader.readCount()
            case "forgottenNews": status.forgottenNews = try reader.readCount()
            case "forgottenAnswers": status.forgottenAnswers = try reader.readCount()
            case "workers": status.workers = try reader.readCount()
            case "draining": status.isDraining = try reader.readBool()
            default: try reader.skip()
            }
        }
        return status
    }
}
