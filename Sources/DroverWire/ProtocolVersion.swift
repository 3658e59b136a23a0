// SPDX-License-Identifier: Apache-2.0

/// The protocol's version: the major in every message's first byte, the minor agreed in the handshake.
package enum ProtocolVersion {
    /// Peers of different majors can't talk.
    @inlinable package static var major: UInt8 { 1 }
    /// The highest minor version this side speaks; the handshake settles on the smaller of the two.
    @inlinable package static var minor: UInt32 { 0 }
    /// The upper half of every message's first byte.
    @inlinable package static var magic: UInt8 { 0xD0 }
    /// The first byte of every message of this major.
    @inlinable package static var firstByte: UInt8 { self.magic | self.major }
}
