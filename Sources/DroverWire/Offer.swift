// SPDX-License-Identifier: Apache-2.0

package import DroverCodec

/// What a worker that dials a broker can do: the payload of ``MessageKind/offer``.
///
/// Its epoch is the header's id.
package struct Offer: Equatable, Sendable {
    package var worker: PeerID
    /// For people.
    package var name = ""
    /// How many requests run at once.
    package var concurrency = 1
    /// How many handlers are stuck; for people.
    package var stuck = 0
    /// The functions that the worker runs.
    package var functions: [String] = []
    /// The queues that the worker serves; by default the unnamed one.
    package var queues: [String] = [""]
    package var labels: [String: String] = [:]
    /// The worker's total of each resource.
    package var resources: [String: UInt64] = [:]
    /// Whether the worker reports as soon as a closed connection is back: a broker need not wait out its silence.
    package var notices = false

    package init(worker: PeerID) {
        self.worker = worker
    }

    /// Writes the payload.
    package func pack(into writer: inout PackWriter) throws(CodecError) {
        try writer.packMapHeader(9)
        try writer.pack("worker")
        try writer.pack(self.worker.bytes)
        try writer.pack("name")
        try writer.pack(self.name)
        try writer.pack("concurrency")
        try writer.pack(Int64(self.concurrency))
        try writer.pack("stuck")
        try writer.pack(Int64(self.stuck))
        try writer.pack("functions")
        try writer.packArrayHeader(self.functions.count)
        for function in self.functions { try writer.pack(function) }
        try writer.pack("queues")
        try writer.packArrayHeader(self.queues.count)
        for queue in self.queues { try writer.pack(queue) }
        try writer.pack("labels")
        try writer.pack(labels: self.labels)
        try writer.pack("resources")
        try writer.pack(amounts: self.resources)
        try writer.pack("notices")
        try writer.pack(self.notices)
    }

    /// Reads a payload; fields that this version doesn't know are skipped.
    package init(reading payload: UnsafeRawBufferPointer) throws(WireError) {
        var offer = Offer(worker: PeerID(high: 0, low: 0))
        var hasWorker = false
        try unsafe readPayloadMap(payload, of: "offer", most: WireLimits.maxOfferBytes) {
            key,
            reader throws(CodecError) in
            switch key {
            case "worker":
                if let id = try reader.readPeerID() {
                    offer.worker = id
                    hasWorker = true
                }
            case "name": offer.name = try reader.readPeerName()
            case "concurrency": offer.concurrency = max(1, try reader.readCount())
            case "stuck": offer.stuck = max(0, try reader.readCount())
            case "functions":
                offer.functions = try reader.readTerms("a function's name", most: WireLimits.standard.maxFunctions)
            case "queues": offer.queues = try reader.readTerms("a queue's name", most: WireLimits.maxTerms)
            case "labels": offer.labels = try reader.readLabels()
            case "resources": offer.resources = try reader.readAmounts()
            case "notices": offer.notices = try reader.readBool()
            default: try reader.skip()
            }
        }
        guard hasWorker else {
            throw WireError(.badPayload, "an offer needs \"worker\": 16 bytes that name the worker")
        }
        self = offer
    }
}
