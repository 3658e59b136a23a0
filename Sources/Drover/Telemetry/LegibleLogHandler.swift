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
        event.metadata = event.metadata?.mapValues(Self.legible)
        self.inner.log(event: event)
    }

    private static func legible(_ value: Logger.MetadataValue) -> Logger.MetadataValue {
        switch value {
        case .string(let text): .string(PeerText.legible(text))
        case .stringConvertible(let value): .string(PeerText.legible("\(value)"))
        case .array(let values): .array(values.map(self.legible))
        case .dictionary(let values): .dictionary(values.mapValues(self.legible))
        }
    }
}
