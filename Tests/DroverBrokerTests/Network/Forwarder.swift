// SPDX-License-Identifier: Apache-2.0

import Foundation
import Synchronization

/// Forwards TCP connections, each byte after a delay: a long way.
final class Forwarder: Sendable {
    /// Where it listens, on the loopback.
    let port: UInt16
    private let listener: CInt
    private let isClosed = Atomic<Bool>(false)

    /// Forwards to `target`; each byte takes `delay`, in each direction.
    init(to target: String, port targetPort: UInt16, delay: Duration) throws {
        self.listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = Self.address("127.0.0.1", 0)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let descriptor = self.listener
        let isListening = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                bind(descriptor, pointer, length) == 0 && listen(descriptor, 16) == 0
                    && getsockname(descriptor, pointer, &length) == 0
            }
        }
        guard isListening else { throw Hosts.Failure(message: "can't listen: errno \(errno)") }
        self.port = UInt16(bigEndian: address.sin_port)
        let nanoseconds = UInt64(delay / .nanoseconds(1))
        Thread.detachNewThread { [self] in
            while true {
                let near = accept(descriptor, nil, nil)
                guard near >= 0, !self.isClosed.load(ordering: .relaxed) else { return }
                let far = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
                var address = Self.address(target, targetPort)
                let isConnected = withUnsafePointer(to: &address) { pointer in
                    pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                        connect(far, pointer, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
                    }
                }
                guard isConnected else {
                    Glibc.close(near)
                    Glibc.close(far)
                    continue
                }
                Self.carry(near, to: far, nanoseconds)
                Self.carry(far, to: near, nanoseconds)
            }
        }
    }

    func close() {
        self.isClosed.store(true, ordering: .relaxed)
        shutdown(self.listener, Int32(SHUT_RDWR))
        Glibc.close(self.listener)
    }

    private static func address(_ host: String, _ port: UInt16) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        inet_pton(AF_INET, host, &address.sin_addr)
        return address
    }

    /// One thread reads and remembers when; another writes when the time has come.
    private static func carry(_ source: CInt, to sink: CInt, _ nanoseconds: UInt64) {
        let queue = Delayed()
        Thread.detachNewThread {
            var buffer = [UInt8](repeating: 0, count: 65_536)
            while true {
                let count = read(source, &buffer, buffer.count)
                guard count > 0 else { break }
                queue.push(Array(buffer.prefix(count)), at: DispatchTime.now().uptimeNanoseconds + nanoseconds)
            }
            queue.push([], at: DispatchTime.now().uptimeNanoseconds + nanoseconds)
        }
        Thread.detachNewThread {
            while true {
                let (bytes, due) = queue.next()
                let now = DispatchTime.now().uptimeNanoseconds
                if due > now { usleep(UInt32((due - now) / 1000)) }
                guard !bytes.isEmpty else { break }
                var sent = 0
                while sent < bytes.count {
                    let count = bytes[sent...]
                        .withUnsafeBytes { send(sink, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
                    guard count > 0 else { break }
                    sent += count
                }
            }
            shutdown(sink, Int32(SHUT_RDWR))
            shutdown(source, Int32(SHUT_RDWR))
        }
    }

    private final class Delayed: Sendable {
        private let chunks = Mutex<[(bytes: [UInt8], due: UInt64)]>([])
        private let count = DispatchSemaphore(value: 0)

        func push(_ bytes: [UInt8], at due: UInt64) {
            self.chunks.withLock { $0.append((bytes, due)) }
            self.count.signal()
        }

        func next() -> ([UInt8], UInt64) {
            self.count.wait()
            return self.chunks.withLock { $0.removeFirst() }
        }
    }
}
