// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// Ports that the system gives to nobody who asks for any port, though nobody listens at them.
///
/// A socket is bound to each and never listens: connections are refused, other tests' workers get other ports, and who asks for
/// the port itself, as libzmq does with `SO_REUSEADDR`, may have it.
enum ReservedPort {
    /// Reserves a port until this process ends.
    static func next() throws -> UInt16 {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        try #require(descriptor >= 0)
        var yes: Int32 = 1
        try #require(setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size)) == 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(INADDR_LOOPBACK).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let status = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
                bind(descriptor, generic, length) == 0 ? getsockname(descriptor, generic, &length) : -1
            }
        }
        try #require(status == 0)
        return UInt16(bigEndian: address.sin_port)
    }
}
