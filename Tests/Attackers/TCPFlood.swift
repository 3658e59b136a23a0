// SPDX-License-Identifier: Apache-2.0

import Foundation
import Synchronization

/// TCP connections that say nothing, opened again as soon as they are closed.
final class TCPFlood: Sendable {
    private let isOver = Atomic(false)
    private let hasEnded = Atomic(false)
    /// All were open at once.
    private let isFull = Atomic(false)
    private let openedCount = Atomic<Int>(0)

    /// How many were opened so far.
    var opened: Int { self.openedCount.load(ordering: .relaxed) }

    /// Opens so many to a port of this machine, and keeps them open.
    init(to endpoint: String, count: Int) {
        let port = endpoint.split(separator: ":").last.flatMap { UInt16($0) } ?? 0
        let thread = Thread { [self] in
            var descriptors: [CInt] = []
            while !self.isOver.load(ordering: .relaxed) {
                // All at once at first, then one in two milliseconds: what is closed is opened again.
                var opened = 0
                while descriptors.count < count, opened == 0 || !self.isFull.load(ordering: .relaxed),
                    let descriptor = Self.connection(to: port)
                {
                    opened += 1
                    descriptors.append(descriptor)
                    self.openedCount.add(1, ordering: .relaxed)
                }
                if descriptors.count >= count { self.isFull.store(true, ordering: .relaxed) }
                descriptors.removeAll { descriptor in
                    var byte: UInt8 = 0
                    let count = recv(descriptor, &byte, 1, CInt(MSG_DONTWAIT))
                    // The victim's greeting, or nothing yet.
                    if count > 0 || (count < 0 && errno == EAGAIN) { return false }
                    close(descriptor)
                    return true
                }
                usleep(2000)
            }
            for descriptor in descriptors { close(descriptor) }
            self.hasEnded.store(true, ordering: .releasing)
        }
        thread.start()
    }

    /// Closes all.
    func end() {
        self.isOver.store(true, ordering: .relaxed)
        while !self.hasEnded.load(ordering: .acquiring) { usleep(1000) }
    }

    /// Lets this process have more files open, as far as it may.
    static func raiseLimit(to count: Int) {
        var limit = rlimit()
        let kind = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        guard getrlimit(kind, &limit) == 0, limit.rlim_cur < rlim_t(count) else { return }
        limit.rlim_cur = min(limit.rlim_max, rlim_t(count))
        _ = setrlimit(kind, &limit)
    }

    private static func connection(to port: UInt16) -> CInt? {
        let descriptor = socket(AF_INET, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_NONBLOCK.rawValue), 0)
        guard descriptor >= 0 else { return nil }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isUnderWay = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, size) == 0 || errno == EINPROGRESS
            }
        }
        if isUnderWay { return descriptor }
        close(descriptor)
        return nil
    }
}
