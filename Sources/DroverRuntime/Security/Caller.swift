// SPDX-License-Identifier: Apache-2.0

/// Who made a call, as the allow-list has it: for handlers that allow some callers more than others.
///
/// It rests on the key that the caller's connection has proved, never on anything that the caller says.
public struct Caller: Hashable, Sendable, CustomStringConvertible {
    /// The name in front of the key in the allow-list.
    ///
    /// Several keys may have the same.
    public let principal: String
    /// The key that was proved.
    public let publicKey: PublicKey
    /// The address of the broker that vouches for both, as this worker dials it; nil if the caller is connected to this worker itself.
    ///
    /// The principal is then a name of that broker's allow-list. Anyone with the broker's secret key can claim any.
    public let broker: String?

    /// - Returns: nil if the key is none.
    package init?(principal: String, key: String, broker: String?) {
        guard let publicKey = try? PublicKey(key) else { return nil }
        self.principal = principal
        self.publicKey = publicKey
        self.broker = broker
    }

    /// The principal.
    public var description: String { self.principal }
}
