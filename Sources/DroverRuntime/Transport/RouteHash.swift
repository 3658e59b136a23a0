// SPDX-License-Identifier: Apache-2.0

extension UInt64 {
    /// A number for a route whose id its peer has chosen.
    ///
    /// A table of such ids would be one that others fill. The hash has a secret seed, so nobody can choose ids that collide,
    /// and so many bits that hardly any do by chance. It is beyond the numbers of the ids that libzmq gives, and below those
    /// of brokers that a worker has dialled.
    package init(hashOfRoute bytes: UnsafeRawBufferPointer) {
        var hasher = Hasher()
        unsafe hasher.combine(bytes: bytes)
        self = (1 << 47) | (UInt64(bitPattern: Int64(hasher.finalize())) & ((1 << 47) - 1))
    }
}
