// SPDX-License-Identifier: Apache-2.0

package import DroverCore
package import DroverZMQ
package import Logging

/// Who may connect to one listening socket: its allow-list in force, its place with the ZAP handler, its watch.
///
/// All ends when it is released.
package final class ListenerAccess: Sendable {
    package let policy: AccessPolicy
    /// The socket's ZAP domain.
    package let domain: String
    private let zap: ZAPHandler
    private let watcher: LoopThread
    /// The handler lives as long as its context.
    private let context: SharedContext

    /// Reads the allow-list and begins to answer for it.
    ///
    /// - Throws: ``UsageError`` if the allow-list can't be used.
    @available(*, noasync)
    package init(
        _ keys: ListenerKeys,
        in context: SharedContext,
        logger: Logger,
        onChange: @escaping @Sendable () -> Void
    ) throws {
        let rates = ConnectionRates(burst: keys.connectionBurst, perSecond: keys.connectionsPerSecond)
        let policy = try AccessPolicy(path: keys.allowList, rates: rates, logger: logger)
        self.policy = policy
        self.context = context
        self.zap = try context.zapHandler()
        self.watcher = try policy.startWatching(onChange: onChange)
        self.domain = self.zap.add { policy.judge($0) }
    }

    deinit {
        self.zap.remove(domain: self.domain)
        self.policy.stopWatching()
    }

    /// Who sent a message, by the key that its connection has proved; nil if the key isn't allowed any more.
    package func peer(of message: borrowing Message) -> LinkAccess? {
        guard let key = message.property("User-Id"), let grant = self.policy.grant(of: key) else { return nil }
        return LinkAccess(key: key, grant: grant, address: message.property("Peer-Address") ?? "")
    }

    /// Who sent a message that isn't let in, as far as that is known.
    package func stranger(of message: borrowing Message) -> AuditLog.Actor {
        AuditLog.Actor(
            principal: "",
            key: message.property("User-Id") ?? "-",
            address: message.property("Peer-Address") ?? ""
        )
    }
}

/// Whose a session is, and what they may do in it.
package struct LinkAccess: Sendable {
    package let key: String
    /// The key as libzmq keeps it, with a zero at its end.
    package let keyCharacters: [CChar]
    package var grant: AccessGrant
    package let address: String

    package init(key: String, grant: AccessGrant, address: String) {
        self.key = key
        self.keyCharacters = Array(key.utf8CString)
        self.grant = grant
        self.address = address
    }

    /// Whether a message came by a connection of the same key.
    package func sent(_ message: borrowing Message) -> Bool { message.hasProperty("User-Id", self.keyCharacters) }

    package var actor: AuditLog.Actor {
        AuditLog.Actor(principal: self.grant.principal, key: self.key, address: self.address)
    }

    /// Whom a handler is told that a call is from.
    package var caller: Caller? { Caller(principal: self.grant.principal, key: self.key, broker: nil) }
}
