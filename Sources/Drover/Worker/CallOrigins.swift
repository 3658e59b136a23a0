// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import Logging

/// What their clients call the requests that came through a broker and take long: the log names them as client and broker do.
///
/// By slot, for there are no more of them than slots. Slots and ids are used again, by other brokers too: an entry is the request's that
/// came at the same moment.
struct CallOrigins {
    private struct Entry {
        let brokersID: UInt64
        let receivedAt: Instant
        let origin: OriginPayload
    }

    private var entries: [UInt32: Entry] = [:]

    /// A broker says what the request in a slot is called.
    mutating func note(_ origin: OriginPayload, of id: UInt64, in slot: UInt32, receivedAt: Instant) {
        self.entries[slot] = Entry(brokersID: id, receivedAt: receivedAt, origin: origin)
    }

    /// What a log line says of the request in a slot.
    func metadata(
        of id: UInt64,
        in slot: UInt32,
        receivedAt: Instant,
        _ more: Logger.Metadata
    ) -> Logger.Metadata {
        var metadata = more
        if let entry = self.entries[slot], entry.brokersID == id, entry.receivedAt == receivedAt {
            metadata[LogKeys.correlationID] = "\(CorrelationID(entry.origin.id))"
            metadata[LogKeys.client] = "\(entry.origin.client)"
            metadata[LogKeys.brokersID] = "\(CorrelationID(id))"
        } else {
            metadata[LogKeys.correlationID] = "\(CorrelationID(id))"
        }
        return metadata
    }
}
