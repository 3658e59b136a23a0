// SPDX-License-Identifier: Apache-2.0

internal import DroverZMQ
package import Logging
internal import Synchronization

/// Writes down who was refused, who looked at what concerns everybody, and who changed it.
///
/// Refusals and looks are at most so many lines a second that nobody can fill a disk with them; what is left out is
/// counted. Each principal has its own pace for each kind, so that none takes another's lines; those that have no name on the list
/// share one. What somebody changed is always written.
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

        /// Whether it has nothing to remember.
        func isRested(at now: UInt64) -> Bool {
            let seconds = Double(now - min(now, self.refilledAt)) / 1e9
            return self.leftOut == 0 && self.tokens + seconds * AuditLog.perSecond >= AuditLog.burst
        }

        /// - Returns: How many lines were left out before this one; nil if this one is left out, too.
        mutating func take(at now: UInt64) -> Int? {
            let seconds = Double(now - min(now, self.refilledAt)) / 1e9
            self.tokens = min(AuditLog.burst, self.tokens + seconds * AuditLog.perSecond)
            self.refilledAt = now
            guard self.tokens >= 1 else {
                self.leftOut += 1
                return nil
            }
            self.tokens -= 1
            defer { self.leftOut = 0 }
            return self.leftOut
        }
    }

    /// The pace of each principal, of few more than have written anything lately.
    private struct Paces {
        private var ofPrincipals: [String: Pace] = [:]
        private var ofTheRest = Pace()

        mutating func take(for principal: String, at now: UInt64) -> Int? {
            if self.ofPrincipals.count >= AuditLog.mostPaces, self.ofPrincipals[principal] == nil {
                self.ofPrincipals = self.ofPrincipals.filter { !$0.value.isRested(at: now) }
                guard self.ofPrincipals.count < AuditLog.mostPaces else { return self.ofTheRest.take(at: now) }
            }
            return self.ofPrincipals[principal, default: Pace()].take(at: now)
        }
    }

    /// How many principals have a pace of their own at once.
    private static let mostPaces = 1024
    /// So many lines of a kind may come at once.
    package static let burst = 50.0
    /// So many lines of a kind may follow in a second.
    private static let perSecond = 10.0

    private let logger: Logger
    private let refusals = Mutex(Paces())
    private let looks = Mutex(Paces())

    package init(logger: Logger) { self.logger = logger.legible }

    /// Somebody wanted something and didn't get it.
    package func refused(_ actor: Actor, _ action: String, because reason: String) {
        guard let leftOut = self.refusals.withLock({ $0.take(for: actor.principal, at: MonotonicClock.now()) }) else {
            return
        }
        let more: Logger.Metadata = [LogKeys.action: "\(action)", LogKeys.reason: "\(reason)"]
        self.write(.warning, "refused", actor, more, leftOut)
    }

    /// Somebody looked at what only few may see.
    package func asked(_ actor: Actor, _ question: String) {
        guard let leftOut = self.looks.withLock({ $0.take(for: actor.principal, at: MonotonicClock.now()) }) else {
            return
        }
        self.write(.notice, "an operator looked", actor, [LogKeys.action: "\(question)"], leftOut)
    }

    /// Somebody changed what concerns others.
    ///
    /// - Parameters:
    ///   - actor: Who did.
    ///   - action: What it is called on the command line.
    ///   - target: What it was done to.
    ///   - outcome: What came of it.
    package func acted(_ actor: Actor, _ action: String, on target: String, outcome: String) {
        let more: Logger.Metadata = [
            LogKeys.action: "\(action)", LogKeys.target: "\(target)", LogKeys.outcome: "\(outcome)",
        ]
        self.write(.notice, "an operator acted", actor, more, 0)
    }

    private func write(
        _ level: Logger.Level,
        _ message: Logger.Message,
        _ actor: Actor,
        _ more: Logger.Metadata,
        _ leftOut: Int
    ) {
        func shown(_ text: String) -> Logger.MetadataValue { .string(text.isEmpty ? "-" : text) }
        var metadata: Logger.Metadata = [
            LogKeys.principal: shown(actor.principal), LogKeys.key: shown(actor.key),
            LogKeys.peer: shown(actor.address),
        ]
        metadata.merge(more) { $1 }
        if leftOut > 0 { metadata["drover.left_out"] = "\(leftOut)" }
        self.logger.log(level: level, message, metadata: metadata)
    }
}
