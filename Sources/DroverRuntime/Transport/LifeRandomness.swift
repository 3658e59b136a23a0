// SPDX-License-Identifier: Apache-2.0

package import DroverWire

/// All that a client, a worker or a broker leaves to chance, drawn once when its life begins.
///
/// Nothing else in the libraries asks the system for random numbers, save keys and libzmq's routing ids: what is to be random
/// is added here, and can't be forgotten where it is used, since nothing that needs it has a default.
package struct LifeRandomness: Sendable {
    /// Names it among its peers.
    package let identity: PeerID
    /// Tells this life from others.
    package let epoch: UInt64
    /// Secret, so that no peer can choose ids that collide in its tables.
    package let seed: UInt64
    /// From 0 to 1: lets what many do at the same age come apart.
    package let spread: Double

    package init() {
        var generator = SystemRandomNumberGenerator()
        self.identity = PeerID(high: generator.next(), low: generator.next())
        self.epoch = generator.next()
        self.seed = generator.next()
        self.spread = .random(in: 0...1, using: &generator)
    }
}
