// SPDX-License-Identifier: Apache-2.0

// Nothing leaves the machine in the clear unless somebody says so.

extension Endpoint {
    /// Refuses to listen where strangers could come in.
    ///
    /// - Parameters:
    ///   - hasKeys: Whether only allowed keys are let in.
    ///   - setting: What the keys are called in the configuration.
    ///   - allowsPlain: Whether the network is trusted.
    /// - Throws: ``UsageError`` that says what to do instead.
    package func checkBind(hasKeys: Bool, setting: String, allowsPlain: Bool) throws {
        guard !hasKeys, !self.isLocalToBind, !allowsPlain else { return }
        throw UsageError(
            .badConfiguration,
            "\(self) can be reached from other machines, unencrypted and by anybody: bind 127.0.0.1, or give it keys "
                + "and an allow-list (\(setting)), or set allowsUnencryptedNetwork if the network is trusted"
        )
    }

    /// Refuses to speak in the clear to another machine.
    package func checkDial(keys: ConnectionKeys?, allowsPlain: Bool) throws {
        if let tcp, tcp.port == nil || tcp.host == .any {
            throw UsageError(.badConfiguration, "\(self) names no one place to connect to: write tcp://HOST:PORT")
        }
        guard keys == nil, !self.isLocal, !allowsPlain else { return }
        throw UsageError(
            .badConfiguration,
            "the way to \(self) leaves this machine unencrypted: set keys, or allowsUnencryptedNetwork if the network is "
                + "trusted"
        )
    }

    /// What is said aloud when somebody begins to listen here; nil for nothing.
    package func warningToBind(hasKeys: Bool) -> String? {
        guard !hasKeys else { return nil }
        if !self.isLocalToBind {
            return
                "whoever reaches this address may do everything, and who is on the way can read and change it: there are no keys, "
                + "and allowsUnencryptedNetwork is set"
        }
        guard self.address.hasPrefix("ipc://@") else { return nil }
        return
            "every user of this machine may connect: an abstract socket has no file, and so no permissions; use a path, or keys"
    }

    /// What is said aloud when somebody begins to connect there; nil for nothing.
    package func warningToDial(hasKeys: Bool) -> String? {
        guard !hasKeys, !self.isLocal else { return nil }
        return
            "who is on the way can read and change all that is said, and pose as the other side: there are no keys, and "
            + "allowsUnencryptedNetwork is set"
    }
}
