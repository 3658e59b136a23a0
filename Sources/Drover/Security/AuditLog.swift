// SPDX-License-Identifier: Apache-2.0

internal import DroverZMQ
package import Logging
internal import Synchronization

/// Writes down who was refused, and who did what concerns everybody.
///
/// At most so many lines a second that nobody can fill a disk by being refused; what is left out is counted.
package final class AuditLog: Sendable {
    /// Who did something.
    package struct Actor: Sendable {
        package var principal: String
        package var key: String
        package var address: String

        package init(principal: String, key: String, address: String) {
            self.principal = principal
            self.key = key
            self.address = address
        }
    }

    private struct Pace {
        var tokens = AuditLog.burst
        var refilledAt: UInt64 = 0
        var leftOut = 0
    }

    /// So many lines may come at once.
    package static let burst = 50.0
    /// So many lines a second may follow.
    private static let perSecond = 10.0

    private let logger: Logger
    private let pace = Mutex(Pace())

    package init(logger: Logger) { self.logger = logger }

    /// Somebody wanted something and didn't get it.
    package func refused(_ actor: Actor, _ action: String, because reason: String) {
        self.write(.warning, "refused", actor, ["drover.action": "\(action)", "drover.reason": "\(reason)"])
    }

    /// Somebody did what only few may.
    package func done(_ actor: Actor, _ action: String) {
        self.write(.notice, "an administrator's request", actor, ["drover.action": "\(action)"])
    }

    private func write(_ level: Logger.Level, _ message: Logger.Message, _ actor: Actor, _ more: Logger.Metadata) {
        let leftOut: Int? = self.pace.withLock { pace in
            let now = MonotonicClock.now()
            let seconds = Double(now - min(now, pace.refilledAt)) / 1e9
            pace.tokens = min(Self.burst, pace.tokens + seconds * Self.perSecond)
            pace.refilledAt = now
            guard pace.tokens >= 1 else {
                pace.leftOut += 1
                return nil
            }
            pace.tokens -= 1
            defer { pace.leftOut = 0 }
            return pace.leftOut
        }
        guard let leftOut else { return }
        var metadata: Logger.Metadata = [
            "drover.principal": "\(actor.principal.isEmpty ? "-" : actor.principal)", "drover.key": "\(actor.key)",
            "drover.peer": "\(actor.address.isEmpty ? "-" : actor.address)",
        ]
        metadata.merge(more) { $1 }
        if leftOut > 0 { metadata["drover.left_out"] = "\(leftOut)" }
        self.logger.log(level: level, message, metadata: metadata)
    }
}
