// SPDX-License-Identifier: Apache-2.0

internal import CDroverZMQ
import Glibc

/// What libzmq leaves undone with the descriptors of its connections.
package enum Descriptors {
    /// How many this process may have.
    package static var limit: Int {
        var limit = rlimit()
        guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 1024 }
        return Int(clamping: limit.rlim_cur)
    }

    /// The kernel's own number of a socket, which is never given again; nil of what is no socket.
    package static func cookie(of descriptor: CInt) -> UInt64? {
        var cookie: UInt64 = 0
        return unsafe drover_socket_cookie(descriptor, &cookie) == 0 ? cookie : nil
    }

    /// How many are open; nil if that can't be said.
    package static var openCount: Int? {
        guard let folder = unsafe opendir("/proc/self/fd") else { return nil }
        defer { _ = unsafe closedir(folder) }
        // Not the entries for the folder and its parent, nor the descriptor that reads it.
        var count = -3
        while unsafe readdir(folder) != nil { count += 1 }
        return count
    }

    /// Whether there is one left.
    package static var areLeft: Bool {
        let descriptor = drover_reserve_descriptor()
        guard descriptor >= 0 else { return false }
        _ = close(descriptor)
        return true
    }

    /// Whether one hears a signal, which is what libdispatch listens to signals by (`signalfd`); false if that can't be said.
    package static func hear(signal: CInt) -> Bool {
        guard let folder = unsafe opendir("/proc/self/fd") else { return false }
        defer { _ = unsafe closedir(folder) }
        while let entry = unsafe readdir(folder) {
            // By address: an entry has no more bytes than its name takes.
            guard let offset = MemoryLayout<dirent>.offset(of: \.d_name) else { return false }
            let name = unsafe String(cString: (UnsafeRawPointer(entry) + offset).assumingMemoryBound(to: CChar.self))
            guard let mask = self.signals(heardBy: name) else { continue }
            if mask & 1 << UInt64(signal - 1) != 0 { return true }
        }
        return false
    }

    /// The signals that an open descriptor hears, a bit for each; nil if it is not for signals.
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

    /// Lets nobody wait at a listener for somebody to come: libzmq and others accept at it.
    package static func neverBlock(_ descriptor: CInt) {
        let flags = fcntl(descriptor, F_GETFL)
        if flags >= 0 { _ = fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) }
    }

    /// Ends a connection, if the descriptor is still its own: libzmq sees that it was closed.
    ///
    /// - Returns: Whether it was.
    package static func shutDown(_ descriptor: CInt, cookie: UInt64) -> Bool {
        guard Self.cookie(of: descriptor) == cookie else { return false }
        return shutdown(descriptor, CInt(SHUT_RDWR)) == 0
    }
}

/// A descriptor that is kept for the moment when there is no other.
///
/// libzmq doesn't stop looking at a listener whose connections it can't accept, and spins for as long as there is one. Whoever has
/// kept a descriptor accepts it with that, and closes it.
package struct ReserveDescriptor: ~Copyable {
    private var descriptor: CInt

    package init() { self.descriptor = drover_reserve_descriptor() }

    deinit { if self.descriptor >= 0 { _ = close(self.descriptor) } }

    package var isThere: Bool { self.descriptor >= 0 }

    /// Makes it anew, if it was lost: somebody else may take the descriptor while a stranger is turned away.
    ///
    /// - Returns: Whether it is there.
    package mutating func renew() -> Bool {
        if self.descriptor < 0 { self.descriptor = drover_reserve_descriptor() }
        return self.descriptor >= 0
    }

    /// Turns away those who wait at a listener.
    ///
    /// - Parameters:
    ///   - listener: Its descriptor, at which nobody waits; see ``Descriptors/neverBlock(_:)``.
    ///   - most: How many at most.
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
