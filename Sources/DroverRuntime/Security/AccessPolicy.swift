// SPDX-License-Identifier: Apache-2.0

package import DroverCore
package import DroverZMQ
package import Logging
internal import Synchronization

/// The allow-list that is in force, and the thread that looks whether its file has changed.
///
/// Loops and the ZAP handler ask it without touching the disk.
package final class AccessPolicy: Sendable {
    /// The allow-list's file.
    package let path: String
    /// Where refusals are written down.
    package let audit: AuditLog
    /// Rises whenever another list comes into force.
    package var generation: UInt64 { self.changes.load(ordering: .acquiring) }
    private let changes = Atomic<UInt64>(1)
    private let logger: Logger
    private let list: Mutex<AccessList>
    private let rates: Mutex<ConnectionRates>
    private let watch: Watch

    /// What the watching thread and its owner share.
    private final class Watch: Sendable {
        let waker: Waker
        let isOver = Atomic(false)
        init() throws(ZMQError) { self.waker = try Waker() }
    }

    /// How often the file is looked at; a change counts when it has stood for a whole round, so that a half-written file
    /// isn't read.
    private static let roundMilliseconds = 400
    /// After so many rounds it is read even if it doesn't come to rest: nobody may put a revocation off by touching it.
    private static let maxRestlessRounds = 3

    /// Reads the allow-list.
    ///
    /// - Throws: ``UsageError`` if there is none, or it can't be understood.
    package init(path: String, rates: ConnectionRates, logger: Logger) throws {
        self.path = path
        self.logger = logger
        self.audit = AuditLog(logger: logger)
        self.watch = try Watch()
        self.list = Mutex(try Self.read(path))
        self.rates = Mutex(rates)
    }

    /// Reads an allow-list.
    package static func read(_ path: String) throws -> AccessList {
        let text = try Self.text(of: path)
        do throws(SecurityTextError) { return try AccessList(parsing: text, file: path) } catch {
            throw UsageError(.badConfiguration, "\(error)")
        }
    }

    /// Reads the text of an allow-list.
    package static func text(of path: String) throws -> String {
        try SecurityFile.read(
            path,
            limit: AccessList.maxBytes,
            forbiddenMode: 0o022,
            remedy: "others may write it, and so let anybody in; run chmod go-w \(path)",
            isOwnerTrusted: false
        )
    }

    /// What the owner of a key may do now; nil if it isn't let in.
    package func grant(of key: String) -> AccessGrant? { self.list.withLock { $0.grant(of: key) } }

    /// Decides about a connection.
    package func judge(_ request: ZAPRequest) -> ZAPVerdict {
        // 32 bytes are always Z85.
        guard let key = try? Z85.encode(request.publicKey) else { return .refused(reason: "no key") }
        if let grant = self.grant(of: key) {
            let now = Instant(nanoseconds: MonotonicClock.now())
            if self.rates.withLock({ $0.admits(key, at: now) }) { return .allowed(userID: key) }
            let actor = AuditLog.Actor(principal: grant.principal, key: key, address: request.address)
            self.audit.refused(
                actor,
                "connect",
                because:
                    "too many connections are opened with the key: raise connectionBurst or connectionsPerSecond of "
                    + "ListenerKeys if they are all wanted"
            )
            return .postponed(reason: "too many connections with this key")
        }
        let actor = AuditLog.Actor(principal: "", key: key, address: request.address)
        self.audit.refused(actor, "connect", because: "the key isn't on the allow-list \(self.path)")
        return .refused(reason: "the key isn't allowed")
    }

    /// Looks after the file from now on; `onChange` is called on the watching thread when another list is in force.
    ///
    /// - Returns: The thread, which ends after ``stopWatching()``.
    @available(*, noasync)
    package func startWatching(onChange: @escaping @Sendable () -> Void) throws -> LoopThread {
        let first = SecurityFile.stamp(of: self.path)
        return try LoopThread.start(named: "drover-keys") { [watch = self.watch, weak self] in
            var inForce = first
            var seen = first
            var restlessRounds = 0
            var poll = DescriptorPoll(capacity: 1)
            while !watch.isOver.load(ordering: .acquiring) {
                poll.removeAll()
                _ = poll.add(watch.waker.fileDescriptor)
                // A wait that fails makes the next look come early.
                try? poll.wait(milliseconds: Self.roundMilliseconds)
                guard !watch.isOver.load(ordering: .acquiring), let self else { return }
                let stamp = SecurityFile.stamp(of: self.path)
                let isAtRest = stamp == seen
                seen = stamp
                guard stamp != inForce else {
                    restlessRounds = 0
                    continue
                }
                restlessRounds += 1
                guard isAtRest || restlessRounds >= Self.maxRestlessRounds else { continue }
                switch self.reload() {
                case .changed: onChange()
                case .same: break
                case .unusable(let problem):
                    // Half written, perhaps: looked at again in the next round, and complained of once it stands.
                    guard isAtRest else { continue }
                    self.logger.error(
                        "the allow-list has changed and can't be used: the former one stays in force",
                        metadata: [LogKeys.file: "\(self.path)", LogKeys.error: "\(problem)"]
                    )
                }
                restlessRounds = 0
                inForce = stamp
            }
        }
    }

    /// Ends the watching thread.
    package func stopWatching() {
        self.watch.isOver.store(true, ordering: .releasing)
        self.watch.waker.wake()
    }

    private enum Reload {
        case changed
        case same
        case unusable(any Error)
    }

    private func reload() -> Reload {
        let list: AccessList
        do { list = try Self.read(self.path) } catch { return .unusable(error) }
        let isSame = self.list.withLock { present in
            defer { present = list }
            return present == list
        }
        // Touched, or commented: no reason to look at every session again.
        guard !isSame else { return .same }
        self.rates.withLock { rates in rates.forget { list.grant(of: $0) != nil } }
        self.changes.add(1, ordering: .releasing)
        self.logger.notice(
            "another allow-list is in force",
            metadata: [LogKeys.file: "\(self.path)", LogKeys.count: "\(list.entries.count)"]
        )
        if list.entries.isEmpty {
            self.logger.warning("the allow-list lets nobody in", metadata: [LogKeys.file: "\(self.path)"])
        }
        return .changed
    }
}
