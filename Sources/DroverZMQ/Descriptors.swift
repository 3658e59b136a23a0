// SPDX-License-Identifier: Apache-2.0

internal import CDroverZMQ
import Glibc

/// What libzmq leaves undone for the descriptors of its connections.
package enum Descriptors {
    /// How many descriptors this process may have.
    package static var limit: Int {
        var limit = rlimit()
        guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 1024 }
        return Int(clamping: limit.rlim_cur)
    }

    /// The kernel's own number for a socket, which is never reused; nil for a descriptor that isn't a socket.
    package static func cookie(of descriptor: CInt) -> UInt64? {
        var cookie: UInt64 = 0
        return unsafe drover_socket_cookie(descriptor, &cookie) == 0 ? cookie : nil
    }

    /// How many descriptors are open; nil if that can't be determined.
    package static var openCount: Int? {
        guard let folder = unsafe opendir("/proc/self/fd") else { return nil }
        defer { _ = unsafe closedir(folder) }
        // Leaves out the entries for the folder and its parent, and the descriptor used to read it.
        var count = -3
        while unsafe readdir(folder) != nil { count += 1 }
        return count
    }

    /// Whether another descriptor can be had.
    package static var areLeft: Bool {
        let descriptor = drover_reserve_descriptor()
        guard descriptor >= 0 else { return false }
        _ = close(descriptor)
        return true
    }

    /// Whether a descriptor receives a signal by `signalfd`, as libdispatch does; false if that can't be determined.
    package static func hear(signal: CInt) -> Bool {
        guard let folder = unsafe opendir("/proc/self/fd") else { return false }
        defer { _ = unsafe closedir(folder) }
        while let entry = unsafe readdir(folder) {
            // Read by address: an entry only has as many bytes as its name takes.
            guard let offset = MemoryLayout<dirent>.offset(of: \.d_name) else { return false }
            let name = unsafe String(cString: (UnsafeRawPointer(entry) + offset).assumingMemoryBound(to: CChar.self))
            guard let mask = self.signals(heardBy: name) else { continue }
            if mask & 1 << UInt64(signal - 1) != 0 { return true }
        }
        return false
    }

    /// The signals that an open descriptor receives, one bit for each; nil if it isn't a `signalfd`.
    private static func signals(heardBy name: String) -> UInt64? {
        var target = [CChar](repeating: 0, count: 32)
        let length = unsafe readlink("/proc/self/fd/\(name)", &target, target.count)
        let link = target.prefix(max(0, length)).lazy.map { UInt8(bitPattern: $0) }
        guard link.elementsEqual("anon_inode:[signalfd]".utf8) else { return nil }
        let file = unsafe open("/proc/self/fdinfo/\(name)", O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return nil }
        defer { _ = close(file) }
        var text = [UInt8](repeating: 0, count: 512)
        let count = unsafe text.withUnsafeMutableBytes { unsafe read(file, $0.baseAddress, $0.count) }
        let lines = String(decoding: text.prefix(max(0, count)), as: UTF8.self).split(separator: "\n")
        let line = lines.first { $0.hasPrefix("sigmask:") }
        return line?.split(separator: "\t").last.flatMap { UInt64($0, radix: 16) }
    }

    /// Makes accepting at a listener never block: libzmq and others accept there.
    package static func neverBlock(_ descriptor: CInt) {
        let flags = fcntl(descriptor, F_GETFL)
        if flags >= 0 { _ = fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) }
    }

    /// Shuts a connection down, if the descriptor still belongs to it: libzmq then sees that it was closed.
    ///
    /// - Returns: Whether it was shut down.
    package static func shutDown(_ descriptor: CInt, cookie: UInt64) -> Bool {
        guard Self.cookie(of: descriptor) == cookie else { return false }
        return shutdown(descriptor, CInt(SHUT_RDWR)) == 0
    }
}

/// A descriptor held in reserve for when there are no others.
///
/// libzmq keeps polling a listener whose connections it can't accept, and spins as long as one is waiting. Giving up
/// the reserve makes room to accept such a connection and close it.
package struct ReserveDescriptor: ~Copyable {
    private var descriptor: CInt

    package init() { self.descriptor = drover_reserve_descriptor() }

    deinit { if self.descriptor >= 0 { _ = close(self.descriptor) } }

    package var isThere: Bool { self.descriptor >= 0 }

    /// Opens the reserve again if it was lost: another thread may take the descriptor while a connection is turned
    /// away.
    ///
    /// - Returns: Whether there is a reserve now.
    package mutating func renew() -> Bool {
        if self.descriptor < 0 { self.descriptor = drover_reserve_descriptor() }
        return self.descriptor >= 0
    }

    /// Turns away the connections that wait at a listener.
    ///
    /// - Parameters:
    ///   - listener: The listener's descriptor, at which accepting doesn't block; see ``Descriptors/neverBlock(_:)``.
    ///   - most: The most connections to turn away.
    /// - Returns: How many there were.
    package mutating func turnAway(from listener: CInt, most: Int) -> Int {
        if self.descriptor >= 0 { _ = close(self.descriptor) }
        var count = 0
        while count < most {
            let stranger = accept(listener, nil, nil)
            guard stranger >= 0 else { break }
            _ = close(stranger)
            count += 1
        }
        self.descriptor = drover_reserve_descriptor()
        return count
    }
}
