// SPDX-License-Identifier: Apache-2.0

package import DroverCodec

/// The metadata map before a request's arguments.
///
/// Workers read only the ordering key; the rest is for a broker that the request goes through.
package struct RequestMetadata: Equatable, Sendable {
    /// Requests of one key run one at a time, in order.
    package var orderingKey: String?
    /// Whose ordering key it is, according to a broker with keys.
    ///
    /// Equal keys of different scopes are unrelated. From a client, the scope means nothing.
    package var scope = ""
    /// The queue; only workers that serve it get the request.
    package var queue = ""
    /// The priority, 0 to 7; higher goes first.
    package var priority = RequestMetadata.standardPriority
    /// The labels; the worker must have all of them.
    package var labels: [String: String] = [:]
    /// What the request occupies of a worker's resources while it runs.
    package var resources: [String: UInt64] = [:]
    /// In how many deaths of workers the request may have been running, as part of a chunk; at most 255.
    package var deaths: UInt64 = 0

    @inlinable package static var standardPriority: UInt8 { 4 }
    @inlinable package static var highestPriority: UInt8 { 7 }

    package init() {}

    /// Whether the metadata is empty.
    package var isEmpty: Bool { self.fieldCount == 0 }

    private var fieldCount: Int {
        (self.orderingKey == nil ? 0 : 1) + (self.scope.isEmpty ? 0 : 1) + (self.queue.isEmpty ? 0 : 1)
            + (self.priority == Self.standardPriority ? 0 : 1) + (self.labels.isEmpty ? 0 : 1)
            + (self.resources.isEmpty ? 0 : 1) + (self.deaths == 0 ? 0 : 1)
    }

    /// Writes the map; fields with their default values are left out.
    package func pack(into writer: inout PackWriter) throws(CodecError) {
        try writer.packMapHeader(self.fieldCount)
        if let orderingKey {
            try writer.pack("key")
            try writer.pack(orderingKey)
        }
        if !self.scope.isEmpty {
            try writer.pack("scope")
            try writer.pack(self.scope)
        }
        if !self.queue.isEmpty {
            try writer.pack("queue")
            try writer.pack(self.queue)
        }
        if self.priority != Self.standardPriority {
            try writer.pack("priority")
            try writer.pack(UInt64(self.priority))
        }
        if !self.labels.isEmpty {
            try writer.pack("labels")
            try writer.pack(labels: self.labels)
        }
        if !self.resources.isEmpty {
            try writer.pack("resources")
            try writer.pack(amounts: self.resources)
        }
        if self.deaths > 0 {
            try writer.pack("deaths")
            try writer.pack(self.deaths)
        }
    }

    /// Reads the map at the beginning of a payload; fields that this version doesn't know are skipped.
    ///
    /// - Returns: The metadata, and how many bytes it takes.
    package static func read(
        from payload: UnsafeRawBufferPointer
    ) throws(WireError) -> (metadata: RequestMetadata, byteCount: Int) {
        // No more bytes than the map may have are looked at, which bounds the cost of reading it, whatever they are.
        let start = unsafe UnsafeRawBufferPointer(rebasing: payload.prefix(WireLimits.maxMetadataBytes))
        do throws(CodecError) {
            return try unsafe withPackReader(over: start, limits: .received) {
                reader throws(CodecError) -> (RequestMetadata, Int) in
                var metadata = RequestMetadata()
                for _ in 0..<(try reader.readMapHeader()) {
                    switch try reader.readFieldName() {
                    case "key":
                        metadata.orderingKey = try reader.readTerm("the ordering key", most: WireLimits.maxKeyBytes)
                    case "scope": metadata.scope = try reader.readTerm("the ordering key's scope")
                    case "queue": metadata.queue = try reader.readTerm("the queue's name")
                    case "priority":
                        metadata.priority = UInt8(min(UInt64(Self.highestPriority), try reader.readUInt64()))
                    case "labels": metadata.labels = try reader.readLabels()
                    case "resources": metadata.resources = try reader.readAmounts()
                    case "deaths": metadata.deaths = min(255, try reader.readUInt64())
                    default: try reader.skip()
                    }
                }
                return (metadata, reader.offset)
            }
        } catch {
            let isCut = start.count < payload.count
            guard isCut, error.code == .truncated else {
                throw WireError(.badPayload, "the request's metadata can't be read: \(error)")
            }
            throw WireError(
                .tooLarge,
                "the request's metadata, ordering key, queue, labels and resources, takes more than "
                    + "\(WireLimits.maxMetadataBytes) bytes: name fewer"
            )
        }
    }
}

extension PackWriter {
    /// Writes labels, in the order of their names.
    mutating func pack(labels: [String: String]) throws(CodecError) {
        try self.packMapHeader(labels.count)
        for (name, value) in labels.sorted(by: { $0.key < $1.key }) {
            try self.pack(name)
            try self.pack(value)
        }
    }

    /// Writes amounts of resources, in the order of their names.
    mutating func pack(amounts: [String: UInt64]) throws(CodecError) {
        try self.packMapHeader(amounts.count)
        for (name, amount) in amounts.sorted(by: { $0.key < $1.key }) {
            try self.pack(name)
            try self.pack(amount)
        }
    }
}

extension PackReader {
    /// Reads a text that a table will hold; one that is too long isn't built.
    mutating func readTerm(_ what: String, most: Int = WireLimits.maxTermBytes) throws(CodecError) -> String {
        let count = try self.textByteCount()
        if count > most { throw CodecError(.tooLarge, message: "\(what) has \(count) bytes; \(most) is the limit") }
        return try self.readString()
    }

    /// Reads the name of a field; one that is too long to be known isn't built, and counts as "".
    mutating func readFieldName() throws(CodecError) -> String {
        guard try self.textByteCount() > WireLimits.maxFieldNameBytes else { return try self.readString() }
        try self.skip()
        return ""
    }

    /// Reads sixteen bytes that name a peer; nil if there are more or fewer, which aren't copied.
    package mutating func readPeerID() throws(CodecError) -> PeerID? {
        try unsafe self.readBinarySlice { bytes in
            unsafe bytes.count == PeerID.byteCount ? PeerID(bytes: [UInt8](bytes)) : nil
        }
    }

    /// Reads a peer's name for people; a long name is cut off.
    package mutating func readPeerName() throws(CodecError) -> String {
        try self.readString(cutAt: WireLimits.maxTermBytes)
    }

    /// Reads names that a table will hold.
    mutating func readTerms(_ what: String, most: Int) throws(CodecError) -> [String] {
        let count = try self.readTermCount(try self.readArrayHeader(), what, most: most)
        var terms: [String] = []
        for _ in 0..<count { terms.append(try self.readTerm(what)) }
        return terms
    }

    private func readTermCount(
        _ count: Int,
        _ what: String,
        most: Int = WireLimits.maxTerms
    ) throws(CodecError) -> Int {
        if count > most { throw CodecError(.tooLarge, message: "\(count) times \(what); \(most) is the limit") }
        return count
    }

    mutating func readLabels() throws(CodecError) -> [String: String] {
        var labels: [String: String] = [:]
        for _ in 0..<(try self.readTermCount(try self.readMapHeader(), "a label")) {
            let name = try self.readTerm("a label's name")
            labels[name] = try self.readTerm("a label's value")
        }
        return labels
    }

    mutating func readAmounts() throws(CodecError) -> [String: UInt64] {
        var amounts: [String: UInt64] = [:]
        for _ in 0..<(try self.readTermCount(try self.readMapHeader(), "a resource")) {
            let name = try self.readTerm("a resource's name")
            amounts[name] = try self.readUInt64()
        }
        return amounts
    }
}
