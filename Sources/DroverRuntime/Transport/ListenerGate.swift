// SPDX-License-Identifier: Apache-2.0

package import DroverCore
package import DroverZMQ
package import Logging

/// Keeps a listening socket open for those who speak: closes connections by which nobody does when there are too many, and turns away
/// those for which there is no descriptor.
///
/// It is told what the socket's monitor saw, and belongs to the loop's thread. libzmq can't close a connection, nor does it stop
/// trying to accept one that it has no descriptor for. Each try that fails could be told by the monitor, faster than anybody reads:
/// so the gate looks by itself whether there is a descriptor left.
package struct ListenerGate: ~Copyable {
    /// What the monitor must tell of.
    package static let events: Monitor.Events = [.listening, .accepted, .disconnected]

    private var newcomers: Newcomers
    private var reserve = ReserveDescriptor()
    private var listeners: [CInt] = []
    private let descriptors: Int
    /// Connections that were accepted and stand, by their descriptors.
    private var connections: Set<CInt> = []
    /// How many of them are enough: the process needs some descriptors itself.
    private var mostConnections = Int.max
    /// The last one that was accepted.
    private var newest: Newcomers.Connection?
    /// When to look for descriptors next.
    package private(set) var nextLook = Instant.distantFuture
    /// Connections that were closed or turned away, so far, and at the last report.
    package private(set) var closedCount = 0
    package private(set) var turnedAwayCount = 0
    private var reportedCount = 0
    private var nextReport = Instant(nanoseconds: 0)

    package init() {
        self.descriptors = Descriptors.limit
        self.newcomers = Newcomers(descriptors: self.descriptors)
    }

    /// How many turned away at once are enough: the loop has other things to do.
    private static var mostAtOnce: Int { 64 }
    private static var lookNanoseconds: UInt64 { 1_000_000_000 }
    private static var shortageNanoseconds: UInt64 { 20_000_000 }

    /// The monitor saw something.
    package mutating func saw(_ event: Monitor.Event.Kind) {
        switch event {
        case .listening(let descriptor): self.listens(descriptor)
        case .accepted(let descriptor): self.came(descriptor)
        case .disconnected(let descriptor):
            self.connections.remove(descriptor)
            self.newcomers.left(descriptor)
        default: break
        }
    }

    private mutating func listens(_ descriptor: CInt) {
        Descriptors.neverBlock(descriptor)
        self.listeners.append(descriptor)
        self.nextLook = Instant(nanoseconds: 0)
        let own = Descriptors.openCount ?? 32
        self.mostConnections = max(8, self.descriptors - own - max(8, self.descriptors / 16))
    }

    /// Looks whether there is a descriptor left, once that is due; if not, those who wait at the listeners are turned away.
    ///
    /// - Returns: Whether it was due.
    package mutating func look(at now: Instant) -> Bool {
        guard now >= self.nextLook else { return false }
        guard !self.reserve.renew() || !Descriptors.areLeft else {
            self.nextLook = now.advanced(byNanoseconds: Self.lookNanoseconds)
            return true
        }
        self.nextLook = now.advanced(byNanoseconds: Self.shortageNanoseconds)
        let oldest = self.newcomers.ranShort()
        for connection in oldest { self.close(connection) }
        // libzmq may have taken the reserve for a connection that was introduced since. Somebody has to go.
        if oldest.isEmpty, !self.reserve.isThere, let newest = self.newest {
            self.close(newest)
            self.newest = nil
        }
        for listener in self.listeners {
            self.turnedAwayCount += self.reserve.turnAway(from: listener, most: Self.mostAtOnce)
        }
        return true
    }

    /// A session was introduced by a connection, and perhaps by another one before.
    ///
    /// - Returns: What the session is to remember; nil of a connection without a descriptor.
    package mutating func introduced(
        by descriptor: CInt,
        before former: Newcomers.Connection?
    ) -> Newcomers.Connection? {
        self.newcomers.left(descriptor)
        let connection = Self.connection(descriptor)
        if former != connection { self.isNobodys(former) }
        return connection
    }

    /// A session that had been introduced by a connection has ended, or goes on by another.
    package mutating func isNobodys(_ connection: Newcomers.Connection?) {
        // The descriptor may be another connection's by now.
        guard let connection, Self.connection(connection.descriptor) == connection else { return }
        if let oldest = self.newcomers.came(connection, isFull: self.isFull) { self.close(oldest) }
    }

    private var isFull: Bool { self.connections.count > self.mostConnections }

    private mutating func came(_ descriptor: CInt) {
        // It may be closed by now: the news of that is on its way.
        self.connections.insert(descriptor)
        guard let connection = Self.connection(descriptor) else { return }
        self.newest = connection
        if let oldest = self.newcomers.came(connection, isFull: self.isFull) { self.close(oldest) }
    }

    private static func connection(_ descriptor: CInt) -> Newcomers.Connection? {
        guard descriptor >= 0 else { return nil }
        return Descriptors.cookie(of: descriptor).map { Newcomers.Connection(descriptor: descriptor, cookie: $0) }
    }

    private mutating func close(_ connection: Newcomers.Connection) {
        if Descriptors.shutDown(connection.descriptor, cookie: connection.cookie) { self.closedCount += 1 }
    }

    /// Says what was closed since, once in some seconds.
    package mutating func report(to logger: Logger, at now: Instant) {
        let count = self.closedCount + self.turnedAwayCount
        guard count != self.reportedCount, now >= self.nextReport else { return }
        self.nextReport = now.advanced(byNanoseconds: 5_000_000_000)
        self.reportedCount = count
        logger.warning(
            "connections were closed for want of descriptors: raise the limit (ulimit -n), or keep out who opens so many",
            metadata: [
                LogKeys.silent: "\(self.closedCount)", LogKeys.turnedAway: "\(self.turnedAwayCount)",
                LogKeys.waiting: "\(self.newcomers.count)", LogKeys.limit: "\(self.descriptors)",
            ]
        )
    }
}
