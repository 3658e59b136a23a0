// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import DroverZMQ
internal import Logging

// Connections that were closed. A ROUTER reports that a peer is gone only when something is sent to it, which may be
// two seconds later; the monitor reports at once that some connection was closed, by its descriptor.

extension BrokerLoop {
    /// Notes what the monitor saw, and probes the workers behind connections that were closed.
    @available(*, noasync)
    func lookAfterClosings() {
        if self.mayHaveClosings {
            self.observeClosings()
            self.gate.report(to: self.core.configuration.logger, at: self.now)
        }
        if self.gate.look(at: self.now) { self.gate.report(to: self.core.configuration.logger, at: self.now) }
        guard self.nextClosing <= self.now else { return }
        let due = self.closings.filter { $0.dueAt <= self.now }
        self.closings.removeAll { $0.dueAt <= self.now }
        for closing in due {
            // The descriptor may belong to another connection by now: only a failed send is proof.
            for worker in self.workerLinks.indices
            where self.workerLinks[worker]?.out.connection.descriptor == closing.descriptor {
                self.sendBeat(toWorker: worker)
            }
            if let next = closing.next { self.closings.append(next) }
        }
    }

    /// Records that a peer was turned away because only one side has keys; where it came from isn't known.
    private func mismatched() {
        let reason =
            self.core.access == nil
            ? "it has keys, and this broker has none: start the broker with --key and --allow-list (keys), or the other without"
            : "it has no keys: give it some (keys; --key and --server-key), and have them allowed with `drover keys allow`"
        self.core.audit.refused(AuditLog.Actor(principal: "", key: "", address: ""), "connect", because: reason)
    }

    /// When to probe workers next.
    var nextClosing: Instant { self.closings.reduce(.distantFuture) { min($0, $1.dueAt) } }

    /// Reads what the monitor saw.
    @available(*, noasync)
    func observeClosings() {
        self.mayHaveClosings = false
        do throws(ZMQError) {
            while let event = try self.port.monitor?.next() {
                self.gate.saw(event.kind)
                if self.core.access != nil, case .accepted(let descriptor) = event.kind {
                    self.connections.accepted(descriptor)
                }
                if event.kind == .handshakeFailedProtocol(code: Monitor.Event.mechanismMismatch) { self.mismatched() }
                guard case .disconnected(let descriptor) = event.kind else { continue }
                self.connectionClosed(descriptor)
                // Most connections that come and go are clients', for which the silence limit decides.
                guard self.workerLinks.contains(where: { $0?.out.connection.descriptor == descriptor }) else {
                    continue
                }
                self.now = self.core.now()
                self.closings.append(Closing(descriptor: descriptor, at: self.now))
            }
        } catch {
            self.core.configuration.logger.warning(
                "closed connections can't be watched; silence tells of workers that are gone",
                metadata: [LogKeys.error: "\(error)"]
            )
            self.port.monitor = nil
        }
    }
}

/// A connection that was closed, and when to probe whether its worker is gone.
struct Closing {
    let descriptor: CInt
    let dueAt: Instant
    private let isLast: Bool

    init(descriptor: CInt, at now: Instant) {
        self.init(descriptor: descriptor, dueAt: now.advanced(byNanoseconds: Self.firstNanoseconds), isLast: false)
    }

    private init(descriptor: CInt, dueAt: Instant, isLast: Bool) {
        self.descriptor = descriptor
        self.dueAt = dueAt
        self.isLast = isLast
    }

    /// The second probe: at the first, the socket may not have noticed yet.
    var next: Closing? {
        self.isLast
            ? nil
            : Closing(
                descriptor: self.descriptor,
                dueAt: self.dueAt.advanced(byNanoseconds: Self.secondNanoseconds),
                isLast: true
            )
    }

    private static var firstNanoseconds: UInt64 { 5_000_000 }
    private static var secondNanoseconds: UInt64 { 100_000_000 }
}
