// SPDX-License-Identifier: Apache-2.0

import Foundation

/// Reports this process's state to the service manager, as systemd's `sd_notify` does: a datagram to the socket that
/// `NOTIFY_SOCKET` names.
struct ServiceNotifier: Sendable {
    /// The socket's path; one that begins with `@` is in the abstract namespace.
    let path: String
    /// The time within which the manager wants to hear that the process is alive; nil if it doesn't watch.
    let watchdog: Duration?

    /// Creates a notifier; nil if no manager listens.
    init?(environment: [String: String], process: pid_t = getpid()) {
        guard let path = environment["NOTIFY_SOCKET"], path.hasPrefix("/") || path.hasPrefix("@") else { return nil }
        self.path = path
        // A child that inherited the variables isn't the process being watched.
        let isMeant = environment["WATCHDOG_PID"].map { $0 == "\(process)" } ?? true
        let microseconds = environment["WATCHDOG_USEC"].flatMap { Int64($0) }.flatMap { $0 > 0 ? $0 : nil }
        self.watchdog = isMeant ? microseconds.map { .microseconds($0) } : nil
    }

    func ready(_ status: String) { self.send("READY=1\nSTATUS=\(status)") }
    func alive() { self.send("WATCHDOG=1") }
    func stopping() { self.send("STOPPING=1\nSTATUS=draining") }

    /// Sends without waiting; returns whether the manager has the message.
    ///
    /// A manager that doesn't listen is no reason to end.
    @discardableResult
    func send(_ message: String) -> Bool {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        var name = Array(self.path.utf8)
        let isAbstract = name[0] == UInt8(ascii: "@")
        if isAbstract { name[0] = 0 }
        let offset = MemoryLayout<sockaddr_un>.offset(of: \.sun_path) ?? 2
        // A path's terminating zero byte counts towards the length; an abstract name ends where the length says.
        let length = offset + name.count + (isAbstract ? 0 : 1)
        guard length <= MemoryLayout<sockaddr_un>.size else { return false }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: name) }

        let descriptor = socket(AF_UNIX, CInt(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        let bytes = Array(message.utf8)
        let count = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                sendto(
                    descriptor,
                    bytes,
                    bytes.count,
                    CInt(MSG_DONTWAIT | MSG_NOSIGNAL),
                    address,
                    socklen_t(length)
                )
            }
        }
        return count == bytes.count
    }

    /// Reports that the process is alive for as long as it is, until the task is cancelled.
    ///
    /// - Parameter isAlive: Checks within the time it is given. If it takes longer, or returns false, nothing is
    ///   reported, and the manager's patience runs out.
    func keepReporting(_ isAlive: @Sendable (_ within: Duration) async -> Bool) async {
        guard let watchdog = self.watchdog else { return }
        // A check may take a whole pause and still be in time.
        let pause = watchdog / 4
        while !Task.isCancelled {
            if await isAlive(pause), !Task.isCancelled { self.alive() }
            // Cancellation ends the pause, and with it the loop.
            try? await Task.sleep(for: pause)
        }
    }
}
