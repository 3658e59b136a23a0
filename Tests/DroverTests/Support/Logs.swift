// SPDX-License-Identifier: Apache-2.0

import Glibc
import Logging

extension Logger {
    /// Says nothing.
    static var quiet: Logger { Logger(label: "quiet") { _ in SwiftLogNoOpLogHandler() } }

    /// Hands every line to `body`, on the thread that logs.
    static func calling(_ body: @escaping @Sendable (Logger.Level, String) -> Void) -> Logger {
        Logger(label: "recorded") { _ in RecordingLogHandler(body: body) }
    }
}

private struct RecordingLogHandler: LogHandler {
    let body: @Sendable (Logger.Level, String) -> Void
    var logLevel = Logger.Level.trace
    var metadata: Logger.Metadata = [:]

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { self.metadata[key] }
        set { self.metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let details = (event.metadata ?? [:]).sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
        self.body(event.level, "\(event.message) \(details.joined(separator: " "))")
    }
}
