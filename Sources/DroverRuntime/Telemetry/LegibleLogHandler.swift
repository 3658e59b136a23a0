// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
package import Logging

extension Logger {
    /// The same logger, whose lines hold no text of a peer as the peer wrote it.
    ///
    /// Set once where a configuration is taken, so that no line can be written past it.
    package var legible: Logger {
        guard !(self.handler is LegibleLogHandler) else { return self }
        var logger = self
        logger.handler = LegibleLogHandler(inner: self.handler)
        return logger
    }
}

/// Writes what the values of a line's metadata have that doesn't print as an escape, and cuts what is long.
private struct LegibleLogHandler: LogHandler {
    var inner: any LogHandler

    var logLevel: Logger.Level {
        get { self.inner.logLevel }
        set { self.inner.logLevel = newValue }
    }

    var metadata: Logger.Metadata {
        get { self.inner.metadata }
        set { self.inner.metadata = newValue }
    }

    var metadataProvider: Logger.MetadataProvider? {
        get { self.inner.metadataProvider }
        set { self.inner.metadataProvider = newValue }
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { self.inner[metadataKey: key] }
        set { self.inner[metadataKey: key] = newValue }
    }

    func log(event: LogEvent) {
        var event = event
        var room = Self.lineBytes
        // In the order of their names, so that it doesn't depend on chance what a long line leaves out.
        event.metadata = event.metadata.map { metadata in
            var legible: Logger.Metadata = [:]
            for (name, value) in metadata.sorted(by: { $0.key < $1.key }) {
                legible[name] = Self.legible(value, &room)
            }
            return legible
        }
        self.inner.log(event: event)
    }

    /// The values of a line have so many bytes at most, together.
    private static let lineBytes = 8 << 10

    private static func legible(_ value: Logger.MetadataValue, _ room: inout Int) -> Logger.MetadataValue {
        switch value {
        case .string(let text): return .string(self.legible(text, &room))
        case .stringConvertible(let value): return .string(self.legible("\(value)", &room))
        case .array(let values):
            var legible: [Logger.MetadataValue] = []
            for value in values where room > 0 { legible.append(self.legible(value, &room)) }
            return .array(legible)
        case .dictionary(let values):
            var legible: Logger.Metadata = [:]
            for (name, value) in values.sorted(by: { $0.key < $1.key }) where room > 0 {
                legible[self.legible(name, &room)] = self.legible(value, &room)
            }
            return .dictionary(legible)
        }
    }

    private static func legible(_ text: String, _ room: inout Int) -> String {
        let shown = PeerText.legible(text, maxBytes: min(PeerText.maxBytes, max(0, room)))
        // Beside the text itself some bytes for what a formatter puts around it.
        room -= shown.utf8.count + 8
        return shown
    }
}
