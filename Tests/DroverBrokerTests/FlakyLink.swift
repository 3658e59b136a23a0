// SPDX-License-Identifier: Apache-2.0

import Foundation
import Synchronization
import Testing

/// Forwards TCP connections on the loopback, until it is told to close them all for a while, or to hold all bytes back.
final class FlakyLink: Sendable {
    private let listener: CInt
    private let target: UInt16
    private let downUntil = Atomic<UInt64>(0)
    private let isHeld = Atomic<Bool>(false)
    private let isClosed = Atomic<Bool>(false)
    /// Where it listens.
    let endpoint: String

    /// Forwards to an endpoint on the loopback.
    init(to endpoint: String) throws {
        self.target = try #require(endpoint.split(separator: ":").last.flatMap { UInt16($0) })
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        self.listener = descriptor
        var address = Self.loopback(0)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isListening = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                bind(descriptor, pointer, length) == 0 && listen(descriptor, 64) == 0
                    && getsockname(descriptor, pointer, &length) == 0
            }
        }
        try #require(isListening)
        self.endpoint = "tcp://127.0.0.1:\(UInt16(bigEndian: address.sin_port))"
        Thread.detachNewThread { self.forward() }
    }

    /// Closes all connections, and each new one for so long.
    func cut(for time: Duration) {
        let end = DispatchTime.now().uptimeNanoseconds + UInt64(time / .nanoseconds(1))
        self.downUntil.store(end, ordering: .relaxed)
    }

    /// Holds all bytes back until it is told to go on.
    func hold(_ isHeld: Bool) { self.isHeld.store(isHeld, ordering: .releasing) }

    func close() { self.isClosed.store(true, ordering: .relaxed) }

    private func forward() {
        var peer: [CInt: CInt] = [:]
        func drop(_ descriptor: CInt) {
            guard let other = peer.removeValue(forKey: descriptor) else { return }
            peer[other] = nil
            Glibc.close(descriptor)
            Glibc.close(other)
        }
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while !self.isClosed.load(ordering: .relaxed) {
            let isDown = DispatchTime.now().uptimeNanoseconds < self.downUntil.load(ordering: .relaxed)
            if isDown { for descriptor in Array(peer.keys) { drop(descriptor) } }
            if self.isHeld.load(ordering: .acquiring) {
                usleep(1000)
                continue
            }
            var polled = ([self.listener] + peer.keys).map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
            guard poll(&polled, nfds_t(polled.count), 2) > 0 else { continue }
            for entry in polled where entry.revents != 0 {
                if entry.fd == self.listener {
                    let near = accept(self.listener, nil, nil)
                    guard near >= 0 else { continue }
                    let far = isDown ? -1 : self.connectToTarget()
                    if far >= 0 { (peer[near], peer[far]) = (far, near) } else { Glibc.close(near) }
                    continue
                }
                guard let sink = peer[entry.fd] else { continue }
                let count = read(entry.fd, &buffer, buffer.count)
                var sent = 0
                while sent < count {
                    let more = buffer[sent..<count]
                        .withUnsafeBytes { send(sink, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
                    guard more > 0 else { break }
                    sent += more
                }
                if count <= 0 || sent < count { drop(entry.fd) }
            }
        }
        for descriptor in Array(peer.keys) { drop(descriptor) }
        Glibc.close(self.listener)
    }

    private func connectToTarget() -> CInt {
        let far = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = Self.loopback(self.target)
        let isConnected = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                connect(far, pointer, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
        if isConnected { return far }
        Glibc.close(far)
        return -1
    }

    private static func loopback(_ port: UInt16) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(INADDR_LOOPBACK).bigEndian
        return address
    }
}
